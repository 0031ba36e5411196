"""Training of a recipe's models: each is a step that is found again, and one that was killed goes on."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgekit import __version__
from edgekit.artifact import hash_json, read_json, write_json
from edgekit.data import Samples
from edgekit.errors import DataError
from edgekit.ingredients import Ingredients
from edgekit.labelling import only_labelled
from edgekit.making import tool_versions
from edgekit.models import (
    count_parameters,
    load_weights,
    replace_head,
    save_weights,
    sources_of,
    state_hash,
)
from edgekit.progress import Progress
from edgekit.ranks import is_main, processes
from edgekit.recipe import Recipe
from edgekit.recipe_training import Distillation, TaskSpec, Training
from edgekit.steps import run_step, step_folder
from edgekit.teaching import TrainedModel, torch_model

if TYPE_CHECKING:
    from torch.nn import Module

    from edgekit.distillation.batch import Answers
    from edgekit.distillation.trainer import Keeping

LOGS = "logs"
_DRAWN_TWICE = 8  # samples that are read twice, to see whether reading them is random


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lesson:
    """One training: everything it depends on, and the call that does it.

    Attributes:
        name: Of its step: ``teacher``, ``student``, ``assistant-1`` …, ``generation-1`` …
        model: What is trained, as it was loaded.
        settings: How.
        seed: Seed of the recipe.
        data: Hashes of the training samples, the share kept for validation, the share of labels used.
        teacher: Identity of the teacher, or None.
        tasks: Further tasks.
        own_code: Hashes of the files of the user's own losses and augmentation.
        fit: Trains a module in place and returns how it went.
    """

    name: str
    model: TrainedModel
    settings: Training
    seed: int
    data: tuple[object, ...]
    teacher: str | None
    tasks: tuple[TaskSpec, ...]
    own_code: tuple[str, ...] = ()
    fit: Callable[[Module, Keeping], object]


def train_teacher(
    recipe: Recipe, teacher: TrainedModel, data: Ingredients, base: Path, steps: Path, progress: Progress
) -> TrainedModel:
    """Trains or fine-tunes the teacher where the recipe says so."""
    settings = recipe.teacher.train
    if settings is None:
        return teacher
    from edgekit.distillation.batch import cross_entropy
    from edgekit.distillation.students import view_of
    from edgekit.distillation.tasks import learning
    from edgekit.distillation.trainer import train

    samples, validation, identity = _training_data(recipe, data)
    samples = only_labelled(samples)

    def fit(target: Module, keeping: Keeping) -> object:
        view = view_of(settings, target, samples, seed=recipe.seed, base=base)
        learn = partial(train, target, samples, validation, settings, seed=recipe.seed, view=view, keeping=keeping)
        tasks = [task for task in recipe.tasks if task.taught]
        with learning(cross_entropy, tasks, samples, target, settings) as loss:
            return learn(loss=loss, progress=progress)

    lesson = Lesson(
        name="teacher",
        model=teacher,
        settings=settings,
        seed=recipe.seed,
        data=identity,
        teacher=None,
        tasks=recipe.tasks,
        own_code=_own_code(settings, base),
        fit=fit,
    )
    return _learn(lesson, steps)


def train_student(
    recipe: Recipe,
    student: TrainedModel,
    teachers: Sequence[TrainedModel],
    data: Ingredients,
    base: Path,
    steps: Path,
    progress: Progress,
    name: str = "student",
    *,
    step: str | None = None,
    score_first: bool = False,
    hold_zeros: bool = False,
) -> TrainedModel:
    """Distils a student from a teacher, and the others after it.

    Progress speaks of ``name``; kept is the training as ``step``, or as ``name``. With ``score_first`` what it begins
    with is kept where no epoch does better. Weights that are zero stay zero with ``hold_zeros``.
    """
    from edgekit.distillation.students import distill
    from edgekit.pruning.holding import zeros_held

    samples, validation, identity = _training_data(recipe, data)
    settings = recipe.distillation
    source, *others = [teacher.module for teacher in teachers if teacher.module is not None]
    peers = _peers(recipe, base)
    together = hash_json([model.sha256 for model in (*teachers, *peers)])

    def fit(target: Module, keeping: Keeping) -> object:
        with zeros_held(target) if hold_zeros else nullcontext():
            return distill(
                source,
                target,
                samples,
                validation,
                settings,
                seed=recipe.seed,
                others=others,
                peers=[peer.module for peer in peers if peer.module is not None],
                answers=_answers(recipe, [source, *others], target, samples, together, base, steps, progress),
                tasks=recipe.tasks,
                base=base,
                keeping=keeping,
                progress=progress,
                name=name,
                score_first=score_first,
            )[1]

    lesson = Lesson(
        name=step or name,
        model=student,
        settings=settings,
        seed=recipe.seed,
        data=identity,
        teacher=together,
        tasks=recipe.tasks,
        own_code=_own_code(settings, base),
        fit=fit,
    )
    return _learn(lesson, steps)


def without_labels(settings: Distillation, data: Ingredients) -> Distillation:
    """The settings, in which the teacher alone teaches where there are no labels and the recipe does not say."""
    labelled = data.train is not None and data.train.targets is not None
    if labelled or "soft_weight" in settings.model_fields_set:
        return settings
    return settings.model_copy(update={"soft_weight": 1.0})


def _peers(recipe: Recipe, base: Path) -> list[TrainedModel]:
    """The models that learn beside the student, each from weights of its own."""
    specs = recipe.distillation.peers
    return [torch_model(f"distillation.peers[{i}]", spec, recipe.seed + i + 1, base) for i, spec in enumerate(specs)]


def _learn(lesson: Lesson, steps: Path) -> TrainedModel:
    """Trains a model as a step: its weights and history lie in the step's folder.

    Of several processes all train, and the main one alone writes.
    """
    from edgekit.distillation.trainer import Keeping
    from edgekit.distillation.workers import shared, wait

    module = lesson.model.module
    assert module is not None  # only torch models are trained
    key = _key(lesson)
    folder = step_folder(steps, lesson.name, key)
    checkpoint = steps / f"{folder.name}.checkpoint"
    keeping = Keeping(checkpoint=checkpoint, logs=steps.parent / LOGS)
    fresh: bool = shared(not folder.is_dir())

    def make(partial: Path) -> None:
        history = lesson.fit(module, keeping)
        save_weights(module, partial / "model.safetensors")
        write_json(partial / "history.json", history)

    if is_main():
        run_step(steps, lesson.name, key, make)
        checkpoint.unlink(missing_ok=True)
    elif fresh:
        lesson.fit(module, keeping)
    wait()
    if not fresh:
        settings = lesson.settings
        if settings.head is not None:
            replace_head(module, settings.head.module, settings.head.classes, lesson.seed)
        load_weights(module, folder / "model.safetensors", where=lesson.name)
    module.eval()
    return dataclasses.replace(
        lesson.model,
        notes=(*lesson.model.notes, *_said_of_zeros(module, lesson.settings)),
        sha256=hash_json([lesson.model.sha256, state_hash(module)]),
        parameters=count_parameters(module),
        training=read_json(folder / "history.json") | {"reused": not fresh},
    )


def _said_of_zeros(module: Module, settings: Training) -> tuple[str, ...]:
    """How many weights are zero, where some were to be, and which layers have none."""
    if settings.sparse is None:
        return ()
    from edgekit.pruning.masks import sparsity_of

    found = sparsity_of(module)
    whole = [layer.name.rpartition(".")[0] for layer in found.layers if not layer.zeros]
    left = f"; dense: {', '.join(whole[:5])}{', …' if len(whole) > 5 else ''}" if whole else ""
    return (f"sparse: {found.share:.1%} of {found.weights:,} weights are zero{left}",)


def _key(lesson: Lesson) -> dict[str, object]:
    """Everything that decides what a training makes."""
    import torch

    return {
        "edgekit": __version__,
        "tools": tool_versions("torch"),
        "threads": torch.get_num_threads(),
        "processes": processes(),
        "module": lesson.model.sha256,
        # What is as it always was does not count: a new setting leaves what was trained without it as it is.
        "settings": lesson.settings.model_dump(exclude={"trackers"}, exclude_defaults=True),
        "seed": lesson.seed,
        "data": lesson.data,
        "teacher": lesson.teacher,
        "tasks": [task.model_dump() for task in lesson.tasks],
        "own_code": lesson.own_code,
    }


def _answers(
    recipe: Recipe,
    teachers: Sequence[Module],
    student: Module,
    samples: Samples,
    teacher_id: str,
    base: Path,
    steps: Path,
    progress: Progress,
) -> Answers | None:
    """What the teachers answer, from disk, where they would give the same answers again; else None."""
    from edgekit.distillation.outputs import StoredTeacher, read_outputs, write_outputs
    from edgekit.distillation.students import make_panel, view_of
    from edgekit.distillation.workers import wait

    settings = recipe.distillation
    views = None if any(task.taught for task in recipe.tasks) else _repeated_views(settings)
    if views is None or isinstance(teachers[0], StoredTeacher) or _random(samples):
        return None
    key = {
        "edgekit": __version__,
        "tools": tool_versions("torch"),
        "teacher": teacher_id,
        "panel": [settings.teacher_share, *(other.share for other in settings.teachers), settings.combine],
        "data": [samples.name, len(samples), hash_json([digest.hex() for digest in samples.digests()])],
        "augmentation": settings.augmentation.model_dump() if settings.augmentation.varies else None,
        "seed": recipe.seed,
    }

    def make(folder: Path) -> None:
        view = view_of(settings, student, samples, seed=recipe.seed, base=base)
        panel = make_panel(teachers, settings)
        write_outputs(folder, panel, samples, teacher_id=teacher_id, view=view, views=views, progress=progress)

    if is_main():
        run_step(steps, "outputs", key, make)
    wait()
    return read_outputs(step_folder(steps, "outputs", key), samples, teacher_id=teacher_id)


def _repeated_views(settings: Distillation) -> int | None:
    """How many views of a sample come again and again; None where the teacher has to be asked anew."""
    varied = settings.augmentation
    if not settings.cache or settings.features or settings.adversarial or varied.mixup or varied.cutmix:
        return None
    views = varied.views if varied.varies else 1
    return views if views is not None and views < settings.epochs else None


def _random(samples: Samples) -> bool:
    """Whether the user's own data gives something else each time it is read."""
    few = np.arange(min(_DRAWN_TWICE, len(samples)))
    first, second = samples.tensors(few), samples.tensors(few)
    return any(not np.array_equal(first[name], second[name]) for name in first)


def _own_code(settings: Training, base: Path) -> tuple[str, ...]:
    """Hashes of the user's own losses and augmentation."""
    from edgekit._lookup import resolve
    from edgekit.distillation.matching import own_losses

    own = own_losses(settings, base) if isinstance(settings, Distillation) else []
    if settings.augmentation.own is not None:
        own.append(resolve(settings.augmentation.own, {}, kind="augmentation", base=base, where="augmentation.own"))
    return tuple(sources_of(part.__module__ for part in own))


def _training_data(recipe: Recipe, data: Ingredients) -> tuple[Samples, Samples, tuple[object, ...]]:
    if data.train is None or data.validation is None or recipe.data is None:
        raise DataError("training needs data", found="no [data] in the recipe", fix="add data.train")
    sources = [parent.sha256 for parent in data.parents if parent.name in ("train", "unlabelled", "validation")]
    return data.train, data.validation, (*sources, recipe.data.validation, recipe.data.labelled)
