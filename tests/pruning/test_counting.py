"""Multiply-accumulates of one sample."""

import pytest
import torch
from nets_to_cut import make_net
from torch import nn

from edgekit.errors import ModelError
from edgekit.pruning.counting import macs_of


def test_convolutions_and_linear_layers_count():
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),  # 8 · 3 · 9 · 64
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 8, 3, 2, 1, groups=8),  # 8 · 9 · 16
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(128, 5),  # 128 · 5
    )
    for samples in (1, 4):
        assert macs_of(net, {"input": torch.rand(samples, 3, 8, 8)}) == 8 * 3 * 9 * 64 + 8 * 9 * 16 + 128 * 5


@pytest.mark.parametrize("name", ["encoder", "fused", "separate"])
def test_attention_counts_however_it_is_written(name):
    net, inputs = make_net(name)
    tokens, width = (6, 16) if name == "encoder" else (5, 24)
    block = 4 * tokens * width * width + 2 * tokens * tokens * width + 2 * tokens * width * 2 * width
    before = 0 if name == "encoder" else 4 * 3 * 16 * width
    assert macs_of(net, inputs) == before + 4 * block + 3 * width


def test_nothing_of_the_module_changes():
    net, inputs = make_net("resnet")
    net.train()
    means = net.layer1[0].bn1.running_mean.clone()
    macs_of(net, inputs)
    assert net.training
    assert net.layer1[0].bn1.training
    assert torch.equal(net.layer1[0].bn1.running_mean, means)


def test_a_module_that_does_not_run_is_told():
    net, _ = make_net("resnet")
    with pytest.raises(ModelError, match="ResNet does not run while its multiply-accumulates are counted: layer 'stem"):
        macs_of(net, {"input": torch.rand(2, 4, 8, 8)})
