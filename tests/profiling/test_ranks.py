import itertools

import numpy as np
import pytest

from edgekit.profiling.ranks import groups_needed, rank_sum_interval, signed_rank_interval


# Two-sided 95% critical values of the signed-rank statistic, as printed in any table of it: W <= 0, 8, 25, 52, 89.
@pytest.mark.parametrize(("n", "critical"), [(6, 0), (10, 8), (15, 25), (20, 52), (25, 89)])
def test_the_signed_rank_interval_ends_where_the_tables_say(n, critical):
    values = np.random.default_rng(n).standard_normal(n)
    averages = sorted((a + b) / 2 for a, b in itertools.combinations_with_replacement(values, 2))
    low, centre, high = signed_rank_interval(values, 0.95)
    assert low == pytest.approx(averages[critical])
    assert high == pytest.approx(averages[-1 - critical])
    assert centre == pytest.approx(np.median(averages))


def test_nine_values_are_the_fewest_and_their_interval_is_all_of_them():
    values = np.arange(9.0)
    assert groups_needed() == 9
    assert signed_rank_interval(values) == (0, 4, 8)
    assert signed_rank_interval(values[:8]) is None


@pytest.mark.parametrize("n", [12, 210])
def test_the_signed_rank_interval_holds_the_centre_as_often_as_it_says(n):
    rng = np.random.default_rng(1)
    missed = 0
    for _ in range(600):
        low, _, high = signed_rank_interval(rng.standard_t(3, n), 0.9)
        missed += not low <= 0 <= high
    assert missed <= 82  # 60 are expected, 7.3 is a standard deviation


def test_the_rank_sum_interval_holds_the_shift_as_often_as_it_says():
    rng = np.random.default_rng(2)
    missed = 0
    for _ in range(600):
        low, _, high = rank_sum_interval(rng.standard_t(3, 20), 1 + rng.standard_t(3, 30), 0.9)
        missed += not low <= 1 <= high
    assert missed <= 82


def test_the_rank_sum_interval_needs_enough_of_both():
    assert rank_sum_interval(np.arange(3.0), np.arange(3.0)) is None
    low, centre, high = rank_sum_interval(np.arange(30.0), np.arange(30.0) + 7)
    assert low < centre == 7 < high
