"""Finding a backend, what it lacks here, and those of TensorRT and the null engine."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import onnx
import pytest
from small_nets import conv_net, samples_for, save

from edgekit.artifact import TensorSpec
from edgekit.backends import BACKENDS, load_backend, refusals
from edgekit.backends.methods import check_plan
from edgekit.backends.refusals import require_opens
from edgekit.catalog import load_target
from edgekit.data import Samples
from edgekit.errors import EngineError, ModelError, UnknownName
from edgekit.quantization.schemes import Plan
from edgekit.runtime import open_artifact


def test_an_unknown_engine_is_told_with_the_nearest():
    with pytest.raises(UnknownName, match=r"unknown engine 'openvin'\n(.|\n)*did you mean 'openvino'"):
        load_backend("openvin")


def test_the_null_engine_is_not_offered():
    with pytest.raises(UnknownName, match="allowed: onnxruntime, openvino, tensorrt"):
        load_backend("nothing")


@pytest.mark.parametrize("engine", BACKENDS)
def test_nothing_is_missing_here(engine):
    assert load_backend(engine).missing(load_target("x86-vnni")) is None


@pytest.mark.parametrize(
    ("engine", "module"),
    [
        ("onnxruntime", "onnx"),
        ("onnxruntime", "onnxruntime"),
        ("openvino", "openvino"),
        ("openvino", "nncf"),
        ("openvino", "onnx"),
        ("tensorrt", "onnx"),
    ],
)
def test_a_missing_package_is_named_with_the_command_that_mends_it(engine, module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    reason = load_backend(engine).missing(load_target("x86-vnni"))
    assert reason == f"{module} is not installed: pip install 'edgekit[compress]'"


def test_asking_what_is_missing_imports_nothing_heavy():
    code = """
