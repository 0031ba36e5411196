"""The published schemas: made of the types, strict, and true of what is really written."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

import edgekit.schemas
from edgekit import artifact, checking, metrics, processing_specs, specs, verdict
from edgekit.artifact import read_json
from edgekit.profiling import conditions, host, load, statistics
from edgekit.quantization import schemes
from edgekit.reporting import compared, evidence, model
from edgekit.runtime import watch_judging, watch_reading, watch_settings, watch_tensors
from edgekit.schemas import SCHEMAS, file_name, generate, manifest, published, watch


def objects(schema: Any) -> Iterator[dict[str, Any]]:
    """Every schema of an object in a schema."""
    if isinstance(schema, dict):
        if schema.get("type") == "object":
            yield schema
        for value in schema.values():
            yield from objects(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from objects(value)


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_published_file_is_what_the_types_say(name):
    assert published(name) == generate(name), "run `python -m edgekit.schemas`, and raise the version where it must be"


def test_nothing_else_is_published():
    folder = Path(edgekit.schemas.__file__).parent
    assert {path.name for path in folder.glob("*.json")} == {file_name(name) for name in SCHEMAS}


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_is_one_of_the_draft_with_an_id_and_titles(name):
    schema = published(name)
    Draft202012Validator.check_schema(schema)
    version = SCHEMAS[name][0]
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"] == f"urn:edgekit:schema:{name}:{version}"
    assert schema["title"].endswith(f", version {version}")
    assert schema["properties"]["schema_version"]["const"] == version
    for made in objects(schema):
        assert made.get("title")


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_object_forbids_unknown_keys(name):
    for made in objects(published(name)):
        rest = made["additionalProperties"]
        # A map names no key, and says what its values are; only the specs in a manifest are free.
        assert rest is False if "properties" in made else isinstance(rest, dict) or made["title"] in FREE, made["title"]


FREE = {"Profile", "Target"}


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_figure_says_its_unit_or_what_it_is(name):
    known = {"ms", "mb", "points", "n", "seconds", "batch", "cores", "seed", "version", "code"}
    for made in objects(published(name)):
        for key, value in made.get("properties", {}).items():
            kinds = {value.get("type")} | {kind.get("type") for kind in value.get("anyOf", [])}
            if kinds & {"number", "integer"}:
                assert "description" in value or key.rsplit("_", 1)[-1] in known, f"{made['title']}.{key}"


PAIRS = [
    (artifact.TensorSpec, manifest.TensorSpec),
    (processing_specs.Preprocessing, manifest.Preprocessing),
    (processing_specs.Postprocessing, manifest.Postprocessing),
    (processing_specs.InGraph, manifest.InGraph),
    (artifact.Parent, manifest.Parent),
    (artifact.Golden, manifest.Golden),
    (artifact.Manifest, manifest.Manifest),
    (watch_tensors.Statistics, manifest.Statistics),
    (watch_tensors.TensorStatistics, manifest.TensorStatistics),
    (watch_tensors.Channel, manifest.ChannelStatistics),
    (watch_settings.WatchSettings, manifest.Watch),
    (watch_reading.Reading, watch.WatchReading),
    (watch_judging.Recent, watch.Recent),
    (watch_judging.JudgedLimit, watch.JudgedLimit),
    (schemes.Scheme, manifest.Scheme),
    (verdict.Verdict, manifest.Verdict),
    (verdict.LimitResult, model.Limit),
    (checking.Proof, evidence.Proof),
    (checking.PlacedOperator, evidence.PlacedOperator),
    (metrics.Drop, evidence.Drop),
    (conditions.Conditions, evidence.Conditions),
    (conditions.HostState, evidence.HostState),
    (host.Host, model.Host),
    (statistics.Summary, evidence.Summary),
    (statistics.Percentile, evidence.Percentile),
    (load.LoadSpec, compared.LoadSpec),
]


@pytest.mark.parametrize(("written", "typed"), PAIRS, ids=lambda kind: kind.__name__)
def test_a_type_has_the_fields_of_what_is_written(written, typed):
    assert set(typed.__annotations__) == {field.name for field in dataclasses.fields(written)}


@pytest.mark.parametrize(("written", "typed"), [(specs.Load, model.Load), (specs.Limits, model.Limits)])
def test_a_type_has_the_keys_of_the_profile(written, typed):
    assert set(typed.__annotations__) == set(written.model_fields)


def test_they_are_written_anew(tmp_path):
    edgekit.schemas.write(tmp_path)
    assert {path.name: read_json(path) for path in tmp_path.iterdir()} == {
        file_name(name): published(name) for name in SCHEMAS
    }
