"""The line for a recipe: from a teacher to one proven bundle a target, resumable step by step."""

from __future__ import annotations

import datetime
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgekit import __version__
from edgekit.artifact import Artifact, hash_json, to_json, write_json
from edgekit.backends import load_backend
from edgekit.bundle import check_replaceable
from edgekit.candidate import Candidate, Task, try_plans
from edgekit.catalog import load_profile, load_target
from edgekit.choosing import best
from edgekit.disk import whole
from edgekit.distilling import train_models
from edgekit.errors import DataError, EngineMissing, SpecError, did_you_mean
from edgekit.gains import measure_gains
from edgekit.ingredients import Ingredients, seen_by, specs_of
from edgekit.keeping import kept_of
from edgekit.making import CALIBRATION_FIX, export, tool_versions
from edgekit.planning import check_names, check_precision, plans_for
from edgekit.processing import as_asked, as_fed, check_processing, in_graph_of, in_numpy, postprocessing_of
from edgekit.profiling.host import this_host
from edgekit.progress import Progress, silent
from edgekit.recipe import Quantization, Recipe
from edgekit.references import score_references, trial_samples
from edgekit.reporting.html import to_html
from edgekit.reporting.markdown import to_markdown
from edgekit.reporting.model import REPORT_SCHEMA_VERSION
from edgekit.reporting.report import REPORT_HTML, REPORT_JSON, REPORT_MD, target_report
from edgekit.rivals import settle
from edgekit.runtime import engine_version, missing
from edgekit.searching import Trial, search
from edgekit.shipping import Job, Run, exit_code_of, ship, why_it_ships
from edgekit.shrinking.checks import check_budget, check_pruning
from edgekit.shrinking.lines import train_line
from edgekit.shrinking.loop import prune_student
from edgekit.shrinking.report import pruning_report
from edgekit.steps import locked
from edgekit.teaching import (
    TrainedModel,
    import_onnx,
)
from edgekit.trained_int8 import Outcome, check_qat, reported, train_int8, untrained
from edgekit.verdict import check_clock

