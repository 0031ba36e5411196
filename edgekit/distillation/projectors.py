"""Small learned modules that bring a student's features to the teacher's shape; they are thrown away after training."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgekit.distillation.feature_losses import hierarchical_context
from edgekit.errors import TrainingError

Shape = tuple[int, ...]
_MIDDLE = 64


class Projector(nn.Module):
    """The regressor of FitNets (Romero et al. 2015, section 2.2): linear over channels, then resized.

    Features are ``[n, channels, height, width]``, ``[n, tokens, channels]`` or ``[n, channels]``.

    Args:
        student: Shape of the student's feature.
        teacher: Shape of the teacher's.

    Raises:
        TrainingError: One cannot be brought to the other.
    """

    def __init__(self, student: Shape, teacher: Shape) -> None:
        super().__init__()
        if len(student) != len(teacher) or len(student) not in (2, 3, 4):
            raise _unmatched(student, teacher, "maps with maps, token sequences with token sequences, or vectors")
        if len(student) == 3 and student[1] != teacher[1]:
            raise _unmatched(student, teacher, "token sequences of one length")
        self.size = teacher[2:] if len(student) == 4 and student[2:] != teacher[2:] else None
        self.linear: nn.Module
        if len(student) == 4:
            self.linear = nn.Conv2d(student[1], teacher[1], 1)
        else:
            self.linear = nn.Linear(student[-1], teacher[-1])

    def forward(self, feature: Tensor) -> Tensor:
        """From the student's feature to one of the teacher's shape."""
        projected: Tensor = self.linear(feature)
        return projected if self.size is None else _resized(projected, self.size)


class Embedding(nn.Module):
    """A vector a sample: maps and token sequences are averaged, then a linear layer (Tian et al. 2020, section 3.4).

    Args:
        shape: Shape of the feature.
        dimensions: Of the embedding; 128 is the paper's.
    """

    def __init__(self, shape: Shape, dimensions: int = 128) -> None:
        super().__init__()
        channels = shape[-1] if len(shape) == 3 else shape[1]
        self.linear = nn.Linear(channels, dimensions)

    def forward(self, feature: Tensor) -> Tensor:
        """``[n, dimensions]``."""
        if feature.ndim == 3:
            feature = feature.mean(1)
        elif feature.ndim > 3:
            feature = feature.flatten(2).mean(2)
        embedded: Tensor = self.linear(feature)
        return embedded


class Review(nn.Module):
    """Knowledge review: each teacher stage teaches all the student's deeper ones, fused by attention.

    Chen, Liu, Zhao and Jia, "Distilling Knowledge via Knowledge Review", CVPR 2021, sections 3.2 and 3.3: from the
    deepest stage up, the student's feature is mixed with what came from below, and the mixture is compared with the
    teacher's of the same depth.

    Args:
        students: Shapes of the student's maps, shallow to deep.
        teachers: Shapes of the teacher's, as many.

    Raises:
        TrainingError: There are fewer than two, not as many of each, or one is no map.
    """

    def __init__(self, students: Sequence[Shape], teachers: Sequence[Shape]) -> None:
        super().__init__()
        if len(students) != len(teachers) or len(students) < 2:
            raise TrainingError(
                "review compares several layers of the student with as many of the teacher",
                found=f"{len(students)} of the student, {len(teachers)} of the teacher",
                allowed="lists of at least 2, shallow to deep",
            )
        for shape in (*students, *teachers):
            if len(shape) != 4:
                raise TrainingError(
                    "review compares maps",
                    found=str(list(shape)),
                    allowed="layers that give [n, channels, height, width]",
                )
        middle = min(_MIDDLE, *(shape[1] for shape in teachers))
        self.narrow = nn.ModuleList(nn.Sequential(nn.Conv2d(s[1], middle, 1), nn.BatchNorm2d(middle)) for s in students)
        self.attend = nn.ModuleList(nn.Conv2d(2 * middle, 2, 1) for _ in students[:-1])
        self.widen = nn.ModuleList(nn.Conv2d(middle, t[1], 3, padding=1) for t in teachers)

    def forward(self, students: Sequence[Tensor], teachers: Sequence[Tensor]) -> Tensor:
        """Sum over stages of the hierarchical context loss."""
        loss, below = torch.zeros((), device=teachers[0].device), None
        for stage in reversed(range(len(students))):
            mixed: Tensor = self.narrow[stage](students[stage])
            if below is not None:
                below = functional.interpolate(below, mixed.shape[2:], mode="nearest")
                gates = torch.sigmoid(self.attend[stage](torch.cat([mixed, below], dim=1)))
                mixed = mixed * gates[:, :1] + below * gates[:, 1:]
            below = mixed
            projected = self.widen[stage](mixed)
            loss = loss + hierarchical_context(_resized(projected, teachers[stage].shape[2:]), teachers[stage])
        return loss


def _resized(feature: Tensor, size: Sequence[int]) -> Tensor:
    """Smaller by averaging, larger by interpolation."""
    if tuple(feature.shape[2:]) == tuple(size):
        return feature
    if all(now >= wanted for now, wanted in zip(feature.shape[2:], size, strict=True)):
        return functional.adaptive_avg_pool2d(feature, tuple(size))
    return functional.interpolate(feature, tuple(size), mode="bilinear", align_corners=False)


def _unmatched(student: Shape, teacher: Shape, allowed: str) -> TrainingError:
    return TrainingError(
        "the features of these layers cannot be matched",
        found=f"student {list(student)}, teacher {list(teacher)}",
        allowed=allowed,
        fix="name layers at like places, or use similarity or relational, which compare samples and not features",
    )
