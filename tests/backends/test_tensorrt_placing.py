"""Where Q/DQ stands in a graph for TensorRT: one small network for every rule."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx.numpy_helper import to_array
from product_nets import attention, recurrent
from small_nets import conv_net, quantise, save
from tensorrt_nets import BRANCHES, DEPTHWISE, LINEAR, MATRICES, PROJECTED, RESIDUAL, ZOO, net, require_dialect

from edgekit.backends import load_backend
from edgekit.catalog import load_target
from edgekit.errors import ModelError

ENGINE, TARGET = "tensorrt", "jetson-orin-nano"


def made(proto, folder, **changes):
    """The quantised model and its artifact."""
    artifact = quantise(ENGINE, TARGET, save(proto, folder / "float"), folder / "int8", **changes)
    proto = onnx.load(artifact.path)
    require_dialect(proto)
    return proto, artifact


def node_of(proto, name):
    return next(node for node in proto.graph.node if node.name == name)


def constant(proto, name):
    return to_array(next(tensor for tensor in proto.graph.initializer if tensor.name == name))


def pair_before(proto, node, at=0):
    """The activation behind a node's pair; None where there is no pair."""
    makers = {name: one for one in proto.graph.node for name in one.output}
    dequantise = makers.get(node_of(proto, node).input[at])
    if dequantise is None or dequantise.op_type != "DequantizeLinear":
        return None
    return makers[dequantise.input[0]].input[0]


def axis_of(proto, node):
    """The axis of a node's weights that has a scale a channel; None where there is one for all."""
    dequantise = next(one for one in proto.graph.node if one.output[0] == node_of(proto, node).input[1])
    return next((a.i for a in dequantise.attribute if a.name == "axis"), None)


def reasons(artifact):
    return "\n".join(artifact.notes)


@pytest.mark.parametrize("text", ZOO.values(), ids=ZOO)
def test_every_graph_keeps_the_dialects_rules(text, tmp_path):
    proto, artifact = made(net(text), tmp_path)
    assert any(node.op_type == "QuantizeLinear" for node in proto.graph.node)
    assert artifact.precision == "int8"
    assert [value.type.tensor_type.elem_type for value in (*proto.graph.input, *proto.graph.output)] == [1, 1]


def test_a_residuals_skip_branch_has_the_pair_that_the_block_reads_and_the_convolutions_is_bare(tmp_path):
    proto, artifact = made(net(RESIDUAL), tmp_path)
    add = node_of(proto, "add")
    assert pair_before(proto, "add", 1) is not None
    assert add.input[1] == node_of(proto, "one").input[0], "one pair serves both"
    assert node_of(proto, "two").output[0] == add.input[0]
    assert node_of(proto, "act2").input[0] == add.output[0], "nothing between the addition and its ReLU"
    assert artifact.notes == ()


def test_of_two_convolutions_before_an_addition_the_longer_branch_is_bare(tmp_path):
    proto, _ = made(net(PROJECTED), tmp_path)
    assert pair_before(proto, "add", 0) is not None, "the shortcut"
    assert node_of(proto, "two").output[0] == node_of(proto, "add").input[1]


@pytest.mark.parametrize(
    "addition",
    [
        "[add] y = Add(c, k)",  # a constant
        "[flat] p = GlobalAveragePool(r) [add] y = Add(c, p)",  # another shape
        "[act] a = Relu(c) [add] y = Add(a, r)",  # no convolution's own result
        "[add] d = Add(c, r) [too] y = Add(d, c)",  # which is read twice
    ],
)
def test_other_additions_are_left_alone(addition, tmp_path):
    text = f"""some (float["n", 16, 8, 8] x) => (float["n", 16, 8, 8] y) {{
        [pre] r = Relu(x) [conv] c = Conv(r, w) {addition} }}"""
    rng = np.random.default_rng(0)
    w, k = rng.normal(0, 0.3, (16, 16, 1, 1)).astype("float32"), rng.normal(size=(1, 16, 8, 8)).astype("float32")
    proto, _ = made(net(text, w=w, **({"k": k} if "k)" in addition else {})), tmp_path)
    assert all(pair_before(proto, node.name, at) is None for node in proto.graph.node if node.op_type == "Add"
               for at in (0, 1))  # fmt: skip
    assert pair_before(proto, "conv") is not None


