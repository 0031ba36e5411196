"""The picture of how a student was pruned: score against latency, step by step."""

from __future__ import annotations

import re

import numpy as np
import pytest
from sample_pruning import PRUNINGS, pruning, step
from sample_report import sample_report
from test_html import Page

from edgekit.reporting.html_pruning import pruning_page, steps_grid
from edgekit.reporting.pictures_pruning import draw_pruning, drawn, missing, teacher_score
from edgekit.reporting.pruned import pruning_sentence, pruning_table
from edgekit.reporting.validation import validate


@pytest.fixture
def found():
    return pruning()


def picture(found, *, narrow=False):
    return draw_pruning(found, "p", narrow=narrow) or pytest.fail("no picture")


def places(drawing):
    """The marks of steps in the order of their numbers: place, and whether hollow."""
    marks = {}
    for number, inside in re.findall(r'<g class="tip"[^>]*aria-label="step (\d+)[^"]*">(.*?)</g>', drawing):
        circle = re.search(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="[\d.]+" class="(mark[^"]*)"', inside)
        square = re.search(r'<rect x="([\d.]+)" y="([\d.]+)" width="([\d.]+)"[^>]*class="(mark[^"]*)"', inside)
        if circle:
            marks[int(number)] = (float(circle[1]), float(circle[2]), "hollow" in circle[3])
        elif square:
            half = float(square[3]) / 2
            marks[int(number)] = (float(square[1]) + half, float(square[2]) + half, "hollow" in square[4])
    return [marks[number] for number in sorted(marks)]


@pytest.mark.parametrize("narrow", [False, True])
def test_dots_lie_where_latency_and_score_say(found, narrow):
    drawing = picture(found, narrow=narrow)
    marks = places(drawing)
    assert [hollow for *_, hollow in marks] == [not one["kept"] for one in found["steps"]]
    for axis, key in ((0, "p50_ms"), (1, "score")):
        at = [mark[axis] for mark in marks]
        values = [one[key] for one in found["steps"]]
        slope = (at[5] - at[0]) / (values[5] - values[0])
        assert (slope < 0) == (axis == 1)
        assert at == pytest.approx([at[0] + slope * (value - values[0]) for value in values], abs=0.02)


def test_limits_and_the_unpruned_score_are_lines(found):
    drawing = picture(found)
    marks = places(drawing)
    reference = re.search(r'<line x1="[\d.]+" y1="([\d.]+)"[^>]*class="reference"', drawing)
    assert float(reference[1]) == pytest.approx(marks[0][1], abs=0.01)
    lines = re.findall(r'<line x1="([\d.]+)" y1="([\d.]+)" x2="([\d.]+)" y2="([\d.]+)" class="budget"', drawing)
    upright, level = ([float(v) for v in one] for one in lines)
    per_ms = (marks[5][0] - marks[0][0]) / (found["steps"][5]["p50_ms"] - found["steps"][0]["p50_ms"])
    assert upright[0] == upright[2] == pytest.approx(marks[0][0] + per_ms * (1.202 - 2.672), abs=0.05)
    per_point = (marks[5][1] - marks[0][1]) / 1.61
    assert level[1] == level[3] == pytest.approx(marks[0][1] + 1.5 * per_point, abs=0.05)
    assert ">budget 1.202 ms<" in drawing
    assert ">at most 1.5 points lost<" in drawing
    bare = picture(found | {"budget_ms": None, "max_drop_points": None})
    assert 'class="budget"' not in bare


def test_steps_are_joined_in_order_and_undone_ones_hang_on_what_they_began_from(found):
    drawing = picture(found)
    marks = places(drawing)
    joins = [
        (kind, *(float(v) for v in ends))
        for *ends, kind in re.findall(
            r'<line x1="([\d.]+)" y1="([\d.]+)" x2="([\d.]+)" y2="([\d.]+)" class="(trail|ghost)"', drawing
        )
    ]
    order = [("trail", 0, 1), ("ghost", 1, 2), ("trail", 1, 3), ("trail", 3, 4), ("ghost", 4, 5)]
    assert [kind for kind, *_ in joins] == [kind for kind, *_ in order]
    for (_, *ends), (_, start, end) in zip(joins, order, strict=True):
        assert ends == pytest.approx([*marks[start][:2], *marks[end][:2]], abs=0.02)


