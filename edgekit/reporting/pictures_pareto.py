"""The candidates of a target by latency and accuracy: the budget, the front, and what ships."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from markupsafe import Markup

from edgekit.reporting.pictures import (
    Box,
    Scale,
    line,
    path,
    picture,
    rect,
    spanning,
    tag,
    text,
    tip,
    wrapped,
    x_axis,
    y_axis,
)
from edgekit.reporting.pictures_labels import draw_limits, label_beside
from edgekit.reporting.tables import LIMIT_NAMES, bounds, hundredths, milliseconds, percent

PERCENTILE_LIMITS = {"p50_ms": "50.0", "p90_ms": "90.0", "p95_ms": "95.0", "p99_ms": "99.0", "p999_ms": "99.9"}
# More points than this and only the front, what ships and those with room are named in full.
NAMED = 14
SHAPES = 4
MARKER = 6.0
RING = 11.0
NAME = 200.0  # width of a name's lines
WIDE, NARROW = (860.0, 430.0), (360.0, 380.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One candidate in the picture.

    Attributes:
        number: Its number in the table.
        name: Engine and precision.
        engine: Its engine.
        precision: Its precision.
        status: Its verdict.
        shipped: Whether it is the one that ships.
        ms: Latency, and the ends of its interval where known.
        low_ms: Lower end.
        high_ms: Upper end.
        drop: Accuracy drop from the teacher in points, and the ends of its interval.
        low_drop: Lower end.
        high_drop: Upper end.
    """

    number: int
    name: str
    engine: str
    precision: str
    status: str
    shipped: bool
    ms: float
    low_ms: float | None
    high_ms: float | None
    drop: float
    low_drop: float | None
    high_drop: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pareto:
    """What the picture shows.

    Attributes:
        limit: The latency limit on the x axis, or the percentile that stands in where none is set.
        budget_ms: Its value, or None.
        max_drop: Largest drop allowed in points, or None.
        teacher: The teacher's score, or None.
        engines: All engines that were tried, in the order of their names.
        points: The candidates whose latency and accuracy are known.
        front: Those that no other beats in both, quickest first.
        missing: The others: name, and what is not known.
    """

    limit: str
    budget_ms: float | None
    max_drop: float | None
    teacher: float | None
    engines: tuple[str, ...]
    points: tuple[Point, ...]
    front: tuple[Point, ...]
    missing: tuple[tuple[str, str], ...]


def pareto_of(target: Mapping[str, Any]) -> Pareto:
    """Gathers the points of a target; the latency is that of the budget that leaves least room."""
    limit = _tightest(target)
    points, missing = [], []
    for number, c in enumerate(target["candidates"], start=1):
        name = c["plan"]
        latency = found_percentile(c, limit)
        drop = (c.get("proof") or {}).get("drop")
        latency = latency if latency and latency.get("ms") is not None else None
        drop = drop if drop and drop.get("points") is not None else None
        if latency and drop:
            points.append(
                Point(
                    number=number,
                    name=name,
                    engine=c["engine"],
                    precision=c["precision"],
                    status=c["status"],
                    shipped=bool(c["shipped"]),
                    ms=latency["ms"],
                    low_ms=latency.get("lower_ms"),
                    high_ms=latency.get("upper_ms"),
                    drop=drop["points"],
                    low_drop=drop.get("low"),
                    high_drop=drop.get("high"),
                )
            )
        else:
            unknown = [what for what, known in (("latency", latency), ("accuracy", drop)) if not known]
            missing.append((f"{number}. {name}", f"no {' and no '.join(unknown)}"))
    limits = target.get("limits") or {}
    return Pareto(
        limit=limit,
        budget_ms=limits.get(limit),
        max_drop=limits.get("max_drop_points"),
        teacher=next(
            (s for c in target["candidates"] if (s := (c.get("proof") or {}).get("teacher")) is not None), None
        ),
        engines=tuple(sorted({c["engine"] for c in target["candidates"]})),
        points=tuple(points),
        front=tuple(front_of(points)),
        missing=tuple(missing),
    )


def front_of(points: Sequence[Point]) -> list[Point]:
    """Those that no other beats in latency and accuracy, quickest first."""
    front: list[Point] = []
    for point in sorted(points, key=lambda p: (p.ms, p.drop)):
        if not front or point.drop < front[-1].drop:
            front.append(point)
    return front


