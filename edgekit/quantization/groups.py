"""Operator groups: successive stretches of a model, each of which is in int8 or in float as a whole."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

COMPUTE = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum", "LSTM", "GRU", "RNN", "Attention"})
MOST_GROUPS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A stretch of a model from one compute node to the last node before another.

    Attributes:
        name: Its first compute node, and its last where it has several.
        operators: Operator types of its compute nodes, each once, in order.
        nodes: Names of all its nodes, in topological order.
        compute: How many of them do multiply-accumulates.
    """

    name: str
    operators: tuple[str, ...]
    nodes: tuple[str, ...]
    compute: int


def groups_of(proto: onnx.ModelProto, most: int = MOST_GROUPS) -> tuple[Group, ...]:
    """Splits a model into groups of as many compute nodes each as makes at most ``most`` of them.

    A group reaches from its first compute node to the next group's, so that what follows a convolution (its
    activation, an addition, a concatenation) goes where the convolution goes. What comes before the first compute
    node belongs to the first group. Nodes without a name belong to none: they cannot be named in a plan.

    Args:
        proto: The model; nodes in topological order, as ONNX asks for.
        most: Most groups.

    Returns:
        The groups, in order; none where there is no named compute node.
    """
    nodes = [node for node in proto.graph.node if node.name]
    starts = [i for i, node in enumerate(nodes) if node.op_type in COMPUTE]
    if not starts:
        return ()
    size = -(-len(starts) // most)
    cuts = [0, *starts[size::size], len(nodes)]
    return tuple(_group(nodes[start:end]) for start, end in pairwise(cuts))


def _group(nodes: list[onnx.NodeProto]) -> Group:
    compute = [node for node in nodes if node.op_type in COMPUTE]
    first, last = compute[0].name, compute[-1].name
    return Group(
        name=first if first == last else f"{first} … {last}",
        operators=tuple(dict.fromkeys(node.op_type for node in compute)),
        nodes=tuple(node.name for node in nodes),
        compute=len(compute),
    )


def name_nodes(proto: onnx.ModelProto) -> None:
    """Names every node of the main graph that has no name, or one that another has too, by its first output; in place.

    So every node can be named in a plan and found again in a report.
    """
    taken: set[str] = set()
    for node in proto.graph.node:
        if not node.name or node.name in taken:
            outputs = [name for name in node.output if name]
            node.name = _free(outputs[0] if outputs else node.op_type, taken)
        taken.add(node.name)


def _free(name: str, taken: set[str]) -> str:
    count, free = 1, name
    while free in taken:
        count += 1
        free = f"{name}_{count}"
    return free
