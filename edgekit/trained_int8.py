"""Training in int8 as a part of a recipe: the student is made ready for it, taught, and exported, each as a step."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from edgekit.artifact import Artifact, hash_json
from edgekit.backends import load_backend
from edgekit.candidate import Candidate
from edgekit.data import Samples
from edgekit.errors import DataError, Diverged, SpecError
from edgekit.ingredients import seen_by
from edgekit.lessons import train_student, without_labels
from edgekit.making import export_trained
from edgekit.places import host_of
from edgekit.planning import scheme_of
from edgekit.quantization.schemes import Plan, Scheme
from edgekit.recipe import Recipe
from edgekit.recipe_qat import Qat
from edgekit.shipping import Job, Run
from edgekit.specs import mismatch
from edgekit.teaching import TrainedModel

if TYPE_CHECKING:
    from torch.fx import GraphModule

DIALECT = "onnxruntime"  # its graph is what is trained, and every engine that takes trained int8 takes that file
_AT_ONCE = 32  # calibration samples


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainedInt8:
    """What a training in int8 ended in.

    Attributes:
        model: The fake-quantised network, and how it was trained.
        artifact: What became of it: ONNX in int8.
        plans: How it is deployed: one plan an engine of the target that takes it.
        calibration: Samples that the first ranges are of.
    """

    model: TrainedModel
    artifact: Artifact
    plans: tuple[Plan, ...]
    calibration: int

    @property
    def candidates(self) -> list[tuple[Plan, Artifact]]:
        """The plans with what they deploy."""
        return [(plan, self.artifact) for plan in self.plans]

    @property
    def failed(self) -> list[Candidate]:
        """None of them."""
        return []


@dataclass(frozen=True, slots=True, kw_only=True)
class DivergedInt8:
    """A training in int8 that diverged: its plans are rows of the report, and other candidates go on.

    Attributes:
        plans: How it would have been deployed.
        failure: What became of it.
    """

    plans: tuple[Plan, ...]
    failure: str

    @property
    def candidates(self) -> list[tuple[Plan, Artifact]]:
        """There is nothing to deploy."""
        return []

    @property
    def failed(self) -> list[Candidate]:
        """The plans with why they failed."""
        return [Candidate(plan=plan, failure=self.failure) for plan in self.plans]


Outcome = TrainedInt8 | DivergedInt8


def check_qat(recipe: Recipe, jobs: Sequence[Job]) -> None:
    """Refuses targets for which nothing can be trained in int8, before anything is trained.

    Raises:
        SpecError: The target has no int8, or no engine that takes what was trained.
        TrainingError: The dialect that was set by hand cannot be trained for.
    """
    if recipe.qat is None:
        return
    from edgekit.qat.preparing import require_trainable

    for job in jobs:
        takes = [engine for engine in job.target.engines if method_of(recipe.qat) in load_backend(engine).TRAINED]
        if "int8" not in job.target.precisions or not takes:
            raise SpecError(
                f"nothing can be trained in int8 for target {job.target.name!r}",
                found=f"engines {', '.join(job.target.engines)}; precisions {', '.join(job.target.precisions)}",
                allowed="onnxruntime or openvino among its engines, and int8 among its precisions",
                fix="remove [qat], or name another target",
            )
        if wanted(recipe, job):
            require_trainable(_scheme(job), recipe.qat.weight_bits)


def wanted(recipe: Recipe, job: Job) -> bool:
    """Whether a target's candidates have one that is trained in int8."""
    precision = job.quantization.precision
    if recipe.qat is None or precision not in ("auto", "int8"):
        return False
    if precision == "auto" and mismatch(job.target, host_of(job.place)) is not None:
        return False  # fp32 ships there whatever there is beside it
    return bool(_engines(recipe.qat, job))


def method_of(settings: Qat) -> str:
    """The method of a plan that was trained so."""
    return "qat" if settings.weight_bits == 8 else "qat-w4"


def train_int8(job: Job, run: Run, base: Path) -> Outcome | None:
    """Trains the student of a recipe as it will compute in int8 on a target; None where that is not asked for.

    It begins with the ranges of static int8. Those weights are scored as an epoch 0, so what is kept does no worse on
    the validation samples than what it began with.

    Args:
        job: The target.
        run: The run's models and data.
        base: The recipe's folder.

    Raises:
        DataError: There are no calibration samples, or samples that cannot be trained on.
        TrainingError: The student cannot be made ready, or the training cannot begin.
        EdgeKitError: The outcome cannot be exported.
    """
    settings = run.recipe.qat
    if settings is None or not wanted(run.recipe, job):
        return None
    seen = seen_by(run.data, run.student.inputs)
    if seen.calibration is None:
        raise DataError("qat needs calibration samples", found="no data", fix="add a [data] table")
    scheme = _scheme(job)
    run.progress("prepare for training in int8", 0, 1)
    ready = _ready(run.student, scheme, seen.calibration, settings)
    run.progress("prepare for training in int8", 1, 1)
    teacher = run.student if settings.teacher == "student" else run.teacher
    own = run.recipe.model_copy(update={"distillation": without_labels(settings, run.data)})
    plans = tuple(
        Plan(engine=engine, precision="int8", method=method_of(settings), scheme=scheme)
        for engine in _engines(settings, job)
    )
    try:
        model = train_student(
            own, ready, [teacher], run.data, base, run.steps, run.progress, "qat", score_first=True, hold_zeros=True
        )
    except Diverged as exc:
        return DivergedInt8(plans=plans, failure=str(exc))
    artifact = export_trained(cast("GraphModule", model.module), model.sha256, seen.test, run.steps)
    return TrainedInt8(model=model, artifact=artifact, plans=plans, calibration=len(seen.calibration))


