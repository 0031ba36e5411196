"""ONNX Runtime's dialect as it is written, and that its int8 kernels take it."""

from __future__ import annotations

import gc
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx.numpy_helper import to_array
from small_nets import HEAD, conv_net, quantise, samples_for, save

from edgekit.artifact import TensorSpec
from edgekit.backends import onnxruntime as backend
from edgekit.backends.onnxruntime import VNNI_TIERS
from edgekit.catalog import load_target
from edgekit.conversion.clean import describe_onnx
from edgekit.data import Samples
from edgekit.errors import EngineError, ModelError
from edgekit.profiling.host import this_host
from edgekit.profiling.memory import peak_of
from edgekit.quantization.schemes import Plan
from edgekit.runtime import open_artifact
from edgekit.runtime.numbers import run_batched, snr_db

ENGINE = "onnxruntime"
needs_vnni = pytest.mark.skipif(this_host().isa not in VNNI_TIERS, reason="needs a host with VNNI")


def constants(proto):
    return {tensor.name: to_array(tensor) for tensor in proto.graph.initializer}


def quantisers(artifact):
    """Zero points of all activations, and (values, scale, zero point) of the weights and biases of Conv and Gemm."""
    proto = onnx.load(artifact.path)
    values = constants(proto)
    producers = {node.output[0]: node for node in proto.graph.node}
    activations = [values[node.input[2]] for node in proto.graph.node if node.op_type == "QuantizeLinear"]
    weights, biases = [], []
    for node in proto.graph.node:
        if node.op_type in ("Conv", "Gemm"):
            weights.append([values[name] for name in producers[node.input[1]].input])
            biases.append([values[name] for name in producers[node.input[2]].input])
    return activations, weights, biases


@pytest.mark.parametrize(
    ("target", "name", "activation", "most"),
    [
        ("x86-vnni", "u8s8-per-channel", np.uint8, 127),
        ("x86-avx2", "u8s8-per-channel-7bit", np.uint8, 64),
        ("cpu-generic", "u8s8-per-channel-7bit", np.uint8, 64),
        ("raspberry-pi-4", "s8s8-per-channel", np.int8, 127),
    ],
)
def test_the_dialect_written_is_the_targets(target, name, activation, most, made):
    assert backend.scheme(load_target(target)).name == name
    activations, weights, biases = quantisers(made(ENGINE, target))
    assert {zero_point.dtype for zero_point in activations} == {np.dtype(activation)}
    assert len(weights) == len(biases) == 4
    for values, scale, zero_point in weights:
        assert values.dtype == np.int8
        assert scale.shape == (len(values),)  # one an output channel
        assert not zero_point.any()
        assert most - 1 <= np.abs(values.astype(int)).max() <= most
    for values, scale, zero_point in biases:
        assert values.dtype == np.int32
        assert scale.shape == values.shape
        assert not zero_point.any()


@needs_vnni
@pytest.mark.parametrize("target", ["x86-vnni", "x86-avx2"])
def test_every_compute_node_runs_in_int8(target, made, tmp_path):
    built = backend.compile(made(ENGINE, target), load_target(target), 1, tmp_path)
    session = open_artifact(built)
    placement = session.placement()
    session.close()
    assert sorted(node.op for node in placement.nodes if node.compute) == ["QGemm", *["QLinearConv"] * 3]
    assert placement.share("int8") == 1.0
    assert made(ENGINE, target).notes == ()


def test_a_quantised_model_is_near_the_float_one(made, float_net, tmp_path):
    feeds = samples_for(float_net.inputs, 16).tensors(range(16))
    outputs = []
    for name, artifact in (("fp32", float_net), ("int8", made(ENGINE, "x86-vnni"))):
        session = open_artifact(backend.compile(artifact, load_target("x86-vnni"), 4, tmp_path / name))
        outputs.append(run_batched(session, feeds)["logits"])
        session.close()
    assert 20.0 < snr_db(*outputs) < 90.0


def test_an_artifact_says_what_it_was_made_of(made, float_net):
    artifact = made(ENGINE, "x86-vnni")
    assert (artifact.engine, artifact.precision, artifact.parent) == ("onnx", "int8", float_net.sha256)
    assert (artifact.inputs, artifact.outputs) == (float_net.inputs, float_net.outputs)
    proto = onnx.load(artifact.path)
    assert {entry.domain for entry in proto.opset_import} == {""}


def test_nothing_of_the_build_machine_is_in_any_file(made, float_net, tmp_path):
    assert b"secret" in float_net.path.read_bytes()
    target = load_target("x86-vnni")
    artifacts = [made(ENGINE, "x86-vnni")]
    artifacts += [backend.compile(a, target, 1, tmp_path / a.precision) for a in (artifacts[0], float_net)]
    for artifact in artifacts:
        data = artifact.path.read_bytes()
        assert [word for word in (b"secret", b"/tmp", str(tmp_path).encode(), b"site-packages") if word in data] == []


