import re

import pytest
from sample_report import (
    SHAPES,
    failing_report,
    not_measured_report,
    sample_report,
    several_targets_report,
    unsteady_report,
)
from test_cases import profiled

from edgekit.reporting.markdown import MOST, escape, to_markdown

WHOLE = sorted(set(SHAPES) - {"nulls"})


def tables(text):
    """Every table as rows of cells, without the rule below the header."""
    found = [[]]
    for line in text.splitlines():
        if line.startswith("|"):
            found[-1].append([cell.strip() for cell in line.replace("\\|", "/").strip("|").split("|")])
        elif found[-1]:
            found.append([])
    return [[row for row in table if set("".join(row)) != set("- ") - {" "}] for table in found if table]


def folded(text):
    """What is folded, by the line that it is folded under."""
    return dict(re.findall(r"<details><summary>(.*?)</summary>\n\n(.*?)\n\n</details>", text, re.DOTALL))


def in_sight(text):
    return re.sub(r"<details>.*?</details>\n*", "", text, flags=re.DOTALL)


@pytest.mark.parametrize("shape", WHOLE)
def test_its_tables_are_whole_and_every_fold_is_closed(shape):
    text = to_markdown(SHAPES[shape]())
    for table in tables(text):
        assert {len(row) for row in table} == {len(table[0])}
    assert text.count("<details>") == text.count("</details>") == len(re.findall("^<details>", text, re.MULTILINE))
    assert text.endswith("\n")
    assert "\n\n\n" not in text


@pytest.mark.parametrize(
    ("report", "word"),
    [
        (sample_report, "PASS"),
        (failing_report, "FAIL"),
        (unsteady_report, "INCONCLUSIVE"),
        (not_measured_report, "NOT MEASURED"),
        (several_targets_report, "FAIL"),
    ],
)
def test_the_verdict_comes_first_in_a_word(report, word):
    assert to_markdown(report()).startswith(f"# flowers: **{word}**\n\n")


def test_in_sight_are_what_ships_why_and_the_limits():
    text = in_sight(to_markdown(sample_report()))
    assert "**local**, profile realtime-120fps: openvino int8: lowest p50 bound (2.345 ms)" in text
    assert "Bundle <code>0123456789abcdef</code>" in text
    (limits,) = tables(text)
    assert [row[0] for row in limits] == ["limit", "accuracy drop", "p99", "first query", "size"]
    assert len(text) < 900


def test_the_rest_is_folded():
    text = folded(to_markdown(sample_report(4, failed=1)))
    assert list(text) == [
        "onnxruntime fp16 failed",
        "All 5 candidates",
        "From the teacher to what ships",
        "Accuracy",
        "Latency",
        "Host and load",
        "How to reproduce",
    ]
    (candidates,) = tables(text["All 5 candidates"])
    assert [row[0] for row in candidates if row[0].startswith("**")] == ["**openvino int8**"]
    (steps,) = tables(text["From the teacher to what ships"])
    assert [row[0] for row in steps[1:]] == ["teacher", "fp32 student", "openvino int8"]
    assert "- engines: onnxruntime 1.31.1, openvino 2026.4.1" in text["Host and load"]
    assert text["How to reproduce"].startswith("```text\nedgekit deploy examples/flowers --target local\n```")
    assert "- versions: edgekit 0.1.0, torch 2.15.0" in text["How to reproduce"]


def test_what_cannot_be_trusted_is_in_sight():
    text = in_sight(to_markdown(unsteady_report()))
    assert "**Spoiled**: other processes used 23% of the CPUs" in text
    assert "**Drift**: the second half is 18% slower than the first (p &lt; 0.001)" in text


def test_several_targets_and_several_runs_are_set_side_by_side():
    (table,) = tables(in_sight(to_markdown(several_targets_report())))[:1]
    assert [row[1:4] for row in table] == [
        ["target", "verdict", "ships"],
        ["local", "pass", "openvino int8"],
        ["raspberry-pi-4", "not measured", "openvino fp32"],
        ["x86-avx2", "fail", "nothing"],
    ]
    text = to_markdown(sample_report(), unsteady_report(), profiled())
    assert text.startswith("# 3 reports: **INCONCLUSIVE**\n\n| run |")
    rows = tables(text)[0][1:]
    assert [row[2] for row in rows] == ["pass", "inconclusive", "pass"]
    assert all(re.fullmatch(r"\d\.\d{3}", row[4]) for row in rows)
    assert text.index("## flowers: **PASS**") < text.index("## flowers: **INCONCLUSIVE**")


def test_a_profile():
    text = to_markdown(profiled())
    assert text.startswith(
        "# flowers: **PASS**\n\nopenvino int8 on **local**, profile realtime-120fps: every limit is met"
    )
    assert [table[0][0] for table in tables(text)] == ["limit", "clock"]


def test_a_reason_is_told_word_for_word_and_cannot_leave_its_fence():
    report = failing_report()
    report["targets"][0]["candidates"][0]["failure"] = "cannot\n```\n</details>\n  found:   | Foo |\n````"
    text = to_markdown(report)
    assert (
        "<summary>onnxruntime fp32 failed</summary>\n\n"
        "`````text\ncannot\n```\n</details>\n  found:   | Foo |\n````\n`````\n\n</details>"
    ) in text


def test_names_are_nothing_but_text():
    report = sample_report(name="<img src=x> a|b `c` **d** _e_ [f](http://g) max_drop\nnext")
    report["models"]["teacher"]["name"] = report["data"]["metric"] = report["name"]
    for candidate in report["targets"][0]["candidates"]:
        candidate["proof"]["metric"] = report["name"]
    safe = r"&lt;img src=x&gt; a\|b \`c\` \*\*d\*\* \_e\_ [f]\(http://g) max_drop next"
    assert escape(report["name"]) == safe
    text = to_markdown(report)
    assert f"# {safe}: **PASS**" in text
    assert f"| teacher | {safe} |" in text
    assert f"| parameters | {safe} |" in text
    assert "<img" not in text


def test_thirty_candidates_and_long_reasons_fit_a_comment():
    report = SHAPES["thirty"]()
    assert len(to_markdown(report)) < 20_000
    for candidate in report["targets"][0]["candidates"]:
        candidate |= {"failure": "x" * 9_000 + "\n"} if not candidate["shipped"] else {}
    text = to_markdown(report)
    assert len(text) < MOST
    assert "characters more in report.json" in text
    text = to_markdown(*[report] * 4)
    assert len(text) < MOST
    assert re.search(r"\n\d+ folded parts are left out for length; report.json holds everything.\n$", text)
    assert text.count("<details>") == text.count("</details>")
    assert text.count("# flowers: **PASS**") == 4


def test_whatever_the_length_it_fits():
    report = sample_report(name="n" * 70_000)
    assert len(to_markdown(report)) < MOST
