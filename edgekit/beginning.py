"""The student of a recipe as it begins, made of the teacher where the recipe says so."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgekit.artifact import hash_json
from edgekit.errors import SpecError
from edgekit.ingredients import Ingredients
from edgekit.models import class_sources, count_parameters, replace_head, state_hash
from edgekit.recipe import Recipe
from edgekit.recipe_pruning import Pruning
from edgekit.recipe_training import Distillation, Training
from edgekit.teaching import TrainedModel, taking

if TYPE_CHECKING:
    from torch.nn import Module


def begin_student(
    recipe: Recipe, student: TrainedModel | None, teacher: TrainedModel, data: Ingredients, seed: int
) -> TrainedModel:
    """Makes the student of a recipe what it begins as, from its teacher where the recipe says so.

    Args:
        recipe: Has a student.
        student: As it was loaded, changed in place where it takes weights; None: a copy of the teacher.
        teacher: As it stands before it teaches: trained, where the recipe trains it. It stays as it is.
        data: Two of its training samples are run to see that a student which was cut works.
        seed: Of fresh weights.

    Raises:
        ModelError: It cannot be made so.
        TrainingError: A layer that is named is not there.
    """
    spec = recipe.student
    assert spec is not None  # there is something to distil
    if student is not None:
        return _taking(recipe, student, teacher)
    import torch

    from edgekit.distillation.beginnings import cut_copy
    from edgekit.distillation.forward import to_torch

    assert teacher.module is not None  # roles see to both
    assert data.train is not None
    inputs = to_torch(data.train.tensors(np.arange(min(2, len(data.train)))), torch.device("cpu"))
    module, notes = cut_copy(teacher.module, spec, inputs, seed)
    cuts = ", ".join(f"{key} {_shown(value)}" for key, value in spec.cuts.items())
    copy = TrainedModel(
        name=f"{teacher.name}, {cuts}",
        module=module,
        sha256=hash_json([state_hash(module), spec.model_dump(), teacher.sha256, class_sources(module)]),
        parameters=count_parameters(module),
        notes=tuple(notes),
    )
    return taking(copy, spec.inputs or teacher.inputs)


def _shown(value: object) -> str:
    return ", ".join(f"{k}[{len(v)}]" for k, v in value.items()) if isinstance(value, dict) else str(value)


def _taking(recipe: Recipe, student: TrainedModel, teacher: TrainedModel) -> TrainedModel:
    """A student of its own class, with what it takes of the teacher's weights."""
    spec = recipe.student
    assert spec is not None  # likewise
    if not spec.take:
        return student
    from edgekit.distillation.beginnings import take_weights

    assert student.module is not None  # roles see to both
    assert teacher.module is not None
    notes = take_weights(student.module, teacher.module, spec.take)
    identity = [student.sha256, state_hash(student.module), spec.take, teacher.sha256]
    return dataclasses.replace(student, sha256=hash_json(identity), notes=tuple(notes))


def check_beginning(
    recipe: Recipe, student: TrainedModel | None, teachers: Sequence[TrainedModel], data: Ingredients
) -> tuple[TrainedModel, TrainedModel]:
    """Makes the student once for a trial, so that a mistake is told before any training.

    Args:
        recipe: The recipe; without a student it is the teacher that may be pruned.
        student: As it was loaded; None: a copy of the teacher. It stays as it is.
        teachers: As they were loaded, the recipe's own first.
        data: The recipe's.

    Returns:
        Teacher and student as they will begin to learn, with the heads that they are given; the student is the teacher
        where the recipe has none.

    Raises:
        ModelError: The student cannot be made so, has no BatchNorm scales for ``bn_sparsity`` or for the criterion
            that it is pruned by, or no layer that pruning is to keep.
        TrainingError: A layer that is named is not there.
        SpecError: The student is larger than each of its teachers.
    """
    teacher = _headed(teachers[0], recipe.teacher.train, recipe.seed)
    if recipe.student is None:
        _check_pruned(teacher, recipe.pruning)
        return teacher, teacher
    if student is not None and recipe.student.take:
        student = _twin(student)
    student = begin_student(recipe, student, teacher, data, recipe.seed)
    student = _headed(student, recipe.distillation, recipe.seed)
    _check_scales(student, recipe.distillation)
    _check_pruned(student, recipe.pruning)
    counts = [each.parameters for each in (teacher, *teachers[1:])]
    known = [count for count in counts if count]
    if recipe.student.larger or len(known) < len(counts) or student.parameters is None:
        return teacher, student  # how many parameters an .onnx file has, its folded layers do not tell
    if student.parameters > max(known):
        raise SpecError(
            "the student is larger than its teacher",
            found=f"{student.parameters:,} parameters, the teacher {max(known):,}",
            allowed="as many as the teacher, or fewer",
            fix="exchange the two, or say larger = true in [student] where that is meant",
        )
    return teacher, student


def _check_scales(student: TrainedModel, settings: Distillation) -> None:
    """Refuses sparsity training of a student without BatchNorm scales that learn."""
    stages = [settings.stage(number) for number in range(len(settings.stages))] or [settings]
    wanted = [stage for stage in stages if stage.bn_sparsity is not None]
    if not wanted:
        return
    from edgekit.distillation.parameters import frozen
    from edgekit.pruning.criteria import sparsity_loss

    assert student.module is not None  # roles see to it
    for stage in wanted:
        with frozen(student.module, stage.freeze):
            sparsity_loss(student.module)


def _check_pruned(student: TrainedModel, settings: Pruning | None) -> None:
    """Refuses layers to keep or freeze that are not there, and what needs BatchNorms where there are none."""
    if settings is None or student.module is None:
        return
    from edgekit.distillation.parameters import frozen, module_at
    from edgekit.pruning.criteria import NO_EVIDENCE, batchnorm
    from edgekit.pruning.scores import Scoring, check

    if settings.criterion == "batchnorm":
        batchnorm(student.module, [], NO_EVIDENCE)
    with frozen(student.module, settings.train.freeze):
        for path in settings.train.rates:
            module_at(student.module, path, "rates")
    _check_scales(student, settings.train)
    scoring = Scoring(
        criterion=settings.criterion,
        evidence=NO_EVIDENCE,
        multiple=settings.multiple or 1,
        keep=settings.keep,
        base=None,
    )
    check(student.module, scoring)


def _headed(model: TrainedModel, training: Training | None, seed: int) -> TrainedModel:
    """A model with the head that its training gives it; itself where it gets none."""
    if training is None or training.head is None or model.module is None:
        return model
    twin = _twin(model)
    module: Module = replace_head(twin.module, training.head.module, training.head.classes, seed)
    return dataclasses.replace(twin, parameters=count_parameters(module))


def _twin(model: TrainedModel) -> TrainedModel:
    """The same with a copy of the module."""
    from edgekit.distillation.beginnings import copied

    assert model.module is not None  # only torch models are copied
    return dataclasses.replace(model, module=copied(model.module))
