"""Reading, cleaning, describing and fixing ONNX files."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx.parser import parse_model

from edgekit.artifact import hash_file
from edgekit.conversion.clean import (
    all_nodes,
    describe_onnx,
    fix_batch,
    free_constants,
    is_large,
    load_onnx,
    save_onnx,
    sort_nodes,
    strip_metadata,
    with_fixed_batch,
)
from edgekit.errors import BundleError, ModelError

HEAD = '<ir_version: 9, opset_import: ["" : 20]>\n'
IF = """branches (float["batch", 4] input, bool flag) => (float["batch", 4] output) {
    output = If (flag) <
        then_branch = yes () => (float["batch", 4] a) { a = Add(input, input) },
        else_branch = no () => (float["batch", 4] b) { c = Neg(input)
            b = Relu(c) }
    >
}"""
WEIGHTED = """weighted (float["batch", 4] input) => (float["batch", 4] output)
    <float[4, 4] w = {1, 0, 0, 0, 0, 2, 0, 0, 0, 0, 3, 0, 0, 0, 0, 4}> { output = MatMul(input, w) }"""


def model(text):
    return parse_model(HEAD + text)


def shapes(proto):
    """The shapes of inputs and outputs."""
    return {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*proto.graph.input, *proto.graph.output)
    }


@pytest.fixture
def weighted(tmp_path):
    """A model of one matrix, saved with its weights in another file."""
    path = tmp_path / "model.onnx"
    proto = model(WEIGHTED)
    (matrix,) = proto.graph.initializer
    matrix.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(matrix), "w"))  # as raw bytes
    onnx.save(proto, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    return path


# Reading


def test_a_model_is_read_with_its_external_data(weighted):
    (matrix,) = load_onnx(weighted).graph.initializer
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(matrix), np.diag([1, 2, 3, 4]))


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(ModelError, match=r"none.onnx: no such file"):
        load_onnx(tmp_path / "none.onnx")


@pytest.mark.parametrize("content", [b"PK\x03\x04 a zip archive", b"\x08\x09\x12\x7fcut off", b"not ONNX at all"])
def test_a_file_that_is_no_model_is_told(content, tmp_path):
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(ModelError, match=r"model.onnx: not a valid ONNX model\n.*found"):
        load_onnx(tmp_path / "model.onnx")


@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_a_truncated_model_is_told(kept, tmp_path):
    data = model(WEIGHTED).SerializeToString()
    (tmp_path / "model.onnx").write_bytes(data[: int(kept * len(data))])
    with pytest.raises(ModelError, match="not a valid ONNX model"):
        load_onnx(tmp_path / "model.onnx")


def test_an_empty_file_is_told(tmp_path):
    (tmp_path / "model.onnx").touch()
    with pytest.raises(BundleError, match=r"not an ONNX file\n.*it is empty"):
        load_onnx(tmp_path / "model.onnx")


def test_an_operator_that_does_not_exist_is_named(tmp_path):
    onnx.save(model("g (float[2] input) => (float[2] output) { output = Frobnicate(input) }"), tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"not a valid ONNX model\n.*Frobnicate"):
        load_onnx(tmp_path / "m.onnx")


@pytest.mark.parametrize("location", ["../outside.bin", "/etc/hostname", "..\\outside.bin"])
def test_external_data_outside_the_folder_is_refused(location, weighted):
    proto = onnx.load(weighted, load_external_data=False)
    proto.graph.initializer[0].external_data[0].value = location
    weighted.write_bytes(proto.SerializeToString())
    with pytest.raises(BundleError, match="points outside its folder"):
        load_onnx(weighted)


def test_missing_external_data_is_told(weighted):
    (weighted.parent / "weights.bin").unlink()
    with pytest.raises(BundleError, match=r"the file 'weights.bin' is missing"):
        load_onnx(weighted)


def test_truncated_external_data_is_told(weighted):
    (weighted.parent / "weights.bin").write_bytes(b"\0" * 10)
    with pytest.raises(ModelError, match="not a valid ONNX model"):
        load_onnx(weighted)


# Writing


def test_only_large_weights_are_written_beside_the_model(tmp_path, monkeypatch):
    proto = model("big (float[1, 512] input) => (float[1, 512] output) { output = Mul(input, w) }")
    weight = np.arange(512, dtype=np.float32)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    monkeypatch.setattr("edgekit.conversion.clean.EXTERNAL_DATA_BYTES", 2048)
    assert not is_large(proto)
    monkeypatch.setattr("edgekit.conversion.clean.EXTERNAL_DATA_BYTES", 2047)
    assert is_large(proto)
    save_onnx(proto, tmp_path / "model.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "model.onnx.data"]
    (read,) = load_onnx(tmp_path / "model.onnx").graph.initializer
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(read), weight)


# Metadata


def note_everywhere(message, text):
    """Writes a text into every note a message and its parts can hold."""
    for field in message.DESCRIPTOR.fields:
        if field.name == "doc_string":
            message.doc_string = text
        elif field.name == "metadata_props":
            message.metadata_props.add(key="pkg.torch.onnx.stack_trace", value=text)
        elif field.message_type is not None:
            value = getattr(message, field.name)
            if hasattr(value, "DESCRIPTOR"):
                if message.HasField(field.name):
                    note_everywhere(value, text)
            else:
                for item in value:
                    note_everywhere(item, text)


def test_notes_are_removed_everywhere_and_nothing_else():
    text = """<ir_version: 9, opset_import: ["" : 20, "own" : 1]>
        main (float["batch", 4] input, bool flag) => (float["batch", 4] output) <float[1] one = {1.0}> {
            doubled = own.twice(input)
            output = If (flag) <
                then_branch = yes () => (float["batch", 4] a) { a = Add(doubled, one) },
                else_branch = no () => (float["batch", 4] b) { b = Identity(doubled) }
            >
        }
        <domain: "own", opset_import: ["" : 20]>
        twice (x) => (y) {
            two = Constant <value = float[1] {2.0}> ()
            y = Mul(x, two)
        }"""
    clean, noted = parse_model(text), parse_model(text)
    note_everywhere(noted, "/home/somebody/secret.py")
    assert noted.SerializeToString().count(b"secret") > 20
    strip_metadata(noted)
    assert noted == clean


def test_nodes_are_found_inside_branches():
    assert sorted(node.op_type for node in all_nodes(model(IF).graph)) == ["Add", "If", "Neg", "Relu"]


# Describing


def test_a_description_names_files_inputs_and_outputs(weighted):
    artifact = describe_onnx(weighted, precision="fp32", parent="abc")
    assert artifact.files == {name: hash_file(weighted.parent / name) for name in ("model.onnx", "weights.bin")}
    assert [str(spec) for spec in (*artifact.inputs, *artifact.outputs)] == [
        "input: float32[batch, 4]",
        "output: float32[batch, 4]",
    ]
    assert (artifact.engine, artifact.precision, artifact.parent) == ("onnx", "fp32", "abc")


def test_element_types_are_numpys(tmp_path):
    types = ["float16", "double", "int64", "uint8", "bool"]
    inputs = ", ".join(f"{kind}[2] {kind}_in" for kind in types)
    outputs = ", ".join(f"{kind}[2] {kind}_out" for kind in types)
    body = "\n".join(f"{kind}_out = Identity({kind}_in)" for kind in types)
    onnx.save(model(f"g ({inputs}) => ({outputs}) {{ {body} }}"), tmp_path / "m.onnx")
    dtypes = [spec.dtype for spec in describe_onnx(tmp_path / "m.onnx", precision="fp32").inputs]
    assert dtypes == ["float16", "float64", "int64", "uint8", "bool"]


def test_an_output_size_that_follows_from_the_inputs_is_filled_in(tmp_path):
    text = """g (float[1, 4, 6] input) => (float[N, M] output) <int64[2] flat = {0, -1}> {
        output = Reshape(input, flat)
    }"""
    onnx.save(model(text), tmp_path / "m.onnx")
    (output,) = describe_onnx(tmp_path / "m.onnx", precision="fp32").outputs
    assert output.shape == (1, 24)


def test_an_open_dimension_without_a_name_is_named_by_its_tensor_and_axis(tmp_path):
    proto = model("g (float[N, 4, M] input) => (float[N, 4, M] output) { output = Relu(input) }")
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[2].ClearField("dim_param")
    onnx.save(proto, tmp_path / "m.onnx")
    artifact = describe_onnx(tmp_path / "m.onnx", precision="fp32")
    assert artifact.inputs[0].shape == ("N", 4, "input_d2")
    assert artifact.outputs[0].shape[:2] == ("N", 4)


def test_an_output_that_is_no_tensor_is_refused(tmp_path):
    onnx.save(model("g (float[2] x) => (seq(float[2]) xs) { xs = SequenceConstruct(x) }"), tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"output 'xs' is not a tensor\n.*sequence_type"):
        describe_onnx(tmp_path / "m.onnx", precision="fp32")


# A fixed batch


def test_a_dynamic_batch_becomes_fixed_wherever_it_is_named():
    proto = model(
        """g (float["batch", 4] left, float["n", 4] right, float["side", "batch"] other)
        => (float["batch", 4] sum, float["batch", "side"] turned) {
            sum = Add(left, right)
            turned = Transpose(other)
        }"""
    )
    fix_batch(proto, 3)
    assert shapes(proto) == {"left": [3, 4], "right": [3, 4], "other": [3, 3], "sum": [3, 4], "turned": [3, 3]}


def test_other_dimensions_stay_dynamic():
    proto = model('g (float["batch", "time"] input) => (float["batch", "time"] output) { output = Relu(input) }')
    fix_batch(proto, 2)
    assert shapes(proto) == {"input": [2, "time"], "output": [2, "time"]}


def test_an_input_without_dimensions_is_left_alone():
    proto = model('g (float scale, float["batch"] x) => (float["batch"] y) { y = Mul(x, scale) }')
    fix_batch(proto, 2)
    assert shapes(proto) == {"scale": [], "x": [2], "y": [2]}


@pytest.mark.parametrize("batch", [1, 8])
def test_a_batch_fixed_to_something_else_is_told(batch):
    proto = model("g (float[4, 2] input) => (float[4, 2] output) { output = Relu(input) }")
    with pytest.raises(ModelError, match=f"'input' has a fixed batch of 4\n.*batch is {batch}\n(.*\n)*.*dynamic batch"):
        fix_batch(proto, batch)


def test_a_batch_fixed_to_the_same_is_right():
    proto = model("g (float[4, 2] input) => (float[4, 2] output) { output = Relu(input) }")
    fix_batch(proto, 4)
    assert shapes(proto) == {"input": [4, 2], "output": [4, 2]}


def old_style():
    """IR version 3: the initialiser is on the list of inputs."""
    proto = parse_model('<ir_version: 3, opset_import: ["" : 9]>\n' + WEIGHTED)
    matrix = onnx.helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, [4, 4])
    proto.graph.input.append(matrix)
    return proto


def test_initialisers_are_no_inputs(tmp_path):
    onnx.save(old_style(), tmp_path / "m.onnx")
    assert [spec.name for spec in describe_onnx(tmp_path / "m.onnx", precision="fp32").inputs] == ["input"]


def test_initialisers_become_constants():
    proto = old_style()
    fix_batch(proto, 2)
    assert shapes(proto) == {"input": [2, 4], "output": [2, 4]}
    assert proto.ir_version == 4
    onnx.checker.check_model(proto)


def test_a_model_without_such_initialisers_keeps_its_ir_version():
    proto = model(WEIGHTED)
    free_constants(proto)
    assert proto == model(WEIGHTED)


def test_what_is_written_with_a_fixed_batch_names_its_parent_and_no_machine(weighted, tmp_path):
    proto = onnx.load(weighted)
    note_everywhere(proto, "/home/somebody/secret.py")
    onnx.save(proto, weighted)
    parent = describe_onnx(weighted, precision="int8")
    built = with_fixed_batch(parent, 2, tmp_path / "new" / "folder")
    assert (built.parent, built.precision, built.files.keys()) == (parent.sha256, "int8", {"model.onnx"})
    assert built.inputs[0].shape == (2, 4)
    assert b"secret" not in built.path.read_bytes()


def test_nodes_are_sorted_behind_what_their_branches_need():
    proto = model("""g (float[4] x, bool flag) => (float[4] y) {
        w = Neg(x)
        y = If (flag) <then_branch = a () => (float[4] t) { t = Relu(w) },
                       else_branch = b () => (float[4] e) { e = Abs(v) }>
        v = Exp(w)
    }""")
    nodes = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend(nodes[::-1])
    sort_nodes(proto.graph)
    assert [node.op_type for node in proto.graph.node] == ["Neg", "Exp", "If"]


def test_an_output_without_a_shape_says_how_to_state_it(tmp_path):
    proto = model("g (float[4] x) => (float[4] y) { y = Neg(x) }")
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    onnx.save(proto, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="not a valid ONNX model") as caught:
        load_onnx(tmp_path / "m.onnx")
    assert "infer_shapes" in caught.value.fix
