"""The tables of the page: cells with the value they are sorted by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgekit.reporting.pictures import shorten
from edgekit.reporting.pictures_latency import percentiles_of
from edgekit.reporting.placing import int8_share
from edgekit.reporting.tables import (
    LIMIT_NAMES,
    UNITS,
    bounds,
    count,
    hundredths,
    interval,
    milliseconds,
    number,
    percent,
    share,
)
from edgekit.reporting.tried import verdict_of

DASH = "\N{EN DASH}"
MINUS = "\N{MINUS SIGN}"
# What was given in the state of a host, by its key; a key that is not here is shown as it is.
STATE_NAMES = {
    "governor": "governor",
    "frequency_mhz": "clock, MHz",
    "min_frequency_mhz": "lowest clock allowed, MHz",
    "max_frequency_mhz": "highest clock allowed, MHz",
    "hardware_max_mhz": "highest clock of the CPU, MHz",
    "temperature_c": "hottest zone, °C",
    "throttle_count": "times throttled since boot",
    "throttled": "throttled now",
    "throttled_since_boot": "throttled since boot",
    "load_average": "load average, 1 min",
    "memory_available_mb": "memory available, MB",
}
OVER_RUN = {
    "seconds": "time under watch, s",
    "other_load": "CPU time used by others",
    "steal": "CPU time the hypervisor took",
    "waited": "our threads stood ready and waited",
    "cpu_limit": "container's CPU limit",
    "periods": "periods of that limit",
    "throttled_periods": "periods the limit stopped us",
    "memory_limit_mb": "container's memory limit, MB",
}
SHARES = ("other_load", "steal", "waited")


@dataclass(frozen=True, slots=True)
class Head:
    """A column's name, and whether its cells are numbers."""

    name: str
    numeric: bool = False


@dataclass(frozen=True, slots=True)
class Cell:
    """What is shown, what it is sorted by (None: last), how it looks, what is said below it, and its anchor."""

    text: str
    value: float | str | None = None
    look: str = ""
    below: str = ""
    link: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """A table of the page.

    Attributes:
        identity: Unique on the page.
        caption: Its name.
        head: Its columns.
        rows: Its cells; the column ``name_at`` names the row.
        sortable: Whether a click on a column sorts it.
        name_at: Which column names the row.
        marked: Numbers of the rows that ship.
        marked_as: What is said of them to those who do not see the star.
        folded: Whether it is opened by a click.
    """

    identity: str
    caption: str
    head: Sequence[Head]
    rows: Sequence[Sequence[Cell]]
    sortable: bool = True
    name_at: int = 0
    marked: frozenset[int] = frozenset()
    marked_as: str = "ships"
    folded: bool = False


def plain(value: object) -> str:
    """Any value of the report as text."""
    if value is None or value == []:
        return DASH
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.1f}".removesuffix(".0") if abs(value) >= 100 else f"{value:.4g}".replace("-", MINUS)
    if isinstance(value, (list, tuple)):
        return ", ".join(plain(part) for part in value)
    return f"{value:,}" if isinstance(value, int) else str(value)


def figure(shown: str, value: float | None, look: str = "") -> Cell:
    """A cell of a number; a dash where there is none."""
    return Cell(DASH, None, "none") if value is None else Cell(shown.replace("-", MINUS), value, look)


def time_cell(ms: float | None) -> Cell:
    """A time in ms."""
    return figure(milliseconds(ms), ms)


def status_cell(status: str, reason: str = "") -> Cell:
    """A verdict, with its sign and its reason."""
    return Cell(status, status, f"status {status.replace(' ', '-')}", reason)


def name_of(candidate: Mapping[str, Any]) -> str:
    """Engine and precision."""
    return str(candidate["plan"])


def limit_text(result: Mapping[str, Any], value: float | None) -> str:
    """A value in the unit of its limit."""
    shown = milliseconds(value) if _unit(result) == "ms" else hundredths(value)
    return shown.replace("-", MINUS) if value is not None else DASH


def interval_text(result: Mapping[str, Any]) -> str:
    """The interval of what was seen, or nothing."""
    show = milliseconds if _unit(result) == "ms" else hundredths
    return bounds(result.get("low"), result.get("high"), show).replace("-", MINUS)


def allowed_text(result: Mapping[str, Any]) -> str:
    """What a limit allows: ``≤ 8 ms``."""
    return f"≤ {result['allowed']:.5g} {_unit(result)}" if result.get("allowed") is not None else DASH


def limit_name(result: Mapping[str, Any]) -> str:
    """A limit's name for people."""
    return LIMIT_NAMES.get(result["limit"], str(result["limit"]))


