"""ONNX clean-ups: no build-machine metadata, a fixed batch, and an artifact's description of a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from edgekit.artifact import Artifact, TensorSpec, hash_files
from edgekit.errors import ModelError
from edgekit.runtime.external_data import check_external_data, external_files


def load_onnx(path: Path) -> onnx.ModelProto:
    """Reads an ONNX file with its external data, after checking that no data path leaves its folder.

    Raises:
        ModelError: The file is missing or is not a valid ONNX model.
        BundleError: External data points outside the file's folder.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such file", fix="check the path")
    check_external_data(path)
    try:
        proto = onnx.load(str(path))
        onnx.checker.check_model(str(path))
    except (DecodeError, onnx.checker.ValidationError, OSError) as exc:
        raise ModelError(
            f"{path}: not a valid ONNX model",
            found=str(exc).strip().splitlines()[0] if str(exc).strip() else type(exc).__name__,
            fix="export the model again, or run onnx.checker on it",
        ) from exc
    return proto


def strip_metadata(proto: onnx.ModelProto) -> None:
    """Removes what the exporter notes of the build machine: source paths, stack traces, signatures."""
    del proto.metadata_props[:]
    proto.doc_string = ""
    for function in proto.functions:
        function.doc_string = ""
        del function.metadata_props[:]
        for node in function.node:
            _strip_node(node)
    _strip_graph(proto.graph)


def _strip_graph(graph: onnx.GraphProto) -> None:
    graph.doc_string = ""
    del graph.metadata_props[:]
    for node in graph.node:
        _strip_node(node)
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        value.doc_string = ""
        del value.metadata_props[:]


def _strip_node(node: onnx.NodeProto) -> None:
    node.doc_string = ""
    del node.metadata_props[:]
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            _strip_graph(attribute.g)
        for graph in attribute.graphs:
            _strip_graph(graph)


def describe_onnx(path: Path, *, precision: str, parent: str | None = None) -> Artifact:
    """Describes an ONNX file as an artifact of engine ``onnx``."""
    proto = onnx.load(str(path), load_external_data=False)
    names = [path.name, *external_files(path)]
    return Artifact(
        folder=path.parent,
        model=path.name,
        files=hash_files(path.parent, names),
        engine="onnx",
        precision=precision,
        inputs=input_specs(proto),
        outputs=tuple(_spec(value) for value in proto.graph.output),
        parent=parent,
    )


def input_specs(proto: onnx.ModelProto) -> tuple[TensorSpec, ...]:
    """Input specs of a model; initialisers listed as inputs (IR version 3) are left out."""
    constants = {tensor.name for tensor in proto.graph.initializer}
    return tuple(_spec(value) for value in proto.graph.input if value.name not in constants)


def _spec(value: onnx.ValueInfoProto) -> TensorSpec:
    tensor = value.type.tensor_type
    if not value.type.HasField("tensor_type"):
        raise ModelError(
            f"input or output {value.name!r} is not a tensor",
            found=value.type.WhichOneof("value"),
            allowed="tensors (no sequences, maps or optionals)",
        )
    dims = [
        d.dim_value if d.HasField("dim_value") else (d.dim_param or f"d{i}") for i, d in enumerate(tensor.shape.dim)
    ]
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    return TensorSpec(name=value.name, dtype=dtype, shape=tuple(dims))


def fix_shapes(proto: onnx.ModelProto, batch: int, shapes: Mapping[str, tuple[int, ...]] | None = None) -> None:
    """Gives every input a fixed batch (its dynamic axis 0), and the shapes named, in place.

    Args:
        proto: The model; other dynamic dimensions stay dynamic unless ``shapes`` fixes them.
        batch: Samples a query.
        shapes: Full shapes by input name, batch included.

    Raises:
        ModelError: The model's batch is fixed to something else, or a shape contradicts it.
    """
    fixed: dict[str, int] = {}
    for value in proto.graph.input:
        if value.name in {tensor.name for tensor in proto.graph.initializer}:
            continue
        dims = value.type.tensor_type.shape.dim
        wanted = (shapes or {}).get(value.name)
        if wanted is not None and len(wanted) != len(dims):
            raise ModelError(f"input {value.name!r} has {len(dims)} dimensions", found=list(wanted))
        for axis, dim in enumerate(dims):
            size = wanted[axis] if wanted is not None else batch if axis == 0 else None
            if size is None:
                continue
            if dim.HasField("dim_value"):
                if axis > 0 and dim.dim_value != size:
                    raise ModelError(
                        f"input {value.name!r} is fixed to {dim.dim_value} on axis {axis}", found=str(size)
                    )
                if axis == 0 and wanted is None and dim.dim_value not in (batch, 0) and batch != 1:
                    raise ModelError(
                        f"input {value.name!r} has a fixed batch of {dim.dim_value}",
                        found=f"the profile's batch {batch}",
                        fix="export the model with a dynamic batch, or choose a profile with that batch",
                    )
                continue
            if dim.dim_param:
                fixed[dim.dim_param] = size
            dim.dim_value = size
    for value in proto.graph.output:
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in fixed:
                dim.dim_value = fixed[dim.dim_param]
    del proto.graph.value_info[:]
