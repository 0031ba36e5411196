"""The zoo's table, and what of a row is a failure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FP32_FLOOR_DB = 90.0
MOST_RATIO = 1.02
NONE = "-"
TIMES = "×"  # noqa: RUF001


def failed(row: dict[str, Any]) -> str | None:
    """Why a row fails, or None; a refusal with its cause is no failure."""
    if "traceback" in row:
        return "traceback: " + row["traceback"].strip().splitlines()[-1]
    if "timed_out" in row:
        return f"not done in {row['timed_out']:.0f} s"
    for engine, found in row.get("engines", {}).items():
        db = found["fp32_db"]
        if db is not None and db < FP32_FLOOR_DB and not amplifies(row):
            return f"{engine}: fp32 at {db} dB"
        if any("Traceback" in text for text in found["failures"].values()):
            return f"{engine}: a traceback in a failure"
        ratio = found.get("ratio")
        if ratio and (ratio["low"] > 1 or ratio["ratio"] > MOST_RATIO):
            return f"{engine}: what ships is slower than fp32, {ratio['ratio']:.3f}"
    return None


def amplifies(row: dict[str, Any]) -> bool:
    """Whether the network itself, between float32 and float64 in torch, keeps less than parity asks for."""
    own = row.get("own_db")
    return own is not None and own < FP32_FLOOR_DB


def write_table(path: Path, rows: Sequence[dict[str, Any]], note: str) -> None:
    """Writes all rows as Markdown, failures and refusals below."""
    kept = path.read_text().splitlines() if path.exists() else []
    note = note or next((line.removeprefix("Conditions: ") for line in kept if line.startswith("Conditions: ")), "")
    lines = [
        "# The zoo",
        "",
        "Public architectures with fixed random weights, and real files, through both CPU engines with `--precision",
        "auto`; written by `tests/bench/zoo.py`. Weights are random, so plans are judged by dB against fp32 alone: 32",
        "calibration and 64 test samples with structure; int8 under 15 dB counts as a collapse and is mended or",
        "reverted; at most 5 plans are tried on an engine. fp32 and int8 dB are of the proof on the test samples; the",
        "ratio is of the p50 of what ships over fp32's on the same engine, re-measured in fresh turns, with its 99.5%",
        "interval. int8 share: of compute nodes, and of multiply-accumulates, as the engine's own record tells. Where",
        "fp32 ships, the best int8 that was tried is in brackets.",
        "",
        *([f"Conditions: {note}", ""] if note else []),
        *_summary(rows),
        "",
        "| network | input | engine | fp32 dB | ships | int8 nodes / MACs | dB | fp32 ms | ratio | s |",
        "|---|---|---|--:|---|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        lines += _lines(row)
    refused = [(row["key"], text) for row in rows for text in _refusals(row)]
    if refused:
        lines += ["", "## Refusals and plans that could not be made", ""]
        lines += [f"- {key}: {_one_line(text)}" for key, text in refused]
    wrong = [(row["key"], why) for row in rows if (why := failed(row))]
    if wrong:
        lines += ["", "## Failures", "", *(f"- {key}: {_one_line(why)}" for key, why in wrong)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _summary(rows: Sequence[dict[str, Any]]) -> list[str]:
    kinds: Counter[str] = Counter()
    for row in rows:
        for found in row.get("engines", {}).values():
            kinds[found["chosen"]["precision"] if found["chosen"] else "nothing"] += 1
    shipped = ", ".join(f"{count} {TIMES} {kind}" for kind, count in kinds.most_common())
    refusals = sum("refusal" in row for row in rows)
    failures = sum(failed(row) is not None for row in rows)
    more = [row["key"] for row in rows if "engines" in row and "most_trials" not in row]
    longer = [row["key"] for row in rows if "engines" in row and "max_seconds" not in row]
    said = f" With up to 8 plans: {', '.join(more)}." if more else ""
    said += f" Of these measured for up to 20 s at a time instead of 8: {', '.join(longer)}." if longer else ""
    return [f"{len(rows)} rows, {refusals} refused, {failures} failed; of row and engine ship: {shipped}.{said}"]


def _lines(row: dict[str, Any]) -> list[str]:
    start = f"| {row['key']} | {row.get('input', NONE)}"
    if "engines" not in row:
        why = "refused" if "refusal" in row else "failed"
        return [f"{start} | {NONE} | {NONE} | {why} | | | | | {row['seconds']:.0f} |"]
    lines = [f"{engine} | {_cells(found)}" for engine, found in row["engines"].items()]
    return [f"{start} | {lines[0]} | {row['seconds']:.0f} |", *(f"| | | {line} | |" for line in lines[1:])]


def _cells(found: dict[str, Any]) -> str:
    chosen = found["chosen"]
    if chosen is None:
        return f"{_number(found['fp32_db'])} | nothing | | | | "
    ratio, fp32 = found.get("ratio"), found["candidates"][0]
    shown, plan = chosen, chosen["plan"]
    others = [c for c in found["candidates"] if c["precision"] == "int8" and c["db"] is not None]
    if chosen["precision"] != "int8" and others:
        shown = min(others, key=lambda c: c["p50_ms"] or float("inf"))
        plan += f" ({shown['plan']}: {_ratio_of(shown, fp32)})"
    db = chosen["db"] if chosen["precision"] != "fp32" else (f"({shown['db']})" if shown is not chosen else None)
    time = found.get("fp32_ms", fp32["p50_ms"])
    times = f"{ratio['ratio']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}]" if ratio else NONE
    shares = " / ".join(_percent(shown[name]) for name in ("int8_share", "int8_share_macs"))
    return f"{_number(found['fp32_db'])} | {plan} | {shares} | {_number(db)} | {_number(time, 2)} | {times}"


def _ratio_of(other: dict[str, Any], fp32: dict[str, Any]) -> str:
    return f"{other['p50_ms'] / fp32['p50_ms']:.2f}{TIMES}" if other["p50_ms"] and fp32["p50_ms"] else "not measured"


def _refusals(row: dict[str, Any]) -> list[str]:
    whole = [row["refusal"]] if "refusal" in row else []
    if row.get("own_db") is not None:
        whole.append(f"in torch {row['own_db']} dB are left between float32 and float64")
    return whole + [
        f"{plan}: {why}" for found in row.get("engines", {}).values() for plan, why in found["failures"].items()
    ]


def _one_line(text: str) -> str:
    return " ".join(part.strip() for part in text.splitlines())[:600]


def _number(value: Any, digits: int = 1) -> str:
    return NONE if value is None else value if isinstance(value, str) else f"{value:.{digits}f}"


def _percent(share: float | None) -> str:
    return NONE if share is None else f"{share:.0%}"
