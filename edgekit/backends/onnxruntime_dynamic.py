"""Dynamic int8 on ONNX Runtime: weights are int8, activations are quantised as they come."""

from __future__ import annotations

import tempfile
from pathlib import Path

import onnx

from edgekit.artifact import Artifact
from edgekit.backends.calibration import CalibrationBatches, calibration_batches
from edgekit.backends.onnxruntime_products import left_note, no_products, products, rewrite
from edgekit.data import Batches
from edgekit.quantization.collect import channel_maxima, open_probe
from edgekit.quantization.schemes import Plan
from edgekit.quantization.smooth_quant import smooth, smoothed_tensors

# ConvInteger is left out: without bias, activation and blocked layout it is slower than the float convolution.
OPERATORS = ("MatMul", "LSTM")
_LEFT = {
    "Conv": "the dynamic int8 convolution is slower than the float one",
    "ConvTranspose": "ONNX Runtime has no dynamic int8 for it",
    "GRU": "ONNX Runtime has no dynamic int8 for it",
    "RNN": "ONNX Runtime has no dynamic int8 for it",
    "Einsum": "ONNX Runtime has no dynamic int8 for it",
}


def quantize(fp32: Artifact, data: Batches | None, plan: Plan, out: Path) -> Artifact:
    """Dynamic quantisation of matrix products and LSTMs with ``onnxruntime.quantization.quantize_dynamic``.

    Activations are unsigned and asymmetric, one range a tensor and query. Of the scheme, ``per_channel``,
    ``reduce_range`` and ``weight_symmetric`` are taken, and products stay in float where ``operators`` has no MatMul
    and no Gemm. Samples are needed for SmoothQuant alone: it brings outlying channels, which the one range of a tensor
    would be spent on, into the weights, which have a range a channel.

    Returns:
        An ONNX artifact; its notes name what stayed in float and why.

    Raises:
        DataError: SmoothQuant has no samples, or they do not fit.
        ModelError: There is no matrix product or LSTM with constant weights, or the model is quantised already.
        EngineError: ONNX Runtime refuses the model.
        UnknownName: The plan names a node that there is not.
    """

    def make(proto: onnx.ModelProto) -> tuple[onnx.ModelProto, list[str]]:
        if "smooth-quant" in plan.corrections:
            _smooth(proto, calibration_batches(data, fp32))
        return _quantised(proto, fp32.model, plan)

    return rewrite(fp32, plan, out, "quantise the model", make)


def _quantised(proto: onnx.ModelProto, model: str, plan: Plan) -> tuple[onnx.ModelProto, list[str]]:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    from edgekit.conversion.clean import is_large, load_onnx

    found = [node.name for node in products(proto)]
    found += [node.name for node in proto.graph.node if node.op_type == "LSTM"]
    operators = plan.scheme.operators if plan.scheme else {}
    chosen = {"LSTM", *(("MatMul",) if not operators or {"MatMul", "Gemm"} & set(operators) else ())}
    left = [node.name for node in proto.graph.node if node.name in plan.float_groups and node.name in found]
    if not set(found) - set(left):
        what = "dynamic int8 quantises matrix products and LSTMs"
        raise no_products(model, what, kept=bool(found))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "quantised.onnx"
        quantize_dynamic(
            proto,
            path,
            op_types_to_quantize=[op for op in OPERATORS if op in chosen],
            per_channel=plan.scheme is None or plan.scheme.per_channel,
            reduce_range=plan.scheme is not None and plan.scheme.reduce_range,
            weight_type=QuantType.QInt8,
            # A Gemm that is none of ours becomes a MatMul there, of this name.
            nodes_to_exclude=[*plan.float_groups, *(f"{name}_MatMul" for name in plan.float_groups)],
            use_external_data_format=is_large(proto),
            extra_options={"WeightSymmetric": plan.scheme is None or plan.scheme.weight_symmetric},
        )
        made = load_onnx(path)
    return made, _notes(made, left)


def _smooth(proto: onnx.ModelProto, batches: CalibrationBatches) -> None:
    from edgekit.conversion.clean import save_onnx

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "float.onnx"
        save_onnx(proto, path)
        smooth(proto, channel_maxima(open_probe(path, smoothed_tensors(proto)), batches))


def _notes(made: onnx.ModelProto, asked: list[str]) -> list[str]:
    notes = left_note(asked, "as the plan says")
    for op, reason in _LEFT.items():
        notes += left_note((node.name for node in made.graph.node if node.op_type == op), reason)
    weights = {tensor.name for tensor in made.graph.initializer}
    dynamic = [n.name for n in made.graph.node if n.op_type == "MatMul" and n.input[1] not in weights]
    others = [n.name for n in made.graph.node if n.op_type in ("MatMul", "LSTM") and n.name not in (*asked, *dynamic)]
    notes += left_note(dynamic, "its weights are no constants")
    return notes + left_note(others, "ONNX Runtime's quantiser left it out")
