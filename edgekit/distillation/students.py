"""Students, taught by a teacher."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from torch import nn

from edgekit.data import Samples
from edgekit.distillation.augmentation import View, make_view
from edgekit.distillation.batch import Answers
from edgekit.distillation.forward import device_of, evaluating, to_torch
from edgekit.distillation.inspection import count_classes
from edgekit.distillation.matching import make_matches
from edgekit.distillation.outputs import StoredTeacher, asked, outputs_of, stored_answers
from edgekit.distillation.panels import Panel
from edgekit.distillation.taps import tapped
from edgekit.distillation.tasks import learning
from edgekit.distillation.taught import Cohort, Teaching
from edgekit.distillation.trainer import NOWHERE, History, Keeping, train
from edgekit.distillation.workers import placed, start_processes
from edgekit.errors import DataError, TrainingError
from edgekit.models import replace_head
from edgekit.progress import Progress, silent
from edgekit.recipe_training import Distillation, TaskSpec, Training

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
    peers: Sequence[nn.Module] = (),
    answers: Answers | None = None,
    tasks: Sequence[TaskSpec] = (),
    base: Path | None = None,
    keeping: Keeping = NOWHERE,
    progress: Progress = silent,
    name: str = "student",
    score_first: bool = False,
) -> tuple[nn.Module, History]:
    """Trains a student in place on the teacher's logits, mixed with the labels, and on the teacher's layers.

    Both see one view of a sample (Beyer et al., "Knowledge distillation: A good teacher is patient and consistent",
    2022). Without labels it is scored by its agreement with the teacher.

    Args:
        teacher: It stays as it is.
        student: Tells as many classes apart.
        data: Training samples; a label of -1 is none, and all are none only with ``settings.soft_weight`` of 1.
        validation: Samples that choose the best epoch, with or without labels.
        settings: What it learns from, and how.
        seed: One seed, one student.
        others: More teachers, as in ``settings.teachers``; layers and further tasks are those of ``teacher``.
        peers: Modules that learn beside the student, and it from them.
        answers: What the teachers answer, known already; see :func:`edgekit.distillation.outputs.read_outputs`.
        tasks: Further tasks.
        base: The recipe's folder: its modules may hold losses.
        keeping: Checkpoint and trackers.
        progress: Told of every batch.
        name: Of the student.
        score_first: Whether the weights given may be kept.

    Returns:
        The student with its best weights, and how training went.

    Raises:
        EdgeKitError: Samples, labels or a loss are missing, or a label is no class of the student.
        TrainingError: The models do not fit each other or the data, the teacher only guesses, or training fails.
    """
    if teacher is student:
        raise TrainingError("teacher and student are the same module", fix="load the student separately")
    settings, panel = _headed(student, settings, seed), make_panel([teacher, *others], settings)
    with placed(start_processes(), panel, student):
        validation = _checked([teacher, *others], panel, student, data, validation)
        ask = stored_answers(teacher, data) if isinstance(teacher, StoredTeacher) else answers or asked(panel)
        teaching = make_teaching(teacher, student, data, settings, seed, base)
        fit = partial(train, student, data, validation, settings, seed=seed, name=name, keeping=keeping)
        fit = partial(fit, view=view_of(settings, student, data, seed=seed, base=base))
        with _taught(panel, teacher, student, teaching):
            first = Cohort(teaching, peers, settings.peer_weight) if peers else teaching
            with learning(first, tasks, data, student, settings, teacher, teaching.course) as loss:
                return student, fit(loss=loss, ask=ask, progress=progress, score_first=score_first)


def _headed(student: nn.Module, settings: Distillation, seed: int) -> Distillation:
    """Gives the student its new head, and the settings without it."""
    if settings.head is None:
        return settings
    replace_head(student, settings.head.module, settings.head.classes, seed)
    return settings.model_copy(update={"head": None})


def make_teaching(
    teacher: nn.Module,
    student: nn.Module,
    data: Samples,
    settings: Distillation,
    seed: int,
    base: Path | None,
) -> Teaching:
    """The student's loss, with projectors sized by a dry run that changes neither; arguments as of :func:`distill`.

    Raises:
        DataError: Labels are missing.
        TrainingError: A layer is not there, or its features cannot be matched.
        EdgeKitError: A loss cannot be found, or takes no argument that the recipe gives.
    """
    until = settings.schedules.soft_weight
    if data.targets is None and min(settings.soft_weight, until.end if until else 1.0) < 1:
        raise DataError(
            f"{data.name}: the hard loss needs labels and these samples have none",
            found=f"soft_weight = {settings.soft_weight}",
            allowed="soft_weight = 1.0 for samples without labels",
            fix="set distillation.soft_weight = 1.0, or give labelled training data",
        )
    batch = to_torch(data.tensors(np.arange(min(_DRY, len(data)))), device_of(student))
    matches = make_matches(settings.features, teacher, student, batch, seed=seed, base=base)
    return Teaching(settings, matches, base)


def view_of(settings: Training, module: nn.Module, data: Samples, *, seed: int, base: Path | None) -> View | None:
    """The recipe's augmentation; None where it has none.

    Raises:
        EdgeKitError: The user's own cannot be found.
    """
    if not settings.augmentation.varies:
        return None
    return make_view(settings.augmentation, seed=seed, classes=count_classes(module, data), base=base)


def make_panel(teachers: Sequence[nn.Module], settings: Distillation) -> nn.Module:
    """All teachers as one module.

    Raises:
        TrainingError: None has a share.
    """
    if len(teachers) == 1:
        return teachers[0]
    shares = [settings.teacher_share, *(other.share for other in settings.teachers)]
    return Panel(teachers, shares, settings.combine)


@contextmanager
def _taught(panel: nn.Module, teacher: nn.Module, student: nn.Module, teaching: Teaching) -> Iterator[None]:
    """The teachers in evaluation mode, and the layers of both looked at."""
    matches = teaching.matches
    with (
        evaluating(panel),
        tapped(student, matches.student_paths) as teaching.ours,
        tapped(teacher, matches.teacher_paths) as teaching.theirs,
    ):
        yield


def _checked(
    teachers: Sequence[nn.Module],
    panel: nn.Module,
    student: nn.Module,
    data: Samples,
    validation: Samples,
) -> Samples:
    """Refuses teachers that do not fit the student or have nothing to teach; gives labelled validation samples."""
    for each in teachers:
        _check_pair(each, student, data, validation)
        _check_worth(each, validation)
    if validation.targets is not None:
        return validation
    answers = next(iter(outputs_of(panel, validation).values())).argmax(axis=1).astype(np.int64)
    return dataclasses.replace(validation, targets=answers)


def _check_pair(teacher: nn.Module, student: nn.Module, data: Samples, validation: Samples) -> None:
    for samples in (data, validation):
        if not len(samples):
            raise DataError(
                f"{samples.name}: no samples to distil with",
                found=f"{len(data)} for training, {len(validation)} for validation",
                allowed="at least 1 of each",
                fix="give more training data, or change data.validation",
            )
    wanted = next(iter(outputs_of(teacher, validation.subset(range(1))).values())).shape[1]
    offered = count_classes(student, data)
    if wanted != offered:
        raise TrainingError(
            "teacher and student tell different numbers of classes apart",
            found=f"teacher {wanted}, student {offered}",
            allowed="the same number of outputs",
            fix=f"build the student with {wanted} classes, or give it a new head with distillation.head",
        )


def _check_worth(teacher: nn.Module, validation: Samples) -> None:
    """Refuses a teacher that has nothing to teach."""
    logits = next(iter(outputs_of(teacher, validation).values()))
    if not np.isfinite(logits).all():
        raise TrainingError(
            "the teacher's outputs have NaN or infinity",
            found=f"{int((~np.isfinite(logits)).any(axis=1).sum())} of {len(validation)} validation samples",
            fix="check the teacher's weights and the data for NaN",
        )
    if validation.targets is None:
        return
    accuracy, chance = float((logits.argmax(axis=1) == validation.targets).mean()), 1 / logits.shape[1]
    if accuracy < chance:
        raise TrainingError(
            "the teacher is worse than guessing, so a student would learn nothing from it",
            found=f"accuracy {accuracy:.1%} on {len(validation)} validation samples",
            allowed=f"at least {chance:.1%} ({logits.shape[1]} classes)",
            fix="train the teacher (teacher.train), or check its weights, the order of the labels and [input]",
        )
