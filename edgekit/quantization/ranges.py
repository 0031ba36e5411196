"""Ranges of activations from what was kept of them: one plain function a method."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from edgekit.artifact import Array
from edgekit.errors import UnknownName
from edgekit.quantization.histograms import BINS, Histogram

PERCENTILE = 99.99
LEVELS = 256
# Attention masks are made of numbers like -1e9 and float32's least: beside them int8 tells nothing apart.
_MASK = 1e8
_STEP = 16  # bins between the thresholds that entropy tries
_SHRINKS = np.linspace(0.1, 1.0, 91)


@dataclass(slots=True, kw_only=True)
class TensorStatistics:
    """What is kept of one activation over all calibration samples.

    Attributes:
        minimum: Least finite value; 0 where there was none.
        maximum: Greatest finite value; 0 where there was none.
        sum_of_minima: Sum over batches of each batch's least value.
        sum_of_maxima: Sum over batches of each batch's greatest value.
        batches: Batches that held a finite value.
        infinite: Whether a value was infinite or not a number.
        histogram: None unless it was asked for.
    """

    minimum: float = 0.0
    maximum: float = 0.0
    sum_of_minima: float = 0.0
    sum_of_maxima: float = 0.0
    batches: int = 0
    infinite: bool = False
    histogram: Histogram | None = None

    def add(self, values: Array) -> None:
        """Takes one batch's values in; those that are not finite are left out, and noted."""
        if not values.size:
            return
        low, high = float(values.min()), float(values.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            self.infinite = True
            values = values[np.isfinite(values)]
            if not values.size:
                return
            low, high = float(values.min()), float(values.max())
        self.minimum = min(low, self.minimum) if self.batches else low
        self.maximum = max(high, self.maximum) if self.batches else high
        self.sum_of_minima += low
        self.sum_of_maxima += high
        self.batches += 1
        if self.histogram is not None:
            self.histogram.add(values, low, high)


def range_of(statistics: TensorStatistics, method: str) -> tuple[float, float]:
    """The range of an activation by a method: least and greatest value that int8 tells apart.

    Args:
        statistics: What was kept of it; with a histogram for all methods but ``minmax`` and ``average``.
        method: One of :data:`RANGE_METHODS`.

    Raises:
        UnknownName: There is no such method.
    """
    if method not in RANGE_METHODS:
        raise UnknownName("range method", method, RANGE_METHODS)
    if not statistics.batches:
        return 0.0, 0.0
    low, high = RANGE_METHODS[method](statistics)
    return max(low, statistics.minimum), min(high, statistics.maximum)


def symmetric(statistics: TensorStatistics) -> TensorStatistics:
    """The same values with both signs each, as a range whose ends are one number apart from the sign sees them."""
    most = max(-statistics.minimum, statistics.maximum)
    histogram = statistics.histogram
    if histogram is not None and histogram.width:
        reach = max(-histogram.low, histogram.low + histogram.width)
        places = np.minimum(np.abs(histogram.centres()) / reach * (BINS // 2), BINS // 2 - 1).astype(np.int64)
        side = np.bincount(places, weights=histogram.counts, minlength=BINS // 2).astype(np.int64)
        histogram = Histogram(counts=np.concatenate([side[::-1], side]), low=-reach, width=2 * reach)
    return replace(statistics, minimum=-most, maximum=most, histogram=histogram)


def why_unfit(statistics: TensorStatistics) -> str | None:
    """Why int8 cannot hold an activation; None where it can."""
    if statistics.infinite:
        return "its values are not finite"
    if max(-statistics.minimum, statistics.maximum) > _MASK:
        return f"its values reach {max(-statistics.minimum, statistics.maximum):.1g}, a mask"
    return None if statistics.batches else "it has no values"


def minmax(statistics: TensorStatistics) -> tuple[float, float]:
    """Least and greatest value of all samples."""
    return statistics.minimum, statistics.maximum


def average(statistics: TensorStatistics) -> tuple[float, float]:
    """Mean over the samples of each one's least and greatest value, so that one odd sample does not set the range."""
    return statistics.sum_of_minima / statistics.batches, statistics.sum_of_maxima / statistics.batches


def percentile(statistics: TensorStatistics, percent: float = PERCENTILE) -> tuple[float, float]:
    """The range that holds ``percent`` of the values; what is cut off is cut off half below and half above.

    Where values lie on one side of zero only, all of it is cut off on that side.
    """
    histogram = _histogram(statistics)
    if not histogram.width:
        return statistics.minimum, statistics.maximum
    outside = 1.0 - percent / 100.0
    if statistics.minimum < 0.0 < statistics.maximum:
        outside /= 2
    below = np.cumsum(histogram.counts) / histogram.counts.sum()
    edges = histogram.edges()
    low = float(edges[np.searchsorted(below, outside, side="right")])
    high = float(edges[np.searchsorted(below, 1.0 - outside) + 1])
    return (
        low if statistics.minimum < 0.0 else statistics.minimum,
        high if statistics.maximum > 0.0 else statistics.maximum,
    )


def entropy(statistics: TensorStatistics) -> tuple[float, float]:
    """The symmetric threshold whose int8 distribution is nearest to the one seen, by Kullback-Leibler divergence.

    After S. Migacz, "8-bit Inference with TensorRT", GTC 2017, as ONNX Runtime does it too: values beyond a threshold
    count in its last bin, the bins within are merged to as many as int8 has levels, and spread evenly again over those
    that were not empty. Every 16th bin is tried as a threshold.
    """
    histogram = _histogram(statistics)
    if not histogram.width:
        return statistics.minimum, statistics.maximum
    counts, bin_width = _magnitudes(histogram)
    if not counts.any():
        return statistics.minimum, statistics.maximum
    both = statistics.minimum < 0.0 < statistics.maximum
    levels = LEVELS // 2 if both else LEVELS
    last = int(np.flatnonzero(counts)[-1]) + 1
    tried = [*range(levels, last, _STEP), last] if last > levels else [last]
    threshold = min(tried, key=lambda bins: _divergence(counts, bins, levels)) * bin_width
    return -threshold, threshold


def mse(statistics: TensorStatistics) -> tuple[float, float]:
    """The range with the least squared error of quantising under the histogram.

    Both ends shrink together first, then each for itself, to what is best among 91 steps.
    """
    histogram = _histogram(statistics)
    low, high = min(statistics.minimum, 0.0), max(statistics.maximum, 0.0)
    if not histogram.width or low == high:
        return statistics.minimum, statistics.maximum
    filled = np.flatnonzero(histogram.counts)
    values, counts = histogram.centres()[filled], histogram.counts[filled]

    def error(ends: tuple[float, float]) -> float:
        scale = (ends[1] - ends[0]) / (LEVELS - 1)
        zero = np.round(-ends[0] / scale)
        levels = np.clip(np.round(values / scale) + zero, 0, LEVELS - 1)
        return float(counts @ np.square((levels - zero) * scale - values))

    low, high = min(((low * s, high * s) for s in _SHRINKS), key=error)
    low, high = min(((low * s, high) for s in _SHRINKS[::-1]), key=error)
    return min(((low, high * s) for s in _SHRINKS[::-1]), key=error)


RANGE_METHODS: Mapping[str, Callable[[TensorStatistics], tuple[float, float]]] = {
    "minmax": minmax,
    "average": average,
    "percentile": percentile,
    "entropy": entropy,
    "mse": mse,
}
NEEDS_HISTOGRAM = ("percentile", "entropy", "mse")


def _histogram(statistics: TensorStatistics) -> Histogram:
    if statistics.histogram is None:
        raise ValueError("these statistics were collected without histograms")
    return statistics.histogram


def _magnitudes(histogram: Histogram) -> tuple[Array, float]:
    """Counts by magnitude in bins as wide as the histogram's, and that width.

    Zeros, of which a ReLU makes half of all values, are told exactly at every threshold: the first bin, as in NVIDIA's
    pytorch-quantization, counts as its neighbour does.
    """
    width = histogram.width / BINS
    counts = np.bincount((np.abs(histogram.centres()) / width).astype(np.int64), weights=histogram.counts)
    counts[0] = counts[1]
    return counts, width


def _divergence(counts: Array, bins: int, levels: int) -> float:
    """Kullback-Leibler divergence of what ``levels`` levels make of the first ``bins`` bins, from all counts."""
    seen = counts[:bins].copy()
    filled = seen > 0
    level = np.minimum(np.arange(bins) * levels // bins, levels - 1)
    filled_a_level = np.bincount(level, weights=filled, minlength=levels)
    merged = np.bincount(level, weights=seen, minlength=levels) / np.maximum(filled_a_level, 1.0)
    spread = np.where(filled, merged[level], 0.0)
    seen[-1] += counts[bins:].sum()
    reference, candidate = _smooth(seen), _smooth(spread)
    if reference is None or candidate is None:
        return float("inf")
    return float(np.sum(reference * np.log(reference / candidate)))


def _smooth(counts: Array, share: float = 1e-4) -> Array | None:
    """A distribution without zeros: each empty bin takes a little, which the others give; None where all is empty."""
    total = counts.sum()
    if not total:
        return None
    distribution = counts / total
    return np.asarray((distribution + share / len(counts)) / (1.0 + share))
