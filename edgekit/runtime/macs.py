"""Multiply-accumulates of an executed node, from the operator and its shapes.

Counted by the definition of each operator (https://onnx.ai/onnx/operators/): additions of a bias, scales and zero
points are not counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

Shape = Sequence[int]
Count = Callable[[Sequence[Shape], Shape], "int | None"]


def macs_of(op: str, inputs: Sequence[Shape], output: Shape) -> int | None:
    """Counts what one run of a node multiplies.

    Args:
        op: Operator as ONNX Runtime or OpenVINO calls it.
        inputs: Shapes of its inputs, weights among them.
        output: Shape of its first output.

    Returns:
        Multiply-accumulates; None for an operator that is not known, or whose shapes do not tell.
    """
    count = _COUNTS.get(op)
    if count is None:
        return None
    try:
        return count(inputs, output)
    except (IndexError, ZeroDivisionError):  # the engine noted fewer shapes than the operator has
        return None


def _convolution(weight_at: int) -> Count:
    """Every output element is a sum over the weights of its channel; no matter where the channels' axis lies.

    Weights are ``[out, in / groups, …]``, or ``[groups, out / groups, in / groups, …]``.
    """

    def count(inputs: Sequence[Shape], output: Shape) -> int:
        weight = inputs[weight_at]
        return math.prod(output) * math.prod(weight[_outer(weight, output) :])

    return count


def _transposed(inputs: Sequence[Shape], output: Shape) -> int:
    """Every input element is spread over the weights of its channel, ``[in, out / groups, …]``."""
    data, weight = inputs[0], inputs[1]
    return math.prod(data) * math.prod(weight[_outer(weight, output) :])


def _outer(weight: Shape, output: Shape) -> int:
    return 1 + (len(weight) > len(output))


def _product(inputs: Sequence[Shape], output: Shape) -> int:
    """Every output element is a sum over the axis that the operands share; the left one may be transposed."""
    left = inputs[0]
    if len(left) == 1:
        return math.prod(output) * left[0]
    rows = output[-2] if len(output) > 1 else 1
    shared = left[-2] if left[-1] == rows and left[-2] != rows else left[-1]
    return math.prod(output) * shared


def _recurrent(inputs: Sequence[Shape], weights: Shape, recurrences: Shape) -> int:
    """Every step of every sequence goes once through the weights of all gates and directions."""
    return math.prod(inputs[0][:-1]) * (math.prod(weights) + math.prod(recurrences))


def _onnx_recurrent(inputs: Sequence[Shape], output: Shape) -> int:
    return _recurrent(inputs, inputs[1], inputs[2])


def _openvino_recurrent(inputs: Sequence[Shape], output: Shape) -> int:
    """Weights, recurrences and bias come last."""
    return _recurrent(inputs, inputs[-3], inputs[-2])


def _attention(inputs: Sequence[Shape], output: Shape) -> int | None:
    """Scores and the weighted sum of values; where the weights of the projection are an input, that as well."""
    if len(inputs[0]) == 3 and len(inputs[1]) == 2:
        (batch, length, width), (_, projected) = inputs[0], inputs[1]
        return batch * length * width * projected + 2 * length * math.prod(output)
    if len(inputs) < 3 or len(inputs[1]) not in (3, 4):
        return None  # packed
    return inputs[1][-2] * (math.prod(inputs[0]) + math.prod(output))


_COUNTS: dict[str, Count] = {
    # ONNX Runtime
    **dict.fromkeys(
        ("Conv", "FusedConv", "NhwcConv", "NhwcFusedConv", "ConvInteger", "Convolution", "GroupConvolution"),
        _convolution(1),
    ),
    "QLinearConv": _convolution(3),
    "DeformConv": _convolution(1),
    **dict.fromkeys(("ConvTranspose", "ConvTransposeWithDynamicPads", "Deconvolution"), _transposed),
    **dict.fromkeys(
        (
            *("Gemm", "FusedGemm", "GemmFastGelu", "QGemm"),
            *("MatMul", "FusedMatMul", "FusedMatMulActivation", "MatMulNBits", "MatMulBnb4", "SparseToDenseMatMul"),
            *("QLinearMatMul", "MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul"),
            "FullyConnected",
        ),
        _product,
    ),
    **dict.fromkeys(("LSTM", "GRU", "RNN", "DynamicQuantizeLSTM"), _onnx_recurrent),
    **dict.fromkeys(("Attention", "QAttention", "MultiHeadAttention"), _attention),
    # OpenVINO
    **dict.fromkeys(("RNNSeq", "RNNCell", "LSTMCell", "GRUCell"), _openvino_recurrent),
    **dict.fromkeys(("ScaledDotProductAttention", "ScaledAttn"), _attention),
}
