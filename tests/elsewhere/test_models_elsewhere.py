"""Models as other tools write them become bundles on both CPU engines, in float and in int8."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from models_elsewhere import ZOO, half_precision, lstm, write_samples
from tiny_recipe import edgekit

from edgekit.artifact import read_json
from edgekit.runtime.numbers import snr_db

ENGINES = ["onnxruntime", "openvino"]
# Another machine, for which nothing is measured; its int8 runs on this one too.
ELSEWHERE = ("--target", "intel-nuc-13")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(model, *, samples=None, folder=Path()):
    """Writes a model of the zoo, and 40 samples to calibrate and 20 to test it with."""
    proto = model.make()
    onnx.checker.check_model(proto, full_check=True)
    onnx.save(proto, folder / "model.onnx")
    for name, count in (("train", 40), ("test", 20)):
        write_samples(folder / f"{name}.npz", proto, samples or model.samples, count, seed=count)
    return proto


def shapes(specs):
    return {spec["name"]: tuple(spec["shape"]) for spec in specs}


def reference(proto, arrays, count):
    """What ONNX's own evaluator makes of each sample, one at a time, in the shapes of the file."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    session = onnxruntime.InferenceSession(proto.SerializeToString(), settings, providers=["CPUExecutionProvider"])
    ranks = {value.name: len(value.shape) for value in session.get_inputs()}
    found = []
    for row in range(count):
        feeds = {name: array[row] for name, array in arrays.items()}
        feeds = {name: array if array.ndim == ranks[name] else array[None] for name, array in feeds.items()}
        found.append(session.run(None, {name: np.asarray(array) for name, array in feeds.items()}))
    return {value.name: [row[i] for row in found] for i, value in enumerate(session.get_outputs())}


@pytest.mark.parametrize("name", ZOO)
def test_without_samples_both_engines_run_it_in_float(name, here):
    model = ZOO[name]
    proto = write(model)
    inputs = [part for text in model.inputs for part in ("--input", text)]
    done = edgekit("export", "model.onnx", *ELSEWHERE, *inputs, "--precision", "fp32", "--out", "b")
    assert done.exit_code == 4, done.stderr
    report, manifest = read_json(here / "b.report.json"), read_json(here / "b" / "manifest.json")
    assert [c["failure"] for c in report["targets"][0]["candidates"]] == [None, None]
    assert shapes(manifest["inputs"]) == model.taken
    assert shapes(manifest["outputs"]) == model.given
    ran = edgekit("run", "b", "--input", "test.npz", "--output", "y.npz")
    assert ran.exit_code == 0, ran.stderr
    with np.load("test.npz") as arrays, np.load("y.npz") as outputs:
        for key, rows in reference(proto, dict(arrays), 20).items():
            assert outputs[key].shape == (20, *model.given[key][1:])
            assert snr_db(np.stack(rows).reshape(outputs[key].shape), outputs[key]) > 90


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", [name for name, model in ZOO.items() if model.int8])
def test_with_samples_it_is_quantised_and_verified(name, engine, here):
    model = ZOO[name]
    write(model)
    data = ("--calibration", "train.npz", "--test", "test.npz", "--engine", engine)
    done = edgekit("export", "model.onnx", *ELSEWHERE, *data, "--precision", "int8", "--out", "b")
    assert done.exit_code == 4, done.stderr
    manifest = read_json(here / "b" / "manifest.json")
    assert shapes(manifest["inputs"]) == model.taken
    assert shapes(manifest["outputs"]) == model.given
    assert (manifest["precision"], manifest["accuracy"]["broken"]) == ("int8", None)
    assert manifest["accuracy"]["reference_db"] > 3
    assert edgekit("verify", "b").exit_code == 0


@pytest.mark.parametrize("name", [name for name, model in ZOO.items() if not model.int8])
def test_what_no_engine_computes_in_int8_is_not_called_int8(name, here):
    write(ZOO[name])
    data = ("--calibration", "train.npz", "--precision", "int8")
    done = edgekit("export", "model.onnx", "--target", "local", *data, "--out", "b")
    assert done.exit_code == 1
    assert "ran no convolution or matrix product in int8" in done.stderr
    assert not (here / "b").exists()


