"""What the commands really write, against the published schemas."""

from __future__ import annotations

from typing import Any

import pytest
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from tiny_recipe import edgekit

from edgekit.artifact import read_json
from edgekit.reporting.validation import validate
from edgekit.schemas import published


def wrong(name: str, value: Any) -> str | None:
    """The worst that a schema says of a value, or None."""
    error = best_match(Draft202012Validator(published(name)).iter_errors(value))
    return None if error is None else f"{error.json_path}: {error.message[:300]}"


def test_a_report(deployed):
    assert wrong("report", read_json(deployed.out / "report.json")) is None


def test_a_manifest(deployed):
    assert wrong("manifest", read_json(deployed.bundle / "manifest.json")) is None


def test_what_profile_writes(deployed, tmp_path):
    assert edgekit("profile", deployed.bundle, "--json", tmp_path / "p.json").exit_code in (0, 3, 4)
    found = read_json(tmp_path / "p.json")
    assert wrong("profile", found) is None
    assert validate(found, "p.json", kinds=("profile",)) == found


def test_what_compare_writes(deployed, tmp_path):
    run = ("compare", deployed.bundle, "--baseline", deployed.out, "--no-turns", "--max-regression", "900%")
    assert edgekit(*run, "--seconds", 0.3, "--json", tmp_path / "c.json").exit_code in (0, 4)
    found = read_json(tmp_path / "c.json")
    assert wrong("comparison", found) is None
    assert validate(found, "c.json", kinds=("comparison",)) == found


@pytest.mark.parametrize("name", ["report", "manifest"])
def test_a_key_more_or_less_is_seen(name, deployed):
    path = deployed.out / "report.json" if name == "report" else deployed.bundle / "manifest.json"
    found = read_json(path)
    assert "'more' was unexpected" in (wrong(name, found | {"more": 1}) or "")
    del found["schema_version"]
    assert "'schema_version' is a required property" in (wrong(name, found) or "")
