"""fp16 in the graph itself, as strongly typed TensorRT networks want it: fp16 tensors, casts at the edges, float I/O.

What an operator takes is asked of its ONNX schema. In fp32 stay operators whose results leave fp16 easily, sizes that
are computed of shapes, whatever holds an inner graph, and what the samples showed to leave fp16's range: ONNX Runtime's
CPU, on which the graph is checked where there is no GPU, computes fp16 in fp32 and would not show it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto
from onnx.numpy_helper import from_array, to_array

from edgekit.artifact import Array
from edgekit.backends.static import opset_of
from edgekit.backends.tensorrt_pairs import values_in
from edgekit.conversion.clean import all_nodes
from edgekit.quantization.collect import open_probe

_MOST = 65504.0
_MARGIN = 2.0  # what other samples may go beyond those seen
_BATCHES = 16
_HALF_TYPE = "tensor(float16)"
# Squares, exponentials and sums of them leave fp16 at inputs of 256 and of 11; the rest take their type from elsewhere.
_WIDE = frozenset(
    {"Pow", "Exp", "CumSum", "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp", "ReduceProd", "Range", "EyeLike"}
    | {"RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial"}
)
_KNOWN_SHAPE = 64  # constants of no more numbers are told to the inference whole: shapes may hang on them


@dataclass(slots=True, kw_only=True)
class _Walk:
    """What a walk through the nodes knows.

    Attributes:
        proto: The model.
        floats: Names of the float32 tensors.
        halves: By name, what an activation that is fp16 is called.
        wide: By name, what an activation that is in fp32 is called.
        constants: float32 initialisers.
        given: Names of the model's outputs.
        nodes: What was made so far.
    """

    proto: onnx.ModelProto
    floats: frozenset[str]
    constants: dict[str, onnx.TensorProto]
    given: frozenset[str]
    halves: dict[str, str] = field(default_factory=dict)
    wide: dict[str, str] = field(default_factory=dict)
    nodes: list[onnx.NodeProto] = field(default_factory=list)


def overflowing(model: Path, batches: Iterable[Mapping[str, Array]] | None) -> frozenset[str]:
    """Activations that come within a factor of two of fp16's greatest number on the first batches.

    Args:
        model: The float model, as an ONNX file.
        batches: Calibration samples; None: there are none, and nothing is known.
    """
    if batches is None:
        return frozenset()
    proto = onnx.load(str(model), load_external_data=False)
    names = [name for node in proto.graph.node for name in node.output if name]
    probe = open_probe(model, [*names, *(value.name for value in proto.graph.input)], light=True)
    found: set[str] = set()
    for feeds in islice(iter(batches), _BATCHES):
        for name, values in probe.run(feeds).items():
            finite = np.abs(values[np.isfinite(values)])
            if finite.size and float(finite.max()) * _MARGIN > _MOST:
                found.add(name)
    return frozenset(found)


def to_fp16(proto: onnx.ModelProto, folder: Path, large: Collection[str] = (), kept: Collection[str] = ()) -> list[str]:
    """Turns the float of a model into fp16, in place; inputs and outputs keep their types, nodes stay in order.

    Args:
        proto: The model, nodes in order, in opset 19 or newer.
        folder: Where the model's external data lies.
        large: Activations that do not fit in fp16: what makes or reads them stays in fp32.
        kept: Names of nodes that stay in fp32 besides.

    Returns:
        Notes on what stayed in fp32.
    """
    floats = float_tensors(proto)
    constants = {t.name: t for t in proto.graph.initializer if t.data_type == TensorProto.FLOAT}
    beyond = {*large, *(name for name, tensor in constants.items() if not _fits(values_in(tensor, folder)))}
    wide = _wide_nodes(proto, beyond, kept)
    walk = _Walk(
        proto=proto,
        floats=floats,
        constants=constants,
        given=frozenset(value.name for value in proto.graph.output),
    )
    for value in proto.graph.input:
        if value.name in floats:
            walk.wide[value.name] = value.name
    opset = opset_of(proto)
    ways = [_way(node, opset, floats, wide=id_ in wide) for id_, node in enumerate(proto.graph.node)]
    _halve_constants(walk, ways, folder)
    for node, (inputs, outputs) in zip(list(proto.graph.node), ways, strict=True):
        _convert(walk, node, inputs, outputs)
    del proto.graph.node[:]
    proto.graph.node.extend(walk.nodes)
    del proto.graph.value_info[:]
    names = [node.name for at, node in enumerate(walk.nodes) if node.name in kept]
    told = [node.name for node in proto.graph.node if not beyond.isdisjoint((*node.input, *node.output))]
    return [
        *([f"left in fp32: {', '.join(names)} (as the plan says)"] if names else []),
        *([f"left in fp32: {', '.join(told)} (values beyond fp16)"] if told else []),
    ]


def float_tensors(proto: onnx.ModelProto) -> frozenset[str]:
    """Names of the float32 tensors of a main graph; types are inferred without the weights."""
    graph = proto.graph
    skeleton = onnx.ModelProto(ir_version=max(proto.ir_version, 4), opset_import=proto.opset_import)
    skeleton.functions.extend(proto.functions)
    skeleton.graph.name = "skeleton"
    skeleton.graph.node.extend(graph.node)
    skeleton.graph.input.extend(graph.input)
    skeleton.graph.output.extend(graph.output)
    for tensor in graph.initializer:
        if math.prod(tensor.dims) <= _KNOWN_SHAPE:
            skeleton.graph.initializer.append(tensor)
        else:
            value = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            skeleton.graph.input.append(value)
    inferred = onnx.shape_inference.infer_shapes(skeleton).graph
    values = (*inferred.input, *inferred.output, *inferred.value_info)
    found = {value.name for value in values if value.type.tensor_type.elem_type == TensorProto.FLOAT}
    return frozenset(found | {t.name for t in graph.initializer if t.data_type == TensorProto.FLOAT})


def _fits(values: Array) -> bool:
    """Whether a constant stays what it is in fp16: within its range, and not all rounded to zero."""
    most = float(np.abs(values[np.isfinite(values)]).max(initial=0.0))
    return most <= _MOST and (most == 0.0 or np.float16(most) > 0)


def _wide_nodes(proto: onnx.ModelProto, beyond: Collection[str], kept: Collection[str]) -> set[int]:
    """Which nodes stay in fp32, by their place."""
    found: set[int] = set()
    shapes: set[str] = set()  # computed of shapes alone
    wide_pairs: set[str] = set()
    constants = {tensor.name for tensor in proto.graph.initializer}
    for at, node in enumerate(proto.graph.node):
        read = [name for name in node.input if name and name not in constants]
        if node.op_type in ("Shape", "Size") or (read and shapes.issuperset(read)):
            shapes.update(node.output)
        to_int = node.op_type == "Cast" and all(a.i not in (1, 10) for a in node.attribute if a.name == "to")
        dequantised = node.op_type == "DequantizeLinear" and node.input[0] in wide_pairs
        if (
            node.name in kept
            or node.op_type in _WIDE
            or node.domain not in ("", "ai.onnx")
            or to_int
            or dequantised
            or any(a.HasField("g") or a.graphs for a in node.attribute)
            or any(name in beyond for name in (*node.input, *node.output))
            or not shapes.isdisjoint(node.output)
        ):
            found.add(at)
            if node.op_type == "QuantizeLinear":
                wide_pairs.update(node.output)
    return found


def _way(
    node: onnx.NodeProto, opset: int, floats: Collection[str], *, wide: bool
) -> tuple[list[bool | None], list[bool | None]]:
    """For every input and output whether it is fp16 (True) or fp32; None where it is no float at all."""
    ends = [[name in floats or None for name in names] for names in (node.input, node.output)]
    if wide or (node.op_type == "Constant" and all(a.name != "value" for a in node.attribute)):
        return [None if one is None else False for one in ends[0]], [None if one is None else False for one in ends[1]]
    schema = onnx.defs.get_schema(node.op_type, opset, node.domain)
    allowed = {constraint.type_param_str: constraint.allowed_type_strs for constraint in schema.type_constraints}
    found = []
    for flags, formal in zip(ends, (schema.inputs, schema.outputs), strict=True):
        types = [allowed.get(formal[min(at, len(formal) - 1)].type_str, ()) for at in range(len(flags))]
        found.append([flag and _HALF_TYPE in type_ for flag, type_ in zip(flags, types, strict=True)])
    return found[0], found[1]


def _halve_constants(walk: _Walk, ways: list[tuple[list[bool | None], list[bool | None]]], folder: Path) -> None:
    """Turns constants into fp16 that are read so; where others read them in fp32 too, a copy of them."""
    half: set[str] = set()
    wide = set(walk.given)
    for node, (inputs, _) in zip(walk.proto.graph.node, ways, strict=True):
        for name, flag in zip(node.input, inputs, strict=True):
            (half if flag else wide).add(name)
        wide.update(_read_inside(node))
    for name, tensor in walk.constants.items():
        walk.wide[name] = name
        if name in half:
            values = from_array(values_in(tensor, folder).astype(np.float16), f"{name}_fp16" if name in wide else name)
            walk.halves[name] = values.name
            if name in wide:
                walk.proto.graph.initializer.append(values)
            else:
                tensor.CopyFrom(values)


def _read_inside(node: onnx.NodeProto) -> Iterator[str]:
    for a in node.attribute:
        for graph in (a.g, *a.graphs):
            yield from (name for inner in all_nodes(graph) for name in inner.input)
            yield from (value.name for value in graph.output)


def _convert(walk: _Walk, node: onnx.NodeProto, inputs: list[bool | None], outputs: list[bool | None]) -> None:
    """Puts a node behind the casts that it needs."""
    for at, (name, half) in enumerate(zip(list(node.input), inputs, strict=True)):
        if half is not None:
            node.input[at] = _as(walk, name, half=half)
    inner = {name: _as(walk, name, half=False) for name in _read_inside(node) if name in walk.halves}
    _rename_inside(node, {name: new for name, new in inner.items() if name != new})
    walk.nodes.append(node)
    for at, (name, half) in enumerate(zip(list(node.output), outputs, strict=True)):
        if half is None:
            continue
        if not half:
            walk.wide[name] = name
        elif name in walk.given:
            node.output[at] = walk.halves[name] = f"{name}_fp16"
            walk.nodes.append(_cast(walk.halves[name], name, TensorProto.FLOAT))
            walk.wide[name] = name
        else:
            walk.halves[name] = name
    if any(outputs):
        _halve_attributes(node)


def _as(walk: _Walk, name: str, *, half: bool) -> str:
    """What a float tensor is called in a type; a cast is put in where there is none yet."""
    have, other = (walk.halves, walk.wide) if half else (walk.wide, walk.halves)
    if name not in have:
        new = f"{name}_fp16" if half else f"{name}_fp32"
        walk.nodes.append(_cast(other[name], new, TensorProto.FLOAT16 if half else TensorProto.FLOAT))
        have[name] = new
    return have[name]


def _cast(name: str, new: str, to: int) -> onnx.NodeProto:
    return onnx.helper.make_node("Cast", [name], [new], f"{new}_Cast", to=to)


def _halve_attributes(node: onnx.NodeProto) -> None:
    """Changes the type that a node gives where it is told so by an attribute."""
    for a in node.attribute:
        if node.op_type == "Cast" and a.name == "to" and a.i == TensorProto.FLOAT:
            a.i = TensorProto.FLOAT16
        if node.op_type in ("Constant", "ConstantOfShape") and a.name == "value":
            a.t.CopyFrom(from_array(to_array(a.t).astype(np.float16), a.t.name))
    if node.op_type == "ConstantOfShape" and not node.attribute:
        node.attribute.append(onnx.helper.make_attribute("value", from_array(np.zeros(1, np.float16))))


def _rename_inside(node: onnx.NodeProto, names: Mapping[str, str]) -> None:
    for a in node.attribute:
        for graph in (a.g, *a.graphs) if names else ():
            for inner in all_nodes(graph):
                for at, name in enumerate(inner.input):
                    inner.input[at] = names.get(name, name)
