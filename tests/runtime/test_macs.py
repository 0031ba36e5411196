import math

import pytest

from edgekit.runtime.macs import macs_of

CONV = 64 * 112 * 112 * 3 * 49


@pytest.mark.parametrize(
    ("op", "inputs", "output", "macs"),
    [
        ("Conv", [[1, 3, 224, 224], [64, 3, 7, 7]], [1, 64, 112, 112], CONV),
        # The channels' axis may lie last, as in ONNX Runtime's int8 convolutions.
        ("QLinearConv", [[1, 224, 224, 3], [], [], [64, 3, 7, 7], [], []], [1, 112, 112, 64], CONV),
        ("ConvInteger", [[1, 3, 224, 224], [64, 3, 7, 7], []], [1, 64, 112, 112], CONV),
        ("FusedConv", [[1, 96, 28, 28], [96, 1, 3, 3], [96]], [1, 96, 14, 14], 96 * 14 * 14 * 9),
        # OpenVINO's weights of grouped convolutions have an axis of groups.
        ("Convolution", [[7, 6, 11], [2, 6, 3, 3], [12]], [7, 12, 9], 7 * 12 * 9 * 9),
        ("Deconvolution", [[7, 6, 9], [3, 2, 2, 3]], [7, 6, 11], 7 * 6 * 9 * 2 * 3),
        ("ConvTranspose", [[1, 6, 9], [6, 2, 3]], [1, 6, 11], 6 * 9 * 2 * 3),
        ("MatMul", [[2, 12, 7, 16], [2, 12, 16, 9]], [2, 12, 7, 9], 2 * 12 * 7 * 16 * 9),
        ("MatMul", [[16], [16, 9]], [9], 16 * 9),
        ("FusedMatMul", [[4, 16, 7], [4, 16, 9]], [4, 7, 9], 4 * 7 * 16 * 9),
        ("Gemm", [[1, 512], [1000, 512], [1000]], [1, 1000], 512_000),
        ("Gemm", [[512, 3], [512, 10]], [3, 10], 3 * 512 * 10),
        ("QGemm", [[2, 512], [], [], [1000, 512]], [2, 1000], 2 * 512_000),
        ("FullyConnected", [[7, 7, 16], [5, 16]], [7, 7, 5], 49 * 80),
        ("MatMulNBits", [[1, 6, 384], [1536, 12, 16], [18432]], [1, 6, 1536], 6 * 384 * 1536),
        ("LSTM", [[7, 2, 12], [2, 80, 12], [2, 80, 20]], [7, 2, 2, 20], 14 * 2 * 80 * 32),
        ("GRU", [[7, 1, 40], [1, 48, 40], [1, 48, 16]], [7, 1, 1, 16], 7 * 48 * 56),
        ("RNNSeq", [[7, 7, 40], [7, 1, 16], [7], [1, 48, 40], [1, 48, 16], [1, 64]], [7, 1, 7, 16], 49 * 48 * 56),
        ("LSTMCell", [[3, 40], [3, 16], [3, 16], [64, 40], [64, 16], [64]], [3, 16], 3 * 64 * 56),
        # Scores and the weighted sum of values; in ONNX Runtime's fused attention the projection as well.
        ("ScaledDotProductAttention", [[1, 4, 9, 8], [1, 4, 11, 8], [1, 4, 11, 8]], [1, 4, 9, 8], 2 * 4 * 9 * 11 * 8),
        ("MultiHeadAttention", [[1, 9, 32], [1, 11, 32], [1, 11, 32]], [1, 9, 32], 2 * 9 * 11 * 32),
        ("Attention", [[1, 9, 32], [32, 96], [96]], [1, 9, 32], 9 * 32 * 96 + 2 * 9 * 9 * 32),
    ],
)
def test_counts(op, inputs, output, macs):
    assert macs_of(op, inputs, output) == macs


@pytest.mark.parametrize(
    ("op", "inputs"),
    [
        ("Relu", [[1, 3]]),
        ("Einsum", [[2, 3], [3, 4]]),  # its equation is not in the engine's record
        ("Conv", [[1, 3, 8, 8]]),
        ("QLinearConv", [[1, 8, 8, 3], [], []]),
        ("LSTM", [[7, 2, 12]]),
        ("MultiHeadAttention", [[1, 9, 4, 3, 8], [96]]),
    ],
)
def test_what_is_not_told_is_not_known(op, inputs):
    assert macs_of(op, inputs, [1, 3]) is None


def test_a_scalar_product():
    assert macs_of("MatMul", [[5], [5]], []) == 5 == math.prod([5])
