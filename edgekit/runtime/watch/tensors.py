"""How far the values of a tensor have moved from those that a bundle was calibrated with.

Drift is the population stability index (Siddiqi, *Credit Risk Scorecards*, 2006): ``sum((p - e) * ln(p / e))`` over
bins that held about a tenth of the calibration's values each, and two that held none, below and above its range; 0.1 is
usually called a small shift and 0.25 a large one. Saturation is the share of values in those two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.artifact import Array
from edgekit.errors import BundleError

LEAST_SHARE = 1e-4  # of a bin: an empty one would make the index infinite
_EXPECTED_BEFORE = 10.0  # values counted in advance where they are expected: of few, an empty bin says little
SOURCES = ("calibration", "test")


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """What the values of one channel were like.

    Attributes:
        minimum: The smallest.
        maximum: The greatest.
        mean: Their mean.
        std: Their standard deviation.
        quantiles: At the statistics' levels.
        edges: Inner edges of the bins, ascending, between values that occurred; a value on an edge is below it.
        shares: Share of the values in each bin, one more than edges.
    """

    minimum: float
    maximum: float
    mean: float
    std: float
    quantiles: tuple[float, ...]
    edges: tuple[float, ...]
    shares: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorStatistics:
    """What one tensor was like.

    Attributes:
        name: Tensor name.
        axis: The axis of the channels, 1 or the last; None: all values are one channel.
        values: How many there were in each channel.
        drift_noise: The drift that samples of the same kind show, window by window: 99 of 100 windows less than that.
        channels: One a channel.
    """

    name: str
    axis: int | None
    values: int
    drift_noise: float
    channels: tuple[Channel, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """What a bundle's inputs and outputs were like when it was made.

    Attributes:
        source: ``calibration`` or ``test``: which samples.
        samples: How many.
        window: Samples a window of ``drift_noise``.
        levels: Of the quantiles, 0 to 1.
        inputs: One a model input of numbers.
        outputs: One a model output, of the artifact itself.
    """

    source: str
    samples: int
    window: int
    levels: tuple[float, ...]
    inputs: tuple[TensorStatistics, ...]
    outputs: tuple[TensorStatistics, ...]


def parse_statistics(raw: Mapping[str, Any], where: Path) -> Statistics:
    """Builds statistics from their JSON form in a manifest.

    Raises:
        BundleError: They are not what edgekit writes.
    """
    try:
        sides = {side: tuple(_tensor(tensor) for tensor in raw[side]) for side in ("inputs", "outputs")}
        found = Statistics(
            source=str(raw["source"]),
            samples=int(raw["samples"]),
            window=int(raw["window"]),
            levels=_numbers(raw["levels"]),
            **sides,
        )
        if found.samples < 1 or found.window < 1:
            raise ValueError("no samples")
    except (KeyError, TypeError, ValueError, OverflowError) as exc:
        raise BundleError(
            f"{where}: the statistics in it cannot be read",
            found=f"{type(exc).__name__}: {exc}",
            fix="copy the bundle again, or make it again",
        ) from exc
    return found


def _tensor(raw: Mapping[str, Any]) -> TensorStatistics:
    channels = tuple(_channel(channel) for channel in raw["channels"])
    axis = raw["axis"]
    if not channels or (axis is None and len(channels) > 1) or not (axis is None or type(axis) is int):
        raise ValueError(f"{len(channels)} channels on axis {axis!r}")
    return TensorStatistics(
        name=str(raw["name"]),
        axis=axis,
        values=int(raw["values"]),
        drift_noise=_number(raw["drift_noise"]),
        channels=channels,
    )


def _channel(raw: Mapping[str, Any]) -> Channel:
    edges, shares = _numbers(raw["edges"]), _numbers(raw["shares"])
    if len(shares) != len(edges) + 1 or list(edges) != sorted(set(edges)) or abs(sum(shares) - 1) > 0.01:
        raise ValueError("bins that do not fit their shares")
    return Channel(
        minimum=_number(raw["minimum"]),
        maximum=_number(raw["maximum"]),
        mean=_number(raw["mean"]),
        std=_number(raw["std"]),
        quantiles=_numbers(raw["quantiles"]),
        edges=edges,
        shares=shares,
    )


def _numbers(raw: Sequence[Any]) -> tuple[float, ...]:
    return tuple(_number(value) for value in raw)


def _number(value: Any) -> float:
    if type(value) not in (int, float) or not np.isfinite(value):
        raise ValueError(f"{value!r} is no number")
    return float(value)


def picked(array: Array, axis: int | None, most: int, start: int = 0) -> Array:
    """Evenly spread values of every sample and channel.

    Args:
        array: ``[n, ...]``.
        axis: The axis of the channels, 1 or the last; None: all values are one channel.
        most: Values of one sample, about.
        start: Where the first is taken; others at other times see every value in the end.

    Returns:
        ``[n, channels, k]``, a view where one will do.
    """
    count = len(array)
    if axis is None or axis == 1:
        flat = array.reshape(count, 1 if axis is None else array.shape[1], -1)
    else:
        flat = array.reshape(count, -1, array.shape[-1]).swapaxes(1, 2)
    channels, length = flat.shape[1:]
    step = max(1, min(length, channels * length // most))
    return flat[:, :, start % step :: step]


def psi(counts: Array, shares: Array) -> Array:
    """The population stability index of each channel.

    Args:
        counts: Values in each bin, ``[..., channels, bins]``.
        shares: Share of each bin in calibration, ``[channels, bins]``; 0 for bins that a channel does not have.

    Returns:
        ``[..., channels]``; 0 where nothing was counted.
    """
    total = counts.sum(axis=-1, keepdims=True)
    expected = np.maximum(shares, LEAST_SHARE)
    found = np.maximum((counts + _EXPECTED_BEFORE * shares) / (total + _EXPECTED_BEFORE), LEAST_SHARE)
    index: Array = ((found - expected) * np.log(found / expected)).sum(axis=-1)
    return np.where(total[..., 0] > 0, index, 0.0)


def padded(rows: Sequence[Sequence[float]], fill: float) -> Array:
    """Rows of different lengths as one float64 array."""
    width = max(map(len, rows))
    return np.array([[*row, *[fill] * (width - len(row))] for row in rows], np.float64).reshape(len(rows), width)


def binned(values: Array, edges: Array) -> Array:
    """How many values of each channel are in each of its bins; NaN is in none.

    Args:
        values: ``[n, channels, k]`` of numbers; infinite ones are NaN already.
        edges: ``[channels, e]``, ascending, filled up with infinity.

    Returns:
        int64 ``[n, channels, e + 1]``.
    """
    above = np.count_nonzero(values[:, :, np.newaxis, :] > edges[:, :, np.newaxis], axis=3)
    total = np.count_nonzero(values == values, axis=2)[..., np.newaxis]  # only NaN differs
    below: Array = np.concatenate([total, above], axis=2)
    counts: Array = below - np.concatenate([above, np.zeros_like(total)], axis=2)
    return counts