def test_a_concatenation_is_bare_and_the_one_pair_stands_behind_it(tmp_path):
    proto, _ = made(net(BRANCHES), tmp_path)
    cat = node_of(proto, "cat")
    assert pair_before(proto, "last") == cat.output[0]
    assert all(pair_before(proto, "cat", at) is None for at in range(3))


def test_nothing_stands_between_a_convolution_a_batchnorm_and_an_activation(tmp_path):
    text = """normed (float["n", 16, 8, 8] x) => (float["n", 16, 8, 8] y) {
        [one] a = Conv(x, w0) [norm] b = BatchNormalization(a, g, h, m, v) [act] c = Relu(b) [two] y = Conv(c, w1) }"""
    rng = np.random.default_rng(0)
    weights = {f"w{i}": rng.normal(0, 0.3, (16, 16, 1, 1)).astype("float32") for i in range(2)}
    norm = {name: rng.uniform(0.5, 1.5, 16).astype("float32") for name in "ghmv"}
    proto, _ = made(net(text, **weights, **norm), tmp_path)
    kinds = [node.op_type for node in proto.graph.node if node.op_type not in ("DequantizeLinear", "Cast")]
    assert kinds == ["QuantizeLinear", "Conv", "Relu", "QuantizeLinear", "Conv"], "the BatchNorm is in the weights"


def test_weights_have_a_scale_a_channel_along_the_axis_that_tensorrt_takes(tmp_path):
    proto, _ = made(net(DEPTHWISE), tmp_path / "a")
    assert [axis_of(proto, name) for name in ("wide", "deep", "narrow", "up")] == [0, 0, 0, 1]
    proto, artifact = made(net(LINEAR), tmp_path / "b")
    assert [axis_of(proto, name) for name in ("first", "second")] == [0, 1]
    assert artifact.notes == ()
    proto, _ = made(net(MATRICES), tmp_path / "c")
    assert [axis_of(proto, name) for name in ("first", "second")] == [1, 1]


def test_where_channels_lie_along_no_axis_or_the_scheme_says_so_there_is_one_scale(tmp_path):
    text = """grouped (float["n", 16, 8, 8] x) => (float["n", 16, 16, 16] y) {
        [up] y = ConvTranspose<strides=[2, 2], group=2>(x, w) }"""
    w = np.random.default_rng(0).normal(size=(16, 8, 2, 2)).astype("float32")
    proto, _ = made(net(text, w=w), tmp_path / "a")
    assert axis_of(proto, "up") is None
    scheme = load_backend(ENGINE).scheme(load_target(TARGET))
    proto, _ = made(net(LINEAR), tmp_path / "b", scheme=replace(scheme, per_channel=False))
    assert [axis_of(proto, name) for name in ("first", "second")] == [None, None]


def test_biases_stay_float_and_where_they_were(tmp_path):
    proto, _ = made(net(RESIDUAL), tmp_path)
    for name in ("stem", "one", "two"):
        assert constant(proto, node_of(proto, name).input[2]).dtype == np.float16


def test_small_convolutions_and_products_by_a_vector_stay_in_float_and_are_told(tmp_path):
    proto, artifact = made(conv_net(channels=16), tmp_path)
    assert pair_before(proto, "conv0") is None
    assert pair_before(proto, "linear") is None
    assert "left in float: conv0 (3 channels in and 16 out, under the 16" in reasons(artifact)
    assert "left in float: linear (a product by a vector" in reasons(artifact)
    column = """column (float["n", 6, 16] x) => (float["n", 6, 1] y) {
        [first] a = MatMul(x, w0) [second] y = MatMul(a, w1) }"""
    w = np.random.default_rng(0).normal(size=(16, 17)).astype("float32")
    proto, artifact = made(net(column, w0=w, w1=np.ascontiguousarray(w[:1].T)), tmp_path / "b")
    assert "second (a product by a vector" in reasons(artifact)
    assert pair_before(proto, "first") is not None


def test_attention_stays_in_float_between_its_projections(tmp_path):
    proto, artifact = made(attention(), tmp_path)
    assert all(pair_before(proto, name) is not None for name in ("query", "key", "value", "out"))
    assert "left in float: scores, mixed (it is no product of activations by weights" in reasons(artifact)
    assert pair_before(proto, "skip", 0) is None
    assert pair_before(proto, "skip", 1) is None


