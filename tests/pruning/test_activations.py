"""Importance of channels by what they give."""

from dataclasses import replace

import pytest
import torch
from nets_to_cut import INPUTS, NETS, make_net
from nets_to_prune import ROWS, batch, perceptron
from torch import nn

from edgekit.errors import TrainingError
from edgekit.pruning.activations import activation
from edgekit.pruning.criteria import Evidence
from edgekit.pruning.groups import Group, Member
from edgekit.pruning.scores import score_channels


def scored(net, inputs, *batches):
    found = score_channels(
        net, {"input": inputs}, criterion="activation", evidence=Evidence(batches=[batch(given) for given in batches])
    )
    return {each.name: torch.tensor(each.importance) for each in found if each.importance is not None}


def test_it_is_the_mean_magnitude_after_the_activation_function():
    net = perceptron()
    hidden = torch.relu(net[0](ROWS)).abs().mean(0)
    assert torch.allclose(scored(net, ROWS, ROWS)["0"], hidden)
    assert torch.allclose(scored(net, ROWS, ROWS[:1], ROWS[1:])["0"], hidden), "of samples, however they are batched"


def test_a_channel_that_never_fires_ranks_last_whatever_its_weights():
    net = perceptron()
    with torch.no_grad():
        net[0].bias.fill_(1.0)
        net[0].bias[3] = -1000.0
        net[2].weight[:, 3] = 1000.0
    found = scored(net, ROWS, ROWS)["0"]
    assert (found == 0).nonzero().tolist() == [[3]]


def test_a_channel_counts_in_all_layers_that_take_it():
    class Fork(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.left, self.right = nn.Linear(4, 5), nn.Linear(5, 3), nn.Linear(5, 3)

        def forward(self, x):
            x = self.first(x)
            return self.left(torch.relu(x)) + self.right(torch.tanh(x))

    net = Fork().eval()
    x = net.first(ROWS)
    expected = torch.relu(x).mean(0) + torch.tanh(x).abs().mean(0)
    assert torch.allclose(scored(net, ROWS, ROWS)["first"], expected)


def test_a_flattened_channel_is_seen_in_all_its_places():
    net = nn.Sequential(nn.Conv2d(3, 2, 4, 4), nn.Flatten(), nn.Linear(8, 3)).eval()
    expected = net[0](INPUTS["images"]).abs().mean(0).sum((1, 2))
    assert torch.allclose(scored(net, INPUTS["images"], INPUTS["images"])["0"], expected)


def test_channels_that_no_layer_takes_count_by_what_gives_them():
    net = perceptron()
    layers = [Member(name="0", layer=net[0], takes=False, own=torch.arange(6), shared=torch.arange(6))]
    group = Group(name="0", count=6, members=tuple(layers))
    (found,) = activation(net, [group], Evidence(batches=[batch(ROWS)]))
    assert torch.allclose(found, net[0](ROWS).abs().mean(0).double())
    unseen = Group(name="aside", count=6, members=(replace(layers[0], layer=nn.Linear(4, 6)),))
    with pytest.raises(TrainingError, match=r"the channels of aside(.|\n)*no layer of theirs is called"):
        activation(net, [unseen], Evidence(batches=[batch(ROWS)]))


@pytest.mark.parametrize("name", NETS)
def test_every_network_is_scored_without_hooks_left(name):
    net, inputs = make_net(name)
    found = scored(net, inputs["input"], inputs["input"])
    assert all(values.min() >= 0 and values.max() > 0 for values in found.values())
    assert not any(part._forward_hooks for part in net.modules())


def test_values_that_are_not_finite_are_told():
    with pytest.raises(TrainingError, match=r"'activation' cannot score the channels of 0(.|\n)*not finite"):
        scored(perceptron(), ROWS, ROWS * float("inf"))
