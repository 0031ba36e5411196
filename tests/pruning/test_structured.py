"""Networks without their least channels."""

import pytest
import torch
from nets_to_cut import INPUTS, NETS, Mobile, Recurrent, ResNet, Vision, Written, make_net
from nets_to_prune import ROWS, Branch, Gate, Slim, TalkingNet, perceptron
from torch import nn

from edgekit.errors import ModelError, UnknownName
from edgekit.models import count_parameters
from edgekit.pruning.criteria import Evidence
from edgekit.pruning.scores import score_channels
from edgekit.pruning.sizes import sizes_of
from edgekit.pruning.structured import prune_channels, prune_to


def widths(net):
    """What every layer gives, by name."""
    return {name: sizes_of(net)[part][-1] for name, part in net.named_modules() if part in sizes_of(net)}


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_every_network_is_pruned_and_still_takes_and_gives_the_same(name, scope):
    net, inputs = make_net(name)
    parameters, shape = count_parameters(net), net(inputs["input"]).shape
    notes = prune_channels(net, inputs, 0.4, criterion="random", scope=scope, evidence=Evidence(seed=2))
    assert notes[0].endswith(f"{count_parameters(net):,} of {parameters:,} parameters kept")
    assert count_parameters(net) < parameters
    assert net(inputs["input"]).shape == shape
    net.train()(inputs["input"]).square().mean().backward()
    assert not [name for name, parameter in net.named_parameters() if parameter.grad is None], "all of it learns"


def test_each_layer_loses_its_share_or_all_of_them_together():
    by_layer, inputs = make_net("resnet")
    over_all, _ = make_net("resnet")
    with torch.no_grad():
        for net in (by_layer, over_all):
            net.layer1[0].conv1.weight[:6] *= 0.01  # six of eight hardly count
            net.layer1[0].bn1.weight[:6] = 0.01
            net.layer1[0].conv2.weight[:, :6] *= 0.01
    prune_channels(by_layer, inputs, 0.25)
    prune_channels(over_all, inputs, 0.25, scope="global")
    assert by_layer.layer1[0].conv1.out_channels == 6
    assert over_all.layer1[0].conv1.out_channels == 2
    assert sum(widths(over_all).values()) >= sum(widths(by_layer).values())


@pytest.mark.parametrize("name", ["resnet", "mobile", "fused", "encoder"])
def test_no_layer_is_emptied_by_the_largest_share(name):
    net, inputs = make_net(name)
    prune_channels(net, inputs, 0.999, scope="global")
    assert min(widths(net).values()) >= 1
    assert torch.isfinite(net(inputs["input"])).all()


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_of_layers_side_by_side_each_keeps_its_best_channel(scope):
    net, inputs = make_net("mobile")
    with torch.no_grad():
        net.left.weight *= 1e-3
        net.depthwise.weight[:8] *= 1e-3
        net.point.weight[:, :8] *= 1e-3
        net.left.weight[3] *= 10
        best = net.left.weight[3:4].clone()
    prune_channels(net, inputs, 0.5, scope=scope)
    assert torch.equal(net.left.weight, best)
    assert net(inputs["input"]).shape == (4, 3)


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_widths_are_multiples_and_a_smaller_layer_stays_whole(scope):
    net, inputs = make_net("resnet")
    net.layer1[1].conv1, net.layer1[1].bn1 = nn.Conv2d(8, 3, 3, padding=1), nn.BatchNorm2d(3).eval()
    net.layer1[1].conv2 = nn.Conv2d(3, 8, 3, padding=1)
    notes = prune_channels(net, inputs, 0.4, scope=scope, multiple=4)
    assert net.layer1[1].conv1.out_channels == 3
    assert {width % 4 for name, width in widths(net).items() if not name.startswith(("layer1.1", "fc"))} == {0}
    assert count_parameters(net) < 22_000
    told = "layer1.1.conv1, layer1.1.bn1: all 3 channels stay: a multiple of 4 channels is more than all 3"
    assert told in notes


def test_a_multiple_larger_than_all_layers_is_told_with_their_names():
    net, inputs = make_net("resnet")
    with pytest.raises(
        ModelError, match=r"drops no channel(.|\n)*layer1.0.conv1(.|\n)*multiple of 32 .* more than all 8"
    ):
        prune_channels(net, inputs, 0.5, multiple=32)


