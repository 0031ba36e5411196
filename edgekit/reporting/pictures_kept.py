"""Where a student lost: recall class by class, what is taken for what, and how right answers are by how sure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from edgekit.reporting.pictures import (
    Scale,
    line,
    path,
    picture,
    rect,
    shorten,
    tag,
    text,
    text_width,
    tip,
    x_axis,
    y_axis,
)
from edgekit.reporting.tables import percent

WIDE, NARROW = 860.0, 360.0
# More rows than this are a table's.
MOST_ROWS = 30
MOST_CELLS = 30
MINUS = "\N{MINUS SIGN}"
ARROW = "\N{RIGHTWARDS ARROW}"
BAR = 8.0
# The darkest of a cell's colour on which ink still reads.
PALE = 0.75


def by_loss(kept: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The classes that have samples, the furthest fallen recall first."""
    known = [one for one in kept["classes"] if one["samples"]]
    return sorted(known, key=lambda one: float(one["student"]["recall"] - one["teacher"]["recall"]))


def draw_recalls(kept: Mapping[str, Any], *, narrow: bool = False) -> Markup:
    """A row a class, the teacher's recall above the student's, those that lost most first.

    Args:
        kept: The part ``kept`` of a report.
        narrow: For a narrow page.
    """
    classes = by_loss(kept)[:MOST_ROWS]
    width, row, head = (NARROW, 42.0, 18.0) if narrow else (WIDE, 28.0, 4.0)
    left, right = (4.0, 186.0) if narrow else (196.0, width - 222.0)
    x = Scale(low=0.0, high=100.0, start=left, end=right)
    bottom = 4.0 + row * len(classes)
    parts = [x_axis(x, bottom, 4.0, 2 if narrow else 5, "recall, %")]
    for i, one in enumerate(classes):
        top = 4.0 + row * i
        recalls = [100.0 * one[role]["recall"] for role in ("teacher", "student")]
        said = " · ".join(
            [
                str(one["name"]),
                f"{one['samples']:,} samples",
                *(f"{role} {value:.2f}%" for role, value in zip(("teacher", "student"), recalls, strict=True)),
                f"agreement {percent(one['agreement'])}",
            ]
        )
        shown = shorten(str(one["name"]), 340.0 if narrow else 176.0)
        name = (
            text(left, top + 13.0, shown, "label")
            if narrow
            else text(left - 14.0, top + head + 12.5, shown, "label", "end")
        )
        bars = [
            rect(left, top + head + 10.0 * j, max(1.5, x(value) - left), BAR, f"s{2 * j}", rx=1.5)
            for j, value in enumerate(recalls)
        ]
        parts.append(
            tag(
                "g",
                tip(said),
                rect(0.0, top, width, row, "reach"),
                name,
                *bars,
                _fallen(right + 12.0, top + head + 13.0, *recalls, narrow=narrow),
                class_="tip",
                tabindex=0,
                role="img",
                aria_label=said,
            )
        )
    return picture(
        width,
        bottom + 40.0,
        *parts,
        title="Recall of every class",
        description=f"{len(classes)} classes, teacher and student, the furthest fallen first",
        role="group",
        class_="narrow" if narrow else "wide",
    )


def _fallen(x: float, y: float, before: float, after: float, *, narrow: bool) -> Markup:
    """Both recalls, and by how many points it fell."""
    change = f"{after - before:+.1f}".replace("-", MINUS)
    return tag(
        "text",
        tag("tspan", f"{before:.1f} {ARROW} {after:.1f}", class_="value"),
        tag("tspan", change if narrow else f"{change} points", class_="changed", dx=8),
        x=x,
        y=y,
    )


def draw_confusion(kept: Mapping[str, Any], *, narrow: bool = False) -> Markup | None:
    """What every class is taken for: the student, and on a wide page the teacher beside it.

    Args:
        kept: The part ``kept`` of a report.
        narrow: For a narrow page.

    Returns:
        The picture; None where there are more classes than can be drawn.
    """
    names = [one["name"] for one in kept["classes"]]
    if kept["confusion"] is None or len(names) > MOST_CELLS:
        return None
    roles = ("student",) if narrow else ("student", "teacher")
    width, left, gap = (NARROW, 106.0, 0.0) if narrow else (WIDE, 150.0, 28.0)
    wide = min(40.0, (width - left - 4.0 - gap * (len(roles) - 1)) / (len(names) * len(roles)))
    size = (wide, min(30.0, max(15.0, wide)))
    top = 38.0
    parts = [
        text(left - 10.0, top + size[1] * (i + 0.5) + 4.0, shorten(f"{i + 1}. {name}", left - 14.0), "label", "end")
        for i, name in enumerate(names)
    ]
    for j, role in enumerate(roles):
        at = left + j * (wide * len(names) + gap)
        parts.append(text(at, 12.0, f"{role}'s answers", "axis-name"))
        parts.append(_matrix(kept["confusion"][role], names, role, (at, top), size))
    return picture(
        width,
        top + size[1] * len(names) + 6.0,
        *parts,
        title="What every class is taken for",
        description=f"{len(names)} classes: a row a label, a column an answer, in the same order",
        class_="narrow" if narrow else "wide",
    )


