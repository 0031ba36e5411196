"""What TensorRT really runs: the engine inspector's JSON read as placed nodes.

The inspector tells of every layer of a plan that was built with detailed profiling verbosity. A tensor's element type
stands in ``Format/Datatype`` (``Row major linear FP32``) until TensorRT 10, in ``DataType`` and ``Format`` from 11 on:
https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/engine-tools.html.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from edgekit.runtime.placement import PlacedNode

_ELEMENT = re.compile(
    r"(?i)\b(int8|int4|int32|int64|uint8|bool|bf16|bfloat16|fp16|half|float16|fp32|float32|float|fp8|fp4)(?:e4m3|e2m1)?\b"
)
_PRECISIONS = {
    "half": "fp16",
    "float16": "fp16",
    "float": "fp32",
    "float32": "fp32",
    "bfloat16": "bf16",
    "uint8": "int8",
}
# By the kind of layer, by what the inspector calls its parameters, by the kernel where layers were fused into one.
_COMPUTE = re.compile(r"(?i)conv|gemm|matrixmultiply|matmul|fullyconnected|mha|attention|^dla$")
_KERNEL = re.compile(r"(?i)fprop|dgrad|implicit_gemm|gemm|conv\d|hmma|imma|_mha")
_MOVES = re.compile(r"(?i)reformat|noop|shuffle|constant|pool|signal|wait|copy")
_ORIGIN = re.compile(r"\[ONNX Layer: (.*?)\](?=\x1e|\[|\s*$)")
_SMALL = ("int8", "int4")
UNKNOWN = "unknown"


def placed_nodes(information: Mapping[str, Any], times_us: Mapping[str, float] | None = None) -> tuple[PlacedNode, ...]:
    """Reads ``EngineInspector.get_engine_information`` in its JSON format.

    A layer that computes is of the precision of what it reads: TensorRT's int8 kernels may write floats. Any other is
    of the precision of what it writes.

    Args:
        information: The whole JSON.
        times_us: Time of one run by layer name, where they were measured.

    Returns:
        A node a layer. Of a plan built without details only the names are known.
    """
    times = times_us or {}
    return tuple(_placed(layer, times) for layer in information.get("Layers", ()))


def _placed(layer: Any, times: Mapping[str, float]) -> PlacedNode:
    if not isinstance(layer, Mapping):
        name = str(layer)
        return PlacedNode(name=name, op=UNKNOWN, precision=UNKNOWN, compute=False, time_us=times.get(name))
    name, op = str(layer.get("Name", "")), str(layer.get("LayerType", UNKNOWN))
    compute = _computes(layer, op)
    weights = _element(str(_mapping(layer.get("Weights")).get("Type", "")))
    return PlacedNode(
        name=name,
        op=op,
        precision=_precision(layer, "Inputs" if compute else "Outputs"),
        compute=compute,
        time_us=times.get(name),
        macs=_macs(layer, op) if compute else None,
        weights=weights if compute and weights in _SMALL else None,
        origins=_origins(layer, name),
    )


def _computes(layer: Mapping[str, Any], op: str) -> bool:
    if _COMPUTE.search(op):
        return True
    if _MOVES.search(op):
        return False
    kind, kernel = str(layer.get("ParameterType", "")), str(layer.get("TacticName", ""))
    return bool(_COMPUTE.search(kind) or _KERNEL.search(kernel))


def _precision(layer: Mapping[str, Any], side: str) -> str:
    for key in (side, "Outputs", "Inputs"):
        for tensor in layer.get(key) or ():
            found = _datatype(tensor)
            if found != UNKNOWN:
                return found
    return UNKNOWN


def _datatype(tensor: Any) -> str:
    told = {str(key).lower(): str(value) for key, value in _mapping(tensor).items()}
    return _element(told.get("datatype") or told.get("format/datatype") or told.get("format", ""))


def _element(text: str) -> str:
    found = _ELEMENT.search(text)
    name = found[1].lower() if found else UNKNOWN
    return _PRECISIONS.get(name, name)


def _macs(layer: Mapping[str, Any], op: str) -> int | None:
    """Of a convolution with nothing pooled behind it: every output is a sum over the weights of its channel."""
    maps, count = layer.get("OutMaps"), _mapping(layer.get("Weights")).get("Count")
    outputs = layer.get("Outputs") or ()
    shape = _mapping(outputs[0]).get("Dimensions") if outputs else None
    plain = layer.get("ParameterType") == "Convolution" and "pool" not in op.lower()
    if not plain or not isinstance(maps, int) or not isinstance(count, int) or not isinstance(shape, list) or maps < 1:
        return None
    return math.prod(shape) * count // maps if all(isinstance(d, int) and d > 0 for d in shape) else None


def _origins(layer: Mapping[str, Any], name: str) -> tuple[str, ...]:
    told = _ORIGIN.findall(str(layer.get("Metadata") or ""))
    if told:
        return tuple(dict.fromkeys(told))
    if _MOVES.search(str(layer.get("LayerType", ""))):
        return ()
    return tuple(part.strip() for part in name.split(" + ") if part.strip())


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
