"""What every step gained and lost, and how far every limit is used up."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from edgekit.reporting.pictures import (
    LINE,
    Scale,
    hatch,
    line,
    picture,
    rect,
    spanning,
    tag,
    text,
    text_lines,
    text_width,
    tip,
    wrapped,
)
from edgekit.reporting.tables import percent

MINUS = "\N{MINUS SIGN}"
TIMES = "\N{MULTIPLICATION SIGN}"
WIDE, NARROW = 860.0, 360.0
GAUGE = (240.0, 26.0)


def megabytes(value: float | None) -> str:
    """A size in MB to three figures, four decimals at most."""
    return "-" if value is None else f"{value:.3g}" if value < 100 else f"{value:,.0f}"


def draw_steps(
    steps: Sequence[Mapping[str, Any]],
    key: str,
    title: str,
    show: Callable[[float | None], str],
    *,
    narrow: bool = False,
) -> Markup | None:
    """A waterfall: a row a step, its value as a bar, what it took off the last known one as a ghost beside it.

    Args:
        steps: The target's ``steps``, in order.
        key: ``size_mb`` or ``p50_ms``.
        title: What is shown, with its unit.
        show: Writes a value.
        narrow: For a narrow page.

    Returns:
        The picture; None where no step has a value.
    """
    known = [s[key] for s in steps if s.get(key) is not None]
    if not known:
        return None
    names, row, head = _names(steps, narrow=narrow)
    width, left = (NARROW, 4.0) if narrow else (WIDE, _left(names))
    bar = 18.0
    highs = [s["p50_high_ms"] for s in steps if key.endswith("_ms") and s.get("p50_high_ms") is not None]
    x = Scale(low=0.0, high=max(*known, *highs, 1e-12), start=left, end=width - (130.0 if narrow else 190.0))
    parts, before = [], None
    for i, step in enumerate(steps):
        top = 6.0 + row * i + head
        value = step.get(key)
        parts.append(_step_name(names[i], left, top, narrow=narrow))
        if value is None:
            parts.append(text(left, top + 14, "not measured", "tick"))
            continue
        end = x(value)
        parts.append(rect(left, top, max(1.5, end - left), bar, f"step s{min(i, 2)}", rx=2.0))
        if before is not None and before > value:
            parts.append(rect(end, top, x(before) - end, bar, "ghost", rx=2.0))
            parts.append(line(x(before), top - row + bar, x(before), top + bar, "connector"))
        low, high = step.get(f"{key[:-3]}_low_ms"), step.get(f"{key[:-3]}_high_ms")
        if key.endswith("_ms") and low is not None and high is not None:
            parts.append(line(x(low), top + bar / 2, x(high), top + bar / 2, "whisker shipped"))
        at = max(end, x(before) if before is not None else end) + 8
        parts.append(
            _change(at, top + 14, show(value), changed(before, value, "faster" if key.endswith("_ms") else "smaller"))
        )
        before = value
    return picture(
        width,
        12.0 + row * len(steps),
        *parts,
        title=title,
        description=_described(steps, key, show),
        class_="narrow" if narrow else "wide",
    )


def draw_scores(
    steps: Sequence[Mapping[str, Any]], metric: str, *, points: float = 100.0, narrow: bool = False
) -> Markup | None:
    """The score after every step, on an axis that does not begin at 0; None where no step has one."""
    known = [s["score"] for s in steps if s.get("score") is not None]
    if not known:
        return None
    names, row, head = _names(steps, narrow=narrow)
    width, left = (NARROW, 10.0) if narrow else (WIDE, _left(names))
    bottom = 6.0 + row * len(steps)
    right = width - (130.0 if narrow else 190.0)
    x = spanning([v * points for v in known], left, right, pad=0.2)
    x = Scale(low=x.low, high=x.high, start=left, end=right)
    parts: list[Markup] = []
    for value in x.ticks(4 if narrow else 6):
        parts.append(line(x(value), 6.0, x(value), bottom, "grid"))
        parts.append(text(x(value), bottom + 14, f"{value:g}%".replace("-", MINUS), "tick", "middle"))
    before: tuple[float, float, float] | None = None
    for i, step in enumerate(steps):
        y = 6.0 + row * i + head + (8.0 if narrow else 10.0)
        score = step.get("score")
        parts.append(_step_name(names[i], 4.0 if narrow else left, y - 9.0, narrow=narrow))
        if score is None:
            parts.append(text(left, y + 5, "not known", "tick"))
            continue
        at = x(score * points)
        if before is not None:
            parts.append(line(before[0], before[1], before[0], y, "connector"))
            parts.append(line(before[0], y, at, y, "change"))
        parts.append(
            tag("circle", tip(f"{step['name']}: {percent(score)}"), cx=at, cy=y, r=6.0, class_=f"s{min(i, 2)} dot")
        )
        change = None if before is None else _points(score * points - before[2])
        parts.append(_change(max(at, before[0] if before else at) + 12, y + 5, percent(score), change))
        before = (at, y, score * points)
    return picture(
        width,
        bottom + 22.0,
        *parts,
        title=f"{metric} after every step",
        description=_described(steps, "score", percent),
        class_="narrow" if narrow else "wide",
    )


def _names(steps: Sequence[Mapping[str, Any]], *, narrow: bool) -> tuple[list[list[str]], float, float]:
    """The lines of every step's name, the height of a row, and where in it the bar begins."""
    width, most = (340.0, 2) if narrow else (206.0, 3)
    names = [wrapped(step["name"], width, most) for step in steps]
    after = LINE * (max(map(len, names)) - 1)
    return (names, 50.0 + after, 22.0 + after) if narrow else (names, max(38.0, 20.0 + after), 8.0 + after / 4)


