"""What every operator group loses and gains in int8: as JSON values, as a table, on a terminal and as a page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from edgekit.artifact import Artifact, to_json
from edgekit.candidate import Task
from edgekit.places import host_of
from edgekit.quantization.schemes import Plan
from edgekit.reporting.comparison import TIMES, times, times_text
from edgekit.reporting.group_names import short_names
from edgekit.reporting.sensitivity_model import SENSITIVITY_SCHEMA_VERSION
from edgekit.reporting.tables import NONE, Table, host_text, interval, milliseconds, number, points
from edgekit.runtime.numbers import BEST_DB
from edgekit.sensitivity import Sensitivity

if TYPE_CHECKING:
    from rich.console import Console

# What a ratio's finding means of a group in int8.
WORDS = {"faster": "pays", "slower": "costs"}
# Below this, in dB, a group alone loses so much that it is marked.
POOR_DB = 20.0
MOST_NAME = 24  # characters of a group's name on one line of a table


def sensitivity_report(
    rows: Sequence[Sensitivity], plan: Plan, task: Task, *, name: str, model: Artifact, command: str | None = None
) -> dict[str, Any]:
    """The analysis as plain JSON values; the types are in :mod:`edgekit.reporting.sensitivity_model`.

    Args:
        rows: One a group, in the model's order.
        plan: The plan in int8 whose groups were tried one at a time.
        task: What they were judged by.
        name: The model's name.
        model: The fp32 ONNX model.
        command: The command line, or None.
    """
    from edgekit import __version__

    ratios = [row.ratio for row in rows if row.ratio is not None]
    return {
        "kind": "sensitivity",
        "schema_version": SENSITIVITY_SCHEMA_VERSION,
        "edgekit_version": __version__,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": command,
        "model": name,
        "sha256": model.sha256,
        "target": task.target.name,
        "profile": task.profile.name,
        "engine": plan.engine,
        "plan": str(plan),
        "threads": task.target.threads,
        "host": to_json(host_of(task.place)),
        "not_measured": task.not_measured,
        "samples": len(task.test),
        "metric": task.references.metric_name,
        "fp32_ms": ratios[0].base_ms if ratios else None,
        "confidence": ratios[0].confidence if ratios else None,
        "groups": [group_report(row) for row in rows],
    }


def group_report(row: Sensitivity) -> dict[str, Any]:
    """One group, as the report keeps it."""
    ratio = row.ratio
    finding = "failed" if row.failure else WORDS.get(ratio.finding, ratio.finding) if ratio else "not measured"
    return {
        "name": row.group.name,
        "operators": list(row.group.operators),
        "nodes": list(row.group.nodes),
        "compute": row.group.compute,
        "db": row.db,
        "drop": to_json(row.drop),
        "int8_share": row.int8_share,
        "p50_ms": row.p50_ms,
        "ratio": ratio.ratio if ratio else None,
        "low": ratio.low if ratio else None,
        "high": ratio.high if ratio else None,
        "finding": finding,
        "failure": row.failure,
    }


def sensitivity_table(report: Mapping[str, Any], *, narrow: bool = False) -> Table:
    """One row a group: what it loses and gains in int8, and what that says.

    Args:
        report: As :func:`sensitivity_report` gives it.
        narrow: For less than 90 columns: without operators and intervals.
    """
    header = ["#", "group", *([] if narrow else ["operators"]), "dB", "drop, points", "time of fp32", "finding"]
    rows = [
        [
            str(i),
            "\n… ".join(_clipped(part) for part in names),
            *([] if narrow else [", ".join(group["operators"])]),
            number(group["db"], 1),
            points(group["drop"]) if narrow else interval(group["drop"]),
            ratio_text(group, narrow=narrow),
            group["finding"],
        ]
        for i, (group, names) in enumerate(zip(report["groups"], short_names(report["groups"]), strict=True), start=1)
    ]
    return header, rows


def _clipped(name: str) -> str:
    """A name on one line of a table, its middle left out where it is longer."""
    return name if len(name) <= MOST_NAME else f"{name[: MOST_NAME // 2]}…{name[1 - MOST_NAME // 2 :]}"


def ratio_text(group: Mapping[str, Any], *, narrow: bool = False) -> str:
    """A group's time over that of fp32, with its interval: ``0.93 [0.91, 0.95]``."""
    if group["ratio"] is None:
        return NONE
    return times(group["ratio"], group) if narrow else times_text(group)


def made_of(group: Mapping[str, Any]) -> str:
    """How many compute nodes a group has, and of which operators: ``3 × Conv, MatMul``."""
    operators = ", ".join(group["operators"])
    return operators if group["compute"] == 1 else f"{group['compute']} {TIMES} {operators}"


def decibels(group: Mapping[str, Any]) -> str:
    """A group's dB with its unit; what does not change a bit says so."""
    if group["db"] is None:
        return NONE
    return "identical" if group["db"] >= BEST_DB else f"{group['db']:.1f} dB".replace("-", "\N{MINUS SIGN}")


def sentence(report: Mapping[str, Any]) -> str:
    """What was found, in a line: ``int8 pays in 3 of 8 groups, costs in 1; 2 are under 20 dB``."""
    groups = report["groups"]
    if not groups:
        return "the model has no operator groups"
    counts = {word: sum(group["finding"] == word for group in groups) for word in ("pays", "costs", "failed")}
    said = "nothing was timed" if report["not_measured"] else f"int8 pays in {counts['pays']} of {len(groups)} groups"
    said += f", costs in {counts['costs']}" if counts["costs"] else ""
    poor = sum(group["db"] is not None and group["db"] < POOR_DB for group in groups)
    said += f"; {poor} {'is' if poor == 1 else 'are'} under {POOR_DB:g} dB" if poor else ""
    return said + (f"; {counts['failed']} failed" if counts["failed"] else "")


def remarks(report: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """How it was found, and what failed: name and text."""
    yield "host", host_text(report["host"])
    metric = f", score: {report['metric']}" if report["metric"] else ", no score: drops are not known"
    yield "judged on", f"{report['samples']} samples that are not the test's{metric}"
    if report["not_measured"]:
        yield "not measured", report["not_measured"]
    if report["fp32_ms"] is not None:
        yield (
            "fp32",
            f"{milliseconds(report['fp32_ms'])} ms; ratios are of medians in turns, "
            f"intervals of {100 * report['confidence']:g}%",
        )


def failures(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Which groups could not be made or did not run, and why."""
    return [
        (f"{i}. {group['name']}", group["failure"])
        for i, group in enumerate(report["groups"], start=1)
        if group["failure"]
    ]


def print_sensitivity(report: Mapping[str, Any], console: Console) -> None:
    """Prints the analysis."""
    from rich.text import Text

    from edgekit.reporting.terminal import WIDE, print_table

    console.print(Text.assemble((f"{report['model']} on {report['target']}", "bold"), f", {report['plan']}"))
    print_table(sensitivity_table(report, narrow=console.width < WIDE), console)
    for name, text in failures(report):
        console.print(Text(f"{name}: {text}", style="red"))
    for name, text in remarks(report):
        console.print(Text.assemble((f"{name}: ", "dim"), text))
    console.print(sentence(report))


def sensitivity_html(report: Mapping[str, Any]) -> str:
    """Renders the analysis as one page that needs nothing but a browser.

    Args:
        report: As :func:`sensitivity_report` gives it, or as it was read back.
    """
    from edgekit.reporting.html import render_page
    from edgekit.reporting.html_sensitivity import sensitivity_view

    return render_page("sensitivity.html", status="not measured", view=sensitivity_view(report))
