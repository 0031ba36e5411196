"""Percentiles of latencies with distribution-free bounds: order statistics and an exact binomial, no assumed shape.

The bounds are those of MLPerf loadgen's early stopping: with n queries, the (n - t)-th smallest latency is an upper
bound of a percentile, t being the largest number of slower queries that a binomial test allows. They hold for any
distribution of independent samples. Successive queries are not independent, so n is replaced by the **effective size**
(:mod:`edgekit.profiling.dependence`) and the rank scaled back; tests/bench/bench_statistics.py shows the coverage.
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
from edgekit.profiling.dependence import autocorrelation, effective_size

PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9)
CONFIDENCE = 0.99
_FEWEST_BEYOND = 1  # a bound is never the extreme sample itself, which one hiccup decides
STRETCHES = 20
_BLUR = 0.05  # what a bound may give away where a level that wanders by a percent or two would leave none
_MOST_QUERIES = 10_000_000  # beyond this nobody waits for a decision


@dataclass(frozen=True, slots=True, kw_only=True)
class Percentile:
    """One percentile and its one-sided bounds, each at the summary's confidence (see :func:`bounds_or_stretches`).

    Attributes:
        ms: Point estimate.
        upper_ms: Upper bound; gates use it.
        lower_ms: Lower bound, or None where the samples are too few for one.
        effective_n: How many independent samples the bounds rest on.
    """

    ms: float
    upper_ms: float
    lower_ms: float | None
    effective_n: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Latencies of one clock, in ms.

    Attributes:
        n: How many latencies.
        effective_n: How many independent ones they are worth for the median.
        autocorrelation: Correlation of each latency with the next.
        cv: Coefficient of variation: standard deviation over mean.
        mean_ms: Arithmetic mean.
        min_ms: Shortest.
        max_ms: Longest.
        confidence: Confidence of each bound.
        percentiles: By percentile (50.0, 99.9, …); those that ``n`` cannot support are absent.
    """

    n: int
    effective_n: float
    autocorrelation: float
    cv: float
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
        samples_ms: Latencies in ms, in the order of time, shape [n].
        percentiles: Percentiles to state; those with fewer samples than :func:`queries_needed` are left out.
        confidence: One-sided confidence of each bound.

    Raises:
        MeasurementError: There are no samples, or one is not finite.
    """
    samples = _checked(samples_ms)
    if samples.size == 0:
        raise MeasurementError("there are no latencies to sum up", found="0 queries", fix="measure first")
    found = {}
    for q in percentiles:
        bounds = bounds_or_stretches(samples, q, confidence)
        if bounds.upper_ms is not None:
            found[q] = Percentile(
                ms=percentile(samples, q),
                upper_ms=bounds.upper_ms,
                lower_ms=bounds.lower_ms,
                effective_n=bounds.effective_n,
            )
    mean = float(samples.mean())
    return Summary(
        n=int(samples.size),
        effective_n=effective_size(samples, 0.5),
        autocorrelation=autocorrelation(samples),
        cv=float(samples.std()) / mean if mean else 0.0,
        mean_ms=mean,
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Bounds of one percentile, each at the same one-sided confidence; None where the samples are worth too few.

    Attributes:
        lower_ms: Lower bound.
        upper_ms: Upper bound; gates use it.
        effective_n: How many independent samples they rest on.
        by_stretch: They are no bounds of that confidence but the percentile of the fastest and of the slowest
            twentieth of the run.
    """

    lower_ms: float | None
    upper_ms: float | None
    effective_n: float
    by_stretch: bool = False


