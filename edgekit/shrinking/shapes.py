"""Which shape a step takes: what may go, what that loses and saves, and what fits when it is compiled."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit import __version__
from edgekit.artifact import hash_json, read_json, to_json, write_json
from edgekit.errors import ModelError
from edgekit.latency_table import notes_of, options_of, overlap_us
from edgekit.making import tool_versions
from edgekit.models import class_sources, count_parameters, state_hash
from edgekit.pruning.knapsack import Option, choose
from edgekit.shrinking.scores import Line, Times, compiled, time_in_turns
from edgekit.shrinking.steps import Search, most_ms, normal_ms
from edgekit.shrinking.tables import table_of
from edgekit.steps import run_step
from edgekit.table_file import TABLE_FILE, load_table, write_table
from edgekit.teaching import TrainedModel

if TYPE_CHECKING:
    from torch.nn import Module

    from edgekit.latency_table import LatencyTable
    from edgekit.pruning.changes import Change
    from edgekit.pruning.moves import MoveGroup

PART = 0.06  # of the unpruned latency, that goes before what the rest loses is asked again
SHAPE = "shape.json"
BY_WEIGHTS = ("l1", "l2", "batchnorm", "random")  # criteria that look at no data
SHAPED_BY = {"blocks", "channels", "keep", "criterion", "importance", "samples"}  # settings that a shape hangs on


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Options:
    """What may be left out of a student as it stands.

    Attributes:
        groups: Move groups.
        options: What each move loses and saves, for the knapsack.
        whole_us: What the student takes.
        overlap_us: By how much the options' costs are more than what it takes.
        notes: What may not be left out, and why.
    """

    groups: Sequence[MoveGroup]
    options: Mapping[str, list[Option]]
    whole_us: float
    overlap_us: float
    notes: tuple[str, ...]

    @property
    def least_us(self) -> float:
        """What the student takes once the best move of every group was made, by the table."""
        return sum(min(option.cost_us for option in each) for each in self.options.values()) - self.overlap_us

    def within(self, budget_us: float) -> tuple[Change, float] | None:
        """The moves that keep most within a budget, or as near to it as there are moves, and what they save.

        Returns:
            None where no move is left.
        """
        from edgekit.pruning.changes import merged

        least_us = (self.least_us + self.overlap_us) * (1 + 1e-9)  # a sum of floats may be rounded below the sum
        chosen = choose(self.options, max(budget_us + self.overlap_us, least_us)).options
        moves = {(group.name, move.name): move.change for group in self.groups for move in group.moves}
        picked = [(name, one) for name, one in chosen.items() if (name, one.name) in moves]
        if not picked:
            return None
        saved_us = sum(max(option.cost_us for option in self.options[name]) - one.cost_us for name, one in picked)
        return merged(moves[name, one.name] for name, one in picked), saved_us


def groups_of(line: Line, model: TrainedModel, *, trained: bool = True) -> tuple[list[MoveGroup], list[str]]:
    """What may be left out of a student, and what may not and why; of one that learnt nothing no loss is asked.

    Raises:
        ModelError: Nothing may be left out.
    """
    from edgekit.pruning.criteria import NO_EVIDENCE
    from edgekit.pruning.moves import find_moves

    settings = line.settings
    by_weights = trained or settings.criterion in BY_WEIGHTS
    assert model.module is not None
    return find_moves(
        model.module,
        line.inputs,
        blocks=settings.blocks,
        channels=settings.channels,
        multiple=line.multiple,
        keep=settings.keep,
        criterion=settings.criterion if by_weights else "l2",
        evidence=line.evidence if trained else NO_EVIDENCE,
        base=line.base,
    )


def options_for(search: Search) -> Options | None:
    """What may be left out of the student as it stands; the latencies of moves that are not known yet are measured.

    Returns:
        None where nothing is left, after earlier steps.

    Raises:
        ModelError: Nothing of the unpruned student may be left out; says what ties it.
    """
    try:
        groups, notes = groups_of(search.line, search.now.model)
    except ModelError:
        if search.now.number == 0:
            raise
        return None
    search.table = table_of(search.line, search.now.model, groups, search.first.plan, search.plan_task, search.table)
    return _options(search.line, search.now.model, groups, search.table, search.now_ms * 1e3, notes)


def _options(
    line: Line,
    model: TrainedModel,
    groups: Sequence[MoveGroup],
    table: LatencyTable,
    whole_us: float,
    notes: Sequence[str],
) -> Options:
    """The same for a student that takes so long."""
    from edgekit.pruning.worth import worth_of

    assert model.module is not None
    asked = (model.sha256, *(group.name for group in groups))
    worth = line.worths.get(asked)
    if worth is None:
        worth = line.worths[asked] = worth_of(
            model.module,
            line.inputs,
            groups,
            line.evidence,
            criterion=line.settings.criterion,
            by=line.settings.importance,
            base=line.base,
            progress=line.progress,
        )
    table = dataclasses.replace(table, whole_us=whole_us)
    return Options(
        groups=groups,
        options=options_of(table, groups, worth),
        whole_us=whole_us,
        overlap_us=overlap_us(table, groups),
        notes=(*notes, *notes_of(table, groups)),
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Shape:
    """A student with something left out, before it has learnt anything.

    Attributes:
        model: The student.
        changes: What was done, in order.
        said: The same in words.
        times: How long it takes.
    """

    model: TrainedModel
    changes: tuple[Change, ...]
    said: tuple[str, ...]
    times: Times


def fitting_shape(search: Search, options: Options, aim_ms: float) -> Shape | None:
    """The student as it stands with less in it, until it is within an aim when it is compiled and measured.

    It goes in parts, and what each move loses is asked anew after each: of many blocks that hardly count alone, the
    last ones count a great deal. Latencies of moves add up only nearly, so a shape that misses its aim loses more.
    Which shape that is, is a step that is found again.

    Returns:
        None where nothing is left that saves time.
    """
    from edgekit.models import load_weights, save_weights
    from edgekit.pruning.changes import apply_change, as_json, from_json

    line, now = search.line, search.now.model
    assert now.module is not None
    key = {
        "edgekit": __version__,
        "tools": tool_versions("torch", "torch-pruning"),
        "module": now.sha256,
        "options": to_json(options.options),
        "aim_ms": aim_ms,
        "settings": line.settings.model_dump(include=SHAPED_BY),
        "multiple": line.multiple,
        "data": [parent.sha256 for parent in line.data.parents],
        "plan": str(search.first.plan),
        "seed": line.recipe.seed,
    }

    def make(folder: Path) -> None:
        module, changes, said, predicted_us = _shrunk(search, options, aim_ms)
        save_weights(module, folder / "model.safetensors")
        told = {"changes": [as_json(change) for change in changes], "said": said, "predicted_us": predicted_us}
        write_json(folder / SHAPE, told)
        assert search.table is not None, "options_for made it"
        write_table(search.table, folder / TABLE_FILE)

    folder = run_step(line.steps, "pruned-shape", key, make)
    found, search.table = read_json(folder / SHAPE), load_table(folder / TABLE_FILE)
    changes = tuple(from_json(change) for change in found["changes"])
    if not changes:
        return None
    module = _copy(now)
    for change in changes:
        apply_change(module, line.inputs, change)
    load_weights(module, folder / "model.safetensors", where="pruning")
    model = _as_model(line, module)
    times = _shape_times(search, model, found["predicted_us"], aim_ms)
    return Shape(model=model, changes=changes, said=tuple(found["said"]), times=times)


def _shrunk(search: Search, options: Options, aim_ms: float) -> tuple[Module, list[Change], list[str], float]:
    """A copy of the student with less in it, the changes in order and in words, and what it takes by the table."""
    from edgekit.pruning.changes import apply_change

    most_us = aim_ms * search.near(aim_ms) * 1e3
    line, aim_us, part_us = search.line, aim_ms * 1e3, PART * search.steps[0].times.p50_ms * 1e3
    module, model = _copy(search.now.model), search.now.model
    changes: list[Change] = []
    said: list[str] = []
    while True:
        part, options = _next(search, model, options, max(aim_us, options.whole_us - part_us))
        if part is None:
            return module, changes, said, options.whole_us
        change, left_us = part[0], options.whole_us - part[1]
        said += apply_change(
            module, line.inputs, change, criterion=line.settings.criterion, evidence=line.evidence, base=line.base
        )
        changes.append(change)
        model = _as_model(line, module)
        if left_us <= most_us:
            left_us = _taken_us(search, _shape_times(search, model, left_us, aim_ms), aim_ms)
            if left_us <= most_us:
                return module, changes, said, left_us
        try:
            groups, notes = groups_of(line, model)
        except ModelError:  # that something could be left out was seen before: now nothing is left
            return module, changes, said, left_us
        assert search.table is not None, "options_for made it"
        options = _options(line, model, groups, search.table, left_us, notes)


def _next(
    search: Search, model: TrainedModel, options: Options, goal_us: float
) -> tuple[tuple[Change, float] | None, Options]:
    """The next part of what goes; where the table knows nothing that is left, it learns what was changed meanwhile."""
    part, table = options.within(goal_us), search.table
    if part is not None or table is None or {group.alike for group in options.groups} <= {*table.classes}:
        return part, options
    search.table = table_of(search.line, model, options.groups, search.first.plan, search.plan_task, table)
    options = _options(search.line, model, options.groups, search.table, options.whole_us, options.notes)
    return options.within(goal_us), options


def _taken_us(search: Search, times: Times, aim_ms: float) -> float:
    """What a shape takes; at the budget what it may take, where no measuring tells on which side of it that is.

    A long training follows, which is in vain where the shape is beyond the budget after all.
    """
    first, share = search.steps[0].times, search.share_of(aim_ms)
    undecided = share is not None and times.within(share) is None
    return 1e3 * (most_ms(times, first) if undecided else normal_ms(times, first))


def _shape_times(search: Search, model: TrainedModel, predicted_us: float, aim_ms: float) -> Times:
    """How long a shape takes before it has learnt anything: latency does not hang on weights."""
    line, task, plan = search.line, search.plan_task, search.first.plan
    if task.not_measured is not None:
        return Times(p50_ms=predicted_us / 1e3)
    new, before, first = (compiled(line, one, plan, task) for one in (model, search.now.model, line.student))
    return time_in_turns(new, before, first, task, line.steps, search.share_of(aim_ms))


def _as_model(line: Line, module: Module) -> TrainedModel:
    """A module that something was left out of, by its own name and identity."""
    return dataclasses.replace(
        line.student,
        name=f"{line.student.name}, pruned",
        module=module,
        sha256=hash_json([state_hash(module), class_sources(module)]),
        parameters=count_parameters(module),
        training=None,
    )


def _copy(model: TrainedModel) -> Module:
    from edgekit.distillation.beginnings import copied

    assert model.module is not None
    return copied(model.module)
