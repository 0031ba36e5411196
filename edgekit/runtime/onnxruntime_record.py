"""What ONNX Runtime really ran: its profile read as placed nodes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from edgekit.runtime.macs import macs_of
from edgekit.runtime.placement import PlacedNode

Events = Sequence[Mapping[str, Any]]

_PRECISIONS = {"float": "fp32", "double": "fp64", "float16": "fp16", "bfloat16": "bf16", "uint8": "int8"}
_INT8_OPERATORS = frozenset(
    {
        "QLinearConv",
        "ConvInteger",
        "QLinearMatMul",
        "MatMulInteger",
        "MatMulIntegerToFloat",
        "DynamicQuantizeMatMul",
        "QGemm",
        "QLinearConvTranspose",
        "QAttention",
        "DynamicQuantizeLSTM",
    }
)
_FLOAT_OPERATORS = frozenset(
    {
        "Conv",
        "FusedConv",
        "NhwcConv",
        "NhwcFusedConv",
        "ConvTranspose",
        "ConvTransposeWithDynamicPads",
        "DeformConv",
        "Gemm",
        "FusedGemm",
        "GemmFastGelu",
        "MatMul",
        "FusedMatMul",
        "FusedMatMulActivation",
        "MatMulNBits",
        "MatMulBnb4",
        "SparseToDenseMatMul",
        "Einsum",
        "LSTM",
        "GRU",
        "RNN",
        "AttnLSTM",
        "Attention",
        "MultiHeadAttention",
        "GroupQueryAttention",
    }
)
_SMALL = {"int8": "int8", "int4": "int4", "uint4": "int4", "int2": "int2", "uint2": "int2"}
_BITS = (2, 4, 8)
_BLOCKED_OPERATORS = ("Conv", "FusedConv")
_BLOCK = 16
# What the engine puts behind a node's name, or behind its output's where it moves it to its blocked layout.
_RENAMED = re.compile(r"(_nchwc|_token_\d+|/\w+Fusion/)+$")


def is_blocked(events: Events) -> bool:
    """Whether convolutions ran in the engine's blocked layout, in which channels are rounded up to 8 or 16."""
    return any(map(_is_blocked, _nodes(events)))


def placed_nodes(timed: Events, shaped: Events, unblocked: Events = ()) -> tuple[PlacedNode, ...]:
    """Reads two profiles of the same model and feeds.

    Args:
        timed: Events of the session as it ships, of at least two runs: times are medians of those after the first.
            Weights that a kernel packed have no shape there.
        shaped: Events of one run in which no weights were packed.
        unblocked: Where some ran in the blocked layout, events of one run without it: they have the model's channels.
    """
    convolutions = [event for event in _nodes(unblocked) if event["args"]["op_name"] in _BLOCKED_OPERATORS]
    runs = sum(event["name"] == "model_run" for event in timed)
    times: dict[tuple[str, str], list[float]] = {}
    for event in _nodes(timed):
        times.setdefault(_key(event), []).append(float(event["dur"]))
    seen: dict[tuple[str, str], int] = {}
    found = []
    for event in _nodes(shaped):
        key = _key(event)
        nth = seen[key] = seen.get(key, -1) + 1  # the body of a loop runs more than once
        own = times.get(key, [])
        per_run = len(own) // runs
        known = runs > 1 and nth < per_run and len(own) == per_run * runs
        counted = _unblocked(event, convolutions) if _is_blocked(event) else event
        found.append(_placed(event, counted, median(own[per_run + nth :: per_run]) if known else None))
    return tuple(found)


def _nodes(events: Events) -> list[Mapping[str, Any]]:
    return [event for event in events if event.get("cat") == "Node" and "op_name" in event["args"]]


def _key(event: Mapping[str, Any]) -> tuple[str, str]:
    return event["name"], str(event["args"].get("node_index"))


def _is_blocked(event: Mapping[str, Any]) -> bool:
    return bool(event["name"].endswith("_nchwc_kernel_time") and event["args"]["op_name"] in _BLOCKED_OPERATORS)


def _unblocked(event: Mapping[str, Any], left: list[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Takes out of ``left`` the convolution that an event rounded up became of; names do not tell, sizes do."""
    for other in left:
        if _rounded(event, other):
            left.remove(other)
            return other
    return event


def _rounded(event: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    (inputs, outputs), (plain_inputs, plain_outputs) = _tensors(event), _tensors(other)
    (*_, weight), (*_, plain) = (inputs[:2], plain_inputs[:2])
    output, plain_output = outputs[0], plain_outputs[0]
    same = weight[1][2:] == plain[1][2:] and output[2:] == plain_output[2:] and output[0] == plain_output[0]
    return same and all(0 <= a - b < _BLOCK for a, b in zip(weight[1][:2], plain[1][:2], strict=True))


def _tensors(event: Mapping[str, Any]) -> tuple[list[tuple[str, list[int]]], list[list[int]]]:
    """Element type and shape of every input, shape of every output."""
    inputs = [pair for entry in event["args"].get("input_type_shape", []) for pair in entry.items()]
    return inputs, [shape for entry in event["args"].get("output_type_shape", []) for shape in entry.values()]


def _placed(event: Mapping[str, Any], counted: Mapping[str, Any], time_us: float | None) -> PlacedNode:
    op, name = event["args"]["op_name"], event["name"].removesuffix("_kernel_time")
    inputs, _ = _tensors(event)
    counted_inputs, outputs = _tensors(counted)
    precision = _PRECISIONS.get(inputs[0][0], inputs[0][0]) if inputs else "unknown"
    compute = op in _INT8_OPERATORS or op in _FLOAT_OPERATORS
    shapes = [shape for _, shape in counted_inputs]
    return PlacedNode(
        name=name,
        op=op,
        precision="int8" if op in _INT8_OPERATORS else precision,
        compute=compute,
        time_us=time_us,
        macs=macs_of(op, shapes, outputs[0]) if compute and outputs else None,
        weights=_weights(op, inputs),
        origins=(_RENAMED.sub("", name),),
    )


def _weights(op: str, inputs: Sequence[tuple[str, list[int]]]) -> str | None:
    """Element type of the small weights that a node holds, or unpacks on every run."""
    if op == "MatMulNBits" and len(inputs) > 1 and len(inputs[1][1]) == 3:
        # [columns, blocks of the shared axis, bytes of a block]
        _, blocks, size = inputs[1][1]
        bits = 8 * size * blocks / inputs[0][1][-1]
        return f"int{min(_BITS, key=lambda known: abs(known - bits))}"
    if op == "MatMulBnb4":
        return "int4"
    if op == "DequantizeLinear" and inputs:
        return _SMALL.get(inputs[0][0])
    if op in _INT8_OPERATORS:
        return "int8"
    return None
