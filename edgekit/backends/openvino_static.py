"""Static int8 for OpenVINO: NNCF observes the float graph and places FakeQuantize operators."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.artifact import Artifact
from edgekit.backends.calibration import calibration_batches, check_float_groups, require_float, scheme_of
from edgekit.backends.openvino_ir import (
    NAME,
    RECURRENT,
    convert_graph,
    is_constant,
    nodes_of,
    onnx_name,
    save_graph,
    sources,
)
from edgekit.backends.refusals import refusals
from edgekit.data import Batches
from edgekit.errors import EngineError
from edgekit.quantization.equalization import equalize
from edgekit.quantization.groups import name_nodes
from edgekit.quantization.schemes import USUAL, Plan, Scheme

if TYPE_CHECKING:
    import onnx

# NNCF's range estimators by our method names; the field of ``RangeEstimatorParametersSet``. Weights are always min-max.
#   average     mean over the samples of each sample's minimum and maximum: NNCF's default
#   minmax      minimum and maximum over all samples
#   percentile  mean over the samples of each sample's 0.01% and 99.99% quantiles
#   mse         the range with the least squared error on a histogram of all samples (torchao's HistogramObserver)
RANGES: Mapping[str, str | None] = {
    "average": None,
    "minmax": "MINMAX",
    "percentile": "MEAN_QUANTILE",
    "mse": "HISTOGRAM",
}
COMPUTE = (
    *("Convolution", "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData", "MatMul"),
    *RECURRENT,
)
# ONNX operators that NNCF can quantise and a scheme may choose among.
QUANTISABLE = ("Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "Add", "Mul", "Sub", "AveragePool")
_ENGINE_SAYS = "Exception from src/"
_ATTENTION = "ScaledDotProductAttention"
# What moves or scales numbers between a product and a softmax.
_PASSES = frozenset(
    {"Add", "Subtract", "Multiply", "Divide", "Select", "Reshape", "Transpose", "Convert", "Squeeze", "Unsqueeze"}
    | {"Clamp", "Concat", "StridedSlice", "Slice", "MaxPool", "Split", "VariadicSplit", "Relu", "Broadcast", "Gather"}
)


def quantize(fp32: Artifact, data: Batches | None, plan: Plan, out: Path) -> Artifact:
    """Post-training quantisation with ``nncf.quantize`` on the converted OpenVINO graph.

    Ranges: see :data:`RANGES`. Corrections: ``bias-correction`` is NNCF's fast bias correction (Finkelstein et al.
    2019), ``smooth-quant`` is SmoothQuant of matrix products (Xiao et al. 2022) at NNCF's strength 0.95, which NNCF
    has for transformers only. ``equalize`` is ours: NNCF 3.4's channel alignment fails in its own code.

    Returns:
        An IR; its notes say what stayed in float and why, and which correction had nothing to do.

    Raises:
        EngineError: A field of the scheme is not possible with NNCF, or NNCF or OpenVINO refuse the model.
    """
    from edgekit.conversion.clean import free_constants, load_onnx
    from edgekit.conversion.quiet import quiet
    from edgekit.runtime.openvino import engine_errors
    from edgekit.runtime.quiet import silence_telemetry

    scheme, batches, proto = scheme_of(plan), calibration_batches(data, fp32), load_onnx(fp32.path)
    check_scheme(scheme)
    require_float(proto, fp32.model)
    name_nodes(proto)
    check_float_groups(plan, proto)
    silence_telemetry()
    with refusals(NAME, fp32), engine_errors("quantise the model"), quiet():
        import nncf

        free_constants(proto)
        pairs = equalize(proto) if "equalize" in plan.corrections else 0
        graph = convert_graph(proto)
        transformer = is_transformer(graph) if scheme.model_type is None else bool(scheme.model_type)
        kept = _kept_in_float(graph, proto, plan, scheme)
        settings = _settings(plan, scheme, transformer)
        ignored = nncf.IgnoredScope(names=[name for group in kept for name in group.names], validate=False)
        quantised = _nncf(graph, batches, len(batches), ignored, settings)
        notes = (*_notes(quantised, kept, proto), *_fused(graph, proto, plan), *_idle(plan, transformer, pairs))
        written = save_graph(quantised, out, "int8", {}, fp32)
    return replace(written, notes=(*written.notes, *notes))


def check_scheme(scheme: Scheme) -> None:
    """Refuses fields that NNCF cannot make true.

    Raises:
        EngineError: There is one; tells what it can.
    """
    wrong: tuple[str, object, str] | None = None
    if scheme.activation_signed:
        wrong = "activation_signed", True, "false: NNCF takes signed where a tensor has negative values, else unsigned"
    elif scheme.quantize_bias:
        wrong = "quantize_bias", True, "false: OpenVINO keeps biases in float"
    elif not scheme.weight_symmetric and scheme.reduce_range:
        wrong = "weight_symmetric", False, "true: NNCF halves the range of symmetric weights only (reduce_range)"
    elif scheme.preset == "performance" and not scheme.activation_symmetric:
        wrong = "preset", "performance", "mixed, or no preset: performance has symmetric activations"
    for operator, inputs in scheme.operators.items():
        if operator not in QUANTISABLE:
            wrong = f"operators.{operator}", inputs, f"operators among {', '.join(QUANTISABLE)}"
        elif inputs not in ((), (0,), (0, 1)) or (inputs == (0,) and operator != "AveragePool"):
            wrong = f"operators.{operator}", list(inputs), "[0, 1]: NNCF quantises all inputs of an operator or none"
    if wrong is not None:
        field, found, allowed = wrong
        raise EngineError(f"openvino: scheme.{field} is not possible", found=found, allowed=allowed)


def is_transformer(graph: Any) -> bool:
    """Whether an OpenVINO graph has attention: a softmax between two products of activations."""
    for node in graph.get_ordered_ops():
        if node.get_type_name() == _ATTENTION:
            return True
        if node.get_type_name() == "Softmax" and _reaches(node, back=True) and _reaches(node, back=False):
            return True
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    """Nodes of the graph that NNCF is told to leave, and why."""

    reason: str
    names: tuple[str, ...]


def _kept_in_float(graph: Any, proto: onnx.ModelProto, plan: Plan, scheme: Scheme) -> list[_Kept]:
    kept = [_Kept(reason="as the plan says", names=tuple(nodes_of(graph, set(plan.float_groups), proto)))]
    if scheme.operators:
        left = {n.name for n in proto.graph.node if n.op_type in QUANTISABLE and n.op_type not in scheme.operators}
        kept.append(_Kept(reason="as the scheme says", names=tuple(nodes_of(graph, left, proto))))
    # Its kernels take state and input in one scale, the input's: a state below zero is lost where inputs have no sign.
    recurrent = [n.get_friendly_name() for n in graph.get_ordered_ops() if n.get_type_name() in RECURRENT]
    kept.append(_Kept(reason="its int8 kernel loses the state", names=tuple(recurrent)))
    # NNCF fails on the range of a tensor without elements.
    empty = [n.get_friendly_name() for n in graph.get_ordered_ops() if n.get_type_name() != "Constant" and _empty(n)]
    kept.append(_Kept(reason="its tensors have no elements", names=tuple(empty)))
    return [group for group in kept if group.names]


def _empty(node: Any) -> bool:
    ports = [*node.outputs(), *(port.get_source_output() for port in node.inputs())]
    shapes = [port.get_partial_shape() for port in ports]
    return any(dim.is_static and dim.get_length() == 0 for s in shapes if s.rank.is_static for dim in s)


def _settings(plan: Plan, scheme: Scheme, transformer: bool) -> dict[str, Any]:
    """Arguments of ``nncf.quantize`` for a plan."""
    import nncf
    from nncf.common.quantization.structs import QuantizationScheme
    from nncf.quantization.advanced_parameters import (
        AdvancedQuantizationParameters,
        AdvancedSmoothQuantParameters,
        OverflowFix,
        QuantizationParameters,
    )
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    advanced = AdvancedQuantizationParameters(
        overflow_fix=OverflowFix.ENABLE if scheme.reduce_range else OverflowFix.DISABLE,
        disable_bias_correction="bias-correction" not in plan.corrections,
        weights_quantization_params=QuantizationParameters(
            per_channel=None if scheme.per_channel else False,
            mode=None if scheme.weight_symmetric else QuantizationScheme.ASYMMETRIC,
        ),
    )
    if "smooth-quant" not in plan.corrections:
        advanced.smooth_quant_alphas = AdvancedSmoothQuantParameters(convolution=-1, matmul=-1)
    ranges = RANGES[plan.method or "average"]
    if ranges is not None:
        advanced.activations_range_estimator_params = getattr(RangeEstimatorParametersSet, ranges)
    preset = scheme.preset or ("mixed" if transformer or not scheme.activation_symmetric else "performance")
    return {
        "preset": nncf.QuantizationPreset(preset),
        "target_device": nncf.TargetDevice.CPU,
        "model_type": nncf.ModelType.TRANSFORMER if transformer else None,
        "advanced_parameters": advanced,
    }


def _nncf(graph: Any, batches: Any, size: int, ignored: Any, settings: Mapping[str, Any]) -> Any:
    import nncf

    names = {node.get_friendly_name(): node.get_type_name() for node in graph.get_ordered_ops()}
    try:
        return nncf.quantize(graph, nncf.Dataset(batches), subset_size=size, ignored_scope=ignored, **settings)
    except EngineError:
        raise
    except (RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError, AssertionError) as exc:
        message = " ".join(str(exc).split())
        if _ENGINE_SAYS in message:
            raise  # OpenVINO's own, which its boundary words
        told = sorted((name for name in names if len(name) > 2 and name in message), key=len)
        where = f" at {names[told[-1]]} {told[-1]!r}" if told else ""
        raise EngineError(
            f"NNCF could not quantise the model{where}",
            found=f"{type(exc).__name__}: {message[:500]}",
            fix="leave the node in float (float_nodes), or choose --engine onnxruntime or another precision",
        ) from exc


def _notes(quantised: Any, kept: list[_Kept], proto: onnx.ModelProto) -> list[str]:
    """What stayed in float of the compute nodes, one note a reason."""
    by_reason: dict[str, list[str]] = {}
    asked = {name: group.reason for group in reversed(kept) for name in group.names}
    known = {node.name for node in proto.graph.node}
    for node in quantised.get_ordered_ops():
        if node.get_type_name() in COMPUTE and not _is_quantised(node):
            name = node.get_friendly_name()
            reason = asked.get(name) or _nncfs_reason(node)
            by_reason.setdefault(reason, []).append(onnx_name(node, known))
    return [f"left in float: {', '.join(names)} ({reason})" for reason, names in by_reason.items()]


def _nncfs_reason(node: Any) -> str:
    kind = node.get_type_name()
    if kind == "MatMul" and any(_first_of(source) == "Softmax" for source in sources(node)):
        return "NNCF leaves the product behind a softmax"
    return f"NNCF leaves this {kind}"


def _fused(graph: Any, proto: onnx.ModelProto, plan: Plan) -> list[str]:
    """Compute nodes of the plan's float groups that are no longer there, so that nothing could be left in float."""
    asked = [n.name for n in proto.graph.node if n.name in plan.float_groups and n.op_type in QUANTISABLE[:6]]
    gone = [name for name in asked if not nodes_of(graph, {name}, proto)]
    return [f"not left in float: {', '.join(gone)} (OpenVINO makes one operator of it and others)"] if gone else []


