"""How much a channel, or a block, counts: criteria of what may be left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from edgekit._lookup import resolve
from edgekit.distillation.batch import Batch, Loss, cross_entropy
from edgekit.errors import ModelError
from edgekit.pruning.groups import Group


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evidence:
    """What a criterion may look at besides weights.

    Attributes:
        batches: Of training data; on the device of the module.
        loss: From a batch and its logits to a scalar, the mean over the batch.
        seed: Of random numbers.
    """

    batches: Sequence[Batch] = ()
    loss: Loss = cross_entropy
    seed: int = 0


NO_EVIDENCE = Evidence()

Criterion = Callable[[nn.Module, Sequence[Group], Evidence], "Sequence[Tensor | None]"]
"""From a module, groups of its channels and what it may look at to the importance ``[count]`` of the channels of every
group, 0 or more, a higher one for what is to be kept; None for a group that it says nothing of."""

CRITERIA = {
    "l1": "edgekit.pruning.criteria:l1",
    "l2": "edgekit.pruning.criteria:l2",
    "batchnorm": "edgekit.pruning.criteria:batchnorm",
    "taylor": "edgekit.pruning.gradients:taylor",
    "hessian": "edgekit.pruning.gradients:hessian",
    "activation": "edgekit.pruning.activations:activation",
    "random": "edgekit.pruning.criteria:random",
}


def l1(module: nn.Module, groups: Sequence[Group], evidence: Evidence) -> list[Tensor]:
    """The L1 norm of all weights that go with a channel.

    H. Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017, there of the filters that give it; here of the
    layers that take it and of norms too. Biases do not count.
    """
    return [_of_weights(group, torch.abs) for group in groups]


def l2(module: nn.Module, groups: Sequence[Group], evidence: Evidence) -> list[Tensor]:
    """The squared L2 norm of all weights that go with a channel, as :func:`l1`."""
    return [_of_weights(group, torch.square) for group in groups]


def batchnorm(module: nn.Module, groups: Sequence[Group], evidence: Evidence) -> list[Tensor | None]:
    """The sum of the magnitudes of the BatchNorm scales of a channel; None for groups without one.

    Z. Liu et al., "Learning Efficient Convolutional Networks through Network Slimming", ICCV 2017. It tells channels
    apart where the scales were trained to be sparse (:func:`sparsity_loss`; ``bn_sparsity`` of a training).

    Raises:
        ModelError: The module has no BatchNorm with scales.
    """
    if not scales_of(module):
        raise ModelError(
            f"criterion 'batchnorm' needs BatchNorm layers with scales, and {type(module).__name__} has none",
            found="no BatchNorm with affine = True",
            allowed="l1 and l2 without data; taylor, hessian and activation with data",
            fix="use the criterion 'l2', or 'taylor' where there are training data",
        )
    found: list[Tensor | None] = []
    for group in groups:
        members = [member for member in group.members if _scale(member.layer) is not None]
        parts = [group.summed(member, member.layer.weight.detach().abs()) for member in members]
        found.append(torch.stack(parts).sum(0) if parts else None)
    return found


def random(module: nn.Module, groups: Sequence[Group], evidence: Evidence) -> list[Tensor]:
    """Random numbers from 0 to 1, the same for the same seed: what any other criterion has to be better than."""
    generator = torch.Generator().manual_seed(evidence.seed)
    return [torch.rand(group.count, generator=generator, dtype=torch.float64) for group in groups]


def sparsity_loss(module: nn.Module) -> Tensor:
    """The L1 norm of all BatchNorm scales that learn, to be added to a loss with a small weight.

    Z. Liu et al., "Learning Efficient Convolutional Networks through Network Slimming", ICCV 2017, equation 1; there
    with weights of 1e-5 and 1e-4.

    Args:
        module: What is trained; frozen scales do not count.

    Returns:
        A scalar with a gradient.

    Raises:
        ModelError: The module has no BatchNorm with scales, or all of them are frozen.
    """
    scales = scales_of(module)
    learning = [scale for scale in scales if scale.requires_grad]
    if not learning:
        raise ModelError(
            f"sparsity training (bn_sparsity) needs BatchNorm scales that learn, and {type(module).__name__} has none",
            found=f"{len(scales)} BatchNorms with scales, all frozen" if scales else "no BatchNorm with affine = True",
            allowed="at least one BatchNorm whose scales take a gradient",
            fix=("freeze fewer modules" if scales else "prune by the criterion 'l2' or 'taylor'")
            + ", or leave bn_sparsity out",
        )
    return torch.cat([scale.abs().flatten() for scale in learning]).sum()


def scales_of(module: nn.Module) -> list[Tensor]:
    """The scales of all BatchNorms of a module."""
    return [scale for part in module.modules() if (scale := _scale(part)) is not None]


def score(
    module: nn.Module, groups: Sequence[Group], criterion: str | Criterion, evidence: Evidence, base: Path | None = None
) -> list[Tensor | None]:
    """The importance of groups of channels.

    Args:
        module: What they are of.
        groups: The channels.
        criterion: A key of :data:`CRITERIA`, ``module:attr`` of a callable like those, or the callable.
        evidence: What it may look at.
        base: The recipe's folder, whose modules are importable.

    Returns:
        ``[count]`` for each group, float64; None for one that the criterion says nothing of.

    Raises:
        EdgeKitError: The criterion cannot be found, or lacks what it needs.
        ModelError: It gives something else than finite numbers, 0 or more, one a channel.
    """
    name = repr(criterion if isinstance(criterion, str) else getattr(criterion, "__name__", criterion))
    function = resolve(criterion, CRITERIA, kind="criterion", base=base) if isinstance(criterion, str) else criterion
    scores = list(function(module, groups, evidence))
    if len(scores) != len(groups):
        raise ModelError(
            f"criterion {name} does not score every group of channels",
            found=f"{len(scores)} scores",
            allowed=f"a list of {len(groups)}, one tensor or None a group",
        )
    return [_checked(name, group, value) for group, value in zip(groups, scores, strict=True)]


def _checked(name: str, group: Group, value: Tensor | None) -> Tensor | None:
    if value is None:
        return None
    scores = value.detach().double().cpu()
    wrong = tuple(scores.shape) != (group.count,)
    if wrong or not bool(torch.isfinite(scores).all()) or bool((scores < 0).any()):
        raise ModelError(
            f"criterion {name} does not score the channels of {group.name}",
            found=f"a tensor {list(scores.shape)}" if wrong else "numbers that are negative or not finite",
            allowed=f"[{group.count}] finite numbers, 0 or more",
        )
    return scores


def _of_weights(group: Group, values: Callable[[Tensor], Tensor]) -> Tensor:
    total = torch.zeros(group.count, dtype=torch.float64)
    for member in group.members:
        sums = group.parameter_sums(member, lambda p: values(p.detach().double()), biases=False)
        if sums is not None:
            total += sums
    return total


def _scale(layer: nn.Module) -> Tensor | None:
    return layer.weight if isinstance(layer, _BatchNorm) else None
