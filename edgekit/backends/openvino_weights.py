"""Weights of 8 and 4 bits for OpenVINO: NNCF stores those of matrix products small, the engine decodes them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgekit.artifact import Artifact
from edgekit.backends.calibration import check_float_groups, require_float
from edgekit.backends.openvino_ir import NAME, convert_graph, is_constant, nodes_of, save_graph, sources
from edgekit.backends.refusals import refusals
from edgekit.errors import ModelError
from edgekit.quantization.groups import name_nodes
from edgekit.quantization.schemes import Plan

GROUP_SIZE = 32  # of 4 bits; where it does not divide a matrix, the largest power of two from SMALLEST_GROUP that does
SMALLEST_GROUP = 16
# NNCF would store these small as well; w8 and w4 are weights of matrix products alone.
_OTHERS = ("Convolution", "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData", "Gather")
_STORED = {"i8": "8 bits", "u8": "8 bits", "i4": "4 bits", "u4": "4 bits"}


def quantize(fp32: Artifact, plan: Plan, out: Path) -> Artifact:
    """Rounds the weights of matrix products to nearest with ``nncf.compress_weights``.

    8 bits: one scale an output channel. 4 bits: one scale a group of :data:`GROUP_SIZE` weights or fewer; a matrix
    that no group fits is stored in 8 bits. Symmetric unless the scheme says otherwise.

    Raises:
        ModelError: There is no matrix product with constant weights, or the model is quantised already.
    """
    from edgekit.conversion.clean import load_onnx
    from edgekit.conversion.quiet import quiet
    from edgekit.runtime.openvino import engine_errors
    from edgekit.runtime.quiet import silence_telemetry

    proto = load_onnx(fp32.path)
    require_float(proto, fp32.model)
    name_nodes(proto)
    check_float_groups(plan, proto)
    silence_telemetry()
    with refusals(NAME, fp32), engine_errors("store the weights small"), quiet():
        graph = convert_graph(proto)
        products = [node.get_friendly_name() for node in graph.get_ordered_ops() if _is_product(node)]
        kept = nodes_of(graph, set(plan.float_groups), proto)
        if not set(products) - set(kept):
            raise no_products(fp32.model, len(products))
        compressed = _compress(graph, plan, kept)
        notes = _notes(compressed, kept)
        written = save_graph(compressed, out, plan.precision, {}, fp32)
    return replace(written, notes=(*written.notes, *notes))


def no_products(model: str, left: int) -> ModelError:
    """The error of a model in which no weights can be stored small."""
    return ModelError(
        f"{model}: no matrix product with constant weights",
        found=f"the plan leaves all {left} of them in float"
        if left
        else "no MatMul or Gemm of an activation by weights",
        allowed="w8 and w4 store weights of matrix products; convolutions stay as they are",
        fix="leave fewer nodes in float" if left else "choose int8, which quantises convolutions too",
    )


def _compress(graph: Any, plan: Plan, kept: list[str]) -> Any:
    import nncf
    from nncf.quantization.advanced_parameters import AdvancedCompressionParameters, GroupSizeFallbackMode

    symmetric = plan.scheme is None or plan.scheme.weight_symmetric
    mode = f"int{plan.precision.removeprefix('w')}_{'sym' if symmetric else 'asym'}"
    ignored = nncf.IgnoredScope(names=kept, types=list(_OTHERS), validate=False)
    if plan.precision == "w8":
        return nncf.compress_weights(graph, mode=nncf.CompressWeightsMode(mode), ignored_scope=ignored)
    return nncf.compress_weights(
        graph,
        mode=nncf.CompressWeightsMode(mode),
        group_size=GROUP_SIZE,
        all_layers=True,
        ignored_scope=ignored,
        advanced_parameters=AdvancedCompressionParameters(
            group_size_fallback_mode=GroupSizeFallbackMode.ADJUST, min_adjusted_group_size=SMALLEST_GROUP
        ),
    )


def _notes(compressed: Any, kept: list[str]) -> list[str]:
    """How many products are stored how, and which stayed in float."""
    stored: Counter[str] = Counter()
    left, convolutions = [], 0
    for node in compressed.get_ordered_ops():
        if _is_product(node):
            kind = _stored(node)
            stored[kind] += 1
            if kind == "float":
                left.append(node.get_friendly_name().removesuffix("/WithoutBiases"))
        convolutions += node.get_type_name() in _OTHERS and node.get_type_name() != "Gather"
    counts = ", ".join(f"{count} in {kind}" for kind, count in sorted(stored.items()))
    notes = [f"weights of matrix products: {counts}"]
    if left:
        reason = "as the plan says" if len(left) <= len(kept) else "NNCF leaves them"
        notes.append(f"left in float: {', '.join(left)} ({reason})")
    if convolutions:
        notes.append(f"left in float: {convolutions} convolutions (w8 and w4 are for matrix products only)")
    return notes


def _is_product(node: Any) -> bool:
    if node.get_type_name() != "MatMul":
        return False
    constant = [is_constant(source) for source in sources(node)]
    return any(constant) and not all(constant)


def _stored(product: Any) -> str:
    """Element type of the constant behind a product's weights."""
    node = next(source for source in sources(product) if is_constant(source))
    while node.get_type_name() != "Constant":
        node = sources(node)[0]
    return _STORED.get(node.get_element_type().get_type_name(), "float")