def test_two_runs_give_the_same_bytes(made, float_net, tmp_path):
    again = quantise(ENGINE, "x86-vnni", float_net, tmp_path / "again")
    assert again.sha256 == made(ENGINE, "x86-vnni").sha256
    target = load_target("x86-vnni")
    built = [backend.compile(again, target, 1, tmp_path / name) for name in ("one", "two")]
    assert built[0].sha256 == built[1].sha256


def test_quantising_is_silent(float_net, tmp_path, capfd):
    proto = onnx.load(float_net.path)
    for tensor in proto.graph.initializer:  # listed as an input: ONNX Runtime warns of each
        value = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        proto.graph.input.append(value)
    quantise(ENGINE, "x86-vnni", save(proto, tmp_path / "float"), tmp_path / "int8")
    assert capfd.readouterr() == ("", "")


def test_groups_left_in_float_stay_there_and_are_noted(float_net, tmp_path):
    artifact = quantise(ENGINE, "x86-vnni", float_net, tmp_path, float_groups=("conv1", "linear"))
    assert artifact.notes == ("left in float: conv1, linear (as the plan says)",)
    proto = onnx.load(artifact.path)
    dequantised = {node.output[0] for node in proto.graph.node if node.op_type == "DequantizeLinear"}
    kinds = {node.name: set(node.input[:2]) <= dequantised for node in proto.graph.node if node.op_type == "Conv"}
    assert kinds == {"conv0": True, "conv1": False, "conv2": True}


def test_what_the_quantiser_has_no_rule_for_is_noted(tmp_path):
    text = """recurrent (float[1, "batch", 4] x) => (float[1, 1, "batch", 3] y) { y = LSTM<hidden_size=3>(x, w, r) }"""
    proto = onnx.parser.parse_model(HEAD + text)
    rng = np.random.default_rng(0)
    for name, shape in (("w", (1, 12, 4)), ("r", (1, 12, 3))):
        proto.graph.initializer.append(onnx.numpy_helper.from_array(rng.normal(size=shape).astype("float32"), name))
    artifact = quantise(ENGINE, "x86-vnni", save(proto, tmp_path / "float"), tmp_path / "int8")
    assert artifact.notes == (
        "left in float: y (ONNX Runtime has no int8 LSTM)",
    )  # it has no name: its output's stands in


# Old models


@pytest.mark.parametrize("opset", [9, 10, 11, 12])
def test_a_model_older_than_scales_per_channel_is_moved_up(opset, tmp_path):
    proto = conv_net()
    proto.opset_import[0].version = opset
    proto.ir_version = 4
    artifact = quantise(ENGINE, "x86-vnni", save(proto, tmp_path / "float"), tmp_path / "int8")
    _, weights, _ = quantisers(artifact)
    assert [scale.shape for _, scale, _ in weights] == [(8,), (8,), (8,), (5,)]
    assert onnx.load(artifact.path).opset_import[0].version == 13


def test_a_newer_model_keeps_its_opset(made):
    assert onnx.load(made(ENGINE, "x86-vnni").path).opset_import[0].version == 20


def test_a_model_that_cannot_be_moved_up_is_told(tmp_path, monkeypatch):
    def broken(proto, version):
        raise RuntimeError("version_conversion/convert.cc\nNo Adapter for Upsample")

    monkeypatch.setattr("onnx.version_converter.convert_version", broken)
    proto = conv_net()
    proto.opset_import[0].version = 9
    with pytest.raises(ModelError, match=r"opset 9 has no scales per channel(.|\n)*No Adapter for Upsample(.|\n)*13"):
        quantise(ENGINE, "x86-vnni", save(proto, tmp_path / "float"), tmp_path / "int8")