def found_percentile(candidate: Mapping[str, Any], limit: str) -> Mapping[str, Any] | None:
    """A percentile of the application clock by the name of its limit, or None where it is not known."""
    summary = (candidate.get("measured") or {}).get("application")
    found = (summary or {}).get("percentiles") or {}
    return {str(float(q)): value for q, value in found.items()}.get(PERCENTILE_LIMITS[limit])


def _tightest(target: Mapping[str, Any]) -> str:
    """The latency limit whose budget is used up most by what ships; p50 where there is no budget."""
    limits = target.get("limits") or {}
    budgets = {name: limits[name] for name in PERCENTILE_LIMITS if limits.get(name)}
    if not budgets:
        return "p50_ms"
    shipped = next((c for c in target["candidates"] if c["shipped"]), None)

    def used(name: str) -> float:
        found = found_percentile(shipped, name) if shipped else None
        return (found["ms"] if found and found.get("ms") is not None else 0.0) / float(budgets[name])

    return max(budgets, key=used)


def crowded(pareto: Pareto) -> bool:
    """Whether there are too many points to name them all and draw all their intervals."""
    return len(pareto.points) > NAMED


def draw_pareto(pareto: Pareto, identity: str, *, narrow: bool = False) -> Markup:
    """The picture; ``identity`` is unique on the page. At least one point is needed."""
    width, height = NARROW if narrow else WIDE
    frame = Box(44.0 if narrow else 56.0, 30.0, width - 12.0, height - 52.0)
    budget, allowed = pareto.budget_ms, pareto.max_drop
    x = spanning(
        [v for p in pareto.points for v in (p.ms, _shipped(p, p.high_ms)) if v] + ([budget] if budget else []),
        frame.left,
        frame.right,
        pad=0.1,
    )
    drops = [v for p in pareto.points for v in (p.drop, _shipped(p, p.low_drop), _shipped(p, p.high_drop))]
    y = spanning([0.0, *(v for v in [*drops, allowed] if v is not None)], frame.top, frame.bottom, pad=0.1)
    marks, taken = _budgets(x, y, frame, pareto, identity)
    for p in pareto.points:
        half = RING + 1 if p.shipped else MARKER + 1
        taken.append(Box(x(p.ms) - half, y(p.drop) - half, x(p.ms) + half, y(p.drop) + half))
    taken += [Box(x(a.ms), y(a.drop) - 1, x(b.ms), y(a.drop) + 1) for a, b in pairwise(pareto.front)]
    taken += [
        Box(x(p.low_ms), y(p.drop) - 1, x(p.high_ms), y(p.drop) + 1)
        for p in pareto.points
        if p.shipped and p.low_ms is not None and p.high_ms is not None
    ]
    ordered = sorted(pareto.points, key=lambda p: (not p.shipped, p not in pareto.front, p.number))
    known = f" ({percent(pareto.teacher)})" if pareto.teacher is not None else ""
    rest = [] if crowded(pareto) else [p for p in pareto.points if p not in pareto.front]
    parts = [
        x_axis(x, frame.bottom, frame.top, 5 if narrow else 8, f"{LIMIT_NAMES[pareto.limit]} latency, ms"),
        y_axis(y, frame.left, frame.right, 5),
        text(4, 16, f"accuracy drop from the teacher{known}, points", "axis-name"),
        marks,
        _front(pareto.front, x, y),
        *(_whiskers(p, x, y) for p in [*rest, *pareto.front] if not p.shipped),
        *(_whiskers(p, x, y) for p in pareto.points if p.shipped),
        _labels(ordered, x, y, taken, frame, NAMED if not narrow else 5, pareto.front),
        *(_marker(p, pareto.engines.index(p.engine) % SHAPES, x, y) for p in reversed(ordered)),
    ]
    return picture(
        width,
        height,
        *parts,
        title="Accuracy against latency of all candidates",
        description=_described(pareto),
        role="group",
        class_="narrow" if narrow else "wide",
    )


def _shipped(point: Point, value: float | None) -> float | None:
    """A whisker's end counts for the axes only of what ships: others' may leave the picture."""
    return value if point.shipped else None


def _described(pareto: Pareto) -> str:
    shipped = next((p for p in pareto.points if p.shipped), None)
    front = ", ".join(p.name for p in pareto.front)
    said = f"{len(pareto.points)} candidates; on the front: {front}"
    return f"{said}; {shipped.name} ships" if shipped else said


