"""Pruning to a latency budget: step by step smaller, each step fine-tuned, compiled, scored and measured anew."""

from __future__ import annotations

import dataclasses
import time

from edgekit.candidate import Candidate, Task
from edgekit.errors import Diverged, SpecError
from edgekit.latency_table import LatencyTable
from edgekit.lessons import train_student, without_labels
from edgekit.shrinking.checks import check_budget, check_least
from edgekit.shrinking.floor import check_floor
from edgekit.shrinking.scores import Line, Times, exported, first_plan, score, time_in_turns
from edgekit.shrinking.shapes import fitting_shape, groups_of, options_for
from edgekit.shrinking.steps import Pruned, Search, Step, normal_ms
from edgekit.shrinking.tables import table_of
from edgekit.teaching import TrainedModel

NOTHING_LEFT = "nothing that is left to leave out is shown to make it faster"
TRAINING = "pruned"  # what the steps' trainings are kept as
MORE_STEPS = 2  # beyond those of the recipe, where latencies did not add up


def prune_student(line: Line) -> Pruned:
    """Leaves blocks and channels out of a student until it meets a latency budget.

    Every step: what each possible move costs in loss and saves in latency, on the target's own engine; the shape that
    keeps most within the step's aim (a knapsack, as HALP: M. Shen et al., NeurIPS 2022); that shape compiled and
    measured, and undone where it is not shown to be faster; then fine-tuned with distillation from the teacher, scored
    on the samples kept for validation, and measured again. It ends at the budget or at the limit of accuracy. All that
    is long is a step that is found again, so a run that was killed goes on.

    Args:
        line: The recipe, which has a table ``[pruning]``, its data and its models; the student stays as it is.

    Raises:
        SpecError: There is no budget, it is below what an empty model or the smallest network takes, or the accuracy
            limit is broken already by the unpruned student.
        EdgeKitError: The student cannot be pruned, made or measured.
    """
    began = time.perf_counter()
    search = _begin(line)
    stopped = _run(search)
    return Pruned(
        line=line,
        task=search.plan_task,
        steps=tuple(search.steps),
        table=search.table,
        budget_ms=search.budget_ms,
        limit_points=search.limit_points,
        stopped=stopped,
        notes=tuple(dict.fromkeys([*_unlimited(search), *search.notes])),
        seconds=time.perf_counter() - began,
    )


def _begin(line: Line) -> Search:
    """The unpruned student, measured and scored; refuses a budget or a limit that cannot be met."""
    from edgekit.pruning.counting import macs_of

    settings, limits = line.settings, line.job.profile.limits
    limit = limits.max_drop_points if settings.max_drop_points is None else settings.max_drop_points
    check_budget(settings, line.job.profile)
    first, task = first_plan(line)
    _check_limit(first, limit)
    assert first.artifact is not None, "first_plan gives candidates that may ship"
    assert line.student.module is not None, "roles refuse .onnx students"
    if task.not_measured is None:
        times = time_in_turns(first.artifact, first.artifact, first.artifact, task, line.steps)
    else:
        whole = table_of(line, line.student, [], first.plan, task, None)
        times = Times(p50_ms=whole.whole_us / 1e3)
    step = Step(
        number=0,
        aim_ms=None,
        model=line.student,
        changes=(),
        said=(),
        times=times,
        candidate=first,
        macs=macs_of(line.student.module, line.inputs),
        epochs=0,
        kept=True,
        why="unpruned",
    )
    given = (settings.budget_ms, settings.ratio and settings.ratio * times.p50_ms)
    budget = min((one for one in given if one is not None), default=limits.p50_ms)
    assert budget is not None, "checked above"
    fp32 = exported(line, line.student)
    check_floor(budget, fp32.inputs, fp32.outputs, [first.plan.engine], task, line.steps)
    return Search(
        line=line,
        plan_task=task,
        first=first,
        steps=[step],
        budget_ms=budget,
        limit_points=limit,
        notes=_first_notes(line, task, limit, first),
    )


def _first_notes(line: Line, task: Task, limit: float | None, first: Candidate) -> list[str]:
    """What of the recipe counts for nothing here, or for something else than it says, in words."""
    notes, proof = [], first.proof
    if limit is not None and (proof is None or proof.drop is None):
        notes.append(f"the limit of {limit:g} points is not held: there are no labels to lose points on")
    elif proof is not None and proof.metric == "agreement":
        notes.append("there are no labels: a point is one of agreement with the teacher")
    if line.settings.table is not None and task.not_measured is None:
        notes.append(f"this host is the target, so latencies are measured here and {line.settings.table} is not read")
    return notes


def _unlimited(search: Search) -> list[str]:
    """That nothing limits what is lost, where something is, in words."""
    step, start = search.now, search.first.proof
    proof = step.candidate.proof if step.candidate else None
    lost = proof.drop if proof else None
    if search.limit_points is not None or not step.number or lost is None or lost.points <= 0:
        return []
    before = f" (the unpruned student {start.drop.points:.2f})" if start and start.drop else ""
    return [
        f"nothing limits what is lost (pruning.max_drop_points would): step {step.number} is kept and lost "
        f"{lost.points:.2f} points [{lost.low:.2f}, {lost.high:.2f}] against the teacher{before}"
    ]


def unpruned_table(line: Line) -> LatencyTable:
    """What each move of the unpruned student saves; errors as of :func:`prune_student`."""
    first, task = first_plan(line)
    groups, _ = groups_of(line, line.student)
    return table_of(line, line.student, groups, first.plan, task, None)


