"""What the corrections need to know of an ONNX graph: who makes a tensor, who reads it, which values are constants."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgekit.artifact import Array

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True, slots=True, kw_only=True)
class Wiring:
    """Who makes and who reads the tensors of a main graph.

    Attributes:
        makers: The node that gives each tensor.
        readers: The nodes that read each tensor; one that an inner graph reads, or that the model gives, has a reader
            more, of type ``elsewhere``.
        constants: float32 initialisers by name.
    """

    makers: dict[str, onnx.NodeProto]
    readers: dict[str, list[onnx.NodeProto]]
    constants: dict[str, onnx.TensorProto]

    def only_reader(self, tensor: str) -> onnx.NodeProto | None:
        """The one node that reads a tensor, once; None where there are several, or others."""
        found = self.readers.get(tensor, [])
        return found[0] if len(found) == 1 and found[0].op_type != "elsewhere" else None

    def own_constant(self, node: onnx.NodeProto, place: int) -> onnx.TensorProto | None:
        """The constant at an input of a node, where the node alone reads it."""
        name = node.input[place] if place < len(node.input) else ""
        return self.constants.get(name) if self.only_reader(name) is not None else None


def wiring_of(proto: onnx.ModelProto) -> Wiring:
    """The wiring of a model's main graph; the nodes in it are the model's own."""
    import onnx

    readers: dict[str, list[onnx.NodeProto]] = {}
    elsewhere = onnx.NodeProto(op_type="elsewhere")
    for node in proto.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
        for name in _read_inside(node):
            readers.setdefault(name, []).append(elsewhere)
    for value in proto.graph.output:
        readers.setdefault(value.name, []).append(elsewhere)
    return Wiring(
        makers={name: node for node in proto.graph.node for name in node.output if name},
        readers=readers,
        constants={t.name: t for t in proto.graph.initializer if t.data_type == onnx.TensorProto.FLOAT},
    )


def _read_inside(node: onnx.NodeProto) -> Iterator[str]:
    """Names that the graphs inside a node read."""
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield from inner.input
                yield from _read_inside(inner)
            yield from (value.name for value in graph.output)


def values_of(tensor: onnx.TensorProto) -> Array:
    """A constant's values, writable."""
    from onnx.numpy_helper import to_array

    return np.array(to_array(tensor))


def set_values(tensor: onnx.TensorProto, values: Array) -> None:
    """Replaces a constant's values, as float32."""
    from onnx.numpy_helper import from_array

    tensor.CopyFrom(from_array(np.ascontiguousarray(values, np.float32), tensor.name))


def attribute(node: onnx.NodeProto, name: str, default: int | float) -> int | float:
    """A number among a node's attributes."""
    found = next((a for a in node.attribute if a.name == name), None)
    if found is None:
        return default
    return float(found.f) if isinstance(default, float) else int(found.i)
