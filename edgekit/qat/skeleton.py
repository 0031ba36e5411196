"""A traced network written as the ONNX operators it is exported as, for the code that places int8 in such graphs."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from onnx.numpy_helper import from_array
from torch import Tensor, fx, nn
from torch.nn import functional

from edgekit.qat.folding import CONVOLUTIONS, layer_of

OTHER = "EdgeKitOther"  # an operator that no scheme names
_LAYERS: Mapping[type[nn.Module], str] = {
    nn.ReLU: "Relu",
    nn.ReLU6: "Clip",
    nn.Hardtanh: "Clip",
    nn.LeakyReLU: "LeakyRelu",
    nn.Sigmoid: "Sigmoid",
    nn.MaxPool1d: "MaxPool",
    nn.MaxPool2d: "MaxPool",
    nn.AvgPool1d: "AveragePool",
    nn.AvgPool2d: "AveragePool",
    nn.Flatten: "Reshape",
    nn.Upsample: "Resize",
    nn.ConstantPad1d: "Pad",
    nn.ConstantPad2d: "Pad",
    nn.ZeroPad2d: "Pad",
}
_FUNCTIONS: Mapping[Any, str] = {
    **dict.fromkeys((operator.add, operator.iadd, torch.add), "Add"),
    **dict.fromkeys((operator.mul, operator.imul, torch.mul), "Mul"),
    **dict.fromkeys((torch.cat, torch.concat, torch.concatenate), "Concat"),
    **dict.fromkeys((torch.relu, functional.relu, torch.relu_), "Relu"),
    **dict.fromkeys((functional.relu6, functional.hardtanh, torch.clamp, torch.clip), "Clip"),
    **dict.fromkeys((torch.sigmoid, functional.sigmoid), "Sigmoid"),
    **dict.fromkeys((torch.flatten, torch.reshape), "Reshape"),
    **dict.fromkeys((torch.permute, torch.transpose), "Transpose"),
    **dict.fromkeys((functional.max_pool1d, functional.max_pool2d, torch.max_pool2d), "MaxPool"),
    **dict.fromkeys((functional.avg_pool1d, functional.avg_pool2d), "AveragePool"),
    functional.leaky_relu: "LeakyRelu",
    functional.interpolate: "Resize",
    functional.pad: "Pad",
    operator.getitem: "Slice",
    torch.squeeze: "Squeeze",
    torch.unsqueeze: "Unsqueeze",
}
_METHODS: Mapping[str, str] = {
    **dict.fromkeys(("add", "add_"), "Add"),
    **dict.fromkeys(("mul", "mul_"), "Mul"),
    **dict.fromkeys(("relu", "relu_"), "Relu"),
    **dict.fromkeys(("clamp", "clamp_", "clip"), "Clip"),
    **dict.fromkeys(("flatten", "reshape", "view"), "Reshape"),
    **dict.fromkeys(("permute", "transpose"), "Transpose"),
    "sigmoid": "Sigmoid",
    "squeeze": "Squeeze",
    "unsqueeze": "Unsqueeze",
}
# What is nothing in an exported graph.
_NOTHING_LAYERS = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)
_NOTHING = (functional.dropout, functional.dropout2d, "contiguous", "detach", "clone")


@dataclass(frozen=True, slots=True, kw_only=True)
class Skeleton:
    """What :func:`skeleton_of` gives.

    Attributes:
        proto: Operators, tensors and which of these are constants; no attributes, and no weights.
        alias: Of each node of the traced graph the tensor it stands for: its own name, or the one it passes through.
    """

    proto: onnx.ModelProto
    alias: Mapping[str, str]


def skeleton_of(traced: fx.GraphModule, values: Mapping[str, Tensor]) -> Skeleton:
    """The ONNX operators of a traced network, each node and its output named as the node there.

    Operators that are not known here are of a type that no scheme has, and stay in float.

    Args:
        traced: As of :func:`edgekit.qat.folding.folded`.
        values: Its tensors on a batch, by node.
    """
    graph = onnx.GraphProto(name="skeleton")
    alias: dict[str, str] = {}
    for node in traced.graph.nodes:
        read = [alias[other.name] for other in node.all_input_nodes]
        alias[node.name] = node.name
        if node.op == "placeholder":
            graph.input.add().name = node.name
        elif node.op == "get_attr":
            graph.initializer.append(_constant(node.name))
        elif node.op == "output":
            graph.output.extend(onnx.ValueInfoProto(name=name) for name in read)
        elif _is_nothing(traced, node) and read:
            alias[node.name] = read[0]
        else:
            kind = operator_of(traced, node, values)
            if kind in ("Conv", "Gemm", "MatMul"):
                read.append(f"{node.name}.weight")
                graph.initializer.append(_constant(read[-1]))
            graph.node.add(op_type=kind, name=node.name, input=read, output=[node.name])
    return Skeleton(proto=onnx.ModelProto(graph=graph), alias=alias)


def operator_of(traced: fx.GraphModule, node: fx.Node, values: Mapping[str, Tensor]) -> str:
    """The ONNX operator that a node is exported as, or one that there is not."""
    layer = layer_of(traced, node)
    value = values.get(node.name)
    if value is None or not value.is_floating_point():
        return OTHER
    if type(layer) in CONVOLUTIONS:
        return "Conv" if layer.padding_mode == "zeros" else OTHER
    if type(layer) is nn.Linear:
        return "Gemm" if value.ndim == 2 else "MatMul"
    if layer is not None:
        return _LAYERS.get(type(layer), OTHER)
    kind = (_METHODS if node.op == "call_method" else _FUNCTIONS).get(node.target, OTHER)
    scaled = kind == "Add" and node.kwargs.get("alpha", 1) != 1
    shifted = kind == "Pad" and node.kwargs.get("mode", "constant") != "constant"
    picked = kind == "Slice" and node.all_input_nodes[0].name not in values  # one of several results
    return OTHER if scaled or shifted or picked else kind


def ends_of(traced: fx.GraphModule, node: fx.Node) -> tuple[float, float] | None:
    """Between what a ReLU or another clip keeps values; None where the node is none, or keeps less than one number."""
    layer = layer_of(traced, node)
    if isinstance(layer, nn.Hardtanh):  # ReLU6 is one
        return float(layer.min_val), float(layer.max_val)
    kind = _LAYERS.get(type(layer)) if layer is not None else None
    kind = kind or (_METHODS if node.op == "call_method" else _FUNCTIONS).get(node.target)
    if kind == "Relu":
        return 0.0, math.inf
    if kind != "Clip":
        return None
    if node.target is functional.relu6:
        return 0.0, 6.0
    usual = (-1.0, 1.0) if node.target is functional.hardtanh else (-math.inf, math.inf)
    given = [node.args[place] if place < len(node.args) else None for place in (1, 2)]
    low, high = (
        node.kwargs.get(f"{name}_val", node.kwargs.get(name, value))
        for name, value in zip(("min", "max"), given, strict=True)
    )
    ends = tuple(end if known is None else known for known, end in zip((low, high), usual, strict=True))
    return (float(ends[0]), float(ends[1])) if all(isinstance(end, (int, float)) for end in ends) else None


def _is_nothing(traced: fx.GraphModule, node: fx.Node) -> bool:
    return isinstance(layer_of(traced, node), _NOTHING_LAYERS) or node.target in _NOTHING


def _constant(name: str) -> onnx.TensorProto:
    return from_array(np.zeros((), np.float32), name)