def _check_limit(first: Candidate, limit: float | None) -> None:
    drop = first.proof.drop if first.proof else None
    if limit is not None and drop is not None and drop.points > limit:
        raise SpecError(
            "pruning: the accuracy limit is broken already by the unpruned student",
            found=f"{first.plan} lost {drop.points:.2f} points [{drop.low:.2f}, {drop.high:.2f}] on {drop.n:,} samples "
            "kept for validation",
            allowed=f"at most {limit:g} points",
            fix="a larger max_drop_points, a better student, or another precision",
        )


def _run(search: Search) -> str:
    """Goes step by step to the budget; why it ended."""
    line, start, budget = search.line, search.now_ms, search.budget_ms
    if start <= budget:
        return "the unpruned student is within the budget"
    count = line.settings.steps
    aims = [start * (budget / start) ** (i / count) for i in range(1, count)]
    first = True
    for aim in [*aims, *[budget] * (1 + MORE_STEPS)]:
        if search.now_ms <= aim * search.near(aim):
            continue
        line.progress("prune", min(len(search.steps), count) - 1, count, f"{search.now_ms:.3f} ms, next {aim:.3f} ms")
        stopped = _step(search, aim, first=first)
        first = False
        if stopped is not None:
            return stopped
    line.progress("prune", count, count, f"{search.now_ms:.3f} ms")
    if search.now_ms <= budget:
        return "the budget is met"
    return f"no shape was found within the budget: {search.now_ms:.3f} ms is the least of {len(search.steps)} steps"


def _step(search: Search, aim_ms: float, *, first: bool) -> str | None:
    """Makes one step; why all ends with it, or None."""
    line, before = search.line, search.now
    options = options_for(search)
    if options is None:
        return NOTHING_LEFT
    search.notes += options.notes
    if first:
        check_least(search.budget_ms, search.now_ms, options.least_us / 1e3, options.notes)
    shape = fitting_shape(search, options, aim_ms)
    if shape is None or shape.model.sha256 in {step.model.sha256 for step in search.steps}:
        return NOTHING_LEFT
    number = len(search.steps)
    from edgekit.pruning.counting import macs_of

    assert shape.model.module is not None
    step = Step(
        number=number,
        aim_ms=aim_ms,
        model=shape.model,
        changes=(*before.changes, *shape.changes),
        said=shape.said,
        times=shape.times,
        candidate=None,
        macs=macs_of(shape.model.module, line.inputs),
        epochs=0,
        kept=False,
        why="",
    )
    if shape.times.faster is False:
        why = "fewer operations are not shown to be faster than the step before"
        search.steps.append(dataclasses.replace(step, why=why))
        return None
    last = normal_ms(shape.times, search.steps[0].times) <= search.budget_ms
    return _learn(search, step, last=last)


def _learn(search: Search, step: Step, *, last: bool) -> str | None:
    """Fine-tunes a step, scores it and measures it again; longer where it would else break the limit."""
    settings = search.line.settings
    long = settings.last_epochs or settings.train.epochs
    rounds = [long] if last or long == settings.train.epochs else [settings.train.epochs, long]
    for i, epochs in enumerate(rounds):
        try:
            model = _fine_tuned(search, step.model, epochs, f"pruned-{step.number}" + ("-longer" if i else ""))
        except Diverged as exc:
            search.steps.append(dataclasses.replace(step, why=f"fine-tuning failed: {exc.problem}"))
            return f"fine-tuning of step {step.number} failed, and the step before is kept: {exc.problem}"
        step = dataclasses.replace(step, model=model, epochs=step.epochs + epochs)
        candidate = score(search.line, model, search.first.plan)
        step = dataclasses.replace(step, candidate=candidate)
        broken = _broken(candidate, search.limit_points)
        if broken is None:
            break
    if broken is not None:
        search.steps.append(dataclasses.replace(step, why=broken))
        return f"step {step.number} {broken}"
    why = "nothing limits what it loses" if search.limit_points is None else "within every limit"
    search.steps.append(dataclasses.replace(step, times=_times(search, step), kept=True, why=why))
    return None


def _broken(candidate: Candidate, limit: float | None) -> str | None:
    """Why a step may not be kept, in words."""
    proof = candidate.proof
    if candidate.failure or proof is None or proof.broken:
        return candidate.failure or (proof.broken if proof else None) or "could not be made"
    if limit is None or proof.drop is None or proof.drop.points <= limit:
        return None
    drop = proof.drop
    return f"lost {drop.points:.2f} points [{drop.low:.2f}, {drop.high:.2f}], more than {limit:g}"


def _times(search: Search, step: Step) -> Times:
    """The latency of what was fine-tuned: its own weights and ranges."""
    assert step.candidate is not None
    made, before, first = step.candidate.artifact, search.now.candidate, search.first.artifact
    if search.plan_task.not_measured is not None:
        return step.times
    assert made is not None, "a candidate that is kept was made"
    assert before is not None, "likewise"
    assert before.artifact is not None, "likewise"
    assert first is not None, "likewise"
    assert step.aim_ms is not None, "only the unpruned student has none"
    share = search.share_of(step.aim_ms)
    return time_in_turns(made, before.artifact, first, search.plan_task, search.line.steps, share)


def _fine_tuned(search: Search, model: TrainedModel, epochs: int, name: str) -> TrainedModel:
    """The student taught by the unpruned teacher; a resumable training like every other.

    It is found again by the shape and its weights, whatever number and aim the step had that first came to it.
    """
    from edgekit.distillation.beginnings import copied

    line = search.line
    assert model.module is not None
    settings = without_labels(line.settings.train, line.data).model_copy(update={"epochs": epochs})
    link = line.recipe.model_copy(update={"distillation": settings})
    twin = dataclasses.replace(model, module=copied(model.module))  # the step before stays as it is
    teachers, data = [line.teacher], line.data
    return train_student(link, twin, teachers, data, line.base, line.steps, line.progress, name, step=TRAINING)