def _unit(result: Mapping[str, Any]) -> str:
    suffix = str(result["limit"]).rsplit("_", 1)[-1]
    return UNITS.get(suffix, suffix)


def limits_grid(target: Mapping[str, Any], identity: str, *, shipped: bool) -> Grid:
    """Every limit of the profile: for what ships, or for every other candidate that was judged."""
    every = enumerate(target["candidates"], start=1)
    judged = [(i, c) for i, c in every if c.get("limits") and bool(c["shipped"]) == shipped]
    folded = not shipped and any(c["shipped"] for c in target["candidates"])
    rows: list[list[Cell]] = []
    for i, c in judged:
        for result in c["limits"]:
            whose = [] if shipped else [_row_name(i, c)]
            rows.append(
                [
                    *whose,
                    Cell(limit_name(result), limit_name(result)),
                    figure(allowed_text(result), result.get("allowed")),
                    figure(limit_text(result, result.get("value")), result.get("value")),
                    Cell(interval_text(result) or DASH, result.get("high"), "number"),
                    status_cell(result["status"]),
                    Cell(result.get("note") or "", result.get("note") or "", "note"),
                ]
            )
    head = [] if shipped else [Head("candidate", True)]
    head += [Head("limit"), Head("allowed", True), Head("seen", True)]
    head += [Head("interval", True), Head("verdict"), Head("confidence")]
    caption = "Limits of the other candidates" if folded else "Limits"
    if shipped and judged:
        caption = f"Limits of what ships: {name_of(judged[0][1])}"
    return Grid(identity=identity, caption=caption, head=head, rows=rows, folded=folded)


def _short_reason(candidate: Mapping[str, Any]) -> str:
    """Why a candidate's verdict is not a pass; a failure's whole text stands elsewhere."""
    if candidate["status"] in ("pass", "not measured"):
        return ""  # why nothing was measured is said once, above
    # What follows the limits' names is said once for all, among the conditions.
    return "see Failures" if candidate.get("failure") else str(candidate.get("reason") or "").partition("; ")[0]


def candidates_grid(target: Mapping[str, Any], identity: str) -> Grid:
    """One row a candidate: what it is, how accurate, how large, how quick, and its verdict."""
    rows: list[list[Cell]] = []
    marked = set()
    for i, c in enumerate(target["candidates"]):
        proof, known = c.get("proof") or {}, percentiles_of(c.get("measured"))
        drop = proof.get("drop") if (proof.get("drop") or {}).get("points") is not None else None
        if c["shipped"]:
            marked.add(i)
        rows.append(
            [
                figure(str(i + 1), i + 1),
                Cell(name_of(c), name_of(c)),
                time_cell(known.get("50.0")),
                time_cell(known.get("90.0")),
                time_cell(known.get("99.0")),
                figure(number(c.get("size_mb"), 2), c.get("size_mb")),
                figure(percent(proof.get("artifact")), proof.get("artifact")),
                figure(interval(drop), drop["points"] if drop else None),
                figure(number(proof.get("reference_db"), 1), proof.get("reference_db")),
                figure(share(int8_share(proof)), int8_share(proof)),
                status_cell(c["status"], _short_reason(c)),
            ]
        )
    metric = next((c["proof"]["metric"] for c in target["candidates"] if (c.get("proof") or {}).get("metric")), "score")
    head = [Head("#", True), Head("candidate"), Head("p50 ms", True), Head("p90 ms", True)]
    head += [Head("p99 ms", True), Head("MB", True), Head(str(metric), True), Head("drop, points", True)]
    head += [Head("dB", True), Head("int8", True), Head("verdict")]
    return Grid(identity=identity, caption="Candidates", head=head, rows=rows, name_at=1, marked=frozenset(marked))


def trials_grid(target: Mapping[str, Any], identity: str) -> Grid:
    """One row a plan that ``auto`` tried: what it lost on the search's own samples, and whether that is little."""
    rows: list[list[Cell]] = []
    for i, trial in enumerate(target.get("trials") or [], start=1):
        drop = trial["drop_from_fp32"] if (trial["drop_from_fp32"] or {}).get("points") is not None else None
        verdict = verdict_of(trial)
        why = str(trial["failure"] or "").strip().partition("\n")[0]
        rows.append(
            [
                figure(str(i), i),
                Cell(trial["plan"], trial["plan"]),
                figure(number(trial["db"], 1), trial["db"]),
                figure(interval(drop), drop["points"] if drop else None),
                Cell(verdict, verdict, f"status {'pass' if trial['within'] else 'fail'}", shorten(why, 900.0)),
                figure(count(trial["samples"]), trial["samples"]),
            ]
        )
    head = [Head("#", True), Head("plan"), Head("dB", True), Head("drop from fp32, points", True)]
    head += [Head("verdict"), Head("samples", True)]
    return Grid(identity=identity, caption="What auto tried", head=head, rows=rows, name_at=1)


