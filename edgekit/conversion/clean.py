"""ONNX files: reading them safely, no build-machine metadata, a fixed batch, an artifact's description."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError, Message

from edgekit.artifact import Artifact, TensorSpec, hash_files
from edgekit.errors import ModelError
from edgekit.runtime.external_data import check_external_data, external_files

# Protobuf refuses messages of 2 GiB: larger weights go to a file beside the model.
EXTERNAL_DATA_BYTES = 1_500_000_000
_NOTES = ("doc_string", "metadata_props")
# ONNX IR version 3 lists initialisers as inputs; from 4 on an initialiser that is no input is a constant.
_CONSTANT_IR_VERSION = 4


def load_onnx(path: Path) -> onnx.ModelProto:
    """Reads an ONNX file with its external data, after checking that no data path leaves its folder.

    Raises:
        ModelError: The file is missing or is not a valid ONNX model.
        BundleError: External data is missing or points outside the file's folder.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such file", fix="check the path")
    try:
        onnx.load(str(path), load_external_data=False)
        check_external_data(path)
        onnx.checker.check_model(str(path))
        # Read again behind the checker, which holds two copies of the file meanwhile.
        proto = onnx.load(str(path), load_external_data=False)
        onnx.load_external_data_for_model(proto, str(path.parent))
    except (DecodeError, onnx.checker.ValidationError, ValueError, OSError) as exc:
        lines = str(exc).strip().splitlines() or [type(exc).__name__]
        fix = "export the model again, or run onnx.checker on it"
        if "Field 'shape'" in lines[0]:
            fix = "state every input's and output's shape in the file; onnx.shape_inference.infer_shapes knows most"
        raise ModelError(f"{path}: not a valid ONNX model", found=lines[0], fix=fix) from exc
    return proto


def save_onnx(proto: onnx.ModelProto, path: Path) -> None:
    """Writes an ONNX file; where its weights are too large for one message, they go to ``<name>.data`` beside it."""
    large = is_large(proto)
    onnx.save(proto, str(path), save_as_external_data=large, location=f"{path.name}.data" if large else None)


