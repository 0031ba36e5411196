"""What a student's batch costs: the teacher's logits, the labels, matched layers, and peers that learn beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from edgekit.distillation.batch import Batch
from edgekit.distillation.forward import logits_of
from edgekit.distillation.losses import mixed, soft_loss, soft_targets
from edgekit.distillation.matching import Matches
from edgekit.distillation.schedules import Course
from edgekit.recipe_training import Distillation


def answers_of(batch: Batch) -> Tensor:
    """What the teacher answers to a batch."""
    assert batch.answers is not None, "a student is trained with somebody to ask"
    return batch.answers


class Teaching(nn.Module):
    """The loss of one student; its parameters are the projectors of matched layers.

    Args:
        settings: The recipe's.
        matches: What is matched between layers.
        base: The recipe's folder: its modules may hold losses.

    Attributes:
        ours: The student's features by layer, filled by each of its calls.
        theirs: The teacher's.
    """

    def __init__(self, settings: Distillation, matches: Matches, base: Path | None) -> None:
        super().__init__()
        self.course = Course(settings)
        self.matches = matches
        self.ours: dict[str, Tensor] = {}
        self.theirs: dict[str, Tensor] = {}
        self._soft = soft_loss(settings, base)

    def forward(self, batch: Batch, logits: Tensor) -> Tensor:
        """The loss of a batch, a scalar."""
        return self.of_student(batch, logits, answers_of(batch))

    def of_student(self, batch: Batch, logits: Tensor, answers: Tensor) -> Tensor:
        """The student's loss where the teacher's answers are known."""
        if self.course.steered:
            self.course.see(logits.detach(), answers)
        value = self.of_logits(batch, logits, answers)
        if not self.matches.student_paths:
            return value
        matched: Tensor = self.matches(self.ours, self.theirs, batch.labels)
        return value + self.course.features(batch.share) * matched

    def of_logits(self, batch: Batch, logits: Tensor, answers: Tensor) -> Tensor:
        """The part of the loss that looks at logits and labels."""
        temperature = self.course.temperature(batch.share)
        weight = self.course.soft_weight(batch.share)
        return mixed(lambda: self._soft(logits, answers, batch.labels, temperature), logits, batch.labels, weight)


class Cohort(nn.Module):
    """A student and its peers, which learn at once and from each other.

    Y. Zhang, T. Xiang, T. Hospedales, H. Lu, "Deep Mutual Learning", CVPR 2018: to each one's own loss comes the mean
    divergence from the others' answers. The peers are parameters of this loss; only the student is kept.

    Args:
        teaching: The loss of the student; the peers learn from its teacher and labels too.
        peers: Modules that tell the same classes apart.
        weight: Factor of what they teach each other.
    """

    def __init__(self, teaching: Teaching, peers: Sequence[nn.Module], weight: float) -> None:
        super().__init__()
        self.teaching = teaching
        self.peers = nn.ModuleList(peers)
        self.weight = weight

    def forward(self, batch: Batch, logits: Tensor) -> Tensor:
        """The losses of all, summed."""
        answers = answers_of(batch)
        own = self.teaching.of_student(batch, logits, answers)
        everyone = [logits, *(logits_of(peer, batch.inputs) for peer in self.peers)]
        alone = [own, *(self.teaching.of_logits(batch, each, answers) for each in everyone[1:])]
        mutual = [
            soft_targets(each, other.detach(), 1.0) for each in everyone for other in everyone if other is not each
        ]
        return torch.stack(alone).sum() + self.weight * torch.stack(mutual).sum() / len(self.peers)
