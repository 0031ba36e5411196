from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from edgekit.errors import MeasurementError
from edgekit.profiling.dependence import effective_size
from edgekit.profiling.statistics import bounds_of, percentile, queries_needed, queries_to_settle, summarise


def upper_bound(samples, q, confidence=0.99):
    """Of samples known to be independent, in whatever order they stand."""
    return bounds_of(samples, q, confidence, effective_n=len(samples)).upper_ms


def lower_bound(samples, q, confidence=0.99):
    return bounds_of(samples, q, confidence, effective_n=len(samples)).lower_ms


@pytest.mark.parametrize(("q", "needed"), [(50.0, 11), (90.0, 64), (95.0, 130), (99.0, 662), (99.9, 6636)])
def test_fewest_queries_are_those_of_mlperf_early_stopping(q: float, needed: int) -> None:
    assert queries_needed(q) == needed
    samples = np.arange(needed, dtype=np.float64)
    assert upper_bound(samples[:-1], q) is None
    assert upper_bound(samples, q) == needed - 2, "with one slower sample allowed, the bound is the second largest"


@pytest.mark.parametrize("n", [11, 64, 130, 500, 1000])
@pytest.mark.parametrize(("q", "chance"), [(50, Fraction(1, 2)), (90, Fraction(1, 10)), (95, Fraction(1, 20))])
@pytest.mark.parametrize(("confidence", "rest"), [(0.99, Fraction(1, 100)), (0.995, Fraction(1, 200))])
def test_the_bound_is_the_tightest_that_the_exact_binomial_allows(
    n: int, q: int, chance: Fraction, confidence: float, rest: Fraction
) -> None:
    total, allowed = Fraction(0), -1
    while (total := total + _pmf(n, allowed + 1, chance)) <= rest:
        allowed += 1
    expected = float(n - allowed - 1) if allowed >= 1 else None
    assert upper_bound(np.arange(n), q, confidence) == expected
    mirrored = None if expected is None else n - 1 - expected
    assert lower_bound(np.arange(n), 100 - q, confidence) == mirrored


def _pmf(n: int, k: int, chance: Fraction) -> Fraction:
    return math.comb(n, k) * chance**k * (1 - chance) ** (n - k)


def test_a_million_samples_are_near_the_normal_approximation() -> None:
    n = 1_000_000
    for q in (50.0, 99.0, 99.9):
        chance = 1 - q / 100
        beyond = n - 1 - upper_bound(np.arange(n), q)
        normal = n * chance - 2.3263 * math.sqrt(n * chance * (1 - chance))
        assert beyond == pytest.approx(normal, abs=5)


@pytest.mark.parametrize(("q", "n"), [(50.0, 40), (90.0, 200), (99.0, 1000)])
def test_coverage_of_both_bounds_on_a_skewed_distribution(q: float, n: int) -> None:
    runs = 2000
    rng = np.random.default_rng(7)
    true = -math.log(1 - q / 100)  # percentile of the exponential distribution
    samples = rng.exponential(size=(runs, n))
    above = sum(upper_bound(row, q) < true for row in samples)
    below = sum(lower_bound(row, q) > true for row in samples)
    most = 0.01 * runs + 4 * math.sqrt(runs * 0.01 * 0.99)
    assert above <= most
    assert below <= most
    assert above + below > 0, "bounds that are never wrong in 2000 runs are not the tightest"


def test_the_order_of_samples_does_not_matter() -> None:
    samples = np.random.default_rng(0).permutation(1000).astype(np.float64)
    assert upper_bound(samples, 99.0) == upper_bound(np.sort(samples), 99.0)
    assert lower_bound(list(samples), 99.0) == lower_bound(np.sort(samples), 99.0)


def test_a_higher_confidence_widens() -> None:
    samples = np.random.default_rng(0).normal(size=500)
    assert upper_bound(samples, 50.0, 0.99) < upper_bound(samples, 50.0, 0.9999)
    assert lower_bound(samples, 50.0, 0.99) > lower_bound(samples, 50.0, 0.9999)


def test_a_percentile_is_a_sample() -> None:
    assert percentile([1.0, 2.0, 3.0, 4.0], 50.0) == 2.0
    assert percentile([1.0, 2.0, 3.0, 4.0], 51.0) == 3.0
    assert percentile([5.0], 99.9) == 5.0


def test_a_summary_states_only_what_its_samples_support() -> None:
    summary = summarise(np.random.default_rng(0).permutation(np.arange(1.0, 101.0)))
    assert (summary.n, summary.mean_ms, summary.min_ms, summary.max_ms) == (100, 50.5, 1.0, 100.0)
    assert 50.0 in summary.percentiles
    assert not {95.0, 99.0, 99.9} & set(summary.percentiles)
    median = summary.percentiles[50.0]
    assert median.lower_ms < median.ms == 50.0 < median.upper_ms


def test_identical_samples_give_equal_bounds() -> None:
    found = summarise([2.5] * 700).percentiles[99.0]
    assert (found.lower_ms, found.ms, found.upper_ms) == (2.5, 2.5, 2.5)


def test_nothing_to_sum_up_is_an_error() -> None:
    with pytest.raises(MeasurementError, match="no latencies to sum up"):
        summarise([])
    with pytest.raises(MeasurementError, match="no latencies"):
        percentile([], 50.0)


