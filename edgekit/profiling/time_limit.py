"""The longest time of a load: what is refused before the timed run starts, and when a candidate ends."""

from __future__ import annotations

import math

from edgekit.profiling.load import LoadSpec
from edgekit.profiling.statistics import queries_needed
from edgekit.profiling.turns import Pace

_SPARE = 1.2  # first queries of turns are dropped, and no query is exactly as fast as the last


def refusal(load: LoadSpec, query_s: float) -> str | None:
    """Why a load cannot support a percentile it asks for, and what to change; None where it can.

    Args:
        load: The load, with its percentiles and its longest time.
        query_s: Time of one query after warm-up, in seconds.
    """
    needed = {q: queries_needed(q) for q in load.percentiles}
    over = [q for q in sorted(needed) if needed[q] * query_s > load.max_seconds]
    if not over:
        return None
    worst = over[-1]
    seconds = needed[worst] * query_s
    dropped = " and ".join(f"p{q:g}" for q in over)
    return (
        f"p{worst:g} needs {needed[worst]:,} queries, about {_seconds(seconds)} s at {query_s * 1e3:.3g} ms a query; "
        f"max_seconds is {load.max_seconds:g}: raise it to {math.ceil(seconds * _SPARE)}, or drop {dropped}"
    )


def time_is_up(pace: Pace, load: LoadSpec, queries: int) -> bool:
    """Whether a turn of so many queries would go beyond the load's longest time; the first turn is always taken."""
    return pace.query_s is not None and pace.seconds + queries * pace.query_s > load.max_seconds


def _seconds(seconds: float) -> str:
    return f"{seconds:,.0f}" if seconds >= 10 else f"{seconds:.1f}"
