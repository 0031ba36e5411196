"""Weights of 4 bits, two a byte: the same numbers in half the room."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info
from onnx.numpy_helper import from_array

from edgekit.quantization.packing import TABLE, pack, pack_weights, unpack


def dequantised(weights: np.ndarray, name: str = "w") -> onnx.ModelProto:
    """A model that multiplies its input by weights behind a ``DequantizeLinear``."""
    nodes = [
        make_node("DequantizeLinear", [name, "scale"], ["floats"], "dequantise"),
        make_node("MatMul", ["x", "floats"], ["y"], "product"),
    ]
    rows, columns = weights.shape
    graph = make_graph(
        nodes,
        "small",
        [make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", rows])],
        [make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", columns])],
        [from_array(weights, name), from_array(np.array(0.01, np.float32), "scale")],
    )
    return make_model(graph, opset_imports=[make_opsetid("", 20)], ir_version=9)


def drawn(*shape: int, low: int = -8, high: int = 7) -> np.ndarray:
    return np.random.default_rng(0).integers(low, high, shape, np.int8, endpoint=True)


def test_what_is_unpacked_is_what_was_packed():
    every = np.stack(np.meshgrid(np.arange(-8, 8), np.arange(-8, 8)), -1).astype(np.int8)
    codes = pack(every)
    assert codes.dtype == np.uint8
    assert len(set(codes.tolist())) == codes.size == 256
    np.testing.assert_array_equal(unpack(codes), every.ravel())
    assert pack(np.array([1, -2], np.int8)).tolist() == [0xE1]


def test_a_packed_model_computes_the_same_bit_for_bit_and_is_half_as_large():
    proto = dequantised(drawn(64, 128))
    x = np.random.default_rng(1).normal(size=(3, 64)).astype(np.float32)

    def run() -> np.ndarray:
        onnx.checker.check_model(proto, full_check=True)
        session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
        return session.run(None, {"x": x})[0]

    before, size = run(), proto.ByteSize()
    packed = pack_weights(proto)
    assert packed.tensors == ("w",)
    assert (packed.bytes_before, packed.bytes_after) == (8192, 4096 + 512 + 16)
    assert size - proto.ByteSize() > 3000
    np.testing.assert_array_equal(run(), before)


def test_tensors_share_one_table():
    proto = dequantised(drawn(64, 128))
    proto.graph.initializer.append(from_array(drawn(32, 64), "v"))
    proto.graph.node.append(make_node("DequantizeLinear", ["v", "scale"], ["more"], "another"))
    assert pack_weights(proto).tensors == ("w", "v")
    assert [tensor.name for tensor in proto.graph.initializer].count(TABLE) == 1


@pytest.mark.parametrize(
    "weights",
    [
        drawn(64, 128, low=-9),
        drawn(64, 128, high=8),
        drawn(33, 33),
        drawn(16, 16),
        drawn(64, 128).astype(np.uint8) & 7,
    ],
    ids=["too low", "too high", "odd", "small", "unsigned"],
)
def test_what_is_no_even_tensor_of_4_bits_stays(weights):
    weights[0, 0] = weights.min()
    proto = dequantised(weights)
    before = proto.SerializeToString()
    assert pack_weights(proto).tensors == ()
    assert proto.SerializeToString() == before
