"""fp16, and weights of 8 and 4 bits, for TensorRT: constants behind a DequantizeLinear, the products in float."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import onnx

from edgekit.artifact import Array, Artifact
from edgekit.backends.calibration import calibration_batches
from edgekit.backends.onnxruntime_products import left_note, no_products
from edgekit.backends.refusals import refusals
from edgekit.backends.static import OPTIMISED, optimised
from edgekit.backends.tensorrt_fp16 import overflowing, to_fp16
from edgekit.backends.tensorrt_pairs import quantise_weights
from edgekit.backends.tensorrt_placing import channel_axis
from edgekit.backends.tensorrt_static import LEAST_OPSET, MOST_OPSET, prepared, written
from edgekit.conversion.quiet import quiet
from edgekit.data import Batches
from edgekit.quantization.schemes import Plan
from edgekit.runtime.onnxruntime import engine_errors
from edgekit.runtime.quiet import silence_telemetry

NAME = "tensorrt"
INT4_OPSET = 21  # the first whose DequantizeLinear takes int4
_UNSEEN = "no samples were given, so nothing is known of values beyond fp16"


def to_half(fp32: Artifact, data: Batches | None, plan: Plan, out: Path) -> Artifact:
    """The model in fp16 with its own inputs and outputs; what the samples show to leave fp16's range stays in fp32.

    Returns:
        An ONNX artifact; its notes name what stayed in fp32.

    Raises:
        ModelError: Its opset does not fit TensorRT, or it is quantised already.
        UnknownName: The plan names a node that there is not.
    """
    silence_telemetry()
    proto = prepared(fp32, plan)
    batches = calibration_batches(data, fp32) if data is not None else None
    with tempfile.TemporaryDirectory() as folder, refusals(NAME, fp32), engine_errors("convert to fp16"), quiet():
        model = Path(folder) / OPTIMISED
        proto = optimised(proto, model.parent, off=["MatMulAddFusion"], apart=True)
        onnx.save(proto, str(model))
        notes = _halved(proto, model, batches, plan.float_groups)
        return written(proto, model.parent, fp32, plan.precision, out, notes)


def quantize(fp32: Artifact, data: Batches | None, plan: Plan, out: Path) -> Artifact:
    """Rounds constant matrices to 8 or 4 bits, one symmetric scale an output channel; the products run in float.

    Returns:
        An ONNX artifact; its notes name what stayed in float and why.

    Raises:
        ModelError: There is no matrix product with constant weights, or the opset does not fit TensorRT.
        UnknownName: The plan names a node that there is not.
    """
    silence_telemetry()
    bits = int(plan.precision.removeprefix("w"))
    least, most = (INT4_OPSET, INT4_OPSET) if bits == 4 else (LEAST_OPSET, MOST_OPSET)
    proto = prepared(fp32, plan, least, most)
    batches = calibration_batches(data, fp32) if data is not None else None
    half = plan.scheme is not None and plan.scheme.float_type == "fp16"
    with (
        tempfile.TemporaryDirectory() as folder,
        refusals(NAME, fp32),
        engine_errors("store the weights small"),
        quiet(),
    ):
        model = Path(folder) / OPTIMISED
        proto = optimised(proto, model.parent, off=["MatMulAddFusion"], apart=True)
        onnx.save(proto, str(model))
        axes, left = _matrices(proto, plan, bits)
        if not axes:
            what = "w8 and w4 store weights of matrix products; convolutions stay as they are"
            raise no_products(fp32.model, what, kept=bool(plan.float_groups))
        before = quantise_weights(proto, axes, model.parent, kind=f"int{bits}", half=half)
        nodes = [one for node in proto.graph.node for one in (*before.get(node.name, ()), node)]
        del proto.graph.node[:]
        proto.graph.node.extend(nodes)
        notes = [f"weights of {len(axes)} matrix products in {bits} bits", *left]
        if half:
            notes += _halved(proto, model, batches, ())
        return written(proto, model.parent, fp32, plan.precision, out, notes)


def _matrices(proto: onnx.ModelProto, plan: Plan, bits: int) -> tuple[dict[str, int | None], list[str]]:
    """Products with a constant matrix and the axis of its output channels; notes on the others."""
    weights = {tensor.name: tensor for tensor in proto.graph.initializer}
    axes: dict[str, int | None] = {}
    odd, asked, others = [], [], []
    for node in proto.graph.node:
        tensor = weights.get(node.input[1]) if node.op_type in ("MatMul", "Gemm") else None
        if tensor is None or tensor.data_type != onnx.TensorProto.FLOAT or len(tensor.dims) != 2:
            if node.op_type in ("Conv", "ConvTranspose"):
                others.append(node.name)
        elif node.name in plan.float_groups:
            asked.append(node.name)
        elif bits == 4 and tensor.dims[-1] % 2:
            odd.append(node.name)
        else:
            axes[node.name] = channel_axis(node, 2)
    notes = [
        *left_note(asked, "as the plan says"),
        *left_note(odd, "TensorRT takes int4 in pairs, and its last axis is odd"),
        *left_note(others, "weights of 8 and 4 bits are for matrix products only"),
    ]
    return axes, notes


def _halved(
    proto: onnx.ModelProto, model: Path, batches: Iterable[Mapping[str, Array]] | None, kept: tuple[str, ...]
) -> list[str]:
    notes = to_fp16(proto, model.parent, overflowing(model, batches), kept)
    return notes if batches is not None else [*notes, _UNSEEN]