def _idle(plan: Plan, transformer: bool, pairs: int) -> list[str]:
    """Corrections that were asked for, beyond the usual ones, and had nothing to correct."""
    notes = []
    usual = set(USUAL[NAME].corrections) <= set(plan.corrections)
    if "smooth-quant" in plan.corrections and not usual and not transformer:
        notes.append("smooth-quant had nothing to do: NNCF smooths transformers only")
    if "equalize" in plan.corrections and not pairs:
        notes.append("equalize had nothing to do: no two layers have only a ReLU or a pooling between them")
    return notes


def _is_quantised(node: Any) -> bool:
    data = sources(node)[: 1 if node.get_type_name() in RECURRENT else 2]  # a state begins at a constant
    return all(_first_of(source) == "FakeQuantize" for source in data if not is_constant(source))


def _first_of(node: Any) -> str:
    """Type of the first operator before a node, or itself, that does more than move or scale numbers."""
    seen = 0
    while node.get_type_name() in _PASSES and seen < 20 and node.inputs():
        node, seen = sources(node)[0], seen + 1
    return str(node.get_type_name())


def _reaches(softmax: Any, *, back: bool) -> bool:
    """Whether a product of two activations lies next to a softmax, with nothing but scaling and masks between."""
    queue, seen = [softmax], {softmax.get_friendly_name()}
    while queue:
        node = queue.pop()
        users = [port.get_node() for output in node.outputs() for port in output.get_target_inputs()]
        for other in sources(node) if back else users:
            kind = other.get_type_name()
            if kind == "MatMul" and not any(is_constant(source) for source in sources(other)):
                return True
            if kind in _PASSES and other.get_friendly_name() not in seen:
                seen.add(other.get_friendly_name())
                queue.append(other)
    return False
