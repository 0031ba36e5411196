"""Pre- and postprocessing by OpenVINO's PrePostProcessor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from edgekit.artifact import Artifact, TensorSpec
from edgekit.backends.openvino_ir import read_graph, save_graph
from edgekit.processing_specs import InGraph, Postprocessing, Preprocessing
from edgekit.runtime.openvino import engine_errors


def put_in(built: Artifact, settings: InGraph, raw: TensorSpec | None, out: Path) -> Artifact:
    """Writes an IR with the steps in its graph; see :func:`edgekit.backends.in_graph.put_in_graph`."""
    with engine_errors("put pre- and postprocessing into the model"):
        graph = read_graph(built)
        from openvino.preprocess import PrePostProcessor

        known = {node.get_friendly_name() for node in graph.get_ops()}
        steps = PrePostProcessor(graph)
        if settings.preprocessing is not None and raw is not None:
            _preprocess(steps, settings.preprocessing, raw, _port(graph.inputs, raw.name))
        if settings.postprocessing is not None:
            _postprocess(steps, settings.postprocessing, _port(graph.outputs, settings.postprocessing.output))
        graph = steps.build()
        if settings.preprocessing is not None and raw is not None and settings.preprocessing.layout == "NHW":
            _without_channel_axis(graph, raw)
        _name_steps(graph, known)
        return save_graph(graph, out, built.precision, built.options, built, half=built.precision == "fp16")


def _port(ports: Any, name: str) -> int:
    """The index of the port that has a name."""
    return next(index for index, port in enumerate(ports) if name in port.get_names())


def _preprocess(steps: Any, settings: Preprocessing, raw: TensorSpec, index: int) -> None:
    from openvino import Layout
    from openvino.preprocess import ResizeAlgorithm

    port, layout, shape = steps.input(index), settings.layout, [int(size) for size in raw.shape]
    if layout == "NHW":  # with a channel axis, until the graph is whole
        layout, shape = "NHWC", [*shape, 1]
    tensor, todo = port.tensor(), port.preprocess()
    tensor.set_element_type(_element_type(raw.dtype))
    tensor.set_shape(shape)
    if layout != "any":
        tensor.set_layout(Layout(layout))
        port.model().set_layout(Layout(settings.model_layout))
    todo.convert_element_type(_element_type("float32"))
    if settings.resize is not None and list(settings.resize) != [shape[layout.index(axis)] for axis in "HW"]:
        todo.resize(ResizeAlgorithm.RESIZE_LINEAR, *settings.resize)
    # x · scale - mean over std, as it is written here: subtract, then divide.
    mean = [value / settings.scale for value in settings.mean]
    std = [value / settings.scale for value in settings.std]
    for values, nothing, step in ((mean, 0.0, todo.mean), (std, 1.0, todo.scale)):
        if any(value != nothing for value in values):
            step(values if len(values) > 1 else values[0])


def _postprocess(steps: Any, settings: Postprocessing, index: int) -> None:
    from openvino import opset13

    def activate(port: Any) -> Any:
        node = opset13.softmax(port, settings.axis) if settings.activation == "softmax" else opset13.sigmoid(port)
        return node.output(0)

    steps.output(index).postprocess().custom(activate)


def _without_channel_axis(graph: Any, raw: TensorSpec) -> None:
    """Has the raw input without its channel axis of one, in place."""
    from openvino import Layout, opset13

    old = graph.input(_port(graph.inputs, raw.name)).get_node()
    new = opset13.parameter([int(size) for size in raw.shape], _element_type(raw.dtype), raw.name)
    new.output(0).set_names({raw.name})
    new.set_layout(Layout("NHW"))
    wide = opset13.unsqueeze(new, np.array([len(raw.shape)], np.int64))
    for user in list(old.output(0).get_target_inputs()):
        user.replace_source_output(wide.output(0))
    graph.replace_parameter(graph.get_parameter_index(old), new)


def _name_steps(graph: Any, known: set[str]) -> None:
    """Gives nodes that were put in names of their own; OpenVINO counts them over the whole process."""
    added = [node for node in graph.get_ordered_ops() if node.get_friendly_name() not in known]
    for index, node in enumerate(added):
        if node.get_type_name() not in ("Parameter", "Result"):
            node.set_friendly_name(f"in_graph/{node.get_type_name()}{index}")


def _element_type(dtype: str) -> Any:
    from openvino import Type

    return Type(np.dtype(dtype))
