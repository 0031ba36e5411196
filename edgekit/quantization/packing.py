"""Weights of 4 bits, two a byte: for the download; the engine decodes them to int8 when it opens the model.

Decoding is in the graph (Cast, Gather, Reshape of constants), as with codebooks, and engines fold it: nothing of ours
runs on the device, and a query takes as long as with weights stored as int8.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgekit.artifact import Array
from edgekit.quantization.graphs import values_of

if TYPE_CHECKING:
    import onnx

CODES = "/packed"  # ends the name of every tensor of packed weights
TABLE = "packed-table"
LOW, HIGH = -8, 7
_FEWEST = 1024  # weights of a tensor from which decoding takes less room than it saves


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """What became of a model's weights.

    Attributes:
        tensors: Names of those that are packed now.
        bytes_before: Bytes of these tensors as int8.
        bytes_after: Bytes of them packed, with what decodes them.
    """

    tensors: tuple[str, ...]
    bytes_before: int
    bytes_after: int


def pack_weights(proto: onnx.ModelProto) -> Packed:
    """Packs constant int8 weights that lie between -8 and 7, in place; no number that the model computes changes.

    A tensor that is small, or has an odd number of weights, stays.

    Args:
        proto: A model with weights behind ``DequantizeLinear``.
    """
    from onnx.numpy_helper import from_array

    read = {node.input[0] for node in proto.graph.node if node.op_type == "DequantizeLinear"}
    made: list[onnx.TensorProto] = []
    nodes: list[onnx.NodeProto] = []
    packed: dict[str, int] = {}
    for tensor in proto.graph.initializer:
        if tensor.name not in read:
            continue
        weights = values_of(tensor)
        if weights.dtype != np.int8 or weights.size < _FEWEST or weights.size % 2:
            continue
        if weights.min() < LOW or weights.max() > HIGH:
            continue
        packed[tensor.name] = weights.nbytes
        codes, shape = f"{tensor.name}{CODES}", f"{tensor.name}/packed-shape"
        made += [from_array(pack(weights), codes), from_array(np.array(weights.shape, np.int64), shape)]
        nodes += _decoding(tensor.name, codes, shape)
    if packed:
        table = from_array(unpack(np.arange(256, dtype=np.uint8)).reshape(256, 2), TABLE)
        kept = [tensor for tensor in proto.graph.initializer if tensor.name not in packed]
        rest = list(proto.graph.node)
        made.append(table)
        del proto.graph.initializer[:], proto.graph.node[:]
        proto.graph.initializer.extend([*kept, *made])
        proto.graph.node.extend([*nodes, *rest])
    return Packed(
        tensors=tuple(packed),
        bytes_before=sum(packed.values()),
        bytes_after=sum(len(tensor.raw_data) for tensor in made),
    )


def pack(weights: Array) -> Array:
    """Two weights a byte, the first in its lower half: int8 of any shape with values -8 to 7 to uint8 ``[n / 2]``."""
    halves = (weights.ravel() & 0x0F).astype(np.uint8)
    codes: Array = halves[0::2] | (halves[1::2] << 4)
    return codes


def unpack(codes: Array) -> Array:
    """What :func:`pack` packed, int8 ``[n]``."""
    halves = np.stack([codes & 0x0F, codes >> 4], axis=1).ravel().astype(np.int8)
    weights: Array = np.where(halves > HIGH, halves - 16, halves).astype(np.int8)
    return weights


def _decoding(name: str, codes: str, shape: str) -> list[onnx.NodeProto]:
    from onnx import TensorProto
    from onnx.helper import make_node

    steps = [f"{name}/packed-{step}" for step in ("cast", "gather")]
    return [
        make_node("Cast", [codes], [steps[0]], steps[0], to=TensorProto.INT32),
        make_node("Gather", [TABLE, steps[0]], [steps[1]], steps[1], axis=0),
        make_node("Reshape", [steps[1], shape], [name], f"{name}/packed-reshape"),
    ]