def test_samples_that_are_not_finite_are_refused() -> None:
    with pytest.raises(MeasurementError, match="1 not finite"):
        bounds_of([1.0, math.nan, 2.0], 50.0)
    with pytest.raises(MeasurementError, match=r"shape \[2, 2\]"):
        summarise(np.ones((2, 2)))


@pytest.mark.parametrize("q", [0.0, 100.0, -1.0, math.nan])
def test_a_percentile_out_of_range_is_refused(q: float) -> None:
    with pytest.raises(MeasurementError, match="percentile is out of range"):
        queries_needed(q)
    with pytest.raises(MeasurementError, match="percentile is out of range"):
        percentile([1.0], q)


@pytest.mark.parametrize("confidence", [0.3, 1.0, 99.0])
def test_a_confidence_out_of_range_is_refused(confidence: float) -> None:
    with pytest.raises(MeasurementError, match="confidence is out of range"):
        bounds_of([1.0], 50.0, confidence)


# ---- successive queries that hang together ----


def sticky(n: int, seed: int = 0, stay: float = 0.95) -> np.ndarray:
    """Two levels; one in ten queries is slow, and a slow stretch lasts for 20 of them."""
    rng = np.random.default_rng(seed)
    slow, states = False, np.empty(n, dtype=bool)
    for i, u in enumerate(rng.random(n)):
        slow = u < stay if slow else u < (1 - stay) / 9
        states[i] = slow
    return np.where(states, 2.0, 1.0) + 0.01 * rng.standard_normal(n)


def test_bounds_of_correlated_samples_are_those_of_fewer_independent_ones() -> None:
    samples = sticky(20_000)
    found, naive = bounds_of(samples, 90.0), bounds_of(samples, 90.0, effective_n=len(samples))
    assert found.effective_n < len(samples) / 10
    assert found.lower_ms < naive.lower_ms
    assert found.upper_ms > naive.upper_ms


def test_independent_bounds_of_correlated_samples_are_wrong_and_ours_are_not() -> None:
    level = 2.0  # the 95th percentile: half of the slow tenth lies above
    runs = [sticky(3000, seed) for seed in range(150)]
    naive = sum(bounds_of(run, 95.0, effective_n=len(run)).upper_ms < level for run in runs)
    ours = sum((bounds_of(run, 95.0).upper_ms or math.inf) < level for run in runs)
    assert naive > 15
    assert ours <= 6


def test_a_percentile_needs_enough_effective_samples() -> None:
    samples = sticky(700)
    assert bounds_of(samples, 99.0, effective_n=700).upper_ms is not None
    assert bounds_of(samples, 90.0).upper_ms is None
    stretches = [percentile(part, 90.0) for part in np.array_split(samples, 20)]
    told = summarise(samples).percentiles[90.0]
    assert (told.lower_ms, told.upper_ms) == (min(stretches), max(stretches)), "the fastest and slowest twentieth"


def test_a_summary_tells_how_far_queries_hang_together() -> None:
    summary = summarise(sticky(5000))
    assert summary.autocorrelation > 0.8
    assert summary.effective_n < 500
    assert summary.cv == pytest.approx(0.27, abs=0.05)
    independent = summarise(np.random.default_rng(0).gamma(9.0, size=5000))
    assert abs(independent.autocorrelation) < 0.05
    assert independent.effective_n > 3000


# ---- how many more ----


def test_queries_that_would_settle_a_limit_do_settle_it() -> None:
    rng = np.random.default_rng(1)
    samples = rng.gamma(9.0, size=2000)
    for q, side in ((50.0, "upper_ms"), (50.0, "lower_ms"), (90.0, "upper_ms"), (99.0, "upper_ms")):
        allowed = (percentile(samples, q) + getattr(bounds_of(samples, q), side)) / 2
        more = queries_to_settle(samples, q, allowed)
        assert more is not None
        assert more > 0
        # Queries just like those seen: the same shares below and above the limit, in another order.
        total = rng.permutation(np.resize(samples, len(samples) + int(1.05 * more)))
        bounds = bounds_of(total, q, effective_n=len(total) * effective_size(samples, 1 - q / 100) / len(samples))
        assert bounds.upper_ms <= allowed or bounds.lower_ms > allowed


def test_a_limit_that_is_decided_needs_no_more_and_one_at_the_percentile_never_is() -> None:
    samples = np.random.default_rng(0).permutation(np.arange(1000.0))
    assert queries_to_settle(samples, 50.0, 900.0) == 0
    assert queries_to_settle(samples, 50.0, 100.0) == 0
    assert queries_to_settle(samples, 50.0, 499.5) is None
    assert queries_to_settle(samples[:20], 99.0, 5000.0) == 642


def test_latencies_that_hardly_vary_are_bounded_though_they_wander() -> None:
    rng = np.random.default_rng(0)
    level = np.repeat([1.0, 1.02], 2500)  # two stretches: worth 2 queries at the median's own level
    samples = level + 0.001 * rng.standard_normal(5000)
    bounds = bounds_of(samples, 50.0)
    assert 0.94 < bounds.lower_ms < 1.0
    assert 1.02 < bounds.upper_ms < 1.09
    assert bounds_of(level * np.repeat([1.0, 1.5], 2500), 50.0).upper_ms is None, "a level that really changes is not"
