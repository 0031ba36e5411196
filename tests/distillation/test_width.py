"""Networks with fewer channels."""

import pytest
import torch
from nets_to_cut import INPUTS, NETS, Mobile, ResNet, Written, make_net
from torch import nn

from edgekit.distillation.width import cut_width
from edgekit.errors import ModelError
from edgekit.models import count_parameters


@pytest.mark.parametrize("name", NETS)
def test_every_network_is_cut_and_still_takes_and_gives_the_same(name):
    net, inputs = make_net(name)
    parameters, shape = count_parameters(net), net(inputs["input"]).shape
    notes = cut_width(net, inputs, 0.5)
    assert count_parameters(net) < parameters
    assert net(inputs["input"]).shape == shape
    assert notes[0].endswith(f"{count_parameters(net):,} of {parameters:,} parameters")
    net.train()(inputs["input"]).square().mean().backward()
    used = [name for name, parameter in net.named_parameters() if parameter.grad is None]
    assert not used, "all of it learns"


def kill(dead, *producers):
    """Sets what layers give in some channels to zero."""
    with torch.no_grad():
        for layer in producers:
            for parameter in layer.parameters(recurse=False):
                parameter[dead] = 0


def ignore(dead, *consumers):
    """Makes layers ignore some of the channels they take."""
    with torch.no_grad():
        for layer in consumers:
            layer.weight[:, dead] = 0


