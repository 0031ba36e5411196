"""Reports as GitHub annotations: workflow commands that a step prints and that a pull request shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edgekit.reporting.cases import Suite, one_line, suites_of
from edgekit.reporting.tables import shipped_of

# GitHub shows so many of a level for one step, and drops the rest without a word.
MOST = 10
_LEVELS = {"fail": "error", "error": "error", "inconclusive": "warning", "left out": "warning"}


def to_annotations(reports: Sequence[Mapping[str, Any]]) -> str:
    """Renders reports as workflow commands, one a line, errors first.

    A missed limit, and a candidate for want of which nothing ships, is an error; what is inconclusive, spoiled or left
    out is a warning; a target that is not measured is one warning; one that passes is one notice. Where there are more
    of a level than GitHub shows, the last one says how many.

    Args:
        reports: Values of reports: of runs, profiles or comparisons, schema version 2.
    """
    by_level: dict[str, list[tuple[str, str]]] = {"error": [], "warning": [], "notice": []}
    for report in reports:
        for level, title, text in _annotations(report):
            by_level[level].append((title, text))
    lines = []
    for level, found in by_level.items():
        shown = found if len(found) <= MOST else found[: MOST - 1]
        lines += [command(level, title, text) for title, text in shown]
        if len(shown) < len(found):
            left = len(found) - len(shown)
            lines.append(command(level, f"{left} more", "; ".join(title for title, _ in found[len(shown) :])))
    return "".join(f"{line}\n" for line in lines)


def command(level: str, title: str, text: str) -> str:
    """One workflow command: ``::error title=…::…``, escaped as GitHub's documentation says."""
    return f"::{level} title={_escape(title, ':,')}::{_escape(text)}"


def _escape(text: str, more: str = "") -> str:
    text = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    for character in more:
        text = text.replace(character, f"%{ord(character):02X}")
    return text


def _annotations(report: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    suites = suites_of(report)
    for suite in suites:
        yield from _of_suite(suite)
    yield from _disturbances(report)


def _of_suite(suite: Suite) -> Iterator[tuple[str, str, str]]:
    for case in suite.cases:
        if case.outcome in _LEVELS:
            said = {"fail": "not met", "error": "failed", "left out": "failed"}.get(case.outcome, case.outcome)
            name = case.name.removesuffix(" runs")
            yield _LEVELS[case.outcome], f"{suite.name}: {name} {said}", case.detail or case.message
    if suite.status == "not measured":
        yield "warning", f"{suite.name}: not measured", one_line(suite.summary)
    elif suite.status in ("pass", "compared"):
        yield "notice", f"{suite.name}: {suite.status}", one_line(suite.summary)


def _disturbances(report: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Why latencies cannot be trusted, of what ships; a comparison says it in its reasons."""
    found = [(report["bundle"]["name"], report["target"], report["measured"])] if report["kind"] == "profile" else []
    for target in report.get("targets", ()):
        shipped = shipped_of(target)
        found += [(report["name"], target["target"], shipped["measured"])] if shipped else []
    for name, where, measured in found:
        for key in ("spoiled", "drift"):
            if measured and measured[key]:
                yield "warning", f"{name} on {where}: {'drifted' if key == 'drift' else key}", measured[key]
