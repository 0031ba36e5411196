"""A histogram of latencies whose buckets grow by a factor, and whose limits are edges: who is over one is counted."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence

_SHORTEST_S = 1e-5
_A_DOUBLING = 4  # buckets
_DOUBLINGS = 24  # up to 168 s


def edges_with(limits_s: Iterable[float]) -> tuple[float, ...]:
    """Upper edges of the buckets in seconds: four a doubling from 10 µs to 168 s, and the limits themselves."""
    grid = {float(f"{_SHORTEST_S * 2 ** (i / _A_DOUBLING):.4g}") for i in range(_A_DOUBLING * _DOUBLINGS + 1)}
    return tuple(sorted(grid | set(limits_s)))


def bucket(edges: Sequence[float], seconds: float) -> int:
    """The bucket of a latency; the last one, past all edges, has no upper edge."""
    return bisect_left(edges, seconds)


def over(counts: Mapping[int, int], edges: Sequence[float], limit_s: float) -> int:
    """How many latencies are longer than a limit that is an edge."""
    first = bisect_left(edges, limit_s)
    return sum(count for place, count in counts.items() if place > first)


def quantile(counts: Mapping[int, int], edges: Sequence[float], q: float) -> float | None:
    """A quantile in seconds, by the share of its bucket's logarithm; None where nothing was counted."""
    total = sum(counts.values())
    rank, seen = q * total, 0
    for place in sorted(counts):
        if counts[place] and seen + counts[place] >= rank:
            if place == len(edges):
                return edges[-1]
            low = edges[place - 1] if place else edges[0] / 2
            return float(low * (edges[place] / low) ** max((rank - seen) / counts[place], 0.0))
        seen += counts[place]
    return None


def surely_over(over_limit: int, count: int, allowed: float) -> bool:
    """Whether more than a share is over a limit, at 99% confidence: the binomial tail of so many is under 1%.

    Args:
        over_limit: How many are over it.
        count: Of how many.
        allowed: The share that may be, 0 to 1; of 0 a single one is too many.
    """
    if over_limit <= count * allowed:
        return False
    if allowed <= 0.0:
        return over_limit > 0
    if allowed >= 1.0:
        return False
    # From the first term on each is smaller than the one before, for the count is past the mean.
    term = math.exp(
        math.lgamma(count + 1)
        - math.lgamma(over_limit + 1)
        - math.lgamma(count - over_limit + 1)
        + over_limit * math.log(allowed)
        + (count - over_limit) * math.log1p(-allowed)
    )
    tail, place = term, over_limit
    while place < count and term > tail * 1e-9:
        term *= (count - place) / (place + 1) * allowed / (1 - allowed)
        place += 1
        tail += term
    return tail < 0.01
