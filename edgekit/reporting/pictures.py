"""What every picture is drawn with: escaped SVG elements, scales with round ticks, and labels that fit.

Pictures carry classes and no colours: the page's style sheet gives them those of its theme. Each is drawn twice where
a wide and a narrow one differ; the style sheet shows the one that fits.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

FONT = 12.0
# The mean width of a sans-serif letter, in parts of its height; a full-width one takes all of it.
LETTER = 0.6
# From one line of a text to the next.
LINE = 13.5
UNSEEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
STEPS = (1.0, 2.0, 5.0, 10.0)
# From this ratio of largest to smallest on, an axis is logarithmic.
LOG_FROM = 12.0


def tag(name: str, *children: str, **attributes: object) -> Markup:
    """One SVG or HTML element, escaped.

    Args:
        name: Its name.
        children: Its contents; text is escaped, Markup is not.
        attributes: Its attributes; ``class_`` for ``class``, ``stroke_width`` for ``stroke-width``. None is left out,
            a float is written with two decimals.
    """
    given = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items() if value is not None}
    written = "".join(f' {key}="{escape(visible(_written(value)))}"' for key, value in given.items())
    return Markup(f"<{name}{written}>{Markup('').join(map(visible, children))}</{name}>")


def visible(content: str) -> str:
    """The text with a replacement character for each that no page may hold or that turns the text around it.

    Those are control characters, halves of surrogate pairs, and the controls of writing direction, by which a name
    could pass for another (Unicode TR 36, 3.3 Bidirectional Text Spoofing). Markup is left as it is.
    """
    return content if isinstance(content, Markup) else UNSEEN.sub("\N{REPLACEMENT CHARACTER}", content)


def _written(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def picture(
    width: float, height: float, *parts: str, title: str, role: str = "img", class_: str = "", description: str = ""
) -> Markup:
    """An ``svg`` element with a name for those who do not see it.

    Args:
        width: Width of its own units.
        height: Height of its own units.
        parts: What is in it.
        title: Its name.
        role: ``img``, or ``group`` where its parts can be visited one by one.
        class_: Classes.
        description: What it shows, in a sentence; follows the name.
    """
    return tag(
        "svg",
        *parts,
        viewBox=f"0 0 {width:g} {height:g}",
        class_=f"picture {class_}".strip(),
        role=role,
        aria_label=f"{title}. {description}" if description else title,
        xmlns="http://www.w3.org/2000/svg",
    )


def text(x: float, y: float, content: str, class_: str = "", anchor: str | None = None) -> Markup:
    """A line of text; ``anchor`` is ``middle`` or ``end``."""
    return tag("text", content, x=x, y=y, class_=class_ or None, text_anchor=anchor)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    """A straight line."""
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def rect(
    x: float, y: float, width: float, height: float, class_: str, *children: str, rx: float | None = None
) -> Markup:
    """A rectangle; never of a width or height below 0."""
    return tag("rect", *children, x=x, y=y, width=max(0.0, width), height=max(0.0, height), class_=class_, rx=rx)


def path(points: Iterable[tuple[float, float]], class_: str, *, closed: bool = False) -> Markup:
    """A path through points."""
    drawn = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return tag("path", d=f"M{drawn}{'Z' if closed else ''}", class_=class_)


def hatch(identity: str) -> Markup:
    """The pattern of what is beyond a limit, so that its colour is not the only sign."""
    stripe = tag("path", d="M0 7L7 0", class_="hatch-line")
    return tag(
        "defs", tag("pattern", stripe, id=identity, width=7, height=7, patternUnits="userSpaceOnUse"), class_="hatch"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Maps values to places.

    Attributes:
        low: Value at ``start``.
        high: Value at ``end``.
        start: Place of ``low``.
        end: Place of ``high``; may be below ``start``.
        log: Whether equal ratios, not equal differences, are equally far apart.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """The place of a value; one outside is put at the nearer end."""
        value = min(max(value, self.low), self.high)
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self, most: int) -> list[float]:
        """At most about ``most`` round values within the scale."""
        if self.log:
            found = _log_ticks(self.low, self.high)
            whole = [v for v in found if f"{v:e}".startswith("1.000")]
            if len(found) > most and len(whole) >= 2:
                found = whole[:: -(-len(whole) // most)]
            if len(found) >= 2:
                return found
        return _linear_ticks(self.low, self.high, most)


def spanning(values: Sequence[float], start: float, end: float, *, from_zero: bool = False, pad: float = 0.06) -> Scale:
    """The scale that holds all values with some room; logarithmic where they span more than ``LOG_FROM`` times.

    Args:
        values: At least one.
        start: Place of the lowest.
        end: Place of the highest.
        from_zero: Whether a linear scale starts at 0; it is then never logarithmic.
        pad: Room at both ends, as a share of the span.
    """
    low, high = min(values), max(values)
    if not from_zero and low > 0 and high / low > LOG_FROM:
        room = (high / low) ** pad
        return Scale(low=low / room, high=high * room, start=start, end=end, log=True)
    low = min(0.0, low) if from_zero else low
    room = (high - low or abs(high) or 1.0) * pad
    return Scale(low=low if from_zero and low == 0 else low - room, high=high + room, start=start, end=end)


def _linear_ticks(low: float, high: float, most: int) -> list[float]:
    rough = (high - low) / max(1, most)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(s * power for s in STEPS if s * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    fine = [round(s * 10.0**p, 12) for p in powers for s in STEPS[:3]]
    return [v for v in fine if low <= v <= high]


def tick_text(value: float) -> str:
    """A tick's value."""
    return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:g}".replace("-", "\N{MINUS SIGN}")


