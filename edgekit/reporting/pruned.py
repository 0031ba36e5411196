"""How a student was pruned to a latency budget, in words and as a table for the terminal and for Markdown alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edgekit.reporting.comparison import times_text
from edgekit.reporting.tables import MARK, NONE, Table, bounds, interval, milliseconds, percent

MOST_CHANGES = 3  # of a step that are told in its row
MOST_CHANGE = 100  # characters of one of them
MILLION = 1e6

Pruning = Mapping[str, Any]
Step = Mapping[str, Any]


def tried(pruning: Pruning) -> Sequence[Step]:
    """The steps that were made: all but the unpruned model."""
    return [step for step in pruning["steps"] if step["number"]]


def unpruned(pruning: Pruning) -> Step | None:
    """The model before any step; None where it is not told."""
    return next((step for step in pruning["steps"] if not step["number"]), None)


def best_of(pruning: Pruning) -> Step | None:
    """The step that was taken; None where it is not told."""
    return next((step for step in pruning["steps"] if step["number"] == pruning["best"]), None)


def pruning_table(pruning: Pruning, *, narrow: bool = False, whole: bool = False) -> Table:
    """One row a step, the one that was taken marked.

    Args:
        pruning: The part ``pruning`` of a report, or what ``prune`` writes to ``pruning.json``.
        narrow: For less than 90 columns: without the intervals of latencies.
        whole: With what was changed and why a step was undone, which a terminal tells below (:func:`step_lines`).
    """
    changes = ["changes"] if whole else []
    header = ["", "step", *changes, "MACs", latency_name(pruning), "ratio", "score", "drop, points", "kept"]
    rows = []
    for step in pruning["steps"]:
        why = f": {step['why']}" if whole and not step["kept"] else ""
        rows.append(
            [
                MARK if step["number"] == pruning["best"] else "",
                str(step["number"]),
                *([changes_text(step)] if whole else []),
                macs_text(step["macs"]),
                milliseconds(step["p50_ms"]) if narrow else latency_text(step),
                NONE if step["ratio"] is None else times_text(step["ratio"]),
                percent(step["score"]),
                interval(step["drop"]),
                NONE if step["number"] == 0 and step["kept"] else f"{'yes' if step['kept'] else 'no'}{why}",
            ]
        )
    return header, rows


def step_lines(pruning: Pruning) -> Iterator[tuple[str, str]]:
    """What every step changed, and why where it was undone: name and text."""
    for step in pruning["steps"]:
        yield f"step {step['number']}", changes_text(step) + ("" if step["kept"] else f"; undone: {step['why']}")


def latency_name(pruning: Pruning) -> str:
    """What the latencies are, with their unit."""
    return "p50 ms, estimate" if pruning["estimate"] else "p50 ms"


def latency_text(step: Step) -> str:
    """A step's median with its interval."""
    found = bounds(step["p50_low_ms"], step["p50_high_ms"], milliseconds)
    return f"{milliseconds(step['p50_ms'])} {found}".strip()


def changes_text(step: Step, most: int = MOST_CHANGES) -> str:
    """What was left out in a step, the first few in words."""
    if step["number"] == 0:
        return "the unpruned model"
    told = [change if len(change) <= MOST_CHANGE else f"{change[:MOST_CHANGE]}…" for change in step["changes"]]
    more = [f"{len(told) - most} more"] if len(told) > most else []
    return "; ".join([*told[:most], *more]) or NONE


def macs_text(macs: int) -> str:
    """Multiply-accumulates in millions to three figures: ``126 M``, ``0.45 M``."""
    millions = macs / MILLION
    return f"{millions:,.{0 if millions >= 100 else 1 if millions >= 10 else 2}f} M"


def pruning_sentence(pruning: Pruning) -> str:
    """What came of it, in a line: ``3 of 5 steps kept: 0.47 [0.46, 0.49] of the unpruned p50 on … for … points``."""
    steps, best = tried(pruning), best_of(pruning)
    if not steps:
        return f"no step was made: {pruning['stopped']}"
    kept = sum(bool(step["kept"]) for step in steps)
    of = f"of {len(steps)} step{'' if len(steps) == 1 else 's'} kept"
    if best is None or not best["number"]:
        undone = "the only step was undone" if len(steps) == 1 and not kept else f"{kept or 'none'} {of}"
        return f"{undone}: the model is as it was"
    share = _share(pruning, best)
    lost = f"{interval(best['drop'])} points" if best["drop"] else ""
    if share:
        return f"{kept} {of}: {share} of the unpruned p50 on {pruning['plan']}" + (
            f" for {lost}" if lost else ", what it lost is not known"
        )
    p50 = "latency not known" if best["p50_ms"] is None else f"p50 {milliseconds(best['p50_ms'])} ms"
    return f"{kept} {of}: {p50} on {pruning['plan']}, {f'{lost} lost' if lost else 'what it lost is not known'}"


def _share(pruning: Pruning, best: Step) -> str:
    """The latency of the step that was taken over the unpruned one, as far as that is known."""
    said = "an estimated " if best["estimated"] else ""
    if best["ratio"]:
        return said + times_text(best["ratio"])
    start = unpruned(pruning)
    if best["estimated"] and best["p50_ms"] is not None and start and start["p50_ms"]:
        return f"{said}{best['p50_ms'] / start['p50_ms']:.2f}"
    return ""


def remarks(pruning: Pruning) -> Iterator[tuple[str, str]]:
    """How it was done and why it ended: name and text."""
    if pruning["budget_ms"] is not None:
        yield "budget", f"p50 of {milliseconds(pruning['budget_ms'])} ms: {pruning['budget']}"
    judged = f"on {pruning['samples']:,} samples" if pruning["samples"] is not None else "not judged: no labels"
    limit = pruning["max_drop_points"]
    yield "accuracy", f"{'no limit' if limit is None else f'at most {limit:g} points lost'}, {judged}"
    if pruning.get("device"):
        yield "measured on", pruning["device"]
    yield "criterion", pruning["criterion"]
    if pruning["estimate"]:
        yield "latencies", pruning["estimate"]
    table = pruning["table"]
    if table:
        shown = sum(bool(row["shown"]) for row in table["rows"])
        yield "moves", f"{shown} of {len(table['rows'])} shown faster ({table['source']})"
    yield "stopped", pruning["stopped"]