def is_large(proto: onnx.ModelProto) -> bool:
    """Whether a model's weights are too large for one message; asked of shapes, as ``ByteSize`` serialises them."""
    total = 0
    for tensor in proto.graph.initializer:
        total += math.prod(tensor.dims) * int(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
    return total > EXTERNAL_DATA_BYTES


def strip_metadata(message: Message) -> None:
    """Removes all free text, in place: exporters note source paths, stack traces and source lines there."""
    for field in message.DESCRIPTOR.fields:
        if field.name in _NOTES:
            message.ClearField(field.name)
        elif field.message_type is not None:
            value: Any = getattr(message, field.name)
            if not isinstance(value, Message):
                for item in value:
                    strip_metadata(item)
            elif message.HasField(field.name):
                strip_metadata(value)


def all_nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """Every node of a graph and of the graphs inside its nodes (branches, loop bodies)."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from all_nodes(inner)


def sort_nodes(graph: onnx.GraphProto) -> None:
    """Puts every node behind those it needs, in place; also behind those that only its branches and bodies need.

    The order is otherwise kept. Kahn 1962, "Topological sorting of large networks".
    """
    nodes = list(graph.node)
    maker = {name: index for index, node in enumerate(nodes) for name in node.output if name}
    needs = []
    for index, node in enumerate(nodes):
        inner = (n for a in node.attribute for g in (a.g, *a.graphs) for n in all_nodes(g))
        names = {name for n in (node, *inner) for name in n.input}
        needs.append({maker[name] for name in names if name in maker} - {index})
    users: dict[int, list[int]] = {}
    for index, needed in enumerate(needs):
        for other in needed:
            users.setdefault(other, []).append(index)
    ready = [index for index, needed in enumerate(needs) if not needed]
    order = []
    while ready:
        index = heapq.heappop(ready)
        order.append(index)
        for user in users.get(index, ()):
            needs[user].discard(index)
            if not needs[user]:
                heapq.heappush(ready, user)
    del graph.node[:]
    graph.node.extend(nodes[index] for index in order)


def describe_onnx(path: Path, *, precision: str, parent: str | None = None) -> Artifact:
    """Describes an ONNX file as an artifact of engine ``onnx``.

    Raises:
        ModelError: An input or output is not a tensor.
    """
    proto = onnx.load(str(path), load_external_data=False)
    names = [path.name, *external_files(path)]
    return Artifact(
        folder=path.parent,
        model=path.name,
        files=hash_files(path.parent, names),
        engine="onnx",
        precision=precision,
        inputs=input_specs(proto),
        outputs=_output_specs(proto),
        parent=parent,
    )


def input_specs(proto: onnx.ModelProto) -> tuple[TensorSpec, ...]:
    """Input specs of a model; initialisers listed as inputs (IR version 3) are left out."""
    constants = {tensor.name for tensor in proto.graph.initializer}
    return tuple(_spec(value) for value in proto.graph.input if value.name not in constants)


def _output_specs(proto: onnx.ModelProto) -> tuple[TensorSpec, ...]:
    """Output specs; sizes that the file leaves open and that follow from its inputs are filled in."""
    sizes = {dim for spec in input_specs(proto) for dim in spec.shape}
    outputs = proto.graph.output
    if not sizes.issuperset(dim for value in outputs for dim in dims_of(value) if isinstance(dim, str)):
        outputs = onnx.shape_inference.infer_shapes(proto, data_prop=True).graph.output
    return tuple(_spec(value) for value in outputs)


def dims_of(value: onnx.ValueInfoProto) -> tuple[int | str, ...]:
    """Dimensions of an input or output; an open one without a name gets one that no other tensor's has."""
    dims = enumerate(value.type.tensor_type.shape.dim)
    return tuple(d.dim_value if d.HasField("dim_value") else d.dim_param or f"{value.name}_d{i}" for i, d in dims)


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    if not value.type.HasField("tensor_type"):
        raise ModelError(
            f"input or output {value.name!r} is not a tensor",
            found=value.type.WhichOneof("value"),
            allowed="tensors (no sequences, maps or optionals)",
        )
    dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name
    return TensorSpec(name=value.name, dtype=dtype, shape=dims_of(value))


def check_batch(inputs: tuple[TensorSpec, ...], batch: int) -> None:
    """Refuses inputs whose first axis is fixed to another size than the batch.

    Raises:
        ModelError: One is.
    """
    for spec in inputs:
        if spec.shape and isinstance(spec.shape[0], int) and spec.shape[0] != batch:
            raise ModelError(
                f"input {spec.name!r} has a fixed batch of {spec.shape[0]}",
                found=f"the profile's batch is {batch}",
                allowed=f"a batch of {batch}, or a dynamic one",
                fix="export the model with a dynamic batch, or choose a profile with that batch; where axis 0 is no "
                f"batch, give samples of whole queries: [n, {', '.join(map(str, spec.shape))}]",
            )


def fix_batch(proto: onnx.ModelProto, batch: int) -> None:
    """Gives every input a fixed batch (its axis 0), in place; other dynamic dimensions stay dynamic.

    Dimensions that bear the batch's name become fixed with it, in inputs and outputs.

    Args:
        proto: The model.
        batch: Samples a query.

    Raises:
        ModelError: The model's batch is fixed to something else.
    """
    free_constants(proto)
    check_batch(input_specs(proto), batch)
    first = [value.type.tensor_type.shape.dim[0] for value in proto.graph.input if dims_of(value)]
    names = {dim.dim_param for dim in first if dim.dim_param}
    for dim in first:
        dim.dim_value = batch
    for value in (*proto.graph.input, *proto.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in names:
                dim.dim_value = batch
    del proto.graph.value_info[:]  # engines infer them from the inputs


def fix_sizes(proto: onnx.ModelProto, specs: Sequence[TensorSpec]) -> None:
    """Gives open dimensions other than the batch the sizes asked for, in place.

    A size holds for every dimension of that name, in inputs and outputs.

    Args:
        proto: The model.
        specs: Inputs with sizes from axis 1 on, which fit the model's (see ``ingredients.shaped``).
    """
    wanted = {spec.name: spec.shape for spec in specs}
    sizes: dict[str, int] = {}
    for value in proto.graph.input:
        for dim, size in zip(value.type.tensor_type.shape.dim[1:], wanted.get(value.name, ())[1:], strict=False):
            if not dim.HasField("dim_value"):
                sizes[dim.dim_param] = int(size)
                dim.dim_value = int(size)
    sizes.pop("", None)  # no name, so no other dimension is meant
    for value in (*proto.graph.input, *proto.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in sizes:
                dim.dim_value = sizes[dim.dim_param]
    if specs:
        del proto.graph.value_info[:]  # engines infer them from the inputs


def with_fixed_batch(model: Artifact, batch: int, out: Path) -> Artifact:
    """Writes an ONNX artifact with a fixed batch and without metadata into ``out``.

    Raises:
        ModelError: The model's batch is fixed to something else.
    """
    proto = load_onnx(model.path)
    fix_batch(proto, batch)
    strip_metadata(proto)
    out.mkdir(parents=True, exist_ok=True)
    save_onnx(proto, out / "model.onnx")
    written = describe_onnx(out / "model.onnx", precision=model.precision, parent=model.sha256)
    return replace(written, notes=model.notes)


def free_constants(proto: onnx.ModelProto) -> None:
    """Takes initialisers off the list of inputs, in place: as inputs they are no constants to an engine's optimiser."""
    constants = {tensor.name for tensor in proto.graph.initializer}
    kept = [value for value in proto.graph.input if value.name not in constants]
    if len(kept) < len(proto.graph.input):
        del proto.graph.input[:]
        proto.graph.input.extend(kept)
        proto.ir_version = max(proto.ir_version, _CONSTANT_IR_VERSION)
