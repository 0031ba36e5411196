"""What was measured of one artifact, as JSON values: summaries, a histogram and a timeline, not raw latencies."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgekit.artifact import Array, to_json
from edgekit.profiling.conditions import caveats, spoiled
from edgekit.profiling.dependence import drift
from edgekit.profiling.load import LoadSpec
from edgekit.profiling.measured import Measured
from edgekit.profiling.statistics import summarise
from edgekit.verdict import peak_memory_mb

BINS = 64
SLICES = 120
WARM_UP_SHOWN = 200
_TAIL = 99.9  # what is slower is counted and not drawn: one hiccup would squeeze everything else into a line
_PICTURES = ("histogram", "timeline", "conditions")


def measured_report(measured: Measured | None, load: LoadSpec) -> dict[str, Any] | None:
    """What was measured, as a report has it; None where nothing was.

    Args:
        measured: Latencies and resources.
        load: How they were driven, and how much load of others is borne.
    """
    if measured is None:
        return None
    ok = measured.status == "ok"
    conditions = measured.conditions
    return {
        "status": measured.status,
        "reason": measured.reason,
        "started_at": measured.started_at,
        "engine_version": measured.engine_version,
        "turns": measured.turns,
        "load_ms": measured.load_ms,
        "cold_load_ms": list(measured.cold_load_ms),
        "cached_load_ms": list(measured.cached_load_ms),
        "first_inference_ms": measured.first_inference_ms,
        "first_inferences_ms": list(measured.first_inferences_ms),
        "peak_memory_mb": dict(measured.peak_memory_mb),
        "highest_memory_mb": peak_memory_mb(measured),
        "warm_up": {
            "queries": measured.warm_up_queries,
            "settled": measured.warm_up_settled,
            "ms": measured.warm_up_ms[:WARM_UP_SHOWN].round(6).tolist(),
        },
        "application": to_json(summarise(measured.application_ms)) if ok else None,
        "engine": to_json(summarise(measured.engine_ms)) if ok else None,
        "drift": drift(measured.application_ms) if ok else None,
        "spoiled": spoiled(conditions, load) if conditions else None,
        "caveats": _caveats(measured),
        "conditions": to_json(conditions) if conditions else None,
        "histogram": histogram(measured.application_ms) if ok else None,
        "timeline": timeline(measured) if ok else None,
    }


def without_pictures(report: dict[str, Any] | None) -> dict[str, Any] | None:
    """The same for a manifest: a device needs no pictures."""
    return None if report is None else {name: value for name, value in report.items() if name not in _PICTURES}


def histogram(latencies_ms: Array) -> dict[str, Any]:
    """Counts of latencies in bins of equal ratio from the shortest to the 99.9th percentile, and of those beyond."""
    low, high = float(latencies_ms.min()), float(np.percentile(latencies_ms, _TAIL))
    if high <= low:
        high = low + max(abs(low) * 1e-3, 1e-6)
    # Equal widths would put the bulk of a heavy-tailed run into one bin.
    counts, edges = np.histogram(latencies_ms, bins=(np.geomspace if low > 0 else np.linspace)(low, high, BINS + 1))
    return {
        "edges_ms": edges.round(7).tolist(),
        "counts": counts.tolist(),
        "below": 0,
        "above": int((latencies_ms > high).sum()),
    }


def timeline(measured: Measured) -> dict[str, Any]:
    """Median, 90th percentile and longest latency of successive turns, in at most 120 slices."""
    turns = np.split(measured.application_ms, np.cumsum(measured.turn_sizes)[:-1])
    spent_s = np.cumsum([0.0, *(turn.sum() / 1e3 for turn in turns[:-1])])
    starts = measured.turn_started_s or spent_s
    slices = [[i for i in part if turns[i].size] for part in np.array_split(np.arange(len(turns)), SLICES)]
    drawn = [(starts[part[0]], np.concatenate([turns[i] for i in part])) for part in slices if part]
    return {
        "seconds": [round(float(start), 4) for start, _ in drawn],
        "p50_ms": [round(float(np.median(latencies)), 6) for _, latencies in drawn],
        "p90_ms": [round(float(np.percentile(latencies, 90)), 6) for _, latencies in drawn],
        "max_ms": [round(float(latencies.max()), 6) for _, latencies in drawn],
    }


def _caveats(measured: Measured) -> list[str]:
    notes = [] if measured.conditions is None else caveats(measured.conditions)
    return notes + ([measured.cached_load_note] if measured.cached_load_note else [])
