"""What ``--precision auto`` tried, in words and as a table for the terminal and for Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgekit.reporting.tables import NONE, Table, interval, number, points

WITHIN, BEYOND, FAILED = "within", "loses too much", "failed"


def verdict_of(trial: Mapping[str, Any]) -> str:
    """``within``, ``loses too much`` or ``failed``."""
    return WITHIN if trial["within"] else FAILED if trial["failure"] else BEYOND


def trials_line(target: Mapping[str, Any]) -> str:
    """How many plans were tried and how many lost little enough; nothing where a precision was named."""
    trials = target.get("trials") or []
    if not trials:
        return ""
    counts = {word: sum(verdict_of(trial) == word for trial in trials) for word in (WITHIN, FAILED)}
    samples = max((trial["samples"] for trial in trials if trial["samples"] is not None), default=None)
    said = f"tried {len(trials)} plan{'' if len(trials) == 1 else 's'}"
    said += f" on {samples} samples that are not the test's" if samples else ""
    said += f": {counts[WITHIN]} within what may be lost"
    return said + (f", {counts[FAILED]} failed" if counts[FAILED] else "")


def trials_table(target: Mapping[str, Any], *, narrow: bool = False, reasons: bool = False) -> Table:
    """One row a plan, in the order in which they were tried.

    Args:
        target: One target of a report.
        narrow: With drops as points alone.
        reasons: With why a plan failed, where one did.
    """
    trials = target.get("trials") or []
    whys = [[trial["failure"] or ""] if reasons and any(t["failure"] for t in trials) else [] for trial in trials]
    header = ["#", "plan", "dB", "drop from fp32", "verdict", "samples", *(["why"] if any(whys) else [])]
    rows = [
        [
            str(i),
            trial["plan"],
            number(trial["db"], 1),
            points(trial["drop_from_fp32"]) if narrow else interval(trial["drop_from_fp32"]),
            verdict_of(trial),
            NONE if trial["samples"] is None else str(trial["samples"]),
            *why,
        ]
        for i, (trial, why) in enumerate(zip(trials, whys, strict=True), start=1)
    ]
    return header, rows


def failures(target: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Why trials failed, where no candidate tells the same: name and text."""
    told = {c["failure"] for c in target["candidates"]}
    return [
        (f"trial {i}. {trial['plan']}", trial["failure"])
        for i, trial in enumerate(target.get("trials") or [], start=1)
        if trial["failure"] and trial["failure"] not in told
    ]
