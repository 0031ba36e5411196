"""What may be left out of a network, one by one."""

import copy
import importlib.util
from pathlib import Path

import pytest
import torch
from nets_to_cut import Residual, Vision, make_net
from nets_to_prune import Slim, perceptron
from torch import nn

from edgekit.errors import DataError, ModelError, UnknownName
from edgekit.pruning.changes import Change, apply_change, merged
from edgekit.pruning.counting import macs_of
from edgekit.pruning.moves import find_moves

PICTURES = {"input": torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))}


def found(net, inputs=PICTURES, **given):
    """Kinds and names of moves by name of the group."""
    return {
        group.name: (group.kind, [move.name for move in group.moves]) for group in find_moves(net, inputs, **given)[0]
    }


def changes(net, inputs=PICTURES, **given):
    groups, _ = find_moves(net, inputs, **given)
    return {group.name: [move.change for move in group.moves] for group in groups}


def test_blocks_and_channels_of_a_residual_network():
    net, inputs = make_net("resnet")
    groups, notes = find_moves(net, inputs, multiple=4)
    names = [
        "stem.0",
        *(f"layer1.{i}" for i in range(4)),
        "layer2.0",
        "layer2.0.conv2",
        *(f"layer2.{i}" for i in (1, 2, 3)),
    ]
    assert [group.name for group in groups] == names
    assert found(net, inputs, multiple=4) == {
        "stem.0": ("channels", ["4 of 8 channels"]),
        **{f"layer1.{i}": ("block", ["removed", "4 of 8 channels"]) for i in range(4)},
        "layer2.0": ("channels", ["12 of 16 channels", "8 of 16 channels", "4 of 16 channels"]),
        "layer2.0.conv2": ("channels", ["12 of 16 channels", "8 of 16 channels", "4 of 16 channels"]),
        **{
            f"layer2.{i}": ("block", ["removed", "12 of 16 channels", "8 of 16 channels", "4 of 16 channels"])
            for i in (1, 2, 3)
        },
    }
    of = {group.name: [move.change for move in group.moves] for group in groups}
    assert of["layer1.3"] == [Change(blocks={"layer1": (3,)}), Change(widths={"layer1.3.conv1": 4})]
    assert of["layer2.0.conv2"][0] == Change(widths={"layer2.0.conv2": 12})
    assert notes == [
        "block layer2.0 stays: it gives another shape than it takes",
        "fc: all 3 channels stay: fc gives the model's output",
    ]


def test_alike_are_blocks_of_the_same_layers_at_the_same_sizes():
    net, inputs = make_net("resnet")
    of = {group.name: group.alike for group in find_moves(net, inputs)[0]}
    assert len({of[f"layer1.{i}"] for i in range(4)}) == 1
    assert len({of[f"layer2.{i}"] for i in (1, 2, 3)}) == 1
    assert len(set(of.values())) == 5
    more = {name: tensor.repeat(3, 1, 1, 1) for name, tensor in inputs.items()}
    assert {group.name: group.alike for group in find_moves(net, more)[0]} == of
    bigger = {name: tensor.repeat(1, 1, 2, 2) for name, tensor in inputs.items()}
    assert not {group.alike for group in find_moves(net, bigger)[0]} & set(of.values())


class Bottleneck(nn.Module):
    """Three convolutions around which there is a way."""

    def __init__(self, width, inner):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, inner, 1, bias=False), nn.BatchNorm2d(inner)
        self.conv2, self.bn2 = nn.Conv2d(inner, inner, 3, 1, 1, bias=False), nn.BatchNorm2d(inner)
        self.conv3, self.bn3 = nn.Conv2d(inner, width, 1, bias=False), nn.BatchNorm2d(width)

    def forward(self, x):
        y = torch.relu(self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))))
        return torch.relu(x + self.bn3(self.conv3(y)))


def bottlenecks():
    blocks = nn.Sequential(*(Bottleneck(16, 8) for _ in range(3)))
    return nn.Sequential(nn.Conv2d(3, 16, 1), blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 3)).eval()


def test_all_channels_inside_a_block_are_cut_at_once():
    of = changes(bottlenecks())
    assert of["1.1"] == [
        Change(blocks={"1": (1,)}),
        *(Change(widths={"1.1.conv1": width, "1.1.conv2": width}) for width in (6, 4, 2)),
    ]
    assert found(bottlenecks())["1.1"][1] == ["removed", "12 of 16 channels", "8 of 16 channels", "4 of 16 channels"]


