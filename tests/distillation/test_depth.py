"""Networks with fewer blocks."""

import pytest
import torch
from nets_to_cut import Residual, make_net
from torch import nn

from edgekit.distillation.depth import block_lists, cut_depth, spread
from edgekit.errors import ModelError


@pytest.mark.parametrize(
    ("count", "fixed", "kept", "expected"),
    [
        (12, set(), 6, [0, 2, 4, 7, 9, 11]),  # first and last, as DistilBERT's
        (12, set(), 4, [0, 4, 7, 11]),
        (3, set(), 2, [0, 2]),
        (4, set(), 1, [0]),
        (4, set(), 0, []),
        (9, {0}, 5, [0, 2, 4, 6, 8]),
        (4, {0, 2}, 2, [0, 2]),
        (4, {0, 2}, 1, [0, 2]),
        (6, {2}, 3, [0, 2, 5]),
    ],
)
def test_blocks_are_spread_and_fixed_ones_stay(count, fixed, kept, expected):
    assert spread(range(count), fixed, kept) == expected


def test_every_kth_block_is_kept_and_first_ones_of_stages_stay():
    net, inputs = make_net("resnet")
    blocks = [net.layer1[0], net.layer1[3], net.layer2[0], net.layer2[3]]
    assert cut_depth(net, inputs, 0.5, {}) == ["layer1: blocks 0, 3 of 4 kept", "layer2: blocks 0, 3 of 4 kept"]
    assert [*net.layer1, *net.layer2] == blocks
    assert [name for name, _ in net.layer2.named_children()] == ["0", "1"]


def test_what_is_cut_computes_what_the_kept_blocks_compute():
    net, inputs = make_net("fused")
    with torch.no_grad():
        net.blocks[1].attention.out.weight.zero_(), net.blocks[1].attention.out.bias.zero_()
        net.blocks[1].mlp[2].weight.zero_(), net.blocks[1].mlp[2].bias.zero_()  # block 1 now does nothing
        expected = net(inputs["input"])
        notes = cut_depth(net, inputs, None, {"blocks": [0, 2, 3]})
        assert notes == ["blocks: blocks 0, 2, 3 of 4 kept"]
        assert torch.equal(net(inputs["input"]), expected)
        del net.blocks[0]
        assert not torch.equal(net(inputs["input"]), expected)


def test_lists_by_hand_and_by_share_go_together_and_counts_follow():
    net, inputs = make_net("encoder")
    cut_depth(net, inputs, 0.25, {})
    assert (len(net.encoder.layers), net.encoder.num_layers) == (1, 1)
    net, inputs = make_net("resnet")
    assert cut_depth(net, inputs, 0.5, {"layer1": [2]}) == [
        "layer1: block 2 of 4 kept",
        "layer2: blocks 0, 3 of 4 kept",
    ]


class Deep(nn.Sequential):
    """A block whose own layers are of one class, and keep the shape too."""

    def __init__(self, width):
        super().__init__(*(Residual(width, width) for _ in range(2)))


class Stages(nn.Module):
    """Stages that hold blocks, a list that is gone through by number, and one with more in it than blocks."""

    def __init__(self):
        super().__init__()
        self.stages = nn.ModuleList(
            [
                nn.Sequential(*(Deep(3) for _ in range(3))),
                nn.Sequential(Residual(3, 6, 2), Residual(6, 6)),
            ]
        )
        self.pair = nn.ModuleList(Residual(6, 6) for _ in range(2))
        self.mixed = nn.Sequential(nn.Conv2d(6, 6, 1), Residual(6, 6), Residual(6, 6), nn.ReLU())

    def forward(self, x):
        for stage in self.stages:
            x = stage(x)
        return self.mixed(self.pair[1](self.pair[0](x))).mean((2, 3))


def test_blocks_are_dropped_and_neither_stages_nor_layers_of_blocks():
    net, inputs = Stages().eval(), {"input": torch.rand(2, 3, 4, 4)}
    lists = {"stages", "stages.0", "stages.1", *(f"stages.0.{i}" for i in range(3)), "pair", "mixed"}
    assert set(block_lists(net)) == lists
    notes = cut_depth(net, inputs, 0.5, {})
    assert [len(stage) for stage in net.stages] == [2, 1]
    assert [len(block) for block in net.stages[0]] == [2, 2]
    assert len(net.pair) == 2, "it is gone through by number"
    assert [type(part).__name__ for part in net.mixed] == ["Conv2d", "Residual", "ReLU"]
    assert "mixed: block 1 of 2 kept, and what else is in it (2)" in notes


@pytest.mark.parametrize(
    ("name", "depth", "keep", "message"),
    [
        ("resnet", None, {"layer3": [0]}, r"no list of blocks 'layer3'(.|\n)*did you mean 'layer"),
        ("resnet", None, {"layer1": [0, 4]}, r"layer1 has no block 4(.|\n)*0 to 3"),
        ("resnet", None, {"layer1": [0, 1, 2, 3]}, "layer1 drops no block"),
        ("resnet", None, {"layer2": [1, 2]}, "block 0 of layer2 cannot be dropped"),
        ("resnet", 0.95, {}, r"drops no block of ResNet(.|\n)*layer1: all of 4 blocks are kept"),
        ("resnet", 0.1, {}, r"leaves nothing of layer1(.|\n)*0.13 or more"),
        ("bag", 0.5, {}, "Bag has no list of blocks"),
    ],
)
def test_what_cannot_be_dropped_is_told(name, depth, keep, message):
    net, inputs = make_net(name)
    with pytest.raises(ModelError, match=message):
        cut_depth(net, inputs, depth, keep)


def test_a_list_that_is_gone_through_by_number_is_told_and_left_whole():
    net, inputs = Stages().eval(), {"input": torch.rand(2, 6, 4, 4)}
    net.stages, net.mixed = nn.ModuleList(), nn.Identity()
    with pytest.raises(ModelError, match=r"drops no block(.|\n)*pair: IndexError"):
        cut_depth(net, inputs, 0.5, {})
    with pytest.raises(ModelError, match=r"does not run with blocks 0 of pair"):
        cut_depth(net, inputs, None, {"pair": [0]})
