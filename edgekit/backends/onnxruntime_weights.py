"""Weights of 8 and 4 bits for ONNX Runtime: ``MatMulNBits``, which decodes them inside the product."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import onnx

from edgekit.artifact import Artifact
from edgekit.backends.onnxruntime_products import left_note, no_products, products, rewrite
from edgekit.quantization.schemes import Plan

BLOCK_SIZE = 32  # weights that share a scale
# Activations are rounded to 8 bits in blocks of as many, where the CPU multiplies such: without, w8 takes 2.4 times as
# long as fp32. OpenVINO does the same unasked.
ACCURACY_LEVEL = 4
_ACTIVATIONS = "activations are rounded to 8 bits as they come"


def quantize(fp32: Artifact, plan: Plan, out: Path) -> Artifact:
    """Rounds the weights of matrix products to nearest in blocks of 32, with ONNX Runtime's ``MatMulNBitsQuantizer``.

    Symmetric unless the scheme says otherwise.

    Returns:
        An ONNX artifact; its notes name what stayed in float and why.

    Raises:
        ModelError: There is no matrix product with constant weights, or the model is quantised already.
        EngineError: ONNX Runtime refuses the model.
        UnknownName: The plan names a node that there is not.
    """

    def make(proto: onnx.ModelProto) -> tuple[onnx.ModelProto, list[str]]:
        return _stored_small(proto, fp32.model, plan)

    return rewrite(fp32, plan, out, "store the weights small", make)


def _stored_small(proto: onnx.ModelProto, model: str, plan: Plan) -> tuple[onnx.ModelProto, list[str]]:
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    found = [node.name for node in products(proto)]
    if not set(found) - set(plan.float_groups):
        what = "w8 and w4 store weights of matrix products; convolutions stay as they are"
        raise no_products(model, what, kept=bool(found))
    quantizer = MatMulNBitsQuantizer(
        proto,
        bits=int(plan.precision.removeprefix("w")),
        block_size=BLOCK_SIZE,
        is_symmetric=plan.scheme is None or plan.scheme.weight_symmetric,
        accuracy_level=ACCURACY_LEVEL,
        nodes_to_exclude=list(plan.float_groups),
    )
    quantizer.process()
    made: onnx.ModelProto = quantizer.model.model
    return made, _notes(made, found, plan)


def _notes(made: onnx.ModelProto, found: Sequence[str], plan: Plan) -> list[str]:
    count = sum(node.op_type == "MatMulNBits" for node in made.graph.node)
    left = [node for node in made.graph.node if node.op_type != "MatMulNBits"]
    asked = [node.name for node in left if node.name in plan.float_groups and node.name in found]
    others = [node.name for node in left if node.name in found and node.name not in asked]
    convolutions = [node.name for node in left if node.op_type in ("Conv", "ConvTranspose", "LSTM", "GRU", "RNN")]
    return [
        f"weights of {count} matrix products in {plan.precision.removeprefix('w')} bits; {_ACTIVATIONS}",
        *left_note(asked, "as the plan says"),
        *left_note(others, "MatMulNBits takes one matrix, and these are several"),
        *left_note(convolutions, "MatMulNBits is for matrix products only"),
    ]