def cifar():
    path = Path(__file__).parents[2] / "examples" / "cifar10" / "cifar10.py"
    spec = importlib.util.spec_from_file_location("cifar10_to_prune", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ResNet(blocks=(2, 2, 2), widths=(4, 8, 16)).eval()


def test_shortcuts_that_pad_channels_keep_the_stream_and_nothing_else():
    net = cifar()
    groups, notes = find_moves(net, PICTURES)
    assert {group.name: group.kind for group in groups} == {
        "layer1.0": "block",
        "layer1.1": "block",
        "layer2.0": "channels",
        "layer2.1": "block",
        "layer3.0": "channels",
        "layer3.1": "block",
    }
    assert [note for note in notes if note.startswith("conv1, bn1, layer1.0.conv2")]
    before = macs_of(net, PICTURES)
    apply_change(net, PICTURES, merged(group.moves[-1].change for group in groups))
    assert net.layer2[0].conv1.out_channels == 2
    assert macs_of(net, PICTURES) < before / 2


@pytest.mark.parametrize("name", ["resnet", "mobile", "encoder", "fused", "separate", "bag"])
def test_moves_can_be_made_alone_and_one_of_each_group_together(name):
    net, inputs = make_net(name)
    groups, _ = find_moves(net, inputs, multiple=2)
    whole, saved = macs_of(net, inputs), []
    firsts, lasts = ([group.moves[at].change for group in groups] for at in (0, -1))
    for change in [*firsts[:3], *lasts[-2:], merged(firsts), merged(lasts)]:
        other = copy.deepcopy(net)
        assert apply_change(other, inputs, change)
        assert other(inputs["input"]).shape == net(inputs["input"]).shape
        saved.append(whole - macs_of(other, inputs))
    assert min(saved) > 0
    assert max(saved) in saved[-2:]


def test_one_block_stays_where_a_network_does_not_run_without_any():
    net, inputs = make_net("encoder")
    groups, notes = find_moves(net, inputs)
    assert [group.name for group in groups if group.kind == "block"] == [f"encoder.layers.{i}" for i in (1, 2, 3)]
    assert "block encoder.layers.0 stays: it is the first, and one of them must stay" in notes


def test_the_last_block_of_a_list_may_go_and_the_first_of_a_stage_keeps_its_place():
    net, inputs = make_net("resnet")
    apply_change(net, inputs, Change(blocks={"layer1": (0, 1, 3), "layer2": (1, 2, 3)}))
    of = found(net, inputs, multiple=4)
    assert of["layer1.0"] == ("block", ["removed", "4 of 8 channels"])
    assert of["layer2.0"][0] == "channels"
    apply_change(net, inputs, Change(blocks={"layer1": (0,)}))
    assert set(found(net, inputs)) == {"stem.0", "layer2.0.conv1", "layer2.0.conv2"}


def test_blocks_of_a_stage_are_offered_and_the_stage_is_not():
    stages = (nn.Sequential(*(Residual(3, 3) for _ in range(2))) for _ in range(2))
    net = nn.Sequential(nn.Sequential(*stages), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    assert list(found(net, channels=False)) == ["0.0.0", "0.0.1", "0.1.0", "0.1.1"]


class Inverted(nn.Module):
    """Three layers in a list, the middle one of which gives the shape it takes; with a way around all of them."""

    def __init__(self):
        super().__init__()
        sizes = [(3, 6, 1), (6, 6, 6), (6, 3, 1)]
        self.layers = nn.Sequential(*(nn.Sequential(nn.Conv2d(a, b, 3, 1, 1, groups=groups)) for a, b, groups in sizes))

    def forward(self, x):
        return x + self.layers(x)


def test_layers_without_a_way_around_are_not_offered_beside_blocks_with_one():
    body = nn.Sequential(Inverted(), Inverted(), Inverted().layers)
    net = nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    groups, notes = find_moves(net, PICTURES, channels=False)
    assert [group.name for group in groups] == ["0.0", "0.1"]
    assert "block 0.2.1 stays: it has no way around its layers, as others have" in notes


def test_layers_without_a_way_around_are_offered_where_there_are_no_others():
    net = nn.Sequential(*(nn.Sequential(nn.Conv2d(3, 3, 3, 1, 1), nn.ReLU()) for _ in range(3)), nn.Flatten()).eval()
    net = nn.Sequential(*(nn.Sequential(nn.Sequential(layer)) for layer in net[:3]), nn.Flatten())
    assert list(found(net, channels=False)) == ["0", "1", "2"]


def test_a_way_around_may_pass_norms_and_places_of_another_count():
    net, inputs = make_net("encoder")  # norms after each sum
    assert "encoder.layers.2" in found(net, inputs, channels=False)
    assert list(found(Vision(2).eval(), channels=False)) == ["blocks.0", "blocks.1"]


def test_what_is_in_keep_stays():
    net, inputs = make_net("resnet")
    groups, notes = find_moves(net, inputs, keep=["layer1.1.conv1", "layer2", "stem"])
    assert {group.name: group.kind for group in groups} == {f"layer1.{i}": "block" for i in (0, 2, 3)}
    assert "block layer1.1 stays: it goes with layer1.1.conv1, which is in keep" in notes
    assert "block layer2.3 stays: it goes with layer2, which is in keep" in notes
    assert any(note.endswith("all 8 channels stay: stem is in keep") for note in notes)


def test_widths_are_multiples_and_equal_ones_are_one_move():
    net, inputs = make_net("resnet")
    groups, notes = find_moves(net, inputs, multiple=8)
    assert {group.name: [move.name for move in group.moves] for group in groups if "layer2" in group.name} == {
        "layer2.0": ["8 of 16 channels"],
        "layer2.0.conv2": ["8 of 16 channels"],
        **{f"layer2.{i}": ["removed", "8 of 16 channels"] for i in (1, 2, 3)},
    }
    why = "all 8 channels stay: no share that may be kept is another multiple of 8 channels"
    assert f"layer1.3.conv1, layer1.3.bn1: {why}" in notes
    assert "stem.0" not in {group.name for group in groups}


def test_a_multiple_larger_than_a_layer_is_told():
    net, inputs = make_net("resnet")
    _, notes = find_moves(net, inputs, multiple=16)
    assert "layer1.3.conv1, layer1.3.bn1: all 8 channels stay: a multiple of 16 channels is more than all 8" in notes


def test_shares_are_the_users():
    net, inputs = make_net("resnet")
    assert found(net, inputs, shares=(0.5, 0.9, 0.5))["layer2.0"][1] == ["14 of 16 channels", "8 of 16 channels"]


def test_blocks_or_channels_alone():
    net, inputs = make_net("resnet")
    blocks = found(net, inputs, channels=False)
    assert set(blocks.values().__iter__().__next__()[1]) == {"removed"}
    assert {kind for kind, _ in blocks.values()} == {"block"}
    groups, notes = find_moves(net, inputs, blocks=False)
    assert {group.kind for group in groups} == {"channels"}
    assert [group.name for group in groups][:2] == ["stem.0", "layer1.0"]
    assert notes == ["fc: all 3 channels stay: fc gives the model's output"]


def test_of_channels_of_one_width_the_width_is_told():
    net, inputs = make_net("separate")
    kind, names = found(net, inputs, multiple=4)["patches"]
    assert (kind, names) == ("channels", ["20 of 24 channels", "12 of 24 channels", "8 of 24 channels"])
    assert changes(net, inputs, multiple=4)["patches"][0] == Change(
        widths={"patches": 20, **{f"blocks.{i}.attention.query": 20 for i in range(4)}}
    )


class Even(nn.Module):
    """Runs only where its first layer has a multiple of four channels. Input ``[n, 3, 8, 8]``."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 8, 1), nn.Linear(8, 3)

    def forward(self, x):
        x = self.first(x)
        if x.shape[1] % 4:
            raise RuntimeError("not a multiple")
        return self.head(self.second(x).mean((2, 3)))


def test_moves_that_cannot_be_made_are_told_and_not_offered():
    groups, notes = find_moves(Even().eval(), PICTURES, shares=(0.9, 0.5))
    assert {group.name: [move.name for move in group.moves] for group in groups} == {
        "first": ["8 of 16 channels"],
        "second": ["7 of 8 channels", "4 of 8 channels"],
    }
    told = [note for note in notes if "first" in note]
    assert told == [
        "first: 14 of 16 channels cannot be kept: Even does not run after it was pruned: RuntimeError: not a multiple"
    ]
    assert [group.name for group in find_moves(Even().eval(), PICTURES, shares=(0.9,))[0]] == ["second"]


def test_a_block_that_is_there_several_times_is_several_blocks():
    block = Residual(3, 3)
    net = nn.Sequential(nn.Sequential(block, block, Residual(3, 3)), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    assert list(found(net, channels=False)) == ["0.0", "0.1", "0.2"]


def test_nothing_of_the_module_changes():
    net, inputs = make_net("resnet")
    net.train()
    net.fc.weight.requires_grad_(False)
    before, parameters = copy.deepcopy(net.state_dict()), list(net.parameters())
    find_moves(net, inputs)
    assert net.training
    assert [id(parameter) for parameter in net.parameters()] == [id(parameter) for parameter in parameters]
    assert [name for name, parameter in net.named_parameters() if not parameter.requires_grad] == ["fc.weight"]
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in net.modules())


@pytest.mark.parametrize(
    ("net", "given", "error", "message"),
    [
        (Slim, {"blocks": False, "channels": False}, ModelError, "neither blocks nor channels of Slim may be left out"),
        (Slim, {"shares": (0.5, 1.0)}, ModelError, "share of the channels that is kept is wrong\n  found:   1"),
        (Slim, {"channels": False}, ModelError, "nothing of Slim can be left out(.|\n)*no Sequential or ModuleList"),
        (Slim, {"multiple": 16}, ModelError, "nothing of Slim can be left out(.|\n)*conv1(.|\n)*multiple of 16"),
        (Slim, {"multiple": 0}, ModelError, "multiple of channels is a whole number"),
        (Slim, {"keep": ["conv9"], "channels": False}, ModelError, "keep names no layer of Slim"),
        (Slim, {"criterion": "taylor"}, DataError, "criterion 'taylor' needs data"),
        (Slim, {"criterion": "l3"}, UnknownName, "criterion 'l3'"),
        (perceptron, {}, ModelError, "Sequential does not run"),
    ],
)
def test_bad_input_is_told(net, given, error, message):
    with pytest.raises(error, match=message):
        find_moves(net().eval(), PICTURES, **given)
