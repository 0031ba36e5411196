"""Which channels go together."""

import torch
from nets_to_cut import INPUTS
from nets_to_prune import ROWS
from torch import nn

from edgekit.pruning.scores import score_channels
from edgekit.pruning.structured import prune_channels


class Ghost(nn.Module):
    """Channels beside a cheap copy of them: K. Han et al., "GhostNet", CVPR 2020."""

    def __init__(self):
        super().__init__()
        self.primary, self.cheap = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.depthwise, self.fc = nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.Linear(16, 3)

    def forward(self, x):
        x = self.primary(x)
        return self.fc(self.depthwise(torch.cat([x, self.cheap(x)], 1)).mean((2, 3)))


def test_a_channel_in_two_places_of_a_concatenation_is_dropped_in_both():
    net = Ghost().eval()
    (found, _) = score_channels(net, {"input": INPUTS["images"]})
    assert (found.count, found.parts) == (16, 2)
    prune_channels(net, {"input": INPUTS["images"]}, 0.25)
    assert (net.primary.out_channels, net.depthwise.out_channels, net.fc.in_features) == (6, 12, 12)


class Scaled(nn.Module):
    """Attention over channels with a number for each head, as its own parameter."""

    def __init__(self, width=8, heads=2):
        super().__init__()
        self.num_heads = heads
        self.before, self.qkv = nn.Linear(4, width), nn.Linear(width, 3 * width)
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.after, self.head = nn.Linear(width, width), nn.Linear(width, 3)

    def forward(self, x):
        n, length, _ = x.shape
        qkv = self.qkv(self.before(x)).reshape(n, length, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        y = (q @ k.transpose(-2, -1) * self.temperature).softmax(-1) @ v
        return self.head(self.after(y.transpose(1, 2).reshape(n, length, -1)).mean(1))


def test_a_parameter_of_heads_has_no_channels():
    net, inputs = Scaled().eval(), {"input": INPUTS["sequences"]}
    prune_channels(net, inputs, 0.5)
    assert net.temperature.shape == (2, 1, 1)
    assert (net.qkv.in_features, net.qkv.out_features, net.after.in_features) == (4, 12, 4)
    assert net(inputs["input"]).shape == (4, 3)


class Merging(nn.Module):
    """Lays neighbours side by side, as the patches of Swin are."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 4, 1), nn.LayerNorm(16)
        self.second, self.head = nn.Linear(16, 8), nn.Linear(8, 3)

    def forward(self, x):
        n, _, height, width = x.shape
        x = self.first(x).permute(0, 2, 3, 1).reshape(n, height // 2, 2, width // 2, 2, 4)
        x = x.permute(0, 1, 3, 4, 2, 5).flatten(3)
        return self.head(torch.relu(self.second(self.norm(x))).mean((1, 2)))


def test_what_lies_side_by_side_without_being_followed_stays_whole():
    net, inputs = Merging().eval(), {"input": INPUTS["images"]}
    notes = prune_channels(net, inputs, 0.5)
    assert (net.first.out_channels, net.second.out_features) == (4, 4)
    assert any(note.startswith("first") and "all 4 channels stay" in note for note in notes)


def test_groups_are_named_by_their_first_layer():
    net = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3)).eval()
    found = score_channels(net, {"input": ROWS})
    assert [(each.name, each.layers) for each in found] == [("0", ("0", "1")), ("3", ("3",))]
