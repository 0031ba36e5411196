"""What each step from the teacher to what ships gained and lost: size, latency and score, side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.artifact import Artifact
from edgekit.candidate import Candidate, Task
from edgekit.choosing import ratio_in_turns
from edgekit.errors import EdgeKitError
from edgekit.ingredients import specs_of
from edgekit.making import compile_step, export, measure_step
from edgekit.profiling.load import LoadSpec
from edgekit.profiling.measured import Measured
from edgekit.profiling.statistics import bounds_or_stretches, percentile
from edgekit.references import score_references
from edgekit.shipping import Run
from edgekit.teaching import TrainedModel, import_onnx

# Enough for medians that tell a step's gain; what ships has been measured at length already.
SECONDS = 1.0
MOST_SECONDS = 20.0
COUNT = 30
FILLED = "fp32 without its zeros"
TRAINED = "int8 after training"
FEWEST_ZEROS = 0.1  # share of the weights from which it is asked what they gain


def measure_gains(
    run: Run, task: Task, shipped: Candidate, candidates: Sequence[Candidate] = ()
) -> list[dict[str, Any]]:
    """Teacher, fp32 student and what ships, compiled for the engine that ships and measured in the same turns.

    Where int8 was trained, it and the int8 of calibration are both there, whichever ships.

    A step that cannot be made or measured has None for what is not known, and a note that says why.

    Args:
        run: The run's models.
        task: The target, its profile and samples.
        shipped: What ships.
        candidates: What else there was.
    """
    assert shipped.artifact is not None, "best() returns judged candidates only"
    assert shipped.proof is not None
    proof, engine = shipped.proof, shipped.plan.engine
    made: list[tuple[str, Artifact | None, float | None, int | None, str]] = []
    student = run.student is not run.teacher
    artifact, note = _teacher_artifact(run, task, engine)
    made.append(("teacher", artifact, proof.teacher, run.teacher.parameters, note))
    if run.unpruned is not None and run.unpruned is not run.teacher:
        artifact, score, note = _unpruned(run, run.unpruned, task, engine)
        made.append(("unpruned student", artifact, score, run.unpruned.parameters, note))
    if student and shipped.plan.precision != "fp32":
        artifact, note = _compiled(run.fp32, engine, task, run.steps)
        made.append(("fp32 student", artifact, proof.student, run.student.parameters, note))
    dense = _without_zeros(run, task, engine)
    if dense is not None:
        made.append((FILLED, dense[0], None, run.student.parameters, dense[1]))
    made += [(name, a, score, run.student.parameters, "") for name, a, score in _beside(shipped, candidates)]
    if student or shipped.plan.precision != "fp32":
        name = TRAINED if shipped.plan.trained else str(shipped.plan)
        made.append((name, shipped.artifact, proof.artifact, run.student.parameters, ""))
    measured = _measured([a for _, a, *_ in made if a is not None], task, run.steps)
    zeros = _gained_by_zeros(run, task, engine, dense[0], measured) if dense is not None and dense[0] else ""
    return [
        {
            "name": name,
            "engine": engine,
            "size_mb": artifact.size_bytes / 1e6 if artifact else None,
            "score": score,
            "parameters": parameters,
            **_latency(measured.get(artifact.sha256) if artifact else None, note or task.not_measured),
            **({"note": zeros} if name == FILLED and zeros else {}),
        }
        for name, artifact, score, parameters, note in made
    ]


def _beside(shipped: Candidate, candidates: Sequence[Candidate]) -> list[tuple[str, Artifact, float | None]]:
    """Of int8 that was trained and int8 that was calibrated for the engine that ships, those that do not ship."""
    int8 = [c for c in candidates if c.plan.precision == "int8" and c.plan.engine == shipped.plan.engine]
    calibrated, trained = ([c for c in int8 if c.plan.trained is kind] for kind in (False, True))
    if not trained:
        return []
    both = [*(() if shipped in calibrated else calibrated[:1]), *trained]
    return [
        (TRAINED if c.plan.trained else str(c.plan), c.artifact, c.proof.artifact)
        for c in both
        if c is not shipped and c.artifact is not None and c.proof is not None and not c.failure
    ]


def _without_zeros(run: Run, task: Task, engine: str) -> tuple[Artifact | None, str] | None:
    """What ships in fp32, with other weights where it has zeros; None where it has next to none."""
    if run.student.module is None:
        return None
    from edgekit.pruning.masks import filled, sparsity_of

    if sparsity_of(run.student.module).share < FEWEST_ZEROS:
        return None
    try:
        fp32 = export(filled(run.student.module), task.examples, run.steps)
    except EdgeKitError as exc:
        return None, _first_line(exc)
    return _compiled(fp32, engine, task, run.steps)


def _gained_by_zeros(run: Run, task: Task, engine: str, dense: Artifact, measured: Mapping[str, Measured]) -> str:
    """Whether an engine gains something from zeros, plainly; nothing where it was not measured."""
    sparse, _ = _compiled(run.fp32, engine, task, run.steps)
    if sparse is None or not {dense.sha256, sparse.sha256} <= set(measured):
        return ""
    ratio = ratio_in_turns(measured[dense.sha256], measured[sparse.sha256], sides=len(measured))
    if ratio is None:
        return f"too few turns to tell whether {engine} gains anything from zeros"
    said = f"{ratio.ratio:.2f} [{ratio.low:.2f}, {ratio.high:.2f}] of the time without them"
    if ratio.high < 1:
        return f"zeros make it faster on {engine}: {said}"
    return f"{engine} is not shown to gain anything from zeros: {said}"


def _unpruned(run: Run, model: TrainedModel, task: Task, engine: str) -> tuple[Artifact | None, float | None, str]:
    """The student before it was pruned, with its score on the test samples."""
    assert model.module is not None  # only modules are pruned
    try:
        fp32 = export(model.module, task.examples, run.steps)
    except EdgeKitError as exc:
        return None, None, _first_line(exc)
    known = score_references(run.teacher, model, fp32, run.data, run.steps, run.progress).student_score
    artifact, note = _compiled(fp32, engine, task, run.steps)
    return artifact, None if known is None else float(np.mean(known)), note


def _teacher_artifact(run: Run, task: Task, engine: str) -> tuple[Artifact | None, str]:
    if run.student is run.teacher:
        return _compiled(run.fp32, engine, task, run.steps)
    if run.teacher.inputs != run.student.inputs:
        return None, f"it takes other inputs than what ships: {', '.join(run.teacher.inputs) or 'all'}"
    try:
        fp32 = _cross(run.teacher, task, run.steps)
    except EdgeKitError as exc:
        return None, _first_line(exc)
    return _compiled(fp32, engine, task, run.steps)


def _cross(teacher: TrainedModel, task: Task, steps: Path) -> Artifact:
    if teacher.onnx is not None:
        return import_onnx(teacher, steps, specs_of(task.examples))
    assert teacher.module is not None  # a model is a module or a file
    return export(teacher.module, task.examples, steps)


def _compiled(fp32: Artifact, engine: str, task: Task, steps: Path) -> tuple[Artifact | None, str]:
    try:
        return compile_step(fp32, engine, task, steps), ""
    except EdgeKitError as exc:
        return None, _first_line(exc)


def _measured(artifacts: list[Artifact], task: Task, steps: Path) -> dict[str, Measured]:
    if task.not_measured is not None:
        return {}
    load = LoadSpec(
        scenario=task.profile.load.scenario,
        batch=task.profile.load.batch,
        min_seconds=SECONDS,
        max_seconds=MOST_SECONDS,
        min_count=COUNT,
        percentiles=(),
        cold_loads=1,
    )
    return {result.artifact_sha256: result for result in measure_step(artifacts, task, steps, load)}


def _latency(measured: Measured | None, note: str | None) -> dict[str, Any]:
    if measured is None or measured.status != "ok":
        reason = _first_line(measured.reason) if measured and measured.reason else note
        return {"p50_ms": None, "p50_low_ms": None, "p50_high_ms": None, "note": reason or "not measured"}
    bounds = bounds_or_stretches(measured.application_ms, 50.0)
    return {
        "p50_ms": percentile(measured.application_ms, 50.0),
        "p50_low_ms": bounds.lower_ms,
        "p50_high_ms": bounds.upper_ms,
        "note": note or "",
    }


def _first_line(error: object) -> str:
    return str(error).splitlines()[0]
