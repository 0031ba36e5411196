"""A recipe's models, trained: what ``distill`` does, and the first part of ``deploy``."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.artifact import to_json
from edgekit.beginning import begin_student, check_beginning
from edgekit.chains import train_chain
from edgekit.checking import References, make_references
from edgekit.disk import whole
from edgekit.errors import EngineMissing, SpecError
from edgekit.ingredients import Ingredients, load_data, parse_shapes
from edgekit.keeping import keep, write_kept
from edgekit.lessons import train_teacher
from edgekit.metrics import paired_drop
from edgekit.models import is_onnx, save_weights
from edgekit.progress import Progress, silent
from edgekit.ranks import is_main
from edgekit.recipe import Recipe
from edgekit.reporting.tables import count, interval, percent
from edgekit.roles import check_labels, check_roles, check_views
from edgekit.steps import STEPS, locked
from edgekit.teaching import (
    TrainedModel,
    bind_stored,
    load_models,
    load_others,
    onnx_inputs,
    onnx_model,
    run_reference,
)

Look = Callable[[Ingredients, TrainedModel, TrainedModel], None]


def train_models(
    recipe: Recipe, base: Path, steps: Path, progress: Progress = silent, look: Look | None = None
) -> tuple[Ingredients, TrainedModel, TrainedModel]:
    """Makes teacher and student, opens the data, then trains what is to be trained.

    Args:
        recipe: The recipe.
        base: Its folder.
        steps: Root of the step folders.
        progress: Told of every training.
        look: Given the data, and torch teacher and student as they will begin to learn: raises where whatever they
            learn would be in vain.

    Returns:
        The data, the teacher, and the student (the teacher itself where the recipe has no student).

    Raises:
        EdgeKitError: The recipe's models or data are wrong, or cannot be trained.
    """
    check_roles(recipe)
    _require("onnx" if is_onnx(recipe.teacher.model) and recipe.student is None else "torch")
    if is_onnx(recipe.teacher.model) and recipe.student is None:
        teacher = onnx_model(recipe.teacher, base)
        specs = onnx_inputs(teacher, recipe.shapes)
        return load_data(recipe, base, specs, whole_queries=True), teacher, teacher
    given = parse_shapes(recipe.shapes)
    teacher, student = load_models(recipe, base)
    others = load_others(recipe, base)
    data = load_data(recipe, base, given)
    check_views(recipe, data)
    check_labels(recipe, data)
    bind_stored(teacher, data)
    begun = check_beginning(recipe, student, [teacher, *others], data)
    if look is not None:
        look(data, *begun)
    teacher = train_teacher(recipe, teacher, data, base, steps, progress)
    if recipe.student is None:
        return data, teacher, teacher
    student = begin_student(recipe, student, teacher, data, recipe.seed)
    return data, teacher, train_chain(recipe, student, [teacher, *others], data, base, steps, progress)


def _require(package: str) -> None:
    """Refuses early, and with the mending command, what would fail at an import of the recipe's own module."""
    if importlib.util.find_spec(package) is None:
        raise EngineMissing(
            f"preparing a model needs {package}, which is not installed here",
            fix="pip install 'edgekit[compress]' (Python 3.11 or newer); a device that only runs bundles does without",
        )


def distill_recipe(recipe: Recipe, base: Path, out: Path, progress: Progress = silent) -> list[tuple[str, ...]]:
    """Trains teacher and student of a recipe; writes their weights beside the steps, and what the student kept.

    Returns:
        Table rows: role, model, parameters, mean score on the test samples, drop from the teacher, weights file, and
        what else is to be said of the model.

    Raises:
        SpecError: The recipe has no student.
    """
    if recipe.student is None:
        raise SpecError("the recipe has no student to distil", fix="add a [student] table")
    if not is_main():  # it trains with the others, and leaves writing to the first
        train_models(recipe, base, out / STEPS, progress)
        return []
    with locked(out) as steps:
        data, teacher, student = train_models(recipe, base, steps, progress)
        rows: list[tuple[str, ...]] = []
        references = kept = None
        if data.metric is not None:
            learned, known = (run_reference(model, None, data.test) for model in (student, teacher))
            references = make_references(learned, known, data.test, data.metric, data.metric_name)
            kept = keep(teacher, student, (known, learned), data, recipe, steps, progress)
        for role, model in (("teacher", teacher), ("student", student)):
            weights = model.onnx or out / f"{role}.safetensors"
            if model.onnx is None:
                assert model.module is not None  # a model is a module or a file
                with whole(weights) as path:
                    save_weights(model.module, path)
            scores = getattr(references, f"{role}_score") if references else None
            score = percent(None if scores is None else float(np.mean(scores)))
            lost = interval(_drop(references)) if role == "student" and references else ""
            rows.append((role, model.name, count(model.parameters), score, lost, str(weights), *model.notes))
        write_kept(kept, out)
    return rows


def _drop(references: References) -> dict[str, Any] | None:
    teacher, student = references.teacher_score, references.student_score
    if isinstance(teacher, np.ndarray) and isinstance(student, np.ndarray):
        return dict(to_json(paired_drop(teacher, student)))
    return None