def test_weights_in_another_file_are_taken_in(float_net, made, tmp_path):
    proto = onnx.load(float_net.path)
    outside = save(proto, tmp_path / "out", save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert outside.files.keys() == {"model.onnx", "weights.bin"}
    artifact = quantise(ENGINE, "x86-vnni", outside, tmp_path / "int8")
    assert artifact.files == made(ENGINE, "x86-vnni").files


def test_a_model_too_large_for_one_file_is_quantised(tmp_path, made, float_net, monkeypatch):
    wide = save(conv_net(channels=16), tmp_path / "float")
    small = quantise(ENGINE, "x86-vnni", wide, tmp_path / "small")
    monkeypatch.setattr("edgekit.conversion.clean.EXTERNAL_DATA_BYTES", 1000)
    large = quantise(ENGINE, "x86-vnni", wide, tmp_path / "large")
    assert large.files.keys() == {"model.onnx", "model.onnx.data"}
    assert constants(onnx.load(large.path)).keys() == constants(onnx.load(small.path)).keys()
    built = backend.compile(large, load_target("x86-vnni"), 1, tmp_path / "built")
    assert built.files.keys() == {"model.onnx", "model.onnx.data"}
    feeds = samples_for(wide.inputs).tensors(range(8))
    outputs = []
    for artifact in (built, backend.compile(small, load_target("x86-vnni"), 1, tmp_path / "built-small")):
        session = open_artifact(artifact)
        outputs.append(run_batched(session, feeds)["logits"])
        session.close()
    np.testing.assert_array_equal(*outputs)


def test_calibration_keeps_no_intermediate_outputs(tmp_path):
    """Sixteen activations of a megabyte over 64 batches are a gigabyte; one batch's are 16 MB."""
    fp32 = save(conv_net(convs=8, channels=64, size=64), tmp_path / "float")
    rng = np.random.default_rng(0)
    fetch = lambda i: {"image": rng.normal(size=(len(i), 3, 64, 64)).astype("float32")}  # noqa: E731
    plan = Plan(engine=ENGINE, precision="int8", method="minmax", scheme=backend.scheme(load_target("x86-vnni")))
    peaks: dict[str, float | None] = {}
    for phase, count in (("few", 4), ("many", 64)):
        gc.collect()
        data = Samples(name="made", count=count, fetch=fetch).batches(1)
        with peak_of(phase, peaks):
            backend.quantize(fp32, data, plan, tmp_path / phase)
    if None in peaks.values():
        pytest.skip("needs a host whose kernel resets the peak memory")
    assert peaks["many"] - peaks["few"] < 300.0


# Compiling


def test_options_are_the_targets(float_net, tmp_path):
    target = load_target("raspberry-pi-4").model_copy(
        update={"options": {"onnxruntime": {"session.intra_op.allow_spinning": "0"}, "openvino": {"NUM_STREAMS": 2}}}
    )
    built = backend.compile(float_net, target, 2, tmp_path)
    assert built.options == {
        "provider": "CPUExecutionProvider",
        "inter_op_num_threads": 1,
        "intra_op_num_threads": 4,
        "session.intra_op.allow_spinning": "0",
    }
    assert (built.engine, built.precision, built.parent) == (ENGINE, "fp32", float_net.sha256)
    assert built.inputs == (TensorSpec(name="image", dtype="float32", shape=(2, 3, 16, 16)),)
    assert built.outputs == (TensorSpec(name="logits", dtype="float32", shape=(2, 5)),)


NORMED = """normed (float["batch", 4, 8] x, float["batch", 4, 8] z) => (float["batch", 4, 8] y) {
    a = Add(x, z)
    y = LayerNormalization<axis=-1>(a, g, b)
}"""


def test_the_slow_fusion_of_layer_norms_is_off(tmp_path):
    proto = onnx.parser.parse_model(HEAD + NORMED)
    for name in ("g", "b"):
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(8, np.float32), name))
    built = backend.compile(save(proto, tmp_path / "float"), load_target("x86-vnni"), 1, tmp_path / "built")
    session = open_artifact(built)
    ran = [node.op for node in session.placement().nodes]
    session.close()
    assert "LayerNormalization" in ran
    assert "SkipLayerNormalization" not in ran
    plain = {name: value for name, value in built.options.items() if not name.startswith("optimization.")}
    session = open_artifact(replace(built, options=plain))
    assert "SkipLayerNormalization" in [node.op for node in session.placement().nodes], "else it need not be off"
    session.close()


def test_threads_are_the_engines_choice_where_the_target_names_none(float_net, tmp_path):
    built = backend.compile(float_net, load_target("cpu-generic"), 1, tmp_path)
    assert "intra_op_num_threads" not in built.options


def test_notes_travel_with_the_compiled_model(float_net, tmp_path):
    artifact = quantise(ENGINE, "x86-vnni", float_net, tmp_path / "int8", float_groups=("conv0",))
    built = backend.compile(artifact, load_target("x86-vnni"), 1, tmp_path / "built")
    assert built.notes == ("left in float: conv0 (as the plan says)",)
    assert built.parent == artifact.sha256


def test_an_output_size_that_only_the_engine_knows_is_no_contradiction(tmp_path):
    """The file says N, ONNX Runtime infers 1."""
    text = """g (float["batch", 4, 6] x) => (float[N, M] y) <int64[2] flat = {0, -1}> { y = Reshape(x, flat) }"""
    built = backend.compile(
        save(onnx.parser.parse_model(HEAD + text), tmp_path / "float"), load_target("x86-vnni"), 1, tmp_path / "built"
    )
    assert [spec.shape for spec in built.outputs] == [(1, 24)]


def test_a_batch_fixed_to_something_else_is_told(tmp_path):
    fp32 = save(conv_net(batch="4"), tmp_path / "float")
    with pytest.raises(ModelError, match="input 'image' has a fixed batch of 4"):
        backend.compile(fp32, load_target("x86-vnni"), 1, tmp_path / "built")


def test_what_the_engine_refuses_is_told_when_it_is_compiled(tmp_path):
    text = """g (float[1, 4] x) => (float[1, 4] y) { y = own.Frobnicate(x) }"""
    proto = onnx.parser.parse_model(HEAD.replace("]>", ', "own" : 1]>') + text)
    fp32 = save(proto, tmp_path / "float")
    with pytest.raises(EngineError, match=r"onnxruntime cannot run operator \S*Frobnicate\n.*found"):
        backend.compile(fp32, load_target("x86-vnni"), 1, tmp_path / "built")
    assert describe_onnx(fp32.path, precision="fp32") == fp32
