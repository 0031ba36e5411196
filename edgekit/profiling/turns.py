"""How many queries a turn takes and when a candidate has enough, the same for a parent and a lone process."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from edgekit.artifact import Array
from edgekit.profiling.dependence import FEWEST_EFFECTIVE, effective_size
from edgekit.profiling.load import LoadSpec
from edgekit.profiling.statistics import bounds_of, queries_needed

MOST_TURN_QUERIES = 50_000  # bounds the arrays of a turn when a query takes next to nothing
# How much longer than planned a run may take because its queries hang together: so many times, or so many seconds.
PATIENCE = 3.5
PATIENCE_S = 1.0
_SPARE = 1.1  # more queries than the correlation seen so far asks for, so that one look is mostly enough


@dataclass(slots=True, kw_only=True)
class Pace:
    """How far one candidate is.

    Attributes:
        kept: Queries kept so far; the first of each turn is not.
        seconds: Time under load so far.
        query_s: Shortest mean time of a query in one turn, None before the first turn.
        latencies_ms: Kept latencies by turn.
        planned_s: Time under load when it first had the load's own count and seconds.
        wanted: Kept queries that the correlation seen so far asks for.
        enough: Whether it has all it needs; it takes turns on while others do not.
    """

    kept: int = 0
    seconds: float = 0.0
    query_s: float | None = None
    latencies_ms: list[Array] = field(default_factory=list)
    planned_s: float | None = None
    wanted: int = 0
    enough: bool = False

    def next_turn(self, load: LoadSpec) -> int:
        """Queries of the next turn: the load's own number, more where queries are so short that it would be brief."""
        if self.query_s is None:
            return load.turn_queries
        lasting = math.ceil(load.shortest_turn_s / max(self.query_s, 1e-9))
        return max(load.turn_queries, min(lasting, MOST_TURN_QUERIES))

    def took(self, queries: int, seconds: float, application_ms: Array | None = None) -> None:
        """Notes a finished turn.

        Args:
            queries: How many it had.
            seconds: How long it took.
            application_ms: Their latencies, the first one's too, shape [queries]; None where they are not at hand.
        """
        self.kept += queries - 1
        self.seconds += seconds
        mean_s = seconds / queries
        self.query_s = mean_s if self.query_s is None else min(self.query_s, mean_s)
        if application_ms is not None:
            self.latencies_ms.append(application_ms[1:])

    def share(self, load: LoadSpec) -> float:
        """How much of what is wanted is done, 0 to 1; 1 is enough.

        With the load's own count and seconds done, it goes on while the effective size is too small for one of the
        load's percentiles or for telling a drift, up to 3.5 times as long as planned (a second at least) and never
        beyond ``max_seconds``.
        """
        if self.enough:
            return 1.0
        share = self._share(load)
        self.enough = share >= 1
        return share

    def _share(self, load: LoadSpec) -> float:
        seconds = self.seconds / load.min_seconds if load.min_seconds else 1.0
        planned = min(1.0, self.kept / queries_wanted(load), seconds)
        if self.seconds >= load.max_seconds:
            return 1.0
        if planned < 1 or not self.latencies_ms:
            return planned
        if self.planned_s is None:
            self.planned_s = self.seconds
        if self.seconds >= max(PATIENCE_S, PATIENCE * self.planned_s):
            return 1.0
        if self.kept >= self.wanted:
            self.wanted = self._asked_for(load)
        return min(1.0, self.kept / self.wanted)

    def _asked_for(self, load: LoadSpec) -> int:
        """Queries needed if successive ones go on hanging together as they did; no more than kept when enough."""
        latencies = np.concatenate(self.latencies_ms)
        wanted = self.kept
        effective = effective_size(latencies, 0.5)
        if load.percentiles and effective < FEWEST_EFFECTIVE:
            wanted = max(wanted, math.ceil(self.kept * FEWEST_EFFECTIVE / effective * _SPARE))
        for q in load.percentiles:
            bounds = bounds_of(latencies, q)
            if bounds.upper_ms is None:
                wanted = max(wanted, math.ceil(self.kept * queries_needed(q) / bounds.effective_n * _SPARE))
        return wanted


def queries_wanted(load: LoadSpec) -> int:
    """Fewest kept queries: the load's own count, and what each of its percentiles needs for a bound."""
    return max([load.min_count, *(queries_needed(q) for q in load.percentiles)])