def test_multiples_go_with_heads_and_groups():
    net, inputs = make_net("mobile")
    found = {each.name: each for each in score_channels(net, inputs, multiple=3)}
    assert found["point"].whole is None, "12 of 16 channels in four groups are a multiple of 3"
    prune_channels(net, inputs, 0.3, multiple=3)
    assert (net.point.out_channels, net.grouped.out_channels) == (12, 12)
    found = {each.name: each for each in score_channels(net, inputs, multiple=5)}
    assert (
        found["point"].whole
        == "a multiple of 5 channels, 20 with the groups and heads of norm, grouped, is more than all 12"
    )


def test_layers_to_keep_keep_the_channels_they_give():
    net, inputs = make_net("resnet")
    notes = prune_channels(net, inputs, 0.5, keep=["stem", "layer2.1.conv1"])
    found = widths(net)
    assert {found[name] for name in ("stem.0", "layer1.0.conv2", "layer1.3.bn2", "layer1.2.conv2")} == {8}
    assert (found["layer1.0.conv1"], found["layer2.1.conv1"], found["layer2.0.conv1"]) == (4, 16, 8)
    assert "layer2.1.conv1, layer2.1.bn1: all 16 channels stay: layer2.1.conv1 is in keep" in notes


def test_attention_has_one_width_with_its_stream():
    net, inputs = make_net("fused")
    found = {each.name: each.width for each in score_channels(net, inputs)}
    stream = {name for name, width in found.items() if width == found["patches"]}
    assert stream == {"patches", *(f"blocks.{i}.attention.qkv" for i in range(4))}
    notes = prune_channels(net, inputs, 0.5, scope="global", keep=["blocks.2.attention.qkv"])
    assert (net.patches.out_channels, net.blocks[0].attention.qkv.out_features) == (24, 72)
    assert (
        "blocks.0.attention.qkv: all 24 channels stay: they have the width of blocks.2.attention.qkv, "
        "where blocks.2.attention.qkv is in keep"
    ) in notes


class Tied(nn.Module):
    """Adds to what it takes, and gives a sum of two layers."""

    def __init__(self):
        super().__init__()
        self.up, self.down, self.free = nn.Linear(4, 8), nn.Linear(8, 4), nn.Linear(4, 8)
        self.left, self.right = nn.Linear(8, 3), nn.Linear(8, 3)

    def forward(self, x):
        x = torch.relu(self.free(x + self.down(torch.relu(self.up(x)))))
        return torch.tanh(self.left(x)) + self.right(x)


class Summed(nn.Module):
    """Adds channels up in a way that is not followed."""

    def __init__(self):
        super().__init__()
        self.first, self.hidden, self.head = nn.Linear(4, 6), nn.Linear(1, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.hidden(self.first(x).sum(1, keepdim=True)))


@pytest.mark.parametrize(
    ("net", "kind", "layer", "why"),
    [
        (Tied, "rows", "down", "add ties it to the model's input"),
        (Tied, "rows", "left", "add ties it to the model's output"),
        (lambda: Recurrent("LSTM"), "sequences", "before", "it goes through the recurrent layer rnn"),
        (ResNet, "images", "fc", "fc gives the model's output"),
        (Summed, "rows", "first", "head takes 1 channels, and 6 lead there"),
    ],
)
def test_what_cannot_be_pruned_is_named_with_what_ties_it(net, kind, layer, why):
    net = net().eval()
    before = widths(net)[layer]
    notes = prune_channels(net, {"input": INPUTS[kind]}, 0.5)
    (note,) = [note for note in notes if note.startswith(layer)]
    assert f"all {before} channels stay: {why}".replace("head takes", "hidden takes") in note
    assert widths(net)[layer] == before


def test_parts_that_do_not_fit_stay_whole_with_the_layer_that_ties_them():
    net = Mobile().eval()
    net.depthwise = nn.GroupNorm(3, 24)
    notes = prune_channels(net, {"input": INPUTS["images"]}, 0.5)
    assert any(note.startswith("left, ") and "of depthwise do not divide 8 channels into 3" in note for note in notes)
    assert (net.left.out_channels, net.right.out_channels, net.grouped.out_channels) == (8, 16, 8)


