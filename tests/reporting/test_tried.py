"""What auto tried: a line and a table on the terminal, a folded table in Markdown, a sortable one on the page."""

import io

import pytest
from rich.console import Console
from sample_report import SHAPES, sample_report
from sample_trials import LONG_PLAN, trial, trials

from edgekit.reporting.html_tables import trials_grid
from edgekit.reporting.html_view import target_view
from edgekit.reporting.markdown import to_markdown
from edgekit.reporting.terminal import print_report
from edgekit.reporting.tried import failures, trials_line, trials_table, verdict_of


@pytest.fixture
def target():
    return SHAPES["searched"]()["targets"][0]


def printed(report, columns):
    stream = io.StringIO()
    print_report(report, Console(file=stream, width=columns, markup=False, emoji=False, highlight=False))
    return stream.getvalue()


def test_a_line_says_how_many_were_tried_and_how_many_lost_little_enough(target):
    assert trials_line(target) == (
        "tried 9 plans on 512 samples that are not the test's: 4 within what may be lost, 1 failed"
    )
    target["trials"] = [trial("onnxruntime fp32", None, None, failure="no")]
    assert trials_line(target) == "tried 1 plan: 0 within what may be lost, 1 failed"
    assert trials_line(target | {"trials": []}) == trials_line({}) == ""


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"within": True, "failure": None}, "within"),
        ({"within": False, "failure": None}, "loses too much"),
        ({"within": False, "failure": "NaN in the output"}, "failed"),
    ],
)
def test_a_word_for_each(fields, word):
    assert verdict_of(fields) == word


def test_the_table_tells_what_each_lost(target):
    header, rows = trials_table(target)
    assert header == ["#", "plan", "dB", "drop from fp32", "verdict", "samples"]
    assert rows[1] == ["2", "onnxruntime int8", "8.2", "31.64 [31.33, 31.98]", "loses too much", "512"]
    assert rows[7] == ["8", "openvino bf16", "-", "-", "failed", "-"]
    assert trials_table(target, narrow=True)[1][1][3] == "31.64"
    header, rows = trials_table(target, reasons=True)
    assert (header[-1], rows[7][-1].splitlines()[0]) == ("why", "openvino cannot run bf16 here")
    assert trials_table(target | {"trials": trials()[:3]}, reasons=True)[0][-1] == "samples"


@pytest.mark.parametrize("columns", [80, 100])
def test_the_terminal_fits_long_names_and_cuts_nothing(columns):
    text = printed(SHAPES["searched"](), columns)
    assert max(map(len, text.splitlines())) <= columns
    assert "auto: tried 9 plans on 512 samples" in text
    head = next(line for line in text.splitlines() if "candidate " in line)
    assert head.rstrip().endswith("verdict"), "the last column is there"
    statuses = [c["status"] for c in SHAPES["searched"]()["targets"][0]["candidates"]]
    assert text.count("inconclusive") == statuses.count("inconclusive") > 0
    words = " ".join(text.split())
    for part in LONG_PLAN.split():
        assert part in words


def test_the_terminal_has_no_table_of_one_and_no_line_of_none():
    report = sample_report(2)
    assert "auto:" not in printed(report, 100)
    report["targets"][0]["trials"] = trials()[:1]
    text = printed(report, 100)
    assert "auto: tried 1 plan on" in text
    assert "drop from fp32" not in text


def test_markdown_folds_them():
    text = to_markdown(SHAPES["searched"]())
    fold = text.partition("<summary>What auto tried</summary>")[2].partition("</details>")[0]
    assert fold.startswith("\n\n`auto` tried 9 plans")
    assert fold.count("\n| ") == 2 + len(trials())
    assert "openvino cannot run bf16 here" in fold
    assert text.index("All 6 candidates") < text.index("What auto tried") < text.index("From the teacher")
    assert "What auto tried" not in to_markdown(sample_report())


def test_the_page_has_a_table_that_sorts_and_says_why_one_failed(target):
    grid = trials_grid(target, "t")
    assert (grid.sortable, len(grid.rows)) == (True, 9)
    assert [row[3].value for row in grid.rows[:3]] == [0.0, 31.64, 4.1]
    failed = grid.rows[7][4]
    assert (failed.text, failed.look, failed.below) == ("failed", "status fail", "openvino cannot run bf16 here")
    captions = [grid.caption for grid in target_view({"targets": [target]}, target, "t")["grids"]]
    assert captions.index("What auto tried") == captions.index("Candidates") + 1


def test_a_failure_is_told_once(target):
    ((name, why),) = failures(target)
    assert name == "trial 8. openvino bf16"
    target["candidates"][0]["failure"] = why
    assert failures(target) == []
