"""Rules on where Q/DQ pairs stand: a pair at the wrong place keeps TensorRT from fusing layers in int8."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from edgekit.backends.tensorrt_rules.wiring import DEQUANTISE, QUANTISE, Breach, View, name_of, scalar_values

_CONVOLUTIONS = ("Conv", "ConvTranspose")
_FUSED = ("Relu", "Clip", "LeakyRelu", "PRelu", "BatchNormalization")


def check_fusions(view: View) -> Iterator[Breach]:
    """Breaches of ``residual-add``, ``split-fusion`` and ``concat-scales``."""
    for node in view.nodes:
        if node.op_type == "Add" and len(node.input) == 2:
            yield from _residual(view, node)
        elif node.op_type in _FUSED and node.input:
            yield from _split(view, node)
        elif node.op_type == "Concat":
            yield from _concat(view, node)


def _quantised(view: View, tensor: str) -> str | None:
    """The tensor in front of a Q/DQ pair."""
    after = view.maker(tensor, DEQUANTISE)
    before = view.maker(after.input[0], QUANTISE) if after is not None else None
    return before.input[0] if before is not None else None


def _convolved(view: View, tensor: str) -> bool:
    """Whether a tensor is made by a convolution, also with a BatchNormalization behind it, for one reader alone."""
    if len(view.readers.get(tensor, [])) != 1 or tensor in view.outputs:
        return False
    node = view.maker(tensor, *_CONVOLUTIONS, "BatchNormalization")
    if node is not None and node.op_type == "BatchNormalization":
        node = view.maker(node.input[0], *_CONVOLUTIONS)
    return node is not None


def _residual(view: View, node: onnx.NodeProto) -> Iterator[Breach]:
    """An addition fuses with the one convolution whose output comes to it bare."""
    if any(name in view.fixed for name in node.input):
        return
    pairs = [_quantised(view, name) for name in node.input]
    behind = [pair is not None and _convolved(view, pair) for pair in pairs]
    bare = [pair is None and _convolved(view, name) for pair, name in zip(pairs, node.input, strict=True)]
    if any(behind) and not any(bare):
        at = behind.index(True)
        both = all(pair is not None for pair in pairs)
        where = "on both branches" if both else "on the convolution's branch"
        yield Breach("residual-add", name_of(node), f"Q/DQ {where}; {pairs[at]!r} comes from a convolution")


def _split(view: View, node: onnx.NodeProto) -> Iterator[Breach]:
    """A pair between a convolution and what would be fused into it."""
    source = _quantised(view, node.input[0])
    readers = view.readers.get(node.input[0], [])
    if source is not None and _convolved(view, source) and all(reader.op_type in _FUSED for reader in readers):
        yield Breach("split-fusion", name_of(node), f"Q/DQ between {source!r} of a convolution and {node.op_type}")


def _concat(view: View, node: onnx.NodeProto) -> Iterator[Breach]:
    """Quantised inputs are concatenated without a requantisation where they share a scale."""
    scales = []
    for name in node.input:
        after = view.maker(name, DEQUANTISE)
        if after is not None and name not in view.fixed:
            scales.append(scalar_values(view, after.input[1]))
    known = [scale for scale in scales if scale is not None]
    if len(set(known)) > 1:
        shown = ", ".join(f"{scale[0]:.4g}" for scale in sorted(set(known))[:4] if scale)
        yield Breach("concat-scales", name_of(node), f"{len(known)} quantised inputs with scales {shown}")
