"""What TensorRT's rules need to know of an ONNX graph, gathered once and without copying its weights."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx

from edgekit.artifact import Array
from edgekit.conversion.clean import all_nodes

DOMAINS = ("", "ai.onnx")
QUANTISE, DEQUANTISE = "QuantizeLinear", "DequantizeLinear"
FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
# Larger constants are weights: shapes need only the small ones.
SMALL = 1024
# How many casts in a row are followed; a graph may go in a circle.
_CASTS = 8


class Breach(NamedTuple):
    """A place where a rule is broken.

    Attributes:
        rule: Its short name.
        node: The node, or the tensor where no node is to blame.
        found: What is there.
        fix: What mends it, where the rule's own advice is too general.
    """

    rule: str
    node: str
    found: str
    fix: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A model's graph with the graphs inside its nodes, as one.

    Attributes:
        proto: The model.
        folder: Where its external data lies; None: no constant of it is read.
        nodes: All nodes.
        makers: The node that gives each tensor.
        readers: The nodes that read each tensor.
        constants: Initialisers, and what Constant nodes hold.
        fixed: Names of the tensors that follow from constants alone.
        inputs: Names of the model's inputs.
        outputs: Names of the outputs of the model and of the graphs inside its nodes.
        types: ONNX element types, where they are known.
        shapes: Sizes, where the rank is known; None where a size is open.
        opset: Version of ONNX's own operators.
    """

    proto: onnx.ModelProto
    folder: Path | None
    nodes: list[onnx.NodeProto]
    makers: dict[str, onnx.NodeProto]
    readers: dict[str, list[onnx.NodeProto]]
    constants: dict[str, onnx.TensorProto]
    fixed: set[str]
    inputs: set[str]
    outputs: set[str]
    types: dict[str, int]
    shapes: dict[str, tuple[int | None, ...]]
    opset: int

    def maker(self, tensor: str, *kinds: str) -> onnx.NodeProto | None:
        """The node that gives a tensor, where it is of one of these types of ONNX's own operators."""
        node = self.makers.get(tensor)
        return node if node is not None and node.op_type in kinds and node.domain in DOMAINS else None

    def dims(self, tensor: str) -> tuple[int | None, ...] | None:
        """A tensor's sizes, None where one is open; None where not even the rank is known."""
        constant = self.constants.get(tensor)
        return tuple(constant.dims) if constant is not None else self.shapes.get(tensor)

    def size(self, tensor: str) -> int | None:
        """How many elements a tensor has, where that is known."""
        dims = self.dims(tensor)
        known = [size for size in dims or () if size is not None]
        return None if dims is None or len(known) < len(dims) else math.prod(known)

    def rank(self, tensor: str) -> int | None:
        """A tensor's number of axes, where that is known."""
        dims = self.dims(tensor)
        return None if dims is None else len(dims)

    def values(self, tensor: str) -> Array | None:
        """A constant's values, also one that is only cast or passed on; None where they are not at hand."""
        for _ in range(_CASTS):
            node = self.maker(tensor, "Cast", "Identity")
            tensor = tensor if node is None else node.input[0]
        constant = self.constants.get(tensor)
        if constant is None:
            return None
        if constant.data_location != onnx.TensorProto.EXTERNAL:
            return np.asarray(onnx.numpy_helper.to_array(constant))
        if self.folder is None:
            return None
        try:
            return np.asarray(onnx.numpy_helper.to_array(constant, str(self.folder)))
        except (OSError, ValueError, onnx.checker.ValidationError):
            return None  # that its file is missing or too short is told for itself


def view_of(proto: onnx.ModelProto, folder: Path | None = None) -> View:
    """Gathers makers, readers, constants and types; weights are neither copied nor read."""
    nodes = list(all_nodes(proto.graph))
    graphs = list(all_graphs(proto.graph))
    readers: dict[str, list[onnx.NodeProto]] = {}
    constants = {tensor.name: tensor for graph in graphs for tensor in graph.initializer}
    for node in nodes:
        for name in dict.fromkeys(node.input):
            readers.setdefault(name, []).append(node)
        if node.op_type == "Constant" and node.output and (value := attribute(node, "value")) is not None:
            constants[node.output[0]] = value.t
    types, shapes = _known(proto)
    return View(
        proto=proto,
        folder=folder,
        nodes=nodes,
        makers={name: node for node in nodes for name in node.output if name},
        readers=readers,
        constants=constants,
        fixed=_fixed(nodes, set(constants)),
        inputs={value.name for value in proto.graph.input} - set(constants),
        outputs={value.name for graph in graphs for value in graph.output},
        types=types | {name: tensor.data_type for name, tensor in constants.items()},
        shapes=shapes,
        opset=opset_of(proto),
    )


