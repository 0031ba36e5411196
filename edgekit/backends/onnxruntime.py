"""ONNX Runtime: static Q/DQ in the dialect its CPU kernels run in int8, and a fixed batch.

Dialects: https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html. On x86 only unsigned
activations with signed weights reach the int8 kernels; without VNNI their int16 accumulation saturates, so
weights are kept to 7 bits; on ARM both are signed.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.artifact import Array, Artifact, Option
from edgekit.backends.calibration import (
    CalibrationBatches,
    calibration_batches,
    check_float_groups,
    require_float,
    scheme_of,
)
from edgekit.backends.refusals import refusals, require_opens
from edgekit.data import Batches
from edgekit.errors import ModelError
from edgekit.quantization.schemes import Plan, Scheme
from edgekit.specs import Target

if TYPE_CHECKING:
    import onnx

NAME = "onnxruntime"
COMPUTE = ("Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum", "LSTM", "GRU", "RNN")
VNNI_TIERS = ("avx2-vnni", "avx512-vnni", "amx")
# The first opset whose QuantizeLinear has an axis: one scale a channel.
PER_CHANNEL_OPSET = 13
METHODS: Mapping[str, tuple[str, ...]] = {"int8": ("minmax",)}
CORRECTIONS: tuple[str, ...] = ()
FLOAT, OPTIMISED, QUANTISED = "float.onnx", "optimised.onnx", "quantised.onnx"


def missing(target: Target) -> str | None:
    """Why it cannot prepare here."""
    for module in ("onnx", "onnxruntime"):
        if importlib.util.find_spec(module) is None:
            return f"{module} is not installed: pip install 'edgekit[compress]'"
    return None


def scheme(target: Target) -> Scheme:
    """ARM: signed. x86: unsigned activations, 7-bit weights unless the target has VNNI."""
    if target.arch == "aarch64":
        return Scheme(name="s8s8-per-channel", activation_signed=True, activation_symmetric=False)
    reduce = target.isa not in VNNI_TIERS
    name = "u8s8-per-channel" + ("-7bit" if reduce else "")
    return Scheme(name=name, activation_signed=False, activation_symmetric=False, reduce_range=reduce)


def refuses(plan: Plan, target: Target) -> str | None:
    """Nothing: every plan of its methods runs on every target that has the precision."""
    return None


def quantize(fp32: Artifact, data: Batches | None, plan: Plan, out: Path, cache: Path | None = None) -> Artifact:
    """Post-training static quantisation with ``onnxruntime.quantization.quantize_static``.

    Returns:
        An ONNX artifact with Q/DQ; its notes name the compute nodes that stayed in float.
    """
    from edgekit.conversion.clean import load_onnx
    from edgekit.conversion.quiet import quiet
    from edgekit.runtime.onnxruntime import engine_errors
    from edgekit.runtime.quiet import silence_telemetry

    silence_telemetry()
    import onnxruntime

    scheme, batches, proto = scheme_of(plan), calibration_batches(data, fp32), load_onnx(fp32.path)
    require_float(proto, fp32.model)
    check_float_groups(plan, proto)
    proto = _with_per_channel_opset(proto, fp32.model)
    onnxruntime.set_default_logger_severity(3)  # errors; they are raised as well
    with (
        tempfile.TemporaryDirectory() as folder,
        refusals(NAME, fp32),
        engine_errors("quantise the model"),
        quiet(),
    ):
        _optimise(proto, Path(folder))
        _quantise(Path(folder), batches, scheme, plan)
        return _write(Path(folder) / QUANTISED, fp32, out)


def compile(model: Artifact, target: Target, batch: int, out: Path) -> Artifact:
    """Fixes the batch; the ONNX itself ships, because an optimised one is tied to the CPU that wrote it."""
    from edgekit.conversion.clean import with_fixed_batch

    options: dict[str, Option] = {"provider": "CPUExecutionProvider", "inter_op_num_threads": 1}
    if target.threads:
        options["intra_op_num_threads"] = target.threads
    fixed = with_fixed_batch(model, batch, out)
    built = replace(fixed, engine=NAME, options=options | target.options.get("onnxruntime", {}))
    with refusals(NAME, model):
        require_opens(built)
    return built


def _with_per_channel_opset(proto: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """Moves an older model up to the opset that has one scale a channel."""
    import onnx
    from onnx import version_converter

    from edgekit.conversion.clean import free_constants

    free_constants(proto)
    opset = next((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), PER_CHANNEL_OPSET)
    if opset >= PER_CHANNEL_OPSET:
        return proto
    try:
        return version_converter.convert_version(proto, PER_CHANNEL_OPSET)
    except (RuntimeError, onnx.checker.ValidationError) as exc:
        raise ModelError(
            f"{name}: opset {opset} has no scales per channel, and the model cannot be moved up",
            found=str(exc).strip().splitlines()[-1],
            allowed=f"opset {PER_CHANNEL_OPSET} or newer",
            fix=f"export the model at opset {PER_CHANNEL_OPSET} or newer",
        ) from exc


def _optimise(proto: onnx.ModelProto, folder: Path) -> None:
    """Folds BatchNorms and constants with the engine's own portable rewrites, so that no quantiser stands between."""
    import onnxruntime as ort

    from edgekit.conversion.clean import is_large, save_onnx

    save_onnx(proto, folder / FLOAT)
    settings = ort.SessionOptions()
    settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    settings.optimized_model_filepath = str(folder / OPTIMISED)
    if is_large(proto):
        settings.add_session_config_entry(
            "session.optimized_model_external_initializers_file_name", f"{OPTIMISED}.data"
        )
    ort.InferenceSession(folder / FLOAT, settings, providers=["CPUExecutionProvider"])


