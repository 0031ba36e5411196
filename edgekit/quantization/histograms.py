"""Histograms of a stream of values whose range is not known beforehand, in memory that does not grow with it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from edgekit.artifact import Array

BINS = 2048
_BLOCK = 1 << 16  # values placed at once: what is made of them stays in the processor's cache
_NARROWEST = 1e-30  # a range below it would overflow when bins are counted in float32


@dataclass(slots=True, kw_only=True)
class Histogram:
    """Counts of finite values in equal bins from ``low`` to ``low + width``; zero is always within.

    The range starts as the first batch's and doubles towards whatever lies outside: pairs of bins are merged, so no
    count is ever moved into a bin that it was not in.

    Attributes:
        counts: Values a bin.
        low: Lower edge of the first bin.
        width: Of all bins together; 0 while only zeros were seen, which are all in the first bin.
    """

    counts: Array = field(default_factory=lambda: np.zeros(BINS, np.int64))
    low: float = 0.0
    width: float = 0.0

    def add(self, values: Array, minimum: float, maximum: float) -> None:
        """Counts values.

        Args:
            values: Finite floats of any shape.
            minimum: The least of them.
            maximum: The greatest.
        """
        low, high = min(minimum, 0.0), max(maximum, 0.0)
        if self.width == 0.0:
            if low == high:
                self.counts[0] += values.size
                return
            self._start(low, max(high - low, _NARROWEST))
        while high > self.low + self.width:
            self._grow(downwards=False)
        while low < self.low:
            self._grow(downwards=True)
        flat = values.reshape(-1)
        scale, offset = BINS / self.width, -self.low * BINS / self.width
        for start in range(0, flat.size, _BLOCK):
            block = flat[start : start + _BLOCK].astype(np.float32)
            block *= np.float32(scale)
            block += np.float32(offset)
            places = block.astype(np.int32)
            np.clip(places, 0, BINS - 1, out=places)
            self.counts += np.bincount(places, minlength=BINS)

    def edges(self) -> Array:
        """float64 ``[bins + 1]``: where bins begin and end."""
        return self.low + self.width * np.arange(BINS + 1) / BINS

    def centres(self) -> Array:
        """float64 ``[bins]``: the middle of each bin."""
        edges = self.edges()
        return np.asarray((edges[1:] + edges[:-1]) / 2)

    def _start(self, low: float, width: float) -> None:
        zeros, self.low, self.width = int(self.counts[0]), low, width
        self.counts[0] = 0
        self.counts[min(int(-low / width * BINS), BINS - 1)] = zeros

    def _grow(self, *, downwards: bool) -> None:
        merged = self.counts.reshape(-1, 2).sum(axis=1)
        empty = np.zeros(BINS // 2, np.int64)
        self.counts = np.concatenate([empty, merged] if downwards else [merged, empty])
        if downwards:
            self.low -= self.width
        self.width *= 2
