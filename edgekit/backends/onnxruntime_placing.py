"""Where ONNX Runtime's CPU kernels take int8: which nodes are quantised, and which tensors are carried in int8.

An operator pays in int8 where ONNX Runtime has a kernel for it and its inputs are int8 already; a Q/DQ pair around any
other only costs time and digits. Kernels: ``qdq_selector_action_transformer.cc`` of ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import onnx

from edgekit.backends.onnxruntime import COMPUTE

PRODUCTS = ("Conv", "Gemm", "MatMul")
_SAME = ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "MaxPool")  # the range of what goes in
_SEVERAL = ("Add", "Mul", "Concat")
_CLIPPING = ("Relu", "Clip")


@dataclass(frozen=True, slots=True, kw_only=True)
class Placing:
    """What is quantised.

    Attributes:
        nodes: Names of the nodes in int8.
        tensors: Activations that are int8 between nodes, so that whoever reads them reads int8.
        reasons: Why a compute node stays in float, by its name, in order.
    """

    nodes: frozenset[str]
    tensors: frozenset[str]
    reasons: Mapping[str, str]


def activations(proto: onnx.ModelProto, operators: Collection[str]) -> tuple[list[str], dict[str, str]]:
    """Which activations need a range of their own, and whose range others take.

    Args:
        proto: The float model.
        operators: Types of the operators that may be quantised.

    Returns:
        Names of activations of these operators in the main graph, float or not; and for each that has another's range
        (it goes through a Reshape, or into a ReLU alone) that other's name.
    """
    constants = {tensor.name for tensor in proto.graph.initializer}
    readers = _readers(proto)
    names: dict[str, None] = {}
    same: dict[str, str] = {}
    for node in proto.graph.node:
        if node.op_type not in operators:
            continue
        read = [name for name in node.input if name and name not in constants]
        names |= dict.fromkeys([*read, *filter(None, node.output)])
        if node.op_type in _SAME and read and len(node.output) == 1:
            same[node.output[0]] = read[0]
        if node.op_type in _CLIPPING and read and readers[read[0]] == [node]:
            same[read[0]] = node.output[0]
    same = {name: _last(name, same) for name in same}
    return [name for name in names if name not in same], {name: of for name, of in same.items() if of in names}


def place(
    proto: onnx.ModelProto,
    operators: Collection[str],
    in_float: Mapping[str, str],
    unfit: Mapping[str, str],
    *,
    chosen: bool = True,
) -> Placing:
    """Decides which nodes run in int8.

    Matrix products and convolutions do when their weights are constants; what is between them does when what it reads
    is int8 already. A matrix product's own result is float unless it goes on into other products: additions to a
    transformer's stream of float values would lose most of their digits.

    Args:
        proto: The float model, nodes in order and named.
        operators: Types of the operators that may be quantised.
        in_float: Nodes that stay in float, with the reason.
        unfit: Activations that int8 cannot hold, with the reason.
        chosen: False: as the engine's own tool does, every node of these operators runs in int8.
    """
    constants = {tensor.name for tensor in proto.graph.initializer}
    readers = _readers(proto)
    nodes: set[str] = set()
    carried: set[str] = set()
    reasons: dict[str, str] = {}

    def why_not(node: onnx.NodeProto) -> str | None:
        return in_float.get(node.name) or _unfit(node, constants if chosen else None, operators, unfit)

    for node in proto.graph.node:
        reason = why_not(node)
        if reason is None and chosen and node.op_type not in PRODUCTS and not _reads_int8(node, constants, carried):
            continue
        if reason is not None:
            if node.op_type in COMPUTE:
                reasons[node.name] = reason
            continue
        nodes.add(node.name)
        product = chosen and node.op_type in ("Gemm", "MatMul")
        if product and not _taken_in_int8(node.output[0], readers, lambda node: why_not(node) is None):
            continue
        carried.update(name for name in node.output if name)
    return Placing(nodes=frozenset(nodes), tensors=frozenset(carried), reasons=reasons)


def unpair(
    proto: onnx.ModelProto, given: onnx.ModelProto, placing: Placing, operators: Mapping[str, tuple[int, ...]]
) -> None:
    """Lets nodes in float read what the model computes in float, in place, and drops Q/DQ pairs that nobody reads.

    Args:
        proto: The quantised model.
        given: The float model it was made of.
        placing: What is quantised.
        operators: Which inputs of which operator types are; (): all.
    """
    weights = {tensor.name: tensor for tensor in given.graph.initializer}
    before = _before_pairs(proto)
    for node in proto.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            continue
        indices = operators.get(node.op_type, ()) or range(len(node.input))
        for place_, name in enumerate(node.input):
            source = before.get(name)
            quantised = node.name in placing.nodes and place_ in indices
            if source is None or source in placing.tensors or quantised:
                continue
            node.input[place_] = _float_weights(proto, weights[source]) if source in weights else source
    _bare_outputs(proto, before, placing)
    _drop_unread(proto)


def _float_weights(proto: onnx.ModelProto, weights: onnx.TensorProto) -> str:
    """The name of weights as floats, put back where the pairs took their place; a bias's own name is its pair's."""
    made = {name for node in proto.graph.node for name in node.output}
    name = f"{weights.name}_float" if weights.name in made else weights.name
    if all(tensor.name != name for tensor in proto.graph.initializer):
        proto.graph.initializer.add().CopyFrom(weights)
        proto.graph.initializer[-1].name = name
    return name


def _before_pairs(proto: onnx.ModelProto) -> dict[str, str]:
    """For each output of a DequantizeLinear, the float tensor that it stands for."""
    quantised = {node.output[0]: node.input[0] for node in proto.graph.node if node.op_type == "QuantizeLinear"}
    found = {}
    for node in proto.graph.node:
        if node.op_type == "DequantizeLinear":
            name = node.input[0]
            found[node.output[0]] = quantised.get(name, name.removesuffix("_quantized"))
    return found


def _bare_outputs(proto: onnx.ModelProto, before: Mapping[str, str], placing: Placing) -> None:
    """Outputs of the model that are computed in float are given so."""
    for value in proto.graph.output:
        source = before.get(value.name)
        if source is None or value.name in placing.tensors:
            continue
        for node in proto.graph.node:
            if node.op_type == "DequantizeLinear" and node.output[0] == value.name:
                node.output[0] = f"{value.name}_unread"
            for names in (node.input, node.output):
                for place_, name in enumerate(names):
                    if name == source:
                        names[place_] = value.name


def _drop_unread(proto: onnx.ModelProto) -> None:
    while True:
        read = {name for node in _all_nodes(proto.graph) for name in node.input}
        read |= {value.name for value in proto.graph.output}
        unread = [
            node
            for node in proto.graph.node
            if node.op_type in ("QuantizeLinear", "DequantizeLinear") and node.output[0] not in read
        ]
        if not unread:
            break
        for node in unread:
            proto.graph.node.remove(node)
    kept = [tensor for tensor in proto.graph.initializer if tensor.name in read]
    if len(kept) < len(proto.graph.initializer):
        del proto.graph.initializer[:]
        proto.graph.initializer.extend(kept)


def _unfit(
    node: onnx.NodeProto, constants: Collection[str] | None, operators: Collection[str], unfit: Mapping[str, str]
) -> str | None:
    if node.op_type not in operators:
        return f"ONNX Runtime has no int8 {node.op_type}"
    if constants is not None and node.op_type in PRODUCTS and node.input[1] not in constants:
        return "its weights are not constant"
    return next((unfit[name] for name in (*node.input, *node.output) if name in unfit), None)


def _reads_int8(node: onnx.NodeProto, constants: Collection[str], carried: Collection[str]) -> bool:
    """Whether what a node reads is int8 already: all of it; of a Mul, whose other factor is often small, half.

    Constants may be what they are, but not those of a Concat: beside activations of one scale a small one, such as a
    class token, would lose its digits.
    """
    read = [name for name in node.input if name and (name not in constants or node.op_type == "Concat")]
    read = read if node.op_type in _SEVERAL else read[:1]
    there = sum(name in carried for name in read)
    return there > 0 and (there == len(read) or (node.op_type == "Mul" and 2 * there >= len(read)))


def _taken_in_int8(
    name: str, readers: Mapping[str, list[onnx.NodeProto]], fit: Callable[[onnx.NodeProto], bool]
) -> bool:
    """Whether all that a tensor goes into, through what moves or clips it at most, are products in int8."""

    def goes_on(node: onnx.NodeProto) -> bool:
        if not fit(node) or node.op_type in _SEVERAL or node.input[0] != name:
            return False
        outputs = [] if node.op_type in PRODUCTS else [output for output in node.output if output]
        return all(_taken_in_int8(output, readers, fit) for output in outputs)

    return all(goes_on(node) for node in readers[name])


def _readers(proto: onnx.ModelProto) -> dict[str, list[onnx.NodeProto]]:
    """Who reads each tensor, nodes of inner graphs too."""
    found: dict[str, list[onnx.NodeProto]] = {name: [] for node in proto.graph.node for name in node.output}
    for node in _all_nodes(proto.graph):
        for name in node.input:
            found.setdefault(name, []).append(node)
    for value in proto.graph.output:
        found.setdefault(value.name, []).append(onnx.NodeProto(op_type="output"))
    return found


def _all_nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    from edgekit.conversion.clean import all_nodes

    return list(all_nodes(graph))


def _last(name: str, same: Mapping[str, str]) -> str:
    seen = {name}
    while name in same and same[name] not in seen:
        name = same[name]
        seen.add(name)
    return name
