"""Static int8 on ONNX Runtime: its own Q/DQ writer, fed with ranges that are collected in bounded memory."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
from onnx.numpy_helper import from_array, to_array

from edgekit.artifact import Artifact
from edgekit.backends.calibration import (
    CalibrationBatches,
    calibration_batches,
    check_float_groups,
    require_float,
    scheme_of,
)
from edgekit.backends.onnxruntime import COMPUTE
from edgekit.backends.onnxruntime_placing import Placing, activations, place, unpair
from edgekit.backends.refusals import refusals
from edgekit.backends.static import OPTIMISED, move_ranges, optimised, statistics_of, unfit_of, with_opset
from edgekit.conversion.clean import (
    describe_onnx,
    load_onnx,
    save_onnx,
    sort_nodes,
    strip_metadata,
)
from edgekit.conversion.quiet import quiet
from edgekit.data import Batches
from edgekit.quantization.bias_correction import correct_biases
from edgekit.quantization.groups import name_nodes
from edgekit.quantization.ranges import TensorStatistics, range_of
from edgekit.quantization.schemes import Plan, Scheme
from edgekit.runtime.onnxruntime import engine_errors
from edgekit.runtime.quiet import silence_telemetry

NAME = "onnxruntime"
# The first opset whose QuantizeLinear has an axis: one scale a channel.
PER_CHANNEL_OPSET = 13
QUANTISED = "quantised.onnx"
_ZERO_CHANNEL = 1e-5  # of the largest weight: 100 dB under it


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is quantised, and where it lies meanwhile.

    Attributes:
        folder: Temporary files; the float model in ``optimised.onnx``.
        scheme: The dialect.
        plan: What is made.
        operators: Types of operators that may be quantised, each with the inputs that are; (): all.
        chosen: Whether the operators are the scheme's, rather than all that the engine's own tool takes.
    """

    folder: Path
    scheme: Scheme
    plan: Plan
    operators: Mapping[str, tuple[int, ...]]
    chosen: bool

    @property
    def model(self) -> Path:
        """The float model."""
        return self.folder / OPTIMISED


def quantize(fp32: Artifact, data: Batches | None, plan: Plan, out: Path, cache: Path | None = None) -> Artifact:
    """Post-training static quantisation; arguments as of the backend's own ``quantize``.

    Returns:
        An ONNX artifact with Q/DQ; its notes name the compute nodes that stayed in float, and why.
    """
    silence_telemetry()
    import onnxruntime

    scheme, batches, proto = scheme_of(plan), calibration_batches(data, fp32), load_onnx(fp32.path)
    require_float(proto, fp32.model)
    check_float_groups(plan, proto)
    name_nodes(proto)
    proto = with_opset(proto, PER_CHANNEL_OPSET, fp32.model, "scales per channel")
    onnxruntime.set_default_logger_severity(3)  # errors; they are raised as well
    operators = dict(scheme.operators) or dict.fromkeys(_operators_of_the_tool(), ())
    with (
        tempfile.TemporaryDirectory() as folder,
        refusals(NAME, fp32),
        engine_errors("quantise the model"),
        quiet(),
    ):
        job = Job(folder=Path(folder), scheme=scheme, plan=plan, operators=operators, chosen=bool(scheme.operators))
        folded = optimised(proto, job.folder)
        _lift_zero_channels(folded)
        save_onnx(folded, job.model)
        placing = _quantise(job, batches, cache)
        return _write(job, placing, fp32, out)


def _lift_zero_channels(proto: onnx.ModelProto) -> None:
    """Gives output channels of zeros only, e.g. pruned ones, a weight too small to matter, in place.

    ONNX Runtime gives them a scale of 1, and with it their biases are rounded to whole steps of the input.
    """
    tensors = {tensor.name: tensor for tensor in proto.graph.initializer}
    for node in proto.graph.node:
        tensor = tensors.get(node.input[1]) if node.op_type in ("Conv", "Gemm") else None
        if tensor is None or tensor.data_type != onnx.TensorProto.FLOAT:
            continue
        transposed = node.op_type == "Conv" or any(a.name == "transB" and a.i for a in node.attribute)
        weights = to_array(tensor)
        others = tuple(range(1, weights.ndim)) if transposed else (0,)
        dead = np.flatnonzero(~weights.any(axis=others))
        if dead.size and dead.size < weights.shape[0 if transposed else 1]:
            weights = weights.copy()
            channels = weights if transposed else weights.T
            for channel in dead:
                channels[channel].reshape(-1)[:1] = np.abs(weights).max() * _ZERO_CHANNEL
            tensor.CopyFrom(from_array(weights, tensor.name))


def _operators_of_the_tool() -> list[str]:
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    return sorted({*QDQRegistry, *QLinearOpsRegistry})


def _quantise(job: Job, batches: CalibrationBatches, cache: Path | None) -> Placing:
    """Writes ``quantised.onnx``."""
    in_float = dict.fromkeys(job.plan.float_groups, "as the plan says") | move_ranges(job.model, job.plan, batches)
    given = onnx.load(job.model)
    names, same = activations(given, job.operators)
    statistics, dtypes = statistics_of(job.model, job.plan.method, batches, names, cache)
    placing = _place(job, given, in_float, statistics, same)
    ranges = {name: range_of(one, str(job.plan.method)) for name, one in statistics.items()}
    ranges |= {name: ranges[of] for name, of in same.items() if of in ranges}
    dtypes |= {name: dtypes[of] for name, of in same.items() if of in dtypes}
    quantised = _with_pairs(job, given, placing, ranges, dtypes)
    if "bias-correction" in job.plan.corrections and correct_biases(given, quantised, batches, job.folder):
        quantised = _with_pairs(job, given, placing, ranges, dtypes)
    save_onnx(quantised, job.folder / QUANTISED)
    return placing


