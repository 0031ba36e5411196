import json

import pytest
from sample_report import SHAPES, sample_report

from edgekit.errors import SpecError
from edgekit.reporting.model import REPORT_SCHEMA_VERSION
from edgekit.reporting.validation import validate, validate_report


@pytest.fixture
def whole():
    return sample_report(2, failed=1)


@pytest.mark.parametrize("shape", sorted(set(SHAPES) - {"nulls"}))
def test_every_shape_of_a_report_is_valid(shape):
    report = SHAPES[shape]()
    assert validate_report(report, "report.json") == report


def test_a_report_is_returned_as_it_is(whole):
    assert validate_report(json.loads(json.dumps(whole)), "report.json") == whole


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        ({}, "an empty object"),
        ({"openapi": "3.1", "paths": {}}, "an object with the keys openapi, paths"),
        ([1, 2], "a list of 2"),
        ("report", "'report'"),
        (None, "None"),
    ],
)
def test_foreign_json_is_named(raw, found):
    with pytest.raises(SpecError, match=r"^x\.json: not a report of EdgeKit\n") as caught:
        validate_report(raw, "x.json")
    assert caught.value.found == found
    assert "folder of a finished run" in caught.value.fix


@pytest.mark.parametrize(
    ("version", "fix"),
    [
        (1, "make the report again"),
        (REPORT_SCHEMA_VERSION + 1, "upgrade edgekit"),
        ("2", "make the report again"),
        (True, "make the report again"),
        (2.0, "make the report again"),
        (None, "make the report again"),
    ],
)
def test_another_version_is_named_before_anything_else(version, fix):
    with pytest.raises(SpecError, match="not a report this version can read") as caught:
        validate_report({"schema_version": version, "kind": "unheard of"}, "x.json")
    assert (caught.value.found, caught.value.allowed) == (f"schema_version {version!r}", REPORT_SCHEMA_VERSION)
    assert fix in caught.value.fix


def test_a_report_of_another_kind_is_named(whole):
    with pytest.raises(SpecError, match="a report of another kind") as caught:
        validate_report(whole | {"kind": "profile"}, "x.json")
    assert (caught.value.found, caught.value.allowed) == ("'profile'", "'run'")
    with pytest.raises(SpecError, match="a report of another kind") as caught:
        validate({"schema_version": 2}, "x.json")
    assert caught.value.found == "None"
    assert "'run' or 'profile'" in caught.value.allowed


def first(report):
    return report["targets"][0]["candidates"][0]


def cut(report):
    del report["targets"], report["seconds"]


MISTAKES = {
    "missing at the top": (cut, "key 'targets' is missing", None, None),
    "missing inside": (
        lambda r: first(r)["measured"]["warm_up"].pop("settled"),
        "key 'targets[0].candidates[0].measured.warm_up.settled' is missing",
        None,
        None,
    ),
    "unknown": (
        lambda r: first(r).update(colour="red"),
        "unknown key 'targets[0].candidates[0].colour'",
        "'red'",
        None,
    ),
    "mistyped": (
        lambda r: first(r).update(sise_mb=first(r).pop("size_mb")),
        "unknown key 'targets[0].candidates[0].sise_mb'",
        "9.4",
        None,
    ),
    "a number in quotes": (
        lambda r: first(r)["measured"].update(load_ms="12"),
        "wrong value for key 'targets[0].candidates[0].measured.load_ms'",
        "'12'",
        "a valid number",
    ),
    "a word that is none of them": (
        lambda r: r["targets"][0].update(status="passed"),
        "wrong value for key 'targets[0].status'",
        "'passed'",
        "'pass', 'fail', 'inconclusive' or 'not measured'",
    ),
    "an exit code that is none": (lambda r: r.update(exit_code=2), "key 'exit_code'", "2", "0, 1, 3 or 4"),
    "text for a list": (lambda r: r.update(targets="local"), "key 'targets'", "'local'", "a valid list"),
    "null": (lambda r: r.update(name=None), "key 'name'", "None", "a valid string"),
    "infinity": (lambda r: r.update(seconds=float("inf")), "key 'seconds'", "inf", "a finite number"),
    "a long text": (lambda r: r.update(seed="x" * 200), "key 'seed'", f"'{'x' * 76}…", "a valid integer"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_is_wrong_is_named_with_what_was_found_and_what_is_allowed(mistake, whole):
    spoil, problem, found, allowed = MISTAKES[mistake]
    spoil(whole)
    with pytest.raises(SpecError) as caught:
        validate_report(whole, "runs/x/report.json")
    assert caught.value.problem.startswith("runs/x/report.json: ")
    assert problem in caught.value.problem
    assert (caught.value.found, caught.value.allowed) == (found, allowed)
    assert caught.value.fix


def test_a_mistyped_key_has_a_hint(whole):
    first(whole)["sise_mb"] = first(whole).pop("size_mb")
    with pytest.raises(SpecError, match="did you mean 'size_mb'"):
        validate_report(whole, "report.json")
