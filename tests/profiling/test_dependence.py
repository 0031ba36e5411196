from __future__ import annotations

import numpy as np
import pytest

from edgekit.profiling.dependence import autocorrelation, correlation_time, drift, effective_size


def first_order(n: int, rho: float, seed: int = 0) -> np.ndarray:
    """AR(1) with unit variance, whose correlation time is (1 + rho) / (1 - rho)."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal(n) * np.sqrt(1 - rho * rho)
    series = np.empty(n)
    level = rng.standard_normal()
    for i in range(n):
        level = rho * level + noise[i]
        series[i] = level
    return series


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.9])
def test_the_correlation_time_of_a_known_process(rho: float) -> None:
    found = [correlation_time(first_order(20_000, rho, seed)) for seed in range(5)]
    assert np.median(found) == pytest.approx((1 + rho) / (1 - rho), rel=0.15)


def test_a_run_longer_than_a_segment_is_estimated_alike() -> None:
    assert correlation_time(first_order(150_000, 0.8)) == pytest.approx(9, rel=0.15)


def test_the_autocorrelation_of_a_known_process() -> None:
    assert autocorrelation(first_order(20_000, 0.7)) == pytest.approx(0.7, abs=0.03)
    assert autocorrelation(np.full(100, 3.0)) == 0
    assert autocorrelation(np.array([1.0, 2.0])) == 0


def test_independent_samples_are_worth_about_their_number_and_never_more() -> None:
    samples = np.random.default_rng(0).gamma(9.0, size=5000)
    for share in (0.5, 0.1, 0.01, 0.9):
        assert 0.6 * 5000 < effective_size(samples, share) <= 5000


def test_few_or_equal_samples_are_worth_their_number() -> None:
    assert effective_size(np.arange(20.0), 0.5) == 20
    assert effective_size(np.full(1000, 2.0), 0.01) == 1000


def test_alternating_samples_are_worth_no_more_than_their_number() -> None:
    assert effective_size(np.resize([1.0, 2.0], 1000) + np.linspace(0, 0.1, 1000), 0.5) <= 1000


def test_slow_stretches_count_in_the_tail_they_make() -> None:
    samples = np.random.default_rng(0).gamma(100.0, size=5000) / 100
    samples[::500] += 5  # single spikes do not hang together
    assert effective_size(samples, 0.01) > 2500
    for start in range(0, 5000, 1000):
        samples[start : start + 20] += 5  # stretches do
    assert effective_size(samples, 0.01) < 1000


@pytest.mark.parametrize("share", [0.1, 0.3])
def test_a_drift_is_told_with_both_ends(share: float) -> None:
    samples = np.random.default_rng(0).gamma(400.0, size=3000) / 400 * np.linspace(1.0, 1.0 + share, 3000)
    assert "drifted: their median went from 1.0" in (drift(samples) or "")


def test_a_step_is_a_drift() -> None:
    samples = np.random.default_rng(0).gamma(400.0, size=3000) / 400
    samples[1700:] *= 1.2
    assert drift(samples) is not None


def test_a_level_that_keeps_changing_is_told() -> None:
    samples = np.random.default_rng(0).gamma(400.0, size=3000) / 400
    samples *= 1 + 0.3 * (np.sin(np.arange(3000) / 3000 * 4 * np.pi) > 0)
    assert "kept changing their level, between medians of 0.9" in (drift(samples) or "")


def test_steady_samples_do_not_drift() -> None:
    told = [drift(np.random.default_rng(seed).gamma(25.0, size=2000) / 25) for seed in range(200)]
    assert sum(reason is not None for reason in told) <= 3
    assert drift(np.arange(20.0)) is None, "too few to tell"


def test_a_drift_too_small_to_matter_is_not_told() -> None:
    samples = np.random.default_rng(0).gamma(40000.0, size=3000) / 40000 * np.linspace(1.0, 1.04, 3000)
    assert drift(samples) is None
