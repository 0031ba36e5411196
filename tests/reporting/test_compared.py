"""A comparison in every form that a run has."""

from xml.etree import ElementTree

import pytest
from sample_report import sample_report
from test_annotations import read
from test_markdown import folded, in_sight, tables
from tiny_recipe import edgekit

from edgekit.artifact import write_json
from edgekit.errors import SpecError
from edgekit.profiling.load import LoadSpec
from edgekit.reporting.annotations import to_annotations
from edgekit.reporting.cases import suites_of
from edgekit.reporting.comparison import TIMES
from edgekit.reporting.junit import to_junit
from edgekit.reporting.markdown import to_markdown
from edgekit.reporting.validation import validate


def side(label, **fields):
    known = {
        "label": label,
        "path": f"bundles/{label.lower()}",
        "kind": "bundle",
        "name": f"net-{label.lower()} openvino int8",
        "target": "local",
        "status": "ok",
        "reason": None,
        "started_at": "2026-11-20T23:59:59+00:00",
        "queries": 9000,
        "turns": 700,
        "percentiles_ms": {"50.0": 1.2, "90.0": 1.3, "99.0": 1.5},
        "spoiled": None,
        "drift": None,
    }
    return known | fields


def ratio(value, finding, q=50.0):
    return {
        "percentile": q, "base_ms": 1.2, "other_ms": 1.2 * value, "ratio": value, "low": value - 0.02,
        "high": value + 0.02, "confidence": 0.995, "in_turns": True, "groups": 64, "rounds_per_group": 2,
        "autocorrelation": 0.1, "settled": True, "finding": finding,
    }  # fmt: skip


def compared(status="pass", value=1.12, finding="slower", reason="no interval lies above 1.2", **fields):
    pair = {
        "base": "A", "other": "B", "in_turns": True, "ratios": [ratio(value, finding)],
        "unsupported": {"99.0": "p99: 9,000 queries, at least 20,000 asked; try --seconds 40"}, "finding": finding,
        "status": None if status == "compared" else status, "reason": "" if status == "compared" else reason,
    }  # fmt: skip
    return {
        "kind": "comparison",
        "schema_version": 1,
        "edgekit_version": "0.1.0",
        "created": "2026-11-21T00:00:30+00:00",
        "host": sample_report()["host"],
        "load": {**{key: getattr(LoadSpec(), key) for key in LoadSpec.__slots__}, "percentiles": [50.0]},
        "inputs": "golden samples of A",
        "max_regression": None if status == "compared" else 0.2,
        "judged": [50.0],
        "in_turns": True,
        "not_in_turns": None,
        "sides": [side("A"), side("B")],
        "pairs": [pair],
        "notes": [],
        "status": status,
        "exit_code": {"pass": 0, "compared": 0, "fail": 3, "inconclusive": 4, "failed": 1}[status],
    } | fields


def not_compared():
    found = compared("failed", sides=[side("A"), side("B", status="crashed", reason="died of SIGSEGV")])
    nothing = {"ratios": [], "unsupported": {}, "finding": "not compared", "status": None}
    found["pairs"][0] |= nothing | {"reason": "B crashed: died of SIGSEGV"}
    return found


ALL = [compared(), compared("compared"), compared("fail"), compared("inconclusive"), not_compared()]


@pytest.mark.parametrize("report", ALL, ids=lambda report: report["status"])
def test_it_is_a_report_of_its_own_version(report):
    assert validate(report, "c.json") == report
    with pytest.raises(SpecError, match="not a report this version can read") as caught:
        validate(report | {"schema_version": 2}, "c.json")
    assert (caught.value.allowed, caught.value.fix) == (1, "upgrade edgekit")


@pytest.mark.parametrize(
    ("report", "outcome"),
    list(zip(ALL, ["pass", "pass", "fail", "inconclusive", "error"], strict=True)),
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_pair_is_a_case(report, outcome):
    (suite,) = suites_of(report)
    (case,) = suite.cases
    assert (suite.name, case.name, case.outcome) == (
        "compared with A net-a openvino int8",
        "B net-b openvino int8",
        outcome,
    )
    root = ElementTree.fromstring(to_junit([report]).encode())
    bad = [root.get("failures"), root.get("errors")]
    assert bad == {"pass": ["0", "0"], "error": ["0", "1"]}.get(outcome, ["1", "0"])


def test_its_figures_are_properties():
    (suite,) = suites_of(compared())
    assert suite.properties["B/A.p50.ratio"] == "1.12"
    assert suite.properties["B/A.p50.low"] == "1.1"
    assert suite.properties["in turns"] == "true"
    assert f"B takes 1.12{TIMES} the time of A [1.10, 1.14]: 12% slower" in suite.cases[0].message


def test_a_regression_is_an_error_and_no_regression_a_notice():
    assert read(to_annotations([compared("fail", reason="slower than 0.05 allows")])) == [
        (
            "error",
            "compared with A net-a openvino int8: B net-b openvino int8 not met",
            f"B takes 1.12{TIMES} the time of A [1.10, 1.14]: 12% slower (slower than 0.05 allows)",
        )
    ]
    assert [level for level, _, _ in read(to_annotations([compared()]))] == ["notice"]
    assert [level for level, _, _ in read(to_annotations([compared("compared")]))] == ["notice"]


def test_its_markdown():
    text = to_markdown(compared("fail", reason="slower than 0.05 allows"))
    assert text.startswith(
        f"# B net-b openvino int8 against A net-a openvino int8: **FAIL**\n\n- B takes 1.12{TIMES} the time of A"
    )
    assert "- FAIL (at most 20% slower): B: slower than 0.05 allows" in in_sight(text)
    (pairs,) = tables(in_sight(text))
    assert pairs[1][:3] == ["B / A", "p50", "1.12"]
    assert list(folded(text)) == ["Sides", "How it was measured"]


def test_beside_a_run_the_worst_word_counts():
    text = to_markdown(sample_report(), compared("fail"))
    assert text.startswith("# 2 reports: **FAIL**\n")
    assert "## B net-b openvino int8 against A net-a openvino int8: **FAIL**" in text


def test_the_command_shows_it(tmp_path):
    write_json(tmp_path / "c.json", compared("fail"))
    done = edgekit("report", tmp_path / "c.json")
    assert done.exit_code == 3
    assert f"B takes 1.12{TIMES} the time of A" in done.stdout
    assert edgekit("report", tmp_path / "c.json", "--junit", "-").exit_code == 3
