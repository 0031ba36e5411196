"""What NNCF makes of a model for OpenVINO, the IR as it is written, and that its int8 kernels take it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import onnx
import openvino
import pytest
from small_nets import HEAD, conv_net, quantise, samples_for, save

from edgekit.artifact import TensorSpec
from edgekit.backends import openvino as backend
from edgekit.backends.onnxruntime import VNNI_TIERS
from edgekit.catalog import load_target
from edgekit.errors import BundleError, EngineError, ModelError
from edgekit.profiling.host import this_host
from edgekit.runtime import open_artifact
from edgekit.runtime.numbers import run_batched, snr_db

ENGINE = "openvino"
needs_vnni = pytest.mark.skipif(this_host().isa not in VNNI_TIERS, reason="needs a host with VNNI")


def read(artifact):
    return openvino.Core().read_model(artifact.path)


def int8_weights(artifact):
    """Stored int8 constants of an IR."""
    constants = [node for node in read(artifact).get_ordered_ops() if node.get_type_name() == "Constant"]
    return [node.data for node in constants if node.get_element_type() == openvino.Type.i8]


@pytest.mark.parametrize(
    ("target", "name", "most"),
    [
        ("x86-vnni", "nncf", 127),
        ("x86-avx2", "nncf-7bit", 64),
        ("cpu-generic", "nncf-7bit", 64),
        ("raspberry-pi-4", "nncf", 127),
    ],
)
def test_weights_fill_the_range_the_target_can_sum(target, name, most, made):
    assert backend.scheme(load_target(target)).name == name
    weights = int8_weights(made(ENGINE, target))
    assert len(weights) == 4
    for values in weights:
        assert most - 1 <= np.abs(values.astype(int)).max() <= most


def test_the_preset_is_the_schemes(made):
    settings = ElementTree.parse(made(ENGINE, "x86-vnni").path).find("rt_info/nncf/quantization")
    assert settings.find("preset").get("value") == "performance"
    assert settings.find("target_device").get("value") == "CPU"
    assert settings.find("subset_size").get("value") == "8"


def test_signed_and_unsigned_activations_are_symmetric(made):
    """Signed before the first convolution, unsigned behind a ReLU; no zero point either way."""
    ranges = {}
    for node in read(made(ENGINE, "x86-vnni")).get_ordered_ops():
        if node.get_type_name() == "FakeQuantize":
            low, high = (float(node.input_value(i).get_node().data.ravel()[0]) for i in (1, 2))
            ranges[node.get_friendly_name()] = low / high
    assert ranges["image/fq_output_0"] == pytest.approx(-128 / 127)
    assert ranges["relu0/fq_output_0"] == 0.0


@needs_vnni
@pytest.mark.parametrize("target", ["x86-vnni", "x86-avx2"])
def test_every_convolution_runs_in_int8(target, made, tmp_path):
    session = open_artifact(backend.compile(made(ENGINE, target), load_target(target), 1, tmp_path))
    placement = session.placement()
    session.close()
    compute = sorted((node.op, node.precision) for node in placement.nodes if node.compute)
    assert compute == [*[("Convolution", "int8")] * 3, ("FullyConnected", "int8")]


def test_a_quantised_model_is_near_the_float_one(made, float_net, tmp_path):
    feeds = samples_for(float_net.inputs, 16).tensors(range(16))
    outputs = []
    for name, artifact in (("fp32", float_net), ("int8", made(ENGINE, "x86-vnni"))):
        session = open_artifact(backend.compile(artifact, load_target("x86-vnni"), 4, tmp_path / name))
        outputs.append(run_batched(session, feeds)["logits"])
        session.close()
    assert 20.0 < snr_db(*outputs) < 90.0


def test_an_artifact_says_what_it_was_made_of(made, float_net, tmp_path):
    artifact = made(ENGINE, "x86-vnni")
    assert (artifact.engine, artifact.precision, artifact.parent) == (ENGINE, "int8", float_net.sha256)
    assert artifact.files.keys() == {"model.xml", "model.bin"}
    built = backend.compile(artifact, load_target("x86-vnni"), 2, tmp_path)
    assert (built.precision, built.parent) == ("int8", artifact.sha256)
    assert built.inputs == (TensorSpec(name="image", dtype="float32", shape=(2, 3, 16, 16)),)
    assert built.outputs == (TensorSpec(name="logits", dtype="float32", shape=(2, 5)),)


def test_nothing_of_the_build_machine_is_in_any_file(made, float_net, tmp_path):
    assert b"secret" in float_net.path.read_bytes()
    target = load_target("x86-vnni")
    artifacts = [made(ENGINE, "x86-vnni")]
    artifacts += [backend.compile(a, target, 1, tmp_path / a.precision) for a in (artifacts[0], float_net)]
    for artifact in artifacts:
        data = b"".join((artifact.folder / name).read_bytes() for name in artifact.files)
        assert [word for word in (b"secret", b"/tmp", str(tmp_path).encode(), b"site-packages") if word in data] == []


def test_two_runs_give_the_same_bytes(made, float_net, tmp_path):
    again = quantise(ENGINE, "x86-vnni", float_net, tmp_path / "again")
    assert again.files == made(ENGINE, "x86-vnni").files
    target = load_target("x86-vnni")
    for artifact in (again, float_net):
        built = [backend.compile(artifact, target, 1, tmp_path / artifact.precision / name) for name in ("one", "two")]
        assert built[0].files == built[1].files


def test_branches_have_the_same_bytes_too(tmp_path):
    text = """g (float[1, 4] x, bool flag) => (float[1, 4] y) {
        y = If (flag) < then_branch = yes () => (float[1, 4] a) { r = ReduceSum<keepdims=1>(x)
                                                                  a = Add(x, r) },
                        else_branch = no () => (float[1, 4] b) { b = Relu(x) } >
    }"""
    fp32 = save(onnx.parser.parse_model(HEAD + text), tmp_path / "float")
    built = [backend.compile(fp32, load_target("x86-vnni"), 1, tmp_path / name) for name in ("one", "two")]
    assert built[0].files == built[1].files


TWO_TOWERS = """two_towers (float["batch", 3, 8, 8] right, float["batch", 2, 8, 8] left)
    => (float["batch", 4, 8, 8] zebra, float["batch", 4, 8, 8] apple, float["batch", 3, 8, 8] same) {
    a = Conv<pads=[1, 1, 1, 1]>(right, wr)
    b = Conv<pads=[1, 1, 1, 1]>(left, wl)
    zebra = Sub(a, b)
    apple = Relu(a)
    same = Identity(right)
}"""


def two_towers(folder):
    proto = onnx.parser.parse_model(HEAD + TWO_TOWERS)
    rng = np.random.default_rng(0)
    for name, channels in (("wr", 3), ("wl", 2)):
        weight = rng.normal(0, 0.3, (4, channels, 3, 3)).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, name))
    return save(proto, folder)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_several_inputs_and_outputs_keep_their_names_and_order(precision, tmp_path):
    fp32 = two_towers(tmp_path / "float")
    model = fp32 if precision == "fp32" else quantise(ENGINE, "x86-vnni", fp32, tmp_path / "int8")
    built = backend.compile(model, load_target("x86-vnni"), 2, tmp_path / "built")
    assert [spec.name for spec in built.inputs] == ["right", "left"]
    assert [spec.name for spec in built.outputs] == ["zebra", "apple", "same"]
    feeds = samples_for(fp32.inputs).tensors(range(2))
    session = open_artifact(built)
    outputs = session.run(feeds)
    session.close()
    assert (outputs["apple"] >= 0).all()
    assert (outputs["zebra"] < 0).any()
    assert snr_db(feeds["right"], outputs["same"]) > 30.0


@pytest.mark.parametrize("prefix", ["", "/net/"])  # names of the exporters of today and of before
def test_groups_left_in_float_stay_there(prefix, float_net, tmp_path):
    proto = onnx.load(float_net.path)
    for node in proto.graph.node:
        node.name = prefix + node.name
    groups = (f"{prefix}conv1", f"{prefix}linear")
    artifact = quantise(ENGINE, "x86-vnni", save(proto, tmp_path / "float"), tmp_path / "int8", float_groups=groups)
    names = [node.get_friendly_name() for node in read(artifact).get_ordered_ops()]
    kept = [name.removeprefix(prefix).partition("/")[0] for name in names if name.endswith("fq_weights_1")]
    assert sorted(kept) == ["conv0", "conv2"]


def test_weights_in_another_file_are_taken_in_and_stay_inside(float_net, made, tmp_path):
    proto = onnx.load(float_net.path)
    outside = save(proto, tmp_path / "out", save_as_external_data=True, location="weights.bin", size_threshold=0)
    built = backend.compile(outside, load_target("x86-vnni"), 1, tmp_path / "built")
    assert built.files.keys() == {"model.xml", "model.bin"}
    proto = onnx.load(outside.path, load_external_data=False)
    proto.graph.initializer[0].external_data[0].value = "../weights.bin"
    outside.path.write_bytes(proto.SerializeToString())
    (outside.folder / "weights.bin").rename(tmp_path / "weights.bin")
    with pytest.raises(BundleError, match="points outside its folder") as caught:
        backend.compile(outside, load_target("x86-vnni"), 1, tmp_path / "again")
    assert caught.value.__context__ is None  # told before an engine sees the file


def test_options_are_the_targets(float_net, tmp_path):
    target = load_target("raspberry-pi-4").model_copy(
        update={"options": {"openvino": {"NUM_STREAMS": 2}, "onnxruntime": {"enable_mem_pattern": False}}}
    )
    built = backend.compile(float_net, target, 1, tmp_path)
    assert built.options == {
        "device": "CPU",
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 2,
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": 4,
    }


def test_a_batch_fixed_to_something_else_is_told(tmp_path):
    fp32 = save(conv_net(batch="4"), tmp_path / "float")
    with pytest.raises(ModelError, match="input 'image' has a fixed batch of 4"):
        backend.compile(fp32, load_target("x86-vnni"), 1, tmp_path / "built")


# What OpenVINO refuses and ONNX Runtime runs

RANKS = """ranks (float["batch", 4] input) => (float["batch", 4] output) <float zero = {0.0}> {
    sum = ReduceSum<keepdims=0>(input)
    positive = Greater(sum, zero)
    chosen = If (positive) <
        then_branch = yes () => (float[N, 4] a) { a = Identity(input) },
        else_branch = no () => (float[] b) { b = ReduceSum<keepdims=0>(input) }
    >
    output = Add(chosen, input)
}"""
BOXES = """boxes (float["batch", "n", "k"] boxes, float["batch", 1, "n"] scores) => (int64["m", 3] kept)
    <int64 most = {3}, float overlap = {0.5}, float least = {0.0}> {
    kept = NonMaxSuppression(boxes, scores, most, overlap, least)
}"""


@pytest.mark.parametrize(("text", "operator"), [(RANKS, "If"), (BOXES, "NonMaxSuppression")])
def test_a_refusal_names_the_operator_and_an_engine_that_takes_it(text, operator, tmp_path):
    fp32 = save(onnx.parser.parse_model(HEAD + text), tmp_path / "float")
    with pytest.raises(
        EngineError, match=rf"openvino cannot run operator {operator}\n(.|\n)*choose --engine onnxruntime, which opens"
    ):
        backend.compile(fp32, load_target("x86-vnni"), 1, tmp_path / "built")


def test_a_refusal_while_quantising_is_told_the_same_way(tmp_path):
    fp32 = save(onnx.parser.parse_model(HEAD + RANKS), tmp_path / "float")
    with pytest.raises(EngineError, match=r"cannot run operator If\n(.|\n)*choose --engine onnxruntime"):
        quantise(ENGINE, "x86-vnni", fp32, tmp_path / "int8")


# In a process of its own: NNCF behaves differently under pytest, and earlier imports hide what an import does.

WORK = """
import os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
seen = {}

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name in ("nncf", "openvino", "onnxruntime"):
            reporter = sys.modules.get("openvino_telemetry", "importable")
            seen.setdefault(name, (os.environ.get("NNCF_CI"), os.environ.get("ORT_DISABLE_TELEMETRY"), reporter))

sys.meta_path.insert(0, Watch())
import numpy, onnx
from small_nets import conv_net, quantise, save
out, proto = Path(sys.argv[1]), conv_net()
# ONNX Runtime warns of an initialiser that nothing reads.
proto.graph.initializer.append(onnx.numpy_helper.from_array(numpy.ones(2, numpy.float32), "unread"))
fp32 = save(proto, out / "float")
for engine in sys.argv[3:]:
    quantise(engine, "x86-vnni", fp32, out / engine)
print(sorted(seen.items()))
"""


def test_quantising_is_silent_and_switches_telemetry_off_first(tmp_path):
    command = [sys.executable, "-c", WORK, str(tmp_path), str(Path(__file__).parent), "openvino", "onnxruntime"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    switched_off = ("1", "1", None)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [str([(name, switched_off) for name in ("nncf", "onnxruntime", "openvino")])]
