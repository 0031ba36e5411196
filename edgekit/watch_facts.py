"""What a bundle carries for being watched: statistics of its calibration samples, and the limits of its recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from edgekit.artifact import Array, Artifact, TensorSpec
from edgekit.checking import runnable
from edgekit.data import RANDOM, Samples
from edgekit.errors import EngineError
from edgekit.processing_specs import Preprocessing
from edgekit.recipe_watch import WatchSpec
from edgekit.runtime import open_artifact
from edgekit.runtime.numbers import run_batched
from edgekit.runtime.watch_settings import LIMITS, PERCENTILES
from edgekit.runtime.watch_tensors import binned, padded, picked, psi
from edgekit.runtime.watch_windows import VALUES
from edgekit.specs import Profile

LEVELS = (0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999)
USUAL_DRIFT = 0.25
USUAL_SATURATED = 0.01
_NOISE_MARGIN, _CHANCE_MARGIN = 1.5, 3.0
_VALUES = 4096  # kept of each sample of a tensor
_MOST_SAMPLES, _MOST_CHANNELS, _CHUNK, _BINS, _WINDOWS = 512, 64, 32, 10, 200
_DIGITS = 7  # a float32's; more would tell one engine build from another


def reference_statistics(
    artifact: Artifact,
    calibration: Samples | None,
    test: Samples,
    spec: WatchSpec,
    in_graph: Preprocessing | None = None,
) -> dict[str, Any] | None:
    """What inputs and outputs of an artifact are like on real samples, as JSON for a manifest.

    Args:
        artifact: A compiled artifact; its outputs are its own.
        calibration: The samples that calibrated it; None: the test samples are looked at.
        test: The check samples.
        spec: The recipe's table.
        in_graph: The preprocessing that its own graph does, so that its inputs are raw samples; None: none.

    Returns:
        As :func:`edgekit.runtime.watch_tensors.parse_statistics` reads it; None where the recipe wants none, or there
        are no real samples.

    Raises:
        EngineError: The engine fails on a sample, or a tensor is not finite.
    """
    samples = test if calibration is None else calibration
    if not spec.statistics or samples.name == RANDOM:
        return None
    layouts = {} if in_graph is None else {in_graph.input: in_graph.layout}
    if in_graph is not None:
        samples = replace(samples, preprocessing=None)
    elif samples.preprocessing is not None and samples.preprocessing.layout != "any":
        layouts = {samples.preprocessing.input: samples.preprocessing.model_layout}
    indices = np.unique(np.linspace(0, len(samples) - 1, num=min(len(samples), _MOST_SAMPLES)).astype(np.int64))
    batch = max([s.shape[0] for s in artifact.inputs if s.shape and isinstance(s.shape[0], int)], default=1)
    inputs, outputs = (
        {s.name: _Tally(_axis(s, layouts.get(s.name)), max(VALUES // batch, 1)) for s in specs if _counts(s)}
        for specs in (artifact.inputs, artifact.outputs)
    )
    session = open_artifact(runnable(artifact))
    try:
        for start in range(0, len(indices), _CHUNK):
            feeds = samples.tensors(indices[start : start + _CHUNK])
            found = run_batched(session, feeds)
            for tallies, tensors in ((inputs, feeds), (outputs, found)):
                for name, tally in tallies.items():
                    _check_finite(name, tensors[name], artifact.engine)
                    tally.add(tensors[name])
    finally:
        session.close()
    return {
        "source": "test" if calibration is None else "calibration",
        "samples": len(indices),
        "window": spec.samples,
        "levels": LEVELS,
        "inputs": [row for name, tally in inputs.items() if (row := tally.row(name, spec.samples))],
        "outputs": [row for name, tally in outputs.items() if (row := tally.row(name, spec.samples))],
    }


def watch_settings(spec: WatchSpec, profile: Profile, statistics: Mapping[str, Any] | None) -> dict[str, Any]:
    """How a bundle is watched, as JSON for its manifest: every limit a number, its default decided.

    Args:
        spec: The recipe's table.
        profile: What was to be met when it was made: its percentiles are kept on the device too.
        statistics: The bundle's.
    """
    limits = {name: value for name, value in spec.limits.model_dump().items() if value is not None}
    for name in PERCENTILES:
        limit = getattr(profile.limits, name)
        if limit is not None:
            limits.setdefault(name, limit)
    limits.setdefault("silence_s", 3 * spec.period_s)
    if statistics is not None:
        for name, side in (("drift", "inputs"), ("output_drift", "outputs")):
            noise = max((tensor["drift_noise"] for tensor in statistics[side]), default=0.0)
            limits.setdefault(name, round(max(USUAL_DRIFT, _NOISE_MARGIN * noise), 3))
        # One more value of the same kind is outside the range of n with a probability of 2 / (n + 1).
        chance = max((2 / (tensor["values"] + 1) for tensor in statistics["inputs"]), default=0.0)
        limits.setdefault("saturated_share", round(min(max(USUAL_SATURATED, _CHANCE_MARGIN * chance), 0.5), 4))
    else:
        limits.pop("saturated_share", None)
    kept = {name: limits[name] for name in LIMITS if limits.get(name, False) is not False}
    return {"every": spec.every, "period_s": spec.period_s, "window_s": spec.window_s, "limits": kept}


class _Tally:
    """What is kept of one tensor's values: sums over all, and evenly spread ones of every sample.

    Args:
        axis: The axis of the channels; None: there is one.
        looked_at: Values of a sample that a watch will look at.
    """

    def __init__(self, axis: int | None, looked_at: int) -> None:
        self.axis = axis
        self.looked_at = looked_at
        self.count = 0
        self.sums: Array = np.zeros(())
        self.squares: Array = np.zeros(())
        self.low: Array = np.zeros(())
        self.high: Array = np.zeros(())
        self.kept: list[Array] = []

    def add(self, array: Array) -> None:
        """Counts a chunk of samples."""
        values = picked(array, self.axis, array.size).astype(np.float64)
        low, high = values.min(axis=(0, 2)), values.max(axis=(0, 2))
        first = not self.kept
        self.low, self.high = (low, high) if first else (np.minimum(self.low, low), np.maximum(self.high, high))
        self.sums = self.sums + values.sum(axis=(0, 2))
        self.squares = self.squares + np.square(values).sum(axis=(0, 2))
        self.count += values.shape[0] * values.shape[2]
        step = max(1, values.shape[1] * values.shape[2] // _VALUES)
        self.kept.append(values[:, :, len(self.kept) % step :: step].astype(np.float32))

    def row(self, name: str, window: int) -> dict[str, Any]:
        """The tensor's statistics as JSON."""
        shortest = min(kept.shape[2] for kept in self.kept)
        values = np.concatenate([kept[:, :, :shortest] for kept in self.kept]).astype(np.float64)
        columns = np.sort(values.swapaxes(0, 1).reshape(values.shape[1], -1), axis=1)
        edges = [_edges(column) for column in columns]
        inner = padded(edges, np.inf)
        total = binned(values, inner).sum(axis=0)
        thin = max(1, round(values.shape[1] * values.shape[2] / self.looked_at))  # as few as the device looks at
        shares = total / total.sum(axis=1, keepdims=True)
        mean = self.sums / self.count
        std = np.sqrt(np.maximum(self.squares / self.count - np.square(mean), 0.0))
        levels = np.quantile(columns, LEVELS, axis=1).T
        return {
            "name": name,
            "axis": self.axis,
            "values": self.count,
            "drift_noise": _rounded(_noise(binned(values[:, :, ::thin], inner), shares, window)),
            "channels": [
                {
                    "minimum": _rounded(self.low[i]),
                    "maximum": _rounded(self.high[i]),
                    "mean": _rounded(mean[i]),
                    "std": _rounded(std[i]),
                    "quantiles": [_rounded(level) for level in levels[i]],
                    "edges": edges[i],
                    "shares": [_rounded(share) for share in shares[i, : len(edges[i]) + 1]],
                }
                for i in range(len(columns))
            ],
        }


