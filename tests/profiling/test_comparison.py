import math

import numpy as np
import pytest

from edgekit.errors import MeasurementError
from edgekit.profiling.comparison import (
    MOST_GROUPS,
    Stretch,
    compare_apart,
    compare_in_turns,
    queries_a_group,
    queries_needed,
    ratio_of,
    rounds_needed,
    slices_of,
    split_turns,
)
from edgekit.profiling.ranks import groups_needed


def turns(count, kept=9, *, seed=0, scale=1.0, spread=0.05):
    """Turns of one side, independent lognormal latencies."""
    rng = np.random.default_rng(seed)
    return [scale * rng.lognormal(0, spread, kept) for _ in range(count)]


def correlated(count, phi, *, seed=0):
    """An AR(1) series."""
    rng = np.random.default_rng(seed)
    values = [rng.standard_normal() / math.sqrt(1 - phi**2)]
    for _ in range(count - 1):
        values.append(phi * values[-1] + rng.standard_normal())
    return 0.01 * np.array(values)


def test_queries_a_percentile_takes():
    assert [queries_a_group(q) for q in (50.0, 90.0, 99.0, 99.9)] == [4, 20, 200, 2000]
    assert queries_needed(99.0) == 2000
    assert queries_needed(99.0, 0.95) == 200 * 7
    for q in (0.0, 100.0):
        with pytest.raises(MeasurementError, match="percentile is out of range"):
            queries_a_group(q)
    with pytest.raises(MeasurementError, match="confidence is out of range"):
        groups_needed(1.0)


def test_a_slowdown_of_three_percent_is_found():
    found = compare_in_turns(turns(300), turns(300, seed=1, scale=1.03), 50.0)
    assert found.finding == "slower"
    assert 1 < found.low < 1.03 < found.high < 1.05
    assert found.ratio == pytest.approx(1.03, abs=0.01)
    assert (found.in_turns, found.settled, found.percentile) == (True, True, 50.0)


def test_twice_as_fast_is_faster_and_like_sides_show_no_difference():
    assert compare_in_turns(turns(60), turns(60, seed=1, scale=0.5), 50.0).finding == "faster"
    alike = compare_in_turns(turns(60), turns(60, seed=1), 50.0)
    assert alike.finding == "no difference shown"
    assert alike.low < 1 < alike.high


def test_what_both_sides_see_cancels():
    steps = np.exp(np.cumsum(np.random.default_rng(3).normal(0, 0.2, 200)))  # the machine's speed, anything but steady
    base, other = ([turn * step for turn, step in zip(turns(200, seed=seed), steps, strict=True)] for seed in (4, 5))
    found = compare_in_turns(base, [1.03 * turn for turn in other], 50.0)
    assert max(steps) / min(steps) > 10
    assert 1 < found.low < 1.03 < found.high < 1.06


def test_one_wild_turn_decides_nothing():
    base, other = turns(40), turns(40, seed=1)
    other[7] = other[7] * 50
    assert compare_in_turns(base, other, 50.0).finding == "no difference shown"


def test_a_slow_start_of_every_round_cancels():
    base, other = turns(100, seed=6), turns(100, seed=7)
    for i in range(100):  # AB, BA, ...: whoever is first in a round is 20% slower
        first = base if i % 2 == 0 else other
        first[i] = first[i] * 1.2
    assert compare_in_turns(base, other, 50.0).finding == "no difference shown"


def test_with_more_sides_a_group_holds_whole_rotations():
    found = compare_in_turns(turns(60), turns(60, seed=1), 50.0, sides=5)
    assert (found.groups, found.rounds_per_group) == (12, 5)


def test_tails_pool_rounds_until_there_are_enough_queries():
    base, other = turns(100, kept=50), turns(100, kept=50, seed=1, scale=1.5)
    found = compare_in_turns(base, other, 99.0)
    assert found.rounds_per_group == 4
    assert found.groups == 24  # an even number: as many begin with one side as with the other
    assert found.finding == "slower"
    assert compare_in_turns(base[:30], other[:30], 99.0) is None
    assert compare_in_turns(base[:30], other[:30], 90.0) is not None


def test_rounds_of_different_sizes_are_cut_by_queries_of_both_sides():
    base = [*turns(2), *turns(30, kept=100)]
    other = [*turns(2), *turns(30, kept=10)]
    found = compare_in_turns(base, other, 90.0)
    assert found.rounds_per_group in (2, 3)
    assert found.groups >= 9


def test_a_side_that_ended_early_is_compared_over_the_rounds_it_had():
    assert compare_in_turns(turns(60), turns(20, seed=1), 50.0).groups == 20


def test_groups_are_widened_while_log_ratios_are_correlated():
    alone = ratio_of(correlated(200, 0.0), 50.0, base_ms=1, other_ms=1)
    found = ratio_of(correlated(200, 0.7), 50.0, base_ms=1, other_ms=1)
    assert alone.rounds_per_group == 1
    assert found.rounds_per_group >= 4
    assert found.settled
    assert found.groups >= rounds_needed() == 10