def _budgets(x: Scale, y: Scale, frame: Box, pareto: Pareto, identity: str) -> tuple[Markup, list[Box]]:
    """What lies beyond the limits, with their names; and the room that these take."""
    budget, allowed = pareto.budget_ms, pareto.max_drop
    named = f"{LIMIT_NAMES[pareto.limit]} budget {budget:g} ms" if budget is not None else ""
    marks, taken = draw_limits(
        frame,
        identity,
        right_of=None if budget is None else (x(budget), named),
        below=None if allowed is None else (y(allowed), f"largest drop {allowed:g}"),
    )
    return marks + line(frame.left, y(0.0), frame.right, y(0.0), "zero"), taken


def _front(front: Sequence[Point], x: Scale, y: Scale) -> Markup:
    """The staircase of what can be had: no candidate is both quicker and more accurate."""
    corners: list[tuple[float, float]] = []
    for point in front:
        if corners:
            corners.append((x(point.ms), corners[-1][1]))
        corners.append((x(point.ms), y(point.drop)))
    return path(corners, "front") if len(corners) > 1 else Markup("")


def _whiskers(point: Point, x: Scale, y: Scale) -> Markup:
    parts = []
    class_ = "whisker shipped" if point.shipped else "whisker"
    if point.low_ms is not None and point.high_ms is not None:
        parts.append(line(x(point.low_ms), y(point.drop), x(point.high_ms), y(point.drop), class_))
    if point.low_drop is not None and point.high_drop is not None:
        parts.append(line(x(point.ms), y(point.low_drop), x(point.ms), y(point.high_drop), class_))
    return Markup("").join(parts)


def _labels(
    points: Sequence[Point],
    x: Scale,
    y: Scale,
    taken: list[Box],
    frame: Box,
    named: int,
    front: Sequence[Point],
) -> Markup:
    """Names beside the points, numbers where there is no room for the name, nothing where there is none at all."""
    parts = []
    few = len(points) <= named
    for point in points:
        wanted = [[f"#{point.number}"]]
        if few or point.shipped or point in front:
            wanted.insert(0, wrapped(point.name, NAME, 3))
        if point.shipped:
            wanted.insert(1, wrapped(point.name, NAME * 0.75, 4))
        # What ships is named wherever there is room for it, the others beside their points.
        gaps, look = ((14.0, 24.0, 38.0, 56.0), "label shipped") if point.shipped else ((9.0,), "label")
        parts.append(label_beside(x(point.ms), y(point.drop), wanted, gaps, taken, frame, look))
    return Markup("").join(parts)


def _marker(point: Point, shape: int, x: Scale, y: Scale) -> Markup:
    """A point: its shape and colour are the engine's, hollow for fp32, a ring around the one that ships."""
    left, top = x(point.ms), y(point.drop)
    ring = [tag("circle", cx=left, cy=top, r=RING, class_="ring")] if point.shipped else []
    ships = " · ships" if point.shipped else ""
    latency = f"{milliseconds(point.ms)} ms {bounds(point.low_ms, point.high_ms, milliseconds)}"
    drop = f"drop {hundredths(point.drop)} {bounds(point.low_drop, point.high_drop, hundredths)} points"
    title = f"#{point.number} {point.name}{ships} · {latency} · {drop} · {point.status}"
    return tag(
        "g",
        tip(title),
        *ring,
        drawn_shape(shape, left, top, hollow=point.precision == "fp32"),
        class_="tip",
        tabindex=0,
        role="img",
        aria_label=title,
    )


def draw_key(shape: int, *, hollow: bool = False) -> Markup:
    """A marker for a legend."""
    return picture(16.0, 16.0, drawn_shape(shape, 8.0, 8.0, hollow=hollow, size=5.0), title="marker", class_="key")


def drawn_shape(shape: int, x: float, y: float, *, hollow: bool, size: float = MARKER) -> Markup:
    """A marker: circle, square, diamond or triangle."""
    class_ = f"mark e{shape}{' hollow' if hollow else ''}"
    if shape == 0:
        return tag("circle", cx=x, cy=y, r=size, class_=class_)
    if shape == 1:
        return rect(x - size + 0.6, y - size + 0.6, 2 * size - 1.2, 2 * size - 1.2, class_)
    wide = size * (1.25 if shape == 2 else 1.15)
    corners = [(x, y - wide), (x + wide, y), (x, y + wide), (x - wide, y)]
    if shape == 3:
        corners = [(x, y - wide), (x + wide, y + wide * 0.8), (x - wide, y + wide * 0.8)]
    return path(corners, class_, closed=True)
