"""Cross-layer equalisation: channels of successive layers share their ranges evenly.

M. Nagel, M. van Baalen, T. Blankevoort, M. Welling, "Data-Free Quantization Through Weight Equalization and Bias
Correction", 2019, arXiv:1906.04721, section 4.1.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgekit.artifact import Array
from edgekit.quantization.graphs import Wiring, attribute, set_values, values_of, wiring_of

if TYPE_CHECKING:
    import onnx

ROUNDS = 10
# Positively homogeneous, channel by channel: f(s·x) = s·f(x) for s > 0.
_BETWEEN = ("Relu", "LeakyRelu", "MaxPool", "AveragePool", "GlobalAveragePool", "Identity")
_MOST = 1e3  # a factor beyond it moves more into one layer than is won in the other


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pair:
    """Two layers with nothing between that minds a factor a channel."""

    first: onnx.NodeProto
    second: onnx.NodeProto


def equalize(proto: onnx.ModelProto, rounds: int = ROUNDS) -> int:
    """Scales output channels of one layer down and the next layer's input channels up, in place.

    Chains of Conv and Gemm with constant weights, depthwise ones too, with at most a ReLU or a pooling between; what
    other nodes read or the model gives is left alone. The model computes the same function in float.

    Args:
        proto: The float model, BatchNorms folded.
        rounds: How often the chains are walked through; successive pairs settle in a few.

    Returns:
        How many pairs of layers were equalised.
    """
    wiring = wiring_of(proto)
    pairs = list(_pairs(proto, wiring))
    for _ in range(rounds if pairs else 0):
        furthest = max(_equalise(pair, wiring) for pair in pairs)
        if furthest < 1e-3:
            break
    return len(pairs)


def _pairs(proto: onnx.ModelProto, wiring: Wiring) -> Iterator[_Pair]:
    for first in proto.graph.node:
        if not _is_layer(first, wiring) or (len(first.input) > 2 and wiring.own_constant(first, 2) is None):
            continue
        node = wiring.only_reader(first.output[0])
        while node is not None and node.op_type in _BETWEEN and len(node.output) == 1:
            node = wiring.only_reader(node.output[0])
        if node is None or not _is_layer(node, wiring) or node.input[0] == "":
            continue
        rows, columns = _outputs(first, wiring), _inputs(node, wiring)
        if rows.shape[0] == columns.shape[0] and node.input[1] != first.input[1] and _reads_activation(node, wiring):
            yield _Pair(first=first, second=node)


def _is_layer(node: onnx.NodeProto, wiring: Wiring) -> bool:
    if node.op_type not in ("Conv", "Gemm") or wiring.own_constant(node, 1) is None:
        return False
    return node.op_type == "Conv" or not attribute(node, "transA", 0)


def _reads_activation(node: onnx.NodeProto, wiring: Wiring) -> bool:
    return node.input[0] in wiring.makers


def _equalise(pair: _Pair, wiring: Wiring) -> float:
    """Equalises one pair; returns how far its factors were from 1, as a logarithm."""
    first, second = _outputs(pair.first, wiring), _inputs(pair.second, wiring)
    before, after = np.abs(first).max(axis=1), np.abs(second).max(axis=1)
    live = (before > 0) & (after > 0)
    factors = np.ones(len(before))
    factors[live] = np.clip(np.sqrt(before[live] / after[live]), 1 / _MOST, _MOST)
    _scale_outputs(pair.first, wiring, 1 / factors)
    _scale_inputs(pair.second, wiring, factors)
    return float(np.abs(np.log(factors)).max(initial=0.0))


def _weights(node: onnx.NodeProto, wiring: Wiring) -> Array:
    return values_of(wiring.constants[node.input[1]])


def _outputs(node: onnx.NodeProto, wiring: Wiring) -> Array:
    """Weights as ``[output channels, rest]``."""
    weights = _weights(node, wiring)
    if node.op_type == "Gemm" and not attribute(node, "transB", 0):
        weights = weights.T
    return weights.reshape(len(weights), -1)


def _inputs(node: onnx.NodeProto, wiring: Wiring) -> Array:
    """Weights as ``[input channels, rest]``; a grouped convolution's channels group by group."""
    weights = _weights(node, wiring)
    if node.op_type == "Gemm":
        return weights.T if attribute(node, "transB", 0) else weights
    groups = int(attribute(node, "group", 1))
    by_group = weights.reshape(groups, weights.shape[0] // groups, *weights.shape[1:])
    by_input = np.moveaxis(by_group, 2, 1)
    return by_input.reshape(groups * weights.shape[1], -1)


def _scale_outputs(node: onnx.NodeProto, wiring: Wiring, factors: Array) -> None:
    weights = _weights(node, wiring)
    along_rows = node.op_type == "Conv" or bool(attribute(node, "transB", 0))
    shape = (-1, *[1] * (weights.ndim - 1)) if along_rows else (1, -1)
    set_values(wiring.constants[node.input[1]], weights * factors.reshape(shape))
    if len(node.input) > 2 and node.input[2]:
        bias = wiring.constants[node.input[2]]
        values = values_of(bias)
        set_values(bias, np.broadcast_to(values, (*values.shape[:-1], len(factors))) * factors)


def _scale_inputs(node: onnx.NodeProto, wiring: Wiring, factors: Array) -> None:
    weights = _weights(node, wiring)
    if node.op_type == "Gemm":
        shape: tuple[int, ...] = (1, -1) if attribute(node, "transB", 0) else (-1, 1)
        set_values(wiring.constants[node.input[1]], weights * factors.reshape(shape))
        return
    groups = int(attribute(node, "group", 1))
    by_group = weights.reshape(groups, weights.shape[0] // groups, *weights.shape[1:])
    scaled = by_group * factors.reshape(groups, 1, -1, *[1] * (weights.ndim - 2))
    set_values(wiring.constants[node.input[1]], scaled.reshape(weights.shape))
