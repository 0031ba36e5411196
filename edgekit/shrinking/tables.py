"""Where a pruning's latencies come from: measured here, measured on the device, or estimated."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgekit._paths import expand_path
from edgekit.candidate import Task
from edgekit.errors import SpecError
from edgekit.latency_table import LatencyTable, measure_table, read_table
from edgekit.quantization.schemes import Plan
from edgekit.roofline import estimate_table
from edgekit.shrinking.scores import Line
from edgekit.teaching import TrainedModel

if TYPE_CHECKING:
    from edgekit.pruning.moves import MoveGroup


def table_of(
    line: Line, model: TrainedModel, groups: Sequence[MoveGroup], plan: Plan, task: Task, known: LatencyTable | None
) -> LatencyTable:
    """What the moves of some groups save; measured where this host is the target.

    Args:
        line: Of the pruning.
        model: The student as it stands.
        groups: What may be left out of it.
        plan: How it is made.
        task: What it is made for.
        known: What is known already, to which the rest is added.

    Raises:
        SpecError: This host is not the target, and there is neither a table nor what an estimate needs.
        EdgeKitError: It cannot be measured.
    """
    have = set() if known is None else set(known.classes)
    missing = [group for group in groups if group.alike not in have]
    if known is not None and not missing:
        return known
    assert model.module is not None
    if task.not_measured is None:
        found = measure_table(model.module, line.inputs, missing, plan, task, line.steps)
    elif line.settings.table is not None:
        if known is not None:
            return known  # what is alike no more once it was changed has no latency, and stays as it is
        path = expand_path(line.settings.table, base=line.base, where="pruning.table", error=SpecError)
        return read_table(path, groups, plan.engine, plan.precision, batch=task.profile.load.batch, target=task.target)
    else:
        found = estimate_table(
            model.module,
            line.inputs,
            missing,
            task.target,
            plan.precision,
            plan.engine,
            batch=task.profile.load.batch,
            progress=line.progress,
        )
    if known is None:
        return found
    return dataclasses.replace(
        known,
        rows=(*known.rows, *found.rows),
        classes=(*known.classes, *found.classes),
        notes=(*known.notes, *found.notes),
        seconds=known.seconds + found.seconds,
    )
