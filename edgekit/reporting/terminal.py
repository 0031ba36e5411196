"""A report on a terminal: the verdict, the table, what ships and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from edgekit.reporting.pruned import pruning_sentence, pruning_table, step_lines
from edgekit.reporting.pruned import remarks as pruning_remarks
from edgekit.reporting.tables import (
    Table,
    candidates_table,
    facts,
    latency_table,
    limit_notes,
    limits_table,
    measured_facts,
    remarks,
    scores_table,
    shipped_of,
    shortened,
)
from edgekit.reporting.tried import trials_line, trials_table

COLOURS = {"pass": "bold green", "fail": "bold red", "inconclusive": "bold yellow", "not measured": "bold yellow"}

MOST_NAME = 26  # characters of a candidate's name on one line
LEAST_NAME = 16  # of a longer one on each of its lines
WIDE = 90  # columns from which the widest table is shown whole


def print_report(report: Mapping[str, Any], console: Console) -> None:
    """Prints every target of a report."""
    for target in report["targets"]:
        title = Text.assemble(
            (f"{report['name']} on {target['target']}", "bold"),
            f", profile {target['profile']}: ",
            (target["status"].upper(), COLOURS[target["status"]]),
        )
        console.print(title)
        print_table(candidates_table(target, narrow=console.width < WIDE), console)
        if len(target["trials"]) > 1:
            print_table(trials_table(target, narrow=console.width < WIDE), console)
        if target["trials"]:
            console.print(Text.assemble(("auto: ", "dim"), trials_line(target)))
        shipped = shipped_of(target)
        if shipped:
            _print_limits(shipped, console)
            print_table(latency_table(shipped["measured"]), console)
            print_table(scores_table(report, shipped), console)
        for name, text in remarks(target):
            console.print(Text(f"{name}: {text}", style="red"))
        for name, text in facts(report, target):
            console.print(Text.assemble((f"{name}: ", "dim"), text))
        if shipped and target["status"] in ("fail", "inconclusive"):
            console.print(Text.assemble((f"{target['status']}: ", COLOURS[target["status"]]), shipped["reason"]))
        console.print(Text.assemble(("ships: " if shipped else "", "bold"), target["why"]))
        if target["bundle"]:
            console.print(f"bundle: {target['bundle']['path']} ({target['bundle']['id'][:16]})")
        console.print()
    if report.get("pruning"):
        print_pruning(report["pruning"], console)


def print_pruning(pruning: Mapping[str, Any], console: Console) -> None:
    """Prints how a model was pruned: what came of it, every step, how it was done, and what could not be.

    Args:
        pruning: The part ``pruning`` of a report, or what ``prune`` writes to ``pruning.json``.
        console: Where to.
    """
    title = f"pruned for {pruning['target']}, {pruning['plan']}"
    console.print(Text.assemble((title, "bold"), ", latencies are an estimate" if pruning["estimate"] else ""))
    print_table(pruning_table(pruning, narrow=console.width < WIDE), console)
    for name, text in [
        *step_lines(pruning),
        *pruning_remarks(pruning),
        *(("note", shortened(note, "the page")) for note in pruning["notes"]),
    ]:
        console.print(Text.assemble((f"{name}: ", "dim"), text))
    console.print(pruning_sentence(pruning))


def print_table(table: Table, console: Console) -> None:
    """Prints a table that has rows."""
    header, rows = table
    if not rows:
        return
    made = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for i, name in enumerate(header):
        numeric = all(row[i][:1] in "-0123456789" for row in rows)
        longest = max(len(part) for row in rows for part in row[i].split("\n"))
        # A plan with much that is unusual in it is told on several lines; figures and what is short never are.
        whole = numeric or i == 0 or (i == 1 and longest <= MOST_NAME)
        word = max(map(len, name.split()), default=0)
        made.add_column(
            name,
            overflow="fold",
            no_wrap=whole,
            min_width=(longest if longest <= MOST_NAME else LEAST_NAME) if i == 1 else word,
            justify="right" if numeric else "left",
        )
    for row in rows:
        made.add_row(*(Text(cell, style=COLOURS.get(cell, "")) for cell in row))
    console.print(made)


def _print_limits(judged: Mapping[str, Any], console: Console) -> None:
    """The table of limits, and below it what it has no room for; the reason of the verdict is told at the end."""
    print_table(limits_table(judged), console)
    for names, note in limit_notes(judged, judged["reason"]):
        console.print(Text.assemble((f"{names}: ", "dim"), note))


def print_profile(found: Mapping[str, Any], console: Console) -> None:
    """Prints what ``edgekit profile`` found."""
    bundle = found["bundle"]
    console.print(
        Text.assemble(
            (f"{bundle['name']} ({bundle['engine']} {bundle['precision']})", "bold"),
            f" on {found['target']}, profile {found['profile']}: ",
            (found["status"].upper(), COLOURS[found["status"]]),
        )
    )
    _print_limits(found, console)
    print_table(latency_table(found["measured"]), console)
    if found["measured"]["application"]:
        for name, text in measured_facts(found["measured"]):
            console.print(Text.assemble((f"{name}: ", "dim"), text))
    console.print(found["reason"])
