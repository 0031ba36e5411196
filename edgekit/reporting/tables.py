"""The tables of a report as text cells, for the terminal and for Markdown alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from edgekit.reporting.placing import int8_share, placement_facts

Table = tuple[list[str], list[list[str]]]

NONE = "-"
MARK = "*"
MOST_NOTE = 200
MOST_CONFIDENCE = 32  # characters of a limit's note in its table
UNITS = {"ms": "ms", "mb": "MB", "points": "points"}
LIMIT_NAMES = {
    "p50_ms": "p50",
    "p90_ms": "p90",
    "p95_ms": "p95",
    "p99_ms": "p99",
    "p999_ms": "p99.9",
    "load_ms": "load",
    "first_inference_ms": "first query",
    "peak_memory_mb": "peak memory",
    "size_mb": "size",
    "max_drop_points": "accuracy drop",
}


def candidates_table(target: Mapping[str, Any], *, narrow: bool = False) -> Table:
    """One row a candidate; the one that ships is marked. Latencies are point estimates of the application clock.

    Args:
        target: One target of a report.
        narrow: Without the dB, and with drops as points alone.
    """
    header = ["", "candidate", "p50 ms", "p99 ms", "MB", "dB", "drop, points", "int8", "verdict"]
    rows = []
    for c in target["candidates"]:
        proof = c["proof"] or {}
        rows.append(
            [
                MARK if c["shipped"] else "",
                c["plan"],
                percentile(c, 50.0),
                percentile(c, 99.0),
                number(c["size_mb"], 2),
                number(proof.get("reference_db"), 0),
                points(proof.get("drop")) if narrow else interval(proof.get("drop")),
                share(int8_share(proof)),
                c["status"],
            ]
        )
    return _without(header.index("dB"), header, rows) if narrow else (header, rows)


def _without(column: int, header: list[str], rows: list[list[str]]) -> Table:
    header, *rows = ([*row[:column], *row[column + 1 :]] for row in (header, *rows))
    return header, rows


def limits_table(candidate: Mapping[str, Any]) -> Table:
    """One row a limit of the profile, judged for one candidate; :func:`limit_notes` tells what is too long for it."""
    header = ["limit", "allowed", "seen", "interval", "verdict", "confidence"]
    rows = []
    for r in candidate["limits"]:
        unit = UNITS[r["limit"].rsplit("_", 1)[-1]]
        show = milliseconds if unit == "ms" else hundredths
        rows.append(
            [
                LIMIT_NAMES[r["limit"]],
                f"≤ {r['allowed']:.5g} {unit}",
                show(r["value"]),
                bounds(r["low"], r["high"], show),
                r["status"],
                r["note"] if len(r["note"]) <= MOST_CONFIDENCE else "see below",
            ]
        )
    return header, rows


def limit_notes(candidate: Mapping[str, Any], told: str | None = None) -> list[tuple[str, str]]:
    """What the table of limits has no room for: names of limits, and what is said of them.

    Args:
        candidate: What was judged.
        told: What is said elsewhere, and left out.
    """
    said: dict[str, list[str]] = {}
    for r in candidate["limits"]:
        if len(r["note"]) > MOST_CONFIDENCE and r["note"] != told:
            said.setdefault(r["note"], []).append(LIMIT_NAMES[r["limit"]])
    return [(", ".join(names), note) for note, names in said.items()]


def scores_table(report: Mapping[str, Any], candidate: Mapping[str, Any]) -> Table:
    """Teacher, student and what ships: parameters, score, and what was lost."""
    proof = candidate["proof"] or {}
    models = report["models"]
    rows = [
        [
            "teacher",
            models["teacher"]["name"],
            count(models["teacher"]["parameters"]),
            percent(proof.get("teacher")),
            "",
        ]
    ]
    if not report["same_model"]:
        student = models["student"]
        rows.append(["fp32 student", student["name"], count(student["parameters"]), percent(proof.get("student")), ""])
    name = candidate["plan"]
    rows.append(["what ships", name, "", percent(proof.get("artifact")), interval(proof.get("drop"))])
    if not report["same_model"]:
        rows.append(["against fp32", "", "", "", interval(proof.get("drop_from_fp32"))])
    return ["", "model", "parameters", proof.get("metric") or "score", "drop, points"], rows


def latency_table(measured: Mapping[str, Any] | None) -> Table:
    """Both clocks, every percentile the queries support; no rows where nothing was measured."""
    header = ["clock", "n", "mean ms", "p50 ms", "p90 ms", "p95 ms", "p99 ms", "p99.9 ms"]
    rows = []
    for clock in ("application", "engine"):
        summary = measured[clock] if measured else None
        if summary is None:
            continue
        known = {float(q): found["ms"] for q, found in summary["percentiles"].items()}
        cells = [milliseconds(known.get(q)) for q in (50.0, 90.0, 95.0, 99.0, 99.9)]
        rows.append([clock, str(summary["n"]), milliseconds(summary["mean_ms"]), *cells])
    return header, rows


def facts(report: Mapping[str, Any], target: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a reader must know to trust the figures."""
    host = report["host"]
    engines = ", ".join(f"{name} {version}" for name, version in report["engines"].items())
    load = target["load"]
    device = target.get("device")
    lines = [
        ("host", host_text(host)),
        *([("measured on", f"{device['name']}: {host_text(device['host'])}")] if device else []),
        ("engines", engines),
        ("driven", f"{load['scenario']}, batch {load['batch']}, {counted(target['threads'], 'thread')}"),
    ]
    shipped = shipped_of(target)
    measured = shipped["measured"] if shipped else None
    if measured and measured["application"]:
        lines += measured_facts(measured)
    lines += placement_facts(target)
    lines += [("built", shortened(note)) for note in (shipped["notes"] if shipped else [])]
    lines += qat_facts(report, target)
    if report["untrained"]:
        lines.append(("weights", "none were given: they are as the factory made them"))
    if report["data"]["random"]:
        lines.append(("data", "random inputs: nothing is known of the accuracy"))
    elif not report["data"]["held_out"]:
        lines.append(("data", "there is no test set: numbers are proven on training samples, accuracy is not"))
    return lines


