"""Names in pictures keep clear of what is drawn."""

import re

import pytest

from edgekit.reporting.pictures import Box
from edgekit.reporting.pictures_labels import draw_limits, label_beside, text_clear_of

FRAME = Box(50.0, 30.0, 400.0, 300.0)
EVERYWHERE = Box(-1000.0, -1000.0, 1000.0, 1000.0)


def test_a_label_takes_the_first_place_that_is_free_and_keeps_it():
    taken = []
    first = label_beside(200.0, 100.0, [["4"]], (9.0,), taken, FRAME)
    second = label_beside(200.0, 100.0, [["4"]], (9.0,), taken, FRAME)
    assert 'x="209"' in first
    assert first != second != ""
    assert len(taken) == 2
    assert not taken[0].meets(taken[1])


def test_a_label_goes_further_off_or_shorter_before_it_is_left_out():
    near = Box(180.0, 80.0, 230.0, 120.0)
    assert label_beside(200.0, 100.0, [["4"]], (9.0,), [near], FRAME) == ""
    assert ">4<" in label_beside(200.0, 100.0, [["4"]], (9.0, 40.0), [near], FRAME)
    assert ">4<" in label_beside(200.0, 100.0, [["x" * 100], ["4"]], (9.0,), [], FRAME)
    assert label_beside(200.0, 100.0, [["4"]], (9.0, 40.0), [EVERYWHERE], FRAME) == ""


def test_text_is_put_where_it_meets_least():
    places = [(60.0, 50.0, None), (390.0, 50.0, "end"), (60.0, 200.0, None)]
    over = Box(50.0, 30.0, 400.0, 60.0)
    drawn, box = text_clear_of([over], "unpruned", "tick", *places)
    assert 'y="200"' in drawn
    assert not box.meets(over)
    drawn, _ = text_clear_of([over, over, EVERYWHERE], "unpruned", "tick", *places[:2])
    assert 'x="60"' in drawn


@pytest.mark.parametrize(
    ("right_of", "below", "lines"),
    [
        (None, None, 0),
        ((200.0, "budget"), None, 1),
        (None, (250.0, "limit"), 1),
        ((200.0, "budget"), (250.0, "limit"), 2),
    ],
)
def test_limits_have_a_line_and_a_name_each_and_are_hatched_where_asked(right_of, below, lines):
    drawn, taken = draw_limits(FRAME, "p", right_of=right_of, below=below)
    assert drawn.count('class="budget"') == drawn.count('class="budget-name"') == lines
    assert drawn.count("url(#p-hatch)") == drawn.count('class="forbidden"') == lines
    assert len(taken) == 2 * lines
    assert "hatch" not in draw_limits(FRAME, None, right_of=right_of, below=below)[0]


def test_names_of_limits_keep_clear_of_dots_and_of_the_edge():
    dots = [Box(50.0, 240.0, 120.0, 290.0), Box(200.0, 30.0, 300.0, 50.0)]
    drawn, _ = draw_limits(FRAME, None, right_of=(200.0, "budget"), below=(250.0, "limit"), taken=dots)
    assert re.findall(r'class="budget-name"( text-anchor="end")?>(\w+)', drawn) == [
        (' text-anchor="end"', "budget"),
        (' text-anchor="end"', "limit"),
    ]
    drawn, (name, _) = draw_limits(FRAME, None, right_of=(390.0, "budget 1.2 ms"), below=None)
    assert 'text-anchor="end"' in drawn
    assert name.within(FRAME)
