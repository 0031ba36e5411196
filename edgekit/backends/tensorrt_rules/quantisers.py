"""Rules on single QuantizeLinear and DequantizeLinear nodes: element types, scales, zero points, axes, pairs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx

from edgekit.artifact import Array
from edgekit.backends.tensorrt_rules.operators import is_known
from edgekit.backends.tensorrt_rules.wiring import (
    DEQUANTISE,
    DOMAINS,
    QUANTISE,
    Breach,
    View,
    attribute,
    integer,
    name_of,
    type_name,
)

INT8, FP8, INT4, FP4 = (
    onnx.TensorProto.INT8,
    onnx.TensorProto.FLOAT8E4M3FN,
    onnx.TensorProto.INT4,
    onnx.TensorProto.FLOAT4E2M1,
)
QUANTISED = (INT8, FP8, INT4, FP4)
_BLOCKED = (INT4, FP4)


def check_quantisers(view: View, *, older: bool) -> Iterator[Breach]:
    """Breaches by single Q/DQ nodes.

    Args:
        view: The model.
        older: By TensorRT 10.1, which has no fp4.
    """
    for node in view.nodes:
        if node.op_type not in (QUANTISE, DEQUANTISE) or node.domain not in DOMAINS or len(node.input) < 2:
            continue
        kind = _quantised_type(view, node)
        if kind == onnx.TensorProto.INT32 and node.op_type == DEQUANTISE:
            yield Breach("int32-bias", name_of(node), f"DequantizeLinear of int32 {node.input[0]!r}")
            continue
        if kind is not None and (kind not in QUANTISED or (older and kind == FP4)):
            rule = "uint8" if kind == onnx.TensorProto.UINT8 else "quantised-type"
            yield Breach(rule, name_of(node), f"{node.op_type} {_direction(node)} {type_name(kind)}")
        yield from _zero_point(view, node)
        yield from _scale(view, node)
        yield from _granularity(view, node, kind)
        yield from _pair(view, node)


def _direction(node: onnx.NodeProto) -> str:
    return "to" if node.op_type == QUANTISE else "from"


def _quantised_type(view: View, node: onnx.NodeProto) -> int | None:
    """The type that a node quantises to or from; None where nothing says it."""
    zero = node.input[2] if len(node.input) > 2 else ""
    if node.op_type == DEQUANTISE:
        before = view.maker(node.input[0], QUANTISE)
        given = _quantised_type(view, before) if before is not None else view.types.get(node.input[0])
        return given or view.types.get(zero)
    stated = integer(node, "output_dtype", 0)
    return (view.types.get(zero) if zero else stated) or None


def _zero_point(view: View, node: onnx.NodeProto) -> Iterator[Breach]:
    zero = node.input[2] if len(node.input) > 2 else ""
    if not zero:
        # A DequantizeLinear takes the type from its input; a QuantizeLinear without either writes uint8.
        if node.op_type == QUANTISE and not integer(node, "output_dtype", 0):
            yield Breach("zero-point-missing", name_of(node), "no zero point: ONNX means uint8, TensorRT takes int8")
        return
    if zero not in view.fixed:
        yield Breach("zero-point-constant", name_of(node), f"{zero!r} is computed while the model runs")
        return
    count, scales = view.size(zero), view.size(node.input[1])
    if count is not None and scales is not None and count != scales:
        yield Breach("zero-point-count", name_of(node), f"zero points: {count}, scales: {scales}")
    values = view.values(zero)
    if values is None:
        return
    flat = np.asarray(values, np.float32).ravel()
    if flat.any():
        yield Breach("zero-point", name_of(node), f"zero point {_told(flat[flat != 0], flat.size)}")


def _scale(view: View, node: onnx.NodeProto) -> Iterator[Breach]:
    scale = node.input[1]
    if scale not in view.fixed:
        maker = view.makers.get(node.input[0])
        if maker is None or not _scales_as_it_comes(maker):
            yield Breach("scale-constant", name_of(node), f"{scale!r} is computed while the model runs")
        return
    values = view.values(scale)
    if values is None:
        return
    flat = np.asarray(values, np.float64).ravel()
    bad = flat[~(np.isfinite(flat) & (flat > 0))]
    if bad.size or not flat.size:
        yield Breach("scale", name_of(node), f"scale {_told(bad, flat.size)}")


def _scales_as_it_comes(node: onnx.NodeProto) -> bool:
    """Whether a node is a quantiser of TensorRT's own that gives the scales with the values."""
    return node.op_type.startswith("TRT_") and "Dynamic" in node.op_type


def _told(bad: Array, size: int) -> str:
    """The wrong ones among ``size`` values."""
    if not size:
        return "without a value"
    return f"{bad[0]:g}" if size == 1 else f"{bad[0]:g} and others: {bad.size} of {size}"


