import copy
import re
from xml.etree import ElementTree

import pytest
from sample_report import SHAPES, failing_report, not_measured_report, sample_report, unsteady_report

from edgekit.reporting.junit import clean, to_junit

WHOLE = sorted(set(SHAPES) - {"nulls"})

# junit-10.xsd of Jenkins's xUnit plugin, as far as this file goes: children, required and optional attributes.
COUNTS = {"tests", "failures", "errors"}
SCHEMA = {
    "testsuites": ({"testsuite"}, set(), {"name", "time", *COUNTS}),
    "testsuite": ({"properties", "testcase"}, {"name", *COUNTS}, {"time", "skipped", "timestamp"}),
    "properties": ({"property"}, set(), set()),
    "property": (set(), {"name", "value"}, set()),
    "testcase": ({"skipped", "error", "failure", "system-out"}, {"name"}, {"classname", "time"}),
    "failure": (set(), set(), {"type", "message"}),
    "error": (set(), set(), {"type", "message"}),
    "skipped": (set(), set(), {"type", "message"}),
    "system-out": (set(), set(), set()),
}


def parsed(*reports):
    return ElementTree.fromstring(to_junit(reports).encode())


def check(node):
    children, required, optional = SCHEMA[node.tag]
    assert required <= set(node.attrib) <= required | optional, node.tag
    for child in node:
        assert child.tag in children
        check(child)
    if node.tag in ("testsuites", "testsuite"):
        cases = list(node.iter("testcase"))
        assert int(node.get("tests")) == len(cases)
        assert int(node.get("failures")) == len(list(node.iter("failure")))
        assert int(node.get("errors")) == len(list(node.iter("error")))
        assert re.fullmatch(r"\d+\.\d{3}", node.get("time"))
    if node.tag == "testsuite":
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", node.get("timestamp"))


@pytest.mark.parametrize("shape", WHOLE)
def test_it_is_of_the_usual_schema(shape):
    report = SHAPES[shape]()
    root = parsed(report)
    check(root)
    assert [suite.get("name") for suite in root] != []
    assert len(root) == len(report["targets"])


def of(root, name):
    (case,) = [case for case in root.iter("testcase") if case.get("name") == name]
    return case


def test_what_passes_has_its_figures_as_output():
    root = parsed(sample_report())
    assert (root.get("failures"), root.get("errors")) == ("0", "0")
    case = of(root, "p99")
    assert case.get("classname") == "flowers on local"
    assert [child.tag for child in case] == ["system-out"]
    assert re.fullmatch(r"\d\.\d{3} ms \[.*\], allowed: 8 ms \(.*\)", case[0].text)


def test_a_missed_limit_is_a_failure():
    report = sample_report()
    shipped = next(c for c in report["targets"][0]["candidates"] if c["shipped"])
    shipped["limits"][1] |= {"status": "fail", "value": 9.0, "low": 8.5, "high": 9.5}
    failure = of(parsed(report), "p99").find("failure")
    assert failure.get("type") == "fail"
    assert failure.get("message") == failure.text == "9.000 ms [8.500, 9.500], allowed: 8 ms (99%, n = 6000)"


def test_what_is_inconclusive_is_a_failure_of_its_own_type():
    failure = of(parsed(unsteady_report()), "p99").find("failure")
    assert failure.get("type") == "inconclusive"


def test_what_is_not_measured_is_skipped():
    root = parsed(not_measured_report())
    assert (root.get("failures"), root.get("errors")) == ("0", "0")
    assert root[0].get("skipped") == "4"
    assert "this host is x86_64" in of(root, "openvino fp32 runs").find("skipped").get("message")


def test_a_candidate_that_failed_is_an_error_or_skipped():
    error = of(parsed(failing_report()), "openvino fp32 runs").find("error")
    assert "QLinearConv" in error.text
    case = of(parsed(sample_report(4, failed=1)), "onnxruntime fp16 runs")
    assert [child.tag for child in case] == ["skipped", "system-out"]


def test_properties_hold_host_engines_and_values():
    found = {p.get("name"): p.get("value") for p in parsed(sample_report()).iter("property")}
    assert found["host.cpu_model"] == "AMD EPYC 9654 96-Core Processor"
    assert found["engine.openvino"] == "2026.4.1"
    assert found["verdict"] == "pass"
    assert float(found["p99_ms.high"]) > float(found["p99_ms.value"]) > float(found["p99_ms.low"])


def test_several_runs_have_suites_of_their_own_names():
    again = sample_report()
    assert [suite.get("name") for suite in parsed(again, copy.deepcopy(again))] == [
        "flowers on local",
        "flowers on local (2)",
    ]


def test_the_same_report_gives_the_same_text():
    assert to_junit([sample_report()]) == to_junit([sample_report()])


def test_what_xml_cannot_hold_is_left_out_and_the_rest_is_as_it_was():
    assert clean("a\x00b\x1b[31mc\x08\ufffe\ud800d\té\U0001f600") == "ab[31mcd\té\U0001f600"
    report = failing_report()
    report["targets"][0]["candidates"][0]["failure"] = 'signal \x1b[1m11\x00 ]]> <b a="1">&amp;\nnext'
    error = next(parsed(report).iter("error"))
    assert error.text == 'signal [1m11 ]]> <b a="1">&amp;\nnext'
    assert error.get("message") == 'signal [1m11 ]]> <b a="1">&amp; next'
