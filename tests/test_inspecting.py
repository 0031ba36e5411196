import numpy as np
import onnx
import pytest
from fake_line import ZEROS, make_recipe, write_model, write_project

from edgekit.artifact import read_json
from edgekit.errors import BundleError, ModelError
from edgekit.inspecting import _named, inspect_model
from edgekit.pipeline import Choices, deploy


def test_a_bundle_tells_what_it_is_and_what_the_engine_ran(tmp_path, catalogue):
    catalogue()
    project = write_project(tmp_path / "project")
    recipe = make_recipe(
        input={"scale": 0.5}, data={"train": "train.npz", "test": "test.npz", "labels": ["red", "green", "blue"]}
    )
    deploy(recipe, project, tmp_path / "run", Choices(precision="int8"))
    found = inspect_model(tmp_path / "run" / "fake")
    manifest = read_json(tmp_path / "run" / "fake" / "manifest.json")
    assert found["manifest"] == manifest
    assert found["operators"] == [{"op": "Null", "precision": "int8", "count": 1}]
    facts = found["facts"]
    assert facts["bundle"] == f"zeros for fake, id {manifest['id'][:16]}"
    assert facts["engine"] == "null 1.0"
    assert facts["precision"] == "int8"
    assert facts["inputs"] == "input: float32[1, 4]"
    assert facts["outputs"] == "logits: float32[1, 3]"
    assert facts["options"] == "precision=int8"
    assert facts["golden"] == "16 real samples, 300.0 dB"
    assert facts["labels"] == "red, green, blue"
    assert "scale 0.5" in facts["preprocessing"]
    assert [line.rpartition(" ")[0] for line in facts["made from"].splitlines()] == [
        "data train",
        "data test",
        "teacher model.onnx",
        "fp32 onnx",
        "quantized null int8",
    ]
    size = (tmp_path / "run" / "fake" / "artifact" / "model.onnx").stat().st_size
    assert facts["size"] == f"{size / 1e6:.3f} MB"


def test_an_onnx_file_tells_its_operators(tmp_path):
    found = inspect_model(write_model(tmp_path / "model.onnx", ZEROS))
    assert found["operators"] == [{"op": "MatMul", "precision": "", "count": 1}]
    facts = found["facts"]
    assert (facts["model"], facts["opset"], facts["precision"]) == ("model.onnx", "ai.onnx 20", "float")
    assert (facts["inputs"], facts["outputs"]) == ("input: float32[batch, 4]", "logits: float32[batch, 3]")
    assert len(facts["sha256"]) == 16
    assert "manifest" not in found


def test_a_quantised_file_and_one_with_operators_of_others(tmp_path):
    text = """<ir_version: 9, opset_import: ["" : 20, "com.microsoft" : 1]>
    mixed (float["batch", 4] input) => (float["batch", 4] output) <float s = {0.1}, int8 z = {0}> {
        q = QuantizeLinear(input, s, z)
        d = DequantizeLinear(q, s, z)
        output = com.microsoft.Gelu(d)
    }"""
    found = inspect_model(write_model(tmp_path / "model.onnx", text))
    assert found["facts"]["precision"] == "quantised (Q/DQ)"
    assert found["facts"]["opset"] == "ai.onnx 20, com.microsoft 1"
    assert {o["op"] for o in found["operators"]} == {"QuantizeLinear", "DequantizeLinear", "com.microsoft.Gelu"}


def test_what_is_neither_is_told(tmp_path):
    with pytest.raises(BundleError, match="nothing to inspect") as caught:
        inspect_model(tmp_path)
    assert caught.value.allowed == "a bundle's folder or an .onnx file"
    with pytest.raises(ModelError, match="no such file"):
        inspect_model(tmp_path / "none.onnx")
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(ModelError, match="not a valid ONNX model"):
        inspect_model(tmp_path / "model.onnx")
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(BundleError):
        inspect_model(tmp_path)


def test_external_data_count(tmp_path):
    path = write_model(tmp_path / "model.onnx", ZEROS)
    proto = onnx.load(path)
    proto.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(np.zeros((4, 3), np.float32), "w"))
    onnx.save(proto, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    size = path.stat().st_size + (tmp_path / "w.bin").stat().st_size
    assert inspect_model(path)["facts"]["size"] == f"{size / 1e6:.3f} MB"


def test_of_many_labels_some_are_named_and_it_says_how_many():
    labels = [f"class {i}" for i in range(3)]
    assert _named(labels) == "class 0, class 1, class 2"
    many = [f"class {i}" for i in range(1000)]
    assert _named(many).startswith("class 0, class 1, ")
    assert _named(many).endswith(" class 19 … class 999 (1000 in all: --json has them)")
