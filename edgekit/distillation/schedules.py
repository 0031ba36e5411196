"""Schedules: the learning rate's, and those of what a student learns from."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from torch import Tensor

from edgekit.recipe_training import Distillation, Schedule

WARMUP_SHARE = 0.05
GAP_STEP = 0.05  # what one batch counts for in the running gap


def warmup_cosine(step: int, steps: int) -> float:
    """Linear warm-up over the first twentieth of the steps, then half a cosine to zero.

    The cosine is that of Loshchilov and Hutter, "SGDR", 2017, without restarts.

    Args:
        step: The step about to be taken, from 0.
        steps: Steps of the whole run.

    Returns:
        A factor above 0 and at most 1; 0 once all steps are taken.
    """
    if step >= steps:
        return 0.0
    warmup = math.ceil(WARMUP_SHARE * steps)
    if step < warmup:
        return (step + 1) / warmup
    return (1 + math.cos(math.pi * (step - warmup + 1) / (steps - warmup + 1))) / 2


def scheduled(start: float, schedule: Schedule | None, share: float, gap: float) -> float:
    """A value on its way from ``start``.

    Args:
        start: What it is at first.
        schedule: Where it goes and how; None: it stays.
        share: Share of the steps that are done, 0 to 1.
        gap: Share of samples on which student and teacher differ, 0 to 1.
    """
    if schedule is None:
        return start
    way = {"linear": share, "cosine": (1 - math.cos(math.pi * share)) / 2, "gap": 1 - gap}[schedule.kind]
    return start + (schedule.end - start) * way


@dataclass(slots=True, kw_only=True)
class Course:
    """The values of a recipe's schedules as training goes on.

    Attributes:
        settings: The recipe's.
        gap: Running share of samples whose top class is not the teacher's; 1 before the first batch.
    """

    settings: Distillation
    gap: float = field(default=1.0, init=False)

    @property
    def steered(self) -> bool:
        """Whether a schedule follows the gap."""
        found = self.settings.schedules
        each = (found.temperature, found.soft_weight, found.features)
        return any(schedule is not None and schedule.kind == "gap" for schedule in each)

    def see(self, student_logits: Tensor, teacher_logits: Tensor) -> None:
        """Takes in the top classes of one batch."""
        differ = (student_logits.argmax(1) != teacher_logits.argmax(1)).double().mean().item()
        self.gap += GAP_STEP * (differ - self.gap)

    def temperature(self, share: float) -> float:
        """Temperature of the soft loss when ``share`` of the steps are done."""
        return scheduled(self.settings.temperature, self.settings.schedules.temperature, share, self.gap)

    def soft_weight(self, share: float) -> float:
        """Share of the soft loss then."""
        return scheduled(self.settings.soft_weight, self.settings.schedules.soft_weight, share, self.gap)

    def features(self, share: float) -> float:
        """Factor of what is matched between layers then."""
        return scheduled(1.0, self.settings.schedules.features, share, self.gap)