def test_layers_are_pruned_to_widths_that_were_chosen():
    net, inputs = make_net("mobile")
    prune_to(net, inputs, {"norm": 8})
    assert (net.point.out_channels, net.grouped.in_channels, net.grouped.out_channels) == (8, 8, 16)
    assert net.left.out_channels == 8
    net, inputs = make_net("fused")
    heads = {f"blocks.{i}.attention.qkv": 12 for i in range(4)}
    notes = prune_to(net, inputs, {"patches": 12, "blocks.1.mlp.0": 5, **heads})
    assert (net.patches.out_channels, net.blocks[1].mlp[0].out_features, net.blocks[0].mlp[0].out_features) == (
        12,
        5,
        48,
    )
    assert "blocks.1.mlp.0: 5 of 48 channels kept" in notes


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"pint": 8}, r"has no layer 'pint' that gives channels(.|\n)*did you mean 'point'"),
        ({"fc": 2}, r"all 3 channels of fc must stay(.|\n)*fc gives the model's output"),
        ({"point": 6}, r"point cannot keep 6 channels(.|\n)*16 in 4 groups or heads(.|\n)*4 to 16, multiples of 4"),
        ({"left": 0}, r"left cannot keep 0 channels"),
        ({"left": 99}, r"left cannot keep 99 channels"),
        ({"left": 1}, r"left cannot keep 1 channels(.|\n)*2 to 24"),  # and the same of right
        ({"point": 16}, r"drops no channel of Mobile"),
    ],
)
def test_widths_that_cannot_be_are_told(chosen, message):
    net, inputs = make_net("mobile")
    with pytest.raises(ModelError, match=message):
        prune_to(net, inputs, chosen)


def test_widths_that_must_be_one_are_told():
    net, inputs = make_net("fused")
    with pytest.raises(ModelError, match=r"patches and blocks.0.attention.qkv must have one width(.|\n)*24 and 12"):
        prune_to(net, inputs, {"blocks.0.attention.qkv": 12})


@pytest.mark.parametrize(
    ("further", "message"),
    [
        ({"share": 0.0}, r"drops a share of the channels(.|\n)*above 0 and below 1"),
        ({"share": 1.0}, r"drops a share of the channels"),
        ({"share": float("nan")}, r"drops a share of the channels"),
        ({"multiple": 0}, r"multiple of channels is a whole number(.|\n)*1 or more"),
        ({"multiple": 2.5}, r"multiple of channels is a whole number"),
        ({"keep": ["2.weight"]}, r"keep names no layer of Sequential(.|\n)*'2.weight'(.|\n)*0, 1, 2"),
        ({"share": 0.01}, r"drops no channel of Sequential: 1% of the channels of each layer"),
        ({"keep": ["0"]}, r"drops no channel(.|\n)*0: all 6 channels stay: 0 is in keep"),
    ],
)
def test_wrong_arguments_are_told(further, message):
    with pytest.raises(ModelError, match=message):
        prune_channels(perceptron(), {"input": ROWS}, **{"share": 0.5, **further})


def test_an_unknown_scope_is_told():
    with pytest.raises(UnknownName, match=r"unknown scope of pruning 'layers'(.|\n)*did you mean 'layer'"):
        prune_channels(perceptron(), {"input": ROWS}, 0.5, scope="layers")


