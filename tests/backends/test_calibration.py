"""What every quantiser refuses before it starts, told the same way by both."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from small_nets import HEAD, conv_net, quantise, samples_for, save

from edgekit.artifact import TensorSpec
from edgekit.backends import load_backend
from edgekit.backends.calibration import CalibrationBatches, calibration_batches
from edgekit.catalog import load_target
from edgekit.data import Samples
from edgekit.errors import DataError, EngineError, ModelError, UnknownName
from edgekit.quantization.schemes import Plan

ENGINES = ["onnxruntime", "openvino"]


def of_arrays(**arrays):
    count = len(next(iter(arrays.values())))
    return Samples(name="arrays", count=count, fetch=lambda i: {name: array[i] for name, array in arrays.items()})


def calibrate(engine, fp32, samples, out):
    backend = load_backend(engine)
    scheme = backend.scheme(load_target("x86-vnni"))
    plan = Plan(engine=engine, precision="int8", method="minmax", scheme=scheme)
    return backend.quantize(fp32, samples.batches(1), plan, out)


@pytest.mark.parametrize("engine", ENGINES)
def test_no_samples_are_told(engine, float_net, tmp_path):
    with pytest.raises(DataError, match="no calibration samples"):
        calibrate(engine, float_net, of_arrays(image=np.zeros((0, 3, 16, 16), np.float32)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_that_are_not_finite_are_told(engine, value, float_net, tmp_path):
    images = samples_for(float_net.inputs, 4).raw(range(4))["image"]
    images[2, 1, 5, 5] = value
    with pytest.raises(DataError, match="calibration batch 2: NaN or infinity in input 'image'"):
        calibrate(engine, float_net, of_arrays(image=images), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"imag": np.zeros((2, 3, 16, 16), np.float32)}, r"batch 0: unknown input 'imag'\n(.|\n)*did you mean 'image'"),
        ({"image": np.zeros((2, 3, 16), np.float32)}, r"batch 0: input 'image' has the wrong shape\n.*\[1, 3, 16\]"),
        ({"image": np.zeros((2, 3, 16, 16), np.uint8)}, r"batch 0: input 'image' has the wrong dtype\n.*uint8"),
    ],
)
def test_samples_that_do_not_fit_are_told(engine, arrays, message, float_net, tmp_path):
    with pytest.raises(DataError, match=message):
        calibrate(engine, float_net, of_arrays(**arrays), tmp_path / "out")


@pytest.mark.parametrize("engine", ENGINES)
def test_a_quantised_model_is_not_quantised_again(engine, made, tmp_path):
    with pytest.raises(ModelError, match=r"model\.onnx is quantised already\n.*\d+ Dequan\w+, \d+ QuantizeLinear"):
        quantise(engine, "x86-vnni", made("onnxruntime", "x86-vnni"), tmp_path / "out")


def test_quantised_operators_inside_a_branch_are_seen(tmp_path):
    text = """g (float[1, 4] x, bool flag, float s, uint8 z) => (float[1, 4] y) {
        y = If (flag) < then_branch = yes () => (float[1, 4] a) { q = QuantizeLinear(x, s, z)
                                                                  a = DequantizeLinear(q, s, z) },
                        else_branch = no () => (float[1, 4] b) { b = Relu(x) } >
    }"""
    with pytest.raises(ModelError, match="is quantised already"):
        quantise("onnxruntime", "x86-vnni", save(onnx.parser.parse_model(HEAD + text), tmp_path), tmp_path / "out")


@pytest.mark.parametrize("engine", ENGINES)
def test_a_plan_needs_a_scheme(engine, float_net, tmp_path):
    with pytest.raises(EngineError, match=f"{engine} int8.*: an int8 plan needs a scheme"):
        quantise(engine, "x86-vnni", float_net, tmp_path, scheme=None)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_group_the_model_does_not_have_is_told(engine, float_net, tmp_path):
    with pytest.raises(UnknownName, match=r"float groups: unknown node 'conf1'\n(.|\n)*did you mean 'conv1'"):
        quantise(engine, "x86-vnni", float_net, tmp_path / "out", float_groups=("conv0", "conf1"))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_fixed_batch_is_filled_up(engine, tmp_path):
    fp32 = save(conv_net(batch="3"), tmp_path / "float")
    assert quantise(engine, "x86-vnni", fp32, tmp_path / "int8", batch=3).precision == "int8"  # 3 + 3 + 2 samples


def test_the_last_batch_is_filled_up_with_its_last_sample():
    spec = TensorSpec(name="x", dtype="float32", shape=(4, 1))
    samples = of_arrays(x=np.arange(6, dtype=np.float32)[:, None])
    batches = CalibrationBatches(data=samples.batches(4), inputs=(spec,))
    assert len(batches) == 2
    for _ in range(2):  # again and again
        assert [batch["x"].ravel().tolist() for batch in batches] == [[0, 1, 2, 3], [4, 5, 5, 5]]


def test_a_dynamic_batch_is_left_alone(float_net):
    data = samples_for(float_net.inputs, 5).batches(2)
    assert [len(batch["image"]) for batch in calibration_batches(data, float_net)] == [2, 2, 1]
