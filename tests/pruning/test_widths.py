"""How many channels layers keep."""

import pytest
import torch

from edgekit.pruning.widths import Choice, allowed_widths, by_layer, over_all


def choice(*importance, parts=1, multiple=1, width=0):
    return Choice(importance=torch.tensor(importance, dtype=torch.float64), parts=parts, multiple=multiple, width=width)


@pytest.mark.parametrize(
    ("count", "parts", "multiple", "expected"),
    [
        (4, 1, 1, [1, 2, 3, 4]),
        (20, 1, 8, [8, 16, 20]),
        (16, 4, 8, [2, 4]),  # two channels of each of four parts are a multiple of 8
        (12, 4, 1, [1, 2, 3]),
        (12, 3, 8, [4]),
        (8, 1, 8, [8]),
    ],
)
def test_widths_are_multiples_or_the_whole(count, parts, multiple, expected):
    assert allowed_widths(count, parts, multiple) == expected


@pytest.mark.parametrize(
    ("share", "multiple", "expected"),
    [(0.5, 1, 5), (0.51, 1, 5), (0.99, 1, 1), (0.01, 1, 10), (0.5, 4, 4), (0.3, 4, 8), (0.4, 4, 8), (0.05, 4, 10)],
)
def test_the_nearest_width_is_kept_and_of_two_the_larger(share, multiple, expected):
    assert by_layer([choice(*range(10), multiple=multiple)], share) == [expected]


def test_over_all_layers_the_least_go_first_by_the_mean_of_their_layer():
    small, large = choice(1, 1, 1, 9, width=0), choice(1000, 2000, 3000, 2000, width=1)
    assert over_all([small, large], 0.5) == [1, 3], "3 of the small, below a third of its mean, then one at a half"
    assert by_layer([small, large], 0.5) == [2, 2]


def test_no_layer_is_emptied_and_others_give_instead():
    nothing, much = choice(0, 0, 0, 0, width=0), choice(4, 5, 6, 7, width=1)
    assert over_all([nothing, much], 0.5) == [1, 3]
    assert over_all([nothing, much], 0.99) == [1, 1]
    least = [choice(0, 0, 0, 0, multiple=2, width=0), choice(1, 2, 3, 4, multiple=2, width=1)]
    assert over_all(least, 0.99) == [2, 2]


def test_parts_lose_as_many_and_count_for_all_of_them():
    heads = choice(1, 2, 3, 1, 2, 3, parts=2, width=0)
    other = choice(1, 2, 3, width=1)
    assert over_all([heads, other], 1 / 3) == [2, 2]
    assert over_all([heads, other], 0.1) == [3, 2], "one channel of 9, and not two"


def test_what_must_have_one_width_is_decided_together():
    uneven, even = choice(1, 1, 7, 7, width=0), choice(4, 4, 4, 4, width=0)
    other = choice(1, 1, 7, 7, width=1)
    kept = over_all([uneven, even, other], 0.5)
    assert kept[0] == kept[1]
    assert kept == [2, 2, 2]
    assert over_all([uneven, even, other], 0.17) == [4, 4, 2], "those alone are the least"