def opset_of(proto: onnx.ModelProto) -> int:
    """Version of ONNX's own operators in a model; 0 where it names none."""
    return max((int(entry.version) for entry in proto.opset_import if entry.domain in DOMAINS), default=0)


def all_graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and those inside its nodes."""
    yield graph
    for node in graph.node:
        for held in node.attribute:
            for inner in (held.g, *held.graphs):
                if inner.node or inner.output:
                    yield from all_graphs(inner)


def attribute(node: onnx.NodeProto, name: str) -> onnx.AttributeProto | None:
    """An attribute of a node."""
    return next((found for found in node.attribute if found.name == name), None)


def integer(node: onnx.NodeProto, name: str, default: int) -> int:
    """A whole number among a node's attributes."""
    found = attribute(node, name)
    return default if found is None else int(found.i)


def name_of(node: onnx.NodeProto) -> str:
    """A node's name, or its type and first output where it has none."""
    return node.name or f"{node.op_type} -> {next(iter(node.output), '(nothing)')}"


def type_name(element: int) -> str:
    """An ONNX element type in small letters, e.g. ``float16``."""
    try:
        return str(onnx.TensorProto.DataType.Name(element)).lower()
    except ValueError:
        return f"type {element}"


def _fixed(nodes: list[onnx.NodeProto], constants: set[str]) -> set[str]:
    """Names of constants and of all that is computed from them alone, in one pass over sorted nodes."""
    fixed = set(constants)
    for node in nodes:
        inputs = [name for name in node.input if name]
        inner = any(held.HasField("g") or held.graphs for held in node.attribute)
        if node.op_type == "Constant" or (inputs and not inner and all(name in fixed for name in inputs)):
            fixed.update(node.output)
    return fixed


def _known(proto: onnx.ModelProto) -> tuple[dict[str, int], dict[str, tuple[int | None, ...]]]:
    """Element types and sizes by shape inference, on a copy of the model whose weights are mere inputs."""
    light = onnx.ModelProto(ir_version=max(proto.ir_version, 4), opset_import=proto.opset_import)
    light.functions.extend(proto.functions)
    light.graph.name = "light"
    light.graph.input.extend(proto.graph.input)
    light.graph.output.extend(proto.graph.output)
    given = {value.name for value in proto.graph.input}
    weights = []
    for node in proto.graph.node:
        value = attribute(node, "value") if node.op_type == "Constant" else None
        if value is not None and math.prod(value.t.dims) > SMALL:
            weights.append((node.output[0], value.t))
        else:
            light.graph.node.append(node)
    for tensor in proto.graph.initializer:
        if math.prod(tensor.dims) <= SMALL and tensor.data_location != onnx.TensorProto.EXTERNAL:
            light.graph.initializer.append(tensor)
        elif tensor.name not in given:
            weights.append((tensor.name, tensor))
    for name, tensor in weights:
        light.graph.input.append(onnx.helper.make_tensor_value_info(name, tensor.data_type, tensor.dims))
    # What contradicts inference is told by the rules; types that the model states are known without it.
    with contextlib.suppress(onnx.shape_inference.InferenceError, ValueError, RuntimeError):
        light = onnx.shape_inference.infer_shapes(light, data_prop=True)
    types: dict[str, int] = {}
    shapes: dict[str, tuple[int | None, ...]] = {}
    for graph in (*all_graphs(proto.graph), *all_graphs(light.graph)):
        for value in (*graph.input, *graph.output, *graph.value_info):
            kind = value.type.tensor_type
            if kind.elem_type:
                types[value.name] = kind.elem_type
            if kind.HasField("shape"):
                shapes[value.name] = tuple(d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim)
    return types, shapes


def scalar_values(view: View, tensor: str) -> tuple[float, ...] | None:
    """A constant's values as plain numbers, for comparing scales."""
    found = view.values(tensor)
    return None if found is None else tuple(np.asarray(found, np.float64).ravel().tolist())
