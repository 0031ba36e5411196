"""Dynamic int8 on ONNX Runtime: what becomes int8, how near it stays, and what it leaves in float."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from product_nets import attention, perceptron, recurrent, run_on
from small_nets import HEAD, conv_net, samples_for, save

from edgekit.backends import load_backend
from edgekit.backends.methods import check_plan
from edgekit.catalog import load_target
from edgekit.data import Batches
from edgekit.errors import DataError, ModelError
from edgekit.quantization.schemes import Plan
from edgekit.runtime.numbers import snr_db

BACKEND = load_backend("onnxruntime")
INT8 = {"DynamicQuantizeMatMul", "MatMulIntegerToFloat", "MatMulInteger", "DynamicQuantizeLSTM"}


def plan_for(target="x86-vnni", **changes):
    return Plan(
        **{
            "engine": "onnxruntime",
            "precision": "int8",
            "method": "dynamic",
            "scheme": BACKEND.scheme(load_target(target)),
        }
        | changes
    )


def dynamic(fp32, out, target="x86-vnni", **changes):
    return BACKEND.quantize(fp32, None, plan_for(target, **changes), out)


def weights_of(artifact):
    return [
        onnx.numpy_helper.to_array(tensor)
        for tensor in onnx.load(artifact.path).graph.initializer
        if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) > 1
    ]


@pytest.mark.parametrize(
    ("make", "count", "least"),
    [(perceptron, 3, 28.0), (attention, 4, 28.0), (lambda: recurrent("LSTM"), 1, 25.0)],
    ids=["perceptron", "attention", "lstm"],
)
def test_products_and_lstms_run_in_int8(make, count, least, tmp_path):
    fp32 = save(make(), tmp_path / "float")
    artifact = dynamic(fp32, tmp_path / "int8")
    assert (artifact.precision, artifact.parent) == ("int8", fp32.sha256)
    assert (artifact.inputs, artifact.outputs) == (fp32.inputs, fp32.outputs)
    reference, _ = run_on("onnxruntime", fp32, tmp_path / "built")
    actual, compute = run_on("onnxruntime", artifact, tmp_path / "built-int8")
    in_int8 = [node for node in compute if node.op in INT8]
    assert len(in_int8) == count
    assert {node.precision for node in in_int8} == {"int8"}
    assert least < snr_db(reference, actual) < 60.0


def test_products_of_activations_stay_in_float_and_are_told(tmp_path):
    artifact = dynamic(save(attention(), tmp_path / "float"), tmp_path / "int8")
    assert artifact.notes == ("left in float: scores, mixed (its weights are no constants)",)


@pytest.mark.parametrize(("target", "most"), [("x86-vnni", 127), ("x86-avx2", 64), ("raspberry-pi-5", 127)])
def test_weights_fill_the_range_the_target_can_sum(target, most, tmp_path):
    weights = weights_of(dynamic(save(perceptron(), tmp_path / "float"), tmp_path / "int8", target))
    assert len(weights) == 3
    for values in weights:
        assert most - 1 <= np.abs(values.astype(int)).max() <= most


def test_one_scale_a_channel_unless_the_scheme_says_otherwise(tmp_path):
    fp32 = save(perceptron(), tmp_path / "float")
    scheme = replace(plan_for().scheme, per_channel=False)
    for per_channel, sizes in ((True, [10, 64, 96]), (False, [1, 1, 1])):
        changes = {} if per_channel else {"scheme": scheme}
        artifact = dynamic(fp32, tmp_path / str(per_channel), **changes)
        tensors = onnx.load(artifact.path).graph.initializer
        scales = [t for t in tensors if t.name.endswith("_scale") and t.data_type == onnx.TensorProto.FLOAT]
        assert sorted(max(t.dims, default=1) for t in scales) == sizes


def test_groups_left_in_float_stay_there_and_are_told(tmp_path):
    fp32 = save(perceptron(), tmp_path / "float")
    artifact = dynamic(fp32, tmp_path / "int8", float_groups=("second",))
    _, compute = run_on("onnxruntime", artifact, tmp_path / "built")
    assert sorted(node.precision for node in compute) == ["fp32", "int8", "int8"]
    assert artifact.notes == ("left in float: second (as the plan says)",)


def test_convolutions_stay_in_float_and_are_told(tmp_path):
    artifact = dynamic(save(conv_net(), tmp_path / "float"), tmp_path / "int8")
    _, compute = run_on("onnxruntime", artifact, tmp_path / "built")
    assert sorted(node.precision for node in compute) == ["fp32", "fp32", "fp32", "int8"]
    reason = "the dynamic int8 convolution is slower than the float one"
    assert artifact.notes == (f"left in float: conv0, conv1, conv2 ({reason})",)


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (lambda: recurrent("GRU"), "no MatMul or Gemm"),
        (
            lambda: onnx.parser.parse_model(HEAD + 'g (float["b", 4] x) => (float["b", 4] y) { y = Relu(x) }'),
            "no MatMul",
        ),
    ],
    ids=["gru", "relu"],
)
def test_a_model_without_products_or_lstms_is_refused(make, found, tmp_path):
    with pytest.raises(ModelError, match=rf"no matrix product with constant weights\n.*{found}(.|\n)*LSTMs"):
        dynamic(save(make(), tmp_path / "float"), tmp_path / "int8")


def test_an_old_model_with_constants_as_nodes_is_taken(tmp_path):
    proto = perceptron()
    for tensor in list(proto.graph.initializer):
        proto.graph.node.insert(0, onnx.helper.make_node("Constant", [], [tensor.name], value=tensor))
    del proto.graph.initializer[:]
    proto.opset_import[0].version = 9
    proto.ir_version = 4
    fp32 = save(proto, tmp_path / "float")
    reference, _ = run_on("onnxruntime", fp32, tmp_path / "built")
    actual, compute = run_on("onnxruntime", dynamic(fp32, tmp_path / "int8"), tmp_path / "built-int8")
    assert {node.precision for node in compute} == {"int8"}
    assert snr_db(reference, actual) > 28.0


@pytest.mark.parametrize("corrections", [("bias-correction",), ("smooth-quant", "equalize")])
def test_no_correction_but_smooth_quant_is_for_dynamic_int8(corrections):
    reason = BACKEND.refuses(plan_for(corrections=corrections), load_target("x86-vnni"))
    assert reason == f"dynamic int8 takes no correction but smooth-quant, and this has {', '.join(corrections)}"
    check_plan(plan_for(), load_target("x86-vnni"))
    check_plan(plan_for(corrections=("smooth-quant",)), load_target("x86-vnni"))


def test_smooth_quant_mends_outlying_channels(tmp_path):
    proto = perceptron()
    scale = np.ones(64, np.float32)
    scale[[3, 17]] = 60.0
    proto.graph.initializer.append(onnx.numpy_helper.from_array(scale, "outlying"))
    weights = next(tensor for tensor in proto.graph.initializer if tensor.name == "w1")
    weights.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weights) / scale[:, None], "w1"))
    proto.graph.node.insert(0, onnx.helper.make_node("Mul", ["x", "outlying"], ["wide"], "widen"))
    proto.graph.node[1].input[0] = "wide"
    fp32 = save(proto, tmp_path / "float")
    reference, _ = run_on("onnxruntime", fp32, tmp_path / "built")
    data = Batches(samples=samples_for(fp32.inputs, 32), size=1)
    plan = plan_for(corrections=("smooth-quant",))
    smoothed = BACKEND.quantize(fp32, data, plan, tmp_path / "smoothed")
    db = {
        name: snr_db(reference, run_on("onnxruntime", artifact, tmp_path / f"built-{name}")[0])
        for name, artifact in {"plain": dynamic(fp32, tmp_path / "plain"), "smoothed": smoothed}.items()
    }
    assert db["smoothed"] > db["plain"] + 6.0
    assert str(plan) == "onnxruntime int8 dynamic +smooth-quant"


def test_smooth_quant_without_samples_is_refused(tmp_path):
    with pytest.raises(DataError, match="no calibration samples"):
        dynamic(save(perceptron(), tmp_path / "float"), tmp_path / "int8", corrections=("smooth-quant",))


def test_two_runs_give_the_same_bytes(tmp_path):
    fp32 = save(perceptron(), tmp_path / "float")
    assert dynamic(fp32, tmp_path / "one").files == dynamic(fp32, tmp_path / "two").files
