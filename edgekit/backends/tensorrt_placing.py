"""Where TensorRT wants Q/DQ pairs: on the inputs of convolutions and matrix products, and on a residual's skip branch.

TensorRT fuses what stands behind a convolution or a product (bias, BatchNorm, activation, an addition) only where no
pair stands between, and quantises the result itself when the next reader's pair asks for it: "Processing of Q/DQ
Networks" in NVIDIA's developer guide, https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/
work-quantized-types.html. NVIDIA's own tool, modelopt, places as this does.

A Concat stays bare: the pair of whoever reads it stands behind it, and TensorRT moves that one quantiser up over the
Concat, so that its inputs come to one scale where int8 pays and stay apart where it does not (NVIDIA/TensorRT#4366).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import onnx

from edgekit.backends.onnxruntime import COMPUTE
from edgekit.conversion.clean import all_nodes
from edgekit.quantization.graphs import attribute

PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
CONVOLUTIONS = ("Conv", "ConvTranspose")
# int8 tensor cores take channels in vectors of 16 and more: narrower layers are padded to it, and pay for the pair.
FEWEST_CHANNELS = 16
_LARGEST_FP8 = 32  # values of a kernel
# What a convolution that begins a residual block may stand behind, so that the whole becomes one kernel.
_FUSED = ("BatchNormalization",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Placing:
    """What is quantised.

    Attributes:
        nodes: Names of the convolutions and matrix products that are quantised, each with the axis of its weights that
            has a scale a channel; None: one scale for all of them.
        skips: Residual additions by name, each with the index of the input that is quantised.
        reasons: Why a compute node stays in float, by its name, in order.
    """

    nodes: Mapping[str, int | None]
    skips: Mapping[str, int]
    reasons: Mapping[str, str]


def activations(proto: onnx.ModelProto, operators: Collection[str]) -> list[str]:
    """Activations that may be quantised: what products with constant weights and additions read."""
    constants = {tensor.name for tensor in proto.graph.initializer}
    names: dict[str, None] = {}
    for node in proto.graph.node:
        if node.op_type in operators:
            read = node.input[:1] if node.op_type in PRODUCTS else node.input
            names |= dict.fromkeys(name for name in read if name and name not in constants)
    return list(names)


def place(
    proto: onnx.ModelProto,
    operators: Collection[str],
    in_float: Mapping[str, str],
    unfit: Mapping[str, str],
    shapes: Mapping[str, tuple[int, ...]],
    precision: str = "int8",
    *,
    per_channel: bool = True,
) -> Placing:
    """Decides which nodes run in int8 or fp8, and which branch of an addition is quantised.

    Args:
        proto: The float model, nodes in order and named.
        operators: Types of operators that may be quantised.
        in_float: Nodes that stay in float, with the reason.
        unfit: Activations that int8 cannot hold, with the reason.
        shapes: Shapes of the activations of one sample; those that are no float32 are not in it.
        precision: ``int8`` or ``fp8``.
        per_channel: One scale an output channel of the weights.
    """
    weights = {tensor.name: tensor for tensor in proto.graph.initializer}
    nodes: dict[str, int | None] = {}
    reasons: dict[str, str] = {}
    for node in proto.graph.node:
        if node.op_type not in COMPUTE:
            continue
        reason = in_float.get(node.name) or _why_float(node, operators, weights, unfit, shapes)
        if reason is None and precision == "fp8":
            reason = _no_fp8(node, tuple(weights[node.input[1]].dims))
        if reason is None:
            nodes[node.name] = channel_axis(node, len(weights[node.input[1]].dims)) if per_channel else None
        else:
            reasons[node.name] = reason
    skips = _skips(proto, nodes, {*in_float, *unfit}, shapes) if "Add" in operators else {}
    return Placing(nodes=nodes, skips=skips, reasons=reasons)


def channel_axis(node: onnx.NodeProto, axes: int) -> int | None:
    """The axis of a node's weights along which its output channels lie; None where they are several matrices.

    Conv 0 and ConvTranspose 1 (NvInfer.h, ``IDequantizeLayer``); the columns of a matrix, or its rows where it is
    transposed. The channels of a ConvTranspose in groups lie along no one axis.
    """
    if node.op_type == "Conv":
        return 0
    if node.op_type == "ConvTranspose":
        return 1 if attribute(node, "group", 1) == 1 else None
    if axes != 2:
        return None
    return 0 if node.op_type == "Gemm" and attribute(node, "transB", 0) else 1


def _why_float(
    node: onnx.NodeProto,
    operators: Collection[str],
    weights: Mapping[str, onnx.TensorProto],
    unfit: Mapping[str, str],
    shapes: Mapping[str, tuple[int, ...]],
) -> str | None:
    if node.op_type not in PRODUCTS:
        return f"TensorRT takes no Q/DQ at a {node.op_type}"
    if node.op_type not in operators:
        return f"the scheme leaves {node.op_type} out"
    tensor = weights.get(node.input[1])
    if tensor is None or node.input[0] in weights:
        if node.op_type == "MatMul":
            return "it is no product of activations by weights; TensorRT fuses attention in float"
        return "its weights are not constant"
    if tensor.data_type != onnx.TensorProto.FLOAT or node.input[0] not in shapes:
        return "it is not in float32"
    return unfit.get(node.input[0]) or _too_small(node, tuple(tensor.dims), shapes[node.input[0]])


def _too_small(node: onnx.NodeProto, weights: tuple[int, ...], shape: tuple[int, ...]) -> str | None:
    if node.op_type in CONVOLUTIONS:
        groups = int(attribute(node, "group", 1))
        channels = (weights[0], weights[1] * groups)
        if min(channels) < FEWEST_CHANNELS:
            read, given = channels if node.op_type == "ConvTranspose" else channels[::-1]
            return f"{read} channels in and {given} out, under the {FEWEST_CHANNELS} that fill tensor cores"
        return None
    if node.op_type == "Gemm" and attribute(node, "transA", 0):
        return "its first factor is transposed"
    columns = weights[0] if node.op_type == "Gemm" and attribute(node, "transB", 0) else weights[-1]
    if math.prod(shape[:-1]) == 1 or columns == 1:
        return "a product by a vector, which memory bounds: tensor cores do not help it"
    return None


def _no_fp8(node: onnx.NodeProto, weights: tuple[int, ...]) -> str | None:
    """What has no kernel in fp8, by what NVIDIA's own tool leaves out (modelopt, ``onnx/quantization/fp8.py``)."""
    if node.op_type == "ConvTranspose":
        return "TensorRT computes Conv, Gemm and MatMul in fp8, and no ConvTranspose"
    if node.op_type != "Conv":
        return None
    given, read, size = weights[0], weights[1], math.prod(weights[2:])
    if read < FEWEST_CHANNELS or given % FEWEST_CHANNELS != read % FEWEST_CHANNELS:
        return f"{read} channels a group in and {given} out: fp8 takes vectors of {FEWEST_CHANNELS} on both sides"
    if size > _LARGEST_FP8:
        return f"a kernel of {size} values a channel: fp8 takes {_LARGEST_FP8} at most"
    return None


