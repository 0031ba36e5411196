"""What the page of a sensitivity analysis shows, gathered for its template."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgekit.reporting.group_names import BETWEEN, short_names
from edgekit.reporting.html_tables import Cell, Grid, Head, figure, plain
from edgekit.reporting.pictures_sensitivity import draw_sensitivity
from edgekit.reporting.sensitivity import decibels, failures, made_of, ratio_text, remarks, sentence
from edgekit.reporting.tables import interval, milliseconds, share

# How a finding looks in a table.
LOOKS = {"pays": "pass", "costs": "fail", "failed": "fail", "unsettled": "inconclusive"}


def sensitivity_view(report: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that the page shows.

    Args:
        report: A sensitivity report.
    """
    return {
        "name": report["model"],
        "target": report["target"],
        "plan": report["plan"],
        "created": report["created"],
        "said": sentence(report),
        "not_measured": report["not_measured"],
        "confidence": None if report["confidence"] is None else f"{100 * report['confidence']:g}%",
        "picture": tuple(draw_sensitivity(report, f"groups-{i}", narrow=bool(i)) for i in range(2)),
        "groups": groups_grid(report),
        "nodes": [(f"{i}. {g['name']}", ", ".join(g["nodes"])) for i, g in enumerate(report["groups"], start=1)],
        "failures": failures(report),
        "facts": [
            *remarks(report),
            ("profile", report["profile"]),
            ("threads", plain(report["threads"] or "the engine's choice")),
            ("system", f"{report['host']['os']}, Python {report['host']['python']}"),
            ("edgekit", report["edgekit_version"]),
        ],
        "command": report["command"],
        "hashes": [("fp32 model", report["sha256"])],
    }


def groups_grid(report: Mapping[str, Any]) -> Grid:
    """One row a group; whole names are beside the nodes."""
    rows = []
    names = short_names(report["groups"])
    for i, (group, name) in enumerate(zip(report["groups"], names, strict=True), start=1):
        drop = group["drop"] if (group["drop"] or {}).get("points") is not None else None
        look = f"status {LOOKS.get(group['finding'], 'not-measured')}"
        rows.append(
            [
                figure(str(i), i),
                Cell(BETWEEN.join(name), i),
                Cell(group["finding"], group["finding"], look),
                figure(decibels(group), group["db"]),
                figure(interval(drop), drop["points"] if drop else None),
                figure(ratio_text(group), group["ratio"]),
                figure(milliseconds(group["p50_ms"]), group["p50_ms"]),
                figure(share(group["int8_share"]), group["int8_share"]),
                Cell(made_of(group), made_of(group)),
            ]
        )
    head = [Head("#", True), Head("group"), Head("int8 here"), Head("dB", True), Head("drop, points", True)]
    head += [Head("time of fp32", True), Head("p50 ms", True), Head("int8", True), Head("operators")]
    return Grid(identity="groups", caption="Groups", head=head, rows=rows, name_at=1)