def test_intervals_are_whiskers_where_they_are_known(found):
    drawing = picture(found)
    assert drawing.count('class="whisker"') == 9  # 5 steps, the unpruned one without a drop
    assert drawing.count('class="whisker shipped"') == 2
    assert picture(PRUNINGS["crowd"]()).count('class="whisker"') == 0
    marks = places(drawing)
    upright = re.findall(r'<line x1="([\d.]+)" y1="([\d.]+)" x2="\1" y2="([\d.]+)" class="whisker shipped"', drawing)
    ends = sorted(float(y) for y in upright[0][1:])
    per_point = (marks[5][1] - marks[0][1]) / 1.61
    assert ends == pytest.approx([marks[0][1] + per_point * end for end in (0.50, 1.37)], abs=0.05)


def test_the_step_taken_has_a_ring_and_its_name(found):
    drawing = picture(found)
    assert drawing.count('class="ring"') == 1
    assert "step 4, taken · p50 1.256 [1.237, 1.271] ms · 0.47 [0.46, 0.48] of the unpruned" in drawing
    assert ">step 4, taken<" in drawing
    assert all(f">{number}<" in drawing for number in (0, 1, 2, 3, 5))
    assert "step 5, undone" in drawing
    assert ">step 0, taken<" in picture(PRUNINGS["undone"]())


def test_a_ruined_step_does_not_squash_the_others():
    found = PRUNINGS["diverged"]()
    drawing = picture(found)
    ruined, unpruned = places(drawing)[2], places(drawing)[0]
    assert ">2 \N{DOWNWARDS ARROW} 10.00%<" in drawing
    bottom = re.search(r'<line x1="[\d.]+" y1="([\d.]+)"[^>]*class="axis"', drawing)
    assert ruined[1] == float(bottom[1])
    assert places(drawing)[1][1] - unpruned[1] > 50


def test_a_teacher_that_is_not_the_unpruned_model_has_a_line_of_its_own():
    found = PRUNINGS["taught"]()
    assert teacher_score(found) == pytest.approx(0.8982)
    assert picture(found).count('class="reference"') == 2
    assert ">teacher 89.82%<" in picture(found)
    assert picture(pruning()).count('class="reference"') == 1


def test_without_scores_or_latencies_there_is_no_picture_and_it_says_why():
    assert draw_pruning(PRUNINGS["unlabelled"](), "p") is None
    assert missing(PRUNINGS["unlabelled"]()) == [("steps 0, 1, 2, 3, 4, 5", "no score")]
    assert missing(PRUNINGS["untimed"]()) == [("step 1", "no latency"), ("step 2", "no latency and no score")]
    text = Page(pruning_page(PRUNINGS["unlabelled"](), "flowers")).text
    assert "No step has both a latency and a score here." in text
    assert draw_pruning(PRUNINGS["empty"](), "p") is None


def test_a_single_known_step_can_be_drawn():
    found = pruning(steps=[step(0, 1.0, 0.3, [])], best=0, budget_ms=None, max_drop_points=None)
    assert len(places(picture(found))) == 1


def shuffled(seed):
    """Any shape with values gone at random, and steps in one place."""
    rng = np.random.default_rng(seed)
    found = PRUNINGS[list(PRUNINGS)[seed % len(PRUNINGS)]]()
    found |= {key: None for key in ("budget_ms", "max_drop_points", "samples", "table") if rng.random() < 0.3}
    for one in found["steps"]:
        one["kept"] = bool(rng.random() < 0.6)
        one |= {key: None for key in ("p50_ms", "p50_low_ms", "p50_high_ms", "ratio", "score", "drop", "aim_ms")
                if rng.random() < 0.2}  # fmt: skip
        one |= {key: found["steps"][0][key] for key in ("p50_ms", "score") if rng.random() < 0.2}
    found["best"] = int(rng.integers(0, 7))
    return found


@pytest.mark.parametrize("seed", range(24))
def test_whatever_is_not_known_it_is_told_and_stays_in_the_picture(seed):
    found = shuffled(seed)
    validate(sample_report(1, pruning=found), "r.json")
    assert pruning_sentence(found)
    assert len(pruning_table(found, whole=True)[1]) == len(steps_grid(found, "p").rows) == len(found["steps"])
    for narrow, width, height in ((False, 860.0, 430.0), (True, 360.0, 380.0)):
        drawing = draw_pruning(found, "p", narrow=narrow)
        assert (drawing is not None) == bool(drawn(found))
        if drawing is None:
            continue
        assert len(places(drawing)) == len(drawn(found))
        for axis, end in (("x", width), ("y", height)):
            at = [float(v) for v in re.findall(rf'\bc?{axis}[12]?="(-?[\d.]+)"', drawing)]
            assert all(0 <= v <= end for v in at)