def test_weights_that_several_read_are_stored_once_and_stay_float_where_they_are_read_so(tmp_path):
    text = """shared (float["n", 16, 8, 8] x) => (float["n", 16, 8, 8] y, float["n", 16, 8, 8] z) {
        [one] a = Conv(x, w) [two] b = Conv(a, w) [three] y = Conv(b, w) [four] z = ConvTranspose(x, w) }"""
    w = np.random.default_rng(0).normal(0, 0.3, (16, 16, 1, 1)).astype("float32")
    proto, _ = made(net(text, w=w), tmp_path, float_groups=("three",))
    assert node_of(proto, "one").input[1] == node_of(proto, "two").input[1] != node_of(proto, "four").input[1]
    assert (axis_of(proto, "one"), axis_of(proto, "four")) == (0, 1)
    np.testing.assert_array_equal(constant(proto, node_of(proto, "three").input[1]), w.astype("float16"))


def test_a_channel_of_zeros_has_a_scale(tmp_path):
    proto = net(RESIDUAL)
    tensor = next(one for one in proto.graph.initializer if one.name == "w1")
    weights = to_array(tensor).copy()
    weights[3] = 0
    tensor.CopyFrom(onnx.numpy_helper.from_array(weights, "w1"))
    proto, _ = made(proto, tmp_path)
    stored = next(one for one in proto.graph.node if one.output[0] == node_of(proto, "one").input[1])
    assert not constant(proto, stored.input[0])[3].any()
    assert constant(proto, stored.input[1])[3] > 0


def test_what_int8_cannot_hold_and_what_a_plan_says_stays_in_float(tmp_path):
    text = """masked (float["n", 6, 16] x) => (float["n", 6, 16] y) {
        [first] a = MatMul(x, w) [far] b = Mul(a, big) [second] c = MatMul(b, w) [third] y = MatMul(a, w) }"""
    w = np.random.default_rng(0).normal(size=(16, 16)).astype("float32")
    proto, artifact = made(net(text, w=w, big=np.float32(1e10)), tmp_path, float_groups=("third",))
    assert "left in float: third (as the plan says)" in reasons(artifact)
    assert "a mask" in reasons(artifact)
    assert pair_before(proto, "first") is not None
    assert pair_before(proto, "second") is None


@pytest.mark.parametrize("proto", [recurrent("LSTM"), conv_net(channels=8)], ids=["recurrent", "narrow"])
def test_a_model_in_which_nothing_is_worth_int8_is_refused(proto, tmp_path):
    with pytest.raises(ModelError, match=r"(?s)nothing in it is worth int8 on TensorRT.*--precision fp16"):
        made(proto, tmp_path)


def test_an_older_model_is_moved_up_and_a_newer_one_refused(tmp_path):
    def at(opset):
        proto = net(RESIDUAL)
        proto.opset_import[0].version = opset
        return proto

    proto, _ = made(at(13), tmp_path / "old")
    assert proto.opset_import[0].version == 19
    with pytest.raises(
        ModelError, match=r"(?s)opset 21 is newer than.*allowed: opset 20.*export the model at opset 20"
    ):
        made(at(21), tmp_path / "new")
    upsample = """old (float["n", 16, 4, 4] x) => (float["n", 16, 8, 8] y) {
        [up] u = Upsample(x, s) [conv] y = Conv(u, w) }"""
    weights = {"s": np.float32([1, 1, 2, 2]), "w": np.ones((16, 16, 1, 1), "float32")}
    head = '<ir_version: 9, opset_import: ["" : 9]>\n'
    proto, _ = made(net(upsample, head, **weights), tmp_path / "upsample")
    assert "Resize" in {node.op_type for node in proto.graph.node}


def test_targets_without_fp16_have_fp32_scales(tmp_path):
    scheme = load_backend(ENGINE).scheme(load_target(TARGET).model_copy(update={"precisions": ("fp32", "int8")}))
    proto, _ = made(net(RESIDUAL), tmp_path / "wide", scheme=scheme)
    half, _ = made(net(RESIDUAL), tmp_path / "half")
    for model, dtype in ((proto, np.float32), (half, np.float16)):
        scales = {node.input[1] for node in model.graph.node if node.op_type == "DequantizeLinear"}
        assert {constant(model, name).dtype.type for name in scales} == {dtype}
    kinds = [node.op_type for node in half.graph.node]
    assert (kinds[-1], kinds.count("Cast")) == ("Cast", 2), "at the edges only"
    assert all(node.op_type != "Cast" for node in proto.graph.node)
