"""Training in int8 with both CPU engines: weights of 4 bits, two a byte, from the recipe to the bundle."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_recipe import edgekit, write_project

from edgekit.artifact import load_artifact, read_json
from edgekit.claimed import _claimed_in_ir
from edgekit.quantization.packing import TABLE
from edgekit.runtime import verify_bundle

SHIPPED = "onnxruntime int8 qat-w4"
QAT = """
[qat]
epochs = 1
batch_size = 32
learning_rate = 1e-4
weight_bits = 4
"""


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny recipe deployed with int8 that was trained with weights of 4 bits."""
    project = write_project(tmp_path_factory.mktemp("four") / "bits")
    recipe = project / "edgekit.toml"
    recipe.write_text(recipe.read_text() + QAT)
    with pytest.MonkeyPatch.context() as patch:
        # Which one is the fastest is for the clock to say, and not what is tested here.
        patch.setattr("edgekit.pipeline.best", lambda found, _: next(c for c in found if str(c.plan) == SHIPPED))
        result = edgekit("deploy", project, "--precision", "int8", "--out", project / "out")
    assert result.exit_code == 0, result.stderr
    return project / "out"


def target(deployed: Path) -> dict:
    return read_json(deployed / "report.json")["targets"][0]


def test_both_engines_run_all_of_it_in_int8(deployed):
    rows = {row["plan"]: row for row in target(deployed)["candidates"]}
    for engine in ("onnxruntime", "openvino"):
        trained, calibrated = rows[f"{engine} int8 qat-w4"], rows[f"{engine} int8"]
        assert trained["failure"] is None
        assert trained["proof"]["int8_share"] == calibrated["proof"]["int8_share"] == 1.0
        assert "weights of 4 bits, two a byte" in " ".join(trained["notes"])


def test_packed_weights_are_seen_as_int8_in_the_file_of_openvino(deployed):
    """So that a node which the engine ran in float none the less is found out."""
    claimed = {}
    for folder in (deployed / ".steps").glob("compile-*"):
        artifact = load_artifact(folder)
        if artifact.engine == "openvino" and artifact.precision == "int8":
            packed = b"packed-gather" in artifact.path.read_bytes()
            claimed[packed] = len(_claimed_in_ir(artifact))
    assert claimed[True] == claimed[False] == 3


def test_its_file_is_smaller_and_nothing_reads_otherwise(deployed):
    rows = {row["plan"]: row for row in target(deployed)["candidates"]}
    assert rows["onnxruntime int8 qat-w4"]["size_mb"] < rows["onnxruntime int8"]["size_mb"]


def test_what_ships_is_packed_verifies_and_names_where_it_came_from(deployed):
    shipped = next(row for row in target(deployed)["candidates"] if row["shipped"])
    assert shipped["plan"] == SHIPPED
    found = verify_bundle(deployed / "local")
    assert (found.passed, found.same_build) == (True, True)
    assert found.own_db >= 80
    manifest = read_json(deployed / "local" / "manifest.json")
    parents = {parent["kind"]: parent["name"] for parent in manifest["parents"]}
    assert parents["quantized"] == shipped["plan"]
    model = deployed / "local" / manifest["model"]
    assert TABLE.encode() in model.read_bytes()


def test_the_table_of_steps_has_both_kinds_of_int8_on_the_engine_that_ships(deployed):
    steps = target(deployed)["steps"]
    assert [step["name"] for step in steps][:2] == ["teacher", "fp32 student"]
    assert {step["engine"] for step in steps} == {steps[0]["engine"]}
    trained, calibrated = steps[-1], steps[-2]
    assert (trained["name"], calibrated["name"]) == ("int8 after training", f"{steps[0]['engine']} int8")
    for step in (trained, calibrated):
        assert step["p50_ms"] > 0
        assert step["score"] is not None
        assert step["size_mb"] > 0


def test_the_report_tells_the_training(deployed):
    (told,) = read_json(deployed / "report.json")["qat"]
    assert (told["weight_bits"], told["targets"]) == (4, ["local"])
    assert told["size_mb"] > 0
    assert told["said"].startswith("trained in int8 for 1 epoch with 4-bit weights")
