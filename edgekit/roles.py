"""Which part a recipe's models can play."""

from __future__ import annotations

from edgekit.errors import DataError, SpecError, UnknownName, did_you_mean
from edgekit.ingredients import Ingredients
from edgekit.models import is_onnx, is_stored
from edgekit.recipe import Recipe
from edgekit.recipe_student import StudentSpec
from edgekit.recipe_training import ModelSpec, Teacher, Training


def check_roles(recipe: Recipe) -> None:
    """Refuses a recipe whose models cannot play their parts, before anything is loaded.

    Raises:
        SpecError: An ``.onnx`` file is to be trained or to teach by its layers, a teacher would have random weights, or
            samples cannot be drawn or varied as a training wants them.
    """
    teacher, student = recipe.teacher, recipe.student
    if student is not None:
        _check_student(student, teacher)
    if is_onnx(teacher.model) or is_stored(teacher.model):
        _check_file(recipe)
    elif teacher.weights is None and teacher.train is None and recipe.data is not None:
        raise SpecError(
            "the teacher has neither weights nor training",
            found=f"teacher.model = {teacher.model!r} alone: its weights would be random",
            allowed="teacher.weights = FILE (--weights FILE), or a [teacher.train] table",
            fix='add one of the two; where the factory itself loads trained weights, say weights = "factory"',
        )
    if is_stored(teacher.model):
        _check_stored(recipe)
    _check_others(recipe)
    _check_tasks(recipe)
    _check_line(recipe)
    _check_samples(recipe, "distillation", recipe.distillation)
    _check_pruning(recipe)
    if teacher.train is not None:
        _check_samples(recipe, "teacher.train", teacher.train)
    _check_qat(recipe)
    if recipe.data is None and (student is not None or teacher.train is not None):
        raise SpecError(
            "training needs data", found="no [data] in the recipe", allowed="data.train = …", fix="add a [data] table"
        )


def _check_file(recipe: Recipe) -> None:
    """A teacher that is a file shows its outputs alone, and is taken as it is."""
    teacher, student = recipe.teacher, recipe.student
    kind = _kind(teacher)
    if student is not None and recipe.distillation.features:
        raise SpecError(
            f"a teacher that is {kind} shows no layers, only its outputs",
            found=f"teacher.model = {teacher.model!r} and [[distillation.features]]",
            fix="remove distillation.features, or give the teacher as a torch factory",
        )
    if student is None and is_stored(teacher.model):
        raise SpecError(
            f"{kind} can teach, but not be deployed",
            found=f"teacher.model = {teacher.model!r} and no [student]",
            fix="add a [student] table",
        )
    if teacher.args or teacher.weights or teacher.train:
        raise SpecError(
            f"{kind} takes no args, weights or training",
            found=f"teacher.model = {teacher.model!r}",
            fix="remove them, or give a torch factory",
        )
    if teacher.inputs and is_onnx(teacher.model) and student is None:
        raise SpecError(
            "an .onnx file that is deployed takes the arrays of its own inputs' names",
            found=f"teacher.inputs = {list(teacher.inputs)}",
            fix="remove teacher.inputs, and name the arrays of the data as the model's inputs",
        )


def _check_tasks(recipe: Recipe) -> None:
    """Further tasks have outputs and targets of their own, for every sample."""
    tasks, data = recipe.tasks, recipe.data
    for key in ("output", "target"):
        names = [getattr(task, key) for task in tasks]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise SpecError(f"tasks: two have the same {key}", found=repr(twice), fix="give each its own")
    if tasks and data is not None and (data.labelled or data.unlabelled):
        raise SpecError(
            "tasks: samples without a label would have no targets of further tasks either",
            found="[[tasks]] and data." + ("labelled" if data.labelled else "unlabelled"),
            fix="remove one of the two",
        )
    if is_stored(recipe.teacher.model) and any(task.taught for task in tasks):
        raise SpecError(
            "a folder of stored outputs knows the first task alone",
            found=f"teacher.model = {recipe.teacher.model!r} and [[tasks]]",
            fix="say taught = false in the task: it is learnt from its targets",
        )


