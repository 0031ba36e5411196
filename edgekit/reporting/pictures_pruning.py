"""What every step of pruning came to: score against latency, in the order of the steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import dist
from typing import Any

from markupsafe import Markup

from edgekit.reporting.comparison import times_text
from edgekit.reporting.pictures import (
    Box,
    Scale,
    line,
    picture,
    spanning,
    tag,
    text,
    text_width,
    tip,
    x_axis,
    y_axis,
)
from edgekit.reporting.pictures_labels import draw_limits, label_beside, text_clear_of
from edgekit.reporting.pictures_pareto import MARKER, NARROW, RING, WIDE, drawn_shape
from edgekit.reporting.pruned import changes_text, latency_text, macs_text, pruning_sentence, unpruned
from edgekit.reporting.tables import interval, milliseconds, percent

# More steps than this and only the intervals of the one that was taken are drawn.
MANY = 14
# Room between a step and its number; from the second on, and where dots are nearer to one another than ``NEAR``, a
# thin line leads from the one to the other.
GAPS = (9.0, 20.0, 32.0, 46.0, 62.0, 80.0)
NEAR = 22.0
# Lines are that long bit by bit, so that names keep clear of them.
BIT = 4.0
# An axis of less, in points, would make noise look like a finding.
LEAST = 0.5
# An undone step that many times the others' span below them is drawn at the edge, or it would squash them.
FAR = 1.5
# Two scores of the same samples that differ by less are the same.
SAME = 1e-6
# Places along a line that its name is tried at.
PLACES = 24
# An undone step's dot is that much larger, so that its rim shows around another's in the same place.
RIM = 1.5
DOWN = "\N{DOWNWARDS ARROW}"
ROUND, SQUARE = 0, 1

Pruning = Mapping[str, Any]
Step = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Line:
    """A straight line: where it begins and ends, and how it looks."""

    start: tuple[float, float]
    end: tuple[float, float]
    look: str

    def room(self) -> list[Box]:
        """What it takes, bit by bit."""
        (x1, y1), (x2, y2) = self.start, self.end
        bits = max(1, int(max(abs(x2 - x1), abs(y2 - y1)) / BIT))
        places = [(x1 + (x2 - x1) * i / bits, y1 + (y2 - y1) * i / bits) for i in range(bits + 1)]
        return [Box(x - BIT / 2, y - BIT / 2, x + BIT / 2, y + BIT / 2) for x, y in places]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Frame:
    """Where things are in the picture.

    Attributes:
        box: What is drawn in.
        x: The scale of latencies, in ms.
        y: The scale of scores, in hundredths.
        lowest: Score below which a step is drawn at the edge, in hundredths.
    """

    box: Box
    x: Scale
    y: Scale
    lowest: float

    def place(self, step: Step) -> tuple[float, float]:
        """Where a step's dot is."""
        return self.x(step["p50_ms"]), self.y(100.0 * step["score"])


def drawn(pruning: Pruning) -> list[Step]:
    """The steps whose latency and score are known: those in the picture."""
    return [step for step in pruning["steps"] if step["p50_ms"] is not None and step["score"] is not None]


def missing(pruning: Pruning) -> list[tuple[str, str]]:
    """The others: which they are, and what is not known of them."""
    found: dict[str, list[str]] = {}
    for step in pruning["steps"]:
        unknown = [what for what, key in (("latency", "p50_ms"), ("score", "score")) if step[key] is None]
        if unknown:
            found.setdefault(f"no {' and no '.join(unknown)}", []).append(str(step["number"]))
    return [(f"step{'s' if len(who) > 1 else ''} {', '.join(who)}", why) for why, who in found.items()]


def teacher_score(pruning: Pruning) -> float | None:
    """The score that drops are from, and the accuracy limit with them: 0 to 1; None where it is not known.

    It follows from any step, since drops are found on the very samples of the scores.
    """
    for step in pruning["steps"]:
        if step["score"] is not None and step["drop"]:
            return float(step["score"] + step["drop"]["points"] / 100.0)
    start = unpruned(pruning)
    return start["score"] if start else None


