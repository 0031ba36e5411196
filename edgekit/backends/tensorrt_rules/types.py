"""Rules on element types: those TensorRT has, and that those of one operator agree.

TensorRT 11's networks are strongly typed: types follow from the inputs and are never converted on the way.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from edgekit.backends.tensorrt_rules.operators import is_known
from edgekit.backends.tensorrt_rules.quantisers import QUANTISED
from edgekit.backends.tensorrt_rules.wiring import (
    DEQUANTISE,
    DOMAINS,
    FLOATS,
    QUANTISE,
    Breach,
    View,
    name_of,
    type_name,
)

_KINDS = onnx.TensorProto
# Those of tensors anywhere; uint8 is known as an input and an output; quantised types between Q and DQ.
PLAIN = (*FLOATS, _KINDS.INT32, _KINDS.INT64, _KINDS.BOOL)
KNOWN = {*PLAIN, _KINDS.UINT8, *QUANTISED}
# The first compute capability that has them: TensorRT's support matrix.
_SINCE = {_KINDS.BFLOAT16: (8, 0), _KINDS.FLOAT8E4M3FN: (8, 9), _KINDS.FLOAT4E2M1: (10, 0)}
_QUANTISERS = (QUANTISE, DEQUANTISE)
# What moves or names values without reading them.
_CASTS = ("Cast", "CastLike", "Identity", "Constant")


def check_types(view: View, *, older: bool, sm: str | None = None) -> Iterator[Breach]:
    """Breaches of ``type``, ``hardware``, ``uint8-inside``, ``unscaled`` and ``mixed-types``.

    Args:
        view: The model.
        older: By TensorRT 10.1, whose parser does not cast the operands of Pow.
        sm: Compute capability of the GPU, e.g. ``8.7``; None: any.
    """
    capability = None if sm is None else _capability(sm)
    for name in _tensors(view):
        kind = view.types.get(name)
        if kind is None:
            continue
        rule = None
        if kind not in KNOWN and not _is_quantiser_io(view, name):
            rule = "type"
        elif capability is not None and capability < _SINCE.get(kind, capability):
            rule = "hardware"
        if rule is not None:
            maker = view.makers.get(name)
            on = f" on compute capability {sm}" if rule == "hardware" else ""
            yield Breach(rule, name if maker is None else name_of(maker), f"{name!r} is {type_name(kind)}{on}")
    for node in view.nodes:
        if node.domain not in DOMAINS or not is_known(node):
            continue  # told as an operator
        yield from _narrow(view, node)
        yield from _mixed(view, node, older)


def _tensors(view: View) -> Iterator[str]:
    """Every tensor once: inputs, constants, then what nodes give."""
    made = (name for node in view.nodes for name in node.output if name)
    yield from dict.fromkeys((*sorted(view.inputs), *view.constants, *made))


def _is_quantiser_io(view: View, name: str) -> bool:
    """Whether a tensor is made or read by Q/DQ nodes, whose types have rules of their own."""
    around = [*view.readers.get(name, []), *([view.makers[name]] if name in view.makers else [])]
    return any(node.op_type in _QUANTISERS for node in around)


def _narrow(view: View, node: onnx.NodeProto) -> Iterator[Breach]:
    """uint8 and quantised tensors that an operator other than a cast or a quantiser reads or makes."""
    if node.op_type in _QUANTISERS or node.op_type.startswith("TRT_"):
        return
    for name in (*node.input, *node.output):
        kind = view.types.get(name)
        if kind in QUANTISED and not _told_as_pair(view, node, name) and node.op_type != "Constant":
            yield Breach("unscaled", name_of(node), f"{node.op_type} with {type_name(int(kind or 0))} {name!r}")
            return
        if kind == _KINDS.UINT8 and node.op_type not in _CASTS and not _is_quantiser_io(view, name):
            yield Breach("uint8-inside", name_of(node), f"{node.op_type} with uint8 {name!r}")
            return


def _told_as_pair(view: View, node: onnx.NodeProto, name: str) -> bool:
    """Whether a tensor that a node stands behind or in front of is told at the Q or DQ whose pair it breaks."""
    if name in node.output:
        return any(reader.op_type == DEQUANTISE for reader in view.readers.get(name, []))
    return view.maker(name, QUANTISE) is not None


def _capability(sm: str) -> tuple[int, int]:
    major, _, minor = sm.partition(".")
    return int(major), int(minor or 0)


def _mixed(view: View, node: onnx.NodeProto, older: bool) -> Iterator[Breach]:
    """Inputs that must be of one type and are not."""
    for places in _alike(view, node, older):
        kinds = {view.types[node.input[i]]: node.input[i] for i in places if node.input[i] in view.types}
        plain = {kind: name for kind, name in kinds.items() if kind in PLAIN}
        if len(plain) > 1:
            found = ", ".join(f"{name!r} {type_name(kind)}" for kind, name in plain.items())
            yield Breach("mixed-types", name_of(node), f"{node.op_type}: {found}")
            return


def _alike(view: View, node: onnx.NodeProto, older: bool) -> Iterator[list[int]]:
    """Groups of inputs that have one type by ONNX's schema of the operator (and by TensorRT)."""
    if node.op_type == QUANTISE:
        # Below opset 19 a scale is float32 by the standard, and the parser casts it to the data's type.
        yield [0, 1] if view.opset >= 19 else []
        return
    if node.op_type == "Pow":
        # ONNX lets them differ, which one IElementWiseLayer does not; later parsers cast both to float32.
        yield [0, 1] if older else []
        return
    if not onnx.defs.has(node.op_type) or not 0 < view.opset <= onnx.defs.onnx_opset_version():
        return
    try:
        formal = onnx.defs.get_schema(node.op_type, view.opset).inputs
    except onnx.defs.SchemaError:
        return  # it came later, or is gone: told as an operator
    groups: dict[str, list[int]] = {}
    for i, name in enumerate(node.input):
        if not name or not formal:
            continue
        place = formal[min(i, len(formal) - 1)]
        if place.is_homogeneous:  # states of a loop are each of their own type
            groups.setdefault(place.type_str, []).append(i)
    yield from (places for places in groups.values() if len(places) > 1)
