"""ONNX Runtime: static Q/DQ in the dialect its CPU kernels run in int8, and a fixed batch.

Dialects: https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html. On x86 only unsigned
activations with signed weights reach the int8 kernels; without VNNI their int16 accumulation saturates, so
weights are kept to 7 bits; on ARM both are signed.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Iterator
from pathlib import Path

from edgekit.artifact import Array, Artifact, Option, hash_files
from edgekit.data import Batches
from edgekit.errors import EngineError
from edgekit.quantization.schemes import Plan, Scheme
from edgekit.specs import Target

COMPUTE = ("Conv", "ConvTranspose", "Gemm", "MatMul")
VNNI_TIERS = ("avx2-vnni", "avx512-vnni", "amx")


def missing(target: Target) -> str | None:
    """Why it cannot prepare here."""
    for module in ("onnx", "onnxruntime", "sympy"):
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


def quantize(fp32: Artifact, data: Batches, plan: Plan, out: Path) -> Artifact:
    """Post-training static quantisation with ``onnxruntime.quantization.quantize_static``."""
    from edgekit.runtime.onnxruntime import engine_errors
    from edgekit.runtime.quiet import silence_telemetry

    silence_telemetry()
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    scheme = _scheme_of(plan)
    out.mkdir(parents=True, exist_ok=True)
    path = out / "model.onnx"
    with tempfile.TemporaryDirectory() as folder, engine_errors("quantise the model"):
        prepared = str(Path(folder) / "prepared.onnx")
        quant_pre_process(str(fp32.path), prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            str(path),
            _Reader(data),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QInt8 if scheme.activation_signed else QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=scheme.per_channel,
            reduce_range=scheme.reduce_range,
            nodes_to_exclude=list(plan.float_groups),
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={
                "ActivationSymmetric": scheme.activation_symmetric,
                "WeightSymmetric": scheme.weight_symmetric,
                "QuantizeBias": scheme.quantize_bias,
            },
        )
    return _finish(path, fp32)


def compile(model: Artifact, target: Target, batch: int, out: Path) -> Artifact:
    """Fixes the batch; the ONNX itself ships, because an optimised one is tied to the CPU that wrote it."""
    import onnx

    from edgekit.conversion.clean import describe_onnx, fix_shapes, load_onnx

    proto = load_onnx(model.path)
    fix_shapes(proto, batch)
    out.mkdir(parents=True, exist_ok=True)
    path = out / "model.onnx"
    large = proto.ByteSize() > 1_500_000_000
    onnx.save(proto, str(path), save_as_external_data=large, location="model.onnx.data" if large else None)
    described = describe_onnx(path, precision=model.precision)
    options: dict[str, Option] = {"provider": "CPUExecutionProvider", "inter_op_num_threads": 1}
    if target.threads:
        options["intra_op_num_threads"] = target.threads
    return Artifact(
        folder=out,
        model=path.name,
        files=described.files,
        engine="onnxruntime",
        precision=model.precision,
        inputs=described.inputs,
        outputs=described.outputs,
        options=options | target.options.get("onnxruntime", {}),
        parent=model.sha256,
        notes=model.notes,
    )


class _Reader:
    """ONNX Runtime's reader protocol over re-iterable batches."""

    def __init__(self, data: Batches) -> None:
        self._batches: Iterator[dict[str, Array]] = iter(data)

    def get_next(self) -> dict[str, Array] | None:
        return next(self._batches, None)

    def __iter__(self) -> Iterator[dict[str, Array]]:
        return self._batches


def _scheme_of(plan: Plan) -> Scheme:
    if plan.scheme is None:
        raise EngineError(f"{plan}: an int8 plan needs a scheme", fix="take it from the backend's scheme(target)")
    return plan.scheme


def _finish(path: Path, fp32: Artifact) -> Artifact:
    """Drops the optimiser's unused operator sets, then notes which compute nodes stayed in float."""
    import onnx

    proto = onnx.load(str(path))
    used = {node.domain or "" for node in proto.graph.node}
    kept = [entry for entry in proto.opset_import if (entry.domain or "") in used | {""}]
    del proto.opset_import[:]
    proto.opset_import.extend(kept)
    onnx.save(proto, str(path))
    quantised = {node.output[0] for node in proto.graph.node if node.op_type == "DequantizeLinear"}
    left = [node.name for node in proto.graph.node if node.op_type in COMPUTE and not set(node.input[:2]) <= quantised]
    notes = (f"left in float: {', '.join(left)}",) if left else ()
    return Artifact(
        folder=path.parent,
        model=path.name,
        files=hash_files(path.parent, [path.name]),
        engine="onnx",
        precision="int8",
        inputs=fp32.inputs,
        outputs=fp32.outputs,
        parent=fp32.sha256,
        notes=notes,
    )