def check_views(recipe: Recipe, data: Ingredients) -> None:
    """Refuses a model that is to take what the data do not have.

    Raises:
        DataError: An array of that name is missing.
    """
    settings, arrays = recipe.distillation, list(data.test.raw([0]))
    models: dict[str, ModelSpec] = {"teacher": recipe.teacher}
    if recipe.student is not None:
        models["student"] = recipe.student
    for kind in ("teachers", "assistants", "peers"):
        models |= {f"distillation.{kind}[{i}]": spec for i, spec in enumerate(getattr(settings, kind))}
    for where, spec in models.items():
        for name in spec.inputs:
            if name not in arrays:
                raise DataError(
                    f"{where}.inputs: the samples have no array {name!r}",
                    found=repr(name),
                    allowed=", ".join(arrays),
                    fix=did_you_mean(name, arrays),
                )


def check_labels(recipe: Recipe, data: Ingredients) -> None:
    """Refuses labels that no training learns from: all of them tell classes apart.

    Raises:
        DataError: Something is to be trained or pruned, and the targets are no class numbers.
    """
    learns = {
        "[teacher.train]": recipe.teacher.train is not None,
        "[student]": recipe.student is not None,
        "[pruning]": recipe.pruning is not None,
        "[qat]": recipe.qat is not None,
    }
    table = next((name for name, there in learns.items() if there), None)
    targets = None if data.train is None else data.train.targets
    if table is None or targets is None or (targets.ndim == 1 and targets.dtype.kind in "iu"):
        return
    raise DataError(
        f"{table} learns to tell classes apart, and the targets of the training samples are no class numbers",
        found=f"{targets.dtype}{list(targets.shape)}, the first {targets[0].tolist()}",
        allowed='integers [n] from 0; values are the targets of a further output: [[tasks]] with kind = "values"',
        fix=f"give class numbers, or train the model elsewhere and remove {table}: what is trained can be quantised",
    )


def _check_others(recipe: Recipe) -> None:
    """Each further teacher is a network with weights of its own."""
    for i, other in enumerate(recipe.distillation.teachers):
        if is_stored(other.model):
            raise SpecError(
                f"distillation.teachers[{i}] is a folder of stored outputs, which teaches alone",
                found=f"model = {other.model!r}",
                fix="store the outputs that all teachers give together",
            )
        if other.weights is None and not is_onnx(other.model):
            raise SpecError(
                f"distillation.teachers[{i}] has no weights, so it would teach at random",
                found=f"model = {other.model!r} alone",
                allowed='weights = FILE, an .onnx file, or weights = "factory" where it loads them itself',
                fix="give its weights",
            )


def _check_stored(recipe: Recipe) -> None:
    """Stored outputs are of samples as they are, from one teacher."""
    settings = recipe.distillation
    for what, asked in (
        ("augmentation", settings.augmentation.varies),
        ("adversarial", settings.adversarial is not None),
        ("teachers", bool(settings.teachers)),
    ):
        if asked:
            raise SpecError(
                "a folder of stored outputs answers for samples as they are, and alone",
                found=f"teacher.model = {recipe.teacher.model!r} and distillation.{what}",
                fix=f"remove distillation.{what}, or give the teacher itself",
            )


