"""``edgekit inspect MODEL --rules tensorrt`` lists every violation and exits with 1 if there is one."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from fake_line import write_model
from tiny_bundles import null_bundle
from tiny_recipe import edgekit

HEAD = '<ir_version: 10, opset_import: ["" : 20]>'
CLEAN = f"""{HEAD}
net (float[1, 4] input) => (float[1, 4] logits) <float s = {{0.1}}, int8 z = {{0}}> {{
    [encoder_layers_0_attention_query_input_QuantizeLinear_of_a_long_name] q = QuantizeLinear(input, s, z)
    [encoder_layers_0_attention_query_input_DequantizeLinear_of_a_long_name] d = DequantizeLinear(q, s, z)
    [last] logits = Relu(d)
}}"""
BROKEN = CLEAN.replace("int8 z = {0}", "uint8 z = {5}").replace("Relu", "com.microsoft.BiasGelu")
LONG = "encoder_layers_0_attention_query_input_QuantizeLinear_of_a_long_name"


@pytest.fixture
def model(tmp_path):
    return lambda text: write_model(tmp_path / "model.onnx", text)


def test_a_clean_model_is_said_to_be(model):
    path = model(CLEAN)
    done = edgekit("inspect", path, "--rules", "tensorrt")
    assert (done.exit_code, done.output) == (0, f"{path}: no rule of tensorrt is broken\n")
    done = edgekit("inspect", path, "--rules", "tensorrt", "--json")
    assert done.exit_code == 0
    assert json.loads(done.output) == {"model": str(path), "rules": "tensorrt", "violations": []}


def test_every_violation_is_listed_with_node_found_fix_and_source(model):
    path = model(BROKEN)
    done = edgekit("inspect", path, "--rules", "tensorrt", "--json")
    assert done.exit_code == 1
    listed = json.loads(done.output)["violations"]
    assert [(one["rule"], one["node"]) for one in listed] == [
        ("operator", "last"),
        ("uint8", LONG),
        ("uint8", LONG.replace("Quant", "Dequant")),
        ("zero-point", LONG),
        ("zero-point", LONG.replace("Quant", "Dequant")),
    ]
    assert listed[0] == {
        "rule": "operator",
        "node": "last",
        "found": "com.microsoft.BiasGelu",
        "allowed": "the operators that onnx-tensorrt parses",
        "fix": "write it with parsed operators, take it out of the model, or bring a TensorRT plugin of that name",
        "source": "onnx-tensorrt, docs/operators.md",
    }


@pytest.mark.parametrize("columns", [40, 80, 100, 200])
def test_the_list_fits_the_terminal_and_loses_nothing(model, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    done = edgekit("inspect", model(BROKEN), "--rules", "tensorrt")
    assert done.exit_code == 1
    lines = done.output.splitlines()
    head = lines.index("")  # the path stands before it, however long
    assert max(map(len, lines[head:])) <= min(columns, 100)
    assert "3 rules are broken of tensorrt, at 5 places" in " ".join(" ".join(lines[:head]).split())
    text = "".join(lines).replace(" ", "")
    if columns >= 100:
        assert text.count(LONG) == 2  # a name is broken only where it must be
    for said in ("uint8", "zeropoint5", "onnx-tensorrt,docs/operators.md", "com.microsoft.BiasGelu", "quantisetoint8"):
        assert said in text, said


def test_a_single_violation_is_counted_as_one(model):
    done = edgekit("inspect", model(CLEAN.replace("Relu", "Det")), "--rules", "tensorrt")
    assert "a rule is broken of tensorrt, at 1 place" in " ".join(done.output.split())


def test_the_rules_of_the_first_tensorrt_10(model):
    path = model(CLEAN.replace('"" : 20', '"" : 21'))
    assert edgekit("inspect", path, "--rules", "tensorrt").exit_code == 0
    done = edgekit("inspect", path, "--rules", "tensorrt-10")
    assert done.exit_code == 1
    assert "opset 21" in done.output


def test_a_bundle_is_judged_by_the_model_in_it(tmp_path):
    bundle = null_bundle(tmp_path / "bundle", model=CLEAN)
    assert edgekit("inspect", bundle, "--rules", "tensorrt").exit_code == 0
    bundle = null_bundle(tmp_path / "broken", model=BROKEN)
    assert edgekit("inspect", bundle, "--rules", "tensorrt").exit_code == 1
    bundle = null_bundle(tmp_path / "null")
    done = edgekit("inspect", bundle, "--rules", "tensorrt")
    assert done.exit_code == 1
    assert "no ONNX model is in this bundle" in done.stderr
    assert "model.null, for engine null" in done.stderr


def test_weights_that_are_missing_are_told_and_the_rest_is_judged(model):
    path = model(CLEAN.replace("Relu(d)", "Det(d)"))
    proto = onnx.load(path)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(9, np.float32), "lost"))
    onnx.save(proto, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    path.with_name("w.bin").unlink()
    done = edgekit("inspect", path, "--rules", "tensorrt", "--json")
    assert done.exit_code == 1
    listed = json.loads(done.output)["violations"]
    assert [(one["rule"], one["node"]) for one in listed] == [("external-data", "w.bin"), ("operator", "last")]


def test_nodes_out_of_order_are_a_violation_and_no_broken_file(model):
    path = model(CLEAN)
    proto = onnx.load(path)
    nodes = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend(reversed(nodes))
    onnx.save(proto, path)
    done = edgekit("inspect", path, "--rules", "tensorrt", "--json")
    assert {one["rule"] for one in json.loads(done.output)["violations"]} == {"order"}
    assert edgekit("inspect", path).exit_code == 1  # without --rules the file must be valid


def test_bad_input_is_a_sentence(tmp_path, model):
    def told(*args: object) -> str:
        done = edgekit("inspect", *args)
        assert done.exit_code == 1
        assert done.output == done.stderr
        return done.stderr

    path = model(CLEAN)
    assert "unknown rules 'tensorr'" in told(path, "--rules", "tensorr")
    assert "did you mean 'tensorrt'?" in told(path, "--rules", "tensorr")
    assert "no such file" in told(tmp_path / "none.onnx", "--rules", "tensorrt")
    assert "nothing to inspect" in told(tmp_path, "--rules", "tensorrt")
    for content in (b"", b"this is no model", path.read_bytes()[:60]):
        (tmp_path / "damaged.onnx").write_bytes(content)
        assert "not an ONNX model" in told(tmp_path / "damaged.onnx", "--rules", "tensorrt")


def test_rules_and_drift_are_asked_apart(model):
    done = edgekit("inspect", model(CLEAN), "--rules", "tensorrt", "--drift")
    assert done.exit_code == 2
    assert "--rules and --drift are two questions" in done.stderr
    done = edgekit("inspect", model(CLEAN), "--rules", "tensorrt", "--target", "x")
    assert done.exit_code == 2
    assert "--target goes with --drift" in done.stderr
