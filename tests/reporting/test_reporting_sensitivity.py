"""A sensitivity analysis as JSON, as a table, on a terminal and as a page."""

import io
import re
from html import unescape
from html.parser import HTMLParser

import pytest
from jsonschema import Draft202012Validator
from rich.console import Console
from sample_report import HOSTILE
from sample_sensitivity import ROWS, SENSITIVITIES, ratio, row, sensitivity

from edgekit.errors import SpecError
from edgekit.reporting.group_names import short_names
from edgekit.reporting.html_sensitivity import groups_grid
from edgekit.reporting.pictures_sensitivity import draw_sensitivity
from edgekit.reporting.sensitivity import (
    group_report,
    made_of,
    print_sensitivity,
    sensitivity_html,
    sensitivity_table,
    sentence,
)
from edgekit.reporting.validation import validate
from edgekit.schemas import published


@pytest.mark.parametrize("shape", SENSITIVITIES)
def test_it_is_right_by_its_schema(shape):
    report = SENSITIVITIES[shape]()
    Draft202012Validator(published("sensitivity")).validate(report)
    assert validate(report, "s.json", kinds=("sensitivity",)) == report


def test_it_is_no_report_with_a_verdict():
    with pytest.raises(SpecError, match="a report of another kind") as caught:
        validate(sensitivity(), "s.json")
    assert caught.value.found == "'sensitivity'"


def test_it_says_what_it_is_of():
    report = sensitivity()
    assert (report["kind"], report["schema_version"]) == ("sensitivity", 1)
    assert (report["model"], report["target"], report["engine"], report["plan"]) == (
        "flowers", "local", "onnxruntime", "onnxruntime int8"
    )  # fmt: skip
    assert (report["threads"], report["samples"], report["metric"]) == (4, 64, "accuracy")
    assert (report["fp32_ms"], report["confidence"], report["not_measured"]) == (6.25, 0.995, None)
    assert report["groups"][1]["nodes"] == list(ROWS[1].group.nodes)
    bare = SENSITIVITIES["not_timed"]()
    assert "another world" in bare["not_measured"]
    assert (bare["fp32_ms"], bare["confidence"], bare["metric"]) == (None, None, None)


@pytest.mark.parametrize(
    ("made", "word"),
    [
        (row(0, 30.0, 0.1, ratio(0.9, 0.05)), "pays"),
        (row(0, 30.0, 0.1, ratio(1.1, 0.05)), "costs"),
        (row(0, 30.0, 0.1, ratio(0.98, 0.05)), "no difference shown"),
        (row(0, 30.0, 0.1, ratio(0.9, 0.05, settled=False)), "pays"),
        (row(0, 30.0, 0.1, ratio(0.9, 0.2, settled=False)), "unsettled"),
        (row(0, 30.0, 0.1, None), "not measured"),
        (row(0, 30.0, 0.1, ratio(0.9, 0.05), failure="NaN"), "failed"),
    ],
)
def test_a_word_for_every_group(made, word):
    assert group_report(made)["finding"] == word


def test_the_table_has_what_each_group_loses_and_gains():
    header, rows = sensitivity_table(sensitivity())
    assert header == ["#", "group", "operators", "dB", "drop, points", "time of fp32", "finding"]
    assert rows[1] == ["2", "encoder/layer0.1/conv1\n… conv2", "Conv", "31.2", "0.12 [-0.29, 0.56]",
                       "0.94 [0.93, 0.95]", "pays"]  # fmt: skip
    assert rows[5][3:] == ["-", "-", "-", "failed"]
    header, rows = sensitivity_table(sensitivity(), narrow=True)
    assert rows[1] == ["2", "encoder/layer0.1/conv1\n… conv2", "31.2", "0.12", "0.94", "pays"]
    assert len(header) == len(rows[1])


@pytest.mark.parametrize("columns", [80, 100])
@pytest.mark.parametrize("shape", SENSITIVITIES)
def test_the_terminal_fits(shape, columns):
    stream = io.StringIO()
    console = Console(file=stream, width=columns, markup=False, emoji=False, highlight=False)
    report = SENSITIVITIES[shape]()
    print_sensitivity(report, console)
    text = stream.getvalue()
    assert max(map(len, text.splitlines())) <= columns
    if shape != "hostile":
        assert next(line for line in text.splitlines() if line.startswith(" #")).rstrip().endswith("finding")
        assert text.endswith(f"{sentence(report)}\n")


