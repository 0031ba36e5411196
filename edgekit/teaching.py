"""A recipe's models, made and checked before any work; files from elsewhere are taken in."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit import __version__
from edgekit._paths import expand_path
from edgekit.artifact import (
    Array,
    Artifact,
    TensorSpec,
    hash_files,
    hash_json,
    load_artifact,
    save_artifact,
)
from edgekit.data import Samples
from edgekit.errors import EngineError, EngineMissing, ModelError
from edgekit.ingredients import Ingredients, shaped
from edgekit.making import tool_versions
from edgekit.models import class_sources, count_parameters, is_onnx, is_stored, load_module, module_identity
from edgekit.recipe import Recipe
from edgekit.recipe_training import ModelSpec
from edgekit.runtime import missing
from edgekit.steps import run_step

if TYPE_CHECKING:
    from torch.nn import Module

REFERENCE_ENGINES = ("onnxruntime", "openvino")
WHOLE_QUERIES = "the model has no batch: one sample is one whole query, and axis 0 of every input and output is its own"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainedModel:
    """A module, or a model from elsewhere, ready to be deployed.

    Attributes:
        name: As the recipe names it.
        module: The torch module; of an ``.onnx`` file what answers for it where it teaches, else None.
        onnx: Path of the ``.onnx`` file; None for a module.
        sha256: Identity.
        parameters: Count; None for an ``.onnx`` file.
        training: How it was trained, as JSON; None when it was not.
        notes: How it began, where it was made of another.
        inputs: Arrays of the data that it takes; empty: all.
    """

    name: str
    module: Module | None = None
    onnx: Path | None = None
    sha256: str
    parameters: int | None = None
    training: Mapping[str, Any] | None = field(default=None)
    notes: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()


def load_models(recipe: Recipe, base: Path) -> tuple[TrainedModel, TrainedModel | None]:
    """Makes the teacher and the torch student of a recipe, both before either is trained.

    So a mistake in the student is told at once, and what identifies them does not hang on what training imports. A
    student that is a copy of the teacher is None as yet: :func:`edgekit.beginning.begin_student` makes it.

    Raises:
        ModelError: One cannot be made, or its weights do not fit.
    """
    teacher = _teaching_model("teacher", recipe.teacher, recipe.seed, base)
    return teacher, load_student(recipe, base, recipe.seed)


def load_student(recipe: Recipe, base: Path, seed: int) -> TrainedModel | None:
    """Makes the torch student of a recipe; None where there is none, or it is a copy of the teacher."""
    spec = recipe.student
    return None if spec is None or spec.is_copy else torch_model("student", spec, seed, base)


def load_others(recipe: Recipe, base: Path) -> list[TrainedModel]:
    """Makes the further teachers of a recipe.

    Raises:
        ModelError: One cannot be made, or its weights do not fit.
    """
    specs = recipe.distillation.teachers
    return [_teaching_model(f"distillation.teachers[{i}]", spec, recipe.seed, base) for i, spec in enumerate(specs)]


def _teaching_model(role: str, spec: ModelSpec, seed: int, base: Path) -> TrainedModel:
    if is_stored(spec.model):
        from edgekit.distillation.outputs import StoredTeacher

        folder = expand_path(spec.model, base=base, where=f"{role}.model", error=ModelError)
        stored = StoredTeacher(folder)
        return TrainedModel(name=spec.model, module=stored, sha256=hash_json(hash_files(folder, sorted(stored.files))))
    if not is_onnx(spec.model):
        return torch_model(role, spec, seed, base)
    from edgekit.distillation.onnx_teacher import OnnxTeacher

    model = onnx_model(spec, base, where=role)
    assert model.onnx is not None  # it is a file
    return taking(dataclasses.replace(model, module=OnnxTeacher(model.onnx)), spec.inputs)


def bind_stored(teacher: TrainedModel, data: Ingredients) -> None:
    """Ties a teacher that is only stored outputs to the samples they are of; any other teacher needs nothing.

    Raises:
        DataError: There are not as many outputs as samples.
    """
    if not is_stored(teacher.name) or data.training is None:
        return
    from edgekit.distillation.outputs import STORED, StoredTeacher

    assert isinstance(teacher.module, StoredTeacher)  # as it was loaded
    for name, samples in zip(STORED, (data.training, data.test), strict=True):
        teacher.module.bind(name, samples)


def torch_model(role: str, spec: ModelSpec, seed: int, base: Path) -> TrainedModel:
    """Makes a torch model of a recipe.

    Raises:
        ModelError: It cannot be made, or its weights do not fit.
    """
    module = load_module(spec, base=base, seed=seed, where=role)
    model = TrainedModel(
        name=spec.model,
        module=module,
        sha256=hash_json([module_identity(module, spec, base), class_sources(module)]),
        parameters=count_parameters(module),
    )
    return taking(model, spec.inputs)


def taking(model: TrainedModel, names: tuple[str, ...]) -> TrainedModel:
    """A model that takes these arrays of the data alone; itself where there are none."""
    if not names:
        return model
    from edgekit.distillation.forward import take_inputs

    assert model.module is not None  # only modules are told what to take
    take_inputs(model.module, names)
    return dataclasses.replace(model, inputs=names, sha256=hash_json([model.sha256, names]))


def onnx_model(spec: ModelSpec, base: Path, where: str = "teacher") -> TrainedModel:
    """Takes an ``.onnx`` file as the model to deploy.

    Raises:
        ModelError: It is missing or not valid ONNX.
    """
    from edgekit.conversion.clean import describe_onnx, load_onnx

    path = expand_path(spec.model, base=base, where=f"{where}.model", error=ModelError)
    load_onnx(path)
    return TrainedModel(name=path.name, onnx=path, sha256=describe_onnx(path, precision="fp32").sha256)


def onnx_inputs(model: TrainedModel, shapes: Mapping[str, str]) -> tuple[TensorSpec, ...]:
    """What one sample of an ``.onnx`` file's inputs is, with the sizes of ``[shapes]`` filled in.

    Returns:
        Input specs; axis 0 is the batch or, where the model has none, the sample's own, of size 1.

    Raises:
        SpecError: A shape is given for no input of the model, or contradicts it.
        ModelError: The model has no inputs, or one that is no tensor.
    """
    import onnx

    from edgekit.conversion.clean import input_specs
    from edgekit.conversion.queries import has_batch

    path = model.onnx
    assert path is not None  # only called for files
    proto = onnx.load(str(path), load_external_data=False)
    specs = input_specs(proto)
    if not specs:
        raise ModelError(f"{path}: the model has no inputs", allowed="a model that computes something of its inputs")
    return shaped(specs, shapes, batched=has_batch(proto, path.parent))


def import_onnx(model: TrainedModel, steps: Path, sampled: Sequence[TensorSpec]) -> Artifact:
    """Takes an ``.onnx`` file in as the fp32 artifact, with its external data beside it.

    Exporters note source paths in the file; none of them travels on.

    Args:
        model: The file.
        steps: Root of the step folders.
        sampled: One sample of every input, whose sizes the open dimensions get; see
            :func:`edgekit.conversion.queries.fit_to_samples`.

    Raises:
        DataError: The samples do not fit together.
        ModelError: The size of an output hangs on the values of the inputs.
    """
    import onnx

    from edgekit.conversion.clean import describe_onnx, strip_metadata
    from edgekit.conversion.queries import fit_to_samples
    from edgekit.quantization.groups import name_nodes

    path = model.onnx
    assert path is not None  # only called for files
    described = describe_onnx(path, precision="fp32")

    def make(folder: Path) -> None:
        for name in described.files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            if name != described.model:
                shutil.copyfile(path.parent / name, folder / name)
        proto = onnx.load(str(path), load_external_data=False)
        strip_metadata(proto)
        name_nodes(proto)
        whole = fit_to_samples(proto, sampled, path.parent)
        onnx.save(proto, str(folder / described.model))
        fp32 = describe_onnx(folder / described.model, precision="fp32")
        save_artifact(dataclasses.replace(fp32, notes=(WHOLE_QUERIES,) if whole else ()))

    key = {"edgekit": __version__, "tools": tool_versions("onnx"), "files": described.files, "sampled": sampled}
    return load_artifact(run_step(steps, "import", key, make))


def run_reference(model: TrainedModel, artifact: Artifact | None, samples: Samples) -> dict[str, Array]:
    """Outputs of a model on samples: the torch module itself, or an ``.onnx`` file in fp32."""
    if model.module is not None:
        from edgekit.distillation.outputs import outputs_of

        return dict(outputs_of(model.module, samples))
    assert artifact is not None  # a model is a module or an imported file
    return _run_onnx(artifact, samples)


def _run_onnx(artifact: Artifact, samples: Samples) -> dict[str, Array]:
    """Outputs on the first engine that takes the model.

    Raises:
        EngineError: None does; what the first one says.
    """
    import onnx

    from edgekit.apart import opened_apart
    from edgekit.checking import run_samples
    from edgekit.conversion.clean import all_nodes

    graph = onnx.load(str(artifact.path), load_external_data=False).graph
    # What is quantised by the batch it comes in gives each sample something else in another batch.
    alone = any("DynamicQuantize" in node.op_type for node in all_nodes(graph))
    refused: list[EngineError] = []
    for engine in REFERENCE_ENGINES:
        if missing(engine) is not None:
            continue
        try:
            with opened_apart(dataclasses.replace(artifact, engine=engine)) as session:
                return run_samples(_one_by_one(session.run) if alone else session.run, samples)
        except EngineError as exc:
            refused.append(exc)
    if not refused:
        raise EngineMissing("no engine to run the model with", allowed=" or ".join(REFERENCE_ENGINES))
    first, *others = refused
    raise EngineError(
        first.problem,
        found="\n".join(str(part) for part in (first.found, *(other.problem for other in others)) if part),
        allowed=first.allowed,
        fix="replace the operator in the model: no engine here takes it",
    ) from first


def _one_by_one(run: Callable[[Mapping[str, Array]], dict[str, Array]]) -> Callable[[Mapping[str, Array]], Any]:
    def each(feeds: Mapping[str, Array]) -> dict[str, Array]:
        count = len(next(iter(feeds.values())))
        rows = [run({name: array[row : row + 1] for name, array in feeds.items()}) for row in range(count)]
        return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}

    return each
