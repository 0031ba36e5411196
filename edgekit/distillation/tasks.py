"""Several tasks: one output each, learnt together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgekit.artifact import Array
from edgekit.data import Samples
from edgekit.distillation.batch import Batch, Loss
from edgekit.distillation.forward import call, device_of, evaluating, to_torch
from edgekit.distillation.kept_tree import KeptTask
from edgekit.distillation.losses import mixed, soft_targets
from edgekit.distillation.schedules import Course
from edgekit.distillation.scoring import rounded
from edgekit.distillation.taps import outputs_seen
from edgekit.errors import DataError, TrainingError, did_you_mean
from edgekit.recipe_training import TaskSpec, Training

_TRIED = 2  # samples of the run that outputs are looked at by


class Tasks(nn.Module):
    """The loss of a first task and of further ones, each weighed as it is told or by how uncertain it is.

    A. Kendall, Y. Gal, R. Cipolla, "Multi-Task Learning Using Uncertainty to Weigh Losses for Scene Geometry and
    Semantics", CVPR 2018: ``Σ c · exp(-s) · loss + s / 2`` with a learnt ``s``, the logarithm of the task's variance,
    and a ``c`` of 1 for classes (equation 10) and of 1/2 for values (equation 7). Where a weight is learnt, the first
    task's is too; else that is 1.

    Args:
        first: The loss of the first task.
        tasks: The further ones.
        ours: What the model that learns gave last, by output.
        theirs: What its teacher gave last.
        course: Temperature and share of what is taught; None: targets alone.
    """

    def __init__(
        self,
        first: Loss,
        tasks: Sequence[TaskSpec],
        ours: dict[str, Tensor],
        theirs: dict[str, Tensor],
        course: Course | None,
    ) -> None:
        super().__init__()
        self.first = first
        self.tasks = tuple(tasks)
        self.ours, self.theirs, self.course = ours, theirs, course
        learnt = [task.weight is None for task in tasks]
        self.log_variances = nn.Parameter(torch.zeros(1 + sum(learnt))) if any(learnt) else None

    def forward(self, batch: Batch, logits: Tensor) -> Tensor:
        """The loss of a batch, a scalar."""
        losses = [self.first(batch, logits), *(self._of(task, batch) for task in self.tasks)]
        free = iter(() if self.log_variances is None else self.log_variances)
        first = ("classes", 1.0 if self.log_variances is None else None)
        weighed = []
        for (kind, weight), loss in zip([first, *((t.kind, t.weight) for t in self.tasks)], losses, strict=True):
            if weight is None:
                s = next(free)
                weighed.append((1.0 if kind == "classes" else 0.5) * torch.exp(-s) * loss + s / 2)
            else:
                weighed.append(weight * loss)
        return torch.stack(weighed).sum()

    def _of(self, task: TaskSpec, batch: Batch) -> Tensor:
        own, target = self.ours[task.output], batch.further[task.target]
        hard = functional.cross_entropy(own, target) if task.kind == "classes" else functional.mse_loss(own, target)
        if self.course is None or not task.taught:
            return hard
        taught, share = self.theirs[task.output].detach(), self.course.soft_weight(batch.share)
        if task.kind == "values":
            return share * functional.mse_loss(own, taught) + (1 - share) * hard
        temperature = self.course.temperature(batch.share)
        return mixed(lambda: soft_targets(own, taught, temperature), own, target, share)


@contextmanager
def learning(
    loss: Loss,
    tasks: Sequence[TaskSpec],
    data: Samples,
    module: nn.Module,
    settings: Training,
    teacher: nn.Module | None = None,
    course: Course | None = None,
) -> Iterator[Loss]:
    """The loss of all tasks while the block runs; ``loss`` itself where there is one alone.

    Args:
        loss: Of the first task.
        tasks: The further ones.
        data: Training samples.
        module: What learns.
        settings: How.
        teacher: What it learns from; None: targets alone.
        course: As of :class:`Tasks`.

    Raises:
        DataError: A target does not fit the output.
        TrainingError: Augmentation would move samples away from their targets, or a model has no such output, or one of
            another shape.
    """
    if not tasks:
        yield loss
        return
    _check_moved(tasks, data, settings)
    _check(module, tasks, data)
    taught = [task for task in tasks if task.taught]
    if teacher is not None:
        _check(teacher, taught, data)
    with ExitStack() as stack:
        ours = stack.enter_context(outputs_seen(module))
        theirs = stack.enter_context(outputs_seen(teacher)) if teacher is not None and taught else {}
        yield Tasks(loss, tasks, ours, theirs, course)


def _check_moved(tasks: Sequence[TaskSpec], data: Samples, settings: Training) -> None:
    varied = settings.augmentation
    moving = [key for key in ("flip", "crop", "mixup", "cutmix") if getattr(varied, key)]
    for task in tasks:
        spread = data.further[task.target].ndim > 2
        for key in moving:
            if spread or key in ("mixup", "cutmix"):
                raise TrainingError(
                    f"augmentation.{key} would change the samples and not the targets of task {task.output!r}",
                    found=f"{key} = {getattr(varied, key)}, {task.target} {list(data.further[task.target].shape)}",
                    allowed="noise and erase, flip and crop beside targets without height and width, or own",
                    fix=f"remove augmentation.{key}",
                )


def _check(module: nn.Module, tasks: Sequence[TaskSpec], data: Samples) -> None:
    """Runs a model once, and compares its outputs with the targets."""
    inputs = to_torch(data.tensors(np.arange(min(_TRIED, len(data)))), device_of(module))
    with evaluating(module), torch.no_grad():
        outputs = call(module, inputs)
    for task in tasks:
        if task.output not in outputs:
            raise TrainingError(
                f"tasks: {type(module).__name__} has no output {task.output!r}",
                found=repr(task.output),
                allowed=", ".join(outputs),
                fix=did_you_mean(task.output, outputs) or "where the teacher alone lacks it, say taught = false",
            )
        shape, target = tuple(outputs[task.output].shape[1:]), data.further[task.target]
        if task.kind == "values" and shape != target.shape[1:]:
            raise TrainingError(
                f"tasks: output {task.output!r} of {type(module).__name__} is not shaped like its target",
                found=f"output [n, {', '.join(map(str, shape))}], {task.target} {['n', *target.shape[1:]]}",
                fix="give both the same shape; for one value a sample that is [n, 1], or [n] of both",
            )
        if task.kind == "classes" and (len(shape) != 1 or int(target.max()) >= shape[0]):
            raise DataError(
                f"tasks: {task.target!r} holds a class that output {task.output!r} does not have",
                found=f"classes up to {int(target.max())}, an output {['n', *shape]}",
                allowed="logits [n, classes], and class numbers below that",
            )


def kept_tasks(
    tasks: Sequence[TaskSpec], teacher: Mapping[str, Array], student: Mapping[str, Array], targets: Mapping[str, Array]
) -> tuple[KeptTask, ...]:
    """How well teacher and student do the further tasks, from their outputs on the test samples."""
    return tuple(
        KeptTask(
            name=task.output,
            kind=task.kind,
            teacher=_score(task, teacher[task.output], targets[task.target]) if task.taught else None,
            student=_score(task, student[task.output], targets[task.target]),
        )
        for task in tasks
    )


def _score(task: TaskSpec, output: Array, target: Array) -> float:
    """Accuracy of classes, root mean square error of values."""
    if task.kind == "classes":
        return rounded((output.argmax(axis=1) == target).mean())
    return rounded(np.sqrt(np.square(output.astype(np.float64) - target).mean()))
