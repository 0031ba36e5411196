"""OpenVINO's graphs: read from ONNX, written as IR that is the same on every run and machine."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.artifact import Artifact, Option, TensorSpec, hash_files

if TYPE_CHECKING:
    import onnx

NAME = "openvino"
RECURRENT = ("LSTMSequence", "GRUSequence", "RNNSequence", "LSTMCell", "GRUCell", "RNNCell", "TensorIterator")
_UNPACKING = 3  # operators between a recurrent layer and the one that has its name
# What the frontend and the converter note of themselves; it may hold paths.
_NOTES = ("framework", "conversion_parameters")


def read_graph(model: Artifact) -> Any:
    """The graph of an ONNX or IR artifact as it is written."""
    from edgekit.runtime.external_data import check_external_data
    from edgekit.runtime.quiet import silence_telemetry

    silence_telemetry()
    import openvino

    if model.path.suffix == ".onnx":
        check_external_data(model.path)
    return openvino.Core().read_model(str(model.path))


def convert_graph(proto: onnx.ModelProto) -> Any:
    """The graph of a model with constants and BatchNorms folded and attention fused; its nodes are named as there.

    NNCF needs it so: on the graph as read, biases are computed from shapes, and its bias correction finds none.
    """
    from edgekit.conversion.clean import save_onnx
    from edgekit.runtime.quiet import silence_telemetry

    silence_telemetry()
    import openvino

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        save_onnx(proto, path)
        return openvino.convert_model(str(path))


def save_graph(
    graph: Any, out: Path, precision: str, options: Mapping[str, Option], parent: Artifact, *, half: bool = False
) -> Artifact:
    """Writes a graph as IR (``model.xml`` and ``model.bin``).

    Args:
        graph: The graph, whose inputs and outputs are those of ``parent``.
        out: Folder of the files.
        precision: Precision of the artifact.
        options: Engine options of the artifact.
        parent: What it was made of.
        half: Constants are stored in fp16, where they fit.
    """
    import openvino

    _strip(graph)
    out.mkdir(parents=True, exist_ok=True)
    openvino.save_model(graph, str(out / "model.xml"), compress_to_fp16=half)
    return Artifact(
        folder=out,
        model="model.xml",
        files=hash_files(out, ["model.xml", "model.bin"]),
        engine=NAME,
        precision=precision,
        inputs=_specs(graph.inputs, parent.inputs),
        outputs=_specs(graph.outputs, parent.outputs),
        options=options,
        parent=parent.sha256,
        notes=parent.notes,
    )


def fix_graph_batch(graph: Any, batch: int) -> None:
    """Gives every input a fixed first dimension, in place; other open dimensions stay open."""
    shapes = {}
    for port in graph.inputs:
        shape = port.get_partial_shape()
        if shape.rank.is_static and len(shape) and shape[0].is_dynamic:
            shape[0] = batch
        shapes[port] = shape
    graph.reshape(shapes)


def nodes_of(graph: Any, onnx_nodes: set[str], proto: onnx.ModelProto) -> list[str]:
    """Names of the graph's nodes that became of ONNX nodes of a model, e.g. ``conv1/WithoutBiases`` of ``conv1``."""
    known = {node.name for node in proto.graph.node}
    nodes = [node for node in graph.get_ordered_ops() if node.get_type_name() != "Constant"]
    return [node.get_friendly_name() for node in nodes if onnx_nodes and onnx_name(node, known) in onnx_nodes]


def onnx_name(node: Any, known: set[str]) -> str:
    """The ONNX node that a node became of, out of the names that are known; else its own name.

    A recurrent layer has a name of its own, and what unpacks its result has that of the ONNX node.
    """
    own = str(node.get_friendly_name())
    for _ in range(_UNPACKING + 1 if node.get_type_name() in RECURRENT else 1):
        name = node.get_friendly_name()
        while name not in known and "/" in name:
            name = name.rpartition("/")[0]
        if name in known:
            return str(name)
        users = [port.get_node() for output in node.outputs() for port in output.get_target_inputs()]
        if not users:
            break
        node = users[0]
    return own


def sources(node: Any) -> list[Any]:
    """The nodes that feed a node, in order of its inputs."""
    return [port.get_source_output().get_node() for port in node.inputs()]


def is_constant(node: Any, depth: int = 6) -> bool:
    """Whether a node is a weight: a constant, or one behind what decodes it (conversion, scale, reshape)."""
    if node.get_type_name() == "Constant":
        return True
    decodes = node.get_type_name() in ("Convert", "Multiply", "Subtract", "Reshape", "Transpose", "FakeQuantize")
    return decodes and depth > 0 and all(is_constant(source, depth - 1) for source in sources(node))


def _strip(graph: Any) -> None:
    """Makes the IR the same on every run and machine.

    What an ONNX file and the converter noted of themselves goes (it may hold paths), and nodes without a name of
    their own are counted anew: OpenVINO names them by a counter of the whole process.
    """
    notes = graph.get_rt_info()
    for key in _NOTES:
        if key in notes.keys():  # noqa: SIM118  (the binding has no __contains__)
            del notes[key]
    renamed: dict[str, str] = {}
    for node in _all_nodes(graph):
        name, slash, rest = node.get_friendly_name().partition("/")
        kind = re.fullmatch(r"([A-Z]\w*)_\d+", name)
        # A folded constant keeps the name of what it was, e.g. ShapeOf_12.
        if kind and node.get_type_name() in (kind.group(1), "Constant"):
            renamed.setdefault(name, f"{kind.group(1)}_{len(renamed)}")
        if name in renamed:
            node.set_friendly_name(renamed[name] + slash + rest)


def _all_nodes(graph: Any) -> Iterator[Any]:
    for node in graph.get_ordered_ops():
        yield node
        bodies = {"If": 2, "Loop": 1, "TensorIterator": 1}.get(node.get_type_name(), 0)
        for body in range(bodies):
            yield from _all_nodes(node.get_function(body) if bodies == 2 else node.get_function())


def _specs(ports: Any, parents: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
    """Specs of a graph's ports, which keep the parent's tensor names and order."""
    return tuple(replace(parent, shape=_dims(port, parent)) for port, parent in zip(ports, parents, strict=True))


def _dims(port: Any, parent: TensorSpec) -> tuple[int | str, ...]:
    shape = port.get_partial_shape()
    if shape.rank.is_dynamic:  # the CPU device refuses it, in better words, when it is opened
        return parent.shape
    return tuple(int(dim.get_length()) if dim.is_static else f"d{axis}" for axis, dim in enumerate(shape))
