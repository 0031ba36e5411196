"""Where the student lost, as the terminal, Markdown and the page tell it."""

from __future__ import annotations

import dataclasses
import re

import pytest
from sample_kept import ANIMALS, kept, renamed
from sample_report import sample_report
from test_html import Page

from edgekit.distillation import kept_tree
from edgekit.reporting import kept_model
from edgekit.reporting.html import to_html
from edgekit.reporting.html_kept import kept_view
from edgekit.reporting.kept import corruption_table, kept_table, lost_table, sentence, worst_corruption
from edgekit.reporting.markdown import to_markdown
from edgekit.reporting.pictures_kept import MOST_ROWS, by_loss, draw_confusion, draw_curves, draw_recalls
from edgekit.reporting.tables import percent

TITLE = "Where the student lost"


@pytest.fixture
def found():
    return kept()


@pytest.mark.parametrize("name", [name for name, kind in vars(kept_tree).items() if dataclasses.is_dataclass(kind)])
def test_the_reports_types_are_those_of_what_is_measured(name):
    fields = {field.name for field in dataclasses.fields(getattr(kept_tree, name))}
    assert set(getattr(kept_model, name).__annotations__) == fields


# ---- words and tables ----


def test_the_table_sets_the_teacher_against_the_student(found):
    header, rows = kept_table(found)
    assert header == ["", "teacher", "student"]
    assert [row[0].partition(":")[0] for row in rows] == [
        "accuracy",
        "agreement with the teacher",
        "calibration error",
        "worst class",
        "worst group",
        "worst corruption",
    ]
    assert rows[0][1:] == [percent(found[role]["accuracy"]) for role in ("teacher", "student")]
    assert rows[1][1:] == ["", percent(found["agreement"])]
    worst = found["classes"][found["lost_classes"][0]]
    assert rows[3] == [
        f"worst class: {worst['name']}",
        percent(worst["teacher"]["recall"]),
        percent(worst["student"]["recall"]),
    ]


def test_what_was_not_lost_or_not_tried_has_no_row(found):
    found |= {"lost_classes": [], "lost_groups": [], "corruption": None}
    assert [row[0] for row in kept_table(found)[1]] == ["accuracy", "agreement with the teacher", "calibration error"]
    assert sentence(found).endswith("; no class lost recall")
    assert corruption_table(found)[1] == lost_table(found)[1] == []


def test_the_worst_corruption_is_where_the_student_is_furthest_behind(found):
    kinds = found["corruption"]["kinds"]
    kinds[2]["student_mean"] = kinds[2]["teacher_mean"] - 0.5
    assert worst_corruption(found) is kinds[2]


def test_a_long_name_leaves_room_for_the_figures(found):
    rows = kept_table(renamed(found, "x" * 500))[1]
    assert max(sum(map(len, row)) for row in rows) < 80


def test_markdown_folds_three_short_tables(found):
    text = to_markdown(sample_report(2, kept=found))
    folded = text[text.index(f"<details><summary>{TITLE}</summary>") :].partition("</details>")[0]
    assert folded.count("\n| --- |") == 3
    assert f"| accuracy | {percent(found['teacher']['accuracy'])} | {percent(found['student']['accuracy'])} |" in folded
    assert "| mean of all kinds |" in folded
    assert len(folded) < 2500


# ---- the page ----


def test_the_page_has_the_section_before_the_models():
    text = Page(to_html(sample_report(2, kept=kept()))).text
    parts = [TITLE, "Scores on the test samples", "Recall of every class", "What every class is taken for",
             "How right when sure", "Accuracy by group", "Accuracy under noise and corruption", "not ImageNet-C",
             "Every class", "Samples that the teacher was sure of", "How to reproduce"]  # fmt: skip
    places = [text.index(part, text.index(TITLE)) for part in parts]
    assert places == sorted(places)


def test_a_report_without_it_has_no_such_section():
    report = sample_report(2)
    assert TITLE not in to_html(report)
    assert TITLE not in to_markdown(report)
    assert kept_view(report, "r1") is None


