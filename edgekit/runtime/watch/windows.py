"""The last samples of a tensor against what the bundle was calibrated with: bounded memory, however long it runs."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgekit.artifact import Array
from edgekit.runtime.watch.tensors import Channel, TensorStatistics, binned, padded, picked, psi

_ROUNDING = 1e-5  # of the range: what another engine or library rounds is not outside
_TINY = 1e-25
VALUES = 1024  # that are looked at in one query of a tensor
_STRIDE = 7919  # a prime, by which the first value looked at moves on from query to query


class TensorWindow:
    """Counts of the last samples of one tensor: one window and the one before it, so that the judged one is never new.

    Args:
        name: The tensor.
        statistics: What it was like; None: only values that are not finite are counted.
        window: Samples a window.
    """

    def __init__(self, name: str, statistics: TensorStatistics | None, window: int) -> None:
        self.name = name
        self._axis = None if statistics is None else statistics.axis
        self._bins = None if statistics is None else _Bins(statistics, window)
        self._looked_at = self._not_finite = self._queries = 0

    def add(self, array: Array) -> None:
        """Counts a query's values; a tensor of no numbers, or without the calibrated channels, is left out.

        Args:
            array: The tensor, samples on the first axis.
        """
        channels = 1 if self._bins is None else len(self._bins.shares)
        if array.dtype.kind not in "biuf" or not array.size or not array.ndim:
            return
        if self._axis is not None and (array.ndim <= self._axis or array.shape[self._axis] != channels):
            return
        self._queries += 1
        values = picked(array, self._axis, max(VALUES // len(array), channels), self._queries * _STRIDE)
        if values.dtype.kind != "f" or values.dtype.itemsize < 4:
            values = values.astype(np.float64)
        finite = np.isfinite(values)
        missing = finite.size - int(np.count_nonzero(finite))
        self._looked_at += finite.size
        if missing:
            self._not_finite += missing
            values = np.where(finite, values, np.nan)
        if self._bins is not None:
            self._bins.add(values)

    def state(self) -> dict[str, Any]:
        """What is seen now, as JSON; drift and saturation by channel, None until a window is full."""
        seen = (
            {"samples": 0, "values": 0, "drift": None, "saturated": None} if self._bins is None else self._bins.state()
        )
        return {**seen, "looked_at": self._looked_at, "not_finite": self._not_finite}


class _Bins:
    """Values of the window and of the one before it, by channel and bin; the first and the last are out of range."""

    def __init__(self, statistics: TensorStatistics, window: int) -> None:
        channels = statistics.channels
        rows = [[_bound(channel, -1), *channel.edges, _bound(channel, 1)] for channel in channels]
        edges = padded([sorted(row) for row in rows], np.inf)
        self._edges = {"f4": edges.astype(np.float32), "f8": edges}
        self.shares = padded([[0.0, *channel.shares, 0.0] for channel in channels], 0.0)
        self._last = np.array([len(channel.shares) + 1 for channel in channels])
        self._window = window
        self._samples = [0, 0]  # of the window before and of this one
        self._counts = np.zeros((2, *self.shares.shape), np.int64)

    def add(self, values: Array) -> None:
        """Counts values ``[n, channels, k]`` of float32 or float64, NaN where they are not finite."""
        if self._samples[1] >= self._window:
            self._samples = [self._samples[1], 0]
            self._counts[0], self._counts[1] = self._counts[1], 0
        self._samples[1] += len(values)
        self._counts[1] += binned(values, self._edges[values.dtype.str[1:]]).sum(axis=0)

    def state(self) -> dict[str, Any]:
        """Samples, drift and saturation by channel."""
        samples = sum(self._samples)
        if samples < self._window:
            return {"samples": samples, "values": 0, "drift": None, "saturated": None}
        counts = self._counts.sum(axis=0)
        outside = counts[:, 0] + counts[np.arange(len(counts)), self._last]
        return {
            "samples": samples,
            "values": int(counts.sum(axis=1).max()),
            "drift": [round(float(index), 5) for index in psi(counts, self.shares)],
            "saturated": [round(float(share), 7) for share in outside / np.maximum(counts.sum(axis=1), 1)],
        }


def _bound(channel: Channel, side: int) -> float:
    """The edge of a channel's range on one side, a rounding farther out."""
    low, high = channel.minimum, channel.maximum
    slack = _ROUNDING * max(high - low, abs(low), abs(high), _TINY)
    return low - slack if side < 0 else high + slack
