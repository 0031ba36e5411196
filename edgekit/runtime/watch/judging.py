"""What a device's last lines say against the limits that its bundle carries."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from edgekit.runtime.watch.latency import over, quantile, surely_over
from edgekit.runtime.watch.settings import PERCENTILES

Status = Literal["met", "beyond", "unknown"]
_SILENT = "it hangs, was killed, was stopped without closing its watch, or cannot write: is the disk full?"
_LEAST_OVER = 1  # of the queries that a percentile leaves over its limit: fewer prove nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedLimit:
    """One limit and what was found.

    Attributes:
        name: As in :data:`edgekit.runtime.watch.settings.LIMITS`.
        limit: What is allowed.
        found: What was found; None where it is not known.
        status: ``unknown``: not told by the machine, or too few queries yet.
        note: Of what: which tensor and channel, of how many queries.
    """

    name: str
    limit: float
    found: float | None
    status: Status
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recent:
    """What happened between two lines of one process.

    Attributes:
        seconds: Between them.
        queries: Answered.
        failed: Not answered.
        taken: Frames that a stream took.
        dropped: Frames that it dropped.
        latency: Counts by bucket.
        looked_at: Values of inputs and outputs that were looked at.
        not_finite: Of these, NaN or infinite.
        restarts: Processes that began in the time, but the first.
    """

    seconds: float
    queries: int
    failed: int
    taken: int
    dropped: int
    latency: Mapping[int, int]
    looked_at: int
    not_finite: int
    restarts: int = 0


def recent(lines: Sequence[Mapping[str, Any]], window_s: float) -> Recent:
    """What happened in the last ``window_s`` seconds of the process that wrote the last line.

    Only the process's own monotonic clock is asked: a device's wall clock may be off, or jump.

    Args:
        lines: Lines of states, the oldest first; at least one.
        window_s: Seconds back from the last line.
    """
    last = lines[-1]
    own = [line for line in lines if line["run"] == last["run"]]
    since = last["at_s"] - window_s
    first = next((line for line in reversed(own) if line["at_s"] <= since), own[0])
    counts = {int(place): count for place, count in last["latency"]["counts"].items()}
    for place, count in first["latency"]["counts"].items():
        counts[int(place)] = counts.get(int(place), 0) - count
    tensors = [[*line["inputs"].items(), *line["outputs"].items()] for line in (first, last)]
    sums = [{key: sum(t[key] for _, t in side) for key in ("looked_at", "not_finite")} for side in tensors]
    same_boot = [line for line in lines if line["boot"] == last["boot"] and line["at_s"] > since]
    return Recent(
        seconds=last["at_s"] - first["at_s"],
        **{key: last[key] - first[key] for key in ("queries", "failed", "taken", "dropped")},
        **{key: sums[1][key] - sums[0][key] for key in ("looked_at", "not_finite")},
        latency={place: count for place, count in counts.items() if count > 0},
        restarts=len({line["run"] for line in same_boot}) - 1,
    )


def judge(
    limits: Mapping[str, float],
    edges: Sequence[float],
    last: Mapping[str, Any],
    seen: Recent,
    silence_s: float | None = None,
) -> list[JudgedLimit]:
    """Judges every limit.

    Args:
        limits: By name.
        edges: Of the latencies' buckets; the limits are among them.
        last: The last line of a state.
        seen: What happened before it.
        silence_s: Seconds since that line; None: not known.
    """
    found = []
    for name, limit in limits.items():
        if name in PERCENTILES:
            found.append(_percentile(name, limit, edges, seen))
        elif name in ("failed_share", "dropped_share", "not_finite_share"):
            found.append(_share(name, limit, seen))
        elif name in ("drift", "saturated_share", "output_drift"):
            found.append(_tensors(name, limit, last))
        elif name == "silence_s":
            found.append(_silence(limit, last, silence_s))
        else:
            value = seen.restarts if name == "restarts" else last.get(name)
            found.append(_one(name, limit, value, "this machine does not tell"))
    return found


def _one(name: str, limit: float, found: float | None, why_unknown: str) -> JudgedLimit:
    if found is None:
        return JudgedLimit(name=name, limit=limit, found=None, status="unknown", note=why_unknown)
    return JudgedLimit(name=name, limit=limit, found=found, status="beyond" if found > limit else "met")


def _silence(limit: float, last: Mapping[str, Any], silence_s: float | None) -> JudgedLimit:
    if last["kind"] == "end":
        note = "it ended as it should"
        return JudgedLimit(name="silence_s", limit=limit, found=None, status="met", note=note)
    found = _one("silence_s", limit, silence_s, "written on another machine, or before this one started anew")
    if last["kind"] == "failed":
        return replace(found, note=f"it ended with {last.get('error', 'an error')}")
    return replace(found, note=_SILENT) if found.status == "beyond" else found


def _percentile(name: str, limit: float, edges: Sequence[float], seen: Recent) -> JudgedLimit:
    share, count = 1 - PERCENTILES[name], sum(seen.latency.values())
    seconds = quantile(seen.latency, edges, PERCENTILES[name])
    found = None if seconds is None else round(seconds * 1000, 4)
    slower = over(seen.latency, edges, limit / 1000)
    note = f"{slower} of {count} queries over it"
    if surely_over(slower, count, share):
        return JudgedLimit(name=name, limit=limit, found=found, status="beyond", note=note)
    enough = count * share >= _LEAST_OVER - 1e-9
    note += "" if enough else f"; {round(_LEAST_OVER / share)} are needed"
    return JudgedLimit(name=name, limit=limit, found=found, status="met" if enough else "unknown", note=note)


def _share(name: str, limit: float, seen: Recent) -> JudgedLimit:
    bad, of = {
        "failed_share": (seen.failed, seen.queries + seen.failed),
        "dropped_share": (seen.dropped, seen.taken),
        "not_finite_share": (seen.not_finite, seen.looked_at),
    }[name]
    what = {"failed_share": "queries", "dropped_share": "frames", "not_finite_share": "values looked at"}[name]
    if not of:
        return JudgedLimit(name=name, limit=limit, found=None, status="unknown", note=f"no {what} yet")
    beyond = surely_over(bad, of, limit)
    note = f"{bad} of {of} {what}"
    return JudgedLimit(name=name, limit=limit, found=bad / of, status="beyond" if beyond else "met", note=note)


def _tensors(name: str, limit: float, last: Mapping[str, Any]) -> JudgedLimit:
    tensors = last["outputs" if name == "output_drift" else "inputs"]
    key = "saturated" if name == "saturated_share" else "drift"
    worst = max(_values(tensors, key), default=None)
    if worst is None:
        counted = any(state["samples"] or not state["looked_at"] for state in tensors.values())
        note = "too few samples yet" if counted else "the bundle has no statistics"
        return JudgedLimit(name=name, limit=limit, found=None, status="unknown", note=note)
    found, tensor, channel = worst
    note, beyond = f"{tensor!r}, channel {channel}", found > limit
    if key == "saturated":
        values = tensors[tensor]["values"]
        beyond = surely_over(round(found * values), values, limit)
        note += f": {round(found * values)} of {values} values"
    return JudgedLimit(name=name, limit=limit, found=found, status="beyond" if beyond else "met", note=note)


def _values(tensors: Mapping[str, Any], key: str) -> Iterator[tuple[float, str, int]]:
    for tensor, state in tensors.items():
        for channel, value in enumerate(state[key] or ()):
            yield value, tensor, channel
