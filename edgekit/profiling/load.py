"""How a session is loaded while it is timed."""

from __future__ import annotations

from dataclasses import dataclass

from edgekit.errors import MeasurementError

SCENARIOS = ("single_stream", "batch")
FEWEST_TURN_QUERIES = 10
# A turn of sides that are compared with each other: what disturbs the machine then disturbs all of them alike.
COMPARED_TURN_S = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSpec:
    """The load generator's settings; plain, so that it travels to a device as JSON.

    Attributes:
        scenario: ``single_stream`` (closed loop, one query in flight) or ``batch`` (the same with full batches).
        batch: Samples a query.
        min_seconds: Shortest time under load, per candidate.
        max_seconds: Longest; percentiles that need more are refused before the timed run.
        min_count: Fewest queries kept, per candidate.
        percentiles: Percentiles that must be supported by enough queries, e.g. ``(50.0, 99.0)``.
        turn_queries: Queries a turn, the first of which is dropped (at least 10; more for short ones).
        shortest_turn_s: Time a turn lasts at least, by queries beyond that number. Shorter turns compare more sharply.
        cold_loads: Fresh processes in which an artifact is loaded, the measuring one included; with 1 it is not loaded
            from the engine's cache either.
        timeout_s: Longest silence of a measuring process before it is called hung.
        max_other_load: Share of the CPUs' time, 0 to 1, that others may use before the run is called spoiled.
    """

    scenario: str = "single_stream"
    batch: int = 1
    min_seconds: float = 3.0
    max_seconds: float = 60.0
    min_count: int = 700
    percentiles: tuple[float, ...] = (50.0, 90.0, 99.0)
    turn_queries: int = 10
    shortest_turn_s: float = 0.05
    cold_loads: int = 3
    timeout_s: float = 120.0
    max_other_load: float = 0.10

    def __post_init__(self) -> None:
        checks = {
            "scenario": (self.scenario in SCENARIOS, " or ".join(SCENARIOS)),
            "batch": (self.batch >= 1, "1 or more"),
            "min_seconds": (self.min_seconds >= 0, "0 or more"),
            "max_seconds": (self.max_seconds >= self.min_seconds, f"min_seconds ({self.min_seconds:g}) or more"),
            "min_count": (self.min_count >= 1, "1 or more"),
            "percentiles": (all(0 < q < 100 for q in self.percentiles), "each above 0 and below 100"),
            # Shorter turns let one session's spinning threads disturb the next.
            "turn_queries": (self.turn_queries >= FEWEST_TURN_QUERIES, f"{FEWEST_TURN_QUERIES} or more"),
            "shortest_turn_s": (self.shortest_turn_s >= 0, "0 or more"),
            "cold_loads": (self.cold_loads >= 1, "1 or more"),
            "timeout_s": (self.timeout_s > 0, "above 0"),
            "max_other_load": (0 <= self.max_other_load <= 1, "0 to 1"),
        }
        for name, (right, allowed) in checks.items():
            if not right:
                raise MeasurementError(f"load: {name} is out of range", found=getattr(self, name), allowed=allowed)
