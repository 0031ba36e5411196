"""Schedules: the learning rate's, and those of what a student learns from."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from edgekit.recipe_training import Distillation, Schedule, Training

GAP_STEP = 0.05  # what one batch counts for in the running gap


def rate_factor(step: int, steps: int, settings: Training) -> float:
    """What the learning rate is multiplied by: a linear warm-up, then half a cosine to zero, or a constant.

    The cosine is that of Loshchilov and Hutter, "SGDR", 2017, without restarts.

    Args:
        step: The step about to be taken, from 0.
        steps: Steps of the whole run.
        settings: Their ``warmup`` and ``schedule``.

    Returns:
        A factor above 0 and at most 1; of the cosine 0 once all steps are taken.
    """
    warmup = math.ceil(settings.warmup * steps)
    if step < warmup:
        return (step + 1) / warmup
    if settings.schedule == "constant":
        return 1.0
    if step >= steps:
        return 0.0
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


class Course(nn.Module):
    """The values of a recipe's schedules as training goes on; a module, so that checkpoints keep where it stands.

    Args:
        settings: The recipe's.
    """

    running: Tensor

    def __init__(self, settings: Distillation) -> None:
        super().__init__()
        self.settings = settings
        self.register_buffer("running", torch.ones((), dtype=torch.float32))

    @property
    def gap(self) -> float:
        """Running share of samples whose top class is not the teacher's; 1 before the first batch."""
        return float(self.running)

    @property
    def steered(self) -> bool:
        """Whether a schedule follows the gap."""
        found = self.settings.schedules
        each = (found.temperature, found.soft_weight, found.features)
        return any(schedule is not None and schedule.kind == "gap" for schedule in each)

    def see(self, student_logits: Tensor, teacher_logits: Tensor) -> None:
        """Takes in the top classes of one batch."""
        differ = (student_logits.argmax(1) != teacher_logits.argmax(1)).float().mean()
        self.running += GAP_STEP * (differ - self.running)

    def temperature(self, share: float) -> float:
        """Temperature of the soft loss when ``share`` of the steps are done."""
        return self._now(self.settings.temperature, self.settings.schedules.temperature, share)

    def soft_weight(self, share: float) -> float:
        """Share of the soft loss then."""
        return self._now(self.settings.soft_weight, self.settings.schedules.soft_weight, share)

    def features(self, share: float) -> float:
        """Factor of what is matched between layers then."""
        return self._now(1.0, self.settings.schedules.features, share)

    def _now(self, start: float, schedule: Schedule | None, share: float) -> float:
        return scheduled(start, schedule, share, self.gap if self.steered else 1.0)
