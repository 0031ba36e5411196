"""How a student was pruned, as the terminal, Markdown and the page tell it."""

from __future__ import annotations

import io
import re

import pytest
from jsonschema import Draft202012Validator
from rich.console import Console
from sample_pruning import BEYOND, PRUNINGS, SLOWER, pruning, step
from sample_report import HOSTILE, SHAPES, sample_report
from test_html import Page

from edgekit.errors import SpecError
from edgekit.reporting.html import to_html
from edgekit.reporting.html_pruning import moves_grid, pruning_page, pruning_view, steps_grid
from edgekit.reporting.markdown import to_markdown
from edgekit.reporting.pictures_pruning import drawn
from edgekit.reporting.pruned import macs_text, pruning_sentence, pruning_table, remarks, step_lines
from edgekit.reporting.terminal import print_pruning, print_report
from edgekit.reporting.validation import validate
from edgekit.schemas import published

TITLE = "Pruned to a latency budget"


@pytest.fixture
def found():
    return pruning()


def printed(printer, found, columns):
    stream = io.StringIO()
    printer(found, Console(file=stream, width=columns, markup=False, emoji=False, highlight=False))
    return stream.getvalue()


# ---- what a report holds ----


@pytest.mark.parametrize("shape", PRUNINGS)
def test_a_report_of_any_shape_is_right_by_its_schema(shape):
    report = sample_report(1, pruning=PRUNINGS[shape]())
    Draft202012Validator(published("report")).validate(report)
    assert validate(report, "r.json") == report


def test_a_wrong_value_is_named(found):
    found["steps"][1]["kept"] = "yes"
    with pytest.raises(SpecError, match=re.escape("'pruning.steps[1].kept'")):
        validate(sample_report(1, pruning=found), "r.json")


# ---- words and tables ----


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ("usual", "3 of 5 steps kept: 0.47 [0.46, 0.48] of the unpruned p50 on openvino int8 "
                  "for 0.92 [0.50, 1.37] points"),
        ("met", "1 of 1 step kept: 0.44 [0.43, 0.45] of the unpruned p50 on openvino int8 "
                "for 0.31 [-0.11, 0.76] points"),
        ("undone", "the only step was undone: the model is as it was"),
        ("untimed", "1 of 2 steps kept: latency not known on openvino int8, 0.40 [-0.02, 0.85] points lost"),
        ("estimated", "3 of 5 steps kept: an estimated 0.47 of the unpruned p50 on openvino int8 "
                      "for 0.92 [0.50, 1.37] points"),
        ("unlabelled", "3 of 5 steps kept: 0.47 [0.46, 0.48] of the unpruned p50 on openvino int8, "
                       "what it lost is not known"),
        ("nothing", "no step was made: nothing can be pruned"),
        ("empty", "no step was made: the accuracy limit is reached"),
    ],
)  # fmt: skip
def test_a_sentence_says_what_came_of_it(shape, said):
    assert pruning_sentence(PRUNINGS[shape]()) == said


def test_where_nothing_was_kept_the_model_is_as_it_was():
    slow = [step(i, 1.0, 0.2, ["fc: 60 of 64 channels"], kept=False, why=SLOWER) for i in (1, 2, 3)]
    assert pruning_sentence(pruning(*slow)) == "none of 3 steps kept: the model is as it was"


def test_a_latency_that_was_not_compared_in_turns_is_no_ratio(found):
    found["steps"][4]["ratio"] = None
    assert "kept: p50 1.256 ms on openvino int8, 0.92 [0.50, 1.37] points lost" in pruning_sentence(found)


def test_the_table_has_a_row_a_step_and_marks_the_one_taken(found):
    header, rows = pruning_table(found)
    assert header == ["", "step", "MACs", "p50 ms", "ratio", "score", "drop, points", "kept"]
    assert rows[0] == ["", "0", "126 M", "2.672 [2.632, 2.704]", "-", "89.47%", "-", "-"]
    assert rows[4] == ["*", "4", "65.8 M", "1.256 [1.237, 1.271]", "0.47 [0.46, 0.48]", "88.55%", "0.92 [0.50, 1.37]",
                       "yes"]  # fmt: skip
    assert [row[-1] for row in rows] == ["-", "yes", "no", "yes", "yes", "no"]
    assert pruning_table(found, narrow=True)[1][4][3] == "1.256"


