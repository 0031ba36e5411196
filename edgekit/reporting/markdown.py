"""Reports as Markdown, for a pull request or a file: the verdict first, one compact table, the rest folded."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgekit.reporting import comparison, pruned
from edgekit.reporting.kept import corruption_table, kept_table, lost_table, sentence
from edgekit.reporting.tables import (
    MARK,
    Table,
    bounds,
    candidates_table,
    count,
    facts,
    interval,
    latency_table,
    limit_notes,
    limits_table,
    milliseconds,
    number,
    percent,
    percentile,
    remarks,
    scores_table,
    shipped_of,
)
from edgekit.reporting.tried import trials_line, trials_table

MOST = 65_536  # characters that GitHub takes for a comment
_ROOM = 60_000  # what is written, so that a few lines may be put around it
_CELL = 200  # characters of a cell
_REASON = 2_000  # characters of a reason
_WORST_FIRST = ("failed", "fail", "inconclusive", "not measured", "pass", "compared")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A piece of a document.

    Attributes:
        text: Its Markdown.
        fold: The line it is folded under; None: always in sight, and never left out for length.
    """

    text: str
    fold: str | None = None

    def __str__(self) -> str:
        if self.fold is None:
            return self.text
        return f"<details><summary>{html.escape(self.fold, quote=False)}</summary>\n\n{self.text}\n\n</details>"


def to_markdown(*reports: Mapping[str, Any]) -> str:
    """Renders reports as one document: several are set side by side in one table, then follow one by one.

    It is shorter than what GitHub takes for a comment: folded parts are left out from the last on where it would not
    be, and the document says so.

    Args:
        reports: Values of reports: of runs, profiles or comparisons, schema version 2; at least one.
    """
    rows = [row for report in reports for row in _rows(report)]
    parts = []
    if len(reports) == 1:
        parts.append(Part(text=f"# {_title(reports[0])}"))
    else:
        parts.append(Part(text=f"# {len(reports)} reports: **{_worst(reports).upper()}**"))
    if len(rows) > 1:
        parts.append(Part(text=_table((_OVERVIEW, rows))))
    for report in reports:
        if len(reports) > 1:
            parts.append(Part(text=f"## {_title(report)}"))
        parts += _body(report)
    return _fitted(parts)


def _fitted(parts: Sequence[Part]) -> str:
    texts = [str(part) for part in parts]
    left_out = 0
    for i in reversed(range(len(parts))):
        if sum(map(len, texts)) + 2 * len(texts) <= _ROOM:
            break
        if parts[i].fold is not None:
            texts[i] = ""
            left_out += 1
    if left_out:
        texts.append(f"{left_out} folded parts are left out for length; report.json holds everything.")
    whole = "\n\n".join(text for text in texts if text) + "\n"
    return whole if len(whole) <= _ROOM else f"{whole[:_ROOM]}…\n"


def _title(report: Mapping[str, Any]) -> str:
    if report["kind"] == "comparison":
        base, *others = (f"{side['label']} {side['name']}" for side in report["sides"])
        name = f"{', '.join(others)} against {base}"
    else:
        name = report["bundle"]["name"] if report["kind"] == "profile" else report["name"]
    return f"{escape(name)}: **{_worst([report]).upper()}**"


def _worst(reports: Iterable[Mapping[str, Any]]) -> str:
    found = [part["status"] for report in reports for part in _judged(report)]
    return next((status for status in _WORST_FIRST if status in found), "pass")


