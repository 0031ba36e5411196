"""How latencies are distributed, and how they went over the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import log
from typing import Any

from markupsafe import Markup

from edgekit.reporting.pictures import (
    FONT,
    LINE,
    Scale,
    hatch,
    line,
    path,
    picture,
    rect,
    spanning,
    tag,
    text,
    text_lines,
    text_width,
    tip,
    wrapped,
    x_axis,
    y_axis,
)
from edgekit.reporting.pictures_pareto import PERCENTILE_LIMITS
from edgekit.reporting.tables import LIMIT_NAMES, milliseconds

WIDE, NARROW = 860.0, 360.0
MARKED = ("50.0", "90.0", "99.0")
# A budget so far beyond the longest query is told, not drawn: it would squash all else.
FAR = 1.6
# How far a distribution is drawn beyond p99, as a share of the way from its shortest query to p99.
TAIL = 0.35
ROW = 26.0


def budgets_of(target: Mapping[str, Any]) -> dict[str, float]:
    """The latency limits of a target, by the text that names them: ``{"p99": 8.0}``."""
    limits = target.get("limits") or {}
    return {LIMIT_NAMES[key]: limits[key] for key in PERCENTILE_LIMITS if limits.get(key) is not None}


def percentiles_of(measured: Mapping[str, Any] | None) -> dict[str, float]:
    """The known percentiles of the application clock in ms: ``{"50.0": 1.2}``."""
    found = ((measured or {}).get("application") or {}).get("percentiles") or {}
    return {str(float(q)): v["ms"] for q, v in found.items() if v.get("ms") is not None}


def bins_of(measured: Mapping[str, Any] | None) -> tuple[list[float], list[float]] | None:
    """Edges in ms and counts of the histogram, or None where there is none."""
    histogram = (measured or {}).get("histogram") or {}
    edges, counts = histogram.get("edges_ms") or [], histogram.get("counts") or []
    if len(edges) != len(counts) + 1 or sum(counts) <= 0 or any(b < a for a, b in pairwise(edges)):
        return None
    return edges, counts


def densities(edges: Sequence[float], counts: Sequence[float], x: Scale) -> list[float]:
    """Heights whose areas on the axis are the counts, in queries that a bin of the mean width would hold."""
    widths = [log(b / a) if x.log else b - a for a, b in pairwise(edges)]
    mean = sum(widths) / len(widths)
    return [count * mean / width if width > 0 else 0.0 for count, width in zip(counts, widths, strict=True)]


def bulk_of(measured: Mapping[str, Any], edges: Sequence[float]) -> float:
    """Where a picture of the distribution ends, in ms: a little beyond p99, so that a few spikes do not squash it."""
    p99 = percentiles_of(measured).get("99.0", edges[-1])
    return min(edges[-1], p99 + TAIL * (p99 - edges[0]))


def draw_histogram(
    measured: Mapping[str, Any], budgets: Mapping[str, float], identity: str, *, narrow: bool = False
) -> Markup | None:
    """The distribution of one candidate's latencies, percentiles and budgets marked; None without a histogram."""
    found = bins_of(measured)
    if found is None:
        return None
    edges, counts = found
    width, height, left = (NARROW, 290.0, 40.0) if narrow else (WIDE, 300.0, 56.0)
    right, bottom = width - 12.0, height - 46.0
    last = bulk_of(measured, edges)
    marks = {f"p{float(q):g}": ms for q, ms in percentiles_of(measured).items() if q in MARKED}
    near = {name: ms for name, ms in budgets.items() if ms <= last * FAR}
    far = {name: ms for name, ms in budgets.items() if name not in near}
    x = spanning([edges[0], last, *marks.values(), *near.values()], left, right, pad=0.03)
    heights = densities(edges, counts, x)
    y = Scale(
        low=0.0, high=max(heights), start=bottom, end=min(26.0 + 15.0 * (len(marks) + len(budgets)), bottom - 110.0)
    )
    parts = [hatch(f"{identity}-hatch")]
    if near:
        parts.append(_beyond(x(min(near.values())), y(y.high), right, bottom, identity))
    parts += [
        x_axis(x, bottom, y(y.high), 5 if narrow else 9, "latency of a query, ms"),
        y_axis(y, left, right, 3),
        path(_outline(edges, heights, x, y, x.high), "bars shipped", closed=True),
        _flags(marks, near, x, bottom, width),
    ]
    parts += [
        text(right, 14.0 + 15.0 * i, f"{name} budget {ms:g} ms \N{RIGHTWARDS ARROW}", "budget-name", "end")
        for i, (name, ms) in enumerate(far.items(), start=len(marks) + len(near))
    ]
    longer = round(_count_above(measured["histogram"], x.high))
    if longer:
        parts.append(text(right, bottom - 8, f"{longer} longer \N{RIGHTWARDS ARROW}", "tick halo", "end"))
    parts.append(text(4, y(y.high) - 8, "queries", "axis-name"))
    said = [f"{name} {milliseconds(ms)} ms" for name, ms in marks.items()]
    return picture(
        width,
        height,
        *parts,
        title="Distribution of the latencies",
        description=", ".join([*said, *(f"{name} budget {ms:g} ms" for name, ms in budgets.items())]),
        class_="narrow" if narrow else "wide",
    )


