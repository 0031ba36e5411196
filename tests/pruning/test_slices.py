"""Which parameters belong to which channel."""

import pytest
import torch
from torch import nn

from edgekit.pruning.slices import channel_sums


def ones(parameter):
    return torch.ones_like(parameter)


@pytest.mark.parametrize(
    ("layer", "takes", "count", "each", "with_bias"),
    [
        (nn.Linear(3, 5), False, 5, 3, 4),
        (nn.Linear(3, 5), True, 3, 5, 5),
        (nn.Conv2d(4, 6, 3), False, 6, 36, 37),
        (nn.Conv2d(4, 6, 3), True, 4, 54, 54),
        (nn.Conv2d(4, 6, 3, groups=2), False, 6, 18, 19),
        (nn.Conv2d(4, 6, 3, groups=2), True, 4, 27, 27),
        (nn.Conv2d(4, 4, 3, groups=4), False, 4, 9, 10),
        (nn.Conv2d(4, 8, 3, groups=4), True, 4, 18, 18),
        (nn.Conv2d(4, 1, 3), True, 4, 9, 9),
        (nn.ConvTranspose2d(4, 6, 2), False, 6, 16, 17),
        (nn.ConvTranspose2d(4, 6, 2), True, 4, 24, 24),
        (nn.Embedding(7, 4), False, 4, 7, 7),
        (nn.BatchNorm2d(4), False, 4, 1, 2),
        (nn.GroupNorm(2, 4), False, 4, 1, 2),
        (nn.LayerNorm(4), False, 4, 1, 2),
        (nn.MultiheadAttention(4, 2), False, 4, 32, 36),  # rows and columns of four 4 × 4 matrices
        (nn.MultiheadAttention(4, 2, kdim=3, vdim=5), False, 4, 20, 24),
    ],
    ids=str,
)
def test_every_layer_counts_what_belongs_to_a_channel(layer, takes, count, each, with_bias):
    assert channel_sums(layer, takes, ones, biases=False).tolist() == [each] * count
    assert channel_sums(layer, takes, ones, biases=True).tolist() == [with_bias] * count


def test_weights_are_those_of_the_channel():
    layer = nn.Conv2d(4, 6, 1, groups=2)
    with torch.no_grad():
        layer.weight.copy_(torch.arange(12.0).view(6, 2, 1, 1))
    assert channel_sums(layer, False, torch.clone, biases=False).tolist() == [1, 5, 9, 13, 17, 21]
    assert channel_sums(layer, True, torch.clone, biases=False).tolist() == [6, 9, 24, 27]


@pytest.mark.parametrize("layer", [nn.BatchNorm2d(4, affine=False), nn.ReLU(), nn.LayerNorm((2, 4)), nn.PReLU(4)])
def test_nothing_counts_of_layers_without_weights_of_channels(layer):
    assert channel_sums(layer, False, ones, biases=True) is None