def _skips(
    proto: onnx.ModelProto, nodes: Collection[str], not_these: Collection[str], shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, int]:
    """Additions of an int8 convolution's own result and another activation of its shape: which input the other is.

    Where both come from such a convolution, the one with more layers behind it is the block's, and the other the skip.
    """
    makers = {name: node for node in proto.graph.node for name in node.output if name}
    readers: dict[str, int] = {}
    for node in all_nodes(proto.graph):
        for name in node.input:
            readers[name] = readers.get(name, 0) + 1
    for value in proto.graph.output:
        readers[value.name] = readers.get(value.name, 0) + 1
    depth = _depths(proto)

    def ends_block(name: str) -> bool:
        node = makers.get(name)
        while node is not None and readers[name] == 1 and node.op_type in _FUSED:
            name = node.input[0]
            node = makers.get(name)
        return node is not None and readers[name] == 1 and node.op_type in CONVOLUTIONS and node.name in nodes

    found = {}
    for node in proto.graph.node:
        if node.op_type != "Add" or node.name in not_these or len({shapes.get(name) for name in node.input}) != 1:
            continue
        ends = [at for at, name in enumerate(node.input) if ends_block(name)]
        if ends and node.input[0] != node.input[1] and node.input[0] in shapes:
            block = max(ends, key=lambda at, node=node: (depth.get(node.input[at], 0), at))  # type: ignore[misc]
            if node.input[1 - block] not in not_these:
                found[node.name] = 1 - block
    return found


def _depths(proto: onnx.ModelProto) -> dict[str, int]:
    """How many nodes that compute lie on the longest way to a tensor."""
    depth: dict[str, int] = {}
    for node in proto.graph.node:
        behind = max((depth.get(name, 0) for name in node.input), default=0) + (node.op_type in COMPUTE)
        depth |= dict.fromkeys(node.output, behind)
    return depth
