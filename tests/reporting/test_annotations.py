import re
from urllib.parse import unquote

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

from edgekit.reporting.annotations import MOST, command, to_annotations

WHOLE = sorted(set(SHAPES) - {"nulls"})


def read(text):
    """Level, title and text of every command, as GitHub reads them."""
    found = [re.fullmatch(r"::(\w+) title=([^:,]*)::(.*)", line) for line in text.splitlines()]
    assert all(found), text
    return [(m[1], unquote(m[2]), unquote(m[3])) for m in found if m]


def test_a_command_is_escaped_as_github_says():
    assert command("error", "a: b, 5%\n", "c: d, 5%\r\ne") == "::error title=a%3A b%2C 5%25%0A::c: d, 5%25%0D%0Ae"


@pytest.mark.parametrize("shape", WHOLE)
def test_every_line_is_a_command_and_no_level_has_more_than_is_shown(shape):
    report = SHAPES[shape]()
    found = read(to_annotations([report] * 5))
    levels = [level for level, _, _ in found]
    assert levels == sorted(levels, key=["error", "warning", "notice"].index)
    assert all(levels.count(level) <= MOST for level in levels)


def test_a_pass_is_one_notice():
    assert read(to_annotations([sample_report()])) == [
        (
            "notice",
            "flowers on local: pass",
            "openvino int8: lowest p50 bound (2.345 ms) of those that meet every limit",
        )
    ]


def test_what_failed_while_another_ships_is_a_warning():
    level, title, text = read(to_annotations([sample_report(4, failed=1)]))[0]
    assert (level, title) == ("warning", "flowers on local: onnxruntime fp16 failed")
    assert "QLinearConv" in text


def test_where_nothing_ships_every_reason_is_an_error():
    found = read(to_annotations([failing_report()]))
    assert [level for level, _, _ in found] == ["error"] * 3


def test_a_missed_limit_is_an_error_with_its_figures():
    report = sample_report()
    shipped = next(c for c in report["targets"][0]["candidates"] if c["shipped"])
    shipped["limits"][1] |= {"status": "fail", "value": 9.0, "low": 8.5, "high": 9.5}
    report["targets"][0]["status"] = "fail"
    assert read(to_annotations([report])) == [
        ("error", "flowers on local: p99 not met", "9.000 ms [8.500, 9.500], allowed: 8 ms (99%, n = 6000)")
    ]


def test_a_restless_machine_is_told():
    titles = [title for _, title, _ in read(to_annotations([unsteady_report()]))]
    assert titles == [
        "flowers on local: p99 inconclusive",
        "flowers on local: spoiled",
        "flowers on local: drifted",
    ]


def test_elsewhere_it_is_one_warning():
    ((level, title, text),) = read(to_annotations([not_measured_report()]))
    assert (level, title) == ("warning", "flowers on raspberry-pi-4: not measured")
    assert "this host is x86_64, the target is aarch64" in text


def test_errors_come_first():
    levels = [level for level, _, _ in read(to_annotations([several_targets_report()]))]
    assert levels == ["error", "error", "error", "warning", "warning", "notice"]


def test_what_github_would_drop_is_counted():
    found = read(to_annotations([failing_report()] * 5))
    assert len(found) == MOST
    assert found[-1][1] == "6 more"
    assert found[-1][2].count("; ") == 5


def test_a_profile():
    measured = profiled()["measured"] | {"spoiled": "other processes used 23% of the CPUs"}
    found = read(to_annotations([profiled(measured=measured)]))
    assert [(level, title) for level, title, _ in found] == [
        ("warning", "flowers on local: spoiled"),
        ("notice", "flowers on local: pass"),
    ]