def test_the_whole_table_has_changes_and_why_steps_were_undone(found):
    header, rows = pruning_table(found, whole=True)
    changes = [row[header.index("changes")] for row in rows]
    assert changes[0] == "the unpruned model"
    assert changes[1] == "layer1: blocks 1, 2 left out; layer2: block 4 left out"
    assert changes[4].endswith("fc: 48 of 64 channels; 2 more")
    assert [row[-1] for row in rows] == ["-", "yes", f"no: {SLOWER}", "yes", "yes", f"no: {BEYOND}"]


def test_a_line_a_step_says_what_it_changed_and_why_it_was_undone(found):
    lines = dict(step_lines(found))
    assert lines["step 5"] == f"layer2: block 2 left out; undone: {BEYOND}"
    assert lines["step 3"] == "layer1: blocks 2, 3, 5 left out; layer2.1.conv1: 24 of 32 channels"
    found["steps"][3]["changes"] = ["x" * 500]
    assert len(dict(step_lines(found))["step 3"]) < 150


def test_remarks_say_how_and_why_it_ended(found):
    assert dict(remarks(found)) == {
        "budget": "p50 of 1.202 ms: 0.45 of the unpruned model's 2.67 ms",
        "accuracy": "at most 1.5 points lost, on 5,000 samples",
        "criterion": "taylor",
        "moves": "5 of 6 shown faster (measured)",
        "stopped": "the accuracy limit is reached",
    }
    bare = dict(remarks(PRUNINGS["empty"]() | {"samples": None, "estimate": "a roofline"}))
    assert bare["accuracy"] == "no limit, not judged: no labels"
    assert bare["latencies"] == "a roofline"
    assert "budget" not in bare
    assert "moves" not in bare


@pytest.mark.parametrize(
    ("macs", "said"), [(126_000_000, "126 M"), (4_089_284_608, "4,089 M"), (65_800_000, "65.8 M"), (450_000, "0.45 M")]
)
def test_macs_in_millions(macs, said):
    assert macs_text(macs) == said


# ---- terminal and Markdown ----


@pytest.mark.parametrize("columns", [80, 100])
@pytest.mark.parametrize("shape", PRUNINGS)
def test_the_terminal_fits_and_no_figure_is_folded(shape, columns):
    found = PRUNINGS[shape]()
    text = printed(print_pruning, found, columns)
    lines = text.splitlines()
    assert max(map(len, lines)) <= columns
    table = lines[lines.index(next((line for line in lines if line.startswith(" ──")), lines[0])) + 1 :]
    rows = table[: next((i for i, line in enumerate(table) if not line.strip()), 0)]
    assert len(rows) == len(found["steps"])
    assert " ".join(text.split()).endswith(pruning_sentence(found))


def test_deploy_prints_it_too(found):
    text = printed(print_report, sample_report(1, pruning=found), 100)
    assert "pruned for local, openvino int8\n" in text
    assert f"undone: {BEYOND}" in text
    assert "pruned for" not in printed(print_report, sample_report(1), 100)


def test_what_is_estimated_says_so_everywhere():
    found = PRUNINGS["estimated"]()
    assert "latencies are an estimate" in printed(print_pruning, found, 80)
    assert pruning_table(found)[0][3] == "p50 ms, estimate"
    assert "Latencies are **not measured here**: estimate: roofline." in to_markdown(sample_report(1, pruning=found))
    html = pruning_page(found, "flowers")
    assert "estimated p50 latency, ms" in html
    assert "estimated p50 2.672 ms" in html
    text = Page(html).text
    assert "An estimate. Latencies are not measured" in text
    assert "Score against estimated latency" in text
    assert "measured p50" not in text
    usual = pruning_page(pruning(), "flowers")
    assert "measured p50 latency, ms" in usual
    assert "estimate" not in usual.partition("<main")[2]