def host_text(host: Mapping[str, Any]) -> str:
    """A machine in one line."""
    return f"{host['cpu_model']}, {counted(host['cores'], 'core')}, {host['isa']}, governor {host['governor']}"


def qat_facts(report: Mapping[str, Any], target: Mapping[str, Any]) -> list[tuple[str, str]]:
    """How a target's model was trained in int8, where it was."""
    return [("qat", one["said"]) for one in report.get("qat") or [] if target["target"] in one["targets"]]


def shortened(note: str, whole: str = "report.html") -> str:
    """A note whose names may be many, cut where it is too long to read; the page has it whole."""
    return note if len(note) <= MOST_NOTE else f"{note[:MOST_NOTE].rstrip(', ')} … (whole in {whole})"


def measured_facts(measured: Mapping[str, Any]) -> list[tuple[str, str]]:
    """How a measurement went, its loads, and what makes it less than sure."""
    application = measured["application"]
    warm_up = f"{measured['warm_up']['queries']} queries of warm-up, " if measured["warm_up"]["queries"] else ""
    cached = f", from the engine's cache {_longest(measured['cached_load_ms'])}" if measured["cached_load_ms"] else ""
    lines = [
        (
            "measured",
            f"{warm_up}{application['n']} queries in {measured['turns']} turns, {measured['started_at']}; "
            f"variation {application['cv']:.0%}, autocorrelation {application['autocorrelation']:.2f}",
        ),
        (
            "load",
            f"cold {_longest(measured['cold_load_ms'])}{cached}, "
            f"first query {_longest(measured['first_inferences_ms'])}; "
            f"peak memory {number(measured['highest_memory_mb'], 0)} MB",
        ),
    ]
    lines += [(name, measured[name]) for name in ("spoiled", "drift") if measured[name]]
    return lines + [("note", text) for text in measured["caveats"]]


def _longest(times_ms: list[float]) -> str:
    """The longest of several times, as the gates take it."""
    return f"{milliseconds(max(times_ms, default=None))} ms" + (
        f" (longest of {len(times_ms)})" if len(times_ms) > 1 else ""
    )


def shipped_of(target: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The candidate that ships, or None."""
    return next((c for c in target["candidates"] if c["shipped"]), None)


def percentile(candidate: Mapping[str, Any], q: float) -> str:
    """One percentile of the application clock; a dash where it is not known."""
    measured = candidate["measured"]
    if not measured or not measured["application"]:
        return NONE
    # Keys are text once the report has been through JSON.
    found = {float(k): v for k, v in measured["application"]["percentiles"].items()}.get(q)
    return milliseconds(found["ms"]) if found else NONE


def number(value: float | None, digits: int) -> str:
    """A number, or a dash."""
    return NONE if value is None else f"{value:.{digits}f}"


def milliseconds(value: float | None) -> str:
    """A time to four figures, three decimals at most: 0.027, 1.234, 12.34, 123.4."""
    return NONE if value is None else f"{value:.{max(0, 4 - len(str(int(abs(value)))))}f}"


def hundredths(value: float | None) -> str:
    """A number with two decimals."""
    return number(value, 2)


def percent(value: float | None) -> str:
    """A score as a percentage."""
    return NONE if value is None else f"{100 * value:.2f}%"


def share(value: float | None) -> str:
    """A share as a whole percentage."""
    return NONE if value is None else f"{value:.0%}"


def count(value: int | None) -> str:
    """A count with thousands separated."""
    return NONE if value is None else f"{value:,}"


def counted(value: int | None, thing: str) -> str:
    """``1 core``, ``4 cores``; ``default cores`` where nothing was asked for."""
    return f"{value or 'default'} {thing}{'' if value == 1 else 's'}"


def interval(drop: Mapping[str, Any] | None) -> str:
    """A drop in points with its interval."""
    return NONE if not drop else f"{drop['points']:.2f} [{drop['low']:.2f}, {drop['high']:.2f}]"


def points(drop: Mapping[str, Any] | None) -> str:
    """A drop in points."""
    return NONE if not drop else f"{drop['points']:.2f}"


def bounds(low: float | None, high: float | None, show: Callable[[float | None], str]) -> str:
    """An interval, one end of it, or nothing."""
    if low is None or high is None:
        return (f"≥ {show(low)}" if low is not None else "") + (f"≤ {show(high)}" if high is not None else "")
    return f"[{show(low)}, {show(high)}]"


def remarks(target: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Why candidates failed, and where nothing ships why each may not: name and text."""
    shipped = shipped_of(target)
    found = []
    for c in target["candidates"]:
        name = c["plan"]
        if c["failure"]:
            found.append((f"{name} failed", c["failure"]))
        elif shipped is None:
            found.append((name, c["reason"]))
    return found