# Of several targets the worst counts: an error, then a limit not met, then a question left open.
WORST_FIRST = (1, 3, 4, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What the command line narrows of a recipe; None leaves the recipe's own.

    Attributes:
        targets: Target names.
        engine: The only engine to try.
        profile: Profile name.
        precision: ``auto`` or a precision of the target.
        method: How int8 is calibrated or weights are rounded.
        corrections: Corrections of static int8.
        devices: Devices that measure, each for the targets that it is: ``ssh://user@host[:port]``, or names.
        wheels: Whether to send numpy and the engine to a device that has none.
    """

    targets: tuple[str, ...] = ()
    engine: str | None = None
    profile: str | None = None
    precision: str | None = None
    method: str | None = None
    corrections: tuple[str, ...] | None = None
    devices: tuple[str, ...] = ()
    wheels: bool = False


def deploy(
    recipe: Recipe,
    base: Path,
    out: Path,
    choices: Choices | None = None,
    *,
    progress: Progress = silent,
    command: str | None = None,
    bundle: str | None = None,
) -> dict[str, Any]:
    """Runs a recipe to the end: distils, exports, quantises, compiles, checks, measures, judges, bundles.

    Args:
        recipe: The recipe.
        base: Its folder; paths and modules are looked for there.
        out: Where bundles (``OUT/<target>``), the report and the step folders go.
        choices: What narrows the recipe.
        progress: Where long steps tell how far they are.
        command: How to reproduce the run, for the report.
        bundle: Name of the bundle's folder instead of the target's; the report is then named after it too.

    Returns:
        The report, as written to ``report.json``; ``exit_code`` in it is the run's.

    Raises:
        EdgeKitError: The recipe, its data or its models are wrong, or a named engine is missing.
    """
    started = time.perf_counter()
    jobs = make_jobs(recipe, base, choices or Choices())
    check_qat(recipe, jobs)
    if bundle is not None and len(jobs) > 1:
        raise SpecError("one bundle name for several targets", found=f"{len(jobs)} targets", allowed="one target")
    for job in jobs:
        check_replaceable(out / (bundle or job.target.name))
    with locked(out) as steps:
        run = make_run(recipe, base, steps, progress, choices or Choices())
        kept = kept_of(run)
        trained = [train_int8(job, run, base) for job in jobs]
        tries = zip(jobs, trained, strict=True)
        results = [_deploy_target(job, run, made, out / (bundle or job.target.name)) for job, made in tries]
        report = _report(run, results, command) | {"seconds": round(time.perf_counter() - started, 1)} | kept
        report |= reported(jobs, trained, recipe.qat)
        _write_report(report, out, f"{bundle}." if bundle else "")
    return report


def make_run(
    recipe: Recipe, base: Path, steps: Path, progress: Progress = silent, choices: Choices | None = None
) -> Run:
    """Trains and prunes what is to be, crosses to ONNX and scores the references: what all targets share.

    Raises:
        EdgeKitError: The recipe, its data or its models are wrong.
    """
    pruned = None
    if recipe.pruning is None:
        data, teacher, student = train_models(recipe, base, steps, progress)
        unpruned = student
    else:
        job = pruning_job(recipe, base, choices or Choices())
        budget_ms = check_budget(recipe.pruning, job.profile)
        line = train_line(recipe, base, job, steps, progress, budget_ms)
        pruned = prune_student(line)
        data, teacher, unpruned = line.data, line.teacher, line.student
        student = pruned.best.model
    fp32 = _cross(recipe, student, seen_by(data, student.inputs), steps, progress)
    in_graph_of(recipe, data.test, fp32.outputs)  # what cannot be is told before references are scored
    postprocessing_of(recipe, fp32.outputs)
    return Run(
        recipe=recipe,
        data=data,
        teacher=teacher,
        student=student,
        fp32=fp32,
        references=score_references(teacher, student, fp32, data, steps, progress),
        steps=steps,
        progress=progress,
        unpruned=None if student is unpruned else unpruned,
        pruning=None if pruned is None else pruning_report(pruned),
    )


def pruning_job(recipe: Recipe, base: Path, choices: Choices) -> Job:
    """The target that a recipe's student is pruned for.

    Raises:
        SpecError: There is no such target, profile or engine, or as of :func:`edgekit.shrinking.checks.check_pruning`.
    """
    assert recipe.pruning is not None  # asked for by whoever prunes
    names = choices.targets or recipe.targets
    target = recipe.pruning.target or names[0]
    (job,) = make_jobs(
        recipe, base, replace(choices, targets=(target,), engine=choices.engine or recipe.pruning.engine)
    )
    check_pruning(recipe.pruning, job, base)
    return job


def make_task(job: Job, run: Run) -> Task:
    """What every try of one target is judged by."""
    seen = seen_by(run.data, run.student.inputs)
    graph = in_graph_of(run.recipe, seen.test, run.fp32.outputs)
    return Task(
        target=job.target,
        profile=job.profile,
        calibration=seen.calibration,
        test=as_fed(seen.test, graph),
        metric=run.data.metric,
        references=as_asked(run.references, graph),
        progress=run.progress,
        place=job.place,
        in_graph=graph,
        postprocessing=in_numpy(postprocessing_of(run.recipe, run.fp32.outputs), graph),
        labels=run.data.labels,
    )


def _report(run: Run, targets: list[dict[str, Any]], command: str | None) -> dict[str, Any]:
    return {
        "kind": "run",
        "schema_version": REPORT_SCHEMA_VERSION,
        "edgekit_version": __version__,
        "name": run.recipe.name,
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "command": command,
        "seed": run.recipe.seed,
        "host": to_json(this_host()),
        "engines": {e: engine_version(e) for e in ("onnxruntime", "openvino") if missing(e) is None},
        "models": {"teacher": _model_report(run.teacher), "student": _model_report(run.student)},
        "same_model": run.student is run.teacher,
        "untrained": run.teacher.module is not None and not (run.recipe.teacher.weights or run.recipe.teacher.train),
        "data": {
            "test_samples": len(run.data.test),
            "random": run.data.train is None,
            "held_out": run.data.held_out,
            "metric": run.references.metric_name,
        },
        "reproduce": _reproduce(run, command),
        "targets": targets,
        "exit_code": worst([target["exit_code"] for target in targets]),
        **({} if run.pruning is None else {"pruning": run.pruning}),
    }


def _reproduce(run: Run, command: str | None) -> dict[str, Any]:
    """What it takes to run it again, and to see that it is the same."""
    tools = tool_versions("torch", "onnx", "onnxscript", "nncf", "onnxruntime", "openvino", "numpy")
    hashes = {"teacher": run.teacher.sha256, "student": run.student.sha256, "fp32": run.fp32.sha256}
    return {
        "command": command,
        "recipe_sha256": hash_json(to_json(run.recipe.model_dump())),
        "versions": {name: version for name, version in tools.items() if version is not None},
        "hashes": hashes | {f"{parent.name} {parent.kind}": parent.sha256 for parent in run.data.parents},
    }


def _write_report(report: dict[str, Any], out: Path, prefix: str) -> None:
    """Writes the three files, each whole or not at all."""
    with whole(out / (prefix + REPORT_JSON)) as path:
        write_json(path, report)
    for name, text in ((REPORT_MD, to_markdown(report)), (REPORT_HTML, to_html(report))):
        with whole(out / (prefix + name)) as path:
            path.write_text(text, encoding="utf-8")


def worst(codes: Sequence[int]) -> int:
    """The worst of several exit codes: 1 > 3 > 4 > 0."""
    return next((code for code in WORST_FIRST if code in codes), 0)


def make_jobs(recipe: Recipe, base: Path, choices: Choices) -> list[Job]:
    """Reads and checks every target and the profile, so that a mistake is told before any training."""
    check_processing(recipe)
    profile = load_profile(choices.profile or recipe.profile, (base,))
    check_clock(profile)
    settings = _settings(recipe, choices)
    jobs: list[Job] = []
    for name in choices.targets or recipe.targets:
        target = load_target(name, (base,))
        engines: Sequence[str] = target.engines
        if choices.engine is not None:
            if choices.engine not in engines:
                raise SpecError(
                    f"engine {choices.engine!r} is no candidate of target {target.name!r}",
                    found=choices.engine,
                    allowed=", ".join(engines),
                    fix=did_you_mean(choices.engine, engines),
                )
            engines = (choices.engine,)
            reason = load_backend(choices.engine).missing(target)
            if reason is not None:
                raise EngineMissing(
                    f"engine {choices.engine!r} was named and cannot prepare a model here", found=reason
                )
        check_precision(target, settings.precision)
        if target.name in {job.target.name for job in jobs}:
            raise SpecError(f"two targets are called {target.name!r}", found=name, fix="name each once")
        jobs.append(Job(target=target, profile=profile, engines=tuple(engines), quantization=settings))
    return _with_devices(jobs, choices)


def _with_devices(jobs: list[Job], choices: Choices) -> list[Job]:
    """Each job with the device that measures for it."""
    if not choices.devices:
        return jobs
    from edgekit.devices.places import places_for

    engines = list(dict.fromkeys(engine for job in jobs for engine in job.engines))
    only = engines[0] if len(engines) == 1 else None
    targets = [job.target for job in jobs]
    places = places_for(targets, choices.devices, engine=only, wheels=engines if choices.wheels else ())
    return [replace(job, place=places.get(job.target.name)) for job in jobs]


def _settings(recipe: Recipe, choices: Choices) -> Quantization:
    """The recipe's settings as the command line narrows them."""
    given = {"precision": choices.precision, "method": choices.method, "corrections": choices.corrections}
    settings = recipe.quantization.model_copy(update={k: v for k, v in given.items() if v is not None})
    check_names(settings)
    if settings.precision == "int8" and settings.method != "dynamic" and recipe.data is None:
        raise DataError("int8 needs calibration samples", found="no data", fix=CALIBRATION_FIX)
    return settings


def _cross(recipe: Recipe, student: TrainedModel, data: Ingredients, steps: Path, progress: Progress) -> Artifact:
    if student.onnx is not None:
        return import_onnx(student, steps, specs_of(data.test))
    assert student.module is not None  # a model is a module or a file
    progress("export to ONNX", 0, 1)
    artifact = export(student.module, data.test, steps)
    progress("export to ONNX", 1, 1)
    return artifact


def _deploy_target(job: Job, run: Run, trained: Outcome | None, out: Path) -> dict[str, Any]:
    """Tries every plan of one target, bundles the best at ``out``, and reports."""
    task = make_task(job, run)
    candidates, trials = _candidates(job, run, task, trained)
    candidates += trained.failed if trained else []
    settled = settle(candidates, trials)
    shipped = best(candidates, settled)
    why = why_it_ships(job, candidates, shipped, task, settled) + untrained(job, run.recipe)
    bundle, steps = None, []
    if shipped is not None:
        bundle = {"path": out.name, "id": ship(job, run, task, shipped, out).id}
        steps = measure_gains(run, task, shipped, candidates)
    elif out.exists():
        why += f"; the bundle in {out.name} is from an earlier run"
    return target_report(
        job.target,
        job.profile,
        candidates,
        shipped,
        not_measured=task.not_measured,
        exit_code=exit_code_of(candidates, shipped),
        bundle=bundle,
        why=why,
        steps=steps,
        trials=trials,
        place=job.place,
    )


def _candidates(job: Job, run: Run, task: Task, trained: Outcome | None) -> tuple[list[Candidate], list[Trial]]:
    """The candidates of a target, measured and judged; and what ``auto`` tried on the way."""
    settings, made = job.quantization, trained.candidates if trained else []
    if settings.precision == "auto" and task.calibration is None:
        settings = settings.model_copy(update={"precision": "fp32"})
    if settings.precision != "auto" or task.not_measured or "int8" not in job.target.precisions:
        return try_plans(run.fp32, plans_for(job.target, job.engines, settings, job.place), task, run.steps, made), []
    return search(run.fp32, job.engines, settings, task, trial_task(task, run), run.steps, made)


def trial_task(task: Task, run: Run) -> Task:
    """The same task on samples that are not the test samples, on which plans are chosen.

    Raises:
        DataError: The recipe has no data.
    """
    samples = trial_samples(run.data, run.recipe.seed)
    if samples is None:
        raise DataError("plans are chosen on samples", found="no data", fix="give --calibration DATA")
    references = score_references(
        run.teacher, run.student, run.fp32, run.data, run.steps, run.progress, samples=samples
    )
    seen = samples.only(run.student.inputs) if run.student.inputs else samples
    return replace(task, test=as_fed(seen, task.in_graph), references=as_asked(references, task.in_graph))


def _model_report(model: TrainedModel) -> dict[str, Any]:
    return {
        "name": model.name,
        "sha256": model.sha256,
        "parameters": model.parameters,
        "training": to_json(model.training),
    }
