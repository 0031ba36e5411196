"""Losses between features: what layers inside student and teacher give for the same batch.

Each takes the student's and the teacher's feature of one batch and gives a scalar.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from edgekit.errors import TrainingError

_PYRAMID = (4, 2, 1)


def hints(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared error of features: Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015, eq. 3.

    Where the shapes differ a learned projector comes before it (see :mod:`edgekit.distillation.projectors`).

    Args:
        student: ``[n, …]``, projected to the teacher's shape.
        teacher: ``[n, …]``.

    Raises:
        TrainingError: The shapes differ.
    """
    _same(student, teacher, "hints")
    return functional.mse_loss(student, teacher)


def attention_transfer(student: Tensor, teacher: Tensor) -> Tensor:
    """Zagoruyko and Komodakis, "Paying More Attention to Attention", ICLR 2017, section 3.1 with p = 2.

    Where a layer looks: the sum of squares over channels, of unit length a sample. Channels may differ in number; maps
    of different size are brought to the smaller one.

    Args:
        student: ``[n, channels, height, width]``.
        teacher: ``[n, channels, height, width]``.

    Raises:
        TrainingError: One has no two spatial axes.
    """
    for who, feature in (("student", student), ("teacher", teacher)):
        if feature.ndim != 4:
            raise TrainingError(
                "attention_transfer compares maps of where layers look",
                found=f"the {who}'s layer gives {list(feature.shape)}",
                allowed="[n, channels, height, width]",
                fix="name a convolution or a stage before the pooling, or use similarity or relational instead",
            )
    size = tuple(min(pair) for pair in zip(student.shape[2:], teacher.shape[2:], strict=True))
    ours, theirs = (_attention(functional.adaptive_avg_pool2d(f, size)) for f in (student, teacher))
    return (ours - theirs).square().mean()


def similarity(student: Tensor, teacher: Tensor) -> Tensor:
    """Tung and Mori, "Similarity-Preserving Knowledge Distillation", ICCV 2019, eq. 4.

    Pairs of samples that activate the teacher alike shall activate the student alike: the mean squared difference of
    the two ``[n, n]`` tables of similarity, each row of unit length. Shapes may differ in everything but n.

    Args:
        student: ``[n, …]``.
        teacher: ``[n, …]``.
    """
    return (_similarities(student) - _similarities(teacher)).square().mean()


def relational(student: Tensor, teacher: Tensor, distance: float = 25.0, angle: float = 50.0) -> Tensor:
    """Park, Kim, Lu and Cho, "Relational Knowledge Distillation", CVPR 2019, eq. 5 to 9.

    Distances of all pairs (in units of their mean) and angles of all triplets shall be the teacher's. Shapes may differ
    in everything but n. Time and memory grow with the cube of the batch for the angles.

    Args:
        student: ``[n, …]``, n at least 2.
        teacher: ``[n, …]``.
        distance: Weight of the distances; the paper's.
        angle: Weight of the angles; the paper's.
    """
    ours, theirs = student.flatten(1), teacher.flatten(1)
    loss = distance * functional.smooth_l1_loss(_distances(ours), _distances(theirs))
    if angle:
        loss = loss + angle * functional.smooth_l1_loss(_angles(ours), _angles(theirs))
    return loss


def contrastive(student: Tensor, teacher: Tensor, labels: Tensor | None = None, temperature: float = 0.07) -> Tensor:
    """Tian, Krishnan and Isola, "Contrastive Representation Distillation", ICLR 2020, with the batch as negatives.

    Student and teacher embeddings of one sample shall be near, those of others far, either way round. The paper draws
    16,384 negatives from a memory of all training samples; here they are the other samples of the batch, of other
    classes where labels are known, in the InfoNCE form of van den Oord et al. 2018.

    Args:
        student: ``[n, dimensions]``, an embedding (see :mod:`edgekit.distillation.projectors`).
        teacher: ``[n, dimensions]``.
        labels: Class numbers ``[n]``; samples of one class are then no negatives of each other.
        temperature: Of the similarities; the paper's.

    Raises:
        TrainingError: The shapes differ or are not ``[n, dimensions]``.
    """
    _same(student, teacher, "contrastive")
    ours, theirs = functional.normalize(student.flatten(1), dim=1), functional.normalize(teacher.flatten(1), dim=1)
    scores = ours @ theirs.T / temperature
    if labels is not None:
        own = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
        scores = scores.masked_fill((labels[:, None] == labels[None, :]) & ~own, -torch.inf)
    right = torch.arange(len(scores), device=scores.device)
    return (functional.cross_entropy(scores, right) + functional.cross_entropy(scores.T, right)) / 2


def hierarchical_context(student: Tensor, teacher: Tensor) -> Tensor:
    """The loss of Chen, Liu, Zhao and Jia, "Distilling Knowledge via Knowledge Review", CVPR 2021, section 3.3.

    Mean squared error of the whole maps and of the same pooled to 4, 2 and 1, each level of half the weight of the one
    before.

    Args:
        student: ``[n, channels, height, width]``, fused and projected.
        teacher: ``[n, channels, height, width]``.

    Raises:
        TrainingError: The shapes differ.
    """
    _same(student, teacher, "review")
    loss, weight, total = functional.mse_loss(student, teacher), 1.0, 1.0
    for size in _PYRAMID:
        if size >= student.shape[2]:
            continue
        weight /= 2
        total += weight
        pooled = (functional.adaptive_avg_pool2d(f, size) for f in (student, teacher))
        loss = loss + weight * functional.mse_loss(*pooled)
    return loss / total


def _same(student: Tensor, teacher: Tensor, what: str) -> None:
    if student.shape != teacher.shape:
        raise TrainingError(
            f"{what} needs features of one shape",
            found=f"student {list(student.shape)}, teacher {list(teacher.shape)}",
            allowed="the same shape for both",
            fix="leave the projector on, or name layers of one shape",
        )


def _attention(feature: Tensor) -> Tensor:
    return functional.normalize(feature.square().mean(1).flatten(1), dim=1)


def _similarities(feature: Tensor) -> Tensor:
    flat = feature.flatten(1)
    return functional.normalize(flat @ flat.T, dim=1)


def _distances(flat: Tensor) -> Tensor:
    """Distances of all pairs, in units of the mean of those above zero."""
    found = torch.nn.functional.pdist(flat)
    positive = found[found > 0]
    return found / positive.mean() if len(positive) else found


def _angles(flat: Tensor) -> Tensor:
    """Cosines of the angle at every sample between every two others, ``[n, n, n]``."""
    directions = functional.normalize(flat[None, :, :] - flat[:, None, :], dim=2)
    return directions @ directions.transpose(1, 2)
