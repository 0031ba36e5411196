"""A watch's state as Prometheus reads it: text format 0.0.4, for node_exporter's textfile collector or over HTTP."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from edgekit.runtime.watch.judging import JudgedLimit

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_GAUGES = {
    "memory_mb": ("edgekit_resident_memory_bytes", 1e6, "Resident memory of the process."),
    "memory_peak_mb": ("edgekit_peak_resident_memory_bytes", 1e6, "Its peak."),
    "memory_available_mb": ("edgekit_available_memory_bytes", 1e6, "What the machine has left."),
    "temperature_c": ("edgekit_temperature_celsius", 1.0, "Hottest sensor of the machine."),
}
_COUNTERS = {
    "failed": ("edgekit_queries_failed_total", "Queries that failed."),
    "untimed": ("edgekit_queries_untimed_total", "Queries whose clock was set back."),
    "taken": ("edgekit_frames_taken_total", "Frames that the stream took."),
    "dropped": ("edgekit_frames_dropped_total", "Frames that the stream dropped."),
    "sampled": ("edgekit_queries_sampled_total", "Queries whose values were looked at."),
    "write_failures": ("edgekit_watch_write_failures_total", "Times that the watch could not write."),
}


def prometheus_text(start: Mapping[str, Any], state: Mapping[str, Any], judged: Iterable[JudgedLimit]) -> str:
    """The whole page.

    Args:
        start: The first line of the run: the bundle's names and the edges of the latencies' buckets.
        state: The line of now.
        judged: Every limit of the bundle.
    """
    rows = [*_metric("edgekit_bundle_info", "gauge", "The bundle that runs.", [(start["bundle"], 1)])]
    rows += _latency(start["edges"], state["latency"])
    for key, (name, text) in _COUNTERS.items():
        rows += _metric(name, "counter", text, [({}, state[key])])
    for key, (name, factor, text) in _GAUGES.items():
        if state[key] is not None:
            rows += _metric(name, "gauge", text, [({}, state[key] * factor)])
    rows += _tensors(state)
    limits = list(judged)
    if limits:
        name, text = "edgekit_limit", "What the bundle allows."
        rows += _metric(name, "gauge", text, [({"limit": one.name}, one.limit) for one in limits])
        name, text = "edgekit_limit_beyond", "1: beyond the limit. What is not known has no row."
        known = [one for one in limits if one.status != "unknown"]
        rows += _metric(name, "gauge", text, [({"limit": o.name}, int(o.status == "beyond")) for o in known])
    return "\n".join(rows) + "\n"


def _latency(edges: Sequence[float], latency: Mapping[str, Any]) -> Iterator[str]:
    name, total = "edgekit_query_seconds", 0
    counts = {int(place): count for place, count in latency["counts"].items()}
    yield f"# HELP {name} Time of a query."
    yield f"# TYPE {name} histogram"
    for place, edge in enumerate(edges):
        total += counts.get(place, 0)
        yield f'{name}_bucket{{le="{edge!r}"}} {total}'
    total += counts.get(len(edges), 0)
    yield f'{name}_bucket{{le="+Inf"}} {total}'
    yield f"{name}_sum {latency['sum_s']!r}"
    yield f"{name}_count {total}"


def _tensors(state: Mapping[str, Any]) -> Iterator[str]:
    tensors = [(side, name, one) for side in ("input", "output") for name, one in state[f"{side}s"].items()]
    for key, name, text in (
        ("drift", "edgekit_drift_psi", "Population stability index against the calibration, by channel."),
        ("saturated", "edgekit_saturated_ratio", "Share of values outside the calibrated range, by channel."),
    ):
        yield from _metric(
            name,
            "gauge",
            text,
            [
                ({"side": side, "tensor": tensor, "channel": str(channel)}, value)
                for side, tensor, one in tensors
                for channel, value in enumerate(one[key] or ())
            ],
        )
    for key, name, text in (
        ("looked_at", "edgekit_values_total", "Values that were looked at."),
        ("not_finite", "edgekit_values_not_finite_total", "Of these, NaN or infinite."),
    ):
        rows = [({"side": side, "tensor": tensor}, one[key]) for side, tensor, one in tensors]
        yield from _metric(name, "counter", text, rows)


def _metric(name: str, kind: str, text: str, rows: Sequence[tuple[Mapping[str, str], float]]) -> Iterator[str]:
    """Nothing where there are no rows."""
    if rows:
        yield f"# HELP {name} {text}"
        yield f"# TYPE {name} {kind}"
    for labels, value in rows:
        inner = ",".join(f'{label}="{_escaped(given)}"' for label, given in labels.items())
        yield f"{name}{{{inner}}} {value!r}" if inner else f"{name} {value!r}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
