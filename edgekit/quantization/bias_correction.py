"""Bias correction: the mean error that quantising a layer makes in each output channel goes into its bias.

M. Nagel, M. van Baalen, T. Blankevoort, M. Welling, "Data-Free Quantization Through Weight Equalization and Bias
Correction", 2019, arXiv:1906.04721, section 4.2, in its empirical form (appendix D). As in NNCF's fast bias correction
every layer is given float inputs, so that one walk through the samples serves all layers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgekit.artifact import Array
from edgekit.quantization.graphs import Wiring, attribute, values_of, wiring_of

if TYPE_CHECKING:
    import onnx

LAYERS = ("Conv", "Gemm", "MatMul")
_PREFIX = "edgekit/bias"
_AXES_ARE_INPUTS = 18  # the first opset whose ReduceMean takes its axes as an input


def correct_biases(
    given: onnx.ModelProto, quantised: onnx.ModelProto, batches: Iterable[Mapping[str, Array]], folder: Path
) -> int:
    """Subtracts from each bias what quantising its layer adds to the channel's mean, in place.

    A convolution without bias gets one; a MatMul is corrected in the Add with constants that follows it.

    Args:
        given: The float model, corrected in place; to be quantised again.
        quantised: The model as quantised, with Q/DQ pairs and the float model's node names.
        batches: Calibration samples, walked through once; what is kept of them is a number a channel.
        folder: For temporary files.

    Returns:
        How many layers were corrected.
    """
    import onnx
    import onnxruntime as ort

    probe, layers = _probe(given, quantised)
    if not layers:
        return 0
    path = folder / "bias.onnx"
    # Apart from the graph, so that weights of any size can be written.
    onnx.save(probe, str(path), save_as_external_data=True, location="bias.onnx.data")
    settings = ort.SessionOptions()
    settings.enable_cpu_mem_arena = False
    session = ort.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    sums: list[Array] = [np.zeros(1)] * len(layers)
    count = 0
    for feeds in batches:
        means = session.run([f"{_PREFIX}/{i}" for i in range(len(layers))], dict(feeds))
        sums = [total + mean for total, mean in zip(sums, means, strict=True)]
        count += 1
    wiring = wiring_of(given)
    corrected = [
        _subtract(given, wiring, node, total / count)
        for node, total in zip(layers, sums, strict=True)
        if count and np.isfinite(total).all()
    ]
    return sum(corrected)


def _probe(given: onnx.ModelProto, quantised: onnx.ModelProto) -> tuple[onnx.ModelProto, list[onnx.NodeProto]]:
    """The float model with each quantised layer beside the float one, and the mean of their difference as an output."""
    import onnx

    before, after = wiring_of(given), wiring_of(quantised)
    pairs = {node.name: node for node in quantised.graph.node if node.op_type in LAYERS}
    probe = onnx.ModelProto()
    probe.CopyFrom(given)
    del probe.graph.output[:]
    layers: list[onnx.NodeProto] = []
    for node in given.graph.node:
        other = pairs.get(node.name)
        if other is None or not _correctable(node, before):
            continue
        activation, weights = (after.makers.get(name) for name in other.input[:2])
        if activation is None or weights is None or {activation.op_type, weights.op_type} != {"DequantizeLinear"}:
            continue
        _add_layer(probe, node, _dequantised(weights, quantised), _parameters(activation, quantised), len(layers))
        layers.append(node)
    return probe, layers


def _correctable(node: onnx.NodeProto, wiring: Wiring) -> bool:
    if node.op_type not in LAYERS or node.input[1] not in wiring.constants:
        return False
    if node.op_type == "MatMul":
        return len(wiring.constants[node.input[1]].dims) == 2 and _added_after(node, wiring) is not None
    return len(node.input) < 3 or not node.input[2] or node.input[2] in wiring.constants


def _added_after(node: onnx.NodeProto, wiring: Wiring) -> tuple[onnx.NodeProto, int] | None:
    """The Add of constants by channel that alone reads a MatMul, and which of its inputs they are."""
    reader = wiring.only_reader(node.output[0])
    if reader is None or reader.op_type != "Add":
        return None
    for place, name in enumerate(reader.input):
        if name in wiring.constants and len(wiring.constants[name].dims) == 1:
            return reader, place
    return None


def _constants(proto: onnx.ModelProto, names: Iterable[str]) -> list[Array]:
    from onnx.numpy_helper import to_array

    by_name = {tensor.name: tensor for tensor in proto.graph.initializer}
    return [np.asarray(to_array(by_name[name])) for name in names]


def _parameters(node: onnx.NodeProto, quantised: onnx.ModelProto) -> list[Array]:
    """Scale and zero point of a DequantizeLinear."""
    return _constants(quantised, node.input[1:3])


def _dequantised(node: onnx.NodeProto, quantised: onnx.ModelProto) -> Array:
    """The float weights that a DequantizeLinear of constants gives."""
    values, scale, zero_point = _constants(quantised, node.input[:3])
    if scale.ndim:
        shape = [1] * values.ndim
        shape[int(attribute(node, "axis", 1))] = -1
        scale, zero_point = scale.reshape(shape), zero_point.reshape(shape)
    return np.asarray((values.astype(np.float32) - zero_point.astype(np.float32)) * scale)


def _add_layer(
    probe: onnx.ModelProto, node: onnx.NodeProto, weights: Array, parameters: list[Array], number: int
) -> None:
    """Puts the quantised layer, its difference from the float one, and the difference's mean a channel into a probe."""
    import onnx
    from onnx.helper import make_node
    from onnx.numpy_helper import from_array

    name = f"{_PREFIX}/{number}"
    scale, zero_point = parameters
    products = {"Conv": [0, 0, -1], "Gemm": [0, 0], "MatMul": [-1, weights.shape[-1]]}
    axes = np.array({"Conv": [0, 2], "Gemm": [0], "MatMul": [0]}[node.op_type], np.int64)
    constants = {
        "scale": scale,
        "zero": zero_point,
        "weights": weights,
        "shape": np.array(products[node.op_type], np.int64),
        "axes": axes,
    }
    probe.graph.initializer.extend(from_array(np.asarray(value), f"{name}/{key}") for key, value in constants.items())
    layer = onnx.NodeProto()
    layer.CopyFrom(node)
    layer.name, layer.input[0], layer.input[1], layer.output[0] = name, f"{name}/x", f"{name}/weights", f"{name}/y"
    opset = next((entry.version for entry in probe.opset_import if entry.domain in ("", "ai.onnx")), 0)
    as_input = opset >= _AXES_ARE_INPUTS
    given_axes: dict[str, list[int]] = {} if as_input else {"axes": axes.tolist()}
    probe.graph.node.extend(
        [
            make_node("QuantizeLinear", [node.input[0], f"{name}/scale", f"{name}/zero"], [f"{name}/q"]),
            make_node("DequantizeLinear", [f"{name}/q", f"{name}/scale", f"{name}/zero"], [f"{name}/x"]),
            layer,
            make_node("Sub", [f"{name}/y", node.output[0]], [f"{name}/error"]),
            make_node("Reshape", [f"{name}/error", f"{name}/shape"], [f"{name}/flat"]),
            make_node(
                "ReduceMean",
                [f"{name}/flat", *([f"{name}/axes"] if as_input else [])],
                [name],
                keepdims=0,
                **given_axes,
            ),
        ]
    )
    probe.graph.output.append(onnx.ValueInfoProto(name=name))


def _subtract(given: onnx.ModelProto, wiring: Wiring, node: onnx.NodeProto, error: Array) -> bool:
    """Subtracts an error a channel from a layer's bias, which becomes its own."""
    from onnx.numpy_helper import from_array

    holder, place = node, 2
    if node.op_type == "MatMul":
        after = _added_after(node, wiring)
        if after is None:
            return False
        holder, place = after
    old: Array = np.zeros(len(error), np.float32)
    if place < len(holder.input) and holder.input[place]:
        old = values_of(wiring.constants[holder.input[place]])
    beta = float(attribute(node, "beta", 1.0)) if node.op_type == "Gemm" else 1.0
    if beta == 0.0:
        return False
    name = f"{node.name}/corrected_bias"
    given.graph.initializer.append(from_array((old - error / beta).astype(np.float32), name))
    if place < len(holder.input):
        holder.input[place] = name
    else:
        holder.input.append(name)
    return True