def bounds_of(
    samples_ms: Array | Sequence[float],
    q: float,
    confidence: float = CONFIDENCE,
    *,
    effective_n: float | None = None,
) -> Bounds:
    """Bounds of percentile ``q`` that hold for any distribution.

    The upper one is the (n - t)-th smallest sample, t being the largest count with P(Binomial(n, 1 - q/100) <= t) <=
    1 - confidence: MLPerf inference loadgen, early stopping. The lower one is its mirror image. Of correlated samples
    t is taken for their effective size and scaled to n.

    Latencies that hardly vary may still wander by a percent for long stretches, and are then worth too little for any
    bound. So where there is none, each is multiplied by an independent random factor of 0.95 to 1.05, which no stretch
    outlasts: a bound of these products over 0.95 (1.05 for the lower one) is one of the latencies.

    Args:
        samples_ms: Latencies in ms, in the order of time, shape [n].
        q: Percentile, between 0 and 100.
        confidence: One-sided confidence, between 0.5 and 1.
        effective_n: What the samples are worth; None: as :func:`edgekit.profiling.dependence.effective_size` says.
            Their number, where they are known to be independent.

    Raises:
        MeasurementError: A sample is not finite, or ``q`` or ``confidence`` is out of range.
    """
    _check_level(q, confidence)
    samples = _checked(samples_ms)
    worth = min(float(samples.size), effective_size(samples, 1 - q / 100) if effective_n is None else effective_n)
    upper = _upper_bound(samples, 1 - q / 100, confidence, worth)
    lower = _upper_bound(-samples, q / 100, confidence, worth)
    if effective_n is None and (upper is None or lower is None):
        blurred = samples * np.random.default_rng(0).uniform(1 - _BLUR, 1 + _BLUR, samples.size)
        wider = effective_size(blurred, 1 - q / 100)
        if upper is None:
            found, worth = _upper_bound(blurred, 1 - q / 100, confidence, wider), wider
            upper = None if found is None else found / (1 - _BLUR)
        if lower is None:
            found = _upper_bound(-blurred, q / 100, confidence, wider)
            lower = None if found is None else found / (1 + _BLUR)
    return Bounds(lower_ms=None if lower is None else -lower, upper_ms=upper, effective_n=worth)


def _upper_bound(samples: npt.NDArray[np.float64], chance: float, confidence: float, worth: float) -> float | None:
    """A level that samples, worth so many independent ones, exceed with at most ``chance``."""
    n = int(samples.size)
    allowed = _allowed_beyond(int(worth), chance, confidence)
    if allowed is None:
        return None
    at = n - int(allowed * n / worth) - 1
    return float(np.partition(samples, at)[at])


def bounds_or_stretches(samples_ms: Array | Sequence[float], q: float, confidence: float = CONFIDENCE) -> Bounds:
    """Bounds of percentile ``q``; between the extremes of twenty stretches of the run where there are none.

    A run whose level changes slowly has seen too few of its levels for a bound, however many queries it has. What can
    be said of it is how fast its fastest twentieth was, and how slow its slowest.

    Raises:
        MeasurementError: See :func:`bounds_of`.
    """
    bounds = bounds_of(samples_ms, q, confidence)
    samples = _checked(samples_ms)
    if bounds.upper_ms is not None or samples.size < queries_needed(q, confidence):
        return bounds
    low, high = extremes(samples, q)
    return Bounds(lower_ms=low, upper_ms=high, effective_n=bounds.effective_n, by_stretch=True)


def extremes(samples_ms: Array, q: float) -> tuple[float, float]:
    """Percentile ``q`` of the fastest and of the slowest of twenty successive stretches."""
    parts = [percentile(part, q) for part in np.array_split(samples_ms, STRETCHES) if part.size]
    return min(parts), max(parts)


def queries_to_settle(
    samples_ms: Array | Sequence[float], q: float, allowed_ms: float, confidence: float = CONFIDENCE
) -> int | None:
    """How many more queries would decide whether percentile ``q`` is within a limit, if they are like those seen.

    Args:
        samples_ms: Latencies in ms, in the order of time, shape [n], n at least 1.
        q: Percentile, between 0 and 100.
        allowed_ms: The limit.
        confidence: One-sided confidence of the decision.

    Returns:
        The number, 0 where those seen would do, None where no reasonable number would.

    Raises:
        MeasurementError: A sample is not finite, or ``q`` or ``confidence`` is out of range.
    """
    _check_level(q, confidence)
    samples = _checked(samples_ms)
    slower = float((samples > allowed_ms).mean())
    # The limit is met when few enough are slower, missed when few enough are not.
    chance, share = (1 - q / 100, slower) if slower < 1 - q / 100 else (q / 100, 1 - slower)
    worth = effective_size(samples, 1 - q / 100)

    def decided(n: int) -> bool:
        beyond = _allowed_beyond(n, chance, confidence)
        return beyond is not None and beyond >= share * n

    if decided(int(worth)):
        return 0
    high = max(2, int(worth))
    while not decided(high):
        high *= 2
        if high > _MOST_QUERIES:
            return None
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if decided(middle) else (middle, high)
    return int(np.ceil((high - worth) * samples.size / worth))


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