def test_its_figures_are_those_of_the_report(found):
    text = Page(to_html(sample_report(1, kept=found))).text
    for role in ("teacher", "student"):
        for value in found[role].values():
            assert percent(value) in text
        for one in (*found["corruption"]["kinds"], found["corruption"]):
            assert percent(one[f"{role}_mean"]) in text
        for one in found["groups"]:
            assert percent(one[role]) in text
    for one in found["classes"]:
        assert f"{100 * one['teacher']['recall']:.1f} → {100 * one['student']['recall']:.1f}" in text
    for one in found["lost_samples"]:
        assert percent(one["teacher"]) in text


def test_many_classes_are_cut_to_those_that_lost_most():
    found = kept(120, 6000, grouped=False, empty=2)
    html = to_html(sample_report(1, kept=found))
    text = Page(html).text
    assert f"The {MOST_ROWS} of 118 classes that lost most. Without test samples: class number 118" in text
    assert "What every class is taken for" not in text
    assert "New mistakes of the student" in text
    assert "The 50 of 118 classes that lost most" in text
    assert "Accuracy by group" not in text
    assert len(html.encode()) < 1_000_000


def test_thirty_classes_stay_small():
    html = to_html(sample_report(1, kept=kept(30, 3000)))
    assert len(html.encode()) < 1_000_000


# ---- pictures ----


def test_bars_are_sorted_by_loss_and_as_long_as_the_recalls(found):
    drawn = draw_recalls(found)
    names = re.findall(r'class="label"[^>]*>([^<]+)<', drawn)
    losses = {one["name"]: one["teacher"]["recall"] - one["student"]["recall"] for one in found["classes"]}
    assert sorted(names) == sorted(name for name in names if name in losses)
    assert [losses[name] for name in names] == sorted(losses.values(), reverse=True)
    widths = [float(w) for w in re.findall(r'<rect[^>]*width="([\d.]+)"[^>]*class="s[02]"', drawn)]
    recalls = [one[role]["recall"] for one in by_loss(found) for role in ("teacher", "student")]
    assert [w / widths[0] for w in widths] == pytest.approx([r / recalls[0] for r in recalls], abs=1e-3)


def test_a_cell_is_as_dark_as_its_share_of_the_row(found):
    drawn = draw_confusion(found, narrow=True)
    assert drawn is not None
    shades = [float(shade) for shade in re.findall(r'class="hit" fill-opacity="([\d.]+)"', drawn)]
    matrix = found["confusion"]["student"]
    shares = [row[i] / sum(row) for i, row in enumerate(matrix)]
    assert shades == pytest.approx([0.12 + 0.88 * share for share in shares], abs=0.006)
    misses = sum(value > 0 for i, row in enumerate(matrix) for j, value in enumerate(row) if i != j)
    assert drawn.count('class="miss"') == misses
    assert draw_confusion(found | {"confusion": None}) is None


def test_dots_lie_where_sureness_and_rightness_say(found):
    drawn = draw_curves(found)
    bins = found["reliability"]["student"]
    dots = re.findall(r'cx="([\d.]+)" cy="([\d.]+)" r="[\d.]+" class="s2 dot"', drawn)
    assert len(dots) == len(bins)
    (left, top), side = (48.0, 28.0), 330.0
    for (x, y), one in zip(dots, bins, strict=True):
        assert (float(x) - left) / side == pytest.approx(one["confidence"], abs=1e-3)
        assert 1 - (float(y) - top) / side == pytest.approx(one["accuracy"], abs=1e-3)
    assert drawn.count('class="line-student"') == 2


def test_without_curves_there_is_one_panel(found):
    found["curves"] |= {"teacher": None, "student": None}
    assert draw_curves(found).count('class="line-student"') == 1
    assert "precision" not in draw_curves(found, narrow=True).partition(">")[2]


def test_every_class_is_named_once_in_each_size(found):
    for narrow in (False, True):
        assert all(draw_recalls(found, narrow=narrow).count(f">{name}<") == 1 for name in ANIMALS)
