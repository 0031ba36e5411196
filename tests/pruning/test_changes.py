"""Changes of a network: blocks left out and widths, merged, written and made."""

import copy
import json

import pytest
import torch
from nets_to_cut import make_net
from torch import nn

from edgekit.distillation.depth import drop_blocks, without_blocks
from edgekit.errors import ModelError
from edgekit.pruning.changes import Change, apply_change, as_json, from_json, merged
from edgekit.pruning.criteria import Evidence


def test_changes_are_merged():
    assert merged([]) == Change()
    assert merged(
        [
            Change(blocks={"layer1": (3,)}, widths={"stem.0": 4}),
            Change(blocks={"layer1": (1, 3), "layer2": (2,)}),
            Change(widths={"stem.0": 4, "layer2.1.conv1": 8}),
        ]
    ) == Change(blocks={"layer1": (1, 3), "layer2": (2,)}, widths={"stem.0": 4, "layer2.1.conv1": 8})


def test_different_widths_of_a_layer_are_not_merged():
    with pytest.raises(ModelError, match=r"different widths of stem.0\n  found:   4 and 6 channels"):
        merged([Change(widths={"stem.0": 4}), Change(widths={"stem.0": 6})])


def test_a_change_is_read_as_it_was_written():
    change = Change(blocks={"layer1": (1, 3), "": (0,)}, widths={"stem.0": 4})
    assert from_json(json.loads(json.dumps(as_json(change)))) == change
    assert from_json({}) == Change()


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {"block": {}},
        {"blocks": [1]},
        {"blocks": {"layer1": 1}},
        {"blocks": {"layer1": [-1]}},
        {"blocks": {"layer1": [True]}},
        {"widths": {"stem.0": 0}},
        {"widths": {"stem.0": 2.5}},
        {"widths": {1: 4}},
    ],
)
def test_what_is_no_change_is_refused(value):
    with pytest.raises(ModelError, match="this is no change of a module"):
        from_json(value)


def test_blocks_and_widths_are_left_out_at_once():
    net, inputs = make_net("resnet")
    whole = copy.deepcopy(net)
    change = Change(blocks={"layer1": (1, 2), "layer2": (3,)}, widths={"layer1.3.conv1": 4, "stem.0": 6})
    notes = apply_change(net, inputs, change)
    assert [len(net.layer1), len(net.layer2)] == [2, 3]
    assert [block.conv1.out_channels for block in net.layer1] == [8, 4]  # paths are those before any block went
    assert net.stem[0].out_channels == net.layer1[1].conv2.out_channels == 6
    assert net(inputs["input"]).shape == (4, 3)
    assert "layer1.3.conv1, layer1.3.bn1: 4 of 8 channels kept" in notes
    assert notes[-2:] == ["layer1: blocks 1, 2 left out", "layer2: block 3 left out"]
    assert not any("stay" in note for note in notes)
    assert torch.equal(net.layer2[1].conv2.weight, whole.layer2[1].conv2.weight)


def test_without_blocks_for_good_is_the_same_as_for_a_while():
    net, inputs = make_net("fused")
    with without_blocks(net, "blocks", {0, 2}):
        expected = net(inputs["input"])
    assert apply_change(net, inputs, Change(blocks={"blocks": (0, 2)})) == ["blocks: blocks 0, 2 left out"]
    assert torch.equal(net(inputs["input"]), expected)


def test_widths_inside_a_block_that_goes_are_passed_over():
    net, inputs = make_net("resnet")
    change = Change(blocks={"layer1": (1,)}, widths={"layer1.1.conv1": 4})
    assert apply_change(net, inputs, change) == ["layer1: block 1 left out"]
    assert [block.conv1.out_channels for block in net.layer1] == [8, 8, 8]
    net, _ = make_net("resnet")
    notes = apply_change(net, inputs, Change(blocks=change.blocks, widths={**change.widths, "layer1.2.conv1": 2}))
    assert [block.conv1.out_channels for block in net.layer1] == [8, 2, 8]
    assert not any("layer1.1" in note for note in notes)


