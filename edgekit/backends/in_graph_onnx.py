"""Pre- and postprocessing as ONNX operators."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgekit.artifact import Array, Artifact, TensorSpec
from edgekit.conversion.clean import all_nodes, describe_onnx, load_onnx, save_onnx
from edgekit.errors import EngineError
from edgekit.processing_specs import InGraph, Postprocessing, Preprocessing
from edgekit.runtime.preprocessing import factor_and_offset

_RESIZES = 11  # the first opset whose Resize has half-pixel centres


def put_in(built: Artifact, settings: InGraph, raw: TensorSpec | None, out: Path) -> Artifact:
    """Writes an ONNX artifact with the steps in its graph; see :func:`edgekit.backends.in_graph.put_in_graph`."""
    proto = load_onnx(built.path)
    opset = next((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), 1)
    if opset < _RESIZES:
        raise EngineError(
            "the model is too old for preprocessing in its graph",
            found=f"opset {opset}",
            allowed=f"{_RESIZES} or later",
            fix="export the model with a newer opset",
        )
    if settings.preprocessing is not None and raw is not None:
        _preprocess(proto.graph, settings.preprocessing, raw)
    if settings.postprocessing is not None:
        _postprocess(proto.graph, settings.postprocessing)
    out.mkdir(parents=True, exist_ok=True)
    save_onnx(proto, out / "model.onnx")
    made = describe_onnx(out / "model.onnx", precision=built.precision)
    return replace(made, engine=built.engine, outputs=built.outputs)


def _preprocess(graph: onnx.GraphProto, settings: Preprocessing, raw: TensorSpec) -> None:
    """Puts the steps behind the input, in place."""
    value = next(value for value in graph.input if value.name == settings.input)
    kind = value.type.tensor_type.elem_type
    inner = _free_name(graph, f"{settings.input}/model")
    for node in all_nodes(graph):
        _rename(node.input, settings.input, inner)
    dtype = helper.np_dtype_to_tensor_dtype(np.dtype(raw.dtype))
    value.CopyFrom(helper.make_tensor_value_info(settings.input, dtype, list(raw.shape)))
    steps = _Steps(graph=graph, name=settings.input, at=settings.input)
    for operator, constants, attributes in _operators(settings, raw):
        steps.add(operator, constants, attributes)
    steps.add("Cast", (), {"to": kind})
    steps.end(inner)


def _operators(settings: Preprocessing, raw: TensorSpec) -> Iterator[tuple[str, Sequence[Array], dict[str, object]]]:
    """Operators from a raw sample to a float32 model tensor, each with its constants and attributes."""
    shape, layout = [int(size) for size in raw.shape], settings.layout
    to_float: tuple[str, Sequence[Array], dict[str, object]] = ("Cast", (), {"to": onnx.TensorProto.FLOAT})
    channel_axis = None
    if layout != "any":
        if layout == "NHW":  # one channel, wherever the model has it
            shape.insert(settings.model_layout.index("C"), 1)
            yield "Reshape", (np.array(shape, np.int64),), {}
        elif layout != settings.model_layout:
            order = [layout.index(axis) for axis in settings.model_layout]
            shape = [shape[axis] for axis in order]
            yield "Transpose", (), {"perm": order}
        channel_axis = settings.model_layout.index("C")
    yield to_float
    if settings.resize is not None:
        sizes = list(shape)
        for axis, size in zip("HW", settings.resize, strict=True):
            sizes[settings.model_layout.index(axis)] = size
        if sizes != shape:
            none = np.empty(0, np.float32)
            how = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
            yield "Resize", (none, none, np.array(sizes, np.int64)), dict(how)
    factor, offset = factor_and_offset(settings)
    for operator, values, nothing in (("Mul", factor, 1), ("Add", offset, 0)):
        if not (values == nothing).all():
            yield operator, (_along(values, len(shape), channel_axis),), {}


def _along(values: Array, rank: int, channel_axis: int | None) -> Array:
    if values.size == 1 or channel_axis is None:
        return values.reshape(())
    return values.reshape([-1 if axis == channel_axis else 1 for axis in range(rank)])


def _postprocess(graph: onnx.GraphProto, settings: Postprocessing) -> None:
    """Puts the activation before the output, in place."""
    inner = _free_name(graph, f"{settings.output}/model")
    for node in all_nodes(graph):
        _rename(node.input, settings.output, inner)
        _rename(node.output, settings.output, inner)
    for tensor in graph.initializer:  # an output that is a constant
        if tensor.name == settings.output:
            tensor.name = inner
    name, output = f"{settings.output}/{settings.activation}", settings.output
    if settings.activation == "softmax":
        graph.node.append(helper.make_node("Softmax", [inner], [output], name=name, axis=settings.axis))
    else:
        graph.node.append(helper.make_node("Sigmoid", [inner], [output], name=name))


class _Steps:
    """Nodes in a row, put before all others of a graph."""

    def __init__(self, *, graph: onnx.GraphProto, name: str, at: str) -> None:
        self._graph, self._name, self._at = graph, name, at
        self._nodes: list[onnx.NodeProto] = []

    def add(self, operator: str, constants: Sequence[Array], attributes: dict[str, object]) -> None:
        """Adds a node whose further inputs are constants."""
        own = _free_name(self._graph, f"{self._name}/{operator.lower()}{len(self._nodes)}")
        names = [f"{own}/{i}" for i in range(len(constants))]
        self._graph.initializer.extend(
            numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
            for array, name in zip(constants, names, strict=True)
        )
        self._nodes.append(helper.make_node(operator, [self._at, *names], [own], name=own, **attributes))
        self._at = own

    def end(self, name: str) -> None:
        """Gives the last node's output its name, and the graph its nodes."""
        self._nodes[-1].output[0] = name
        others = list(self._graph.node)
        del self._graph.node[:]
        self._graph.node.extend([*self._nodes, *others])


def _rename(names: Sequence[str], old: str, new: str) -> None:
    for index, name in enumerate(names):
        if name == old:
            names[index] = new  # type: ignore[index]  # protobuf's own list


def _free_name(graph: onnx.GraphProto, name: str) -> str:
    taken = {each for node in all_nodes(graph) for each in (*node.input, *node.output, node.name)}
    taken |= {tensor.name for tensor in graph.initializer}
    while name in taken:
        name += "_"
    return name
