"""A recipe's model walked from torch to each engine with one of its samples."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.artifact import Array, Artifact
from edgekit.backends import load_backend
from edgekit.backends.methods import check_plan
from edgekit.candidate import Task
from edgekit.catalog import load_profile, load_target
from edgekit.checking import References
from edgekit.data import Samples
from edgekit.distilling import train_models
from edgekit.drift.of_onnx import OnnxTensors, tensors_of
from edgekit.drift.of_openvino import OpenVinoTensors
from edgekit.drift.of_torch import TorchTensors
from edgekit.drift.walking import FLOAT_DB, SMALL_DB, Stage, Step, first_parting, walk
from edgekit.errors import EdgeKitError, EngineMissing, SpecError, did_you_mean
from edgekit.ingredients import seen_by, specs_of
from edgekit.making import compile_step, export, quantize_step
from edgekit.planning import asked_for, check_precision
from edgekit.progress import Progress, silent
from edgekit.quantization.schemes import Plan
from edgekit.recipe import Recipe
from edgekit.runtime import missing
from edgekit.runtime.session import explain_feeds, one_query
from edgekit.specs import Target
from edgekit.steps import locked
from edgekit.teaching import TrainedModel, import_onnx

EXAMPLES = 16  # samples of which a query is made


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """How a model drifted on its way to one engine.

    Attributes:
        plan: How it was made, in words.
        engine: The engine.
        precision: What was asked of it.
        stages: Names of its stages, in order.
        floors_db: By stage but the first, under what it has parted from the stage before.
        steps: Every tensor's way into every stage.
        first: By stage, the first tensor that parts there; empty where none does.
        notes: What was decided when it was quantised.
        failure: Why there is nothing to compare, or None.
    """

    plan: str
    engine: str
    precision: str
    stages: tuple[str, ...] = ()
    floors_db: Mapping[str, float] = field(default_factory=dict)
    steps: tuple[Step, ...] = ()
    first: Mapping[str, Step] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    failure: str | None = None


def find_drift(
    recipe: Recipe,
    base: Path,
    target: str,
    *,
    engine: str | None = None,
    precision: str | None = None,
    out: Path | None = None,
    progress: Progress = silent,
) -> list[Drift]:
    """Takes one sample through every stage of a recipe's model and compares tensor by tensor.

    The stages are torch (where the model has one), the ONNX file run by the letter, the quantised model with its
    quantisers computed in float, and what the engine compiles, as far as it lets its tensors be read: those inside a
    fused node are not there.

    Args:
        recipe: The recipe, or that of one model.
        base: Its folder.
        target: Name of a target, or its file.
        engine: The only engine; None: every one of the target's that runs here.
        precision: What is made; None: what the recipe says, int8 for ``auto``.
        out: A run's folder, of which finished steps are taken; None: a temporary one.
        progress: Told of every step.

    Returns:
        One drift an engine; one that fails has a failure.

    Raises:
        EdgeKitError: The model, its data or the target are not what this needs, or no engine came through.
    """
    goal, profile = load_target(target, (base,)), load_profile(recipe.profile, (base,))
    plans = _plans(recipe, goal, engine, precision)
    with _steps(out) as steps:
        data, _, student = train_models(recipe, base, steps, progress)
        data = seen_by(data, student.inputs)
        fp32 = _fp32(student, data.test, steps)
        nothing = References(student={}, teacher={}, metric_name=None, teacher_score=None, student_score=None)
        task = Task(
            target=goal,
            profile=profile,
            calibration=data.calibration,
            test=data.test,
            metric=None,
            references=nothing,
            progress=progress,
        )
        return _each(student, fp32, plans, task, steps)


def _plans(recipe: Recipe, target: Target, engine: str | None, precision: str | None) -> list[Plan]:
    """One plan an engine."""
    wanted = precision or recipe.quantization.precision
    wanted = "int8" if wanted == "auto" else wanted
    check_precision(target, wanted)
    plans = [asked_for(name, wanted, target, recipe.quantization) for name in _engines(target, engine)]
    if len(plans) == 1:
        check_plan(plans[0], target)  # before any training
    return plans


def _each(student: TrainedModel, fp32: Artifact, plans: Sequence[Plan], task: Task, steps: Path) -> list[Drift]:
    found: list[Drift] = []
    for plan in plans:
        try:
            check_plan(plan, task.target)
            found.append(_drift(student, fp32, plan, task, steps))
        except EdgeKitError as exc:
            if len(plans) == 1:
                raise
            failed = Drift(plan=str(plan), engine=plan.engine, precision=plan.precision, failure=str(exc))
            found.append(failed)
    if all(drift.failure for drift in found):
        raise EdgeKitError("no engine came through", found="\n".join(f"{d.plan}: {d.failure}" for d in found))
    return found


def _engines(target: Target, engine: str | None) -> Sequence[str]:
    if engine is not None and engine not in target.engines:
        raise SpecError(
            f"engine {engine!r} is no candidate of target {target.name!r}",
            found=engine,
            allowed=", ".join(target.engines),
            fix=did_you_mean(engine, target.engines),
        )
    asked = (engine,) if engine is not None else target.engines
    reasons = {name: missing(name) or load_backend(name).missing(target) for name in asked}
    found = [name for name, reason in reasons.items() if reason is None]
    if not found:
        raise EngineMissing(
            f"no engine of target {target.name!r} runs here, so nothing compiled can be looked into",
            found="; ".join(f"{name}: {reason}" for name, reason in reasons.items()),
            fix="choose another --engine or --target",
        )
    return found


@contextlib.contextmanager
def _steps(out: Path | None) -> Iterator[Path]:
    if out is not None:
        with locked(out) as steps:
            yield steps
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def _fp32(student: TrainedModel, samples: Samples, steps: Path) -> Artifact:
    if student.onnx is not None:
        return import_onnx(student, steps, specs_of(samples))
    assert student.module is not None  # a model is a module or a file
    return export(student.module, samples, steps)


def _drift(student: TrainedModel, fp32: Artifact, plan: Plan, task: Task, steps: Path) -> Drift:
    quantised = fp32
    if plan.precision != "fp32":
        dialect = plan.scheme or load_backend(plan.engine).scheme(task.target)
        quantised = quantize_step(fp32, replace(plan, scheme=dialect), task, steps)
    built = compile_step(quantised, plan.engine, task, steps)
    samples = task.test.tensors(np.arange(min(EXAMPLES, len(task.test))))
    feeds = one_query(samples, built.inputs)
    if feeds is None:
        wrong = explain_feeds({name: array[:1] for name, array in samples.items()}, built.inputs)
        raise wrong or SpecError("the samples do not fit the model", found=", ".join(map(str, built.inputs)))
    stages = [_onnx(fp32, feeds, "onnx", FLOAT_DB)]
    if student.module is not None:
        stages.insert(0, _torch(student, fp32, samples, feeds))
    floor = FLOAT_DB if plan.precision == "fp32" else SMALL_DB
    if quantised.files != fp32.files:
        stages.append(_inside(quantised, feeds, "quantised", floor, options=None))
    stages.append(_inside(built, feeds, "compiled", floor, options=built.options))
    found = walk(tensors_of(fp32.path), stages, task.progress, f"compare on {plan.engine}")
    return Drift(
        plan=str(plan),
        engine=plan.engine,
        precision=plan.precision,
        stages=tuple(stage.name for stage in stages),
        floors_db={stage.name: stage.floor_db for stage in stages[1:]},
        steps=tuple(found),
        first=first_parting(found),
        notes=quantised.notes,
    )


def _torch(student: TrainedModel, fp32: Artifact, samples: Mapping[str, Array], feeds: Mapping[str, Array]) -> Stage:
    assert student.module is not None
    # As for the export: two samples, for with one torch takes the batch for a constant.
    example = {name: array[np.arange(2) % len(array)] for name, array in samples.items()}
    reader = TorchTensors(student.module, example, feeds, [spec.name for spec in fp32.outputs])
    return Stage(name="torch", read=reader.read, floor_db=FLOAT_DB)


def _onnx(artifact: Artifact, feeds: Mapping[str, Array], name: str, floor_db: float) -> Stage:
    return Stage(name=name, read=OnnxTensors(artifact.path, feeds, optimise=False).read, floor_db=floor_db)


def _inside(
    artifact: Artifact, feeds: Mapping[str, Array], name: str, floor_db: float, *, options: Mapping[str, Any] | None
) -> Stage:
    """What the engine would open, by the letter; with its options: as the engine compiles it."""
    compiled = options is not None
    if artifact.path.suffix == ".onnx" and artifact.engine != "openvino":
        reader = OnnxTensors(artifact.path, feeds, optimise=compiled, options=options)
        return Stage(name=name, read=reader.read, floor_db=floor_db)
    inside = OpenVinoTensors(artifact.path, feeds, compiled=compiled, options=options)
    return Stage(name=name, read=inside.read, floor_db=floor_db)