def _granularity(view: View, node: onnx.NodeProto, kind: int | None) -> Iterator[Breach]:
    """Per tensor for what is computed, per output channel for constant weights, in blocks for 4 bits only."""
    data, scale = node.input[0], node.input[1]
    source = _source(view, data)
    count = view.size(scale)
    blocked = _is_blocked(view, node)
    if blocked and kind is not None and kind not in _BLOCKED:
        yield Breach("block", name_of(node), f"{type_name(kind)} with {count} scales in blocks")
        return
    if kind in _BLOCKED:
        shape = view.dims(data)
        if shape and shape[-1] is not None and shape[-1] % 2:
            yield Breach("odd-4-bit", name_of(node), f"{shape[-1]} values on the last axis")
        if kind == INT4 and node.op_type == QUANTISE and source not in view.fixed:
            yield Breach("int4-activation", name_of(node), f"{data!r} is computed while the model runs")
    if count is None or count <= 1 or blocked:
        return
    if source not in view.fixed:
        yield Breach("per-channel-activation", name_of(node), f"{count} scales for {data!r}")
        return
    yield from _axis(view, node, count)


def _source(view: View, tensor: str) -> str:
    """The tensor before the quantiser of a pair."""
    quantiser = view.maker(tensor, QUANTISE)
    return quantiser.input[0] if quantiser is not None else tensor


def _is_blocked(view: View, node: onnx.NodeProto) -> bool:
    rank = view.rank(node.input[1])
    return integer(node, "block_size", 0) > 0 or (rank is not None and rank > 1 and view.size(node.input[1]) != 1)


def _axis(view: View, node: onnx.NodeProto, count: int) -> Iterator[Breach]:
    """Whether the scales of constant weights go along the output channels of every operator that reads them."""
    rank = view.rank(node.input[0]) or view.rank(_source(view, node.input[0]))
    if not rank:
        return
    axis = integer(node, "axis", 1) % rank
    if node.op_type == QUANTISE:
        found = [after for after in view.readers.get(node.output[0], []) if after.op_type == DEQUANTISE]
        if any(integer(after, "axis", 1) % rank != axis for after in found):
            yield Breach("weight-axis", name_of(node), f"axis {axis}, and another at its DequantizeLinear")
        return
    shape = view.dims(node.input[0]) or view.dims(_source(view, node.input[0]))
    if shape is not None and shape[axis] not in (None, count):
        yield Breach("weight-axis", name_of(node), f"{count} scales for {shape[axis]} channels on axis {axis}")
        return
    for reader, at in _weighted(view, node.output[0], axis, rank):
        wanted = _output_axis(reader, rank)
        if wanted is not None and wanted != at:
            where = f"{reader.op_type} {name_of(reader)!r} has its outputs on {wanted}"
            yield Breach("weight-axis", name_of(node), f"scales along axis {at}; {where}")
            return


def _weighted(view: View, tensor: str, axis: int, rank: int) -> Iterator[tuple[onnx.NodeProto, int]]:
    """Operators that read a tensor as their weights, also transposed, and the axis as it arrives there."""
    for reader in view.readers.get(tensor, []):
        if tensor in list(reader.input)[1:2]:
            yield reader, axis
        elif reader.op_type == "Transpose":
            held = attribute(reader, "perm")
            order = list(held.ints) if held is not None else list(range(rank))[::-1]
            turned = reader.output[0]
            if axis in order and turned != tensor:
                after = (node for node in view.readers.get(turned, []) if turned in list(node.input)[1:2])
                yield from ((node, order.index(axis)) for node in after)


def _output_axis(node: onnx.NodeProto, rank: int) -> int | None:
    """Where the output channels of a node's weights lie; None where that is no rule."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        return 1
    if node.op_type == "Gemm":
        return 0 if integer(node, "transB", 0) else 1
    return rank - 1 if node.op_type == "MatMul" and rank > 1 else None


def _pair(view: View, node: onnx.NodeProto) -> Iterator[Breach]:
    """A quantised tensor goes from a QuantizeLinear, a constant or an input to a DequantizeLinear or an output."""
    if node.op_type == QUANTISE:
        others = [r for r in view.readers.get(node.output[0], []) if r.op_type != DEQUANTISE and is_known(r)]
        nobody = not view.readers.get(node.output[0]) and node.output[0] not in view.outputs
        if others:
            yield Breach("q-without-dq", name_of(node), f"read by {others[0].op_type} {name_of(others[0])!r}")
        elif nobody:
            yield Breach("q-without-dq", name_of(node), "read by nothing")
        return
    data = node.input[0]
    maker = view.makers.get(data)
    if data in view.constants or data in view.inputs or maker is None:
        return
    if maker.op_type != QUANTISE and not maker.op_type.startswith("TRT_") and is_known(maker):
        yield Breach("dq-without-q", name_of(node), f"{data!r} is made by {maker.op_type} {name_of(maker)!r}")
