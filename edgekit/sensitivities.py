"""``edgekit quantize --sensitivity``: what each operator group of a recipe's model loses and gains in int8."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgekit.artifact import Artifact
from edgekit.backends.methods import check_plan
from edgekit.candidate import Task
from edgekit.conversion.clean import load_onnx
from edgekit.errors import EdgeKitError, SpecError
from edgekit.pipeline import Choices, make_jobs, make_run, make_task, trial_task
from edgekit.planning import asked_for
from edgekit.progress import Progress, silent
from edgekit.quantization.groups import MOST_GROUPS, groups_of
from edgekit.quantization.schemes import STATIC_METHODS, Plan
from edgekit.recipe import Recipe
from edgekit.sensitivity import Sensitivity, measure_sensitivity
from edgekit.steps import locked


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSensitivity:
    """The groups of a model on one engine.

    Attributes:
        model: The fp32 ONNX model.
        task: What it was judged by.
        plan: The plan of which one group at a time was in int8.
        groups: The groups, in the order of the model; empty where nothing could be made.
        failure: Why nothing could be made, or None.
    """

    model: Artifact
    task: Task
    plan: Plan
    groups: Sequence[Sensitivity] = ()
    failure: str | None = None


def find_sensitivity(
    recipe: Recipe,
    base: Path,
    out: Path,
    choices: Choices,
    *,
    most_groups: int = MOST_GROUPS,
    progress: Progress = silent,
) -> list[EngineSensitivity]:
    """Puts one group at a time in int8 and measures loss and gain, on every engine of the target.

    Args:
        recipe: The recipe, or that of one model.
        base: Its folder.
        out: Folder of the run; finished steps in it are taken.
        choices: What narrows the recipe: one target, an engine.
        most_groups: Most groups.
        progress: Told of every step.

    Raises:
        EdgeKitError: The model, its data or the target are not what this needs, or no engine came through.
    """
    (job, *more) = make_jobs(recipe, base, choices)
    if more:
        raise SpecError("sensitivity is of one target", found=f"{1 + len(more)} targets", fix="name one with --target")
    plans = [asked_for(engine, "int8", job.target, job.quantization) for engine in job.engines]
    found: list[EngineSensitivity] = []
    with locked(out) as steps:
        run = make_run(recipe, base, steps, progress)
        task = trial_task(make_task(job, run), run)
        groups = groups_of(load_onnx(run.fp32.path), most_groups)
        if not groups:
            raise SpecError("the model has nothing to quantise", found="no convolution and no matrix product")
        for plan in plans:
            made, failure = [], None
            try:
                check_plan(plan, job.target)
                _check_static(plan)
                made = measure_sensitivity(run.fp32, plan, groups, task, steps)
            except EdgeKitError as exc:
                if len(plans) == 1:
                    raise
                failure = str(exc)
            found.append(
                EngineSensitivity(
                    model=run.fp32,
                    task=task,
                    plan=plan,
                    groups=tuple(made),
                    failure=failure,
                )
            )
    if all(one.failure for one in found):
        raise EdgeKitError("no engine came through", found="\n".join(f"{one.plan}: {one.failure}" for one in found))
    return found


def _check_static(plan: Plan) -> None:
    if plan.method not in STATIC_METHODS:
        raise SpecError(
            "sensitivity is of static int8", found=f"method {plan.method}", allowed=", ".join(STATIC_METHODS)
        )