def _quantise(folder: Path, batches: CalibrationBatches, scheme: Scheme, plan: Plan) -> None:
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    quantize_static(
        folder / OPTIMISED,
        folder / QUANTISED,
        _Reader(batches),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QInt8 if scheme.activation_signed else QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=scheme.per_channel,
        reduce_range=scheme.reduce_range,
        nodes_to_exclude=list(plan.float_groups),
        use_external_data_format=(folder / f"{OPTIMISED}.data").exists(),
        calibrate_method=CalibrationMethod.MinMax,
        extra_options={
            "ActivationSymmetric": scheme.activation_symmetric,
            "WeightSymmetric": scheme.weight_symmetric,
            "QuantizeBias": scheme.quantize_bias,
        },
    )


class _Reader:
    """ONNX Runtime's reader protocol: None after the last batch."""

    def __init__(self, batches: CalibrationBatches) -> None:
        self._left = iter(batches)

    def get_next(self) -> dict[str, Array] | None:
        return next(self._left, None)


def _write(quantised: Path, fp32: Artifact, out: Path) -> Artifact:
    """Drops the optimiser's unused operator sets, and notes which compute nodes stayed in float."""
    from edgekit.conversion.clean import describe_onnx, load_onnx, save_onnx, strip_metadata

    proto = load_onnx(quantised)
    strip_metadata(proto)
    used = {node.domain for node in proto.graph.node}
    kept = [entry for entry in proto.opset_import if not entry.domain or entry.domain in used]
    del proto.opset_import[:]
    proto.opset_import.extend(kept)
    out.mkdir(parents=True, exist_ok=True)
    save_onnx(proto, out / "model.onnx")
    written = describe_onnx(out / "model.onnx", precision="int8", parent=fp32.sha256)
    left = _left_in_float(proto)
    notes = (f"left in float: {', '.join(left)}",) if left else ()
    return replace(written, inputs=fp32.inputs, outputs=fp32.outputs, notes=notes)


def _left_in_float(proto: onnx.ModelProto) -> list[str]:
    quantised = {node.output[0] for node in proto.graph.node if node.op_type == "DequantizeLinear"}
    return [
        node.name or node.output[0]
        for node in proto.graph.node
        if node.op_type in COMPUTE and not quantised.issuperset(node.input[:2])
    ]
