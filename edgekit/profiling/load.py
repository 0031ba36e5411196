"""How a session is loaded while it is timed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSpec:
    """The load generator's settings; plain, so that it travels to a device as JSON.

    Attributes:
        scenario: ``single_stream`` (closed loop, one query in flight) or ``batch`` (the same with full batches).
        batch: Samples a query.
        min_seconds: Shortest time under load, per candidate.
        min_count: Fewest queries kept, per candidate.
        percentiles: Percentiles that must be supported by enough queries, e.g. ``(50.0, 99.0)``.
        turn_queries: Queries a turn, the first of which is dropped (at least 10; more for short ones).
        timeout_s: Longest silence of a measuring process before it is called hung.
    """

    scenario: str = "single_stream"
    batch: int = 1
    min_seconds: float = 3.0
    min_count: int = 700
    percentiles: tuple[float, ...] = (50.0, 90.0, 99.0)
    turn_queries: int = 10
    timeout_s: float = 120.0
