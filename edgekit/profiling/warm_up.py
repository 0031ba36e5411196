"""Warm-up: queries until their latency is steady, found by a change point and not by a fixed count."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

LEAST_S = 0.2
MOST_S = 5.0
FEWEST_QUERIES = 20  # with fewer, no change of level could be told from chance

_WANTED_QUERIES = 50  # a slow start of a few dozen queries is then seen to end,
_WANTED_S = 1.0  # unless they take longer than this

_SINGLE = 100  # queries that are run one by one, so that the outputs of each are looked at
_CHUNK_S = 0.02
_MOST_CHUNK = 10_000
_GROWTH = 1.25  # how much more there is at each look, which keeps looking cheap
_MOST_BLOCKS = 2000
_SIGNIFICANT = 3.5  # standard deviations: about 1% of steady runs show that much somewhere, at any length
_LEAST_CHANGE = 0.05  # of the later level; smaller ones are the drift that the timed run itself is checked for
_LEAST_CHANGE_NS = 2000  # what the clock loop itself may cost

Latencies = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WarmUp:
    """What warming up gave.

    Attributes:
        latencies_ns: Every query, int64 [n].
        queries: How many of them come before the last change of level; 0 where there is none.
        settled: Whether what follows is steady and at least as long.
        query_ns: Median of what follows.
    """

    latencies_ns: Latencies
    queries: int
    settled: bool
    query_ns: float


def warm_up(take: Callable[[int], Latencies], longest_s: float) -> WarmUp:
    """Runs queries until the part after the last change of level is steady and at least as long as the part before.

    At least 0.2 s and 50 queries (20 where they take over 1 s), at most 5 s; a model so slow that 20 queries take
    longer than that gets ``longest_s``.

    Args:
        take: Runs that many queries and gives their latencies in ns.
        longest_s: Longest time under load in any case, in seconds.
    """
    chunks: list[Latencies] = []
    queries, spent_ns, look_at, size = 0, 0, 0, 1
    while True:
        chunk = take(size)
        chunks.append(chunk)
        queries += len(chunk)
        spent_ns += int(chunk.sum())
        if queries >= _SINGLE:
            size = int(min(max(_CHUNK_S * 1e9 * queries / max(spent_ns, 1), 1), _MOST_CHUNK))
        over = spent_ns >= (min(MOST_S, longest_s) if queries >= FEWEST_QUERIES else longest_s) * 1e9
        if over or (queries >= look_at and _enough(queries, spent_ns / 1e9)):
            latencies_ns = np.concatenate(chunks)
            start = steady_from(latencies_ns)
            settled = queries - start >= max(start, FEWEST_QUERIES)
            if settled or over:
                query_ns = float(np.median(latencies_ns[start:]))
                return WarmUp(latencies_ns=latencies_ns, queries=start, settled=settled, query_ns=query_ns)
            look_at = math.ceil(queries * _GROWTH)


def _enough(queries: int, seconds: float) -> bool:
    wanted = _WANTED_QUERIES if seconds < _WANTED_S else FEWEST_QUERIES
    return queries >= wanted and seconds >= LEAST_S


def steady_from(latencies_ns: Latencies) -> int:
    """The index after the last change of level: 0 where there is none."""
    start = 0
    while (change := change_point(latencies_ns[start:])) is not None:
        start += change
    return start


def change_point(latencies_ns: Latencies) -> int | None:
    """Where the level most likely changes once, or None where no change can be told from chance or it is too small.

    The statistic is the rank sum of Pettitt (1979), "A non-parametric approach to the change-point problem", Applied
    Statistics 28(2), so that spikes weigh no more than any slow query. It is divided by its standard deviation at each
    place, as Hawkins and Deng (2010) do, "A nonparametric change-point control chart", Journal of Quality Technology
    42(2): a warm-up of 30 queries before thousands would not be seen otherwise.

    Args:
        latencies_ns: Latencies in the order they were taken, int64 [n]; long series are judged by medians of blocks.

    Returns:
        How many come before the change.
    """
    block = math.ceil(len(latencies_ns) / _MOST_BLOCKS)
    whole = len(latencies_ns) // max(block, 1) * block
    levels = np.median(latencies_ns[:whole].reshape(-1, block), axis=1) if block > 1 else latencies_ns
    n = len(levels)
    if n < 2:
        return None
    before = np.arange(1, n, dtype=np.float64)
    rank_sums = 2 * np.cumsum(_ranks(levels))[:-1] - before * (n + 1)
    deviations = np.abs(rank_sums) / np.sqrt(before * (n - before) * (n + 1) / 3)
    change = int(deviations.argmax()) + 1
    earlier, later = float(np.median(levels[:change])), float(np.median(levels[change:]))
    if deviations[change - 1] < _SIGNIFICANT or abs(earlier - later) < max(_LEAST_CHANGE * later, _LEAST_CHANGE_NS):
        return None
    # Ranks tell that there is a change, and only roughly where: what lies on which side of the middle tells better.
    middle = (earlier + later) / 2
    as_before = latencies_ns > middle if earlier > later else latencies_ns < middle
    return int(np.cumsum(np.where(as_before, 1, -1))[:-1].argmax()) + 1


def _ranks(values: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
    """Ranks from 1; equal values share their mean rank."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: npt.NDArray[np.float64] = (last - (counts - 1) / 2)[places]
    return ranks