def _left(names: Sequence[Sequence[str]]) -> float:
    """Where the bars of a wide picture begin: beside the names."""
    return 190.0 if all(len(lines) == 1 and text_width(lines[0]) <= 168.0 for lines in names) else 224.0


def _step_name(lines: Sequence[str], left: float, top: float, *, narrow: bool) -> Markup:
    after = LINE * (len(lines) - 1)
    if narrow:
        return text_lines(left, top - 6 - after, lines, "label")
    return text_lines(left - 14, top + 14 - after / 2, lines, "label", "end")


def _change(x: float, y: float, value: str, change: str | None) -> Markup:
    """A value, and what changed since the step before."""
    changes = [tag("tspan", f"  {change}", class_="changed", dx=6)] if change else []
    return tag("text", tag("tspan", value, class_="value"), *changes, x=x, y=y)


def changed(before: float | None, value: float | None, better: str) -> str | None:
    """How many times better or worse, in words: ``4.2× faster``; None where it is not known.

    Args:
        before: The value before, above 0; less is better.
        value: The value now.
        better: ``faster`` or ``smaller``.
    """
    if before is None or value is None or before <= 0 or value <= 0:
        return None
    ratio = before / value
    if 0.995 < ratio < 1.005:
        return "unchanged"
    worse = {"faster": "slower", "smaller": "larger"}[better]
    return f"{ratio:.3g}{TIMES} {better}" if ratio > 1 else f"{1 / ratio:.3g}{TIMES} {worse}"


def _points(change: float) -> str:
    return "unchanged" if abs(change) < 0.005 else f"{change:+.2f} points".replace("-", MINUS)


def _described(steps: Sequence[Mapping[str, Any]], key: str, show: Callable[[float | None], str]) -> str:
    return ", ".join(f"{s['name']}: {show(s[key]) if s.get(key) is not None else 'not known'}" for s in steps)


def draw_gauge(result: Mapping[str, Any], said: str, identity: str) -> Markup:
    """One limit: how far it is used up, the interval of what was seen, and what lies beyond the limit.

    Args:
        result: One of a candidate's limits.
        said: The same in words.
        identity: Unique on the page.
    """
    width, height = GAUGE
    allowed = float(result["allowed"] or 0.0)
    seen = [float(v) for v in (result.get("value"), result.get("low"), result.get("high")) if v is not None]
    lowest, highest = min([0.0, *seen]), max([allowed, *seen])
    # A bound far beyond its limit is cut off at the picture's edge.
    highest = min(highest, allowed * 3) if allowed > 0 else highest
    room = (highest - lowest or 1.0) * 0.12
    x = Scale(low=lowest - (room if lowest < 0 else 0.0), high=highest + room, start=2.0, end=width - 2.0)
    middle = height / 2
    parts = [
        hatch(f"{identity}-hatch"),
        rect(2.0, middle - 6, x(allowed) - 2.0, 12.0, "track", rx=2.0),
        rect(x(allowed), middle - 6, width - 2.0 - x(allowed), 12.0, "forbidden"),
        tag(
            "rect",
            x=x(allowed),
            y=middle - 6,
            width=width - 2.0 - x(allowed),
            height=12.0,
            fill=f"url(#{identity}-hatch)",
        ),
    ]
    status = str(result["status"]).replace(" ", "-")
    value = result.get("value")
    if value is not None:
        zero = x(0.0)
        parts.append(rect(min(zero, x(value)), middle - 3, max(1.5, abs(x(value) - zero)), 6.0, f"used {status}"))
    if result.get("low") is not None and result.get("high") is not None:
        parts.append(line(x(result["low"]), middle, x(result["high"]), middle, "whisker shipped"))
        parts += [line(x(result[k]), middle - 5, x(result[k]), middle + 5, "whisker shipped") for k in ("low", "high")]
    parts.append(line(x(allowed), middle - 11, x(allowed), middle + 11, "budget"))
    return picture(width, height, *parts, title=said, class_="gauge")
