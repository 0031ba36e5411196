import pytest
from sample_report import SHAPES, failing_report, not_measured_report, random_report, sample_report, unsteady_report

from edgekit.reporting.cases import limit_text, one_line, suites_of

WHOLE = sorted(set(SHAPES) - {"nulls"})  # in which a number is where the schema wants one


def outcomes(report, target=0):
    return {case.name: case.outcome for case in suites_of(report)[target].cases}


def profiled(**fields):
    """What `edgekit profile --json` writes of what ships in the sample report."""
    report = sample_report()
    shipped = next(c for c in report["targets"][0]["candidates"] if c["shipped"])
    return {
        "kind": "profile",
        "schema_version": 2,
        "bundle": {"name": "flowers", "id": "0" * 64, "engine": "openvino", "precision": "int8"},
        "target": "local",
        "profile": "realtime-120fps",
        "status": "pass",
        "reason": "every limit is met",
        "exit_code": 0,
        "limits": shipped["limits"],
        "measured": shipped["measured"],
        "host": report["host"],
    } | fields


def test_a_case_a_candidate_and_a_case_a_limit_of_what_ships():
    assert outcomes(sample_report(4, failed=1)) == {
        "onnxruntime fp32 runs": "pass",
        "openvino fp32 runs": "pass",
        "onnxruntime int8 runs": "pass",
        "openvino int8 runs": "pass",
        "onnxruntime fp16 runs": "left out",
        "accuracy drop": "pass",
        "p99": "pass",
        "first query": "pass",
        "size": "pass",
    }


def test_a_candidate_that_failed_is_an_error_only_where_nothing_ships():
    suite = suites_of(failing_report())[0]
    assert {case.outcome for case in suite.cases} == {"error"}
    assert all("QLinearConv" in case.detail for case in suite.cases)
    assert (suite.status, suite.summary) == ("fail", "nothing ships: every candidate failed")


def test_elsewhere_nothing_was_run_and_only_what_needs_no_run_is_judged():
    suite = suites_of(not_measured_report())[0]
    found = {case.name: case for case in suite.cases}
    assert found["openvino fp32 runs"].message == "not measured: this host is x86_64, the target is aarch64"
    assert {name: case.outcome for name, case in found.items() if not name.endswith(" runs")} == {
        "accuracy drop": "pass",
        "p99": "not measured",
        "first query": "not measured",
        "size": "pass",
    }
    assert suite.summary.startswith("not measured: this host is x86_64, the target is aarch64; ")


def test_what_is_not_decided_says_why():
    found = {case.name: case for case in suites_of(random_report())[0].cases}
    assert found["accuracy drop"].outcome == "inconclusive"
    assert found["accuracy drop"].message == "nothing seen, allowed: 1 points (no data to judge by)"
    found = {case.name: case for case in suites_of(unsteady_report())[0].cases}
    assert "the run drifted" in found["p99"].message


def test_where_accuracy_kept_everything_back_every_candidate_is_judged():
    report = sample_report(2)
    target = report["targets"][0]
    target |= {"bundle": None, "status": "fail", "exit_code": 3, "why": "nothing ships: the accuracy limit is missed"}
    for candidate in target["candidates"]:
        candidate |= {"shipped": False, "status": "fail"}
        candidate["limits"][0] |= {"status": "fail", "value": 4.0, "low": 3.1, "high": 5.0}
    found = outcomes(report)
    assert found["onnxruntime fp32: accuracy drop"] == found["openvino fp32: accuracy drop"] == "fail"
    properties = suites_of(report)[0].properties
    assert properties["openvino fp32.max_drop_points.high"] == "5"
    assert properties["ships"] == "nothing"


@pytest.mark.parametrize("shape", WHOLE)
def test_cases_have_names_of_their_own_and_agree_with_the_exit_code(shape):
    report = SHAPES[shape]()
    suites = suites_of(report)
    assert len({suite.name for suite in suites}) == len(suites) or shape == "hostile"
    for suite, target in zip(suites, report["targets"], strict=True):
        found = {case.outcome for case in suite.cases}
        bad = {0: set(), 1: {"error"}, 3: {"fail"}, 4: {"inconclusive", "not measured"}}[target["exit_code"]]
        if target["status"] == "pass":
            assert found <= {"pass", "left out"}
        elif shape not in ("one", "random"):  # whose exit codes are not those of their verdicts
            assert found & bad


def test_a_profile_is_a_suite():
    (suite,) = suites_of(profiled())
    assert (suite.name, suite.status, suite.summary) == ("flowers on local", "pass", "every limit is met")
    assert [case.name for case in suite.cases] == ["openvino int8 runs", "accuracy drop", "p99", "first query", "size"]
    assert suite.cases[0].seconds == 31.4
    assert suite.properties["engine.openvino"] == "1.31.1"
    assert suite.properties["bundle"] == "0" * 64


def test_a_profile_without_a_limit_that_was_missed_is_not_green_elsewhere():
    (suite,) = suites_of(profiled(status="not measured", reason="not measured: this host is x86", limits=[]))
    assert [(case.name, case.outcome) for case in suite.cases] == [
        ("openvino int8 runs", "pass"),
        ("verdict", "not measured"),
    ]


@pytest.mark.parametrize(
    ("limit", "text"),
    [
        (("p99_ms", 25.0, 30.12, 29.8, 30.4, "99%, n = 12"), "30.12 ms [29.80, 30.40], allowed: 25 ms (99%, n = 12)"),
        (("size_mb", 2.0, 1.5, None, None, ""), "1.50 MB, allowed: 2 MB"),
        (("max_drop_points", 0.5, 0.1, -0.2, 0.4, ""), "0.10 points [-0.20, 0.40], allowed: 0.5 points"),
        (("load_ms", 900.0, None, None, None, "not\nknown"), "nothing seen, allowed: 900 ms (not known)"),
    ],
)
def test_a_limit_in_one_line(limit, text):
    assert limit_text(dict(zip(("limit", "allowed", "value", "low", "high", "note"), limit, strict=True))) == text


def test_lines_are_joined():
    assert one_line("  found:   a\n\n  fix:\tb ") == "found: a fix: b"