def _engines(settings: Qat, job: Job) -> list[str]:
    return [engine for engine in job.engines if method_of(settings) in load_backend(engine).TRAINED]


def _scheme(job: Job) -> Scheme:
    """The dialect that is trained for, with the fields that the recipe sets by hand."""
    return scheme_of(DIALECT, job.target, job.quantization) or load_backend(DIALECT).scheme(job.target)


def _ready(student: TrainedModel, scheme: Scheme, calibration: Samples, settings: Qat) -> TrainedModel:
    """The student with fake-quantisers, the same each time."""
    from edgekit.models import count_parameters
    from edgekit.qat.preparing import prepare_qat

    assert student.module is not None  # roles see to it
    size = 1 if settings.method == "average" else _AT_ONCE  # an average is one of batches, as in static int8
    module = prepare_qat(
        student.module,
        scheme,
        calibration.batches(size),
        method=settings.method,
        weight_bits=settings.weight_bits,
    )
    made_of = [student.sha256, scheme, settings.method, settings.weight_bits, calibration.fingerprint()]
    return dataclasses.replace(
        student,
        module=module,
        sha256=hash_json(["qat", *made_of]),
        parameters=count_parameters(module),
        training=None,
        notes=(),
    )


def reported(jobs: Sequence[Job], made: Sequence[Outcome | None], settings: Qat | None) -> dict[str, Any]:
    """How the students were trained in int8, as a report keeps it: under ``qat``, or nothing where none was."""
    found: dict[str, dict[str, Any]] = {}
    for job, one in zip(jobs, made, strict=True):
        if not isinstance(one, TrainedInt8) or settings is None:
            continue
        entry = found.setdefault(one.model.sha256, {"targets": [], **_entry(one, settings)})
        entry["targets"].append(job.target.name)
    return {"qat": list(found.values())} if found else {}


def untrained(job: Job, recipe: Recipe) -> str:
    """Why nothing was trained in int8 for a target although the recipe says how: the end of a sentence, or nothing."""
    if recipe.qat is None or wanted(recipe, job):
        return ""
    if job.quantization.precision not in ("auto", "int8"):
        why = f"{job.quantization.precision} was asked for"
    elif not _engines(recipe.qat, job):
        why = f"{', '.join(job.engines)} takes no int8 that was trained"
    else:
        why = 'auto does not choose int8 that cannot be measured; quantization.precision = "int8" does'
    return f"; nothing was trained in int8: {why}"


def _entry(one: TrainedInt8, settings: Qat) -> dict[str, Any]:
    training = one.model.training or {}
    scheme = one.plans[0].scheme
    kept = training["best_epoch"]
    return {
        "said": _said(training, settings),
        "scheme": scheme.name if scheme else "",
        **{key: getattr(settings, key) for key in ("weight_bits", "method", "teacher", "learning_rate")},
        "calibration": one.calibration,
        **{key: training[key] for key in ("epochs", "best_epoch", "first_score", "scores", "losses")},
        **{key: training[key] for key in ("seconds", "reused")},
        "score": training["scores"][kept - 1] if kept else training["first_score"],
        "sha256": one.artifact.sha256,
        "size_mb": one.artifact.size_bytes / 1e6,
    }


def _said(training: Mapping[str, Any], settings: Qat) -> str:
    """How a training in int8 went, in a sentence."""
    epochs, kept, first = training["epochs"], training["best_epoch"], training["first_score"]
    taught = "its float self" if settings.teacher == "student" else "the teacher"
    said = f"trained in int8 for {epochs} epoch{'' if epochs == 1 else 's'} with {settings.weight_bits}-bit weights"
    if not kept:
        best = max(training["scores"])
        return (
            f"{said}, taught by {taught}, in vain: no epoch did better on the validation samples than what it began"
            f" with ({first:.1%}; the best epoch {best:.1%}), which was kept; try a lower qat.learning_rate"
        )
    score = training["scores"][kept - 1]
    return f"{said}, taught by {taught}: {score:.1%} on the validation samples after epoch {kept}, {first:.1%} before"