import sys
from edgekit.backends import BACKENDS, load_backend
from edgekit.catalog import load_target
found = [load_backend(name).missing(load_target("x86-vnni")) for name in BACKENDS]
print(found, sorted({"torch", "onnx", "onnxruntime", "openvino", "nncf"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[None, None, None, None] []"


# When an engine refuses a model


def test_an_engine_that_takes_the_model_is_named(float_net):
    def refuse():
        with refusals.refusals("onnxruntime", float_net):
            raise EngineError("onnxruntime cannot run operator Conv", found="a reason")

    with pytest.raises(EngineError, match=r"operator Conv\n.*a reason\n.*choose --engine openvino, which opens this"):
        refuse()


def test_no_engine_is_named_that_is_not_here_or_refuses_too(float_net, monkeypatch):
    def refuse():
        with refusals.refusals("openvino", float_net):
            raise EngineError("openvino cannot run operator Conv", fix="the original advice")

    monkeypatch.setattr(refusals, "missing", lambda engine: "not installed")
    with pytest.raises(EngineError, match="the original advice"):
        refuse()
    monkeypatch.undo()
    float_net.path.touch()
    monkeypatch.setattr(refusals, "require_opens", _refuse_too)
    with pytest.raises(EngineError, match="the original advice"):
        refuse()


def _refuse_too(artifact):
    raise EngineError("refused as well")


def test_what_was_built_is_opened_without_the_targets_own_options(float_net, tmp_path):
    """A target's provider or thread count need not exist on the workstation."""
    target = load_target("x86-vnni").model_copy(
        update={"options": {"onnxruntime": {"provider": "CUDAExecutionProvider"}}}
    )
    built = load_backend("onnxruntime").compile(float_net, target, 1, tmp_path)
    assert built.options["provider"] == "CUDAExecutionProvider"
    require_opens(built)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_dimensions_other_than_the_batch_stay_open(engine, tmp_path):
    fp32 = save(conv_net(size='"side"'), tmp_path / "float")
    images = np.random.default_rng(0).normal(size=(4, 3, 12, 12)).astype(np.float32)
    samples = Samples(name="images", count=4, fetch=lambda i: {"image": images[i]})
    backend, target = load_backend(engine), load_target("x86-vnni")
    plan = Plan(engine=engine, precision="int8", method="minmax", scheme=backend.scheme(target))
    quantised = backend.quantize(fp32, samples.batches(1), plan, tmp_path / "int8")
    session = open_artifact(backend.compile(quantised, target, 1, tmp_path / "built"))
    for side in (12, 9):
        assert session.run({"image": images[:1, :, :side, :side].copy()})["logits"].shape == (1, 5)
    session.close()


@pytest.mark.parametrize("name", ["nvidia-t4", "jetson-agx-orin"])
def test_on_nvidias_gpus_onnx_runtime_is_a_candidate_in_fp32(name):
    target = load_target(name)
    with pytest.raises(EngineError, match="cannot be made for target") as caught:
        check_plan(Plan(engine="onnxruntime", precision="int8", method="minmax"), target)
    assert "on its CUDAExecutionProvider" in caught.value.found
    assert "use engine tensorrt" in caught.value.found
    check_plan(Plan(engine="onnxruntime", precision="fp32"), target)


# TensorRT: prepared here, built on the device


def test_tensorrt_gets_fp32_onnx_and_build_settings(float_net, tmp_path):
    target = load_target("jetson-orin-nano")
    built = load_backend("tensorrt").compile(float_net, target, 4, tmp_path)
    own = target.options.get("tensorrt", {})
    assert built.options == {"precision": "fp32", "optimization_level": 3, "workspace_mb": target.memory_mb // 4} | own
    assert (built.engine, built.precision, built.parent) == ("tensorrt", "fp32", float_net.sha256)
    assert built.inputs == (TensorSpec(name="image", dtype="float32", shape=(4, 3, 16, 16)),)
    assert b"secret" not in built.path.read_bytes()
    onnx.checker.check_model(built.path)


def test_the_targets_settings_win(float_net, tmp_path):
    target = load_target("nvidia-l4").model_copy(update={"options": {"tensorrt": {"optimization_level": 5}}})
    built = load_backend("tensorrt").compile(float_net, target, 1, tmp_path)
    assert built.options["optimization_level"] == 5


def test_what_tensorrt_builds_computes_the_same(float_net, tmp_path):
    from dataclasses import replace

    built = load_backend("tensorrt").compile(float_net, load_target("jetson-orin-nano"), 2, tmp_path)
    feeds = samples_for(float_net.inputs, 2).tensors(range(2))
    outputs = []
    for artifact in (float_net, built):
        session = open_artifact(replace(artifact, engine="onnxruntime", options={}))
        outputs.append(session.run(feeds)["logits"])
        session.close()
    np.testing.assert_allclose(*outputs, rtol=1e-5, atol=1e-5)


# The null engine: a complete fake


def test_the_null_engine_copies_and_fixes_the_batch(float_net, tmp_path):
    backend, target = load_backend("null"), load_target("x86-vnni")
    plan = Plan(engine="null", precision="int8", scheme=backend.scheme(target))
    quantised = backend.quantize(float_net, samples_for(float_net.inputs).batches(2), plan, tmp_path / "int8")
    assert (quantised.precision, quantised.parent) == ("int8", float_net.sha256)
    built = backend.compile(quantised, target, 2, tmp_path / "built")
    assert (built.engine, built.options["precision"], built.parent) == ("null", "int8", quantised.sha256)
    assert built.inputs[0].shape == (2, 3, 16, 16)
    assert built.outputs[0].shape == (2, 5)
    assert built.path.read_bytes() == float_net.path.read_bytes()
    session = open_artifact(built)
    assert session.run(samples_for(built.inputs, 2).tensors(range(2)))["logits"].shape == (2, 5)
    session.close()


def test_the_null_engine_refuses_a_batch_fixed_to_something_else(tmp_path):
    fp32 = save(conv_net(batch="4"), tmp_path / "float")
    with pytest.raises(ModelError, match="input 'image' has a fixed batch of 4"):
        load_backend("null").compile(fp32, load_target("x86-vnni"), 1, tmp_path / "built")
