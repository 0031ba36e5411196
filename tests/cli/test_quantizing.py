"""``quantize``: auto, a named method, sensitivity, and what is refused."""

from __future__ import annotations

import os

import numpy as np
import onnx
import pytest
from tiny_recipe import as_tensors, edgekit, stripes, student_onnx

from edgekit.artifact import read_json

DATA = ("--calibration", "train.npz", "--test", "test.npz", "--set", "data.calibration=24")
HERE = ("--target", "local", "--profile", "quick.toml")


@pytest.fixture
def here(project, monkeypatch, deployed):
    """The working folder: the deployed student's ONNX and its data as model tensors."""
    monkeypatch.chdir(project)
    for name, count, seed in (("train", 96, 0), ("test", 48, 1)):
        images, labels = stripes(count, seed)
        np.savez(f"{name}.npz", input=as_tensors(images), y=labels)
    os.symlink(student_onnx(deployed), "student.onnx")
    return project


def report_of(folder, name="local"):
    (target,) = read_json(folder / "bundles" / f"{name}.report.json")["targets"]
    return target


def test_auto_tries_what_the_engine_has_and_goes_on_where_it_was(here):
    done = edgekit("quantize", "student.onnx", *HERE, *DATA, "--engine", "onnxruntime")
    assert done.exit_code in (0, 4), done.stderr  # 48 samples may leave the accuracy open
    target = report_of(here)
    assert [t["plan"] for t in target["trials"]][:2] == ["onnxruntime fp32", "onnxruntime int8"]
    assert {c["plan"].split()[1] for c in target["candidates"]} >= {"fp32", "int8"}
    assert "24 samples, about" in done.stderr, "a forecast before it starts"
    steps = {path.name for path in (here / "bundles" / ".steps").iterdir()}
    again = edgekit("quantize", "student.onnx", *HERE, *DATA, "--engine", "onnxruntime")
    assert again.exit_code == done.exit_code
    assert {path.name for path in (here / "bundles" / ".steps").iterdir()} == steps


def test_a_named_method_is_what_is_made(here):
    named = ("--precision", "int8", "--method", "entropy", "--correction", "bias-correction")
    done = edgekit("quantize", "student.onnx", *HERE, *DATA, *named, "--engine", "onnxruntime")
    assert done.exit_code in (0, 4), done.stderr
    plan = read_json(here / "bundles" / "local" / "manifest.json")["plan"]
    assert (plan["method"], plan["corrections"]) == ("entropy", ["bias-correction"])
    (candidate,) = report_of(here)["candidates"]
    assert candidate["plan"] == "onnxruntime int8 entropy +bias-correction"


@pytest.mark.parametrize("precision", ["int8", "fp16"])
def test_a_jetsons_bundle_is_made_here_and_checked_on_the_cpu(tmp_path, monkeypatch, precision):
    monkeypatch.chdir(tmp_path)
    text = """<ir_version: 9, opset_import: ["" : 20]> wide (float["n", 16, 8, 8] image) => (float["n", 16, 8, 8] y) {
        [one] a = Conv<pads=[1, 1, 1, 1]>(image, w) [act] b = Relu(a) [two] c = Conv<pads=[1, 1, 1, 1]>(b, w)
        [add] y = Add(c, image) }"""
    rng = np.random.default_rng(0)
    proto = onnx.parser.parse_model(text)
    proto.graph.initializer.append(
        onnx.numpy_helper.from_array(rng.normal(0, 0.1, (16, 16, 3, 3)).astype("float32"), "w")
    )
    onnx.save(proto, "wide.onnx")
    for name in ("few", "more"):
        np.savez(f"{name}.npz", image=rng.normal(size=(24, 16, 8, 8)).astype("float32"))
    data = ("--calibration", "few.npz", "--test", "more.npz", "--set", "data.calibration=16")
    target = ("--target", "jetson-orin-nano", "--engine", "tensorrt")
    done = edgekit("quantize", "wide.onnx", *target, *data, "--precision", precision)
    assert done.exit_code in (0, 4), done.stderr
    bundle = tmp_path / "bundles" / "jetson-orin-nano"
    manifest = read_json(bundle / "manifest.json")
    assert (manifest["engine"], manifest["precision"]) == ("tensorrt", precision)
    kinds = {node.op_type for node in onnx.load(bundle / manifest["model"]).graph.node}
    assert ("QuantizeLinear" in kinds) == (precision == "int8")
    (candidate,) = report_of(tmp_path, "jetson-orin-nano")["candidates"]
    assert candidate["proof"]["engine"] == "onnxruntime"
    assert candidate["proof"]["reference_db"] > 25.0
    assert candidate["proof"]["int8_share"] is None, "of another engine's run"
    assert "not measured" in done.stdout
    assert "the target is aarch64" in done.stdout


def test_sensitivity_shows_every_group_and_makes_no_bundle(here):
    done = edgekit("quantize", "student.onnx", *HERE, *DATA, "--engine", "onnxruntime", "--sensitivity")
    assert done.exit_code == 0, done.stderr
    report = read_json(here / "bundles" / "local.sensitivity-onnxruntime.json")
    assert len(report["groups"]) == 3, "two convolutions and a matrix product"
    assert all(group["failure"] or group["db"] is not None for group in report["groups"])
    page = (here / "bundles" / "local.sensitivity-onnxruntime.html").read_text()
    assert all(group["name"].split()[0] in page for group in report["groups"])
    assert "picture: bundles/local.sensitivity-onnxruntime.html" in done.stdout
    assert not (here / "bundles" / "local").exists()
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_methods_are_listed_without_a_model():
    done = edgekit("quantize", "--methods")
    assert done.exit_code == 0
    assert "entropy" in done.stdout
    assert "onnxruntime" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([*HERE], 1, "auto chooses by samples, and there are none"),
        ([*HERE, *DATA, "--method", "entrpy"], 1, "did you mean 'entropy'?"),
        ([*HERE, *DATA, "--correction", "equalise"], 1, "did you mean 'equalize'?"),
        (
            [*HERE, *DATA, "--precision", "int8", "--method", "entropy", "--engine", "openvino"],
            1,
            "engine 'openvino' has no method 'entropy' for int8",
        ),
        (
            ["--target", "nvidia-l4", *DATA, "--precision", "int8", "--method", "dynamic"],
            1,
            "engine 'tensorrt' has no method 'dynamic' for int8",
        ),
        ([*HERE, *DATA, "--precision", "int9"], 2, "'int9' is not one of"),
        ([*HERE, *DATA, "--groups", "4"], 2, "--groups goes with --sensitivity"),
        ([*HERE, *DATA, "--precision", "int8", "--float", "conf1"], 1, "conf1"),
        ([*HERE, *DATA, "--trials", "0"], 2, "--trials"),
    ],
)
def test_what_is_wrong_is_told_in_one_message_and_nothing_is_left(here, arguments, code, said):
    done = edgekit("quantize", "student.onnx", *arguments)
    assert done.exit_code == code, done.output
    assert said in done.stderr
    assert "Traceback" not in done.output
    assert not (here / "bundles" / "local").exists()
