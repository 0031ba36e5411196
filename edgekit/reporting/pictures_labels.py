"""Names in pictures: beside their points, clear of what is drawn, and those of limits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product

from markupsafe import Markup

from edgekit.reporting.pictures import (
    FONT,
    Box,
    hatch,
    line,
    place_label,
    rect,
    tag,
    text,
    text_lines,
    text_width,
)

BOLD = 1.1  # how much wider bold letters are


def label_beside(
    x: float,
    y: float,
    wanted: Iterable[Sequence[str]],
    gaps: Sequence[float],
    taken: list[Box],
    frame: Box,
    class_: str = "label",
) -> Markup:
    """The first of several labels of a point that there is room for; nothing where there is none for any.

    Args:
        x: Place of the point.
        y: Place of the point.
        wanted: The lines of every label, the best first.
        gaps: Room between the point and its label, the best first.
        taken: What it must not meet; its own box is added.
        frame: What it must stay in.
        class_: Its class; ``shipped`` in it is bold, thus wider.
    """
    bold = BOLD if "shipped" in class_ else 1.0
    for content, gap in product(wanted, gaps):
        width = max(map(text_width, content)) * bold
        placed = place_label(x, y, width, taken, frame, gap, lines=len(content))
        if placed:
            left, baseline, box = placed
            taken.append(box)
            return text_lines(left, baseline, content, class_)
    return Markup("")


def text_clear_of(
    taken: Sequence[Box], content: str, class_: str, *places: tuple[float, float, str | None]
) -> tuple[Markup, Box]:
    """A line of text at the first of several places where it meets nothing, or least; and its box.

    Args:
        taken: What it is not to meet.
        content: The text.
        class_: Its class.
        places: Its end, its baseline, and its anchor: None or ``end``.
    """
    width = text_width(content) * (BOLD if class_ == "budget-name" else 1.0)
    boxes = [Box(x - width if anchor else x, y - FONT, x if anchor else x + width, y + 4.0) for x, y, anchor in places]
    best = min(range(len(boxes)), key=lambda i: sum(boxes[i].meets(other) for other in taken))
    x, y, anchor = places[best]
    return text(x, y, content, class_, anchor), boxes[best]


def draw_limits(
    frame: Box,
    identity: str | None,
    *,
    right_of: tuple[float, str] | None,
    below: tuple[float, str] | None,
    taken: Sequence[Box] = (),
) -> tuple[Markup, list[Box]]:
    """The limits' lines and names, with what lies beyond them hatched; and the room that these take.

    Args:
        frame: What is drawn in.
        identity: What the hatching's identity begins with, unique on the page; None: nothing is hatched.
        right_of: Place and name of the limit whose other side is to the right; None where there is none.
        below: Place and name of the limit whose other side is below; likewise.
        taken: What the names are not to meet.
    """
    parts = [] if identity is None else [_beyond(frame, identity, right_of, below)]
    found: list[Box] = []
    if right_of is not None:
        at, said = right_of
        parts.append(line(at, frame.top, at, frame.bottom, "budget"))
        places: list[tuple[float, float, str | None]] = [
            (at + side, y, anchor)
            for y in (frame.top + 14, frame.bottom - 8)
            for side, anchor in ((6, None), (-6, "end"))
        ]
        if at + text_width(said) + 8 > frame.right:
            places = [place for place in places if place[2]]
        name, box = text_clear_of(taken, said, "budget-name", *places)
        parts.append(name)
        found += [box, Box(at - 2, frame.top, at + 2, frame.bottom)]
    if below is not None:
        at, said = below
        parts.append(line(frame.left, at, frame.right, at, "budget"))
        ends = ((frame.left + 6, at + 15, None), (frame.right - 6, at + 15, "end"))
        name, box = text_clear_of([*taken, *found], said, "budget-name", *ends)
        parts.append(name)
        found += [box, Box(frame.left, at - 1, frame.right, at + 1)]
    return Markup("").join(parts), found


def _beyond(frame: Box, identity: str, right_of: tuple[float, str] | None, below: tuple[float, str] | None) -> Markup:
    """What lies beyond the limits, hatched."""
    right = frame.right if right_of is None else right_of[0]
    found = [] if right_of is None else [(right, frame.top, frame.right - right, frame.bottom - frame.top)]
    found += [] if below is None else [(frame.left, below[0], right - frame.left, frame.bottom - below[0])]
    parts = [hatch(f"{identity}-hatch")]
    for left, top, wide, high in found:
        parts.append(rect(left, top, wide, high, "forbidden"))
        parts.append(tag("rect", x=left, y=top, width=wide, height=high, fill=f"url(#{identity}-hatch)"))
    return Markup("").join(parts)
