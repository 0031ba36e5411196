"""Small float networks, one for each thing TensorRT's placement must get right, and what holds of every graph."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx.numpy_helper import from_array, to_array
from small_nets import HEAD

RESIDUAL = """residual (float["n", 16, 8, 8] x) => (float["n", 16, 8, 8] y) {
    [stem] s = Conv<pads=[1, 1, 1, 1]>(x, w0, b0) [act0] r = Relu(s)
    [one] a = Conv<pads=[1, 1, 1, 1]>(r, w1, b1) [act1] b = Relu(a) [two] c = Conv<pads=[1, 1, 1, 1]>(b, w2, b2)
    [add] d = Add(c, r) [act2] e = Relu(d)
    [last] y = Conv<pads=[1, 1, 1, 1]>(e, w3) }"""
PROJECTED = """projected (float["n", 16, 8, 8] x) => (float["n", 32, 4, 4] y) {
    [one] a = Conv<pads=[1, 1, 1, 1], strides=[2, 2]>(x, w1, b1) [act1] b = Relu(a)
    [two] c = Conv<pads=[1, 1, 1, 1]>(b, w2, b2)
    [short] s = Conv<strides=[2, 2]>(x, w0, b0)
    [add] d = Add(s, c) [act2] y = Relu(d) }"""
BRANCHES = """branches (float["n", 16, 8, 8] x) => (float["n", 16, 8, 8] y) {
    [left] a = Conv(x, w0, b0) [act] r = Relu(a) [right] b = Conv<pads=[1, 1, 1, 1]>(x, w1, b1)
    [pool] p = MaxPool<kernel_shape=[3, 3], pads=[1, 1, 1, 1]>(x)
    [cat] c = Concat<axis=1>(r, b, p) [last] y = Conv(c, w2, b2) }"""
DEPTHWISE = """depthwise (float["n", 16, 8, 8] x) => (float["n", 32, 16, 16] y) {
    [wide] a = Conv(x, w0, b0) [act0] b = Clip(a, low, high)
    [deep] c = Conv<group=64, pads=[1, 1, 1, 1]>(b, w1, b1) [act1] d = Clip(c, low, high)
    [narrow] e = Conv(d, w2, b2)
    [up] y = ConvTranspose<strides=[2, 2]>(e, w3, b3) }"""
MATRICES = """matrices (float["n", 6, 16] x) => (float["n", 1, 24] y) {
    [first] a = MatMul(x, w0) [bias] b = Add(a, b0) [act] c = Relu(b) [second] d = MatMul(c, w1)
    [mean] y = ReduceMean<keepdims=1>(d, axes) }"""
LINEAR = """linear (float[4, 16] x) => (float[4, 10] y) {
    [first] a = Gemm<transB=1>(x, w0, b0) [act] b = Relu(a) [second] y = Gemm(b, w1, b1) }"""

SIZES: dict[str, Mapping[str, tuple[int, ...]]] = {
    RESIDUAL: {**{f"w{i}": (16, 16, 3, 3) for i in range(4)}, **{f"b{i}": (16,) for i in range(3)}},
    PROJECTED: {"w0": (32, 16, 1, 1), "w1": (32, 16, 3, 3), "w2": (32, 32, 3, 3), **{f"b{i}": (32,) for i in range(3)}},
    BRANCHES: {
        "w0": (16, 16, 1, 1),
        "w1": (16, 16, 3, 3),
        "w2": (16, 48, 1, 1),
        **{f"b{i}": (16,) for i in range(3)},
    },
    DEPTHWISE: {
        "w0": (64, 16, 1, 1),
        "w1": (64, 1, 3, 3),
        "w2": (16, 64, 1, 1),
        "w3": (16, 32, 2, 2),
        "b0": (64,),
        "b1": (64,),
        "b2": (16,),
        "b3": (32,),
    },
    MATRICES: {"w0": (16, 32), "b0": (32,), "w1": (32, 24)},
    LINEAR: {"w0": (32, 16), "b0": (32,), "w1": (32, 10), "b1": (10,)},
}
OTHERS = {"low": np.float32(0), "high": np.float32(6), "axes": np.array([1])}
ZOO = {
    "residual": RESIDUAL,
    "projected": PROJECTED,
    "branches": BRANCHES,
    "depthwise": DEPTHWISE,
    "matrices": MATRICES,
    "linear": LINEAR,
}


def net(text: str, head: str = HEAD, **weights: np.ndarray) -> onnx.ModelProto:
    """A model of ONNX text with normal weights of its sizes, or those given."""
    proto, rng = onnx.parser.parse_model(head + text), np.random.default_rng(3)
    made = {}
    for name, size in SIZES.get(text, {}).items():
        fan_in = max(int(np.prod(size[1:])), 1)
        made[name] = rng.normal(0, (2.0 / fan_in) ** 0.5 if len(size) > 1 else 0.1, size).astype("float32")
    read = {name for node in proto.graph.node for name in node.input}
    made |= {name: np.asarray(value) for name, value in OTHERS.items() if name in read}
    made |= weights
    proto.graph.initializer.extend(from_array(np.asarray(value), name) for name, value in made.items())
    return proto


def require_dialect(proto: onnx.ModelProto) -> None:
    """Asserts what TensorRT asks of every pair, of the order and of the opset.

    NvInfer.h (``IQuantizeLayer``, ``IDequantizeLayer``) and onnx-tensorrt.
    """
    onnx.checker.check_model(proto, full_check=True)
    onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True)
    assert {entry.domain: entry.version for entry in proto.opset_import}.keys() == {""}
    assert proto.opset_import[0].version in (19, 20)
    constants = {tensor.name: to_array(tensor) for tensor in proto.graph.initializer}
    readers = [node for node in proto.graph.node if node.op_type == "QuantizeLinear" or node.op_type.startswith("Deq")]
    made = {value.name for value in proto.graph.input} | set(constants)
    for node in proto.graph.node:
        assert made.issuperset(name for name in node.input if name), f"{node.name} comes before what it reads"
        made.update(node.output)
    for node in readers:
        assert len(node.input) == 3, f"{node.name} has no zero point"
        scale, zero = constants[node.input[1]], constants[node.input[2]]
        assert zero.dtype == np.int8
        assert not zero.any()
        assert scale.shape == zero.shape
        assert (scale > 0).all()
        assert np.isfinite(scale).all()
        assert not scale.ndim or node.input[0] in constants, f"{node.name}: a scale a channel of activations"
        if node.input[0] in constants:
            assert constants[node.input[0]].dtype == np.int8
            assert constants[node.input[0]].min() >= -127
    after = {name: node for node in proto.graph.node for name in node.output}
    for node in proto.graph.node:
        quantised = [
            at for at, name in enumerate(node.input) if name in after and after[name].op_type.startswith("Deq")
        ]
        assert not quantised or (node.op_type, quantised) in (
            *((kind, [0, 1]) for kind in ("Conv", "ConvTranspose", "Gemm", "MatMul")),
            *(("Add", [at]) for at in (0, 1)),
        ), f"{node.name} reads pairs at {quantised}"
