"""Which part a recipe's models can play."""

from __future__ import annotations

from edgekit.errors import SpecError
from edgekit.models import is_onnx
from edgekit.recipe import Recipe
from edgekit.recipe_student import StudentSpec
from edgekit.recipe_training import Teacher


def check_roles(recipe: Recipe) -> None:
    """Refuses a recipe whose models cannot play their parts, before anything is loaded.

    Raises:
        SpecError: An ``.onnx`` file is to be trained or to teach by its layers, or a teacher would have random weights.
    """
    teacher, student = recipe.teacher, recipe.student
    if student is not None:
        _check_student(student, teacher)
    if is_onnx(teacher.model):
        if student is not None and recipe.distillation.features:
            raise SpecError(
                "an .onnx teacher shows no layers, only its outputs",
                found=f"teacher.model = {teacher.model!r} and [[distillation.features]]",
                fix="remove distillation.features, or give the teacher as a torch factory",
            )
        if teacher.args or teacher.weights or teacher.train:
            raise SpecError(
                "an .onnx model takes no args, weights or training",
                found=f"teacher.model = {teacher.model!r}",
                fix="remove them, or give a torch factory",
            )
    elif teacher.weights is None and teacher.train is None and recipe.data is not None:
        raise SpecError(
            "the teacher has neither weights nor training",
            found=f"teacher.model = {teacher.model!r} alone: its weights would be random",
            allowed="teacher.weights = FILE (--weights FILE), or a [teacher.train] table",
            fix='add one of the two; where the factory itself loads trained weights, say weights = "factory"',
        )
    for i, other in enumerate(recipe.distillation.teachers):
        if other.weights is None and not is_onnx(other.model):
            raise SpecError(
                f"distillation.teachers[{i}] has no weights, so it would teach at random",
                found=f"model = {other.model!r} alone",
                allowed='weights = FILE, an .onnx file, or weights = "factory" where it loads them itself',
                fix="give its weights",
            )
    _check_line(recipe)
    if recipe.data is None and (student is not None or teacher.train is not None):
        raise SpecError(
            "training needs data", found="no [data] in the recipe", allowed="data.train = …", fix="add a [data] table"
        )


def _check_student(student: StudentSpec, teacher: Teacher) -> None:
    """A copy of the teacher is cut somehow and has nothing of its own; another model is not cut."""
    if is_onnx(student.model):
        raise SpecError("student.model is an .onnx file, which cannot be trained", fix="give a torch factory")
    if is_onnx(teacher.model) and (student.is_copy or student.take):
        raise SpecError(
            "an .onnx teacher has no layers that a student could begin with",
            found=f"teacher.model = {teacher.model!r} and "
            + ("a student that is a copy of it" if student.is_copy else "[student.take]"),
            fix="give the teacher as a torch factory, or the student as a model of its own",
        )
    own = [key for key in ("args", "weights", "take") if getattr(student, key)]
    if student.is_copy and own:
        raise SpecError(
            f"student.{own[0]} is for a student of its own, and this one is a copy of the teacher",
            found=f"student.{own[0]} = {getattr(student, own[0])!r}",
            allowed="depth, keep, width, embeddings and initial",
            fix='remove it, or name the student\'s own model: model = "package.module:factory"',
        )
    if student.is_copy and not student.cuts:
        raise SpecError(
            "the student is a copy of the teacher of which nothing is cut",
            allowed='depth, keep, width, embeddings, or initial = "random"',
            fix="say what is cut, or name the student's own model",
        )
    if not student.is_copy and student.cuts:
        key, value = next(iter(student.cuts.items()))
        raise SpecError(
            f"student.{key} is for a copy of the teacher, and this student has a model of its own",
            found=f"student.model = {student.model!r} and {key} = {value!r}",
            allowed="args, weights and take",
            fix=f'remove {key}, or say model = "teacher"',
        )


def _check_line(recipe: Recipe) -> None:
    """Assistants can be trained, and layers are named of one pair of models only."""
    settings = recipe.distillation
    for i, assistant in enumerate(settings.assistants):
        if is_onnx(assistant.model):
            raise SpecError(
                f"distillation.assistants[{i}] is an .onnx file, which cannot be trained", fix="give a torch factory"
            )
    between = "assistants" if settings.assistants else "generations" if settings.generations > 1 else None
    if between is not None and settings.features:
        raise SpecError(
            f"distillation.features names layers of the teacher, and with {between} others teach too",
            found=f"[[distillation.features]] and distillation.{between}",
            allowed="one of the two",
            fix="remove one; or distil in two recipes, the second with the first's student as its teacher",
        )
