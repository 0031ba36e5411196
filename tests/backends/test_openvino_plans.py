"""What every field of a plan for OpenVINO does, or why it is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import openvino
import pytest
from product_nets import attention, perceptron, recurrent, run_on, with_weights
from small_nets import conv_net, quantise, samples_for, save

from edgekit.backends import openvino as backend
from edgekit.backends.methods import check_plan, refusal
from edgekit.backends.openvino_ir import convert_graph
from edgekit.backends.openvino_static import RANGES, is_transformer
from edgekit.catalog import load_target
from edgekit.errors import EngineError
from edgekit.profiling.host import half_precisions_here
from edgekit.quantization.schemes import USUAL, plan_of
from edgekit.runtime.numbers import snr_db

TARGET = load_target("x86-vnni")
SCHEME = backend.scheme(TARGET)
needs_bf16 = pytest.mark.skipif("bf16" not in half_precisions_here(), reason="needs a CPU that computes in bf16")


def made(fp32, out, **changes):
    return quantise("openvino", "x86-vnni", fp32, out, **({"method": "average"} | changes))


def nodes(artifact, kind):
    graph = openvino.Core().read_model(artifact.path)
    return {n.get_friendly_name(): n for n in graph.get_ordered_ops() if n.get_type_name() == kind}


def ranges(artifact):
    """Lowest and highest value of every activation quantiser."""
    return {
        name.partition("/")[0]: tuple(float(node.input_value(i).get_node().data.ravel()[0]) for i in (1, 2))
        for name, node in nodes(artifact, "FakeQuantize").items()
    }


def constants(artifact, kind):
    return [n.data for n in nodes(artifact, "Constant").values() if n.get_element_type().get_type_name() == kind]


# Range methods


@pytest.mark.parametrize("method", RANGES)
def test_every_method_gives_a_model_near_the_float_one(method, float_net, tmp_path):
    reference, _ = run_on("openvino", float_net, tmp_path / "float")
    actual, _ = run_on("openvino", made(float_net, tmp_path / "int8", method=method), tmp_path / "built")
    assert 20.0 < snr_db(reference, actual) < 90.0


def test_methods_take_their_ranges_from_the_samples(float_net, tmp_path):
    images = samples_for(float_net.inputs).tensors(range(8))["image"]
    top = {m: ranges(made(float_net, tmp_path / m, method=m, corrections=()))["image"][1] for m in RANGES}
    each = np.abs(images).reshape(8, -1)
    assert top["minmax"] == pytest.approx(each.max(), rel=0.02)
    assert top["average"] == pytest.approx(each.max(axis=1).mean(), rel=0.05)
    assert top["percentile"] < top["average"]
    assert top["mse"] <= top["minmax"] * 1.01
    assert len({round(value, 4) for value in top.values()}) == 4


# Corrections


def test_bias_correction_moves_biases_and_nothing_else_does(float_net, tmp_path):
    """NNCF finds no bias in a graph as it is read from ONNX: this is what the conversion is for."""
    biases = {}
    for corrections in ((), ("bias-correction",)):
        artifact = made(float_net, tmp_path / str(len(corrections)), corrections=corrections)
        biases[corrections] = sorted(float(np.abs(b).sum()) for b in constants(artifact, "f32") if b.size == 8)
    proto = onnx.load(float_net.path)
    given = [onnx.numpy_helper.to_array(t) for t in proto.graph.initializer if t.name in ("b0", "b1", "b2")]
    sums = sorted(float(np.abs(b).sum()) for b in given)
    assert [b for b in biases[()] if any(abs(b - s) < 1e-5 for s in sums)] == pytest.approx(sums)
    assert biases[()] != pytest.approx(biases["bias-correction",], abs=1e-4)


def test_smoothing_is_done_to_transformers(tmp_path):
    fp32 = save(attention(), tmp_path / "float")
    for corrections in ((), ("smooth-quant",)):
        artifact = made(fp32, tmp_path / str(len(corrections)), corrections=corrections)
        scales = [name for name in nodes(artifact, "Multiply") if "smooth_quant" in name]
        assert bool(scales) == bool(corrections)
        assert artifact.notes == ()


def test_a_correction_that_was_asked_for_and_has_nothing_to_do_is_told(float_net, tmp_path):
    notes = made(float_net, tmp_path / "both", corrections=("smooth-quant", "equalize")).notes
    assert notes == ("smooth-quant had nothing to do: NNCF smooths transformers only",)
    lonely = save(attention(), tmp_path / "float")
    notes = made(lonely, tmp_path / "lonely", corrections=("equalize",)).notes
    assert notes == ("equalize had nothing to do: no two layers have only a ReLU or a pooling between them",)
    assert made(float_net, tmp_path / "usual", corrections=USUAL["openvino"].corrections).notes == ()


def test_uneven_channels_are_equalised(tmp_path):
    text = """g (float["batch", 3, 8, 8] x) => (float["batch", 4, 8, 8] y) {
        [wide] a = Conv<pads=[1, 1, 1, 1]>(x, w1, b1)
        [relu] r = Relu(a)
        [point] y = Conv(r, w2, b2)
    }"""
    proto = with_weights(text, {"w1": (6, 3, 3, 3), "b1": (6,), "w2": (4, 6, 1, 1), "b2": (4,)})
    first = next(t for t in proto.graph.initializer if t.name == "w1")
    uneven = onnx.numpy_helper.to_array(first) * np.logspace(-2, 1, 6).astype(np.float32).reshape(6, 1, 1, 1)
    first.CopyFrom(onnx.numpy_helper.from_array(uneven.astype(np.float32), "w1"))
    fp32 = save(proto, tmp_path / "float")
    reference, _ = run_on("openvino", fp32, tmp_path / "built")
    db = {}
    for corrections in ((), ("equalize",)):
        artifact = made(fp32, tmp_path / str(len(corrections)), method="minmax", corrections=corrections)
        assert artifact.notes == ()
        db[corrections] = snr_db(reference, run_on("openvino", artifact, tmp_path / f"b{len(corrections)}")[0])
    assert db["equalize",] > db[()] + 1.0


# Kinds of models

SOFTMAX = """classifier (float["batch", 16] x) => (float["batch", 8] y) {
    [hidden] h = MatMul(x, w)
    [softmax] s = Softmax(h)
    [again] y = MatMul(s, v)
}"""


@pytest.mark.parametrize(
    ("make", "attends"),
    [(attention, True), (conv_net, False), (lambda: with_weights(SOFTMAX, {"w": (16, 8), "v": (8, 8)}), False)],
    ids=["attention", "convolutions", "softmax between weights"],
)
def test_a_transformer_is_known_by_its_attention(make, attends):
    assert is_transformer(convert_graph(make())) is attends


def test_masked_attention_is_attention(tmp_path):
    text = """masked (float["batch", 8, 32] x, bool["batch", 8, 8] mask) => (float["batch", 8, 32] y)
        <float low = {-10000.0}> {
        q = MatMul(x, wq)
        k = MatMul(x, wk)
        kt = Transpose<perm=[0, 2, 1]>(k)
        s = MatMul(q, kt)
        kept = Where(mask, s, low)
        p = Softmax(kept)
        p2 = Sigmoid(p)
        y = MatMul(p2, x)
    }"""
    proto = with_weights(text, {"wq": (32, 32), "wk": (32, 32)})
    assert is_transformer(convert_graph(proto)) is False  # a sigmoid behind the softmax is no attention
    for node in proto.graph.node:
        if node.op_type == "Sigmoid":
            node.op_type = "Identity"
    assert is_transformer(convert_graph(proto)) is True


@pytest.mark.parametrize(("model_type", "added"), [(None, False), ("transformer", False), ("", True)])
def test_additions_of_a_transformer_stay_in_float(model_type, added, tmp_path):
    fp32 = save(attention(), tmp_path / "float")
    artifact = made(fp32, tmp_path / "int8", scheme=replace(SCHEME, model_type=model_type))
    quantised = any(name.startswith("out/") for name in nodes(artifact, "FakeQuantize"))
    assert quantised == added


@pytest.mark.parametrize(
    ("make", "preset"), [(attention, "mixed"), (perceptron, "performance")], ids=["transformer", "other"]
)
def test_the_preset_is_nncfs_own_for_the_kind_of_model(make, preset, tmp_path):
    text = made(save(make(), tmp_path / "float"), tmp_path / "int8").path.read_text(encoding="utf-8")
    assert f'<preset value="{preset}"' in text


# Fields of the scheme


def test_one_scale_a_channel_unless_the_scheme_says_otherwise(float_net, tmp_path):
    for per_channel in (True, False):
        artifact = made(float_net, tmp_path / str(per_channel), scheme=replace(SCHEME, per_channel=per_channel))
        scales = [n for name, n in nodes(artifact, "Multiply").items() if "fq_weights" in name]
        sizes = {np.size(n.input_value(1).get_node().data) for n in scales}
        assert len(scales) == 4
        assert sizes == ({8, 5} if per_channel else {1})


def test_asymmetric_weights_have_zero_points(float_net, tmp_path):
    artifact = made(float_net, tmp_path / "int8", scheme=replace(SCHEME, weight_symmetric=False))
    assert len(nodes(artifact, "Subtract")) == 4


@pytest.mark.parametrize("changes", [{"preset": "mixed"}, {"activation_symmetric": False}], ids=str)
def test_asymmetric_activations(changes, float_net, tmp_path):
    low, high = ranges(made(float_net, tmp_path / "int8", scheme=replace(SCHEME, **changes)))["image"]
    assert low / high != pytest.approx(-128 / 127)


def test_operators_that_the_scheme_leaves_out_stay_in_float(float_net, tmp_path):
    artifact = made(float_net, tmp_path / "int8", scheme=replace(SCHEME, operators={"Conv": (0, 1)}))
    assert artifact.notes == ("left in float: linear (as the scheme says)",)
    _, compute = run_on("openvino", artifact, tmp_path / "built")
    assert sorted(node.precision for node in compute if node.op == "FullyConnected") == ["fp32"]


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"activation_signed": True}, r"scheme.activation_signed is not possible\n.*True\n.*negative values"),
        ({"quantize_bias": True}, r"scheme.quantize_bias is not possible\n.*True\n.*keeps biases in float"),
        ({"weight_symmetric": False, "reduce_range": True}, "halves the range of symmetric weights only"),
        ({"preset": "performance", "activation_symmetric": False}, "performance has symmetric activations"),
        ({"operators": {"Softmax": (0,)}}, r"scheme.operators.Softmax is not possible\n(.|\n)*Conv, ConvTranspose"),
        ({"operators": {"Conv": (1,)}}, r"scheme.operators.Conv is not possible\n.*\[1\]\n.*all inputs"),
    ],
    ids=str,
)
def test_a_field_that_nncf_cannot_make_true_is_refused(changes, match, float_net, tmp_path):
    with pytest.raises(EngineError, match=match):
        made(float_net, tmp_path / "int8", scheme=replace(SCHEME, **changes))


# Nodes left in float


@pytest.mark.parametrize("named", [True, False])
def test_a_recurrent_layer_is_left_in_float_by_the_name_of_its_node(named, tmp_path):
    proto = recurrent("LSTM")
    for node in proto.graph.node:
        node.name = node.name if named else ""
    name = "recur" if named else "all"
    artifact = made(save(proto, tmp_path / "float"), tmp_path / "int8", float_groups=(name,))
    assert artifact.notes == (f"left in float: {name} (as the plan says)",)
    assert nodes(artifact, "FakeQuantize") == {}


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_recurrent_layers_stay_in_float(kind, tmp_path):
    artifact = made(save(recurrent(kind), tmp_path / "float"), tmp_path / "int8")
    assert artifact.notes == ("left in float: recur (its int8 kernel loses the state)",)


def test_a_node_that_openvino_fuses_cannot_be_left_in_float(tmp_path):
    artifact = made(save(attention(), tmp_path / "float"), tmp_path / "int8", float_groups=("scores",))
    assert "not left in float: scores (OpenVINO makes one operator of it and others)" in artifact.notes


def test_a_tensor_without_elements_is_no_trouble(tmp_path):
    text = """g (float["batch", 3, 8, 8] x) => (float["batch", 4, 8, 8] y) <int64[1] zero = {0}, int64[1] one = {1}> {
        [first] a = Conv<pads=[1, 1, 1, 1]>(x, w)
        [nothing] b = Slice(a, zero, zero, one)
        [relu] r = Relu(b)
        [both] c = Concat<axis=1>(r, a)
        [second] y = Conv<pads=[1, 1, 1, 1]>(c, v)
    }"""
    fp32 = save(with_weights(text, {"w": (4, 3, 3, 3), "v": (4, 4, 3, 3)}), tmp_path / "float")
    reference, _ = run_on("openvino", fp32, tmp_path / "built")
    actual, _ = run_on("openvino", made(fp32, tmp_path / "int8"), tmp_path / "built-int8")
    assert snr_db(reference, actual) > 20.0


def test_a_failure_of_nncf_names_the_operator(float_net, tmp_path, monkeypatch):
    import nncf

    def fail(*args, **settings):
        raise RuntimeError("Statistics were not collected for the node conv1/WithoutBiases")

    monkeypatch.setattr(nncf, "quantize", fail)
    with pytest.raises(EngineError, match=r"NNCF could not quantise the model at Convolution 'conv1/WithoutBiases'"):
        made(float_net, tmp_path / "int8")


# fp16 and bf16


@needs_bf16
def test_bf16_is_what_the_engine_runs(float_net, tmp_path):
    local = load_target("local")
    plan = plan_of("openvino", "bf16")
    check_plan(plan, local)
    artifact = backend.quantize(float_net, None, plan, tmp_path / "bf16")
    assert (artifact.precision, artifact.files) == ("bf16", float_net.files)
    reference, _ = run_on("openvino", float_net, tmp_path / "float", "local")
    actual, compute = run_on("openvino", artifact, tmp_path / "built", "local")
    assert {node.precision for node in compute} == {"bf16"}
    assert 35.0 < snr_db(reference, actual) < 90.0


def test_an_fp16_model_holds_halved_constants_and_hints_its_precision(float_net, tmp_path):
    sizes = {}
    for precision in ("fp32", "fp16"):
        artifact = replace(float_net, precision=precision)
        if precision == "fp16":
            artifact = backend.quantize(float_net, None, plan_of("openvino", "fp16"), tmp_path / "made")
        built = backend.compile(artifact, load_target("raspberry-pi-5"), 1, tmp_path / precision)
        sizes[precision] = (built.folder / "model.bin").stat().st_size
        assert built.options["INFERENCE_PRECISION_HINT"] == {"fp32": "f32", "fp16": "f16"}[precision]
    assert sizes["fp16"] == pytest.approx(sizes["fp32"] / 2, rel=0.1)


@pytest.mark.parametrize(
    ("precision", "target", "match"),
    [
        ("bf16", "x86-vnni", r"cannot be made for target 'x86-vnni'\n.*AVX512-BF16 or AMX"),
        ("bf16", "raspberry-pi-5", "AVX512-BF16 or AMX"),
        ("fp16", "x86-vnni", "silently runs bf16"),
        ("fp16", "cpu-generic", "silently runs bf16"),
        ("fp16", "raspberry-pi-4", "came with Armv8.2"),
    ],
)
def test_a_precision_that_would_not_be_computed_in_is_refused(precision, target, match):
    with pytest.raises(EngineError, match=match):
        check_plan(plan_of("openvino", precision), load_target(target))


def test_arm_runs_fp16_and_amx_runs_bf16():
    assert refusal(plan_of("openvino", "fp16"), load_target("raspberry-pi-5")) is None
    assert refusal(plan_of("openvino", "bf16"), TARGET.model_copy(update={"isa": "amx"})) is None


def test_this_machine_is_asked_what_it_computes_in(monkeypatch):
    monkeypatch.setattr(openvino.Core, "get_property", lambda *a: ["FP32", "INT8", "WINOGRAD"])
    with pytest.raises(EngineError, match=r"'local'\n.*this CPU computes in FP32, INT8"):
        check_plan(plan_of("openvino", "bf16"), load_target("local"))


def test_half_precisions_are_of_the_whole_model():
    plan = replace(plan_of("openvino", "bf16"), float_groups=("conv1",))
    with pytest.raises(EngineError, match="single nodes cannot be left in float"):
        check_plan(plan, TARGET.model_copy(update={"isa": "amx"}))


def test_old_models_are_taken(tmp_path):
    proto = conv_net()
    proto.opset_import[0].version = 9
    proto.ir_version = 4
    fp32 = save(proto, tmp_path / "float")
    assert made(fp32, tmp_path / "int8").notes == ()


@pytest.mark.parametrize("changes", [{}, {"preset": "mixed"}, {"per_channel": False}], ids=str)
def test_branches_behind_a_pooling_are_computed_right(changes, tmp_path):
    """OpenVINO 2026.4 computes one symmetric Q/DQ graph of this shape wrongly: off by a third of the range."""
    text = """g (float["batch", 3, 16, 16] x) => (float["batch", 16, 8, 8] y) {
        [stem] a = Conv<pads=[1, 1, 1, 1]>(x, w0)
        [pool] p = MaxPool<kernel_shape=[2, 2], strides=[2, 2]>(a)
        [left] l = Conv(p, w1)
        [right] r = Conv<pads=[1, 1, 1, 1]>(p, w2)
        [both] y = Concat<axis=1>(l, r)
    }"""
    sizes = {"w0": (8, 3, 3, 3), "w1": (8, 8, 1, 1), "w2": (8, 8, 3, 3)}
    fp32 = save(with_weights(text, sizes), tmp_path / "float")
    reference, _ = run_on("openvino", fp32, tmp_path / "built")
    artifact = made(fp32, tmp_path / "int8", method="minmax", scheme=replace(SCHEME, **changes))
    actual, compute = run_on("openvino", artifact, tmp_path / "built-int8")
    assert len(compute) == 3
    assert snr_db(reference, actual) > 30.0
    assert np.abs(reference - actual).max() < 0.05 * np.abs(reference).max()
