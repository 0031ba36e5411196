"""Made-up latency tables, move groups, and a network whose blocks may be left out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from edgekit.artifact import to_json
from edgekit.profiling.host import this_host
from edgekit.pruning.changes import Change
from edgekit.pruning.moves import Move, MoveGroup
from edgekit.table_file import LatencyTable, Row

INPUTS = {"input": torch.rand(2, 4, generator=torch.Generator().manual_seed(0))}


class Block(nn.Module):
    """Two layers with a way around. Input ``[n, 4]``."""

    def __init__(self, hidden: int = 8) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(4, hidden), nn.Linear(hidden, 4)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(torch.relu(self.up(x)))


class Stack(nn.Module):
    """Blocks in lists that go one after another. Input ``[n, 4]``."""

    def __init__(self, *lists: int) -> None:
        super().__init__()
        self.stages = nn.ModuleDict({f"s{i}": nn.Sequential(*(Block() for _ in range(n))) for i, n in enumerate(lists)})
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        for stage in self.stages.values():
            x = stage(x)
        return self.head(x)


def block_group(
    number: int, *, path: str = "stages.s0", alike: str = "block", widths: tuple[int, ...] = ()
) -> MoveGroup:
    """A block that may be left out, or have fewer of its 8 hidden channels."""
    name = f"{path}.{number}"
    fewer = [Move(name=f"{w} of 8 channels", change=Change(widths={f"{name}.up": w})) for w in widths]
    removed = Move(name="removed", change=Change(blocks={path: (number,)}))
    return MoveGroup(name=name, kind="block", alike=alike, moves=(removed, *fewer))


def group(name: str, *moves: str, alike: str = "block") -> MoveGroup:
    """A group whose moves are names only."""
    return MoveGroup(name=name, kind="block", alike=alike, moves=tuple(Move(name=m, change=Change()) for m in moves))


def row(move: str, saved_us: float, low_us: float | None = None, high_us: float | None = None, **fields: Any) -> Row:
    """A row; without an interval it is shown."""
    known = {"alike": "block", "kind": "block", "group": "layer1.0", "members": 1}
    low_us, high_us = saved_us if low_us is None else low_us, saved_us if high_us is None else high_us
    return Row(**known | {"move": move, "saved_us": saved_us, "low_us": low_us, "high_us": high_us} | fields)


def table(*rows: Row, whole_us: float = 100.0, **fields: Any) -> LatencyTable:
    """A table that was measured here."""
    known = {
        "engine": "null",
        "precision": "fp32",
        "source": "measured",
        "host": to_json(this_host()),
        "rows": rows,
        "classes": tuple(dict.fromkeys(r.alike for r in rows)),
        "seconds": 1.0,
    }
    return LatencyTable(**known | {"whole_us": whole_us} | fields)
