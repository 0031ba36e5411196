"""A network without some channels for a moment computes what a cut one computes."""

from __future__ import annotations

import copy

import pytest
import torch
from nets_to_cut import Mobile, ResNet
from torch import nn

from edgekit.pruning.channels import as_parameters, trace
from edgekit.pruning.cutting import cut
from edgekit.pruning.groups import coupled
from edgekit.pruning.zeroing import can_be_zeroed, zeroed

X = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
DROPPED = [0, 3]


def prepared(net: type[nn.Module]) -> nn.Module:
    """In evaluation, with statistics that are not those of a fresh BatchNorm."""
    torch.manual_seed(0)
    module = net()
    module.train()
    with torch.no_grad():
        module(X * 3 + 1)
    return module.eval()


def groups_in(module: nn.Module):
    with as_parameters(module):
        traced = trace(module, {"x": X})
        return traced, [found for found in coupled(traced) if found.tied is None and found.misfit is None]


@pytest.mark.parametrize(("net", "few"), [(ResNet, 8), (Mobile, 1)])
def test_zeros_are_the_same_as_a_cut(net, few):
    module = prepared(net)
    whole = module(X)
    _, groups = groups_in(module)
    zeroable = [found.root for found in groups if can_be_zeroed(found)]
    assert len(zeroable) >= few
    for root in zeroable:
        found = next(each for each in groups if each.root == root)
        with zeroed(found, DROPPED):
            without = module(X)
        twin = copy.deepcopy(module)
        with as_parameters(twin):
            traced, others = groups_in(twin)
            cut(traced, [(next(each for each in others if each.root == root), DROPPED)])
        torch.testing.assert_close(without, twin(X), atol=1e-5, rtol=1e-4)
        assert not torch.allclose(without, whole, atol=1e-4), root
    assert torch.equal(module(X), whole)


def test_after_an_error_the_weights_are_what_they_were():
    module = prepared(ResNet)
    whole = module(X)
    found = next(each for each in groups_in(module)[1] if can_be_zeroed(each))
    with pytest.raises(KeyError), zeroed(found, DROPPED):
        raise KeyError
    assert torch.equal(module(X), whole)


def test_what_a_norm_over_channels_sees_cannot_be_zeroed():
    net = nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.GELU(), nn.Linear(16, 3)).eval()
    with as_parameters(net):
        groups = [each for each in coupled(trace(net, {"x": torch.randn(2, 8)})) if each.tied is None]
    assert [can_be_zeroed(each) for each in groups] == [False]
