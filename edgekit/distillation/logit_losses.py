"""Losses between the logits of student and teacher, beside Hinton's soft targets.

Each takes ``[n, classes]`` from both and gives a scalar, averaged over the batch.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from edgekit.errors import TrainingError

_TINY = 1e-8


def decoupled(
    student: Tensor, teacher: Tensor, labels: Tensor, temperature: float, alpha: float = 1.0, beta: float = 8.0
) -> Tensor:
    """Decoupled distillation: Zhao, Cui, Song, Qiu and Liang, "Decoupled Knowledge Distillation", CVPR 2022, eq. 7.

    Soft targets are the loss of the binary question "the label or not" plus, weighted by how unsure the teacher is,
    that among the other classes; here each has a weight of its own.

    Args:
        student: ``[n, classes]``.
        teacher: ``[n, classes]``.
        labels: Class numbers ``[n]``.
        temperature: Softens both; the loss is scaled by its square.
        alpha: Weight of the binary part.
        beta: Weight of the part among the other classes; 8 is the paper's for most pairs on CIFAR-100.

    Raises:
        TrainingError: The shapes differ or are not ``[n, classes]``.
    """
    same_logits(student, teacher, "decoupled")
    binary, others = [], []
    for logits in (student, teacher):
        log_p = functional.log_softmax(logits / temperature, dim=1)
        label = log_p.gather(1, labels[:, None])
        rest = _without(logits / temperature, labels)
        log_rest = torch.logsumexp(rest, 1, keepdim=True) - torch.logsumexp(logits / temperature, 1, keepdim=True)
        binary.append(torch.cat([label, log_rest], dim=1))
        others.append(functional.log_softmax(rest, dim=1))
    parts = [_divergence(*pair) for pair in (binary, others)]
    return (alpha * parts[0] + beta * parts[1]) * temperature**2


def dist(student: Tensor, teacher: Tensor, temperature: float, beta: float = 1.0, gamma: float = 1.0) -> Tensor:
    """DIST: Huang, You, Wang, Qian and Xu, "Knowledge Distillation from A Stronger Teacher", NeurIPS 2022, eq. 8 to 10.

    One minus Pearson's correlation of the probabilities: within every sample (across classes) and within every class
    (across the batch). What a linear map of the probabilities changes costs nothing.

    Args:
        student: ``[n, classes]``, n at least 2.
        teacher: ``[n, classes]``.
        temperature: Softens both; the loss is scaled by its square.
        beta: Weight of the part within samples.
        gamma: Weight of the part within classes.

    Raises:
        TrainingError: The shapes differ or are not ``[n, classes]``.
    """
    same_logits(student, teacher, "dist")
    ours, theirs = (functional.softmax(logits / temperature, dim=1) for logits in (student, teacher))
    between = 1 - _pearson(ours, theirs).mean()
    within = 1 - _pearson(ours.T, theirs.T).mean()
    return (beta * between + gamma * within) * temperature**2


def standardised(logits: Tensor) -> Tensor:
    """Each sample's logits with mean 0 and deviation 1.

    Sun, Ren, Li, Wang and Cao, "Logit Standardization in Knowledge Distillation", CVPR 2024, algorithm 1: what is
    matched is the order and the relations of the teacher's logits, not their size, which a small student cannot reach.

    Args:
        logits: ``[n, classes]``.
    """
    centred = logits - logits.mean(1, keepdim=True)
    return centred / (centred.square().mean(1, keepdim=True).sqrt() + _TINY)


def same_logits(student: Tensor, teacher: Tensor, what: str) -> None:
    """Refuses logits of different shapes.

    Raises:
        TrainingError: The shapes differ or are not ``[n, classes]``.
    """
    if student.shape != teacher.shape or student.ndim != 2:
        raise TrainingError(
            f"{what} needs logits of one shape from student and teacher",
            found=f"student {list(student.shape)}, teacher {list(teacher.shape)}",
            allowed="[n, classes] for both",
        )


def _without(logits: Tensor, labels: Tensor) -> Tensor:
    """``[n, classes - 1]``: every row without its label's column."""
    n, classes = logits.shape
    keep = torch.ones_like(logits, dtype=torch.bool).scatter_(1, labels[:, None], False)
    return logits[keep].reshape(n, classes - 1)


def _divergence(student: Tensor, teacher: Tensor) -> Tensor:
    return functional.kl_div(student, teacher, reduction="batchmean", log_target=True)


def _pearson(a: Tensor, b: Tensor) -> Tensor:
    """Correlation of every row of ``a`` with that of ``b``."""
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    return functional.cosine_similarity(a, b, dim=1, eps=_TINY)