class Sized(nn.Module):
    """Writes a size down, of which only its forward knows."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.second = nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)
        self.register_buffer("table", torch.rand(2, 8))

    def forward(self, x):
        return self.second((self.norm(self.first(x)) + self.table[0]).reshape(len(x), 8))


def test_after_an_error_the_module_is_what_it_was():
    net = Sized().train()
    net.first.weight.requires_grad_(False)
    state, layers = {name: value.clone() for name, value in net.state_dict().items()}, widths(net)
    with pytest.raises(ModelError, match=r"Sized does not run after it was pruned(.|\n)*name the layer in keep"):
        prune_channels(net, {"input": ROWS}, 0.5)
    assert widths(net) == layers
    assert list(net.state_dict()) == list(state)
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert not net.first.weight.requires_grad
    assert net.second.weight.requires_grad
    assert net.training
    net(ROWS).sum().backward()


def test_what_is_not_followed_is_told():
    with pytest.raises(ModelError, match=r"drops no channel of Written(.|\n)*channels \[0, 1\] of first go together"):
        prune_channels(Written().eval(), {"input": ROWS}, 0.5)


def test_pruning_leaves_modes_and_frozen_parameters_and_buffers():
    net, inputs = make_net("sinusoids")
    net.train()
    net.tokens.weight.requires_grad_(False)
    prune_channels(net, inputs, 0.5, scope="global", criterion="l1")
    assert net.training
    assert not net.tokens.weight.requires_grad
    assert net.head.weight.requires_grad
    assert "places" in dict(net.named_buffers())


def test_scoring_changes_nothing():
    net, inputs = Vision().eval(), {"input": INPUTS["images"]}
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found = score_channels(net, inputs)
    assert [each.name for each in found][:3] == ["patches", "blocks.0.attention.qkv", "blocks.0.mlp.0"]
    assert (found[1].count, found[1].parts, len(found[1].importance)) == (24, 4, 24)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_channels_without_a_batchnorm_stay_under_its_criterion():
    net = Slim().eval()
    notes = prune_channels(net, {"input": INPUTS["images"]}, 0.5, criterion="batchnorm", scope="global")
    assert net.conv3.out_channels == 8
    assert "conv3: all 8 channels stay: the criterion says nothing of them" in notes


def test_a_shape_that_a_module_remembers_of_its_own_scales_is_renewed():
    net = nn.Sequential(nn.Conv2d(3, 8, 3), Branch(8), nn.Conv2d(8, 8, 1), nn.Flatten(), nn.Linear(288, 3)).eval()
    prune_channels(net, {"input": INPUTS["images"]}, 0.5)
    assert net[1].shape == (4, 1, 1)
    assert len(net[1].scales) == net[0].out_channels == 4
    assert net(INPUTS["images"]).shape == (len(INPUTS["images"]), 3)


def test_a_stream_stays_whole_where_heads_of_its_width_must():
    inputs = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
    net = TalkingNet().eval()
    notes = prune_channels(net, {"input": inputs}, 0.5)
    assert net.mlp[0].out_features == 12
    assert (net.stem.out_features, net.attention.qkv.out_features) == (12, 36)
    assert any("12 channels stay: they have the width of attention.qkv" in note for note in notes)
    net = TalkingNet().eval()
    prune_to(net, {"input": inputs}, {"mlp.0": 20})
    assert net.mlp[0].out_features == 20


class Split(nn.Module):
    """A layer whose channels go two ways, or one half both ways. Input ``[n, 3, 8, 8]``."""

    def __init__(self, *, crossed=False):
        super().__init__()
        self.both, self.left, self.right = nn.Conv2d(3, 8, 1), nn.Conv2d(4, 6, 1), nn.Conv2d(4, 6, 1)
        self.head, self.crossed = nn.Linear(6, 3), crossed

    def forward(self, x):
        a, b = self.both(x).chunk(2, 1)
        return self.head((self.left(a) * self.right(a if self.crossed else b)).mean((2, 3)))


def test_parts_of_a_split_tensor_are_followed_in_their_order():
    net, inputs = Split().eval(), INPUTS["images"]
    with torch.no_grad():
        for i in (0, 5):  # one that goes to the left, one to the right: nothing comes of them
            net.both.weight[i], net.both.bias[i] = 0, 0
            net.left.weight[:, i % 4] *= 1e-3 if i < 4 else 1
            net.right.weight[:, i % 4] *= 1e-3 if i >= 4 else 1
    before = net(inputs)
    prune_to(net, {"input": inputs}, {"both": 6})
    assert net.both.out_channels == 6
    assert torch.allclose(net(inputs), before, atol=1e-6)


def test_a_half_of_a_split_tensor_that_goes_two_ways_is_not_followed():
    found = {each.name: each.whole for each in score_channels(Split(crossed=True).eval(), {"input": INPUTS["images"]})}
    assert found["both"] == "split ties it to parts that are not taken once each"
    assert found["left"] is None


def test_a_layer_whose_channels_are_taken_for_others_stays_whole_and_its_input_does_not():
    inputs = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(0))
    net = Gate().eval()
    notes = prune_channels(net, {"input": inputs}, 0.5)
    assert (net.stem.out_features, net.fc1.in_features, net.fc1.out_features, net.fc2.out_features) == (4, 4, 16, 4)
    assert any("fc1" in note and "stay: fc1 has 16 channels, of which 5 are known" in note for note in notes)
    assert net(inputs).shape == (2, 3)
