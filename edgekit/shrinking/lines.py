"""What a pruning works on: a recipe's models, trained once it is seen that the student can be pruned."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from edgekit.backends import load_backend
from edgekit.distilling import train_models
from edgekit.errors import EdgeKitError, SpecError
from edgekit.ingredients import Ingredients, seen_by, specs_of
from edgekit.lessons import without_labels
from edgekit.places import lacks
from edgekit.progress import Progress
from edgekit.recipe import Recipe
from edgekit.shipping import Job
from edgekit.shrinking.floor import check_floor
from edgekit.shrinking.scores import Line, output_specs, untrained_task
from edgekit.shrinking.shapes import groups_of
from edgekit.teaching import TrainedModel

LOOKING = "look at what may be left out"


def train_line(recipe: Recipe, base: Path, job: Job, steps: Path, progress: Progress, budget_ms: float | None) -> Line:
    """Trains what a recipe trains; of what is to be pruned, all that no training changes is told before.

    Args:
        recipe: Has a table ``[pruning]``.
        base: Its folder.
        job: The target that is pruned for.
        steps: Root of the step folders.
        progress: Told of every step.
        budget_ms: What the median may be at most; None: that is not known yet, or nothing is to be pruned.

    Raises:
        EdgeKitError: As of :func:`check_line` and of :func:`edgekit.distilling.train_models`.
    """
    line = partial(Line, recipe=recipe, job=job, base=base, steps=steps, progress=progress)

    def look(data: Ingredients, teacher: TrainedModel, student: TrainedModel) -> None:
        check_line(line(data=data, teacher=teacher, student=student), budget_ms)

    data, teacher, student = train_models(recipe, base, steps, progress, look)
    return line(data=data, teacher=teacher, student=student)


def check_line(line: Line, budget_ms: float | None) -> None:
    """Refuses a student of which nothing can be left out, and a budget that no engine meets with a model of nothing.

    Args:
        line: Its models are as they will begin to learn.
        budget_ms: The budget; None: likewise.

    Raises:
        ModelError: Nothing of the student can be left out; says what ties it.
        SpecError: The budget is below what an empty model takes, or what is pruned cannot be taught as the recipe says.
    """
    line.progress(LOOKING, 0, 1)
    groups, _ = groups_of(line, line.student, trained=False)
    blocks = sum(group.kind == "block" for group in groups)
    narrower = sum(any(move.change.widths for move in group.moves) for group in groups)
    _check_teaching(line)
    line.progress(LOOKING, 1, 1, f"{blocks} blocks, and channels in {narrower} places")
    if budget_ms is None:
        return
    job, inputs, outputs = line.job, specs_of(seen_by(line.data, line.student.inputs).test), output_specs(line)
    runs = [e for e in job.engines if load_backend(e).missing(job.target) is None and lacks(job.place, e) is None]
    check_floor(budget_ms, inputs, outputs, runs, untrained_task(line, outputs), line.steps)


def _check_teaching(line: Line) -> None:
    """Refuses losses and layers of ``[pruning.train]`` that are not there, and labels that it needs."""
    from edgekit.distillation.students import make_teaching

    assert line.teacher.module is not None  # roles see to all three
    assert line.student.module is not None
    assert line.data.train is not None
    settings, seed = without_labels(line.settings.train, line.data), line.recipe.seed
    try:
        make_teaching(line.teacher.module, line.student.module, line.data.train, settings, seed, line.base)
    except EdgeKitError as exc:  # it speaks of keys as they are called where a student is distilled
        problem, fix = (text and text.replace("distillation.", "pruning.train.") for text in (exc.problem, exc.fix))
        raise SpecError(problem or "", found=exc.found, allowed=exc.allowed, fix=fix) from exc