def _matrix(
    counts: Sequence[Sequence[int]],
    names: Sequence[str],
    role: str,
    corner: tuple[float, float],
    size: tuple[float, float],
) -> Markup:
    """One model's matrix: a cell is the darker, the larger its share of its row."""
    (left, top), (wide, high) = corner, size
    every = max(1, -int(-22.0 // wide))
    parts = [rect(left, top, wide * len(names), high * len(names), "cells")]
    for j in range(0, len(names), every):
        parts.append(text(left + wide * (j + 0.5), top - 8.0, str(j + 1), "tick", "middle"))
    for i, row in enumerate(counts):
        whole = sum(row)
        for j, value in enumerate(row):
            if not value:
                continue
            shade = 0.12 + 0.88 * value / whole
            said = f"{names[i]}: the {role} says {names[j]} {value:,} times of {whole:,}"
            x, y = left + wide * j, top + high * i
            kind = "hit" if i == j else "miss"
            parts.append(
                tag("rect", tip(said), x=x, y=y, width=wide, height=high, class_=kind, fill_opacity=round(shade, 2))
            )
            if text_width(f"{value}", 11.0) <= wide - 3.0:
                look = "cell dark" if shade > PALE else "cell"
                parts.append(text(x + wide / 2, y + high / 2 + 4.0, f"{value}", look, "middle"))
    return Markup("").join(parts)


def draw_curves(kept: Mapping[str, Any], *, narrow: bool = False) -> Markup:
    """How right the answers of each confidence are, and precision over recall; under one another on a narrow page.

    Args:
        kept: The part ``kept`` of a report.
        narrow: For a narrow page.
    """
    side = 296.0 if narrow else 330.0
    lefts = (44.0, 44.0) if narrow else (48.0, 490.0)
    tops = (28.0, 28.0 + side + 76.0) if narrow else (28.0, 28.0)
    drawn = [_reliability(kept["reliability"], lefts[0], tops[0], side)]
    curves = kept["curves"]
    if curves["teacher"] is not None:
        drawn.append(_precision(curves, lefts[1], tops[1], side))
    return picture(
        NARROW if narrow else WIDE,
        (tops[len(drawn) - 1] if narrow else tops[0]) + side + 42.0,
        *drawn,
        title="How right answers are by how sure, and precision over recall",
        description="teacher and student, on the test samples",
        class_="narrow" if narrow else "wide",
    )


def _panel(left: float, top: float, side: float, across: str, up: str) -> tuple[Scale, Scale, list[Markup]]:
    """The axes of a square from 0 to 100%."""
    x = Scale(low=0.0, high=100.0, start=left, end=left + side)
    y = Scale(low=0.0, high=100.0, start=top + side, end=top)
    axes = [
        y_axis(y, left, left + side, 5),
        x_axis(x, top + side, top, 5, across),
        text(left, top - 10.0, up, "axis-name"),
    ]
    return x, y, axes


def _reliability(bins: Mapping[str, Any], left: float, top: float, side: float) -> Markup:
    x, y, parts = _panel(left, top, side, "confidence, %", "right answers, %")
    parts.append(line(x(0.0), y(0.0), x(100.0), y(100.0), "reference"))
    for role, look in (("teacher", "s0"), ("student", "s2")):
        every = sum(one["samples"] for one in bins[role])
        places = [(x(100.0 * one["confidence"]), y(100.0 * one["accuracy"])) for one in bins[role]]
        parts.append(path(places, f"line-{role}"))
        for one, (cx, cy) in zip(bins[role], places, strict=True):
            shares = f"{percent(one['confidence'])} sure, {percent(one['accuracy'])} right"
            said = f"{role}: {one['samples']:,} answers, {shares}"
            radius = 2.5 + 5.0 * (one["samples"] / every) ** 0.5
            parts.append(tag("circle", tip(said), cx=cx, cy=cy, r=radius, class_=f"{look} dot"))
    return Markup("").join(parts)


def _precision(curves: Mapping[str, Any], left: float, top: float, side: float) -> Markup:
    x, y, parts = _panel(left, top, side, "recall, %", "precision, %, mean of the classes")
    for role in ("teacher", "student"):
        places = zip(curves["recall"], curves[role], strict=True)
        parts.append(path([(x(100.0 * recall), y(100.0 * value)) for recall, value in places], f"line-{role}"))
    return Markup("").join(parts)
