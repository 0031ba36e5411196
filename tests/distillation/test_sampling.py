"""The order of an epoch, by group where there are groups."""

import numpy as np
import pytest

from edgekit.distillation.sampling import accuracy_by_group, epoch_order, group_probabilities
from edgekit.errors import DataError

GROUPS = np.repeat([0, 1, 2], [700, 250, 50])


@pytest.mark.parametrize("options", [{}, {"groups": GROUPS}, {"temperature": 5.0}])
def test_without_groups_or_temperature_every_sample_comes_once(options):
    order = epoch_order(1000, seed=0, epoch=1, **options)
    assert order.dtype == np.int64
    assert np.array_equal(np.sort(order), np.arange(1000))
    assert not np.array_equal(order, np.arange(1000))


@pytest.mark.parametrize("options", [{}, {"groups": GROUPS, "temperature": 3.0}])
def test_seed_and_epoch_decide_the_order(options):
    first, again = (epoch_order(1000, seed=0, epoch=1, **options) for _ in range(2))
    assert np.array_equal(first, again)
    for seed, epoch in ((0, 2), (1, 1), (1, 0)):
        assert not np.array_equal(first, epoch_order(1000, seed=seed, epoch=epoch, **options))


@pytest.mark.parametrize("temperature", [0.5, 2.0, 5.0, 1e6])
def test_groups_come_by_the_tempered_size(temperature):
    """Chi-square of 2 degrees of freedom over 20 epochs: 1 in 1000 is above 13.8."""
    orders = [epoch_order(1000, seed=3, epoch=epoch, groups=GROUPS, temperature=temperature) for epoch in range(20)]
    assert {len(order) for order in orders} == {1000}
    counts = np.bincount(GROUPS[np.concatenate(orders)], minlength=3)
    weights = np.array([700, 250, 50]) ** (1 / temperature)
    expected = 20_000 * weights / weights.sum()
    assert ((counts - expected) ** 2 / expected).sum() < 13.8


def test_a_high_temperature_evens_out_and_a_low_one_takes_the_largest():
    np.testing.assert_allclose(group_probabilities(np.array([700, 250, 50]), 1e9), 1 / 3, rtol=1e-6)
    np.testing.assert_allclose(group_probabilities(np.array([700, 250, 50]), 1.0), [0.7, 0.25, 0.05])
    np.testing.assert_allclose(group_probabilities(np.array([700, 250, 50]), 1e-4), [1, 0, 0], atol=1e-12)


def test_within_a_group_all_come_before_one_comes_again():
    order = epoch_order(1000, seed=0, epoch=0, groups=GROUPS, temperature=100.0)
    for group, size in enumerate((700, 250, 50)):
        drawn = order[GROUPS[order] == group]
        for start in range(0, len(drawn), size):
            stretch = drawn[start : start + size]
            assert len(np.unique(stretch)) == len(stretch)
    small = order[GROUPS[order] == 2]
    assert len(small) > 250  # a third of the draws, from fifty samples
    assert not np.array_equal(small[:50], small[50:100])  # shuffled anew


def test_the_groups_numbers_may_have_gaps():
    spread = np.array([10, 70, 71])[GROUPS]
    first, again = (epoch_order(1000, seed=0, epoch=0, groups=g, temperature=2.0) for g in (GROUPS, spread))
    assert np.array_equal(first, again)


def test_too_few_groups():
    with pytest.raises(DataError, match=r"one group a sample\n\s+found:\s+an array of \[1000\]\n\s+allowed:\s+\[999\]"):
        epoch_order(999, seed=0, epoch=0, groups=GROUPS, temperature=2.0)


def test_accuracy_by_group():
    answers = np.array([0, 1, 1, 0, 2, 2])
    labels = np.array([0, 0, 1, -1, 2, 0])
    groups = np.array([0, 0, 1, 1, 3, 3])
    expected = {"de": 0.5, "en": 1.0, "fr": 0.5}
    names = ("de", "en", "none", "fr")
    assert accuracy_by_group(answers, labels, groups, names) == expected
    assert accuracy_by_group(np.eye(3)[answers], labels, groups, names) == expected
    with pytest.raises(DataError, match="not one label and one group a sample"):
        accuracy_by_group(answers, labels, groups[:-1], names)
