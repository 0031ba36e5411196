"""What is wrong with a pruning whatever the student is, told before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgekit._lookup import resolve
from edgekit._paths import expand_path
from edgekit.errors import SpecError
from edgekit.places import host_of
from edgekit.profiling.clock import clock_step_ns
from edgekit.recipe_pruning import Pruning
from edgekit.shipping import Job
from edgekit.specs import Profile, mismatch
from edgekit.table_file import MAKE_ONE, load_table, read_table

NOTES = 8  # of what stays, that are told where a budget cannot be met


def check_budget(settings: Pruning, profile: Profile) -> float | None:
    """Refuses a pruning without a budget, or with one that the clock cannot tell from nothing.

    Returns:
        What the median may be at most, as far as that is known before anything is measured; None: a share.

    Raises:
        SpecError: It is so.
    """
    if settings.budget_ms is None and settings.ratio is None and profile.limits.p50_ms is None:
        raise SpecError(
            "pruning has no budget",
            found=f"neither pruning.budget_ms nor pruning.ratio, and profile {profile.name!r} has no p50_ms",
            allowed="budget_ms = 5.0, or ratio = 0.5 of the unpruned student's",
            fix="give one of them in [pruning], or --budget MS, or --ratio SHARE",
        )
    step_ms = clock_step_ns() / 1e6
    if settings.budget_ms is not None and settings.budget_ms < step_ms:
        raise SpecError(
            "pruning.budget_ms is below the clock's resolution",
            found=f"{settings.budget_ms:g} ms",
            allowed=f"{step_ms:.2g} ms or more on this host",
            fix=f"budgets are in milliseconds: is {settings.budget_ms:g} meant in seconds?",
        )
    return profile.limits.p50_ms if settings.budget_ms is None and settings.ratio is None else settings.budget_ms


def check_least(budget_ms: float, whole_ms: float, least_ms: float, notes: Sequence[str]) -> None:
    """Refuses a budget below what a student takes with all left out that may go, and names what may not.

    Args:
        budget_ms: The budget.
        whole_ms: What the unpruned student takes.
        least_ms: What it takes with all left out that may go, by the table of latencies.
        notes: What stays and why.

    Raises:
        SpecError: It is so.
    """
    if budget_ms >= least_ms * (1 - 1e-9):
        return
    shown = [*notes[:NOTES], *([f"and {len(notes) - NOTES} more"] if len(notes) > NOTES else [])]
    raise SpecError(
        "pruning: the budget is below what the smallest network takes",
        found="; ".join([f"{budget_ms:.4g} ms, {budget_ms / whole_ms:.2f} of the unpruned student's", *shown]),
        allowed=f"{least_ms:.4g} ms or more, {least_ms / whole_ms:.2f} of it: the rest is not shown to become faster",
        fix="a larger budget_ms or ratio; or blocks and channels, a smaller multiple, fewer layers in keep",
    )


def check_pruning(settings: Pruning, job: Job, base: Path) -> None:
    """Refuses a criterion that cannot be imported, and a table of latencies that cannot be used.

    Raises:
        SpecError: The table is missing, damaged, of an engine that is no candidate, or of another machine, batch or
            precision.
        EdgeKitError: There is no such criterion.
    """
    from edgekit.pruning.criteria import CRITERIA

    resolve(settings.criterion, CRITERIA, kind="criterion", base=base, where="pruning.criterion")
    if settings.table is None or mismatch(job.target, host_of(job.place)) is None:
        return  # what can be measured here is
    path = expand_path(settings.table, base=base, where="pruning.table", error=SpecError)
    table = load_table(path)
    if table.engine not in job.engines:
        raise SpecError(
            f"{path}: a latency table of another engine",
            found=table.engine,
            allowed=", ".join(job.engines),
            fix=MAKE_ONE,
        )
    asked = job.quantization.precision
    precision = table.precision if asked == "auto" else asked
    read_table(path, (), table.engine, precision, batch=job.profile.load.batch, target=job.target)
