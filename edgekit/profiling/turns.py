"""How many queries a turn takes and when a candidate has enough, the same for a parent and a lone process."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgekit.artifact import Array
from edgekit.profiling.load import LoadSpec
from edgekit.profiling.statistics import queries_needed

MOST_TURN_QUERIES = 50_000  # bounds the arrays of a turn when a query takes next to nothing


@dataclass(slots=True, kw_only=True)
class Pace:
    """How far one candidate is.

    Attributes:
        kept: Queries kept so far; the first of each turn is not.
        seconds: Time under load so far.
        query_s: Shortest mean time of a query in one turn, None before the first turn.
    """

    kept: int = 0
    seconds: float = 0.0
    query_s: float | None = None

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

    def share(self, load: LoadSpec) -> float:
        """How much of what is wanted is done, 0 to 1; 1 is enough."""
        seconds = self.seconds / load.min_seconds if load.min_seconds else 1.0
        return min(1.0, self.kept / queries_wanted(load), seconds)


def queries_wanted(load: LoadSpec) -> int:
    """Fewest kept queries: the load's own count, and what each of its percentiles needs for a bound."""
    return max([load.min_count, *(queries_needed(q) for q in load.percentiles)])