def _count_above(histogram: Mapping[str, Any], end: float) -> float:
    """Queries in the bins that begin at ``end`` or later, and beyond all bins."""
    starts = histogram["edges_ms"][:-1]
    drawn = sum(count for start, count in zip(starts, histogram["counts"], strict=True) if start >= end)
    return float(drawn + (histogram.get("above") or 0))


def _outline(
    edges: Sequence[float], heights: Sequence[float], x: Scale, y: Scale, end: float
) -> list[tuple[float, float]]:
    """The upper edge of the bins that begin before ``end``, from the base line back to it."""
    drawn = [(a, min(b, end), height) for (a, b), height in zip(pairwise(edges), heights, strict=True) if a < end]
    base = y(0.0)
    points = [(x(drawn[0][0]), base)]
    for a, b, height in drawn:
        points += [(x(a), y(height)), (x(b), y(height))]
    points.append((x(drawn[-1][1]), base))
    # Equal heights side by side are one step: half the text of thirty rows.
    return [p for i, p in enumerate(points) if not (0 < i < len(points) - 1) or _corner(points, i)]


def _corner(points: Sequence[tuple[float, float]], i: int) -> bool:
    """Whether a path would look different without its i-th point."""
    return not (points[i - 1][1] == points[i][1] == points[i + 1][1])


def _beyond(x: float, top: float, right: float, bottom: float, identity: str) -> Markup:
    """The hatched region of latencies over the budget."""
    return rect(x, top, right - x, bottom - top, "forbidden") + tag(
        "rect", x=x, y=top, width=max(0.0, right - x), height=bottom - top, fill=f"url(#{identity}-hatch)"
    )


def _flags(marks: Mapping[str, float], budgets: Mapping[str, float], x: Scale, bottom: float, width: float) -> Markup:
    """Upright lines with their names, each on a line of its own so that none meets another."""
    flags = [(ms, f"{name} {milliseconds(ms)} ms", "percentile") for name, ms in marks.items()]
    flags += [(ms, f"{name} budget {ms:g} ms", "budget") for name, ms in budgets.items()]
    parts = []
    for i, (ms, said, class_) in enumerate(sorted(flags)):
        at, y = x(ms), 14.0 + 15.0 * i
        end = at + 6 + text_width(said) > width
        parts.append(line(at, y - 9, at, bottom, class_))
        parts.append(text(at - 5 if end else at + 5, y, said, f"{class_}-name", "end" if end else None))
    return Markup("").join(parts)


def draw_ridges(target: Mapping[str, Any], identity: str, *, narrow: bool = False) -> Markup | None:
    """The distributions of all candidates on one axis, the quickest first; None where fewer than two are known."""
    rows = [
        (number, c, found)
        for number, c in enumerate(target["candidates"], start=1)
        if (found := bins_of(c.get("measured"))) is not None
    ]
    if len(rows) < 2:
        return None
    rows.sort(key=lambda row: [*_marks(row[1]), *row[2][0]][0])
    budgets = budgets_of(target)
    last = max(bulk_of(c["measured"], edges) for _, c, (edges, _) in rows)
    near = [ms for ms in budgets.values() if ms <= last * FAR]
    width, left, name_width = (NARROW, 8.0, 330.0) if narrow else (WIDE, 250.0, 232.0)
    names = [wrapped(f"{number}. {c['plan']}", name_width, 3) for number, c, _ in rows]
    if not narrow and all(len(lines) == 1 for lines in names):
        left = 190.0
    right, top = width - 12.0, 8.0
    heights = [ROW + LINE * (len(lines) - 1) + 18.0 if narrow else max(ROW, LINE * len(lines) + 7) for lines in names]
    bases = [top + sum(heights[: i + 1]) for i in range(len(rows))]
    bottom = bases[-1]
    values = [last, *(v for _, c, (edges, _) in rows for v in (edges[0], *_marks(c)))]
    x = spanning([v for v in [*values, *near] if v > 0] or [0.0], left, right, pad=0.03)
    parts = [hatch(f"{identity}-hatch")]
    if near:
        parts.append(_beyond(x(min(near)), top, right, bottom, identity))
    parts.append(x_axis(x, bottom, top, 4 if narrow else 8, "latency of a query, ms"))
    parts += [line(x(ms), top, x(ms), bottom, "budget") for ms in near]
    for name, base, (_, c, (edges, counts)) in zip(names, bases, rows, strict=True):
        parts.append(_ridge(name, c, edges, densities(edges, counts, x), x, base, narrow=narrow))
    return picture(
        width,
        bottom + 40.0,
        *parts,
        title="Distributions of all candidates",
        description=f"{len(rows)} candidates on one axis; ticks mark p50 and p99",
        class_="narrow" if narrow else "wide",
    )


