"""TensorRT's rules on graphs as a whole: weights elsewhere, broken values, size, what is no breach."""

import numpy as np
import onnx
import pytest
from onnx.parser import parse_model
from small_nets import conv_net

from edgekit.backends.tensorrt_rules import violations, wiring

HEAD = '<ir_version: 10, opset_import: ["" : 20]>'
MATMUL = (
    HEAD
    + """
net (float[1, 64] x) => (float[1, 64] y) {
    [q] xq = QuantizeLinear(x, s, z)
    [dq] xd = DequantizeLinear(xq, s, z)
    [wdq] wd = DequantizeLinear<axis = 1>(w, ws, wz)
    [mul] y = MatMul(xd, wd)
}"""
)


def apart(folder, *, scale=0.1):
    """A model all of whose constants lie in a file beside it; its graph alone, as it is read without them."""
    proto = parse_model(MATMUL)
    values = {
        "s": np.float32(scale),
        "z": np.int8(0),
        "w": np.ones((64, 64), np.int8),
        "ws": np.full(64, scale, np.float32),
        "wz": np.zeros(64, np.int8),
    }
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in values.items())
    folder.mkdir(exist_ok=True)
    onnx.save(proto, folder / "model.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    return onnx.load(folder / "model.onnx", load_external_data=False)


def test_scales_are_read_from_the_file_beside_the_model(tmp_path):
    assert violations(apart(tmp_path), folder=tmp_path) == []
    broken = apart(tmp_path / "broken", scale=-0.1)
    found = violations(broken, folder=tmp_path / "broken")
    assert [(one.rule, one.node) for one in found] == [("scale", "q"), ("scale", "dq"), ("scale", "wdq")]
    assert violations(broken) == []  # without the folder there are no values to look at


def test_a_file_that_is_missing_or_cut_off_is_told_and_the_rest_is_judged(tmp_path):
    proto = apart(tmp_path)
    file = tmp_path / "w.bin"
    size = file.stat().st_size
    file.write_bytes(file.read_bytes()[:100])
    found = violations(proto, folder=tmp_path)
    assert [(one.rule, one.node, one.found) for one in found] == [
        ("external-data", "w.bin", f"100 bytes; its tensors end at {size}")
    ]
    file.unlink()
    proto.graph.node[3].op_type = "Det"
    found = violations(proto, folder=tmp_path)
    assert [(one.rule, one.node) for one in found] == [("external-data", "w.bin"), ("operator", "mul")]
    assert "is missing" in found[0].found
    assert "copy the model together with" in found[0].fix


@pytest.mark.parametrize("name", ["../w.bin", "/etc/hostname"])
def test_a_file_outside_the_folder_is_not_opened(tmp_path, name):
    proto = apart(tmp_path / "model")
    (tmp_path / "w.bin").write_bytes(bytes(10_000))
    for tensor in proto.graph.initializer:
        entry = next(entry for entry in tensor.external_data if entry.key == "location")
        entry.value = name
    found = violations(proto, folder=tmp_path / "model")
    assert {(one.rule, one.node) for one in found} == {("external-data", name)}


def test_weights_are_neither_copied_nor_read(tmp_path, monkeypatch):
    proto = apart(tmp_path)
    proto.graph.initializer[2].CopyFrom(onnx.numpy_helper.from_array(np.ones((2000, 2000), np.int8), "w"))
    held = onnx.helper.make_node("Constant", [], ["k"], value=onnx.numpy_helper.from_array(np.ones(500_000, np.int32)))
    proto.graph.node.insert(0, held)
    sizes = []
    infer = onnx.shape_inference.infer_shapes

    def counted(light, **how):
        sizes.append(light.ByteSize())
        return infer(light, **how)

    monkeypatch.setattr(onnx.shape_inference, "infer_shapes", counted)
    monkeypatch.setattr(wiring.View, "values", lambda view, name: read.append(name))
    read: list[str] = []
    violations(proto, folder=tmp_path)
    assert len(sizes) == 1
    assert sizes[0] < 5_000
    assert set(read) == {"s", "z", "ws", "wz"}


def test_nodes_are_looked_at_a_fixed_number_of_times(monkeypatch):
    """Twice the nodes are looked up twice as often, not four times."""
    counts = []
    for length in (100, 200):
        body = "\n".join(f"[e{i}] a{i + 1} = Add(a{i}, a{i})" for i in range(length))
        proto = parse_model(f"{HEAD}\nnet (float[1, 2] a0) => (float[1, 2] a{length}) {{ {body} }}")
        seen = []
        known = wiring.View.maker
        with monkeypatch.context() as patched:
            patched.setattr(wiring.View, "maker", lambda *of, seen=seen, f=known: (seen.append(of), f(*of))[1])
            assert violations(proto) == []
        counts.append(len(seen))
    assert 0 < counts[1] <= 2 * counts[0] + 10


def test_a_float_network_is_clean():
    assert violations(conv_net()) == []
    assert violations(conv_net(), rules="tensorrt-10") == []


def test_shapes_may_be_computed():
    text = (
        HEAD
        + """
net (float["n", 3, 4] x) => (float["n", "m"] y) <int64[1] first = {0}, int64[1] rest = {-1}, int64[1] one = {1}> {
    [shape] s = Shape(x)
    [take] b = Gather(s, first)
    [cat] t = Concat<axis = 0>(b, rest)
    [reshape] y = Reshape(x, t)
}"""
    )
    assert violations(parse_model(text)) == []


def test_an_int8_input_or_output_needs_no_pair():
    text = (
        HEAD
        + """
net (int8[1, 4] x) => (int8[1, 4] y) <float s = {0.1}, int8 z = {0}> {
    [dq] d = DequantizeLinear(x, s, z)
    [r] r = Relu(d)
    [q] y = QuantizeLinear(r, s, z)
}"""
    )
    assert violations(parse_model(text)) == []


def test_a_convolution_with_two_readers_is_no_branch_to_fuse():
    """x * sigmoid(x) of one convolution, added: neither reader can be fused into it."""
    text = (
        HEAD
        + """
net (float[1, 2, 4, 4] x) => (float[1, 2, 4, 4] y) <float s = {0.1}, int8 z = {0}, float[2, 2, 1, 1] w = {1, 2, 3, 4}> {
    [conv] c = Conv(x, w)
    [q] a = QuantizeLinear(c, s, z)
    [dq] b = DequantizeLinear(a, s, z)
    [act] d = Sigmoid(c)
    [q2] e = QuantizeLinear(d, s, z)
    [dq2] f = DequantizeLinear(e, s, z)
    [add] y = Add(b, f)
}"""
    )
    assert violations(parse_model(text)) == []


def test_a_model_that_says_nothing_of_types_or_names_is_judged_all_the_same():
    proto = parse_model(HEAD + "\nnet (float[2] x) => (float[2] y) { a = Det(x)\n y = Strange(a) }")
    del proto.graph.output[0].type.tensor_type.shape.dim[:]
    proto.graph.input[0].ClearField("type")
    found = violations(proto)
    assert [(one.rule, one.node) for one in found] == [("operator", "Det -> a"), ("operator", "Strange -> y")]


def test_a_graph_that_goes_in_a_circle_is_told():
    text = (
        HEAD
        + """
net (float[2, 2] x) => (float[2, 2] y) <int8 z = {0}, int8[2, 2] w = {1, 2, 3, 4}> {
    [cast] s = Cast<to = 1>(s)
    [turn] t = Transpose(t)
    [dq] d = DequantizeLinear(w, s, z)
    [mul] y = MatMul(x, d)
}"""
    )
    found = violations(parse_model(text))
    assert [(one.rule, one.node) for one in found if one.rule == "order"] == [("order", "cast"), ("order", "turn")]


def test_a_model_without_an_opset():
    proto = parse_model(HEAD + "\nnet (float[2] x) => (float[2] y) { [r] y = Relu(x) }")
    del proto.opset_import[:]
    assert [(one.rule, one.found) for one in violations(proto)] == [("opset", "opset not named")]
