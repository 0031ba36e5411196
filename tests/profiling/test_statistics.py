from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from edgekit.errors import MeasurementError
from edgekit.profiling.statistics import lower_bound, percentile, queries_needed, summarise, upper_bound


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
    summary = summarise(np.arange(1.0, 101.0))
    assert (summary.n, summary.mean_ms, summary.min_ms, summary.max_ms) == (100, 50.5, 1.0, 100.0)
    assert list(summary.percentiles) == [50.0, 90.0]
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
        upper_bound([1.0, math.nan, 2.0], 50.0)
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
        upper_bound([1.0], 50.0, confidence)