@pytest.mark.parametrize("name", ["fused", "separate"])
def test_heads_that_must_be_as_wide_as_the_stream_follow_it_in_blocks_that_go(name):
    net, inputs = make_net(name)
    first = "qkv" if name == "fused" else "query"
    widths = {"patches": 12, **{f"blocks.{i}.attention.{first}": 12 for i in range(4)}}
    apply_change(net, inputs, Change(blocks={"blocks": (1, 2)}, widths=widths))
    assert net.patches.out_channels == net.blocks[1].attention.out.in_features == 12
    assert len(net.blocks) == 2
    assert net(inputs["input"]).shape == (4, 3)


def test_channels_are_dropped_by_the_criterion_given():
    chosen = []
    for seed in (0, 1):
        net, inputs = make_net("resnet")
        change = Change(widths={"layer1.0.conv1": 4})
        apply_change(net, inputs, change, criterion="random", evidence=Evidence(seed=seed))
        chosen.append(net.layer1[0].conv1.weight)
    assert not torch.equal(*chosen)


def test_no_change_does_nothing():
    net, inputs = make_net("resnet")
    assert apply_change(net, inputs, Change(blocks={"layer1": ()})) == []
    assert len(net.layer1) == 4


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("resnet", Change(blocks={"layer3": (0,)}), r"no list of blocks 'layer3'(.|\n)*did you mean"),
        ("resnet", Change(blocks={"layer1": (4,)}), r"layer1 has no block 4(.|\n)*0 to 3"),
        ("resnet", Change(blocks={"layer1": (0,)}, widths={"stem.1": 4, "stem.9": 4}), "no layer 'stem.9' that gives"),
        ("resnet", Change(blocks={"layer2": (0,)}, widths={"stem.0": 4}), "does not run without its blocks"),
        ("encoder", Change(blocks={"encoder.layers": (0, 1, 2, 3)}, widths={"tokens": 8}), "does not run without its"),
        ("resnet", Change(widths={"layer1.1.conv1": 9}), "layer1.1.conv1 cannot keep 9 channels"),
        ("resnet", Change(widths={"fc": 2}), "all 3 channels of fc must stay"),
    ],
)
def test_after_an_error_all_is_as_it_was(name, change, message):
    net, inputs = make_net(name)
    before, outputs = dict(net.named_parameters()), net(inputs["input"])
    values = {key: value.clone() for key, value in net.state_dict().items()}
    with pytest.raises(ModelError, match=message):
        apply_change(net, inputs, change)
    after = dict(net.named_parameters())
    assert list(before) == list(after)
    assert all(before[key] is after[key] for key in before)
    assert all(torch.equal(values[key], value) for key, value in net.state_dict().items())
    assert torch.equal(net(inputs["input"]), outputs)


class Stages(nn.Module):
    """Stages in a list, each a list of blocks."""

    def __init__(self):
        super().__init__()
        self.stages = nn.Sequential(*(nn.Sequential(*(make_net("resnet")[0].layer1)) for _ in range(3)))

    def forward(self, x):
        return self.stages(x)


def test_lists_in_lists_keep_their_paths_until_all_are_left_out():
    net, inputs = Stages().eval(), {"input": torch.rand(2, 8, 4, 4)}
    kept = [*net.stages[0], *(block for i, block in enumerate(net.stages[2]) if i not in (0, 3))]
    drop_blocks(net, inputs, {"stages": [1], "stages.2": [3, 0]})
    assert [block for stage in net.stages for block in stage] == kept


def test_a_block_that_changes_the_outputs_stays():
    net = nn.Sequential(*(nn.Sequential(nn.Linear(4, 4 - i)) for i in range(2)), nn.Flatten())
    with pytest.raises(ModelError, match=r"outputs of Sequential have other shapes(.|\n)*\(2, 4\)(.|\n)*\(2, 3\)"):
        drop_blocks(net, {"input": torch.rand(2, 4)}, {"": [1]})
