"""Where an engine ran what, and in which precision, from its own record; opening a model does without."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Measure = Literal["nodes", "macs", "time"]
RECORDED_RUNS = 4  # of a placement's record: the first warms up
RECORDED_S = 5.0  # after which two must do


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedNode:
    """One node as the engine really ran it.

    Attributes:
        name: Node name in the engine's executed graph.
        op: Operator as the engine calls it.
        precision: Element type it computed in, e.g. ``int8`` or ``fp32``.
        compute: True for operators that do multiply-accumulates (convolutions, matrix products).
        time_us: Time spent in it in one profiled run, or None where the engine does not say.
        macs: Multiply-accumulates of one run; None where the engine's record does not tell them, and for what is no
            ``compute``.
        weights: ``int8``, ``int4`` or ``int2`` where it is known to hold its weights that small, whatever it computes
            in; else None.
        origins: Names in the model's file that it was made of, as far as the engine says.
    """

    name: str
    op: str
    precision: str
    compute: bool
    time_us: float | None = None
    macs: int | None = None
    weights: str | None = None
    origins: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where and in what precision the engine ran each node, from its own record."""

    device: str
    nodes: tuple[PlacedNode, ...]

    def share(self, precision: str, by: Measure = "nodes") -> float | None:
        """How much of the model ran in ``precision``, 0 to 1.

        Args:
            precision: E.g. ``int8``.
            by: ``nodes``: of all compute nodes; ``macs``: of their multiply-accumulates; ``time``: of the time of all
                nodes, those that only move or convert data included.

        Returns:
            The share; None where there is no compute node, or what is asked for is not known of every node.
        """
        nodes = [node for node in self.nodes if node.compute]
        if not nodes:
            return None
        if by == "nodes":
            amounts: list[float | None] = [1.0] * len(nodes)
        elif by == "macs":
            amounts = [node.macs for node in nodes]
        else:
            nodes = list(self.nodes)
            amounts = [node.time_us for node in nodes]
        known = [amount for amount in amounts if amount is not None]
        if len(known) < len(amounts) or not sum(known):
            return None
        return sum(a for a, node in zip(known, nodes, strict=True) if node.precision == precision) / sum(known)


def parse_placement(raw: Mapping[str, Any]) -> Placement:
    """Builds a placement from its JSON form."""
    nodes = (PlacedNode(**node | {"origins": tuple(node["origins"])}) for node in raw["nodes"])
    return Placement(device=raw["device"], nodes=tuple(nodes))


def recorded_runs() -> Iterator[int]:
    """As many turns as a placement's record has runs: fewer where they are slow, two at least."""
    start = time.monotonic()
    for run in range(RECORDED_RUNS):
        if run >= 2 and time.monotonic() - start > RECORDED_S:
            return
        yield run
