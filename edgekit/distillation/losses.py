"""Losses a student learns from."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from edgekit.errors import TrainingError


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
    if student_logits.shape != teacher_logits.shape or student_logits.ndim != 2:
        raise TrainingError(
            "soft targets need logits of one shape from student and teacher",
            found=f"student {list(student_logits.shape)}, teacher {list(teacher_logits.shape)}",
            allowed="[n, classes] for both",
        )
    student = functional.log_softmax(student_logits / temperature, dim=1)
    teacher = functional.log_softmax(teacher_logits / temperature, dim=1)
    return functional.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2


def distillation_loss(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor | None, temperature: float, soft_weight: float
) -> Tensor:
    """Soft targets mixed with the cross-entropy with hard labels (Hinton et al. 2015, section 2).

    Args:
        student_logits: ``[n, classes]``.
        teacher_logits: ``[n, classes]``.
        labels: Class numbers ``[n]``; None only where ``soft_weight`` is 1.
        temperature: Softens both sets of logits.
        soft_weight: Share of the soft loss, 0 to 1.

    Returns:
        A scalar: ``soft_weight · soft + (1 - soft_weight) · hard``.

    Raises:
        TrainingError: There are no labels for a hard loss, or the shapes are wrong.
    """
    if soft_weight == 1:
        return soft_targets(student_logits, teacher_logits, temperature)
    if labels is None:
        raise TrainingError(
            "the hard loss needs labels and these samples have none",
            found=f"soft_weight = {soft_weight}",
            allowed="soft_weight = 1.0 for samples without labels",
            fix="set distillation.soft_weight = 1.0, or give labelled training data",
        )
    hard = functional.cross_entropy(student_logits, labels)
    if soft_weight == 0:
        return hard
    return soft_weight * soft_targets(student_logits, teacher_logits, temperature) + (1 - soft_weight) * hard
