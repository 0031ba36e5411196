"""A comparison in words and as a table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from edgekit.reporting.tables import Table, milliseconds

if TYPE_CHECKING:
    from rich.console import Console

TIMES = "\N{MULTIPLICATION SIGN}"
STATUS_WORDS = {"pass": "PASS", "fail": "FAIL", "inconclusive": "INCONCLUSIVE", "compared": "", "failed": "FAILED"}


def sides_table(found: Mapping[str, Any]) -> Table:
    """One row a side: what it is, its latencies over the whole run, how many queries."""
    header = ["", "side", "kind", "p50 ms", "p90 ms", "p99 ms", "queries"]
    rows = []
    for side in found["sides"]:
        times = [milliseconds(side["percentiles_ms"].get(q)) for q in ("50.0", "90.0", "99.0")]
        rows.append([side["label"], side["name"], side["kind"], *times, f"{side['queries']:,}"])
    return header, rows


def pairs_table(found: Mapping[str, Any]) -> Table:
    """One row a pair and percentile; those that are not supported or not measured say so."""
    header = ["pair", "of", "ratio", "interval", "finding"]
    rows = []
    for pair in found["pairs"]:
        name = f"{pair['other']} / {pair['base']}"
        for ratio in pair["ratios"]:
            bounds = f"[{times(ratio['low'], ratio)}, {times(ratio['high'], ratio)}]"
            rows.append([name, f"p{ratio['percentile']:g}", times(ratio["ratio"], ratio), bounds, ratio["finding"]])
        rows += [[name, f"p{float(q):g}", "-", "", "not supported"] for q in pair["unsupported"]]
        if not pair["ratios"] and not pair["unsupported"]:
            rows.append([name, "", "-", "", pair["finding"]])
    return header, rows


def times(value: float, ratio: Mapping[str, Any]) -> str:
    """A ratio with as many decimals as its interval is sharp: 0.61, 1.003."""
    width = ratio["high"] - ratio["low"]
    return f"{value:.{2 if width >= 0.02 else 3 if width >= 0.002 else 4}f}"


def times_text(ratio: Mapping[str, Any]) -> str:
    """A ratio with its interval: ``0.93 [0.91, 0.95]``."""
    value, low, high = (times(ratio[key], ratio) for key in ("ratio", "low", "high"))
    return f"{value} [{low}, {high}]"


def sentence(pair: Mapping[str, Any]) -> str:
    """What was found of a pair's medians, e.g. ``B takes 0.61× the time of A [0.60, 0.62]: 39% less``."""
    base, other = pair["base"], pair["other"]
    median = next((ratio for ratio in pair["ratios"] if ratio["percentile"] == 50.0), None)
    if median is None:
        return f"{other} and {base} are not compared: {pair['reason'] or '; '.join(pair['unsupported'].values())}"
    shown = f"{other} takes {times(median['ratio'], median)}{TIMES} the time of {base}"
    shown += f" [{times(median['low'], median)}, {times(median['high'], median)}]"
    return f"{shown}: {change(median)}" + ("" if pair["in_turns"] else " (not in turns)")


def change(ratio: Mapping[str, Any]) -> str:
    """What a ratio means: ``12% slower``, ``39% less time``, ``2.4 times as long``, ``no difference shown``."""
    if ratio["finding"] not in ("slower", "faster"):
        return str(ratio["finding"])
    value = ratio["ratio"]
    if value >= 2:
        return f"{value:.3g} times as long"
    percent = abs(value - 1) * 100
    return f"{percent:.{0 if percent >= 9.95 else 1}f}% {'slower' if value > 1 else 'less time'}"


def remarks(found: Mapping[str, Any]) -> Iterator[str]:
    """What a reader must know: how it was measured, what failed, what decides nothing."""
    load = found["load"]
    confidence = next((f"{100 * r['confidence']:g}%" for p in found["pairs"] for r in p["ratios"]), "99.5%")
    turns = "in turns" if found["in_turns"] else "measured apart where it says so"
    yield f"intervals: {confidence}, {turns}, {load['min_seconds']:g} s a side, batch {load['batch']}"
    if found["inputs"]:
        yield f"inputs: {found['inputs']}"
    yield from found["notes"]
    if found["not_in_turns"]:
        yield found["not_in_turns"]
    if found["in_turns"]:
        drifting = [f"{side['label']}: {side['drift']}" for side in found["sides"] if side["drift"]]
        yield from (f"drift, which cancels where both sides see it: {each}" for each in drifting)
    for pair in found["pairs"]:
        yield from (f"{pair['other']} / {pair['base']}: {why}" for why in pair["unsupported"].values())


def verdict(found: Mapping[str, Any]) -> str | None:
    """The last line: against the limit, or why nothing is decided; None where there is nothing to say."""
    word = STATUS_WORDS[found["status"]]
    if not word:
        return None
    told = dict.fromkeys(pair["reason"] for pair in found["pairs"] if pair["reason"] and pair["status"])
    others = {why: ", ".join(pair["other"] for pair in found["pairs"] if pair["reason"] == why) for why in told}
    reasons = [f"{labels}: {why}" for why, labels in others.items()] or ["not every side was compared"]
    limit = "" if found["max_regression"] is None else f" (at most {100 * found['max_regression']:g}% slower)"
    return f"{word}{limit}: {'; '.join(reasons)}"


def print_comparison(found: Mapping[str, Any], console: Console) -> None:
    """Prints what ``edgekit compare`` found."""
    from edgekit.reporting.terminal import print_table

    print_table(sides_table(found), console)
    print_table(pairs_table(found), console)
    for pair in found["pairs"]:
        console.print(sentence(pair))
    for remark in remarks(found):
        console.print(remark, style="dim")
    last = verdict(found)
    if last is not None:
        console.print(last, style="bold")