def text_width(content: str, size: float = FONT) -> float:
    """About how wide a line of text is."""
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in content)
    return size * (LETTER * (len(content) - wide) + wide)


def shorten(content: str, width: float, size: float = FONT) -> str:
    """The text, with its middle left out where it is wider than ``width``."""
    if text_width(content, size) <= width:
        return content
    keep = max(2, int(width / size / LETTER) - 1)
    keep -= sum(unicodedata.east_asian_width(letter) in "WF" for letter in content[:keep]) // 2
    head = max(1, (keep + 1) // 2)
    tail = max(1, keep - head)
    return f"{content[:head]}…{content[-tail:]}"


def wrapped(content: str, width: float, most: int, size: float = FONT) -> list[str]:
    """The text broken between words into at most ``most`` lines; one too wide has its middle left out.

    Args:
        content: The text.
        width: Width of a line.
        most: Most lines.
        size: Height of a letter.
    """
    # What stands in brackets is kept together.
    words = re.split(r"\s+(?![^(]*\))", content.strip())
    lines = words[:1]
    for word in words[1:]:
        if text_width(f"{lines[-1]} {word}", size) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    kept = [*lines[: most - 1], " ".join(lines[most - 1 :])] if len(lines) > most else lines
    return [shorten(line, width, size) for line in kept]


def text_lines(x: float, y: float, lines: Sequence[str], class_: str = "", anchor: str | None = None) -> Markup:
    """Lines of text under one another; ``y`` is the first one's baseline."""
    return Markup("").join(text(x, y + LINE * i, content, class_, anchor) for i, content in enumerate(lines))


@dataclass(frozen=True, slots=True)
class Box:
    """An upright rectangle."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: Box) -> bool:
        """Whether they overlap."""
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )

    def within(self, other: Box) -> bool:
        """Whether this one lies wholly inside the other."""
        return (
            self.left >= other.left
            and self.right <= other.right
            and self.top >= other.top
            and self.bottom <= other.bottom
        )


def place_label(
    x: float, y: float, width: float, taken: Sequence[Box], frame: Box, gap: float, *, lines: int = 1
) -> tuple[float, float, Box] | None:
    """Where a label of a point goes without meeting anything: its left end, its first baseline and its box.

    Args:
        x: Place of the point.
        y: Place of the point.
        width: Width of the label.
        taken: What it must not meet.
        frame: What it must stay in.
        gap: Room between the point and its label.
        lines: How many lines it has.

    Returns:
        None where there is no room beside the point.
    """
    height = FONT + 2 + LINE * (lines - 1)
    places = [
        (x + gap, y - height / 2),
        (x - gap - width, y - height / 2),
        (x - width / 2, y - gap - height),
        (x - width / 2, y + gap),
        (x + gap * 0.7, y - gap * 0.7 - height),
        (x + gap * 0.7, y + gap * 0.7),
        (x - gap * 0.7 - width, y - gap * 0.7 - height),
        (x - gap * 0.7 - width, y + gap * 0.7),
    ]
    for left, top in places:
        box = Box(left - 2, top, left + width + 2, top + height)
        if box.within(frame) and not any(box.meets(other) for other in taken):
            return left, top + FONT - 1.5, box
    return None


def tip(content: str) -> Markup:
    """What a browser shows when the pointer rests on the element it is in."""
    return tag("title", content)


def x_axis(scale: Scale, y: float, top: float, most: int, name: str) -> Markup:
    """Ticks, grid lines up to ``top`` and the name of a horizontal axis at ``y``."""
    parts = []
    for value in scale.ticks(most):
        x = scale(value)
        parts += [line(x, top, x, y, "grid"), text(x, y + 16, tick_text(value), "tick", "middle")]
    left, right = sorted((scale.start, scale.end))
    parts.append(line(left, y, right, y, "axis"))
    parts.append(text(right, y + 34, name, "axis-name", "end"))
    return Markup("").join(parts)


def y_axis(scale: Scale, x: float, right: float, most: int) -> Markup:
    """Ticks and grid lines of a vertical axis at ``x``."""
    parts = []
    for value in scale.ticks(most):
        y = scale(value)
        parts += [line(x, y, right, y, "grid"), text(x - 8, y + 4, tick_text(value), "tick", "end")]
    return Markup("").join(parts)
