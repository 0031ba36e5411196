"""Symmetric Q/DQ pairs in an ONNX graph: scales, quantised constants, and the nodes that hold them.

fp8 is E4M3 without infinities (P. Micikevicius et al., "FP8 formats for deep learning", 2022).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx.external_data_helper import uses_external_data
from onnx.helper import make_node
from onnx.numpy_helper import from_array, to_array

from edgekit.artifact import Array
from edgekit.conversion.clean import all_nodes

_LEAST_HALF = np.float32(2.0**-24)  # the least number of fp16 above zero
_MOST_HALF = np.float32(65504.0)
# What is stored, by name: its type, and its greatest number; the least integer has no partner and is not used.
STORED: Mapping[str, tuple[np.dtype[Any], float]] = {
    "int8": (np.dtype(np.int8), 127.0),
    "int4": (np.dtype(ml_dtypes.int4), 7.0),
    "fp8": (np.dtype(ml_dtypes.float8_e4m3fn), 448.0),
}
SCALE, ZERO, QUANTISED, DEQUANTISED = "_scale", "_zero_point", "_quantized", "_dequantized"


def scale_of(most: Array | np.float32, kind: str, *, half: bool) -> Array:
    """float32 scales that reach magnitudes with the greatest number of a kind; above zero always.

    Args:
        most: Greatest magnitudes.
        kind: One of :data:`STORED`.
        half: Take the next number of fp16 above, so that nothing is cut off and the scale is exact there too.
    """
    scale = np.where(most > 0, np.asarray(most, np.float32) / np.float32(STORED[kind][1]), np.float32(1.0))
    if half:
        near = np.clip(scale, _LEAST_HALF, _MOST_HALF).astype(np.float16)
        lower = (near.astype(np.float32) < scale) & (near < np.float16(_MOST_HALF))
        near = np.where(lower, np.nextafter(near, np.float16(np.inf)), near)
        scale = near.astype(np.float32)
    return np.asarray(np.maximum(scale, np.finfo(np.float32).tiny), np.float32)


def quantise_activation(proto: onnx.ModelProto, name: str, scale: Array, kind: str) -> list[onnx.NodeProto]:
    """The pair of an activation, with its constants put into the model."""
    zero = np.zeros((), STORED[kind][0])
    proto.graph.initializer.extend(
        [from_array(np.asarray(scale, np.float32), name + SCALE), from_array(zero, name + ZERO)]
    )
    given, constants = name + QUANTISED, [name + SCALE, name + ZERO]
    return [
        make_node("QuantizeLinear", [name, *constants], [given], f"{name}_QuantizeLinear"),
        make_node("DequantizeLinear", [given, *constants], [name + DEQUANTISED], f"{name}_DequantizeLinear"),
    ]


def values_in(tensor: onnx.TensorProto, folder: Path) -> Array:
    """A constant's values; those in a file beside the model are read and not kept in the proto."""
    if not uses_external_data(tensor):
        return np.asarray(to_array(tensor))
    read = onnx.TensorProto()
    read.CopyFrom(tensor)
    return np.asarray(to_array(read, str(folder)))


def quantise_weights(
    proto: onnx.ModelProto, nodes: Mapping[str, int | None], folder: Path, *, kind: str, half: bool = False
) -> dict[str, list[onnx.NodeProto]]:
    """Turns weights, the second inputs of nodes, into small numbers and a DequantizeLinear, in place.

    Weights that several nodes read in the same way are quantised once; those that others read too stay beside.

    Args:
        proto: The model; the nodes read what is dequantised afterwards.
        nodes: Names of the nodes, each with the axis of its weights that has a scale a channel, or None.
        folder: Where the model's external data lies.
        kind: One of :data:`STORED`.
        half: Scales are numbers of fp16.

    Returns:
        DequantizeLinear nodes by the name of the first node that reads them, to be put before it.
    """
    tensors = {tensor.name: tensor for tensor in proto.graph.initializer}
    wanted = [node for node in proto.graph.node if node.name in nodes]
    others = Counter(_read(proto)) - Counter(node.input[1] for node in wanted)
    axes: dict[str, set[int | None]] = {}
    for node in wanted:
        axes.setdefault(node.input[1], set()).add(nodes[node.name])
    made: dict[tuple[str, int | None], str] = {}
    before: dict[str, list[onnx.NodeProto]] = {}
    for node in wanted:
        name, axis = node.input[1], nodes[node.name]
        if (name, axis) not in made:
            own = name if len(axes[name]) == 1 else f"{name}_{'all' if axis is None else axis}"
            stored, scale = _quantised(values_in(tensors[name], folder), axis, kind, half=half)
            if others[name] or len(axes[name]) > 1:
                proto.graph.initializer.append(from_array(stored, own + QUANTISED))
            else:
                tensors[name].CopyFrom(from_array(stored, own + QUANTISED))  # the floats are given back
            zero = np.zeros(scale.shape, stored.dtype)
            proto.graph.initializer.extend([from_array(scale, own + SCALE), from_array(zero, own + ZERO)])
            before[node.name] = [_dequantise(own, axis)]
            made[name, axis] = own + DEQUANTISED
        node.input[1] = made[name, axis]
    for name, ways in axes.items():
        if len(ways) > 1 and not others[name]:
            proto.graph.initializer.remove(tensors[name])
    return before


def _quantised(weights: Array, axis: int | None, kind: str, *, half: bool) -> tuple[Array, Array]:
    """Small numbers and scales of weights."""
    dtype, most = STORED[kind]
    others = tuple(i for i in range(weights.ndim) if axis is not None and i != axis)
    scale = scale_of(np.maximum(weights.max(axis=others or None), -weights.min(axis=others or None)), kind, half=half)
    shape = [-1 if i == axis else 1 for i in range(weights.ndim)]
    quantised = weights / (scale if axis is None else scale.reshape(shape))
    if kind != "fp8":  # its cast rounds to the nearest, that of integers cuts off
        np.rint(quantised, out=quantised)
    np.clip(quantised, -most, most, out=quantised)
    return quantised.astype(dtype), scale


def _dequantise(own: str, axis: int | None) -> onnx.NodeProto:
    inputs = [own + QUANTISED, own + SCALE, own + ZERO]
    along = {} if axis is None else {"axis": axis}
    return make_node("DequantizeLinear", inputs, [own + DEQUANTISED], f"{own}_DequantizeLinear", **along)


def _read(proto: onnx.ModelProto) -> Iterator[str]:
    """Every name that is read, as often as it is."""
    for node in all_nodes(proto.graph):
        yield from node.input
    yield from (value.name for value in proto.graph.output)