def _measured(target: Mapping[str, Any]) -> list[tuple[int, Mapping[str, Any], Mapping[str, Any]]]:
    return [(i, c, c["measured"]) for i, c in enumerate(target["candidates"], start=1) if c.get("measured")]


def _row_name(number: int, candidate: Mapping[str, Any]) -> Cell:
    return Cell(f"{number}. {name_of(candidate)}", number)


def latency_grid(target: Mapping[str, Any], identity: str) -> Grid:
    """Both clocks of every candidate: how many queries, how independent, and every percentile known."""
    rows: list[list[Cell]] = []
    marked = set()
    for i, c, measured in _measured(target):
        for clock in ("application", "engine"):
            s = measured.get(clock)
            if not s:
                continue
            if c["shipped"]:
                marked.add(len(rows))
            known = percentiles_of({"application": s})
            rows.append(
                [
                    _row_name(i, c),
                    Cell(clock, clock),
                    figure(count(s.get("n")), s.get("n")),
                    figure(number(s.get("effective_n"), 0), s.get("effective_n")),
                    figure(hundredths(s.get("autocorrelation")), s.get("autocorrelation")),
                    figure(number(s.get("cv"), 3), s.get("cv")),
                    time_cell(s.get("mean_ms")),
                    *(time_cell(known.get(q)) for q in ("50.0", "90.0", "95.0", "99.0", "99.9")),
                    time_cell(s.get("max_ms")),
                ]
            )
    head = [Head("candidate", True), Head("clock")]
    names = ["queries", "effective", "autocorrelation", "CV", "mean ms", "p50 ms", "p90 ms", "p95 ms", "p99 ms"]
    head += [Head(name, True) for name in [*names, "p99.9 ms", "max ms"]]
    return Grid(identity=identity, caption="Latency", head=head, rows=rows, marked=frozenset(marked))


def loads_grid(target: Mapping[str, Any], identity: str) -> Grid:
    """Loading, the first query, warm-up and memory of every candidate."""
    rows: list[list[Cell]] = []
    marked = set()
    for i, c, m in _measured(target):
        if c["shipped"]:
            marked.add(len(rows))
        cached, warm_up = m.get("cached_load_ms") or [], m.get("warm_up") or {}
        memory = m.get("peak_memory_mb") or {}
        rows.append(
            [
                _row_name(i, c),
                time_cell(m.get("load_ms")),
                figure(str(len(m.get("cold_load_ms") or [])), len(m.get("cold_load_ms") or []) or None),
                time_cell(max(cached) if cached else None),
                time_cell(m.get("first_inference_ms")),
                figure(plain(warm_up.get("queries")), warm_up.get("queries")),
                *(figure(number(memory.get(p), 0), memory.get(p)) for p in ("load", "first_inference", "steady")),
                figure(number(m.get("highest_memory_mb"), 0), m.get("highest_memory_mb")),
            ]
        )
    names = ["cold load ms", "cold loads", "load from cache ms", "first query ms", "warm-up queries"]
    names += ["MB at load", "MB at first query", "MB steady", "peak MB"]
    head = [Head("candidate", True), *(Head(name, True) for name in names)]
    return Grid(identity=identity, caption="Loading and memory", head=head, rows=rows, marked=frozenset(marked))


def conditions_grid(conditions: Mapping[str, Any] | None, identity: str) -> Grid | None:
    """The state of the host before and after the run, key by key; None where it was not watched."""
    before, after = ((conditions or {}).get(key) or {} for key in ("before", "after"))
    if not before and not after:
        return None
    rows = [
        [
            Cell(STATE_NAMES.get(key, key)),
            Cell(plain(before.get(key)), look="number"),
            Cell(plain(after.get(key)), look="number"),
        ]
        for key in dict.fromkeys([*before, *after])
    ]
    head = [Head(""), Head("before", True), Head("after", True)]
    return Grid(identity=identity, caption="Host before and after", head=head, rows=rows, sortable=False)


def over_run(conditions: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """What was watched over the run: name and value."""
    rest = {k: v for k, v in (conditions or {}).items() if k not in ("before", "after")}
    return [
        (OVER_RUN.get(k, k), f"{100 * v:.1f}%" if k in SHARES and isinstance(v, (int, float)) else plain(v))
        for k, v in rest.items()
    ]
