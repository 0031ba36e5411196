"""Bias correction takes a layer's mean error out of its channels, and nothing else."""

import numpy as np
import onnx
import pytest
from layered_nets import initial, net, run
from onnx.parser import parse_model

from edgekit.quantization.bias_correction import correct_biases

BODIES = {
    "Conv": ("float[n, 3, 6, 6] x", "float[n, 4, 6, 6] y", "[layer] y = Conv({x}, {w}, b)", (4, 3, 1, 1)),
    "Conv without bias": ("float[n, 3, 6, 6] x", "float[n, 4, 6, 6] y", "[layer] y = Conv({x}, {w})", (4, 3, 1, 1)),
    "Gemm": ("float[n, 3] x", "float[n, 4] y", "[layer] y = Gemm<beta=0.5>({x}, {w}, b)", (3, 4)),
    "MatMul": ("float[n, 5, 3] x", "float[n, 5, 4] y", "[layer] m = MatMul({x}, {w}) [add] y = Add(m, b)", (3, 4)),
}
SCALE = 0.4  # so coarse that rounding shifts means


def pair(name, opset):
    """A model, and the same with one Q/DQ pair on what it reads and coarse weights."""
    source, target, body, shape = BODIES[name]
    weights = {"w": shape, "b": (4,)} if "b)" in body else {"w": shape}
    given = net(f"layer ({source}) => ({target}) {{ {body.format(x='x', w='w')} }}", weights, opset=opset)
    text = body.format(x="xd", w="wd")
    quantised = parse_model(
        f"""<ir_version: 9, opset_import: ["" : {opset}]>
        layer ({source}) => ({target}) <float s = {{{SCALE}}}, uint8 z = {{128}}, int8 zw = {{0}}> {{
            xq = QuantizeLinear(x, s, z) xd = DequantizeLinear(xq, s, z) wd = DequantizeLinear(wq, s, zw) {text} }}"""
    )
    values = np.round(initial(given, "w") / SCALE).astype(np.int8)
    quantised.graph.initializer.append(onnx.numpy_helper.from_array(values, "wq"))
    quantised.graph.initializer.extend(t for t in given.graph.initializer if t.name == "b")
    return given, quantised


def batches(given, count=6):
    shape = [d.dim_value or 2 for d in given.graph.input[0].type.tensor_type.shape.dim]
    rng = np.random.default_rng(3)
    return [{"x": rng.normal(0.7, 1.0, shape).astype(np.float32)} for _ in range(count)]


def channel_errors(given, quantised, feeds):
    errors = [run(quantised, one)["y"] - run(given, one)["y"] for one in feeds]
    axis = 1 if errors[0].ndim != 3 else -1
    return np.mean([np.moveaxis(error, axis, -1).reshape(-1, 4).mean(axis=0) for error in errors], axis=0)


@pytest.mark.parametrize("opset", [13, 20])
@pytest.mark.parametrize("name", BODIES)
def test_the_mean_error_of_every_channel_is_gone(name, opset, tmp_path):
    given, quantised = pair(name, opset)
    reference = onnx.ModelProto()
    reference.CopyFrom(given)
    feeds = batches(given)
    before = channel_errors(reference, quantised, feeds)
    assert np.abs(before).max() > 0.02
    assert correct_biases(given, quantised, feeds, tmp_path) == 1
    holder = next(node for node in given.graph.node if node.name == ("add" if name == "MatMul" else "layer"))
    other = next(node for node in quantised.graph.node if node.name == holder.name)
    bias = next(n for n in holder.input if n.endswith("corrected_bias"))
    quantised.graph.initializer.append(next(t for t in given.graph.initializer if t.name == bias))
    del other.input[len(other.input) - ("without" not in name) :]
    other.input.append(bias)
    assert np.abs(channel_errors(reference, quantised, feeds)).max() < 1e-4


def test_layers_in_float_are_left_alone(tmp_path):
    given, _ = pair("Conv", 20)
    before = given.SerializeToString()
    assert correct_biases(given, given, batches(given), tmp_path) == 0
    assert given.SerializeToString() == before


def test_a_product_without_an_addition_of_constants_is_left_alone(tmp_path):
    given, quantised = pair("MatMul", 20)
    for proto in (given, quantised):
        proto.graph.node[-1].input[1] = proto.graph.node[-1].input[0]  # y = m + m
    assert correct_biases(given, quantised, batches(given), tmp_path) == 0


def test_samples_are_walked_through_once(tmp_path):
    given, quantised = pair("Conv", 20)
    seen = []
    walked = (seen.append(number) or feeds for number, feeds in enumerate(batches(given)))
    correct_biases(given, quantised, walked, tmp_path)
    assert seen == list(range(6))
