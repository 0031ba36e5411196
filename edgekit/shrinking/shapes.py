"""Which shape a step takes: what may go, what that loses and saves, and what fits when it is compiled."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit import __version__
from edgekit.artifact import Artifact, hash_json, read_json, write_json
from edgekit.latency_table import options_of
from edgekit.making import tool_versions
from edgekit.models import class_sources, count_parameters, state_hash
from edgekit.pruning.knapsack import Option, choose
from edgekit.shrinking.scores import Line, Times, compiled, time_in_turns
from edgekit.shrinking.steps import NEAR, Search, normal_ms
from edgekit.shrinking.tables import table_of
from edgekit.steps import run_step
from edgekit.teaching import TrainedModel

if TYPE_CHECKING:
    from edgekit.pruning.changes import Change
    from edgekit.pruning.moves import MoveGroup

TRIES = 3  # shapes that are compiled and measured for one step, each by what the one before was wrong about
SHAPE = "shape.json"


def groups_of(line: Line, model: TrainedModel) -> tuple[list[MoveGroup], list[str]]:
    """What may be left out of a student, and what may not and why."""
    from edgekit.pruning.moves import find_moves

    settings = line.settings
    assert model.module is not None
    return find_moves(
        model.module,
        line.inputs(),
        blocks=settings.blocks,
        channels=settings.channels,
        multiple=line.multiple,
        keep=settings.keep,
        criterion=settings.criterion,
        evidence=line.evidence(),
        base=line.base,
    )


def options_for(search: Search) -> tuple[list[MoveGroup], Mapping[str, list[Option]]]:
    """What may be left out of the student as it stands, with what each move loses and saves."""
    from edgekit.pruning.worth import worth_of

    line, settings, model = search.line, search.line.settings, search.now.model
    assert model.module is not None
    groups, notes = groups_of(line, model)
    table = table_of(line, model, groups, search.first.plan, search.plan_task, search.table)
    search.table = table
    worth = worth_of(
        model.module,
        line.inputs(),
        groups,
        line.evidence(),
        criterion=settings.criterion,
        by=settings.importance,
        base=line.base,
        progress=line.progress,
    )
    search.notes += [*notes, *table.notes]
    return groups, options_of(dataclasses.replace(table, whole_us=search.now_ms * 1e3), groups, worth)


def fitting_shape(
    search: Search, groups: Sequence[MoveGroup], options: Mapping[str, list[Option]], aim_ms: float
) -> tuple[TrainedModel, Change, tuple[str, ...], Times] | None:
    """The shape of the most importance that is within an aim when it is compiled and measured.

    Latencies of moves add up only nearly: a shape that misses its aim is made again with so much less to spend.
    """
    from edgekit.pruning.changes import merged

    goal_us, found = aim_ms * 1e3, None
    least_us = sum(min(option.cost_us for option in each) for each in options.values())
    moves = {group.name: {move.name: move.change for move in group.moves} for group in groups}
    for _ in range(TRIES):
        chosen = choose(options, max(goal_us, least_us) * NEAR)
        picked = [moves[name][one.name] for name, one in chosen.options.items() if one.name in moves.get(name, {})]
        if not picked:
            break
        change = merged(picked)
        model, said = _cut(search, change)
        times = _shape_times(search, model, chosen.cost_us)
        found = model, change, said, times
        over_us = normal_ms(times, search.steps[0].times) * 1e3 - aim_ms * 1e3
        if over_us <= aim_ms * 1e3 * (NEAR - 1) or goal_us <= least_us:
            break
        goal_us -= over_us
    return found


def _shape_times(search: Search, model: TrainedModel, predicted_us: float) -> Times:
    """How long a shape takes before it has learnt anything: latency does not hang on weights."""
    line, task = search.line, search.plan_task
    if task.not_measured is not None:
        return Times(p50_ms=predicted_us / 1e3)
    made = compiled(line, model, search.first.plan, task)
    before: Artifact = compiled(line, search.now.model, search.first.plan, task)
    first: Artifact = compiled(line, line.student, search.first.plan, task)
    return time_in_turns(made, before, first, task, line.steps)


def _cut(search: Search, change: Change) -> tuple[TrainedModel, tuple[str, ...]]:
    """The student as it stands with a change made; which channels go is a step that is found again."""
    from edgekit.distillation.beginnings import copied
    from edgekit.models import load_weights, save_weights
    from edgekit.pruning.changes import apply_change, as_json

    line, model, settings = search.line, search.now.model, search.line.settings
    assert model.module is not None
    module, inputs = copied(model.module), line.inputs()
    key = {
        "edgekit": __version__,
        "tools": tool_versions("torch", "torch-pruning"),
        "module": model.sha256,
        "change": as_json(change),
        "criterion": settings.criterion,
        "samples": settings.samples,
        "seed": line.recipe.seed,
    }

    def make(folder: Path) -> None:
        twin = copied(model.module)
        said = apply_change(
            twin, inputs, change, criterion=settings.criterion, evidence=line.evidence(), base=line.base
        )
        save_weights(twin, folder / "model.safetensors")
        write_json(folder / SHAPE, said)

    folder = run_step(line.steps, "pruned-shape", key, make)
    apply_change(module, inputs, change)
    load_weights(module, folder / "model.safetensors", where="pruning")
    sha256 = hash_json([state_hash(module), class_sources(module)])
    pruned = dataclasses.replace(
        model,
        name=f"{line.student.name}, pruned",
        module=module,
        sha256=sha256,
        parameters=count_parameters(module),
        training=None,
    )
    return pruned, tuple(read_json(folder / SHAPE))
