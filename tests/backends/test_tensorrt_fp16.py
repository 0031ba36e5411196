"""fp16 in the graph: what is cast, what stays in fp32, and that types fit everywhere."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnx.numpy_helper import from_array, to_array
from small_nets import HEAD, quantise, samples_for, save
from tensorrt_nets import DEPTHWISE, RESIDUAL, net

from edgekit.backends import load_backend
from edgekit.catalog import load_target
from edgekit.checking import runnable
from edgekit.errors import ModelError
from edgekit.quantization.schemes import Plan
from edgekit.runtime import open_artifact
from edgekit.runtime.numbers import run_batched, snr_db

HALF = {"precision": "fp16", "method": None, "scheme": None}
TARGET = "jetson-orin-nano"


def halved(proto, folder, **changes):
    fp32 = save(proto, folder / "float")
    artifact = quantise("tensorrt", TARGET, fp32, folder / "fp16", **HALF | changes)
    made = onnx.load(artifact.path)
    onnx.checker.check_model(made, full_check=True)
    onnx.shape_inference.infer_shapes(made, check_type=True, strict_mode=True)
    return fp32, artifact, made


def types_of(proto):
    """Element types by tensor."""
    inferred = onnx.shape_inference.infer_shapes(proto).graph
    values = (*inferred.input, *inferred.output, *inferred.value_info)
    return {v.name: v.type.tensor_type.elem_type for v in values} | {
        t.name: t.data_type for t in proto.graph.initializer
    }


def in_half(proto):
    """Names of the nodes that compute in fp16."""
    types = types_of(proto)
    return {n.name for n in proto.graph.node if n.op_type != "Cast" and types.get(n.output[0]) == TensorProto.FLOAT16}


def outputs_of(artifact, feeds):
    session = open_artifact(replace(runnable(replace(artifact, engine="tensorrt"))))
    try:
        return run_batched(session, feeds)
    finally:
        session.close()


@pytest.mark.parametrize("text", [RESIDUAL, DEPTHWISE])
def test_all_of_a_model_is_in_fp16_but_what_it_is_given_and_gives(text, tmp_path):
    fp32, artifact, made = halved(net(text), tmp_path)
    assert in_half(made) == {node.name for node in made.graph.node if node.op_type != "Cast"}
    assert [node.op_type for node in made.graph.node].count("Cast") == 2
    assert (artifact.precision, artifact.inputs, artifact.outputs) == ("fp16", fp32.inputs, fp32.outputs)
    assert {t.data_type for t in made.graph.initializer} == {TensorProto.FLOAT16}
    assert artifact.notes == ()
    feeds = samples_for(fp32.inputs).tensors(range(8))
    assert snr_db(outputs_of(fp32, feeds)["y"], outputs_of(artifact, feeds)["y"]) > 50.0
    assert made.opset_import[0].version >= 19


FAR = """far (float["n", 16] x) => (float["n", 16] y, float["n", 16] a) {
    [first] a = MatMul(x, w) [up] b = Mul(a, big) [twice] c = Add(b, b) [down] d = Mul(c, small) [last] y = Relu(d) }"""


def test_what_the_samples_show_beyond_fp16_stays_in_fp32(tmp_path):
    """ONNX Runtime's CPU computes fp16 in fp32 and would not show it."""
    w = np.eye(16, dtype="float32")
    proto = net(FAR, w=w, big=np.float32(5e4), small=np.float32(1e-4))
    fp32, artifact, made = halved(proto, tmp_path)
    assert in_half(made) == {"first", "last"}
    assert "left in fp32: up, twice, down (values beyond fp16)" in artifact.notes
    feeds = samples_for(fp32.inputs).tensors(range(8))
    for name, reference in outputs_of(fp32, feeds).items():
        assert snr_db(reference, outputs_of(artifact, feeds)[name]) > 50.0
    assert types_of(made)["a"] == TensorProto.FLOAT, "an output that is read inside too"


def test_constants_beyond_fp16_keep_their_reader_in_fp32_without_samples_too(tmp_path):
    proto = net(FAR, w=np.eye(16, dtype="float32"), big=np.float32(1e5), small=np.float32(1e-9))
    fp32 = save(proto, tmp_path / "float")
    plan = Plan(engine="tensorrt", precision="fp16")
    artifact = load_backend("tensorrt").quantize(fp32, None, plan, tmp_path / "fp16")
    assert "left in fp32: up, down (values beyond fp16)" in artifact.notes
    assert "no samples were given, so nothing is known of values beyond fp16" in artifact.notes