def test_sides_that_drift_apart_are_unsettled():
    found = ratio_of(np.linspace(0, 0.2, 100), 50.0, base_ms=1, other_ms=1)
    assert (found.settled, found.finding) == (False, "unsettled")
    assert found.low < 1 < math.exp(0.2) < found.high  # it may go further


def test_a_drift_that_stays_far_off_is_a_difference():
    found = ratio_of(np.linspace(0.5, 0.6, 100), 50.0, base_ms=1, other_ms=1)
    assert (found.settled, found.finding) == (False, "slower")
    assert found.low < math.exp(0.5) < math.exp(0.6) < found.high  # further than it was seen to go
    assert ratio_of(np.linspace(-0.6, -0.5, 100), 50.0, base_ms=1, other_ms=1).finding == "faster"


def test_very_many_rounds_are_joined():
    found = ratio_of(correlated(5000, 0.0), 50.0, base_ms=1, other_ms=1)
    assert found.groups <= MOST_GROUPS
    assert found.rounds_per_group * found.groups > 4900


def test_equal_latencies_are_a_ratio_of_exactly_one():
    same = [np.full(9, 2.0)] * 20
    found = compare_in_turns(same, same, 50.0)
    assert (found.low, found.ratio, found.high, found.finding) == (1, 1, 1, "no difference shown")
    assert (found.base_ms, found.other_ms, found.autocorrelation) == (2.0, 2.0, 0.0)


def test_like_sides_are_rarely_called_different_and_often_enough_not():
    rng = np.random.default_rng(8)
    called = sum(
        ratio_of(rng.standard_t(2, 120) * 0.05, 50.0, base_ms=1, other_ms=1).finding != "no difference shown"
        for _ in range(800)
    )
    assert called <= 8  # 1%; half of it and less are expected


def test_turns_are_cut_where_they_ended():
    cut = split_turns(np.array([1.0, 2, 3, 4, 5]), (2, 3))
    assert [turn.tolist() for turn in cut] == [[1, 2], [3, 4, 5]]
    with pytest.raises(MeasurementError, match=r"do not fit the turns"):
        split_turns(np.ones(5), (2, 2))
    with pytest.raises(MeasurementError, match=r"do not fit the turns"):
        split_turns(np.ones(0), ())
    for wrong in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(MeasurementError, match="not finite times above zero"):
            split_turns(np.array([1.0, wrong]), (2,))


def stretch(median, *, half=0.01, slices=()):
    return Stretch(ms=median, low_ms=median * (1 - half), high_ms=median * (1 + half), slices_ms=tuple(slices))


def steady(median, seed, count=100):
    return (median * np.random.default_rng(seed).lognormal(0, 0.01, count)).tolist()


def test_apart_the_bounds_are_the_least_that_is_said():
    found = compare_apart(stretch(10.0), stretch(11.0), 99.0)
    assert found.low == pytest.approx(11 * 0.99 / (10 * 1.01))
    assert found.high == pytest.approx(11 * 1.01 / (10 * 0.99))
    assert (found.finding, found.in_turns, found.groups) == ("slower", False, 0)
    assert compare_apart(stretch(10.0), stretch(10.1), 99.0).finding == "no difference shown"


def test_apart_slices_that_scatter_widen_the_interval():
    rng = np.random.default_rng(0)
    wild = [(10 * rng.lognormal(0, 0.5, 60)).tolist() for _ in range(2)]
    found = compare_apart(stretch(10.0, slices=wild[0]), stretch(11.0, slices=wild[1]), 50.0)
    assert found.finding == "no difference shown"
    assert found.groups > 0
    still = compare_apart(stretch(10.0, slices=steady(10, 1)), stretch(11.0, slices=steady(11, 2)), 50.0)
    assert still.finding == "slower"


def test_apart_a_run_that_drifts_settles_nothing():
    found = compare_apart(stretch(10.0, slices=steady(10, 1)), stretch(15.0, slices=np.linspace(11, 19, 100)), 50.0)
    assert (found.settled, found.finding) == (False, "unsettled")
    far = compare_apart(stretch(10.0, slices=steady(10, 1)), stretch(55.0, slices=np.linspace(50, 60, 100)), 50.0)
    assert (far.settled, far.finding) == (False, "slower")
    assert far.low < 5


def test_apart_takes_bounds_and_times_above_zero():
    assert compare_apart(stretch(1.0), Stretch(ms=1.0, low_ms=None, high_ms=2.0), 99.0) is None
    with pytest.raises(MeasurementError, match="not above zero"):
        compare_apart(stretch(1.0, half=1.0), stretch(1.0), 50.0)


def test_slices_are_as_many_as_have_enough_queries():
    assert len(slices_of(turns(100, kept=50), 50.0)) == 120
    assert len(slices_of(turns(10, kept=50), 90.0)) == 25
    assert slices_of(turns(1, kept=9), 90.0) == ()
