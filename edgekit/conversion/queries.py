"""What one query of a model from elsewhere is: a batch of samples on axis 0, or one whole sample.

Where axis 0 of an input or output is no batch (recurrent state by layers, scalars, the boxes of one picture), one
sample is one whole query. The model then gets an axis of size 1 in front of every such input and output: its samples
are stacked on axis 0 like those of any other model, and run one by one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import onnx

from edgekit.artifact import TensorSpec
from edgekit.conversion.clean import all_nodes, dims_of, fix_sizes, free_constants, input_specs
from edgekit.errors import DataError, ModelError

Dims = tuple[int | str, ...]
# An output that has this size on axis 0 has it from the inputs; no layer count or constant is likely to be the same.
_TRIED_BATCH = 1009
_LARGE = 1024  # elements; no shape is made of so many
# From here on the axes of Squeeze are an input and no attribute: https://onnx.ai/onnx/operators/onnx__Squeeze.html
_AXES_OPSET = 13
VARYING = ("NonMaxSuppression", "NonZero", "Unique", "Compress")


def has_batch(proto: onnx.ModelProto, folder: Path | None = None) -> bool:
    """Whether axis 0 of every input and output is a batch: open in all inputs, or of one fixed size, and kept.

    Args:
        proto: The model; its weights need not be loaded.
        folder: Where its external data lie.
    """
    inputs = input_specs(proto)
    if not inputs or any(not spec.shape for spec in inputs):
        return False
    sizes = {spec.shape[0] for spec in inputs}
    if all(isinstance(size, str) for size in sizes):
        sizes = {_TRIED_BATCH}
    (batch, *others) = sizes
    if others:
        return False
    outputs = _output_dims(proto, {spec.name: (batch, *spec.shape[1:]) for spec in inputs}, folder)
    return all(dims and (isinstance(dims[0], str) or dims[0] == batch) for dims in outputs.values())


def fit_to_samples(proto: onnx.ModelProto, sampled: Sequence[TensorSpec], folder: Path | None = None) -> bool:
    """Gives a model the sizes of its samples and, where one is a whole query, an axis for them; in place.

    Args:
        proto: The model; its weights need not be loaded.
        sampled: One sample of every input, axis 0 the sample's own. An input that has one axis less gets that axis.
        folder: Where the model's external data lie.

    Returns:
        Whether one sample is one whole query: then axis 0 has size 1 in all inputs and outputs, else it is the batch.

    Raises:
        DataError: The inputs of a sample disagree on a size that has one name, or on what the model has fixed.
        ModelError: How large an output is hangs on the values of the inputs.
    """
    free_constants(proto)
    own = {spec.name: spec.shape for spec in input_specs(proto)}
    if all(len(spec.shape) == len(own[spec.name]) for spec in sampled):
        sized = _skeleton(proto, folder)
        fix_sizes(sized, sampled)
        if has_batch(sized):
            fix_sizes(proto, sampled)
            tried = {spec.name: (_TRIED_BATCH, *spec.shape[1:]) for spec in sampled}
            _refuse_varying(proto, _output_dims(proto, tried, folder))
            return False
    whole = {s.name: s.shape[1:] if len(s.shape) > len(own[s.name]) else (1, *s.shape[1:]) for s in sampled}
    _fix_inputs(proto, own, whole)
    outputs = _output_dims(proto, whole, folder)
    _refuse_varying(proto, outputs)
    for value in proto.graph.output:
        _set_dims(value, outputs[value.name])
    _add_axes(
        proto,
        [spec.name for spec in sampled if len(spec.shape) > len(own[spec.name])],
        [name for name, dims in outputs.items() if dims[:1] != (1,)],
    )
    return True


def _output_dims(proto: onnx.ModelProto, inputs: Mapping[str, Dims], folder: Path | None) -> dict[str, Dims]:
    """Shapes of the outputs as they follow from the inputs'; what does not follow is as the file has it."""
    model = _skeleton(proto, folder)
    for value in model.graph.input:
        if value.name in inputs:
            _set_dims(value, inputs[value.name])
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    found: dict[str, Dims] = {}
    for value, declared in zip(inferred.graph.output, proto.graph.output, strict=True):
        said = dims_of(declared)
        dims = dims_of(value) if value.type.tensor_type.HasField("shape") else said
        known = zip(dims, said, strict=True) if len(dims) == len(said) else zip(dims, dims, strict=True)
        found[value.name] = tuple(a if isinstance(a, int) else b for a, b in known)
    return found


def _skeleton(proto: onnx.ModelProto, folder: Path | None) -> onnx.ModelProto:
    """The model with its large weights as inputs of their shape: quick to infer shapes of."""
    model = onnx.ModelProto(ir_version=proto.ir_version, opset_import=proto.opset_import, functions=proto.functions)
    constants = {tensor.name for tensor in proto.graph.initializer}
    graph = model.graph
    graph.name = proto.graph.name
    graph.node.extend(proto.graph.node)
    graph.input.extend(value for value in proto.graph.input if value.name not in constants)
    graph.output.extend(proto.graph.output)
    for tensor in proto.graph.initializer:
        if math.prod(tensor.dims) > _LARGE:
            graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
            continue
        kept = graph.initializer.add()
        kept.CopyFrom(tensor)
        if folder is not None and onnx.external_data_helper.uses_external_data(kept):
            onnx.external_data_helper.load_external_data_for_tensor(kept, str(folder))
            kept.data_location = onnx.TensorProto.DEFAULT
            del kept.external_data[:]
    return model


