"""Networks in which one move is made, in all groups that are alike at once, so that what it saves can be told."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor, nn

from edgekit.errors import EdgeKitError
from edgekit.pruning.changes import Change, apply_change, merged
from edgekit.pruning.moves import MoveGroup

MadeT = TypeVar("MadeT")


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One move, made in all members of its class at once.

    Attributes:
        group: The first member.
        members: How many the class has.
        move: Name of the move.
        changes: Of each member that has the move.
    """

    group: MoveGroup
    members: int
    move: str
    changes: tuple[Change, ...]

    def __str__(self) -> str:
        return f"{self.group.name}, {self.move}"

    def tries(self) -> list[tuple[Change, ...]]:
        """In which members the move is made, best first: in all; in all but one of each list of blocks; in one.

        A network may not run without any block of a list, and layers may hold each other.
        """
        seen: set[tuple[str, ...]] = set()
        spared = []
        for change in self.changes:
            lists = tuple(sorted(change.blocks))
            if lists in seen:
                spared.append(change)
            seen.add(lists)
        tries = [self.changes, tuple(spared), self.changes[:1]]
        return [each for i, each in enumerate(tries) if each and (not i or len(each) < len(tries[i - 1]))]


def variants_of(groups: Sequence[MoveGroup]) -> list[Variant]:
    """Every move of every class, in the order of the groups."""
    classes: dict[str, list[MoveGroup]] = {}
    for group in groups:
        classes.setdefault(group.alike, []).append(group)
    return [
        Variant(
            group=members[0],
            members=len(members),
            move=name,
            changes=tuple(move.change for member in members for move in member.moves if move.name == name),
        )
        for members in classes.values()
        for name in dict.fromkeys(move.name for member in members for move in member.moves)
    ]


def made_of(
    variant: Variant, module: nn.Module, inputs: Mapping[str, Tensor], make: Callable[[nn.Module], MadeT]
) -> tuple[MadeT, int]:
    """What ``make`` gives for the module with a variant's move made, and in how many members it was made.

    Raises:
        EdgeKitError: It can be made in none.
    """
    failures: list[EdgeKitError] = []
    for changes in variant.tries():
        changed = copy.deepcopy(module)
        try:
            apply_change(changed, inputs, merged(changes))
            return make(changed), len(changes)
        except EdgeKitError as exc:
            failures.append(exc)
    raise failures[-1]
