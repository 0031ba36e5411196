"""Losses a student learns from."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor
from torch.nn import functional

from edgekit._lookup import resolve
from edgekit.distillation.logit_losses import same_logits, standardised
from edgekit.errors import TrainingError, did_you_mean
from edgekit.recipe_training import Distillation

SoftLoss = Callable[[Tensor, Tensor, "Tensor | None", float], Tensor]
SOFT_LOSSES = {
    "soft_targets": "edgekit.distillation.losses:soft_targets",
    "decoupled": "edgekit.distillation.logit_losses:decoupled",
    "dist": "edgekit.distillation.logit_losses:dist",
}


def soft_targets(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """The soft loss of Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network", 2015.

    ``T² · KL(softmax(teacher / T) ‖ softmax(student / T))``, averaged over the batch. The factor ``T²`` keeps the
    size of the gradient as ``T`` changes; for a high ``T`` and centred logits the gradient tends to
    ``(student - teacher) / classes``, which is matching logits.

    Args:
        student_logits: ``[n, classes]``.
        teacher_logits: ``[n, classes]``; no gradient flows into them if they carry none.
        temperature: ``T`` > 0; higher is softer.

    Returns:
        A scalar, zero where both distributions are equal.

    Raises:
        TrainingError: The shapes differ or are not ``[n, classes]``.
    """
    same_logits(student_logits, teacher_logits, "soft_targets")
    student = functional.log_softmax(student_logits / temperature, dim=1)
    teacher = functional.log_softmax(teacher_logits / temperature, dim=1)
    return functional.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2


def mixed(soft: Callable[[], Tensor], student_logits: Tensor, labels: Tensor | None, soft_weight: float) -> Tensor:
    """A soft loss mixed with the cross-entropy with hard labels (Hinton et al. 2015, section 2).

    Args:
        soft: Gives the soft loss; not called where its weight is 0.
        student_logits: ``[n, classes]``.
        labels: Classes ``[n]``, -1 where a sample has none, or shares of classes ``[n, classes]``; None only where
            ``soft_weight`` is 1.
        soft_weight: Share of the soft loss, 0 to 1.

    Returns:
        A scalar: ``soft_weight · soft + (1 - soft_weight) · hard``; the hard loss is the mean over labelled samples.

    Raises:
        TrainingError: There are no labels for a hard loss.
    """
    if soft_weight == 1:
        return soft()
    hard = _hard(student_logits, known(labels, f"soft_weight = {soft_weight}"))
    return hard if soft_weight == 0 else soft_weight * soft() + (1 - soft_weight) * hard


def _hard(logits: Tensor, labels: Tensor) -> Tensor:
    if labels.ndim == 1 and bool((labels < 0).any()):
        return functional.cross_entropy(logits, labels, ignore_index=-1, reduction="sum") / max(
            1, int((labels >= 0).sum())
        )
    return functional.cross_entropy(logits, labels)


def soft_loss(settings: Distillation, base: Path | None) -> SoftLoss:
    """The loss between logits that a recipe names, with its arguments and standardisation.

    Args:
        settings: ``soft`` is a key of :data:`SOFT_LOSSES`, or ``module:attr`` of a callable that takes the logits of
            student and teacher, and ``temperature`` and ``labels`` if it has parameters of these names.
        base: The recipe's folder.

    Returns:
        From the logits of student and teacher, the labels (or None) and the temperature to a scalar.

    Raises:
        EdgeKitError: The loss cannot be found.
        TrainingError: It takes no argument that the recipe gives.
    """
    where = "distillation.soft"
    function: Callable[..., Tensor] = resolve(settings.soft, SOFT_LOSSES, kind="soft loss", base=base, where=where)
    takes = inspect.signature(function).parameters
    check_arguments(function, settings.soft_args, f"{where} = {settings.soft!r}")

    def loss(student: Tensor, teacher: Tensor, labels: Tensor | None, temperature: float) -> Tensor:
        if settings.standardise:
            student, teacher = standardised(student), standardised(teacher)
        given: dict[str, object] = dict(settings.soft_args)
        if "temperature" in takes:
            given["temperature"] = temperature
        if "labels" in takes:
            given["labels"] = _classes(known(labels, f"soft = {settings.soft!r}"), f"soft = {settings.soft!r}")
        return function(student, teacher, **given)

    return loss


def known(labels: Tensor | None, what: str) -> Tensor:
    """The labels of a batch, where a loss needs them.

    Raises:
        TrainingError: There are none.
    """
    if labels is None:
        raise TrainingError(
            "the hard loss needs labels and these samples have none"
            if what.startswith("soft_weight")
            else "this loss needs labels and these samples have none",
            found=what,
            allowed="soft_weight = 1.0 and a loss without labels, for samples without labels",
            fix="set distillation.soft_weight = 1.0, or give labelled training data",
        )
    return labels


def _classes(labels: Tensor, what: str) -> Tensor:
    """Labels that name one class of every sample."""
    if labels.ndim != 1 or bool((labels < 0).any()):
        raise TrainingError(
            "this loss needs one class of every sample",
            found=f"{what}, with " + ("mixed samples" if labels.ndim != 1 else "samples that have no label"),
            allowed="soft_targets or dist",
            fix="remove mixup and cutmix and give every label, or choose another soft loss",
        )
    return labels


def check_arguments(function: Callable[..., Tensor], given: Mapping[str, object], where: str) -> None:
    """Refuses arguments of a recipe that a loss does not take.

    Raises:
        TrainingError: It takes none of that name.
    """
    parameters = inspect.signature(function).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    names = [name for name in list(parameters)[2:] if name != "labels"]
    for name in given:
        if name not in names:
            raise TrainingError(
                f"{where}: this loss has no argument {name!r}",
                found=f"{name} = {given[name]!r}",
                allowed=", ".join(names) or "none",
                fix=did_you_mean(name, names),
            )
