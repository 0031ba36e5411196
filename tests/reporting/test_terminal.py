import io

import pytest
from fake_line import quick_profile

from edgekit.cli._output import console
from edgekit.profiling.load import LoadSpec
from edgekit.reporting.measurement import measured_report
from edgekit.reporting.report import limits_report
from edgekit.reporting.terminal import print_profile, print_report


@pytest.fixture
def printed(monkeypatch):
    """Prints as the command line does, on so many columns."""

    def show(printer, found, columns=80):
        monkeypatch.setenv("COLUMNS", str(columns))
        stream = io.StringIO()
        printer(found, console(stream))
        return stream.getvalue()

    return show


def cells(text, start):
    """The rows of the table whose header starts with ``start``, until its end."""
    lines = text.splitlines()
    first = next(i for i, line in enumerate(lines) if line.strip().startswith(start))
    rows = lines[first + 2 :]
    return rows[: next(i for i, row in enumerate(rows) if not row.strip())]


def wide(report, candidate):
    """Every engine and precision, one of them failed, one that misses."""
    return report(
        candidate("openvino", "fp32", latency_ms=987.6, drop=(-0.1, 0.1)),
        candidate("openvino", "int8", latency_ms=25.5),
        candidate("onnxruntime", "fp32", drop=(-4.55, 12.34)),
        candidate("onnxruntime", "int8"),
        candidate("tensorrt", "fp32", failure="engine 'tensorrt' cannot prepare a model here"),
        shipped=3,
    )


@pytest.mark.parametrize("columns", [80, 100])
def test_no_cell_is_folded_for_the_usual_names(printed, report, candidate, columns):
    text = printed(print_report, wide(report, candidate), columns)
    assert max(map(len, text.splitlines())) <= columns
    for start, rows in (("candidate", 5), ("limit", 5), ("clock", 2), ("model", 4)):
        assert len(cells(text, start)) == rows, f"{start}: a cell is folded\n{text}"


@pytest.mark.parametrize("columns", [80, 100])
def test_no_cell_is_folded_where_nothing_was_measured(printed, report, candidate, columns):
    text = printed(print_report, report(candidate(latency_ms=None), candidate("openvino", latency_ms=None)), columns)
    assert len(cells(text, "candidate")) == 2
    assert len(cells(text, "limit")) == 5
    assert "clock" not in text
    assert "NOT MEASURED" in text


def test_the_verdict_what_ships_and_why(printed, report, candidate):
    text = printed(print_report, wide(report, candidate))
    assert text.startswith("digits on local, profile quick: PASS\n")
    assert "ships: onnxruntime int8: lowest p50 bound (12.345 ms)" in text
    assert "bundle: local (0123456789abcdef)" in text
    assert "tensorrt fp32 failed: engine 'tensorrt' cannot prepare a model here" in text
    assert [row.strip()[0] == "*" for row in cells(text, "candidate")] == [False, False, False, True, False]


def test_where_nothing_ships_it_says_why_of_each(printed, report, candidate):
    text = printed(
        print_report, report(candidate(drop=(3.0, 5.0)), candidate("openvino", drop=(2.0, 5.0)), shipped=None)
    )
    assert text.startswith("digits on local, profile quick: FAIL\n")
    assert "onnxruntime int8: not met: max_drop_points" in text
    assert "openvino int8: not met: max_drop_points" in text
    assert "\nnothing ships: the accuracy limit is missed\n" in text
    assert "bundle:" not in text


def test_a_profile_without_limits_has_no_table_of_them(printed, report, candidate):
    none = quick_profile()
    text = printed(print_report, report(candidate(profile=none), profile=none))
    assert "allowed" not in text


def test_text_of_users_is_no_markup(printed, report, candidate):
    text = printed(
        print_report, report(candidate(), candidate(failure="[bold]bad[/bold] :smile:"), name="[red]mine[/red]")
    )
    assert "[red]mine[/red] on local" in text
    assert "[bold]bad[/bold] :smile:" in text


@pytest.mark.parametrize("status", ["fail", "inconclusive"])
def test_why_what_ships_does_not_pass_is_said(printed, report, candidate, status):
    whole = report(candidate())
    target = whole["targets"][0]
    assert "because of this" not in printed(print_report, whole)
    target["status"] = status
    target["candidates"][0]["reason"] = "because of this"
    assert f"{status}: because of this" in printed(print_report, whole)


def test_what_profile_found(printed, candidate):
    one = candidate()
    found = {
        "bundle": {"name": "digits", "id": "0" * 64, "engine": "onnxruntime", "precision": "int8"},
        "target": "local",
        "profile": "quick",
        "status": "pass",
        "reason": "every limit is met",
        "limits": limits_report(one.verdict),
        "measured": measured_report(one.measured, LoadSpec()),
    }
    text = printed(print_profile, found)
    assert text.startswith("digits (onnxruntime int8) on local, profile quick: PASS\n")
    assert len(cells(text, "limit")) == 5
    assert len(cells(text, "clock")) == 2
    assert text.endswith("every limit is met\n")


def crashed(candidate):
    """What ``profile`` finds where the engine dies: one long reason, for every limit the same."""
    reason = "the measuring process died of SIGSEGV while it ran the golden samples\nlast words: " + "segfault " * 20
    one = candidate()
    limits = limits_report(one.verdict)
    undecided = {"value": None, "low": None, "high": None, "status": "fail", "note": reason}
    return {
        "bundle": {"name": "digits", "id": "0" * 64, "engine": "onnxruntime", "precision": "int8"},
        "target": "local",
        "profile": "quick",
        "status": "fail",
        "reason": reason,
        "limits": [limit | undecided if limit["limit"].endswith("_ms") else limit for limit in limits],
        "measured": measured_report(one.measured, LoadSpec()) | {"application": None, "engine": None},
    }


@pytest.mark.parametrize("columns", [80, 100])
def test_why_a_limit_is_not_met_is_told_once_and_below_the_table(printed, candidate, columns):
    found = crashed(candidate)
    text = printed(print_profile, found, columns)
    assert max(map(len, text.splitlines())) <= columns
    assert len(cells(text, "limit")) == 5, text
    assert text.count("died of SIGSEGV") == 1
    assert " ".join(text.split()).endswith(" ".join(found["reason"].split()))


def test_a_long_note_of_one_limit_is_told_by_its_name(printed, candidate):
    found = crashed(candidate) | {"reason": "not decided: first_inference_ms"}
    note = "the engine loads its model from a cache that nobody can empty here"
    for limit in found["limits"]:
        limit["note"] = note if limit["limit"] == "first_inference_ms" else "n = 3"
    text = printed(print_profile, found)
    assert f"\nfirst query: {note}\n" in text
    assert "see below" in text
