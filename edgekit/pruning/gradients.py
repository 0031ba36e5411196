"""Criteria that ask by how much a loss would change without a channel."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from edgekit.distillation.batch import Batch, Loss, needs_labels
from edgekit.distillation.forward import evaluating, logits_of
from edgekit.errors import DataError, TrainingError
from edgekit.pruning.criteria import Evidence
from edgekit.pruning.groups import Group
from edgekit.pruning.slices import Values


def taylor(module: nn.Module, groups: Sequence[Group], evidence: Evidence) -> list[Tensor]:
    """By how much the loss would change without a channel, to first order, squared.

    P. Molchanov et al., "Importance Estimation for Neural Network Pruning", CVPR 2019: ``(Σ gradient · weight)²`` over
    the parameters of a channel, the mean over the batches. Here over the parameters of one layer, which is what a gate
    on the channel there would give, and then summed over the layers that the channel goes with.

    Raises:
        DataError: There are no batches, or no labels.
        TrainingError: The module or the loss fails, or the loss is not finite.
    """
    batches = needed(evidence.batches, "taylor", evidence.loss)
    totals = [torch.zeros(group.count, dtype=torch.float64) for group in groups]
    for batch in batches:
        products = _times(gradients(module, batch, evidence.loss))
        for total, group in zip(totals, groups, strict=True):
            for member in group.members:
                sums = group.parameter_sums(member, products, biases=True)
                if sums is not None:
                    total += sums.square()
    return [total / len(batches) for total in totals]


def hessian(module: nn.Module, groups: Sequence[Group], evidence: Evidence) -> list[Tensor]:
    """By how much the loss would grow without a channel, to second order, with the diagonal of the Hessian alone.

    Y. LeCun, J. Denker, S. Solla, "Optimal Brain Damage", NIPS 1990: ``½ Σ h · weight²``; the diagonal ``h`` is that of
    the Fisher information, the mean of the squared gradients of single samples, as of L. Theis et al., "Faster gaze
    prediction with dense networks and Fisher pruning", 2018. Takes one backward pass a sample.

    Raises:
        DataError: There are no batches, or no labels.
        TrainingError: The module or the loss fails, or the loss is not finite.
    """
    batches = needed(evidence.batches, "hessian", evidence.loss)
    fisher: dict[Tensor, Tensor] = {}
    count = 0
    for sample in (sample for batch in batches for sample in _singles(batch)):
        count += 1
        for parameter, gradient in gradients(module, sample, evidence.loss).items():
            squared = gradient.double().square()
            fisher[parameter] = fisher[parameter] + squared if parameter in fisher else squared

    def values(parameter: Tensor) -> Tensor:
        weight = parameter.detach().double()
        return weight.square() * fisher[parameter] / (2 * count) if parameter in fisher else torch.zeros_like(weight)

    totals = [torch.zeros(group.count, dtype=torch.float64) for group in groups]
    for total, group in zip(totals, groups, strict=True):
        for member in group.members:
            sums = group.parameter_sums(member, values, biases=True)
            if sums is not None:
                total += sums
    return totals


def gradients(module: nn.Module, batch: Batch, loss: Loss) -> dict[Tensor, Tensor]:
    """Gradients of a loss by parameter, in evaluation mode; those that parameters hold stay as they are.

    Raises:
        TrainingError: The module fails or gives no logits, the loss fails or is not finite.
    """
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    with evaluating(module), torch.enable_grad():
        logits = logits_of(module, batch.inputs)
        value = loss(batch, logits)
        number = float(value.detach())
        if not math.isfinite(number):
            raise TrainingError(
                f"the loss that channels of {type(module).__name__} are scored by is not finite",
                found=f"a loss of {number}",
                fix="check inputs and labels for values that are not finite, or score by l2, which needs no data",
            )
        found = torch.autograd.grad(value, parameters, allow_unused=True)
    return {p: gradient for p, gradient in zip(parameters, found, strict=True) if gradient is not None}


def needed(batches: Sequence[Batch], criterion: str, loss: Loss | None = None) -> Sequence[Batch]:
    """The batches that a criterion looks at.

    Args:
        batches: What there is.
        criterion: Which criterion.
        loss: What it makes of them; None where it looks at no labels.

    Raises:
        DataError: There are none, or they have no labels and the loss needs them.
    """
    if not batches:
        raise DataError(
            f"criterion {criterion!r} needs data, and there are none",
            found="no batches",
            allowed="l1, l2, batchnorm and random without data",
            fix="give training data, or use the criterion 'l2'",
        )
    if loss is not None and needs_labels(loss):
        for number, batch in enumerate(batches, 1):
            if batch.labels is None or (batch.labels.ndim == 1 and bool((batch.labels < 0).any())):
                raise DataError(
                    f"criterion {criterion!r} needs labels for its loss, and some samples have none",
                    found=f"batch {number} of {len(batches)}",
                    allowed="a loss without labels, or activation, which needs inputs alone",
                    fix="give labelled data, or the loss of a teacher",
                )
    return batches


def _times(found: Mapping[Tensor, Tensor]) -> Values:
    """From a parameter to gradient times weight."""

    def product(parameter: Tensor) -> Tensor:
        weight = parameter.detach().double()
        return weight * found[parameter].double() if parameter in found else torch.zeros_like(weight)

    return product


def _singles(batch: Batch) -> Iterator[Batch]:
    """The samples of a batch, one by one."""
    for i in range(len(next(iter(batch.inputs.values())))):
        one = slice(i, i + 1)
        yield replace(
            batch,
            inputs={name: tensor[one] for name, tensor in batch.inputs.items()},
            labels=None if batch.labels is None else batch.labels[one],
            indices=batch.indices[one],
            further={name: tensor[one] for name, tensor in batch.further.items()},
            answers=None if batch.answers is None else batch.answers[one],
        )