def draw_pruning(pruning: Pruning, identity: str, *, narrow: bool = False) -> Markup | None:
    """The picture: one dot a step, hollow where it was undone; up and to the left is better.

    Args:
        pruning: The part ``pruning`` of a report.
        identity: Unique on the page.
        narrow: For a narrow page.

    Returns:
        The picture; None where no step has both a latency and a score.
    """
    steps = drawn(pruning)
    if not steps:
        return None
    width, height = NARROW if narrow else WIDE
    frame = _frame(pruning, steps, Box(48.0 if narrow else 56.0, 30.0, width - 12.0, height - 52.0))
    box, x, y = frame.box, frame.x, frame.y
    whiskered = [step for step in steps if len(steps) <= MANY or step["number"] == pruning["best"]]
    lines = _joins(steps, frame) + [one for step in whiskered for one in _whiskers(step, pruning, frame)]
    taken = [_room(step, pruning, frame) for step in steps]
    taken += [bit for one in lines for bit in one.room()]
    marks, limited = _limits(pruning, frame, taken)
    names, named = _references(pruning, frame, [*taken, *limited])
    taken += [*limited, *named]
    how = "estimated p50 latency" if pruning["estimate"] else "measured p50 latency"
    ordered = sorted(steps, key=lambda step: (step["number"] != pruning["best"], step["number"] != 0, step["number"]))
    parts = [
        x_axis(x, box.bottom, box.top, 5 if narrow else 8, f"{how}, ms"),
        y_axis(y, box.left, box.right, 6),
        text(4, 16, "score, %", "axis-name"),
        marks,
        names,
        *(line(*one.start, *one.end, one.look) for one in lines),
        *(_label(step, pruning, frame, _near(step, steps, frame), taken) for step in ordered),
        *(
            _dot(step, pruning, frame)
            for step in sorted(steps, key=lambda step: (step["kept"], step["number"] == pruning["best"]))
        ),
    ]
    return picture(
        width,
        height,
        *parts,
        title=f"Score against {how} after every step",
        description=pruning_sentence(pruning),
        role="group",
        class_="narrow" if narrow else "wide",
    )


def _frame(pruning: Pruning, steps: Sequence[Step], box: Box) -> _Frame:
    """The scales that hold all steps, their intervals and the limits."""
    best, few = pruning["best"], len(steps) <= MANY
    shown = [step for step in steps if few or step["number"] == best]
    ends = [step[key] for step in shown for key in ("p50_low_ms", "p50_high_ms")]
    times = [*(step["p50_ms"] for step in steps), *ends, pruning["budget_ms"]]
    x = spanning([float(ms) for ms in times if ms is not None], box.left, box.right, pad=0.1)
    teacher, limit = teacher_score(pruning), pruning["max_drop_points"]
    scores = [100.0 * step["score"] for step in steps if step["kept"]]
    scores += [end for step in shown if step["kept"] for end in _score_ends(step)]
    scores += [] if teacher is None else [100.0 * teacher]
    scores += [] if teacher is None or limit is None else [100.0 * teacher - limit]
    scores = scores or [100.0 * step["score"] for step in steps]
    low, high = min(scores), max(scores)
    lowest = low - FAR * max(high - low, LEAST)
    undone = [v for s in steps if not s["kept"] for v in (100.0 * s["score"], *(_score_ends(s) if s in shown else ()))]
    inside = [v for v in undone if v >= lowest]
    low, high = min([low, *inside]), max([high, *inside])
    room = max(high - low, LEAST) * 0.12
    return _Frame(box=box, x=x, y=Scale(low=low - room, high=high + room, start=box.bottom, end=box.top), lowest=lowest)


def _score_ends(step: Step) -> tuple[float, ...]:
    """The ends of a step's score, in hundredths: those of its drop, from what it dropped from."""
    drop = step["drop"]
    if not drop:
        return ()
    teacher = 100.0 * step["score"] + drop["points"]
    return teacher - drop["high"], teacher - drop["low"]


def _limits(pruning: Pruning, frame: _Frame, taken: Sequence[Box]) -> tuple[Markup, list[Box]]:
    """The budget and the accuracy limit: what lies beyond is where most steps are, so it is not hatched."""
    budget, teacher, allowed = pruning["budget_ms"], teacher_score(pruning), pruning["max_drop_points"]
    right = None if budget is None else (frame.x(budget), f"budget {milliseconds(budget)} ms")
    below = None
    if teacher is not None and allowed is not None:
        below = frame.y(100.0 * teacher - allowed), f"at most {allowed:g} points lost"
    return draw_limits(frame.box, None, right_of=right, below=below, taken=taken)


