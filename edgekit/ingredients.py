"""From a recipe to loaded data and trained models; every training run is a resumable step."""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit import __version__
from edgekit._paths import expand_path
from edgekit.artifact import (
    Array,
    Artifact,
    Parent,
    TensorSpec,
    load_artifact,
    read_json,
    save_artifact,
    write_json,
)
from edgekit.data import (
    Samples,
    check_disjoint,
    draw_calibration,
    load_samples,
    random_samples,
    renamed,
    split_validation,
)
from edgekit.errors import DataError, ModelError, SpecError
from edgekit.metrics import Metric, load_metric
from edgekit.models import (
    count_parameters,
    is_onnx,
    load_module,
    load_weights,
    module_identity,
    replace_head,
    save_weights,
)
from edgekit.progress import Progress
from edgekit.recipe import ModelSpec, Recipe
from edgekit.steps import run_step

if TYPE_CHECKING:
    from torch.nn import Module

DTYPES = {
    "f32": "float32",
    "f16": "float16",
    "i64": "int64",
    "i32": "int32",
    "i8": "int8",
    "u8": "uint8",
    "bool": "bool",
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ingredients:
    """A recipe's data.

    Attributes:
        train: Training samples without the validation ones; None without data.
        validation: Samples that choose the best epoch.
        calibration: Samples that calibrate a quantised model.
        test: Samples on which numbers and score are judged; random ones without data.
        metric: The task metric; None without labels.
        metric_name: Its name.
        labels: Class names.
        parents: Where they came from, for manifests.
    """

    train: Samples | None
    validation: Samples | None
    calibration: Samples | None
    test: Samples
    metric: Metric | None
    metric_name: str | None
    labels: tuple[str, ...]
    parents: tuple[Parent, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainedModel:
    """A module, or a model from elsewhere, ready to be deployed.

    Attributes:
        name: As the recipe names it.
        module: The torch module; None for an ``.onnx`` file.
        onnx: Path of the ``.onnx`` file; None for a module.
        sha256: Identity.
        parameters: Count; None for an ``.onnx`` file.
        training: How it was trained, as JSON; None when it was not.
    """

    name: str
    module: Module | None = None
    onnx: Path | None = None
    sha256: str
    parameters: int | None = None
    training: Mapping[str, Any] | None = field(default=None)


def load_data(recipe: Recipe, base: Path, specs: tuple[TensorSpec, ...] | None) -> Ingredients:
    """Opens the recipe's data, splits it, and proves that nothing of the test set is trained on.

    Args:
        recipe: The recipe.
        base: Its folder.
        specs: Input specs of an ``.onnx`` model, or of ``[shapes]``; None when only the data say.

    Raises:
        DataError: Samples are missing, mis-shaped, or shared between training and test.
    """
    if recipe.data is None:
        if specs is None:
            raise SpecError(
                "there is no data and no input shape, so nothing can be run",
                found="neither [data] nor [shapes] in the recipe",
                fix="give data, or the shape: --input NAME=f32[1,3,224,224]",
            )
        test = random_samples(specs, seed=recipe.seed)
        return Ingredients(
            train=None,
            validation=None,
            calibration=None,
            test=test,
            metric=None,
            metric_name=None,
            labels=(),
            parents=(),
        )
    pre = recipe.input.preprocessing() if recipe.input else None
    single = specs[0].name if specs and len(specs) == 1 else None

    def opened(spec: str, key: str, labels: tuple[str, ...] | None) -> Samples:
        samples = load_samples(spec, base=base, preprocessing=pre, labels=labels, where=f"data.{key}")
        return renamed(samples, single) if single else samples

    train = opened(recipe.data.train, "train", recipe.data.labels)
    labels = recipe.data.labels or train.classes
    parents = [Parent(kind="data", name="train", sha256=train.fingerprint())]
    kept, validation = split_validation(train, recipe.data.validation, recipe.seed)
    calibration = draw_calibration(train, recipe.data.calibration, recipe.seed)
    if recipe.data.test is None:
        # Numbers can be proven on any sample; accuracy may only be judged on held-out ones.
        test = dataclasses.replace(validation, targets=None)
    else:
        test = opened(recipe.data.test, "test", labels or None)
        check_disjoint(train, test, "training")
        parents.append(Parent(kind="data", name="test", sha256=test.fingerprint()))
    labelled = test.targets is not None
    return Ingredients(
        train=kept,
        validation=validation,
        calibration=calibration,
        test=test,
        metric=load_metric(recipe.metric, base, "metric") if labelled else None,
        metric_name=recipe.metric if labelled else None,
        labels=labels,
        parents=tuple(parents),
    )


def parse_shapes(shapes: Mapping[str, str]) -> tuple[TensorSpec, ...] | None:
    """Input specs from ``{"input": "f32[1,3,224,224]"}``; axis 0 is the batch. None when there are none.

    Raises:
        SpecError: A text is not a dtype and a shape.
    """
    specs = []
    for name, text in shapes.items():
        match = re.fullmatch(r"(\w+)\[\s*(\d+(?:\s*,\s*\d+)*)\s*\]", text.strip())
        if match is None or match.group(1) not in DTYPES:
            raise SpecError(
                f"input {name!r}: not a shape",
                found=repr(text),
                allowed=f"DTYPE[N,…] with DTYPE one of {', '.join(DTYPES)}, e.g. f32[1,3,224,224]",
            )
        dims = tuple(int(d) for d in match.group(2).split(","))
        specs.append(TensorSpec(name=name, dtype=DTYPES[match.group(1)], shape=("batch", *dims[1:])))
    return tuple(specs) or None


def make_teacher(recipe: Recipe, base: Path, data: Ingredients, steps: Path, progress: Progress) -> TrainedModel:
    """Loads the teacher, and trains or fine-tunes it where the recipe says so."""
    spec, settings = recipe.teacher, recipe.teacher.train
    module = load_module(spec, base=base, seed=recipe.seed, where="teacher")
    if settings is None:
        if spec.weights is None and recipe.data is not None and data.metric is not None:
            raise SpecError(
                "the teacher has neither weights nor training",
                found=f"teacher.model = {spec.model!r} alone: its weights would be random",
                allowed="teacher.weights = FILE, or a [teacher.train] table",
                fix="add one of the two",
            )
        return _trained(spec.model, module, module_identity(module, spec, base), None)
    from edgekit.distillation.trainer import train

    samples, validation = _training_data(data)

    def fit(target: Module) -> object:
        return train(target, samples, validation, settings, seed=recipe.seed, progress=progress, name="teacher")

    return _train_step("teacher", spec, module, base, settings, recipe, data, steps, fit, None)


def make_student(
    recipe: Recipe, base: Path, teacher: TrainedModel, data: Ingredients, steps: Path, progress: Progress
) -> TrainedModel:
    """Distils the student from the teacher; without a student in the recipe, the teacher itself goes on."""
    spec = recipe.student
    if spec is None:
        return teacher
    if is_onnx(spec.model):
        raise SpecError("student.model is an .onnx file, which cannot be trained", fix="give a torch factory")
    if teacher.module is None:
        raise SpecError(
            "an .onnx teacher cannot teach in this version",
            found=f"teacher.model = {teacher.name!r} and a [student] table",
            fix="give the teacher as a torch factory, or drop [student] to deploy the .onnx itself",
        )
    from edgekit.distillation.students import distill

    samples, validation = _training_data(data)
    source, settings = teacher.module, recipe.distillation
    module = load_module(spec, base=base, seed=recipe.seed, where="student")

    def fit(target: Module) -> object:
        return distill(source, target, samples, validation, settings, seed=recipe.seed, progress=progress)[1]

    return _train_step("student", spec, module, base, settings, recipe, data, steps, fit, teacher.sha256)


def _train_step(
    name: str,
    spec: ModelSpec,
    module: Module,
    base: Path,
    settings: Any,
    recipe: Recipe,
    data: Ingredients,
    steps: Path,
    fit: Callable[[Module], object],
    teacher: str | None,
) -> TrainedModel:
    """Trains ``module`` as a step: its weights and history lie in the step's folder."""
    import torch

    key = {
        "edgekit": __version__,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "module": module_identity(module, spec, base),
        "settings": settings.model_dump(),
        "seed": recipe.seed,
        "validation": recipe.data.validation if recipe.data else None,
        "data": [parent.sha256 for parent in data.parents if parent.name == "train"],
        "teacher": teacher,
    }
    fresh = False

    def make(folder: Path) -> None:
        nonlocal fresh
        history = fit(module)
        save_weights(module, folder / "model.safetensors")
        write_json(folder / "history.json", history)
        fresh = True

    folder = run_step(steps, name, key, make)
    if not fresh:
        if settings.head is not None:
            replace_head(module, settings.head.module, settings.head.classes, recipe.seed)
        load_weights(module, folder / "model.safetensors", where=name)
    history = read_json(folder / "history.json") | {"reused": not fresh}
    return _trained(spec.model, module.eval(), module_identity(module, spec, base), history)


def _trained(name: str, module: Module, identity: str, training: Mapping[str, Any] | None) -> TrainedModel:
    return TrainedModel(
        name=name, module=module, sha256=identity, parameters=count_parameters(module), training=training
    )


def onnx_model(spec: ModelSpec, base: Path) -> TrainedModel:
    """Takes an ``.onnx`` file as the model to deploy.

    Raises:
        ModelError: It is missing or not valid ONNX.
        SpecError: Arguments or weights are given with it.
    """
    from edgekit.conversion.clean import describe_onnx, load_onnx

    if spec.args or spec.weights:
        raise SpecError(
            "an .onnx model takes neither args nor weights", found=f"model = {spec.model!r}", fix="remove them"
        )
    path = expand_path(spec.model, base=base, where="teacher.model", error=ModelError)
    load_onnx(path)
    return TrainedModel(name=path.name, onnx=path, sha256=describe_onnx(path, precision="fp32").sha256)


def import_onnx(model: TrainedModel, steps: Path) -> Artifact:
    """Takes an ``.onnx`` file in as the fp32 artifact, with its external data beside it."""
    from edgekit.conversion.clean import describe_onnx

    path = model.onnx
    assert path is not None  # only called for files
    described = describe_onnx(path, precision="fp32")

    def make(folder: Path) -> None:
        for name in described.files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path.parent / name, folder / name)
        save_artifact(dataclasses.replace(described, folder=folder))

    return load_artifact(run_step(steps, "import", {"edgekit": __version__, "files": described.files}, make))


def _training_data(data: Ingredients) -> tuple[Samples, Samples]:
    if data.train is None or data.validation is None:
        raise DataError("training needs data", found="no [data] in the recipe", fix="add data.train")
    return data.train, data.validation


def run_reference(model: TrainedModel, artifact: Artifact | None, samples: Samples) -> dict[str, Array]:
    """Outputs of a model on samples: the torch module itself, or an ``.onnx`` file in fp32."""
    if model.module is not None:
        from edgekit.distillation.forward import forward

        return forward(model.module, samples)
    assert artifact is not None  # a model is a module or an imported file
    from edgekit.checking import run_samples
    from edgekit.runtime import missing, open_artifact

    engine = "onnxruntime" if missing("onnxruntime") is None else "openvino"
    session = open_artifact(dataclasses.replace(artifact, engine=engine))
    try:
        return run_samples(session, samples)
    finally:
        session.close()