def test_whole_queries_may_be_stacked_with_every_axis_they_have(here):
    """Of an input whose axis 0 is 1, that axis may be left out of the file or not."""
    model = ZOO["opset 14, state by layer"]
    write(model, samples={"x": (1, 5, 6), "h": (2, 1, 8), "c": (2, 1, 8)})
    done = edgekit("export", "model.onnx", *ELSEWHERE, "--calibration", "train.npz", "--out", "b")
    assert done.exit_code == 4, done.stderr
    assert shapes(read_json(here / "b" / "manifest.json")["inputs"])["x"] == (1, 1, 5, 6)


def test_a_fixed_size_on_axis_0_may_be_the_time_of_one_query(here):
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[10, 1, 4] x) => (float[10, 1, 4] y) { y = Softmax<axis=0>(x) }"""
    onnx.save(onnx.parser.parse_model(text), "model.onnx")
    x = np.random.default_rng(0).normal(size=(20, 10, 1, 4)).astype(np.float32)
    np.savez("whole.npz", x=x)
    np.savez("single.npz", x=x[:, 0])
    done = edgekit(
        "export", "model.onnx", *ELSEWHERE, "--calibration", "whole.npz", "--precision", "fp32", "--out", "b"
    )
    assert done.exit_code == 4, done.stderr
    assert edgekit("run", "b", "--input", "whole.npz", "--output", "y.npz").exit_code == 0
    with np.load("y.npz") as found:
        assert np.allclose(found["y"].sum(axis=1), 1.0, atol=1e-5)
    refused = edgekit("export", "model.onnx", *ELSEWHERE, "--calibration", "single.npz", "--out", "c")
    assert refused.exit_code == 1
    assert "give samples of whole queries: [n, 10, 1, 4]" in refused.stderr


def test_one_name_is_one_size_in_every_input(here):
    write(ZOO["opset 20, encoder"])
    done = edgekit("export", "model.onnx", *ELSEWHERE, "--input", "ids=i64[1,9]", "--out", "b")
    assert done.exit_code == 4, done.stderr
    assert shapes(read_json(here / "b" / "manifest.json")["inputs"]) == {"ids": (1, 9), "mask": (1, 9)}


@pytest.mark.parametrize("small", [0, 1024])
def test_external_data_come_along(small, here):
    """Also where the shapes themselves lie outside the file."""
    model = ZOO["opset 11, detector"]
    proto = write(model)
    onnx.save(proto, "model.onnx", save_as_external_data=True, location="model.data", size_threshold=small)
    done = edgekit(
        "export", "model.onnx", *ELSEWHERE, "--calibration", "train.npz", "--precision", "int8", "--out", "b"
    )
    assert done.exit_code == 4, done.stderr
    assert shapes(read_json(here / "b" / "manifest.json")["outputs"]) == model.given


@pytest.mark.parametrize("engine", ENGINES)
def test_inputs_in_float16_get_float16(engine, here):
    onnx.save(half_precision(), "model.onnx")
    done = edgekit("export", "model.onnx", *ELSEWHERE, "--engine", engine, "--precision", "fp32", "--out", "b")
    assert done.exit_code == 4, done.stderr
    assert read_json(here / "b" / "manifest.json")["inputs"][0]["dtype"] == "float16"


def test_a_model_without_a_batch_is_measured_here(here):
    write(ZOO["opset 14, state by layer"])
    (here / "quick.toml").write_text(
        'description = "Quick."\n[limits]\np50_ms = 1000.0\n[load]\nmin_seconds = 0.1\nmin_count = 20\n'
        "max_other_load = 1.0\n"
    )
    done = edgekit(
        *("export", "model.onnx", "--target", "local", "--calibration", "train.npz", "--precision", "fp32"),
        *("--profile", "quick.toml", "--engine", "onnxruntime", "--out", "b"),
    )
    assert done.exit_code == 0, done.output
    assert edgekit("profile", "b").exit_code == 0


def test_what_has_no_batch_says_so(here):
    write(ZOO["opset 14, state by layer"])
    done = edgekit(
        "export", "model.onnx", *ELSEWHERE, "--calibration", "train.npz", "--precision", "fp32", "--out", "b"
    )
    assert done.exit_code == 4, done.stderr
    assert "one sample is one whole query" in " ".join(read_json(here / "b" / "manifest.json")["plan"]["notes"])
    assert lstm().graph.input[1].name in read_json(here / "b" / "manifest.json")["inputs"][1]["name"]
