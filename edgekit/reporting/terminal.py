"""A report on a terminal: the verdict, the table, what ships and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from edgekit.reporting.tables import (
    Table,
    candidates_table,
    facts,
    latency_table,
    limits_table,
    scores_table,
    shipped_of,
)

COLOURS = {"pass": "bold green", "fail": "bold red", "inconclusive": "bold yellow", "not measured": "bold yellow"}


def print_report(report: Mapping[str, Any], console: Console) -> None:
    """Prints every target of a report."""
    for target in report["targets"]:
        title = Text.assemble(
            (f"{report['name']} on {target['target']}", "bold"),
            f", profile {target['profile']}: ",
            (target["status"].upper(), COLOURS[target["status"]]),
        )
        console.print(title)
        console.print(_table(candidates_table(target), without=("dB",) if console.width < 90 else ()))
        shipped = shipped_of(target)
        if shipped:
            console.print(_table(limits_table(shipped)))
            console.print(_table(scores_table(report, shipped)))
        for c in target["candidates"]:
            if c["failure"]:
                console.print(Text(f"{c['engine']} {c['precision']} failed: {c['failure']}", style="red"))
        for name, text in facts(report, target):
            console.print(Text.assemble((f"{name}: ", "dim"), text))
        console.print(Text.assemble(("ships: ", "bold"), target["why"]))
        if target["bundle"]:
            console.print(f"bundle: {target['bundle']['path']} ({target['bundle']['id'][:16]})")
        console.print()


def _table(table: Table, without: Sequence[str] = ()) -> RichTable:
    header, rows = table
    made = RichTable(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    kept = [i for i, name in enumerate(header) if name not in without]
    for i in kept:
        numeric = all(row[i][:1] in "-0123456789" for row in rows)
        made.add_column(header[i], overflow="fold", no_wrap=i < 2, justify="right" if numeric else "left")
    for row in rows:
        made.add_row(*(Text(row[i], style=COLOURS.get(row[i], "")) for i in kept))
    return made


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
    console.print(_table(limits_table(found)))
    console.print(_table(latency_table(found["measured"])))
    console.print(found["reason"])
