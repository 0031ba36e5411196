"""From what moves save to options of a knapsack, and what is said of moves that are none."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from edgekit.errors import ModelError
from edgekit.pruning.knapsack import Option
from edgekit.table_file import LatencyTable

if TYPE_CHECKING:
    from edgekit.pruning.moves import MoveGroup

WHOLE = "whole"
REST = "everything else"


def options_of(
    table: LatencyTable, groups: Sequence[MoveGroup], worth: Mapping[str, Mapping[str, float]]
) -> dict[str, list[Option]]:
    """Options for :func:`edgekit.pruning.knapsack.choose`, in microseconds: of each group, and of everything else.

    A group costs what its best move saves, a move what it saves less than that; what no move saves is one group of one
    option. So a choice costs what the network takes with it, savings taken to add up, and :func:`overlap_us` more.

    Args:
        table: What moves save.
        groups: What may be pruned; those without a move that is shown to save time get no entry.
        worth: How much is lost with a move, by group and move; see :func:`edgekit.pruning.worth.worth_of`.

    Raises:
        ModelError: The worth of a move that could be chosen is not known.
    """
    options = {}
    for group in groups:
        saved = shown_of(table, group)
        if not saved:
            continue
        most = max(saved.values())
        options[group.name] = [Option(name=WHOLE, cost_us=most, importance=0.0)]
        for move, saved_us in saved.items():
            if move not in worth.get(group.name, {}):
                raise ModelError(
                    f"group {group.name!r}, move {move!r}: its worth is not known",
                    found=", ".join(worth.get(group.name, {})) or "no worth of any move of the group",
                    fix="give the worth of every move of every group",
                )
            lost = worth[group.name][move]
            if math.isfinite(lost):  # else the network says nothing any more without it
                options[group.name].append(Option(name=move, cost_us=max(0.0, most - saved_us), importance=-lost))
    return options | {REST: [Option(name=WHOLE, cost_us=max(0.0, _rest_us(table, groups)), importance=0.0)]}


def overlap_us(table: LatencyTable, groups: Sequence[MoveGroup]) -> float:
    """By how much the best moves of all groups save more than the whole network takes; 0 where they do not.

    That is so where they save the same time twice, as blocks and the channels that go through them do, or by noise.
    A budget for the options of :func:`options_of` is larger by so much.
    """
    return max(0.0, -_rest_us(table, groups))


def notes_of(table: LatencyTable, groups: Sequence[MoveGroup]) -> list[str]:
    """What was left out of the options of some groups and why, in words."""
    unknown = [
        f"{group.name}, {move.name}: left out, for no latency of it is known"
        for group in groups
        for move in group.moves
        if group.alike not in table.classes
    ]
    notes = [*table.notes, *table.not_shown, *unknown]
    over_us = overlap_us(table, groups)
    if over_us:
        notes.append(
            f"the best moves of all groups save {table.whole_us + over_us:.3g} µs of {table.whole_us:.3g} µs: "
            "some save the same time twice, or it is noise; together they save less than the table says"
        )
    return notes


def shown_of(table: LatencyTable, group: MoveGroup) -> dict[str, float]:
    """What the moves of a group save that are shown to save time, in microseconds, by move."""
    rows = {row.move: row for row in table.rows if row.alike == group.alike and row.shown}
    return {move.name: rows[move.name].saved_us for move in group.moves if move.name in rows}


def _rest_us(table: LatencyTable, groups: Sequence[MoveGroup]) -> float:
    return table.whole_us - math.fsum(max(shown_of(table, group).values(), default=0.0) for group in groups)
