"""What pictures are made of: scales, labels that fit, the front, and escaping."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
from markupsafe import Markup
from sample_report import sample_report
from sample_trials import LONG_PLAN

from edgekit.reporting.pictures import (
    Box,
    Scale,
    place_label,
    shorten,
    spanning,
    tag,
    text_width,
    tick_text,
    visible,
    wrapped,
)
from edgekit.reporting.pictures_latency import bins_of, bulk_of, densities, draw_histogram, draw_ridges, draw_timeline
from edgekit.reporting.pictures_pareto import draw_pareto, pareto_of
from edgekit.reporting.pictures_steps import TIMES, changed, draw_gauge, draw_scores, draw_steps, megabytes


@pytest.fixture(scope="module")
def target() -> dict[str, Any]:
    found: dict[str, Any] = sample_report(4)["targets"][0]
    return found


@pytest.mark.parametrize(
    ("low", "high", "most", "ticks"),
    [
        (0.0, 10.0, 5, [0, 2, 4, 6, 8, 10]),
        (0.0, 0.03, 3, [0, 0.01, 0.02, 0.03]),
        (-0.4, 1.2, 4, [0, 0.5, 1]),
        (93.8, 94.2, 4, [93.8, 93.9, 94, 94.1, 94.2]),
    ],
)
def test_ticks_are_round(low, high, most, ticks):
    assert Scale(low=low, high=high, start=0, end=100).ticks(most) == pytest.approx(ticks)


def test_wide_spans_are_logarithmic_and_their_ticks_are_powers_where_there_are_many():
    scale = spanning([0.05, 25.0], 0.0, 100.0)
    assert scale.log
    assert scale.ticks(4) == [0.1, 1, 10]
    assert scale.ticks(9) == [0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20]
    assert scale((scale.low * scale.high) ** 0.5) == pytest.approx(50.0)


@pytest.mark.parametrize("values", [[3.0], [0.0], [0.0, 0.0], [-2.0, -2.0], [1e-9, 1e12], [1e12]])
def test_a_scale_holds_its_values_whatever_they_are(values):
    scale = spanning(values, 10.0, 90.0)
    assert all(10.0 <= scale(value) <= 90.0 for value in values)
    assert scale.ticks(5)
    assert scale.low < scale.high


def test_what_lies_outside_a_scale_is_put_at_its_end():
    scale = Scale(low=0.0, high=1.0, start=10.0, end=20.0)
    assert (scale(-5.0), scale(7.0)) == (10.0, 20.0)


@pytest.mark.parametrize(("value", "said"), [(-0.5, "\N{MINUS SIGN}0.5"), (12_000.0, "12,000"), (0.05, "0.05")])
def test_ticks_are_written_short(value, said):
    assert tick_text(value) == said


def test_a_tag_escapes_text_and_attributes_but_not_markup():
    made = tag("text", "<b>&\"'", tag("tspan", "in"), class_="x\" onload='1'", stroke_width=1.50, x=None)
    assert made == (
        '<text class="x&#34; onload=&#39;1&#39;" stroke-width="1.5">&lt;b&gt;&amp;&#34;&#39;<tspan>in</tspan></text>'
    )


@pytest.mark.parametrize("unseen", ["\u202e", "\u2066", "\x00", "\x1b", "\x9b", "\ud800"])
def test_what_turns_text_around_or_no_page_may_hold_is_replaced(unseen):
    assert visible(f"a{unseen}b\n\t日本") == "a\N{REPLACEMENT CHARACTER}b\n\t日本"
    assert visible(Markup("a\u202eb")) == "a\u202eb"


@pytest.mark.parametrize("name", ["onnxruntime int8", "x" * 300, "日本語" * 50, "a"])
def test_a_shortened_name_fits(name):
    short = shorten(name, 120.0)
    assert text_width(short) <= 120.0
    assert (short == name) == (text_width(name) <= 120.0)
    assert short[0] == name[0]
    assert short[-1] == name[-1]


@pytest.mark.parametrize(
    ("name", "width", "most", "lines"),
    [
        ("onnxruntime int8", 200.0, 3, ["onnxruntime int8"]),
        (LONG_PLAN, 200.0, 3, ["onnxruntime int8 percentile", "+equalize +bias-correction", "(12 nodes in float)"]),
        (LONG_PLAN, 340.0, 2, ["onnxruntime int8 percentile +equalize", "+bias-correction (12 nodes in float)"]),
        ("", 200.0, 3, [""]),
        ("a b", 10.0, 2, ["a", "b"]),
    ],
)
def test_a_long_name_breaks_between_words_and_keeps_brackets_whole(name, width, most, lines):
    assert wrapped(name, width, most) == lines


@pytest.mark.parametrize("name", [LONG_PLAN, "x" * 300, "(" * 50 + " a b) " * 20, "日本語 " * 50])
def test_whatever_the_name_its_lines_fit(name):
    lines = wrapped(name, 120.0, 3)
    assert 1 <= len(lines) <= 3
    assert all(text_width(line) <= 120.0 for line in lines)


def test_a_label_goes_where_nothing_is():
    frame = Box(0, 0, 200, 100)
    left, _, box = place_label(100, 50, 60, [], frame, 9) or pytest.fail("no room")
    assert left > 100
    other, _, _ = place_label(100, 50, 60, [box], frame, 9) or pytest.fail("no room")
    assert other < 100
    assert place_label(100, 50, 60, [frame], frame, 9) is None
    assert place_label(100, 50, 600, [], frame, 9) is None


def test_the_front_holds_what_no_other_beats(target):
    pareto = pareto_of(target)
    assert [point.number for point in pareto.front] == [4, 2]
    for point in pareto.points:
        beaten = any(o.ms < point.ms and o.drop < point.drop for o in pareto.points)
        assert not (beaten and point in pareto.front)


def test_the_axis_is_the_budget_that_leaves_least_room(target):
    assert pareto_of(target).limit == "p99_ms"
    two = copy.deepcopy(target)
    two["limits"]["p50_ms"] = 2.5
    assert (pareto_of(two).limit, pareto_of(two).budget_ms) == ("p50_ms", 2.5)
    two["limits"] = {}
    assert (pareto_of(two).limit, pareto_of(two).budget_ms) == ("p50_ms", None)


def test_the_budget_is_drawn_and_what_ships_has_a_ring(target):
    drawn = draw_pareto(pareto_of(target), "p")
    assert "p99 budget 8 ms" in drawn
    assert "largest drop 1" in drawn
    assert drawn.count('class="ring"') == 1
    assert drawn.count('class="tip"') == 4
    bare = copy.deepcopy(target)
    bare["limits"] = {}
    assert "budget" not in draw_pareto(pareto_of(bare), "p")


def test_a_far_budget_is_told_and_not_drawn(target):
    measured = next(c["measured"] for c in target["candidates"] if c["shipped"])
    near, far = ({"p99": ms} for ms in (3.0, 300.0))
    assert 'class="budget"' in (draw_histogram(measured, near, "h") or "")
    drawn = draw_histogram(measured, far, "h") or ""
    assert 'class="budget"' not in drawn
    assert "p99 budget 300 ms \N{RIGHTWARDS ARROW}" in drawn


def test_a_distribution_ends_a_little_beyond_its_p99(target):
    measured = target["candidates"][0]["measured"]
    edges, counts = bins_of(measured) or pytest.fail("no bins")
    p99 = measured["application"]["percentiles"]["99.0"]["ms"]
    assert p99 < bulk_of(measured, edges) < edges[-1]
    drawn = draw_histogram(measured, {}, "h") or ""
    longer = re.search(r"(\d+) longer", drawn)
    assert longer
    assert measured["histogram"]["above"] <= int(longer[1]) < sum(counts) / 100


def test_areas_are_the_counts_on_either_axis():
    linear = Scale(low=1.0, high=4.0, start=0.0, end=1.0)
    assert densities([1.0, 2.0, 4.0], [10, 10], linear) == pytest.approx([15.0, 7.5])
    log = Scale(low=1.0, high=100.0, start=0.0, end=1.0, log=True)
    assert densities([1.0, 10.0, 100.0], [10, 10], log) == pytest.approx([10.0, 10.0])


@pytest.mark.parametrize(
    "histogram",
    [None, {"edges_ms": [], "counts": []}, {"edges_ms": [1.0, 2.0], "counts": [0]}, {"edges_ms": [1.0], "counts": [3]}],
)
def test_without_a_right_histogram_there_is_no_picture(target, histogram):
    assert draw_histogram({"histogram": histogram}, {}, "h") is None


def test_the_rows_of_all_candidates_are_quickest_first(target):
    drawn = draw_ridges(target, "r") or ""
    order = [int(number) for number in re.findall(r">(\d)\. [a-z]+ [a-z0-9]+</text>", drawn)]
    p50 = [c["measured"]["application"]["percentiles"]["50.0"]["ms"] for c in target["candidates"]]
    assert order == sorted(range(1, 5), key=lambda number: p50[number - 1])
    assert draw_ridges({**target, "candidates": target["candidates"][:1]}, "r") is None


def test_a_timeline_needs_lines_of_one_length(target):
    measured = copy.deepcopy(target["candidates"][0]["measured"])
    assert draw_timeline(measured, {})
    measured["timeline"]["p90_ms"].pop()
    assert draw_timeline(measured, {}) is None


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (10.0, 2.5, "4{x} faster"),
        (2.0, 3.0, "1.5{x} slower"),
        (2.0, 2.001, "unchanged"),
        (None, 2.0, None),
        (0.0, 2.0, None),
    ],
)
def test_a_change_in_words(before, after, said):
    assert changed(before, after, "faster") == (said and said.format(x=TIMES))


def test_a_waterfall_shows_every_step_and_what_it_took_off(target):
    drawn = draw_steps(target["steps"], "size_mb", "Size, MB", megabytes) or ""
    assert [name in drawn for name in ("teacher", "fp32 student", f"4.76{TIMES} smaller")] == [True] * 3
    assert drawn.count('class="ghost"') == 2
    unknown = [step | {"size_mb": None} for step in target["steps"]]
    assert draw_steps(unknown, "size_mb", "Size, MB", megabytes) is None
    first = [unknown[0], *target["steps"][1:]]
    drawn = draw_steps(first, "size_mb", "Size, MB", megabytes) or ""
    assert "not measured" in drawn
    assert drawn.count('class="ghost"') == 1


def test_scores_say_what_was_lost_in_points(target):
    drawn = draw_scores(target["steps"], "accuracy") or ""
    assert "\N{MINUS SIGN}0.21 points" in drawn
    assert draw_scores([step | {"score": None} for step in target["steps"]], "accuracy") is None


@pytest.mark.parametrize(
    ("value", "low", "high", "allowed"),
    [
        (5.0, 4.0, 6.0, 8.0),
        (-0.3, -1.2, 0.5, 3.0),
        (900.0, None, None, 8.0),
        (0.0, None, None, 0.0),
        (3.0, 2.0, None, 8),
    ],
)
def test_a_gauge_stays_in_its_frame(value, low, high, allowed):
    result = {"value": value, "low": low, "high": high, "allowed": allowed, "status": "pass"}
    drawn = draw_gauge(result, "p99", "g")
    places = [float(x) for x in re.findall(r' x[12]?="(-?[\d.]+)"', drawn)]
    assert all(0 <= x <= 240 for x in places)
    assert not re.findall(r'width="-', drawn)
