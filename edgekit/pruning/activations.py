"""A criterion that looks at what channels give."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from edgekit.distillation.forward import call, evaluating
from edgekit.errors import TrainingError
from edgekit.pruning.criteria import Evidence
from edgekit.pruning.gradients import needed
from edgekit.pruning.groups import Group

# Layers whose channels are the second dimension; of all others they are the last.
SECOND = (_ConvNd, _NormBase, nn.GroupNorm)
Key = tuple[nn.Module, bool]
"""A layer, and whether it is about what it takes."""


def activation(module: nn.Module, groups: Sequence[Group], evidence: Evidence) -> list[Tensor]:
    """The mean magnitude of a channel over data, as the layers see it that take it: after its activation function.

    In the manner of H. Hu et al., "Network Trimming: A Data-Driven Neuron Pruning Approach", 2016, which counts zeros.
    Summed over all layers that take the channel; where none does, over those that give it. No labels are looked at.

    Raises:
        DataError: There are no batches.
        TrainingError: The module fails on them, what it gives is not finite, or a channel is seen nowhere.
    """
    batches = needed(evidence.batches, "activation")
    wanted = {(member.layer, member.takes) for group in groups for member in group.members}
    with evaluating(module), torch.no_grad(), _watched(wanted) as sums:
        for batch in batches:
            call(module, batch.inputs)
    means = {key: total / count for key, (total, count) in sums.items()}
    return [_of(group, means) for group in groups]


def _of(group: Group, means: dict[Key, Tensor]) -> Tensor:
    seen = [member for member in group.members if (member.layer, member.takes) in means]
    seen = [member for member in seen if member.takes] or seen
    parts = [group.summed(member, means[member.layer, member.takes]) for member in seen]
    if not parts or not bool(torch.isfinite(total := torch.stack(parts).sum(0)).all()):
        raise TrainingError(
            f"criterion 'activation' cannot score the channels of {group.name}",
            found="values that are not finite" if parts else "no layer of theirs is called",
            fix="use the criterion 'l2'",
        )
    return total


@contextmanager
def _watched(wanted: set[Key]) -> Iterator[dict[Key, tuple[Tensor, int]]]:
    """While the block runs, sums magnitudes of what layers take or give, by channel, and counts them."""
    sums: dict[Key, tuple[Tensor, int]] = {}

    def add(key: Key, value: Any) -> None:
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.ndim < 2:
            return
        channels = 1 if isinstance(key[0], SECOND) else value.ndim - 1
        flat = value.detach().double().abs().movedim(channels, -1).flatten(0, -2)
        total, count = sums.get(key, (0.0, 0))
        sums[key] = (total + flat.sum(0).cpu(), count + len(flat))

    def look(layer: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if (layer, True) in wanted:
            add((layer, True), next((v for v in (*args, *kwargs.values()) if isinstance(v, Tensor)), None))
        if (layer, False) in wanted:
            add((layer, False), output[0] if isinstance(output, tuple) else output)

    handles = [layer.register_forward_hook(look, with_kwargs=True) for layer in {layer for layer, _ in wanted}]
    try:
        yield sums
    finally:
        for handle in handles:
            handle.remove()