def test_a_sentence_says_it_all():
    assert sentence(sensitivity()) == "int8 pays in 3 of 8 groups, costs in 2; 3 are under 20 dB; 1 failed"
    assert sentence(SENSITIVITIES["not_timed"]()) == "nothing was timed; 1 is under 20 dB"
    assert sentence(SENSITIVITIES["nothing"]()) == "int8 pays in 0 of 3 groups; 3 failed"
    assert sentence(sensitivity([])) == "the model has no operator groups"


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (["/layer1/layer1.0/conv1/Conv … /layer1/layer1.0/conv2/Conv"], [("conv1", "conv2")]),
        (["/l1/l1.0/conv1/Conv … /l1/l1.0/conv2/Conv", "/fc/Gemm"], [("l1.0/conv1", "conv2"), ("fc",)]),
        (["/enc/a/MatMul_1", "/enc/b/MatMul"], [("a",), ("b",)]),
        (["/enc/a/q/MatMul … /enc/b/v/MatMul"], [("a/q", "b/v")]),
        (["node_conv2d_3", "node_linear"], [("node_conv2d_3",), ("node_linear",)]),
        (["/", "/Conv"], [("/",), ("Conv",)]),
    ],
)  # fmt: skip
def test_names_say_nothing_twice(names, short):
    operators = ["Conv", "Gemm", "MatMul"]
    assert short_names([{"name": name, "operators": operators} for name in names]) == short


def test_what_a_group_is_made_of():
    assert made_of({"compute": 1, "operators": ["Gemm"]}) == "Gemm"
    assert made_of({"compute": 3, "operators": ["Conv", "Gemm"]}) == "3 \N{MULTIPLICATION SIGN} Conv, Gemm"


def test_the_picture_hatches_what_is_poor_and_stays_in_its_frame():
    for narrow, width in ((False, 860.0), (True, 360.0)):
        drawn = draw_sensitivity(sensitivity(), "g", narrow=narrow) or pytest.fail("no picture")
        assert drawn.count('class="quality poor"') == 3
        assert drawn.count("url(#g-hatch)") == 3
        assert drawn.count('class="quality"') == 4
        findings = re.findall(r"mark finding (\w+)", drawn)
        assert findings == ["fail", "pass", "pass", "none", "pass", "none", "fail"]
        places = [float(x) for x in re.findall(r" c?x[12]?=\"(-?[\d.]+)\"", drawn)]
        assert all(0 <= x <= width for x in places)
        assert drawn.count('class="tip"') == 8
        assert "drop 3.71 [3.30, 4.15] points · 1.12 [1.08, 1.16] of fp32" in drawn


def test_without_times_there_is_one_axis_and_without_anything_no_picture():
    drawn = draw_sensitivity(SENSITIVITIES["not_timed"](), "g") or pytest.fail("no picture")
    assert "less is better" not in drawn
    assert draw_sensitivity(SENSITIVITIES["nothing"](), "g") is None


def test_the_grid_sorts_by_figures():
    grid = groups_grid(sensitivity())
    names = [head.name for head in grid.head]
    values = dict(zip(names, grid.rows[1], strict=True))
    assert (values["dB"].value, values["time of fp32"].value, values["int8"].text) == (31.2, 0.94, "11%")
    assert dict(zip(names, grid.rows[3], strict=True))["dB"].text == "identical"
    assert dict(zip(names, grid.rows[5], strict=True))["dB"].value is None


class Words(HTMLParser):
    """The text of a page, and its identities."""

    def __init__(self, html):
        super().__init__()
        self.words, self.identities, self.headings = [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.identities += [value for key, value in attrs if key == "id"]
        self.headings += [int(tag[1])] if re.fullmatch("h[1-6]", tag) else []

    def handle_data(self, data):
        self.words.append(data)


@pytest.mark.parametrize("shape", SENSITIVITIES)
def test_the_page_is_whole_and_loads_nothing(shape):
    html = sensitivity_html(SENSITIVITIES[shape]())
    page = Words(html)
    assert html.startswith("<!doctype html>")
    assert "default-src 'none'" in unescape(html)
    assert set(re.findall(r"https?://[^\s\"'<]*", html)) <= {"http://www.w3.org/2000/svg"}
    assert len(page.identities) == len(set(page.identities))
    assert page.headings[0] == 1
    assert page.headings.count(1) == 1
    assert html.count("<script") == 1
    assert "<img" not in html


def test_the_page_tells_every_node_and_failure():
    report = sensitivity()
    text = " ".join(" ".join(Words(sensitivity_html(report)).words).split())
    for group in report["groups"]:
        assert group["name"] in text
        assert ", ".join(group["nodes"]) in text
    assert "QLinearConv without a kernel" in text
    assert report["command"] in text


def test_the_page_says_why_nothing_was_timed():
    report = SENSITIVITIES["not_timed"]() | {"not_measured": "this host is x86_64"}
    text = " ".join(" ".join(Words(sensitivity_html(report)).words).split())
    assert "Not timed. This host is x86_64." in text
    assert "Nothing was timed; 1 is under 20 dB." in text


def test_what_is_hostile_is_shown_and_not_run():
    html = sensitivity_html(SENSITIVITIES["hostile"]())
    assert "<script>alert" not in html
    shown = HOSTILE.replace("\u202e\x00\ud800", "\N{REPLACEMENT CHARACTER}" * 3)
    assert shown in "".join(Words(html).words)
