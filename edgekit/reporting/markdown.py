"""A report as Markdown, for a pull request or a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgekit.reporting.tables import (
    Table,
    candidates_table,
    facts,
    latency_table,
    limits_table,
    remarks,
    scores_table,
    shipped_of,
)


def to_markdown(report: Mapping[str, Any]) -> str:
    """Renders a report as Markdown."""
    parts = [f"# {report['name']}"]
    for target in report["targets"]:
        parts.append(f"## {target['target']}, profile {target['profile']}: **{target['status']}**")
        parts.append(target["why"] + (f". Bundle `{target['bundle']['id'][:16]}`" if target["bundle"] else ""))
        parts.append(_table(candidates_table(target)))
        shipped = shipped_of(target)
        if shipped:
            tables = (limits_table(shipped), latency_table(shipped["measured"]), scores_table(report, shipped))
            parts += [_table(table) for table in tables if table[1]]
        parts += [f"**{name}**:\n\n```\n{text}\n```" for name, text in remarks(target)]
        parts.append("\n".join(f"- {name}: {text}" for name, text in facts(report, target)))
    if report["command"]:
        parts.append(
            f"Reproduce: `{report['command']}` with edgekit {report['edgekit_version']}, seed {report['seed']}."
        )
    return "\n\n".join(parts) + "\n"


def _table(table: Table) -> str:
    header, rows = table
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines)
