"""Percentiles of latencies with distribution-free bounds: order statistics and an exact binomial, no assumed shape.

The bounds are those of MLPerf loadgen's early stopping: with n queries, the (n - t)-th smallest latency is an upper
bound of a percentile, t being the largest number of slower queries that a binomial test allows. They hold for
any distribution, but they assume that queries are **independent**. Successive queries on one machine are not quite:
turns spread over the run and the dropped first query of each turn lessen the dependence and do not remove it, so the
true coverage is somewhat below the nominal one where a machine drifts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from edgekit.artifact import Array
from edgekit.errors import MeasurementError

PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9)
CONFIDENCE = 0.99
_FEWEST_BEYOND = 1  # a bound is never the extreme sample itself, which one hiccup decides


@dataclass(frozen=True, slots=True, kw_only=True)
class Percentile:
    """One percentile and its one-sided bounds, each at the summary's confidence.

    Attributes:
        ms: Point estimate.
        upper_ms: Upper bound; gates use it.
        lower_ms: Lower bound, or None where the samples are too few for one.
    """

    ms: float
    upper_ms: float
    lower_ms: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Latencies of one clock, in ms.

    Attributes:
        n: How many latencies.
        mean_ms: Arithmetic mean.
        min_ms: Shortest.
        max_ms: Longest.
        confidence: Confidence of each bound.
        percentiles: By percentile (50.0, 99.9, …); those that ``n`` cannot support are absent.
    """

    n: int
    mean_ms: float
    min_ms: float
    max_ms: float
    confidence: float
    percentiles: Mapping[float, Percentile]


def summarise(
    samples_ms: Array | Sequence[float],
    percentiles: Sequence[float] = PERCENTILES,
    confidence: float = CONFIDENCE,
) -> Summary:
    """Sums up latencies.

    Args:
        samples_ms: Latencies in ms, in any order, shape [n].
        percentiles: Percentiles to state; those with fewer than :func:`queries_needed` samples are left out.
        confidence: One-sided confidence of each bound.

    Raises:
        MeasurementError: There are no samples, or one is not finite.
    """
    samples = _checked(samples_ms)
    if samples.size == 0:
        raise MeasurementError("there are no latencies to sum up", found="0 queries", fix="measure first")
    found = {}
    for q in percentiles:
        upper = upper_bound(samples, q, confidence)
        if upper is not None:
            lower = lower_bound(samples, q, confidence)
            found[q] = Percentile(ms=percentile(samples, q), upper_ms=upper, lower_ms=lower)
    return Summary(
        n=int(samples.size),
        mean_ms=float(samples.mean()),
        min_ms=float(samples.min()),
        max_ms=float(samples.max()),
        confidence=confidence,
        percentiles=found,
    )


def percentile(samples_ms: Array | Sequence[float], q: float) -> float:
    """Point estimate of a percentile: the smallest sample that at least ``q`` percent do not exceed.

    It is a latency that was seen, never one between two.

    Raises:
        MeasurementError: There are no samples, one is not finite, or ``q`` is out of range.
    """
    _check_level(q, CONFIDENCE)
    samples = _checked(samples_ms)
    if samples.size == 0:
        raise MeasurementError("there are no latencies to take a percentile of", found="0 queries")
    return float(np.percentile(samples, q, method="inverted_cdf"))


def upper_bound(samples_ms: Array | Sequence[float], q: float, confidence: float = CONFIDENCE) -> float | None:
    """Upper bound of percentile ``q`` that holds for any distribution of independent samples.

    It is the (n - t)-th smallest sample, t being the largest count with P(Binomial(n, 1 - q/100) <= t) <= 1 -
    confidence: MLPerf inference loadgen, early stopping. Samples are assumed independent (see the module).

    Args:
        samples_ms: Latencies in ms, in any order, shape [n].
        q: Percentile, between 0 and 100.
        confidence: One-sided confidence, between 0.5 and 1.

    Returns:
        The bound in ms, or None with fewer samples than :func:`queries_needed`.

    Raises:
        MeasurementError: A sample is not finite, or ``q`` or ``confidence`` is out of range.
    """
    _check_level(q, confidence)
    samples = _checked(samples_ms)
    n = int(samples.size)
    beyond = _allowed_beyond(n, 1 - q / 100, confidence)
    return None if beyond is None else float(np.partition(samples, n - beyond - 1)[n - beyond - 1])


def lower_bound(samples_ms: Array | Sequence[float], q: float, confidence: float = CONFIDENCE) -> float | None:
    """Lower bound of percentile ``q``: the mirror image of :func:`upper_bound`.

    Returns:
        The bound in ms, or None with fewer samples than ``queries_needed(100 - q)``.

    Raises:
        MeasurementError: A sample is not finite, or ``q`` or ``confidence`` is out of range.
    """
    _check_level(q, confidence)
    samples = _checked(samples_ms)
    beyond = _allowed_beyond(int(samples.size), q / 100, confidence)
    return None if beyond is None else float(np.partition(samples, beyond)[beyond])


def queries_needed(q: float, confidence: float = CONFIDENCE) -> int:
    """Fewest samples from which percentile ``q`` has an upper bound: 11 for p50, 662 for p99 at 99%.

    Raises:
        MeasurementError: ``q`` or ``confidence`` is out of range.
    """
    _check_level(q, confidence)
    chance = 1 - q / 100
    high = 2
    while _allowed_beyond(high, chance, confidence) is None:
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _allowed_beyond(middle, chance, confidence) is None else (low, middle)
    return high


@lru_cache(maxsize=256)
def _allowed_beyond(n: int, chance: float, confidence: float) -> int | None:
    """The largest t >= 1 with P(Binomial(n, chance) <= t) <= 1 - confidence, or None when there is none.

    Sums in log space up to the mean, where the distribution function has long passed 1 - confidence.
    """
    if n <= _FEWEST_BEYOND:
        return None
    counts = np.arange(1, int(n * chance) + 2, dtype=np.float64)
    steps = np.log((n - counts + 1) / counts) + (math.log(chance) - math.log1p(-chance))
    log_pmf = n * math.log1p(-chance) + np.concatenate([[0.0], np.cumsum(steps)])
    log_cdf = np.logaddexp.accumulate(log_pmf)
    # The slack takes up rounding: the exact value of a bound case may come out one step of the last digits high.
    allowed = int(np.searchsorted(log_cdf, math.log1p(-confidence) + 1e-12, side="right")) - 1
    return allowed if allowed >= _FEWEST_BEYOND else None


def _checked(samples_ms: Array | Sequence[float]) -> npt.NDArray[np.float64]:
    samples = np.asarray(samples_ms, dtype=np.float64)
    if samples.ndim != 1 or not np.isfinite(samples).all():
        raise MeasurementError(
            "latencies are not a list of finite numbers",
            found=f"shape {list(samples.shape)}, {int((~np.isfinite(samples)).sum())} not finite",
            allowed="shape [n], in ms",
        )
    return samples


def _check_level(q: float, confidence: float) -> None:
    if not 0 < q < 100:
        raise MeasurementError("a percentile is out of range", found=q, allowed="above 0, below 100")
    if not 0.5 <= confidence < 1:
        raise MeasurementError("a confidence is out of range", found=confidence, allowed="0.5 or more, below 1")