def _check_qat(recipe: Recipe) -> None:
    """What is trained in int8 is a torch model, on data, and all of it."""
    settings, chosen = recipe.qat, recipe.quantization
    if settings is None:
        return
    from edgekit.quantization.ranges import RANGE_METHODS

    if settings.method not in RANGE_METHODS:
        raise UnknownName("range method", settings.method, RANGE_METHODS, where="qat.method")
    if recipe.student is None and is_onnx(recipe.teacher.model):
        raise SpecError(
            "an .onnx file cannot be trained in int8",
            found=f"[qat] and teacher.model = {recipe.teacher.model!r}, which is deployed",
            allowed="a torch model",
            fix="remove [qat]: int8 is made by calibration; or give the torch factory",
        )
    if recipe.data is None:
        raise SpecError(
            "[qat] is a training, which needs data",
            found="no [data] in the recipe",
            allowed="data.train = …",
            fix="add a [data] table, or remove [qat]",
        )
    if chosen.precision not in ("auto", "int8"):
        raise SpecError(
            "[qat] trains in int8, and the recipe ships another precision",
            found=f"quantization.precision = {chosen.precision!r}",
            allowed="auto, int8",
            fix="remove one of the two",
        )
    if chosen.float_nodes:
        raise SpecError(
            "quantization.float_nodes names nodes of the float model, and the one that [qat] trains has others",
            found=", ".join(chosen.float_nodes[:5]),
            fix="remove one of the two",
        )
    varied = settings.augmentation.varies or settings.adversarial is not None
    if settings.teacher == "teacher" and is_stored(recipe.teacher.model) and varied:
        raise SpecError(
            "a folder of stored outputs answers for samples as they are",
            found=f"teacher.model = {recipe.teacher.model!r}, and qat varies the samples",
            fix='say qat.teacher = "student", or remove what varies them',
        )
    _check_samples(recipe, "qat", settings)


def _kind(teacher: Teacher) -> str:
    """What a teacher is that is no torch module."""
    return "an .onnx file" if is_onnx(teacher.model) else "a folder of stored outputs"


def _check_student(student: StudentSpec, teacher: Teacher) -> None:
    """A copy of the teacher is cut somehow and has nothing of its own; another model is not cut."""
    if is_onnx(student.model):
        raise SpecError("student.model is an .onnx file, which cannot be trained", fix="give a torch factory")
    if (is_onnx(teacher.model) or is_stored(teacher.model)) and (student.is_copy or student.take):
        raise SpecError(
            f"{_kind(teacher)} has no layers that a student could begin with",
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


def _check_pruning(recipe: Recipe) -> None:
    """There is a torch module to prune, samples to fine-tune on, and a criterion of that name."""
    pruning, teacher = recipe.pruning, recipe.teacher
    if pruning is None:
        return
    from edgekit.pruning.criteria import CRITERIA

    if pruning.criterion not in CRITERIA and ":" not in pruning.criterion:
        raise UnknownName("criterion", pruning.criterion, [*CRITERIA, "package.module:attr"], "pruning.criterion")
    if recipe.student is None and is_onnx(teacher.model):
        raise SpecError(
            "an .onnx file cannot be pruned: its layers cannot be trained",
            found=f"teacher.model = {teacher.model!r} and [pruning]",
            fix="give the model as a torch factory",
        )
    if recipe.data is None:
        raise SpecError(
            "pruning scores moves and fine-tunes on training samples",
            found="no [data] in the recipe",
            allowed="data.train = …",
            fix="add a [data] table",
        )
    _check_samples(recipe, "pruning.train", pruning.train)


def _check_samples(recipe: Recipe, key: str, settings: Training) -> None:
    """There are groups where they are drawn by, and images where they lie as images are varied."""
    if settings.group_temperature != 1 and (recipe.data is None or recipe.data.groups is None):
        raise SpecError(
            f"{key}.group_temperature draws samples by their group, and the data have no groups",
            found=f"group_temperature = {settings.group_temperature:g} without data.groups",
            allowed='data.groups = "NAME" of an array of the .npz files, or of an attribute of the Datasets',
            fix="name it, or remove group_temperature",
        )
    varied = settings.augmentation
    used = [name for name in ("flip", "crop", "erase", "cutmix") if getattr(varied, name)]
    if used and recipe.input is not None and recipe.input.model_layout == "NHWC":
        raise SpecError(
            f"{key}.augmentation.{used[0]} varies images [n, channels, height, width], and the model takes others",
            found='input.model_layout = "NHWC"',
            allowed='"NCHW", or a callable of your own: augmentation.own = "module:attr"',
            fix=f"remove augmentation.{used[0]}, or vary the images in your own callable",
        )
