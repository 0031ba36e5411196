"""fp8 for TensorRT: E4M3 pairs where it has kernels for them, and the numbers they give."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx.numpy_helper import to_array
from small_nets import HEAD, conv_net, quantise, samples_for, save
from tensorrt_nets import DEPTHWISE, LINEAR, RESIDUAL, ZOO, net

from edgekit.backends import load_backend
from edgekit.backends.methods import check_plan
from edgekit.backends.tensorrt_rules import violations
from edgekit.catalog import load_target
from edgekit.checking import runnable
from edgekit.errors import EngineError, ModelError, SpecError
from edgekit.planning import check_precision
from edgekit.quantization.schemes import Plan
from edgekit.runtime import open_artifact
from edgekit.runtime.numbers import run_batched, snr_db

TARGET = "jetson-agx-thor"
E4M3 = ml_dtypes.float8_e4m3fn
WIDE = (
    HEAD
    + """wide (float["n", 16, 8, 8] x) => (float["n", 16, 8, 8] y) {
    [near] a = Conv<pads=[1, 1, 1, 1]>(x, w0) [far] b = Conv<pads=[3, 3, 3, 3]>(a, w1)
    [odd] c = Conv(b, w2) [even] y = Conv(c, w3) }"""
)


def in_fp8(proto, folder, **changes):
    fp32 = save(proto, folder / "float")
    artifact = quantise("tensorrt", TARGET, fp32, folder / "fp8", precision="fp8", **changes)
    return fp32, artifact, onnx.load(artifact.path)


@pytest.mark.parametrize("text", ZOO.values(), ids=ZOO)
def test_every_pair_is_e4m3_around_zero_and_breaks_no_rule(text, tmp_path):
    _, artifact, made = in_fp8(net(text), tmp_path)
    onnx.checker.check_model(made, full_check=True)
    constants = {tensor.name: to_array(tensor) for tensor in made.graph.initializer}
    pairs = [node for node in made.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert pairs
    for node in pairs:
        scale, zero = (constants[name] for name in node.input[1:])
        assert zero.dtype == E4M3
        assert not zero.astype("float32").any()
        assert scale.dtype == np.float16, "float around it is fp16 on this target"
        assert (scale > 0).all()
    assert not violations(made)
    assert violations(made, sm="8.7"), "Orin has no fp8"
    assert (artifact.precision, made.opset_import[0].version) == ("fp8", 20)


def test_what_has_no_kernel_in_fp8_stays_in_float_with_the_reason(tmp_path):
    rng = np.random.default_rng(0)
    sizes = {"w0": (16, 16, 3, 3), "w1": (16, 16, 7, 7), "w2": (24, 16, 1, 1), "w3": (16, 24, 1, 1)}
    wide = onnx.parser.parse_model(WIDE)
    wide.graph.initializer.extend(
        onnx.numpy_helper.from_array(rng.normal(0, 0.1, size).astype("float32"), name) for name, size in sizes.items()
    )
    _, artifact, _ = in_fp8(wide, tmp_path / "wide")
    assert [note.partition(" (")[0] for note in artifact.notes] == [
        f"left in float: {n}" for n in ("far", "odd", "even")
    ]
    assert "a kernel of 49 values a channel: fp8 takes 32 at most" in artifact.notes[0]
    _, artifact, _ = in_fp8(net(DEPTHWISE), tmp_path / "depthwise")
    assert [note.partition(" (")[0] for note in artifact.notes] == ["left in float: deep", "left in float: up"]
    with pytest.raises(ModelError, match="nothing in it is worth fp8 on TensorRT"):
        in_fp8(conv_net(channels=8), tmp_path / "small")


def test_the_numbers_are_those_of_values_rounded_to_e4m3(tmp_path):
    fp32, artifact, _ = in_fp8(net(LINEAR), tmp_path)
    feeds = samples_for(fp32.inputs, 8).tensors(range(8))
    built = load_backend("tensorrt").compile(artifact, load_target(TARGET), 4, tmp_path / "built")
    session = open_artifact(runnable(built))
    (got,) = run_batched(session, feeds).values()
    session.close()

    def rounded(values, most):
        scale = np.float32(np.nextafter(np.float16(most / 448), np.float16(1)))
        return (np.clip(values / scale, -448, 448).astype(E4M3)).astype("float32") * scale

    weights = {t.name: to_array(t) for t in onnx.load(fp32.path).graph.initializer}
    samples = samples_for(fp32.inputs, 8).tensors(range(8))["x"]
    hidden = np.maximum(samples @ weights["w0"].T + weights["b0"], 0)
    most = (np.abs(samples).max(), hidden.max())
    w0 = np.stack([rounded(row, np.abs(row).max()) for row in weights["w0"]])
    w1 = np.stack([rounded(column, np.abs(column).max()) for column in weights["w1"].T]).T
    hidden = np.maximum(rounded(samples, most[0]) @ w0.T + weights["b0"], 0)
    wanted = rounded(hidden, most[1]) @ w1 + weights["b1"]
    exact = np.maximum(samples @ weights["w0"].T + weights["b0"], 0) @ weights["w1"] + weights["b1"]
    assert snr_db(wanted, got) > snr_db(exact, got) + 8, "nearer to the rounded values than to the exact ones"
    assert snr_db(exact, got) == pytest.approx(snr_db(exact, wanted), abs=1.0)


def test_a_residual_addition_has_its_skip_branch_in_fp8(tmp_path):
    _, _, made = in_fp8(net(RESIDUAL), tmp_path)
    makers = {name: node.op_type for node in made.graph.node for name in node.output}
    (add,) = (node for node in made.graph.node if node.op_type == "Add")
    assert [makers[name] for name in add.input] == ["Conv", "DequantizeLinear"]


def test_methods_of_an_even_grid_and_corrections_are_refused():
    target = load_target(TARGET)
    with pytest.raises(EngineError, match=r"no method 'mse' for fp8[\s\S]*minmax, average, percentile"):
        check_plan(Plan(engine="tensorrt", precision="fp8", method="mse"), target)
    with pytest.raises(EngineError, match="corrections are for static int8, and this is fp8"):
        check_plan(Plan(engine="tensorrt", precision="fp8", method="minmax", corrections=("equalize",)), target)
    with pytest.raises(EngineError, match=r"'openvino' has no fp8[\s\S]*tensorrt has it"):
        check_plan(Plan(engine="openvino", precision="fp8", method="minmax"), target)
    with pytest.raises(SpecError, match="'jetson-orin-nano' does not run fp8"):
        check_precision(load_target("jetson-orin-nano"), "fp8")
