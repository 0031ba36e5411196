"""What every operator group loses and gains in int8, side by side: its dB as a bar, its time over that of fp32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from edgekit.reporting.group_names import BETWEEN, short_names
from edgekit.reporting.pictures import (
    LINE,
    Scale,
    hatch,
    line,
    picture,
    rect,
    shorten,
    spanning,
    tag,
    text,
    text_lines,
    text_width,
    tip,
    x_axis,
)
from edgekit.reporting.sensitivity import POOR_DB, decibels, made_of, ratio_text
from edgekit.reporting.tables import interval

WIDE, NARROW = 860.0, 360.0
# From here on nothing is lost that a task could show: longer bars would squash the others.
MOST_DB = 60.0
# Ratios beyond this are drawn at the picture's edge.
MOST_RATIO = 1.5
BAR = 14.0
TOP = 28.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Frame:
    """Where things are in the picture.

    Attributes:
        width: Its width.
        db: The scale of the bars.
        ratio: The scale of the ratios.
        names: The lines of every group's name, without what it is made of.
        row: Height of a row.
        narrow: For a narrow page.
        identity: Unique on the page.
    """

    width: float
    db: Scale
    ratio: Scale
    names: Sequence[Sequence[str]]
    row: float
    narrow: bool
    identity: str


def draw_sensitivity(report: Mapping[str, Any], identity: str, *, narrow: bool = False) -> Markup | None:
    """The picture: a row a group, its dB hatched where under 20, its ratio with whiskers around 1.

    Args:
        report: A sensitivity report.
        identity: Unique on the page.
        narrow: For a narrow page.

    Returns:
        The picture; None where nothing is known of any group.
    """
    groups = report["groups"]
    if not any(group["db"] is not None or group["ratio"] is not None for group in groups):
        return None
    frame = _frame(groups, identity, narrow=narrow)
    bottom = TOP + frame.row * len(groups)
    timed = any(group["ratio"] is not None for group in groups)
    axes = [
        x_axis(frame.db, bottom, TOP, 3 if narrow else 5, "dB, more is better"),
        _mark(frame.db, POOR_DB, f"{POOR_DB:g} dB", bottom),
    ]
    if timed:
        axes += [
            x_axis(frame.ratio, bottom, TOP, 2 if narrow else 4, "time over fp32's, less is better"),
            _mark(frame.ratio, 1.0, "as fp32", bottom),
        ]
    rows = [_row(i, group, TOP + frame.row * i, frame) for i, group in enumerate(groups)]
    return picture(
        frame.width,
        bottom + 42.0,
        hatch(f"{identity}-hatch"),
        *axes,
        *rows,
        title="What every operator group loses and gains in int8",
        description=f"{len(groups)} groups: dB of the outputs, and time over that of fp32",
        role="group",
        class_="narrow" if narrow else "wide",
    )


def _frame(groups: Sequence[Mapping[str, Any]], identity: str, *, narrow: bool) -> _Frame:
    known = [min(group["db"], MOST_DB) for group in groups if group["db"] is not None]
    highest, lowest = max([*known, 2 * POOR_DB]), min([*known, 0.0])
    ends = [min(group[key], MOST_RATIO) for group in groups for key in ("ratio", "low", "high") if group[key]]
    names = [_lines(i, told, 344.0 if narrow else 230.0) for i, told in enumerate(short_names(groups), start=1)]
    most = max(map(len, names))
    bars, times = ((8.0, 164.0), (200.0, 350.0)) if narrow else ((250.0, 490.0), (590.0, 800.0))
    # An axis of a few thousandths would make noise look like a finding.
    ratio = spanning([*ends, 0.9, 1.1], *times, pad=0.06)
    return _Frame(
        width=NARROW if narrow else WIDE,
        db=Scale(low=max(lowest, -POOR_DB), high=highest, start=bars[0], end=bars[1]),
        ratio=Scale(low=ratio.low, high=ratio.high, start=times[0], end=times[1]),
        names=names,
        row=LINE * (most + 1) + BAR + 46.0 if narrow else max(46.0, LINE * (most + 1) + 12.0),
        narrow=narrow,
        identity=identity,
    )


def _lines(number: int, names: Sequence[str], width: float) -> list[str]:
    """A group's name: on one line where it fits."""
    whole = f"{number}. {BETWEEN.join(names)}"
    lines = [whole] if text_width(whole) <= width else [f"{number}. {names[0]}", *(f"… {name}" for name in names[1:])]
    return [shorten(line, width) for line in lines]