def _set_dims(value: onnx.ValueInfoProto, dims: Dims) -> None:
    shape = value.type.tensor_type.shape
    del shape.dim[:]
    shape.SetInParent()  # a scalar's shape is there, and empty
    for size in dims:
        shape.dim.add(**({"dim_param": size} if isinstance(size, str) else {"dim_value": size}))


def _fix_inputs(proto: onnx.ModelProto, own: Mapping[str, Dims], sizes: Mapping[str, Dims]) -> None:
    """Gives every input its sizes, and every output's dimension of the same name too."""
    named: dict[str, tuple[int | str, str]] = {}
    for name, dims in own.items():
        for dim, size in zip(dims, sizes[name], strict=True):
            known, other = named.setdefault(dim, (size, name)) if isinstance(dim, str) else (dim, name)
            if known != size:
                raise DataError(
                    f"the samples disagree on the size of {dim!r}"
                    if isinstance(dim, str)
                    else f"input {name!r}: axis 0 is no batch in this model, so one sample is one whole query",
                    found=f"{name}: {list(sizes[name])}",
                    allowed=f"{dim} = {known}, as in input {other!r}"
                    if isinstance(dim, str)
                    else f"[n, {_text(dims)}]",
                    fix="stack samples of one size in every input",
                )
    for value in proto.graph.input:
        _set_dims(value, sizes[value.name])
    for value in proto.graph.output:
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param in named:
                axis.dim_value = int(named[axis.dim_param][0])
    del proto.graph.value_info[:]  # engines infer them from the inputs


def _text(dims: Iterable[int | str]) -> str:
    return ", ".join(map(str, dims))


def _refuse_varying(proto: onnx.ModelProto, outputs: Mapping[str, Dims]) -> None:
    """Refuses outputs whose size differs from sample to sample."""
    for name, dims in outputs.items():
        if all(isinstance(size, int) for size in dims):
            continue
        node = _varying_before(proto.graph, name)
        if node is not None:
            needed = ", ".join(n for n in node.input if n)
            raise ModelError(
                f"output {name!r} has another size for every sample: {node.op_type} decides it",
                found=f"{name}: [{_text(dims)}] after {node.op_type} {node.name!r}",
                allowed="outputs whose sizes follow from the sizes of the inputs",
                fix=f"end the model before it, with onnx.utils.extract_model, at {needed}; and do {node.op_type} in "
                "your program",
            )


def _varying_before(graph: onnx.GraphProto, output: str) -> onnx.NodeProto | None:
    """The nearest operator before an output whose own output sizes hang on values, looked for also inside branches."""
    made = {name: node for node in graph.node for name in node.output}
    todo, seen = [output], {output}
    while todo:
        node = made.get(todo.pop(0))
        if node is None:
            continue
        inner = [n for a in node.attribute for g in (a.g, *a.graphs) for n in all_nodes(g)]
        guilty = next((n for n in (node, *inner) if n.op_type in VARYING), None)
        if guilty is not None:
            return guilty
        for name in (*node.input, *(n for i in inner for n in i.input)):
            if name not in seen:
                seen.add(name)
                todo.append(name)
    return None


def _add_axes(proto: onnx.ModelProto, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Puts an axis of size 1 in front of these inputs and outputs, which keep their names."""
    graph = proto.graph
    # An input that is an output itself has its axis already.
    ends = [name for name in outputs if name not in inputs]
    inner = _renamed(proto, [*inputs, *ends])
    opset = next((entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")), 1)
    by_input = opset >= _AXES_OPSET
    axes = _unused(proto, "sample_axis")
    if by_input and inner:
        graph.initializer.append(onnx.helper.make_tensor(axes, onnx.TensorProto.INT64, [1], [0]))

    def reshaped(operator: str, old: str, new: str) -> onnx.NodeProto:
        feeds, attributes = ([old, axes], {}) if by_input else ([old], {"axes": [0]})
        return onnx.helper.make_node(operator, feeds, [new], name=f"{operator}_{new}", **attributes)

    body = list(graph.node)
    del graph.node[:]
    graph.node.extend(reshaped("Squeeze", name, inner[name]) for name in inputs)
    graph.node.extend(body)
    graph.node.extend(reshaped("Unsqueeze", inner[name], name) for name in ends)
    for value in graph.input:
        if value.name in inputs:
            _set_dims(value, (1, *dims_of(value)))
    for value in graph.output:
        if value.name in outputs:
            _set_dims(value, (1, *dims_of(value)))


def _renamed(proto: onnx.ModelProto, names: Sequence[str]) -> dict[str, str]:
    """Renames tensors everywhere but in the lists of inputs and outputs; names are unique also inside branches."""
    new = {name: _unused(proto, f"{name}_of_sample") for name in names}
    for node in all_nodes(proto.graph):
        for tensors in (node.input, node.output):
            for index, name in enumerate(tensors):
                tensors[index] = new.get(name, name)
    for tensor in proto.graph.initializer:
        tensor.name = new.get(tensor.name, tensor.name)
    return new


def _unused(proto: onnx.ModelProto, name: str) -> str:
    taken = {n for node in all_nodes(proto.graph) for n in (*node.input, *node.output)}
    taken |= {tensor.name for tensor in proto.graph.initializer}
    while name in taken:
        name += "_"
    return name
