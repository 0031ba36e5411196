"""Limits of operators that TensorRT does parse: the restrictions of onnx-tensorrt's ``docs/operators.md``."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import onnx

from edgekit.backends.tensorrt_rules.wiring import DOMAINS, Breach, View, attribute, integer, name_of

_TOP_K = 3840
_MODES = ("nearest", "linear")
_TRANSFORMS = ("half_pixel", "pytorch_half_pixel", "tf_half_pixel_for_nn", "asymmetric", "align_corners")


def check_limits(view: View) -> Iterator[Breach]:
    """Breaches of ``operator-limit``."""
    for node in view.nodes:
        limit = LIMITS.get(node.op_type) if node.domain in DOMAINS else None
        for found in limit(view, node) if limit is not None else ():
            yield Breach("operator-limit", name_of(node), f"{node.op_type} {found}")


Found = Iterator[str]


def _text(node: onnx.NodeProto, name: str, default: str) -> str:
    held = attribute(node, name)
    return default if held is None else held.s.decode("utf-8", "replace")


def _used(view: View, node: onnx.NodeProto, place: int) -> bool:
    """Whether an output beyond the first is read."""
    name = node.output[place] if place < len(node.output) else ""
    return bool(name) and (name in view.readers or name in view.outputs)


def _undilated(view: View, node: onnx.NodeProto) -> Found:
    held = attribute(node, "dilations")
    if held is not None and any(value != 1 for value in held.ints):
        yield f"with dilations {list(held.ints)}"
    if _used(view, node, 1):
        yield f"with its second output, {node.output[1]!r}"


def _resize(view: View, node: onnx.NodeProto) -> Found:
    mode, transform = _text(node, "mode", "nearest"), _text(node, "coordinate_transformation_mode", "half_pixel")
    if mode not in _MODES:
        yield f"with mode {mode}"
    if transform not in _TRANSFORMS:
        yield f"with {transform}"
    if integer(node, "antialias", 0):
        yield "with antialiasing"
    if (policy := _text(node, "keep_aspect_ratio_policy", "stretch")) != "stretch":
        yield f"with policy {policy}"


def _top_k(view: View, node: onnx.NodeProto) -> Found:
    if not integer(node, "sorted", 1):
        yield "unsorted"
    values = view.values(node.input[1]) if len(node.input) > 1 else None
    if values is not None and values.size and int(np.ravel(values)[0]) >= _TOP_K:
        yield f"of {int(np.ravel(values)[0])} values, not under {_TOP_K}"


def _first_output_only(view: View, node: onnx.NodeProto) -> Found:
    for place in range(1, len(node.output)):
        if _used(view, node, place):
            yield f"with its output {node.output[place]!r}"


def _recurrent(view: View, node: onnx.NodeProto) -> Found:
    for name in ("layout", "input_forget"):
        if integer(node, name, 0):
            yield f"with {name} {integer(node, name, 0)}"
    held = attribute(node, "activations")
    kinds = [bytes(kind) for kind in held.strings] if held is not None else []
    half = len(kinds) // 2
    if _text(node, "direction", "forward") == "bidirectional" and kinds[:half] != kinds[half:]:
        yield "with other activations backward than forward"


def _reduction(view: View, node: onnx.NodeProto) -> Found:
    if (kind := _text(node, "reduction", "none")) != "none":
        yield f"with reduction {kind}"


def _constant(view: View, node: onnx.NodeProto) -> Found:
    for name in ("sparse_value", "value_string", "value_strings"):
        if attribute(node, name) is not None:
            yield f"with {name}"


def _training(view: View, node: onnx.NodeProto) -> Found:
    name = node.input[2] if len(node.input) > 2 else ""
    values = view.values(name) if name else None
    if name and name not in view.fixed:
        yield f"whose training mode {name!r} is computed"
    elif values is not None and values.any():
        yield "in training mode"


def _grid(view: View, node: onnx.NodeProto) -> Found:
    if (rank := view.rank(node.input[0])) not in (None, 4):
        yield f"of {rank} axes, not 4"


def _must_be_constant(place: int, what: str) -> Callable[[View, onnx.NodeProto], Found]:
    """A limit: the input at ``place``, where it is given, follows from constants."""

    def limit(view: View, node: onnx.NodeProto) -> Found:
        name = node.input[place] if place < len(node.input) else ""
        if name and name not in view.fixed and not _of_shapes(view, name):
            yield f"whose {what} {name!r} are computed while the model runs"

    return limit


def _of_shapes(view: View, tensor: str) -> bool:
    """Whether a tensor is computed of shapes and constants: constant itself once the sizes are."""
    todo, seen = [tensor], {tensor}
    while todo:
        name = todo.pop()
        node = view.makers.get(name)
        if name in view.fixed or (node is not None and node.op_type in ("Shape", "Size")):
            continue
        if node is None:
            return False
        new = {name for name in node.input if name} - seen
        seen |= new
        todo.extend(new)
    return True


LIMITS: dict[str, Callable[[View, onnx.NodeProto], Found]] = {
    **dict.fromkeys(("AveragePool", "LpPool", "MaxPool"), _undilated),
    **dict.fromkeys(("GRU", "LSTM", "RNN"), _recurrent),
    **{
        f"Reduce{kind}": _must_be_constant(1, "axes")
        for kind in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")
    },
    "Squeeze": _must_be_constant(1, "axes"),
    "Unsqueeze": _must_be_constant(1, "axes"),
    "CumSum": _must_be_constant(1, "axes"),
    "OneHot": _must_be_constant(1, "depths"),
    "Resize": _resize,
    "TopK": _top_k,
    "LayerNormalization": _first_output_only,
    "ScatterND": _reduction,
    "Constant": _constant,
    "Dropout": _training,
    "GridSample": _grid,
}
