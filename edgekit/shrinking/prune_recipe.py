"""``edgekit prune``: from a recipe to its student within the budget."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgekit.artifact import to_json
from edgekit.errors import SpecError
from edgekit.latency_table import write_table
from edgekit.pipeline import Choices, pruning_job
from edgekit.progress import Progress, silent
from edgekit.recipe import Recipe
from edgekit.recipe_pruning import Pruning
from edgekit.shrinking.checks import check_budget
from edgekit.shrinking.lines import train_line
from edgekit.shrinking.loop import prune_student, unpruned_table
from edgekit.shrinking.report import TABLE_JSON, met, pruning_report, write_pruned
from edgekit.specs import parse
from edgekit.steps import locked

MET, MISSED, ESTIMATED = 0, 3, 4


def with_budget(recipe: Recipe, budget_ms: float | None, ratio: float | None) -> Recipe:
    """The recipe with another budget; itself where neither is given.

    Raises:
        SpecError: A value is no budget.
    """
    if budget_ms is None and ratio is None:
        return recipe
    table = {} if recipe.pruning is None else recipe.pruning.model_dump(exclude_unset=True)
    table |= {"budget_ms": budget_ms, "ratio": ratio}
    pruning = parse(Pruning, table, "--budget" if ratio is None else "--ratio")
    return recipe.model_copy(update={"pruning": pruning})


def prune_recipe(
    recipe: Recipe,
    base: Path,
    out: Path,
    choices: Choices,
    *,
    table_only: bool = False,
    progress: Progress = silent,
) -> tuple[dict[str, Any], int]:
    """Trains what a recipe trains, prunes its student to the budget, and writes every step.

    Args:
        recipe: Has a table ``[pruning]``.
        base: Its folder.
        out: Folder of the run; a later ``deploy`` into it finds all that was done.
        choices: What narrows the recipe: target, engine, profile.
        table_only: Only the table of latencies is made, as on a device whose student is pruned elsewhere.
        progress: Told of every step.

    Returns:
        The report (of a table alone, the table), and the exit code: 0 within the budget, 3 not, 4 where latencies are
        estimates.

    Raises:
        SpecError: The recipe has no table ``[pruning]``.
        EdgeKitError: See :func:`edgekit.shrinking.loop.prune_student`.
    """
    settings = recipe.pruning
    if settings is None:
        raise SpecError(
            "the recipe says nothing of pruning",
            found="no [pruning] table",
            allowed="[pruning] with budget_ms or ratio, or a profile with p50_ms",
            fix="add the table, or --ratio 0.5",
        )
    if choices.targets:  # what is asked for here counts more than what the recipe says
        recipe = recipe.model_copy(update={"pruning": settings.model_copy(update={"target": None})})
    job = pruning_job(recipe, base, choices)
    budget_ms = None if table_only else check_budget(settings, job.profile)
    with locked(out) as steps:
        line = train_line(recipe, base, job, steps, progress, budget_ms)
        if table_only:
            table = unpruned_table(line)
            write_table(table, out / TABLE_JSON)
            return to_json(table), ESTIMATED if table.estimated else MET
        pruned = prune_student(line)
        write_pruned(pruned, out)
    estimated = pruned.task.not_measured is not None
    return pruning_report(pruned), MISSED if not met(pruned) else ESTIMATED if estimated else MET