def _marks(candidate: Mapping[str, Any]) -> list[float]:
    known = percentiles_of(candidate.get("measured"))
    return [known[q] for q in ("50.0", "99.0") if q in known]


def _ridge(
    lines: Sequence[str],
    candidate: Mapping[str, Any],
    edges: Sequence[float],
    heights: Sequence[float],
    x: Scale,
    base: float,
    *,
    narrow: bool,
) -> Markup:
    """One row: its name, its density, and ticks at p50 and p99."""
    name = str(candidate["plan"])
    shipped = " shipped" if candidate["shipped"] else ""
    y = Scale(low=0.0, high=max(heights), start=base, end=base - ROW + 5)
    marks = _marks(candidate)
    said = " · ".join(f"{q} {milliseconds(ms)} ms" for q, ms in zip(("p50", "p99"), marks, strict=False))
    after = LINE * (len(lines) - 1)
    at = (8.0, base - ROW + 4 - after) if narrow else (x.start - 14.0, base - 4 - after)
    return tag(
        "g",
        tip(f"{name} · {said}"),
        text_lines(*at, lines, f"label{shipped}", None if narrow else "end"),
        line(x.start, base, x.end, base, "grid"),
        path(_outline(edges, heights, x, y, x.high), f"bars{shipped}", closed=True),
        *(line(x(ms), base - 12, x(ms), base, "percentile") for ms in marks),
        class_="tip",
    )


def draw_timeline(measured: Mapping[str, Any], budgets: Mapping[str, float], *, narrow: bool = False) -> Markup | None:
    """p50, p90 and the longest query of every slice of the run; None without a timeline."""
    known = measured.get("timeline") or {}
    lines = [known.get(key) or [] for key in ("seconds", "p50_ms", "p90_ms", "max_ms")]
    if not lines[0] or any(len(values) != len(lines[0]) for values in lines):
        return None
    seconds, p50, p90, longest = lines
    width, height, left = (NARROW, 250.0, 40.0) if narrow else (WIDE, 250.0, 56.0)
    right, top, bottom = width - 50.0, 28.0, height - 46.0
    near = {name: ms for name, ms in budgets.items() if ms <= max(longest) * FAR}
    x = Scale(low=min(0.0, seconds[0]), high=max(seconds[-1], 1e-9), start=left, end=right)
    y = spanning([v for v in [*p50, *p90, *longest, *near.values()] if v > 0] or [0.0], bottom, top)
    places = [x(s) for s in seconds]
    band = [*zip(places, map(y, p50), strict=True), *reversed(list(zip(places, map(y, p90), strict=True)))]
    parts = [
        x_axis(x, bottom, top, 5 if narrow else 8, "time since the first query, s"),
        y_axis(y, left, right, 4),
        text(4, 14, "latency, ms", "axis-name"),
        path(band, "band", closed=True),
        *(tag("circle", cx=at, cy=y(ms), r=1.9, class_="longest") for at, ms in zip(places, longest, strict=True)),
        path(zip(places, map(y, p90), strict=True), "line-p90"),
        path(zip(places, map(y, p50), strict=True), "line-p50"),
    ]
    parts += [line(left, y(ms), right, y(ms), "budget") for ms in near.values()]
    parts += [text(left + 6, y(ms) - 5, f"{name} budget {ms:g} ms", "budget-name") for name, ms in near.items()]
    ends = _apart([("max", y(longest[-1])), ("p90", y(p90[-1])), ("p50", y(p50[-1]))])
    parts += [text(right + 8, at + 4, name, f"end-{name}") for name, at in ends]
    return picture(
        width,
        height,
        *parts,
        title="Latency over the run",
        description=f"p50 between {milliseconds(min(p50))} and {milliseconds(max(p50))} ms; "
        f"longest query {milliseconds(max(longest))} ms",
        class_="narrow" if narrow else "wide",
    )


def _apart(labels: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
    """The labels from the lowest up, each a line of text from the next."""
    placed: list[tuple[str, float]] = []
    for name, y in sorted(labels, key=lambda label: -label[1]):
        placed.append((name, min(y, placed[-1][1] - FONT) if placed else y))
    return placed