def _place(
    job: Job,
    given: onnx.ModelProto,
    in_float: Mapping[str, str],
    statistics: Mapping[str, TensorStatistics],
    same: Mapping[str, str],
) -> Placing:
    unfit = unfit_of(statistics)
    unfit |= {name: unfit[of] for name, of in same.items() if of in unfit}
    return place(given, job.operators, in_float, unfit, chosen=job.chosen)


def _with_pairs(
    job: Job,
    given: onnx.ModelProto,
    placing: Placing,
    ranges: Mapping[str, tuple[float, float]],
    dtypes: Mapping[str, str],
) -> onnx.ModelProto:
    """ONNX Runtime's own writer of Q/DQ pairs, on the nodes that were chosen."""
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    proto = onnx.ModelProto()
    proto.CopyFrom(given)
    _declare_types(proto, dtypes)
    data = {
        name: TensorData(lowest=np.array(low, _kept(dtypes[name])), highest=np.array(high, _kept(dtypes[name])))
        for name, (low, high) in ranges.items()
    }
    quantizer = QDQQuantizer(
        proto,
        job.scheme.per_channel,
        job.scheme.reduce_range,
        QuantType.QInt8,
        QuantType.QInt8 if job.scheme.activation_signed else QuantType.QUInt8,
        TensorsData(CalibrationMethod.MinMax, data),
        [],
        [node.name for node in proto.graph.node if node.name not in placing.nodes],
        list(job.operators),
        {
            "ActivationSymmetric": job.scheme.activation_symmetric,
            "WeightSymmetric": job.scheme.weight_symmetric,
            "QuantizeBias": job.scheme.quantize_bias,
        },
    )
    if placing.nodes:
        quantizer.quantize_model()
    quantised = quantizer.model.model
    if job.chosen:
        unpair(quantised, given, placing, job.operators)
    _keep_products(quantised)
    sort_nodes(quantised.graph)
    return quantised


def _keep_products(proto: onnx.ModelProto) -> None:
    """Gives the bias behind an int8 MatMul of three axes or more as many axes, in place.

    Once shapes are known, ONNX Runtime fuses a MatMul and the addition of a vector into a Gemm before it looks for Q/DQ
    pairs, and has no int8 Gemm of a float bias; it leaves other shapes alone and takes them up into the int8 product.
    """
    made = {name: node for node in proto.graph.node for name in node.output}
    tensors = {tensor.name: tensor for tensor in proto.graph.initializer}
    ranks = _ranks(proto)
    for node in proto.graph.node:
        products = [made[name] for name in node.input if name in made and made[name].op_type == "MatMul"]
        if node.op_type != "Add" or not any(made.get(p.input[0], p).op_type == "DequantizeLinear" for p in products):
            continue
        rank = ranks.get(node.output[0], 0)
        for at, name in enumerate(node.input):
            if rank > 2 and name in tensors and len(tensors[name].dims) == 1:
                lifted = f"{name}/{rank}"
                if lifted not in tensors:
                    array = to_array(tensors[name])
                    tensors[lifted] = from_array(array.reshape((1,) * (rank - 1) + array.shape), lifted)
                    proto.graph.initializer.append(tensors[lifted])
                node.input[at] = lifted


def _ranks(proto: onnx.ModelProto) -> dict[str, int]:
    """Axes of every tensor, as far as they can be inferred."""
    inferred = onnx.shape_inference.infer_shapes(proto).graph
    values = (*inferred.value_info, *inferred.output)
    return {v.name: len(v.type.tensor_type.shape.dim) for v in values if v.type.tensor_type.HasField("shape")}


def _kept(dtype: str) -> str:
    """ONNX Runtime keeps ranges in float16 or float32."""
    return "float16" if dtype == "float16" else "float32"


def _declare_types(proto: onnx.ModelProto, dtypes: Mapping[str, str]) -> None:
    """Tells the writer the type of every activation, as the engine knows it, so that none is passed over."""
    del proto.graph.value_info[:]
    told = {value.name for value in (*proto.graph.input, *proto.graph.output)}
    proto.graph.value_info.extend(
        onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), None)
        for name, dtype in dtypes.items()
        if name not in told
    )


def _write(job: Job, placing: Placing, fp32: Artifact, out: Path) -> Artifact:
    """Drops the optimiser's unused operator sets, and notes which compute nodes stayed in float."""
    proto = load_onnx(job.folder / QUANTISED)
    strip_metadata(proto)
    used = {node.domain for node in proto.graph.node}
    kept = [entry for entry in proto.opset_import if not entry.domain or entry.domain in used]
    del proto.opset_import[:]
    proto.opset_import.extend(kept)
    del proto.graph.value_info[:]
    out.mkdir(parents=True, exist_ok=True)
    save_onnx(proto, out / "model.onnx")
    written = describe_onnx(out / "model.onnx", precision="int8", parent=fp32.sha256)
    return replace(written, inputs=fp32.inputs, outputs=fp32.outputs, notes=_notes(proto, placing))


def _notes(proto: onnx.ModelProto, placing: Placing) -> tuple[str, ...]:
    """One line a reason: which compute nodes stayed in float for it."""
    quantised = {node.output[0] for node in proto.graph.node if node.op_type == "DequantizeLinear"}
    by_reason: dict[str, list[str]] = {}
    for node in proto.graph.node:
        if node.op_type in COMPUTE and not quantised.issuperset(node.input[:2]):
            reason = placing.reasons.get(node.name, "ONNX Runtime's quantiser left it out")
            by_reason.setdefault(reason, []).append(node.name)
    return tuple(f"left in float: {', '.join(names)} ({reason})" for reason, names in by_reason.items())
