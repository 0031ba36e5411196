"""TensorRT's backend: build settings, small weights, and what it refuses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx.numpy_helper import to_array
from product_nets import perceptron
from small_nets import HEAD, conv_net, quantise, samples_for, save
from tensorrt_nets import MATRICES, net

from edgekit.backends import load_backend
from edgekit.backends import tensorrt as backend
from edgekit.backends.methods import check_plan
from edgekit.catalog import load_target
from edgekit.checking import runnable
from edgekit.errors import EngineError, ModelError, UnknownName
from edgekit.quantization.schemes import Plan
from edgekit.runtime import open_artifact
from edgekit.runtime.numbers import run_batched, snr_db

TARGET = "jetson-orin-nano"


def target_with(**options):
    return load_target(TARGET).model_copy(update={"options": {"tensorrt": options}})


@pytest.fixture
def fp32(tmp_path):
    return save(conv_net(channels=16), tmp_path / "float")


# Build settings


@pytest.mark.parametrize(("asked", "given"), [(None, 1750), (512, 512), (4000, 1750)])
def test_the_workspace_is_a_quarter_of_the_memory_at_most(asked, given, fp32, tmp_path):
    target = target_with(**({} if asked is None else {"workspace_mb": asked}))
    assert backend.compile(fp32, target, 1, tmp_path / "out").options["workspace_mb"] == given


def test_what_the_target_says_goes_to_the_device(fp32, tmp_path):
    target = target_with(optimization_level=5, hardware_compatible=True)
    options = backend.compile(fp32, target, 1, tmp_path / "out").options
    assert options == {
        "precision": "fp32",
        "optimization_level": 5,
        "hardware_compatible": True,
        "workspace_mb": 1750,
    }


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"workspace": 5}, UnknownName, r"(?s)tensorrt option.*did you mean 'workspace_mb'"),
        ({"workspace_mb": "big"}, EngineError, "whole number"),
        ({"optimization_level": 6}, EngineError, r"(?s)out of range.*found: +6.*0 to 5"),
        ({"precision": "int8"}, EngineError, r"(?s)precision lies in the graph.*--precision"),
        ({"dla_core": 0}, EngineError, r"(?s)DLA does not run a model in fp32.*fp16"),
        ({"profile_min": "image:1x3x16x16"}, EngineError, "this model has none"),
        ({"profile_min": "image:1xa"}, EngineError, r"(?s)'profile_min' cannot be read.*input:1x3x224x224"),
    ],
)
def test_a_setting_that_tensorrt_would_refuse_is_refused_here(options, error, said, fp32, tmp_path):
    with pytest.raises(error, match=said):
        backend.compile(fp32, target_with(**options), 1, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_int8_on_the_dla_is_refused_with_the_reason_and_fp16_is_not(fp32, tmp_path):
    int8 = quantise("tensorrt", TARGET, fp32, tmp_path / "int8")
    with pytest.raises(EngineError, match=r"(?s)DLA does not run a model in int8.*implicit quantisation"):
        backend.compile(int8, target_with(dla_core=0), 1, tmp_path / "out")
    fp16 = quantise("tensorrt", TARGET, fp32, tmp_path / "fp16", precision="fp16", method=None, scheme=None)
    assert backend.compile(fp16, target_with(dla_core=0), 1, tmp_path / "half").options["dla_core"] == 0


OPEN = {
    "profile_min": "image:1x3x16x16",
    "profile_opt": "image:1x3x32x32",
    "profile_max": "image:1x3x64x64",
}


def test_open_dimensions_need_profiles_that_fit(tmp_path):
    fp32 = save(conv_net(size='"side"'), tmp_path / "open")
    built = backend.compile(fp32, target_with(**OPEN), 1, tmp_path / "out")
    assert {name: built.options[name] for name in OPEN} == OPEN
    for options, said in (
        ({}, r"(?s)how far open dimensions go.*image.*no profile given.*profile_min = \"image:1x3x128x128\""),
        ({"profile_min": OPEN["profile_min"]}, "only profile_min given"),
        (OPEN | {"profile_max": "image:1x3x8x8"}, "min <= opt <= max"),
        (OPEN | {"profile_opt": "image:2x3x32x32"}, "do not fit input image"),
        (OPEN | {"profile_opt": "other:1x3x32x32"}, "do not fit input image"),
        (OPEN | {"profile_opt": "image:1x3x32"}, "do not fit input image"),
    ):
        with pytest.raises(EngineError, match=said):
            backend.compile(fp32, target_with(**options), 1, tmp_path / "refused")


def test_a_graph_that_breaks_a_rule_is_refused(made, tmp_path):
    with pytest.raises(ModelError, match="uint8"):
        backend.compile(made("onnxruntime", "x86-vnni"), load_target(TARGET), 1, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# Plans


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"activation_signed": False}, "activation_signed = False"),
        ({"activation_symmetric": False}, "activation_symmetric = False"),
        ({"weight_symmetric": False}, "weight_symmetric = False"),
        ({"quantize_bias": True}, "quantize_bias = True"),
        ({"reduce_range": True}, "reduce_range = True"),
        ({"operators": {"Conv": (0, 1), "Sigmoid": (0,)}}, "names Sigmoid"),
    ],
)
def test_a_scheme_that_tensorrt_does_not_read_is_refused(fields, said):
    target = load_target(TARGET)
    plan = Plan(engine="tensorrt", precision="int8", method="minmax", scheme=replace(backend.scheme(target), **fields))
    with pytest.raises(EngineError, match=said):
        check_plan(plan, target)


def test_corrections_are_for_int8():
    plan = Plan(engine="tensorrt", precision="w8", method="round", corrections=("equalize",))
    assert backend.refuses(plan, load_target(TARGET)) == "corrections are for static int8, and this is w8"
    check_plan(Plan(engine="tensorrt", precision="fp16"), load_target(TARGET))


# Small weights


@pytest.mark.parametrize(("precision", "least_db", "opset"), [("w8", 35.0, 20), ("w4", 12.0, 21)])
def test_weights_of_matrix_products_are_stored_small_and_nothing_else_is_quantised(
    precision, least_db, opset, tmp_path
):
    fp32 = save(perceptron(), tmp_path / "float")
    artifact = quantise("tensorrt", TARGET, fp32, tmp_path / precision, precision=precision, method="round")
    made = onnx.load(artifact.path)
    onnx.checker.check_model(made, full_check=True)
    assert made.opset_import[0].version == opset
    kinds = [node.op_type for node in made.graph.node]
    assert (kinds.count("DequantizeLinear"), kinds.count("QuantizeLinear")) == (3, 0)
    weights = {tensor.name: to_array(tensor) for tensor in made.graph.initializer}
    stored = [weights[node.input[0]] for node in made.graph.node if node.op_type == "DequantizeLinear"]
    assert {str(one.dtype) for one in stored} == {"int8" if precision == "w8" else "int4"}
    assert artifact.notes == (f"weights of 3 matrix products in {precision[1:]} bits",)
    feeds = samples_for(fp32.inputs).tensors(range(8))
    outputs = []
    for one in (fp32, backend.compile(artifact, load_target(TARGET), 1, tmp_path / "built")):
        session = open_artifact(runnable(replace(one, engine="tensorrt")))
        outputs.append(run_batched(session, feeds)["y"])
        session.close()
    assert snr_db(*outputs) > least_db


def test_what_has_no_small_weights_is_told(fp32, tmp_path):
    odd = """odd (float["n", 6, 16] x) => (float["n", 6, 7] y) { [even] a = MatMul(x, w0) [odd] y = MatMul(a, w1) }"""
    rng = np.random.default_rng(0)
    weights = {"w0": rng.normal(size=(16, 8)).astype("float32"), "w1": rng.normal(size=(8, 7)).astype("float32")}
    model = save(net(odd, **weights), tmp_path / "odd")
    artifact = quantise("tensorrt", TARGET, model, tmp_path / "w4", precision="w4", method="round")
    assert "left in float: odd (TensorRT takes int4 in pairs, and its last axis is odd)" in artifact.notes
    artifact = quantise("tensorrt", TARGET, fp32, tmp_path / "w8", precision="w8", method="round")
    assert "left in float: conv0, conv1, conv2 (weights of 8 and 4 bits are for matrix products only)" in artifact.notes
    only = save(net(MATRICES), tmp_path / "only")
    plan = {"precision": "w8", "method": "round", "float_groups": ("first", "second")}
    with pytest.raises(ModelError, match="the plan leaves all of them in float"):
        quantise("tensorrt", TARGET, only, tmp_path / "none", **plan)


def test_a_model_that_is_no_float_is_refused(fp32, tmp_path):
    int8 = quantise("tensorrt", TARGET, fp32, tmp_path / "int8")
    for precision in ("int8", "w8"):
        with pytest.raises(ModelError, match="is quantised already"):
            quantise("tensorrt", TARGET, int8, tmp_path / "again", precision=precision)


def test_a_node_that_there_is_not_is_told(fp32, tmp_path):
    with pytest.raises(UnknownName, match="did you mean 'conv1'"):
        quantise("tensorrt", TARGET, fp32, tmp_path / "int8", float_groups=("conf1",))


def test_the_file_holds_no_path_of_the_build_machine(tmp_path):
    from small_nets import note

    proto = conv_net(channels=16)
    note(proto)
    artifact = quantise("tensorrt", TARGET, save(proto, tmp_path / "float"), tmp_path / "int8")
    assert b"secret" not in artifact.path.read_bytes()
    assert str(tmp_path).encode() not in artifact.path.read_bytes()
    assert set(artifact.files) == {"model.onnx"}


def test_weights_in_a_file_beside_the_model_are_read(tmp_path):
    fp32 = save(conv_net(channels=16), tmp_path / "float")
    proto = onnx.load(fp32.path)
    beside = save(proto, tmp_path / "beside", save_as_external_data=True, size_threshold=0, location="weights.bin")
    assert set(beside.files) == {"model.onnx", "weights.bin"}
    ours = [quantise("tensorrt", TARGET, one, tmp_path / str(i)) for i, one in enumerate((fp32, beside))]
    assert ours[0].files == ours[1].files


def test_a_model_without_an_opset_of_its_own_is_no_trouble(tmp_path):
    proto = onnx.parser.parse_model(HEAD + 'tiny (float["n", 4] x) => (float["n", 4] y) { [act] y = Relu(x) }')
    with pytest.raises(ModelError, match="no convolution and no matrix product"):
        quantise("tensorrt", TARGET, save(proto, tmp_path / "float"), tmp_path / "int8")
    assert load_backend("tensorrt").missing(load_target(TARGET)) is None
