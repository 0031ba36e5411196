"""Reports as JUnit XML, the form in which every continuous integration server reads tests."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

from edgekit.reporting.cases import Case, Suite, suites_of

# What XML 1.0 cannot hold, however it is written.
_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# Outcome → the element that says so, by the rule in to_junit.
_ELEMENTS = {
    "fail": "failure",
    "inconclusive": "failure",
    "error": "error",
    "not measured": "skipped",
    "left out": "skipped",
}
_COUNTS = {"failures": "failure", "errors": "error", "skipped": "skipped"}


def to_junit(reports: Sequence[Mapping[str, Any]]) -> str:
    """Renders reports as JUnit XML: a test suite a target, a test case a limit and a candidate.

    A file is green only where every limit was judged and met:

    - a limit that is missed is a ``failure``;
    - an **inconclusive** limit is a ``failure`` too, of type ``inconclusive``: too little was measured, or the machine
      was too restless, to say that it is met, and the command exits with 4;
    - a limit **not measured**, because the host is not the target, is ``skipped``: no test was made, which is what the
      word means to every server. The command exits with 4, which is what a pipeline should act on;
    - a candidate that failed is an ``error`` where nothing ships for it, and ``skipped`` where another one ships: the
      run is then as good as its verdict.

    The elements and attributes are those of ``junit-10.xsd`` of Jenkins's xUnit plugin, which GitLab and the readers
    for GitHub take too. A case's time is that of its candidate under load; figures are properties of the suite.

    Args:
        reports: Values of reports: of runs, profiles or comparisons, schema version 2.
    """
    root = ElementTree.Element("testsuites", name="edgekit")
    names: dict[str, int] = {}
    for report in reports:
        for suite in suites_of(report):
            names[suite.name] = names.get(suite.name, 0) + 1
            number = names[suite.name]
            _add_suite(root, suite, suite.name if number == 1 else f"{suite.name} ({number})")
    _count(root)
    del root.attrib["skipped"]  # which the schema has for a suite only
    ElementTree.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(root, encoding="unicode")}\n'


def _add_suite(root: ElementTree.Element, suite: Suite, name: str) -> None:
    node = ElementTree.SubElement(root, "testsuite", name=clean(name), timestamp=clean(suite.created[:19]))
    properties = ElementTree.SubElement(node, "properties")
    for key, value in {"verdict": suite.status, "why": suite.summary, **suite.properties}.items():
        ElementTree.SubElement(properties, "property", name=clean(key), value=clean(value))
    for case in suite.cases:
        _add_case(node, case, name)
    _count(node)


def _add_case(suite: ElementTree.Element, case: Case, suite_name: str) -> None:
    node = ElementTree.SubElement(
        suite, "testcase", name=clean(case.name), classname=clean(suite_name), time=f"{case.seconds:.3f}"
    )
    element = _ELEMENTS.get(case.outcome)
    if element == "skipped":
        ElementTree.SubElement(node, element, message=clean(case.message))
    elif element is not None:
        made = ElementTree.SubElement(node, element, type=case.outcome, message=clean(case.message))
        made.text = clean(case.detail or case.message)
    if element is None or element == "skipped":
        # These have no text of their own, and the figures of what passed are worth a look too.
        ElementTree.SubElement(node, "system-out").text = clean(case.detail or case.message)


def _count(node: ElementTree.Element) -> None:
    cases = list(node.iter("testcase"))
    node.set("tests", str(len(cases)))
    for attribute, element in _COUNTS.items():
        node.set(attribute, str(sum(case.find(element) is not None for case in cases)))
    node.set("time", f"{sum(float(case.get('time', '0')) for case in cases):.3f}")


def clean(text: str) -> str:
    """A text without the control characters that XML cannot hold."""
    return _FORBIDDEN.sub("", text)