def test_markdown_tells_the_result_in_sight_and_folds_the_rest(found):
    text = to_markdown(sample_report(2, pruning=found))
    assert f"\n**Pruned**: {pruning_sentence(found)}.\n" in text
    folded = text[text.index(f"<details><summary>{TITLE}</summary>") :].partition("</details>")[0]
    assert "| **4** | layer3: blocks 6, 7 left out;" in folded
    assert f"| no: {BEYOND} |" in folded
    assert "- layer2.0: not removed, its shortcut changes the shape" in folded
    assert TITLE not in to_markdown(sample_report(2))


# ---- the page ----


def test_the_report_has_a_section_of_it(found):
    text = Page(to_html(sample_report(1, pruning=found))).text
    parts = [TITLE, "3 of 5 steps kept", "Score against measured latency", "All changes of every step",
             "What every move saves of 2.672 ms, measured", "What could not be pruned", "How to reproduce"]  # fmt: skip
    places = [text.index(part, text.index(TITLE)) for part in parts]
    assert places == sorted(places)
    assert TITLE not in to_html(sample_report(1))


@pytest.mark.parametrize("shape", PRUNINGS)
def test_a_page_of_its_own_is_whole_and_loads_nothing(shape):
    found = PRUNINGS[shape]()
    html = pruning_page(found, "flowers")
    assert html.startswith("<!doctype html>")
    assert set(re.findall(r"https?://[^\s\"'<]*", html)) <= {"http://www.w3.org/2000/svg"}
    identities = re.findall(r'\bid="([^"]+)"', html)
    assert len(identities) == len(set(identities))
    assert html.count("<h1") == html.count("<script") == 1
    said = pruning_sentence(found).replace("-", "\N{MINUS SIGN}")
    assert said[1:] in Page(html).text.replace("-", "\N{MINUS SIGN}")
    assert ("<svg" in html.partition("<main")[2]) == bool(drawn(found))


def test_what_is_hostile_is_shown_and_not_run():
    found = SHAPES["pruned_hostile"]()["pruning"]
    for html in (pruning_page(found, HOSTILE), to_html(SHAPES["pruned_hostile"]())):
        assert "<script>alert" not in html
        assert "<img" not in html
        assert HOSTILE.replace("\u202e\x00\ud800", "\N{REPLACEMENT CHARACTER}" * 3) in Page(html).text


def test_the_table_of_steps_sorts_by_figures(found):
    grid = steps_grid(found, "p")
    names = [head.name for head in grid.head]
    taken = dict(zip(names, grid.rows[4], strict=True))
    assert grid.marked == {4}
    assert grid.marked_as == "taken"
    assert (taken["score"].value, taken["p50 ms"].value) == pytest.approx((0.8855, 1.25584))
    undone = dict(zip(names, grid.rows[5], strict=True))["what became of it"]
    assert (undone.text, undone.below) == ("undone", BEYOND)
    assert 'class="unseen">taken: ' in pruning_page(found, "flowers")


def test_moves_are_told_with_what_they_save(found):
    grid = moves_grid(found, "m") or pytest.fail("no table")
    assert [cell.text for cell in grid.rows[0]] == [
        "layer1.1",
        "removed",
        "0.112",
        "[0.100, 0.123]",
        "yes",
        "8",
        "block",
    ]
    assert [cell.text for cell in grid.rows[5]][4] == "no"
    assert moves_grid(PRUNINGS["estimated"](), "m").rows[0][3].text == "\N{EN DASH}"
    assert moves_grid(PRUNINGS["untimed"](), "m") is None


def test_the_legend_tells_of_what_is_drawn_alone(found):
    view = pruning_view(found, "p")
    assert [name for name, _ in view["legend"]] == ["unpruned", "kept", "undone"]
    assert view["rules"] == ["ring: taken", "right of the budget and below the limit: not allowed"]
    bare = pruning_view(PRUNINGS["nothing"]() | {"budget_ms": None, "max_drop_points": None, "best": 1}, "p")
    assert [name for name, _ in bare["legend"]] == ["unpruned"]
    assert bare["rules"] == []
