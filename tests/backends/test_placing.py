"""Which nodes ONNX Runtime is given in int8: where it pays, and no further."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from small_nets import HEAD, quantise, save

from edgekit.backends.onnxruntime import OPERATORS
from edgekit.backends.onnxruntime_placing import activations, place

ENCODER = """encoder (float["n", 6, 8] x) => (float["n", 6, 8] y) {
    [qk] q = MatMul(x, w0)
    [bias] qb = Add(q, b0)
    [scores] s = MatMul(qb, t)
    [turned] t = Transpose<perm=[0, 2, 1]>(x)
    [soft] p = Softmax(s)
    [mixed] m = MatMul(p, x)
    [out] o = MatMul(m, w1)
    [residual] r = Add(o, x)
    [norm] y = LayerNormalization(r, g0, g1)
}"""
CONVS = """convs (float["n", 3, 8, 8] x) => (float["n", 5] y, float["n", 8, 8, 8] soft) {
    [one] a = Conv<pads=[1, 1, 1, 1]>(x, w0, b0)
    [act] b = Relu(a)
    [two] c = Conv<pads=[1, 1, 1, 1]>(b, w1)
    [sum] d = Add(b, c)
    [pool] e = GlobalAveragePool(d)
    [flat] f = Flatten(e)
    [linear] h = Gemm(f, w2, b2)
    [clipped] i = Relu(h)
    [last] y = Gemm(i, w3)
    [soft] soft = Softmax(c)
}"""
SHAPES = {
    "encoder": {"w0": (8, 8), "b0": (8,), "w1": (8, 8), "g0": (8,), "g1": (8,)},
    "convs": {"w0": (8, 3, 3, 3), "b0": (8,), "w1": (8, 8, 3, 3), "w2": (8, 6), "b2": (6,), "w3": (6, 5)},
}


def net(text, **changes):
    proto = onnx.parser.parse_model(HEAD + text)
    nodes = {node.name: node for node in proto.graph.node}
    if "turned" in nodes:  # written for reading; ONNX asks for order
        order = ["qk", "bias", "turned", *[name for name in nodes if name not in ("qk", "bias", "turned")]]
        kept = [nodes[name] for name in order]
        del proto.graph.node[:]
        proto.graph.node.extend(kept)
    rng = np.random.default_rng(0)
    for name, shape in (SHAPES[proto.graph.name] | changes).items():
        values = rng.normal(0, 0.5, shape).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    return proto


def test_convolutions_run_through_in_int8():
    found = place(net(CONVS), OPERATORS, {}, {})
    assert found.nodes == {"one", "act", "two", "sum", "pool", "flat", "linear", "clipped", "last"}
    assert found.reasons == {}
    assert "h" in found.tensors  # it goes on into the last product
    assert "y" not in found.tensors  # a result keeps its digits


def test_an_encoders_stream_stays_in_float():
    found = place(net(ENCODER), OPERATORS, {}, {})
    assert found.nodes == {"qk", "out"}
    assert found.tensors == frozenset()
    assert found.reasons == dict.fromkeys(("scores", "mixed"), "its weights are not constant")


def test_what_a_plan_leaves_in_float_and_what_int8_cannot_hold_are_reasons():
    found = place(net(CONVS), OPERATORS, {"two": "as the plan says"}, {"i": "its values are not finite"})
    assert found.reasons == {"two": "as the plan says", "last": "its values are not finite"}
    assert "sum" not in found.nodes


def test_operators_without_a_kernel_are_named():
    found = place(net(CONVS), {"Conv": ()}, {}, {})
    assert found.reasons == dict.fromkeys(("linear", "last"), "ONNX Runtime has no int8 Gemm")


def test_a_tensor_that_only_moves_or_is_clipped_has_no_range_of_its_own():
    names, same = activations(net(CONVS), OPERATORS)
    assert same == {"a": "b", "f": "e", "h": "i"}
    assert set(names) == {"x", "b", "c", "d", "e", "i", "y"}


def test_a_constant_beside_activations_keeps_a_concatenation_in_float():
    text = """cat (float["n", 3, 4, 4] x) => (float["n", 6, 4, 4] y) {
        [one] a = Conv(x, w) [cat] y = Concat<axis=1>(a, k) }"""
    proto = onnx.parser.parse_model(HEAD + text)
    for name, shape in {"w": (3, 3, 1, 1), "k": (1, 3, 4, 4)}.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(shape, np.float32), name))
    assert place(proto, OPERATORS, {}, {}).nodes == {"one"}


def dequantised(artifact):
    """For each node by name, which of its inputs come from a DequantizeLinear."""
    proto = onnx.load(artifact.path)
    onnx.checker.check_model(proto, full_check=True)
    made = {node.output[0] for node in proto.graph.node if node.op_type == "DequantizeLinear"}
    return {node.name: [i for i, name in enumerate(node.input) if name in made] for node in proto.graph.node}


def test_nodes_in_float_read_floats(tmp_path):
    artifact = quantise("onnxruntime", "x86-vnni", save(net(ENCODER), tmp_path / "float"), tmp_path / "int8")
    found = dequantised(artifact)
    kinds = {name: found.get(name) for name in ("scores", "mixed", "residual", "norm")}
    assert kinds == {"scores": [], "mixed": [], "residual": [], "norm": []}
    assert artifact.notes == ("left in float: scores, mixed (its weights are not constant)",)


def test_a_fused_product_keeps_the_name_that_plans_know(tmp_path):
    """ONNX Runtime makes one Gemm of a MatMul and an Add, under a name of its own."""
    text = """mlp (float["n", 8] x) => (float["n", 8] y) { [first] a = MatMul(x, w0) [bias] b = Add(a, b0)
        [act] c = Relu(b) [second] d = MatMul(c, w1) [bias2] y = Add(d, b0) }"""
    proto = onnx.parser.parse_model(HEAD + text)
    for name, shape in {"w0": (8, 8), "w1": (8, 8), "b0": (8,)}.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(shape, np.float32), name))
    fp32 = save(proto, tmp_path / "float")
    artifact = quantise("onnxruntime", "x86-vnni", fp32, tmp_path / "int8", float_groups=("second",))
    assert artifact.notes == ("left in float: second (as the plan says)",)
    found = dequantised(artifact)
    assert (found["first"], found["second"]) == ([0, 1, 2], [])


@pytest.mark.parametrize("operators", [{"Gemm": (0,)}, {"Conv": (0, 1), "Relu": (0,)}], ids=["inputs", "types"])
def test_a_scheme_says_which_inputs_of_which_operators(operators, tmp_path):
    from dataclasses import replace

    from edgekit.backends.onnxruntime import scheme
    from edgekit.catalog import load_target

    changed = replace(scheme(load_target("x86-vnni")), operators=operators)
    artifact = quantise("onnxruntime", "x86-vnni", save(net(CONVS), tmp_path / "f"), tmp_path / "q", scheme=changed)
    found = dequantised(artifact)
    assert [found[name] for name in ("one", "two", "linear")] == (
        [[], [], [0]] if "Gemm" in operators else [[0, 1], [0, 1], []]
    )
