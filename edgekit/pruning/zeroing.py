"""A network without some channels for a moment: what takes them sees zeros, so that nothing has to be cut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from edgekit.pruning.groups import Coupled, Member


def can_be_zeroed(coupled: Coupled) -> bool:
    """Whether zeros for what takes the channels are the same as a cut.

    So it is where every layer they go through looks at each of them alone: convolutions, linear layers and BatchNorms.
    A LayerNorm, say, has another mean without them.
    """
    return coupled.parts == 1 and all(_alone(member) for member in coupled.group.members)


@contextmanager
def zeroed(coupled: Coupled, dropped: Sequence[int]) -> Iterator[None]:
    """While the block runs, nothing takes some channels of a group; then all weights are what they were.

    Args:
        coupled: A group that can be zeroed.
        dropped: Numbers of its channels.
    """
    gone = torch.zeros(coupled.group.count, dtype=torch.bool)
    gone[list(dropped)] = True
    takers = [(member.layer, member.own[gone[member.shared]]) for member in coupled.group.members if member.takes]
    had = [layer.weight.detach().clone() for layer, _ in takers]
    try:
        with torch.no_grad():
            for layer, own in takers:
                layer.weight.index_fill_(_axis(layer), own.to(layer.weight.device), 0.0)
        yield
    finally:
        with torch.no_grad():
            for (layer, _), weight in zip(takers, had, strict=True):
                layer.weight.copy_(weight)


def _alone(member: Member) -> bool:
    """Whether a layer looks at each of the channels alone, or can be given zeros for them."""
    layer = member.layer
    if member.entire:
        return False
    if member.takes:
        return isinstance(layer, nn.Linear) or (isinstance(layer, _ConvNd) and layer.groups == 1)
    return isinstance(layer, (nn.Linear, _ConvNd, _BatchNorm))


def _axis(layer: nn.Module) -> int:
    """Along which a layer's weight lists what it takes."""
    return 0 if isinstance(layer, _ConvNd) and layer.transposed else 1
