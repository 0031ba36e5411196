"""In which members of a class a move is made, and how often it is tried."""

import pytest
import torch
from tables import INPUTS, Stack, block_group
from torch import nn

from edgekit.errors import EngineError
from edgekit.pruning.changes import Change
from edgekit.pruning.moves import Move, MoveGroup
from edgekit.pruning.variants import made_of, variants_of


def left(module):
    return [len(stage) for stage in module.stages.values()]


@pytest.fixture
def module():
    torch.manual_seed(0)
    return Stack(3, 2).eval()


GROUPS = [block_group(i) for i in range(3)] + [block_group(i, path="stages.s1") for i in range(2)]


def test_classes_and_their_moves_come_in_the_order_of_the_groups():
    groups = [block_group(0, widths=(4,)), block_group(0, path="stages.s1", alike="b"), block_group(1, widths=(2, 4))]
    found = variants_of(groups)
    assert [(str(v), v.members, len(v.changes)) for v in found] == [
        ("stages.s0.0, removed", 2, 2),
        ("stages.s0.0, 4 of 8 channels", 2, 2),
        ("stages.s0.0, 2 of 8 channels", 2, 1),
        ("stages.s1.0, removed", 1, 1),
    ]


def test_fewer_are_tried_until_it_can_be_made(module):
    (variant,) = variants_of(GROUPS)
    seen = []

    def make(changed: nn.Module) -> str:
        seen.append(left(changed))
        if len(seen) < 3:
            raise EngineError("no")
        return "made"

    assert made_of(variant, module, INPUTS, make) == ("made", 1)
    assert seen == [[0, 0], [1, 1], [2, 2]]
    assert left(module) == [3, 2]


def test_of_channels_one_member_is_spared():
    groups = [
        MoveGroup(
            name=f"c{i}", kind="channels", alike="c", moves=(Move(name="half", change=Change(widths={f"c{i}": 4})),)
        )
        for i in range(3)
    ]
    (variant,) = variants_of(groups)
    assert [len(changes) for changes in variant.tries()] == [3, 2, 1]
    (alone,) = variants_of(groups[:1])
    assert [len(changes) for changes in alone.tries()] == [1]


def test_what_cannot_be_made_at_all_says_why_the_smallest_could_not(module):
    def make(changed: nn.Module) -> None:
        raise EngineError(f"no: {left(changed)}")

    with pytest.raises(EngineError, match=r"no: \[2, 2\]"):
        made_of(variants_of(GROUPS)[0], module, INPUTS, make)