def halves(count, generator=torch.Generator().manual_seed(3)):  # noqa: B008  # one stream of halves
    return torch.randperm(count, generator=generator)[: count // 2].tolist()


def test_channels_that_do_nothing_are_the_ones_dropped():
    net, inputs = make_net("resnet")
    stream = {"layer1": halves(8), "layer2": halves(16)}
    kill(stream["layer1"], net.stem[0], net.stem[1])
    kill(stream["layer2"], net.layer2[0].shortcut)
    for name, dead in stream.items():
        for i, block in enumerate(getattr(net, name)):
            inner = halves(block.conv1.out_channels)
            kill(inner, block.conv1, block.bn1)
            ignore(inner, block.conv2)
            kill(dead, block.conv2, block.bn2)
            before = stream["layer1"] if (name, i) == ("layer2", 0) else dead
            ignore(before, block.conv1, *([block.shortcut] if before is not dead else []))
    ignore(stream["layer2"], net.fc)
    with torch.no_grad():
        expected = net(inputs["input"])
        cut_width(net, inputs, 0.5)
        assert net.layer2[1].conv1.weight.shape == (8, 8, 3, 3)
        assert torch.allclose(net(inputs["input"]), expected, atol=1e-6)


def test_so_they_are_behind_a_concatenation_a_depthwise_and_a_grouped_convolution_and_a_flattening():
    net, inputs = make_net("mobile")
    net.norm = nn.Identity()  # it takes its statistics over dead channels too
    left, right, point, grouped = halves(8), halves(16), [1, 3, 4, 5, 9, 11, 12, 13], [0, 2, 5, 7, 8, 10, 13, 15]
    both = left + [8 + i for i in right]
    kill(left, net.left)
    kill(right, net.right)
    kill(both, net.depthwise)
    ignore(both, net.point)
    kill(point, net.point)  # half of each of the two groups, the same ones
    ignore([1, 3, 4, 5], net.grouped)
    kill(grouped, net.grouped)
    ignore([4 * i + j for i in grouped for j in range(4)], net.fc)
    with torch.no_grad():
        expected = net(inputs["input"])
        cut_width(net, inputs, 0.5)
        assert net.grouped.weight.shape == (8, 4, 3, 3)
        assert torch.allclose(net(inputs["input"]), expected, atol=1e-6)


def kept_of(norm):
    """Channels that a LayerNorm kept, where its weights were numbered."""
    return norm.weight.detach().round().long().tolist()


@pytest.mark.parametrize("name", ["fused", "separate", "encoder", "sinusoids"])
@pytest.mark.parametrize("width", [0.5, 0.3])
def test_attention_keeps_its_heads_and_one_stream_of_channels(name, width):
    net, inputs = make_net(name)
    whole, _ = make_net(name)
    norms = [part for part in net.modules() if isinstance(part, nn.LayerNorm)]
    with torch.no_grad():
        for norm in norms:
            norm.weight.copy_(torch.arange(len(norm.weight)))
    cut_width(net, inputs, width)
    kept = kept_of(norms[0])
    heads = {"fused": 6, "separate": 6}.get(name, 4)  # channels a head
    assert len(kept) == 4 * int(heads * width + 0.5)
    assert kept == sorted(kept)
    assert all(kept_of(norm) == kept for norm in norms)
    assert [sum(i // heads == head for i in kept) for head in range(4)] == [len(kept) // 4] * 4
    assert torch.equal(net.head.weight, whole.head.weight[:, kept])
    assert torch.equal(net.places, whole.places[..., kept])
    assert isinstance(net.places, nn.Parameter) == (name != "sinusoids")
    if name == "fused":
        attention = net.blocks[0].attention
        assert (attention.num_heads, attention.head_dim) == (4, len(kept) // 4)
        given = [whole.blocks[0].attention.qkv.bias.tolist().index(value) for value in attention.qkv.bias.tolist()]
        query, key, value = torch.tensor(given).view(3, -1).tolist()
        assert [i + 24 for i in query] == key == [i - 24 for i in value]


def test_a_channel_counts_for_all_that_goes_with_it():
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3))
    with torch.no_grad():
        net[0].weight.fill_(1.0)
        net[2].weight.copy_(torch.tensor([[3.0, 1.0, 4.0, 2.0]] * 3))
    cut_width(net, {"input": INPUTS["rows"]}, 0.5)
    assert net[2].weight[0].tolist() == [3.0, 4.0]


def test_frozen_parameters_and_buffers_stay_what_they_are():
    net, inputs = make_net("sinusoids")
    net.tokens.weight.requires_grad_(False)
    net.register_buffer("unused", torch.ones(3), persistent=False)
    cut_width(net, inputs, 0.5)
    assert not net.tokens.weight.requires_grad
    assert net.head.weight.requires_grad
    assert "unused" not in net.state_dict()
    assert "places" in dict(net.named_buffers())


def test_what_is_added_to_the_input_keeps_its_channels():
    class Added(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.head = nn.Linear(4, 8), nn.Linear(8, 4), nn.Linear(4, 3)

        def forward(self, x):
            return self.head(x + self.second(torch.relu(self.first(x))))

    net = Added()
    cut_width(net, {"input": INPUTS["rows"]}, 0.5)
    assert (net.first.out_features, net.second.out_features) == (4, 4)


def test_recurrent_layers_keep_their_channels():
    net, inputs = make_net("gru")
    assert "rnn: keeps its channels" in cut_width(net, inputs, 0.5)
    assert (net.before.out_features, net.rnn.hidden_size, net.hidden.out_features) == (8, 6, 4)
    assert "forward" not in vars(net.rnn)


@pytest.mark.parametrize(
    ("net", "rows", "width", "message"),
    [
        (ResNet, "images", 0.99, r"drops no channel of ResNet"),
        (ResNet, "images", 0.05, r"leaves nothing of layer1(.|\n)*0.07 or more"),
        (lambda: nn.Linear(4, 3), "rows", 0.5, "drops no channel of Linear"),
        (Written, "rows", 0.5, r"does not run with student.width = 0.5: layer 'second'|cannot cut Written"),
    ],
)
def test_what_cannot_be_cut_is_told(net, rows, width, message):
    with pytest.raises(ModelError, match=message):
        cut_width(net().eval(), {"input": INPUTS[rows]}, width)


def test_groups_of_channels_are_dropped_evenly_or_not_at_all():
    net = Mobile().eval()
    net.norm, net.grouped = nn.GroupNorm(8, 16), nn.Conv2d(16, 16, 3, 2, 1)
    with pytest.raises(ModelError, match=r"leaves nothing of point(.|\n)*16 channels in 8 groups or heads"):
        cut_width(net, {"input": INPUTS["images"]}, 0.2)
    cut_width(net, {"input": INPUTS["images"]}, 0.5)
    assert (net.norm.num_channels, net.grouped.out_channels) == (8, 8)
    cut_width(net, {"input": INPUTS["images"]}, 0.5)
    assert (net.norm.num_channels, net.grouped.out_channels) == (8, 4), "one channel a group is the least"


def test_parts_that_do_not_fit_each_other_are_told():
    net = Mobile().eval()
    net.depthwise = nn.GroupNorm(3, 24)  # over 8 channels of one layer and 16 of another
    with pytest.raises(ModelError, match=r"cannot cut (left|right)(.|\n)*3 parts of groups and heads"):
        cut_width(net, {"input": INPUTS["images"]}, 0.5)
