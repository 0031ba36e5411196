"""Students, taught by a teacher."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from edgekit.artifact import Array
from edgekit.data import Samples
from edgekit.distillation.forward import device_of, evaluating, forward, logits_of, to_torch
from edgekit.distillation.inspection import count_classes
from edgekit.distillation.losses import mixed, soft_loss
from edgekit.distillation.matching import Matches, make_matches
from edgekit.distillation.panels import Panel
from edgekit.distillation.schedules import Course
from edgekit.distillation.taps import tapped
from edgekit.distillation.trainer import History, Loss, train
from edgekit.errors import DataError, TrainingError
from edgekit.models import replace_head
from edgekit.progress import Progress, silent
from edgekit.recipe_training import Distillation

LogitLoss = Callable[[Mapping[str, Tensor], Tensor, "Tensor | None", float], tuple[Tensor, float]]
_DRY = 4  # samples of the run that projectors are sized by


def distill(
    teacher: nn.Module,
    student: nn.Module,
    data: Samples,
    validation: Samples,
    settings: Distillation,
    *,
    seed: int,
    others: Sequence[nn.Module] = (),
    base: Path | None = None,
    progress: Progress = silent,
    name: str = "student",
) -> tuple[nn.Module, History]:
    """Trains a student in place on the teacher's logits, mixed with the labels, and on the teacher's layers.

    Teacher and student see the same view of every sample: the teacher answers each batch anew, so that random
    augmentation stays consistent (Beyer et al., "Knowledge distillation: A good teacher is patient and consistent",
    2022). Without labels the student is scored by its agreement with the teacher's top class.

    Args:
        teacher: Its weights, gradients and mode stay as they are.
        student: Tells as many classes apart as the teacher.
        data: Training samples; labels are needed only where ``settings.soft_weight`` is below 1.
        validation: Samples that choose the best epoch, with or without labels.
        settings: See :class:`edgekit.recipe_training.Distillation`.
        seed: One seed, one student.
        others: More teachers, in the order of ``settings.teachers``; what all answer together is what is taught, and
            layers are those of ``teacher``.
        base: The recipe's folder: its modules may hold losses.
        progress: Told of every batch.
        name: What the student is called in messages.

    Returns:
        The student with its best weights, in evaluation mode, and how training went.

    Raises:
        DataError: Samples or labels are missing, or a label is no class of the student.
        EdgeKitError: A loss cannot be found.
        TrainingError: The models or their layers do not fit each other or the data, the teacher is no better than
            guessing, or training fails (see :func:`edgekit.distillation.trainer.train`).
    """
    if teacher is student:
        raise TrainingError("teacher and student are the same module", fix="load the student separately")
    if settings.head is not None:
        replace_head(student, settings.head.module, settings.head.classes, seed)
        settings = settings.model_copy(update={"head": None})
    panel, answers = _panel([teacher, *others], student, data, validation, settings)
    if validation.targets is None:
        validation = dataclasses.replace(validation, targets=answers)
    batch = to_torch(data.tensors(np.arange(min(_DRY, len(data)))), device_of(student))
    matches = make_matches(settings.features, teacher, student, batch, seed=seed, base=base)
    with _taught(panel, teacher, student, matches, _logit_loss(panel, settings, base)) as loss:
        history = train(
            student, data, validation, settings, seed=seed, loss=loss, beside=matches, progress=progress, name=name
        )
    return student, history


@contextmanager
def _taught(
    panel: nn.Module, teacher: nn.Module, student: nn.Module, matches: Matches, from_logits: LogitLoss
) -> Iterator[Loss]:
    """The loss of logits and layers, while the layers of both are looked at."""
    with (
        evaluating(panel),
        tapped(student, matches.student_paths) as ours,
        tapped(teacher, matches.teacher_paths) as theirs,
    ):

        def loss(inputs: Mapping[str, Tensor], logits: Tensor, labels: Tensor | None, share: float) -> Tensor:
            value, factor = from_logits(inputs, logits, labels, share)
            return value + factor * matches(ours, theirs, labels) if matches.student_paths else value

        yield loss


def _panel(
    teachers: Sequence[nn.Module], student: nn.Module, data: Samples, validation: Samples, settings: Distillation
) -> tuple[nn.Module, Array]:
    """All teachers as one module, each checked; and its top classes on the validation samples ``[n]``."""
    for each in teachers:
        _check_pair(each, student, data, validation, settings)
        answers = _answers(each, validation)
    if len(teachers) == 1:
        return teachers[0], answers
    shares = [settings.teacher_share, *(other.share for other in settings.teachers)]
    panel = Panel(teachers, shares, settings.combine)
    return panel, _answers(panel, validation)


def _logit_loss(panel: nn.Module, settings: Distillation, base: Path | None) -> LogitLoss:
    """The loss of logits and labels, which also runs the teachers; gives the factor of the layers' losses with it."""
    soft, course = soft_loss(settings, base), Course(settings=settings)

    def loss(inputs: Mapping[str, Tensor], logits: Tensor, labels: Tensor | None, share: float) -> tuple[Tensor, float]:
        with torch.no_grad():
            answers = logits_of(panel, inputs)
            if course.steered:
                course.see(logits, answers)
        temperature = course.temperature(share)
        value = mixed(lambda: soft(logits, answers, labels, temperature), logits, labels, course.soft_weight(share))
        return value, course.features(share)

    return loss


def _check_pair(
    teacher: nn.Module, student: nn.Module, data: Samples, validation: Samples, settings: Distillation
) -> None:
    for samples in (data, validation):
        if not len(samples):
            raise DataError(
                f"{samples.name}: no samples to distil with",
                found=f"{len(data)} for training, {len(validation)} for validation",
                allowed="at least 1 of each",
                fix="give more training data, or change data.validation",
            )
    until = settings.schedules.soft_weight
    if data.targets is None and min(settings.soft_weight, until.end if until else 1.0) < 1:
        raise DataError(
            f"{data.name}: the hard loss needs labels and these samples have none",
            found=f"soft_weight = {settings.soft_weight}",
            allowed="soft_weight = 1.0 for samples without labels",
            fix="set distillation.soft_weight = 1.0, or give labelled training data",
        )
    asked, offered = count_classes(teacher, data), count_classes(student, data)
    if asked != offered:
        raise TrainingError(
            "teacher and student tell different numbers of classes apart",
            found=f"teacher {asked}, student {offered}",
            allowed="the same number of outputs",
            fix=f"build the student with {asked} classes, or give it a new head with distillation.head",
        )


def _answers(teacher: nn.Module, validation: Samples) -> Array:
    """The teacher's top classes ``[n]``; refuses a teacher that has nothing to teach."""
    logits = next(iter(forward(teacher, validation).values()))
    if not np.isfinite(logits).all():
        raise TrainingError(
            "the teacher's outputs have NaN or infinity",
            found=f"{int((~np.isfinite(logits)).any(axis=1).sum())} of {len(validation)} validation samples",
            fix="check the teacher's weights and the data for NaN",
        )
    answers: Array = logits.argmax(axis=1).astype(np.int64)
    if validation.targets is not None:
        accuracy = float((answers == validation.targets).mean())
        chance = 1 / logits.shape[1]
        if accuracy < chance:
            raise TrainingError(
                "the teacher is worse than guessing, so a student would learn nothing from it",
                found=f"accuracy {accuracy:.1%} on {len(validation)} validation samples",
                allowed=f"at least {chance:.1%} ({logits.shape[1]} classes)",
                fix="train the teacher (teacher.train), or check its weights, the order of the labels and [input]",
            )
    return answers