def _mark(scale: Scale, value: float, said: str, bottom: float) -> Markup:
    """An upright line at a value, with its name above."""
    at = scale(value)
    return line(at, TOP - 6, at, bottom, "reference") + text(at, TOP - 12, said, "tick", "middle")


def _row(i: int, group: Mapping[str, Any], top: float, frame: _Frame) -> Markup:
    """One group: its name, its bar and its ratio."""
    lines, made = frame.names[i], made_of(group)
    after = LINE * len(lines)
    if frame.narrow:
        names = text_lines(4.0, top + 16, lines, "label") + text(4.0, top + 16 + after, shorten(made, 344.0), "tick")
        middle = top + 16 + after + LINE + 4 + BAR / 2
        values = (frame.db.start, middle + BAR / 2 + 12), (frame.ratio.start, middle + BAR / 2 + 12)
    else:
        first = top + frame.row / 2 - after / 2 + 4
        names = text_lines(4.0, first, lines, "label") + text(4.0, first + after, shorten(made, 230.0), "tick")
        middle = top + frame.row / 2
        values = (frame.db.end + 10, middle + 4), (frame.ratio.end + 12, middle + 4)
    said = " · ".join(
        [
            f"{i + 1}. {group['name']}",
            made,
            decibels(group),
            *([f"drop {interval(group['drop'])} points"] if group["drop"] else []),
            f"{ratio_text(group)} of fp32's time" if group["ratio"] is not None else "not timed",
            group["finding"],
        ]
    )
    # A pointer need not hit a letter or a bar.
    parts = [rect(0.0, top, frame.width, frame.row, "reach"), names]
    if i:
        parts.append(line(4.0, top, frame.width - 4.0, top, "grid"))
    if group["failure"]:
        parts.append(text(*values[0] if frame.narrow else (frame.db.start, middle + 4), "failed", "failed"))
    elif group["db"] is not None:
        parts += [_bar(group["db"], middle, frame), text(*values[0], decibels(group), "value")]
    if group["ratio"] is not None:
        parts += [_ratio(group, middle, frame), text(*values[1], ratio_text(group, narrow=True), "value")]
    return tag("g", tip(said), *parts, class_="tip", tabindex=0, role="img", aria_label=said)


def _bar(db: float, middle: float, frame: _Frame) -> Markup:
    zero, end = frame.db(0.0), frame.db(db)
    place = (min(zero, end), middle - BAR / 2, max(2.0, abs(end - zero)), BAR)
    if db >= POOR_DB:
        return rect(*place, "quality", rx=2.0)
    stripes = tag("rect", x=place[0], y=place[1], width=place[2], height=BAR, fill=f"url(#{frame.identity}-hatch)")
    return rect(*place, "quality poor", rx=2.0) + stripes


def _ratio(group: Mapping[str, Any], middle: float, frame: _Frame) -> Markup:
    """A ratio as a point, with the ends of its interval."""
    finding = {"pays": "pass", "costs": "fail"}.get(group["finding"], "none")
    low, at, high = (frame.ratio(group[key]) for key in ("low", "ratio", "high"))
    ends = [line(x, middle - 5, x, middle + 5, "whisker shipped") for x in (low, high)]
    point = tag("circle", cx=at, cy=middle, r=5.0, class_=f"mark finding {finding}")
    return Markup("").join([line(low, middle, high, middle, "whisker shipped"), *ends, point])
