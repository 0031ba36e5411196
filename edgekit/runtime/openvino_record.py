"""What OpenVINO really ran: its executed graph read as placed nodes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from edgekit.runtime.macs import macs_of
from edgekit.runtime.placement import PlacedNode

_PRECISIONS = {
    "f32": "fp32",
    "f64": "fp64",
    "f16": "fp16",
    "bf16": "bf16",
    "i8": "int8",
    "u8": "int8",
    "i4": "int4",
    "u4": "int4",
}
_COMPUTE = frozenset(
    {
        "Convolution",
        "GroupConvolution",
        "BinaryConvolution",
        "DeformableConvolution",
        "Deconvolution",
        "FullyConnected",
        "MatMul",
        "RNNCell",
        "RNNSeq",
        "GRUCell",
        "LSTMCell",
        "ScaledDotProductAttention",
        "ScaledAttn",
        "MHA",
        "QKVProjection",
        "LLMMLP",
    }
)
_SMALL = {"i8": "int8", "u8": "int8", "i4": "int4", "u4": "int4"}
_SUBGRAPH = "Subgraph"
_SCALES = ("Multiply", "Divide", "Add")
_LAYOUTS = ("Reorder", "Reshape", "Transpose")
_NOT_RUN = ("Input", "Output", "Const")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What one name in a subgraph of the engine's stands for.

    Attributes:
        product: The matrix product, or the whole attention; empty for a softmax.
        macs: Its multiply-accumulates; None where sizes are open.
        attention: Whether it tells that the subgraph is attention.
    """

    product: str
    macs: int | None
    attention: bool = False


def placed_nodes(runtime_model: Any, parts: Mapping[str, Part] | None = None) -> tuple[PlacedNode, ...]:
    """Reads the executed graph of a compiled model (``get_runtime_model``).

    Sizes are those of the last query; times are means of all queries so far, and there only where PERF_COUNT is set.

    Args:
        runtime_model: The executed graph.
        parts: As :func:`attention_parts` gives them, where the engine made nodes of its own of attention.
    """
    nodes = ((node, _info(node)) for node in runtime_model.get_ordered_ops())
    placed = (_placed(node, info) for node, info in nodes if info["layerType"] not in _NOT_RUN)
    return tuple(_attention(node, parts or {}) if node.op == _SUBGRAPH else node for node in placed)


def has_subgraphs(runtime_model: Any) -> bool:
    """Whether the engine made nodes of its own that may hold matrix products, as it does of attention."""
    return any(_info(node)["layerType"] == _SUBGRAPH for node in runtime_model.get_ordered_ops())


def attention_parts(graph: Any) -> dict[str, Part]:
    """What names in a subgraph stand for in a model as it was read: products, what directly scales one, softmaxes."""
    found: dict[str, Part] = {}
    for node in graph.get_ordered_ops():
        name, kind = node.get_friendly_name(), node.get_type_name()
        if kind == "Softmax":
            found[name] = Part(product="", macs=0, attention=True)
        elif kind == "ScaledDotProductAttention":
            shapes = [_shape(port.get_partial_shape()) for port in (*node.inputs()[:3], node.output(0))]
            *operands, output = [shape or () for shape in shapes]
            macs = macs_of(kind, operands, output) if all(shapes) else None
            found[name] = Part(product=name, macs=macs, attention=True)
        elif kind == "MatMul":
            found[name] = Part(product=name, macs=_product(node))
        elif kind in _SCALES:  # its name may stand for the product's
            before = (port.get_source_output().get_node() for port in node.inputs())
            scaled = next((other for other in before if other.get_type_name() == "MatMul"), None)
            if scaled is not None:
                found[name] = Part(product=scaled.get_friendly_name(), macs=_product(scaled))
    return found


def _product(node: Any) -> int | None:
    left, output = _shape(node.input(0).get_partial_shape()), _shape(node.output(0).get_partial_shape())
    if not left or output is None:
        return None
    shared = -2 if node.get_attributes()["transpose_a"] and len(left) > 1 else -1
    return math.prod(output) * left[shared]


def _attention(node: PlacedNode, parts: Mapping[str, Part]) -> PlacedNode:
    """A subgraph that is attention computes: it holds a softmax and the products around it."""
    inside = [parts[name] for name in node.origins if name in parts]
    products = {part.product: part.macs for part in inside if part.product}
    if not products or not any(part.attention for part in inside):
        return node
    known = [macs for macs in products.values() if macs is not None]
    return replace(node, compute=True, macs=sum(known) if len(known) == len(products) else None)


def _info(node: Any) -> dict[str, str]:
    return {key: str(value.astype(str)) for key, value in node.get_rt_info().items()}


def _placed(node: Any, info: dict[str, str]) -> PlacedNode:
    # The chosen kernel ends in the element type of its first input (brgconv_avx512_f32, brgconv_avx512_I8). Where
    # weights alone are stored small, runtimePrecision tells their type and the kernel computes in float.
    kernel = info["primitiveType"].rpartition("_")[2].lower()
    precision = kernel if kernel in _PRECISIONS else info["runtimePrecision"]
    compute = info["layerType"] in _COMPUTE
    sources = [port.get_source_output() for port in node.inputs()]
    shapes = [_shape(source.get_partial_shape()) for source in sources]
    output = _shape(node.output(0).get_partial_shape()) if node.get_output_size() else None
    known = [shape for shape in shapes if shape is not None]
    counted = compute and output is not None and len(known) == len(shapes)
    return PlacedNode(
        name=node.get_friendly_name(),
        op=info["layerType"],
        precision=_PRECISIONS.get(precision, precision),
        compute=compute,
        time_us=_time(info.get("execTimeMcs", "")),
        macs=macs_of(info["layerType"], known, output) if counted and output is not None else None,
        weights=_weights([source.get_node() for source in sources[1:]]) if compute else None,
        origins=tuple(name for name in info.get("originalLayersNames", "").split(",") if name),
    )


def _weights(sources: list[Any]) -> str | None:
    """The small element type of the first constant beside the data, also behind what only lays it out."""
    for source in sources:
        while _info(source).get("layerType") in _LAYOUTS:
            source = source.input(0).get_source_output().get_node()
        info = _info(source)
        if info.get("layerType") == "Const":
            return _SMALL.get(info.get("runtimePrecision", ""))
    return None


def _shape(partial: Any) -> tuple[int, ...] | None:
    return tuple(dim.get_length() for dim in partial) if partial.is_static else None


def _time(text: str) -> float | None:
    """Microseconds; what the engine had nothing to do for took none."""
    return 0.0 if text == "not_executed" else float(text) if text.isdigit() else None