def _edges(column: Array) -> list[float]:
    """Edges near the deciles, each halfway between two values that occur: what rounds otherwise stays in its bin.

    Args:
        column: Values, ascending.
    """
    found = []
    for place in range(1, _BINS):
        value = column[place * len(column) // _BINS]
        after = np.searchsorted(column, value, side="right")
        if after < len(column):
            found.append(_rounded((value + column[after]) / 2))
    return sorted(set(found))


def _noise(counts: Array, shares: Array, window: int) -> float:
    """The drift that 99 of 100 windows of samples like these stay under, the worst channel of each.

    Windows are drawn with replacement; the samples that the shares come of are as few, which adds to it what so many
    would.

    Args:
        counts: Values of each sample by channel and bin, ``[n, channels, bins]``.
        shares: Of all of them.
        window: Samples a window.
    """
    n = len(counts)
    drawn = np.random.default_rng(0).multinomial(window, np.full(n, 1 / n), size=_WINDOWS)
    sums = (drawn @ counts.reshape(n, -1)).reshape(_WINDOWS, *counts.shape[1:])
    return float(np.quantile(psi(sums, shares).max(axis=1), 0.99) * (1 + window / n))


def _check_finite(name: str, array: Array, engine: str) -> None:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise EngineError(
            f"{engine}: {name!r} is not finite on every calibration sample",
            found=f"{array[~np.isfinite(array)][0]} in {np.count_nonzero(~np.isfinite(array))} values",
            allowed="finite numbers, with which the device's are compared",
            fix="leave such samples out, or set [watch] statistics = false",
        )


def _counts(spec: TensorSpec) -> bool:
    return np.dtype(spec.dtype).kind in "biuf" and bool(spec.shape)


def _axis(spec: TensorSpec, layout: str | None) -> int | None:
    """Which axis holds channels: as the layout says, else the second of pictures and of rows of features."""
    rank = len(spec.shape)
    usual = 1 if rank in (2, 4) else -1
    axis = layout.find("C") if layout is not None and len(layout) == rank else usual
    channels = spec.shape[axis] if axis > 0 else None
    return axis if isinstance(channels, int) and channels <= _MOST_CHANNELS else None


def _rounded(value: float) -> float:
    return float(f"{float(value):.{_DIGITS}g}")