def _references(pruning: Pruning, frame: _Frame, taken: Sequence[Box]) -> tuple[Markup, list[Box]]:
    """Lines at the scores of the unpruned model and of the teacher, where it is another, with their names."""
    start, teacher = unpruned(pruning), teacher_score(pruning)
    scores = {"unpruned": start["score"] if start else None, "teacher": teacher}
    if scores["unpruned"] is not None and teacher is not None and abs(scores["unpruned"] - teacher) < SAME:
        del scores["teacher"]
    box = frame.box
    parts: list[Markup] = []
    found: list[Box] = []
    for name, score in scores.items():
        if score is None:
            continue
        at = frame.y(100.0 * score)
        said = f"{name} {percent(score)}"
        span = box.right - box.left - 12.0 - text_width(said)
        steps = [box.left + 6.0 + span * i / PLACES for i in range(PLACES + 1)]
        places = [(x, y, None) for y in (at - 5.0, at + 15.0) for x in steps]
        drawn_name, room = text_clear_of([*taken, *found], said, "reference-name", *places)
        parts += [line(box.left, at, box.right, at, "reference"), drawn_name]
        found += [room, Box(box.left, at - 1.0, box.right, at + 1.0)]
    return Markup("").join(parts), found


def _room(step: Step, pruning: Pruning, frame: _Frame) -> Box:
    """The room that a step's dot takes."""
    x, y = frame.place(step)
    half = (RING if step["number"] == pruning["best"] else MARKER) + 1.0
    return Box(x - half, y - half, x + half, y + half)


def _joins(steps: Sequence[Step], frame: _Frame) -> list[_Line]:
    """From every step to the last one kept before it: what it began from."""
    found: list[_Line] = []
    before: Step | None = None
    for step in steps:
        if before is not None:
            look = "trail" if step["kept"] else "ghost"
            found.append(_Line(frame.place(before), frame.place(step), look))
        if step["kept"]:
            before = step
    return found


def _whiskers(step: Step, pruning: Pruning, frame: _Frame) -> list[_Line]:
    """The intervals of a step's latency and score, where they are known."""
    x, y = frame.place(step)
    look = "whisker shipped" if step["number"] == pruning["best"] else "whisker"
    found = []
    if step["p50_low_ms"] is not None and step["p50_high_ms"] is not None:
        found.append(_Line((frame.x(step["p50_low_ms"]), y), (frame.x(step["p50_high_ms"]), y), look))
    ends = _score_ends(step)
    if ends and 100.0 * step["score"] >= frame.lowest:
        found.append(_Line((x, frame.y(ends[0])), (x, frame.y(ends[1])), look))
    return found


def _label(step: Step, pruning: Pruning, frame: _Frame, near: bool, taken: list[Box]) -> Markup:
    """A step's number beside its dot, or further away with a line that leads to it."""
    best, name = step["number"] == pruning["best"], str(step["number"])
    wanted = [[f"step {name}, taken"]] if best else []
    if 100.0 * step["score"] < frame.lowest:
        wanted.append([f"{name} {DOWN} {percent(step['score'])}"])
    x, y = frame.place(step)
    ring, before = RING - MARKER if best else 0.0, len(taken)
    gaps = [gap + ring for gap in GAPS[1 if near and not best else 0 :]]
    look = "label shipped" if best else "label"
    label = label_beside(x, y, [*wanted, [name]], gaps, taken, frame.box, look)
    if len(taken) == before:
        return label
    box = taken[-1]
    end = min(max(x, box.left), box.right), min(max(y, box.top), box.bottom)
    far = max(abs(end[0] - x), abs(end[1] - y)) > GAPS[0] + ring
    return line(x, y, *end, "connector") + label if far else label


def _near(step: Step, steps: Sequence[Step], frame: _Frame) -> bool:
    """Whether another step's dot is so near that a number beside it could be either's."""
    place = frame.place(step)
    return any(other is not step and dist(place, frame.place(other)) < NEAR for other in steps)


def _dot(step: Step, pruning: Pruning, frame: _Frame) -> Markup:
    """A step: a square for the unpruned model, hollow where it was undone, a ring around the one that was taken."""
    x, y = frame.place(step)
    taken = step["number"] == pruning["best"]
    ring = [tag("circle", cx=x, cy=y, r=RING, class_="ring")] if taken else []
    said = " · ".join(
        [
            f"step {step['number']}{', taken' if taken else '' if step['kept'] else ', undone'}",
            f"{'estimated ' if step['estimated'] else ''}p50 {latency_text(step)} ms",
            *([f"{times_text(step['ratio'])} of the unpruned"] if step["ratio"] else []),
            f"score {percent(step['score'])}",
            *([f"{interval(step['drop'])} points lost"] if step["drop"] else []),
            f"{macs_text(step['macs'])} multiply-accumulates",
            changes_text(step),
            *([] if step["kept"] else [step["why"]]),
        ]
    )
    shape = SQUARE if step["number"] == 0 else ROUND
    mark = drawn_shape(shape, x, y, hollow=not step["kept"], size=MARKER + (0.0 if step["kept"] else RIM))
    return tag("g", tip(said), *ring, mark, class_="tip", tabindex=0, role="img", aria_label=said)