def test_a_pair_around_values_beyond_fp16_stays_in_fp32(tmp_path):
    text = """far (float["n", 6, 16] x) => (float["n", 6, 16] y) {
        [up] a = Mul(x, big) [first] b = MatMul(a, w) [down] c = Mul(b, small) [second] y = MatMul(c, w) }"""
    w = np.random.default_rng(0).normal(0, 0.3, (16, 16)).astype("float32")
    fp32 = save(net(text, w=w, big=np.float32(3e4), small=np.float32(1e-4)), tmp_path / "float")
    artifact = quantise("tensorrt", TARGET, fp32, tmp_path / "int8")
    made = onnx.load(artifact.path)
    onnx.shape_inference.infer_shapes(made, check_type=True, strict_mode=True)
    types = types_of(made)
    kinds = {n.output[0]: types[n.output[0]] for n in made.graph.node if n.op_type == "DequantizeLinear"}
    assert sorted(kinds.values()) == [TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.FLOAT16]
    feeds = samples_for(fp32.inputs).tensors(range(8))
    assert snr_db(outputs_of(fp32, feeds)["y"], outputs_of(artifact, feeds)["y"]) > 20.0


def test_nodes_that_the_plan_names_stay_in_fp32(tmp_path):
    _, artifact, made = halved(net(RESIDUAL), tmp_path, float_groups=("two", "add"))
    assert {"two", "add"}.isdisjoint(in_half(made))
    assert "left in fp32: two, add (as the plan says)" in artifact.notes


def test_operators_that_take_no_fp16_or_need_digits_stay_in_fp32(tmp_path):
    text = """kinds (float["n", 2, 6, 6] x, int64[1] at) => (float["n", 2, 12, 12] y, int64["n", 2, 6, 6] z) {
        [half] a = Relu(x) [power] b = Pow(a, two) [bigger] u = Resize<mode="linear">(b, , s)
        [pick] y = Abs(u) [whole] z = Cast<to=7>(a) }"""
    proto = net(text, two=np.float32(2), s=np.float32([1, 1, 2, 2]))
    del proto.graph.input[1:]
    _, _, made = halved(proto, tmp_path)
    assert in_half(made) == {"half", "bigger", "pick"}
    resize = next(node for node in made.graph.node if node.name == "bigger")
    assert types_of(made)[resize.input[2]] == TensorProto.FLOAT
    whole = next(node for node in made.graph.node if node.name == "whole")
    assert types_of(made)[whole.input[0]] == TensorProto.FLOAT


def test_sizes_computed_of_shapes_stay_in_fp32(tmp_path):
    text = """sizes (float["n", 2, "h", 6] x) => (float["n", "m"] y) {
        [shape] s = Shape(x) [asfloat] f = Cast<to=1>(s) [half] g = Mul(f, k) [back] i = Cast<to=7>(g)
        [first] p = Slice(i, zero, one) [both] q = Concat<axis=0>(p, minus)
        [relu] r = Relu(x) [flat] y = Reshape(r, q) }"""
    numbers = {"zero": np.array([0]), "one": np.array([1]), "minus": np.array([-1]), "k": np.float32(1)}
    _, _, made = halved(net(text, **numbers), tmp_path)
    assert "half" not in in_half(made)
    assert {"relu", "flat"} <= in_half(made)


def test_branches_read_fp32(tmp_path):
    text = """branches (float["n", 16] x, bool[1] which) => (float["n", 16] y) {
        [first] a = Relu(x)
        [choose] c = If (which) <then_branch = g1 () => (float["n", 16] t) { t = Sigmoid(a) },
                                 else_branch = g2 () => (float["n", 16] e) { e = Tanh(a) }>
        [last] y = Neg(c) }"""
    proto = onnx.parser.parse_model(HEAD + text)
    fp32 = save(proto, tmp_path / "float")
    artifact = load_backend("tensorrt").quantize(
        fp32, None, Plan(engine="tensorrt", precision="fp16"), tmp_path / "fp16"
    )
    made = onnx.load(artifact.path)
    onnx.checker.check_model(made, full_check=True)
    assert in_half(made) == {"first", "last"}
    feeds = {"x": np.ones((1, 16), "float32"), "which": np.array([True])}
    session = open_artifact(replace(artifact, engine="onnxruntime"))
    np.testing.assert_allclose(session.run(feeds)["y"], -1 / (1 + np.exp(-1)), rtol=1e-3)
    session.close()


def test_constants_in_nodes_become_fp16(tmp_path):
    from edgekit.backends.tensorrt_fp16 import to_fp16

    value = from_array(np.float32([0.5]), "k")
    proto = onnx.parser.parse_model(HEAD + 'inside (float["n", 4] x) => (float["n", 4] y) { y = Mul(x, k) }')
    constant = onnx.helper.make_node("Constant", [], ["k"], "constant", value=value)
    proto.graph.node.insert(0, constant)
    assert to_fp16(proto, tmp_path) == []
    onnx.shape_inference.infer_shapes(proto, check_type=True, strict_mode=True)
    assert to_array(proto.graph.node[0].attribute[0].t).dtype == np.float16


def test_a_quantised_model_is_refused(tmp_path):
    fp32 = save(net(RESIDUAL), tmp_path / "float")
    int8 = quantise("tensorrt", TARGET, fp32, tmp_path / "int8")
    with pytest.raises(ModelError, match="is quantised already"):
        load_backend("tensorrt").quantize(int8, None, Plan(engine="tensorrt", precision="fp16"), tmp_path / "out")


def test_targets_name_what_they_have():
    backend = load_backend("tensorrt")
    assert backend.scheme(load_target(TARGET)).float_type == "fp16"