def _judged(report: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The parts of a report that have a verdict."""
    targets: Sequence[Mapping[str, Any]] = report["targets"] if report["kind"] == "run" else [report]
    return targets


_OVERVIEW = ["run", "target", "verdict", "ships", "p50 ms", "p99 ms", "MB", "drop, points"]


def _rows(report: Mapping[str, Any]) -> Iterator[list[str]]:
    """One row a target, of what ships; none for a comparison, which has tables of its own."""
    if report["kind"] == "comparison":
        return
    if report["kind"] == "profile":
        bundle = report["bundle"]
        name = f"{bundle['engine']} {bundle['precision']}"
        times = [percentile(report, q) for q in (50.0, 99.0)]
        yield [bundle["name"], report["target"], report["status"], name, *times, "", ""]
        return
    for target in report["targets"]:
        shipped = shipped_of(target)
        row = [report["name"], target["target"], target["status"]]
        if shipped is None:
            yield [*row, "nothing", "", "", "", ""]
            continue
        times = [percentile(shipped, q) for q in (50.0, 99.0)]
        drop = interval((shipped["proof"] or {}).get("drop"))
        yield [*row, shipped["plan"], *times, number(shipped["size_mb"], 2), drop]


def _body(report: Mapping[str, Any]) -> Iterator[Part]:
    if report["kind"] != "run":
        yield from _profile(report) if report["kind"] == "profile" else _comparison(report)
        return
    for target in report["targets"]:
        yield from _target(report, target, alone=len(report["targets"]) == 1)
    if report.get("pruning"):
        yield from _pruning(report["pruning"])
    if report.get("kept"):
        yield Part(text=_kept(report["kept"]), fold="Where the student lost")
    yield Part(text=_reproduce(report), fold="How to reproduce")


def _kept(kept: Mapping[str, Any]) -> str:
    tables = [table for table in (kept_table(kept), lost_table(kept), corruption_table(kept)) if table[1]]
    return "\n\n".join([f"{escape(sentence(kept))}.", *map(_table, tables)])


def _pruning(found: Mapping[str, Any]) -> Iterator[Part]:
    """What came of it in sight, since the model that ships is another than the recipe's; how, folded."""
    estimate = f" Latencies are **not measured here**: {escape(found['estimate'])}." if found["estimate"] else ""
    yield Part(text=f"**Pruned**: {escape(pruned.pruning_sentence(found))}.{estimate}")
    said = [f"- {escape(name)}: {escape(text)}" for name, text in pruned.remarks(found)]
    said += [f"- {escape(note)}" for note in found["notes"]]
    text = "\n\n".join([_table(_marked(pruned.pruning_table(found, whole=True))), "\n".join(said)])
    yield Part(text=text, fold="Pruned to a latency budget")


def _profile(report: Mapping[str, Any]) -> Iterator[Part]:
    bundle = report["bundle"]
    ran = f"{bundle['engine']} {bundle['precision']}"
    yield Part(
        text=f"{escape(ran)} on **{escape(report['target'])}**, profile {escape(report['profile'])}: "
        f"{escape(report['reason'])}. Bundle {_code(bundle['id'][:16])}"
    )
    yield from _disturbances(report["measured"])
    yield from _limits(report, report["reason"])
    yield from _tables(latency_table(report["measured"]), fold="Latency")


def _comparison(report: Mapping[str, Any]) -> Iterator[Part]:
    lines = [comparison.sentence(pair) for pair in report["pairs"]]
    last = comparison.verdict(report)
    yield Part(text="\n".join(f"- {escape(line)}" for line in [*lines, *([last] if last else [])]))
    yield from _tables(comparison.pairs_table(report))
    yield from _tables(comparison.sides_table(report), fold="Sides")
    yield Part(
        text="\n".join(f"- {escape(remark)}" for remark in comparison.remarks(report)), fold="How it was measured"
    )


def _target(report: Mapping[str, Any], target: Mapping[str, Any], *, alone: bool) -> Iterator[Part]:
    shipped = shipped_of(target)
    if not alone:
        yield Part(text=f"### {escape(target['target'])}: **{target['status'].upper()}**")
    bundle = f". Bundle {_code(target['bundle']['id'][:16])}" if target["bundle"] else ""
    where = f"**{escape(target['target'])}**, profile {escape(target['profile'])}"
    yield Part(text=f"{where}: {escape(target['why'])}{bundle}")
    if shipped:
        yield from _disturbances(shipped["measured"])
        yield from _limits(shipped)
    for name, text in remarks(target):
        yield Part(text=_fenced(text), fold=name)
    candidates = target["candidates"]
    yield from _tables(_marked(candidates_table(target)), fold=f"All {len(candidates)} candidates")
    if target["trials"]:
        said = f"`auto` {escape(trials_line(target))}."
        yield Part(text=f"{said}\n\n{_table(trials_table(target, reasons=True))}", fold="What auto tried")
    if shipped:
        yield from _tables(_steps(target), fold="From the teacher to what ships")
        yield from _tables(scores_table(report, shipped), fold="Accuracy")
        yield from _tables(latency_table(shipped["measured"]), fold="Latency")
    found = "\n".join(f"- {escape(name)}: {escape(text)}" for name, text in facts(report, target))
    caveats = shipped["measured"]["caveats"] if shipped and shipped["measured"] else []
    yield Part(text="\n".join([found, *(f"- caveat: {escape(text)}" for text in caveats)]), fold="Host and load")


def _limits(judged: Mapping[str, Any], told: str | None = None) -> Iterator[Part]:
    """The table of limits, and what it has no room for."""
    yield from _tables(limits_table(judged))
    for names, note in limit_notes(judged, told):
        yield Part(text=f"{escape(names)}: {escape(note)}")


def _disturbances(measured: Mapping[str, Any] | None) -> Iterator[Part]:
    """Why latencies cannot be trusted, in sight."""
    for key in ("spoiled", "drift"):
        if measured and measured[key]:
            yield Part(text=f"**{'Drift' if key == 'drift' else 'Spoiled'}**: {escape(measured[key])}")


def _marked(table: Table) -> Table:
    """The table of candidates with the name of the one that ships in bold, instead of a mark of its own."""
    header, rows = table
    return header[1:], [[f"**{row[1]}**" if row[0] == MARK else row[1], *row[2:]] for row in rows]


def _steps(target: Mapping[str, Any]) -> Table:
    rows = [
        [
            step["name"],
            step["engine"] or "",
            count(step["parameters"]),
            number(step["size_mb"], 2),
            milliseconds(step["p50_ms"]),
            bounds(step["p50_low_ms"], step["p50_high_ms"], milliseconds),
            percent(step["score"]),
            step["note"],
        ]
        for step in target["steps"]
    ]
    return ["step", "engine", "parameters", "MB", "p50 ms", "interval", "score", "note"], rows


def _reproduce(report: Mapping[str, Any]) -> str:
    how = report["reproduce"]
    versions = ", ".join(f"{name} {version}" for name, version in how["versions"].items())
    hashes = [f"- {escape(name)}: {_code(digest)}" for name, digest in how["hashes"].items()]
    command = [_fenced(how["command"])] if how["command"] else []
    lines = [f"- seed: {report['seed']}", f"- versions: {escape(versions)}", f"- recipe: {_code(how['recipe_sha256'])}"]
    return "\n\n".join([*command, "\n".join([*lines, *hashes])])


def _tables(table: Table, fold: str | None = None) -> Iterator[Part]:
    """A table that has rows."""
    if table[1]:
        yield Part(text=_table(table), fold=fold)


def _table(table: Table) -> str:
    header, rows = table
    lines = ["| " + " | ".join(map(_cell, header)) + " |", "|" + " --- |" * len(header)]
    lines += ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def _cell(text: str) -> str:
    strong = len(text) > 4 and text.startswith("**") and text.endswith("**")
    escaped = escape(_clipped(text[2:-2] if strong else text, _CELL))
    return f"**{escaped}**" if strong else escaped


def _fenced(text: str) -> str:
    """A text word for word, in a fence longer than any within it."""
    text = _clipped(text, _REASON)
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}text\n{text}\n{fence}"


def _code(text: str) -> str:
    return f"<code>{escape(text)}</code>"


def _clipped(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}… ({len(text) - most} characters more in report.json)"


def escape(text: str) -> str:
    """A text on one line that Markdown and HTML take for nothing but text; names and figures stay readable."""
    text = html.escape(" ".join(text.split()), quote=False)
    text = re.sub(r"([\\`*|~])", r"\\\1", text)
    text = re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", text)  # within a word it is no emphasis
    return text.replace("](", "]\\(")
