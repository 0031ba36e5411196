"""What a recipe's student kept of its teacher: measured once, as a resumable step."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit import __version__
from edgekit._draws import drawn
from edgekit.artifact import Array, read_json, write_json
from edgekit.data import Samples
from edgekit.disk import whole
from edgekit.ingredients import Ingredients
from edgekit.making import tool_versions
from edgekit.models import is_onnx, is_stored
from edgekit.progress import Progress, silent
from edgekit.recipe import Recipe
from edgekit.recipe_augmentation import Adversarial
from edgekit.shipping import Run
from edgekit.steps import run_step
from edgekit.teaching import TrainedModel

if TYPE_CHECKING:
    from torch.nn import Module

    from edgekit.distillation.kept_tree import Corruption

KEPT_JSON = "kept.json"


def keep(
    teacher: TrainedModel,
    student: TrainedModel,
    known: tuple[Mapping[str, Array], Mapping[str, Array]],
    data: Ingredients,
    recipe: Recipe,
    steps: Path,
    progress: Progress = silent,
) -> dict[str, Any] | None:
    """Compares a torch student with its teacher on a labelled test set, as they are and under corruption.

    Args:
        teacher: The teacher.
        student: The student; the teacher itself where there is none.
        known: Outputs of teacher and student on the test samples, by name; the first of each are the logits.
        data: The recipe's data.
        recipe: Its seed decides the corruptions; an attack that the student was trained against is shown with them.
        steps: Root of the step folders.
        progress: Told of the corruptions.

    Returns:
        :class:`edgekit.distillation.kept_tree.Kept` as JSON; None without a student of its own, without a test set of
        class labels, or where the outputs are no class scores.
    """
    if student is teacher or student.module is None or teacher.module is None:
        return None
    taught, learned = (next(iter(outputs.values())) for outputs in known)
    labels = data.test.targets
    if not data.held_out or labels is None or not _are_scores(taught, learned, labels):
        return None
    models = (teacher.module, student.module)
    seed, attack, tasks = recipe.seed, recipe.distillation.adversarial, recipe.tasks
    groups, group_names = data.test.groups, data.test.group_names

    def make(folder: Path) -> None:
        from edgekit.distillation.corruption import under_corruption
        from edgekit.distillation.kept import measure_kept
        from edgekit.distillation.tasks import kept_tasks

        kept = measure_kept(taught, learned, labels, data.labels, groups=groups, group_names=group_names)
        answers = not is_stored(teacher.name)  # stored outputs know nothing of corrupted samples
        corruption = under_corruption(*models, data.test, seed=seed, progress=progress) if answers else None
        if attack is not None and corruption is not None and not is_onnx(teacher.name):
            corruption = _with_attack(corruption, models, data.test, attack, seed)
        further = kept_tasks(tasks, *known, data.test.further)
        write_json(folder / KEPT_JSON, dataclasses.replace(kept, corruption=corruption, tasks=further))

    key = {
        "edgekit": __version__,
        "tools": tool_versions("torch", "torchmetrics"),
        "teacher": teacher.sha256,
        "student": student.sha256,
        "test": data.test_sha256,
        "labels": data.labels,
        "seed": seed,
        "attack": None if attack is None else attack.model_dump(),
        "tasks": [task.model_dump() for task in tasks],
    }
    found: dict[str, Any] = read_json(run_step(steps, "kept", key, make) / KEPT_JSON)
    return found


def kept_of(run: Run) -> dict[str, Any]:
    """What a report says of it: the key ``kept``, or nothing."""
    known = (run.references.teacher, run.references.student)
    found = keep(run.teacher, run.student, known, run.data, run.recipe, run.steps, run.progress)
    return {} if found is None else {"kept": found}


def _with_attack(
    corruption: Corruption, models: tuple[Module, Module], test: Samples, attack: Adversarial, seed: int
) -> Corruption:
    """The same, with the accuracy of both where every sample is moved against them; it is no part of the means."""
    from edgekit.distillation.adversarial import robust_accuracy
    from edgekit.distillation.corruption import MOST_SAMPLES
    from edgekit.distillation.kept_tree import Corrupted

    chosen = test.subset(drawn(test.targets, len(test), min(MOST_SAMPLES, len(test)), seed, keep=0))
    found = [round(robust_accuracy(model, chosen, attack, seed=seed), 6) for model in models]
    row = Corrupted(
        kind=f"{attack.attack} attack, {attack.epsilon:g}",
        teacher=(found[0],),
        student=(found[1],),
        teacher_mean=found[0],
        student_mean=found[1],
    )
    return dataclasses.replace(corruption, kinds=(*corruption.kinds, row))


def write_kept(found: Mapping[str, Any] | None, out: Path) -> None:
    """Writes it beside the weights; removes that of an earlier run where nothing is known of this one."""
    if found is None:
        (out / KEPT_JSON).unlink(missing_ok=True)
        return
    with whole(out / KEPT_JSON) as path:
        write_json(path, found)


def read_kept(out: Path) -> dict[str, Any] | None:
    """What :func:`write_kept` wrote; None where it wrote nothing."""
    path = out / KEPT_JSON
    found: dict[str, Any] | None = read_json(path) if path.is_file() else None
    return found


def _are_scores(taught: Array, learned: Array, labels: Array) -> bool:
    """Whether both are logits of the same classes, and the targets are numbers of these."""
    if taught.ndim != 2 or taught.shape != learned.shape or taught.shape[1] < 2 or taught.dtype.kind != "f":
        return False
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        return False
    return bool(np.all((labels >= 0) & (labels < taught.shape[1])))
