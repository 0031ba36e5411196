"""Small float networks of matrix products: a perceptron, attention, a recurrent layer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from small_nets import HEAD, samples_for

from edgekit.artifact import Array, Artifact
from edgekit.backends import load_backend
from edgekit.catalog import load_target
from edgekit.runtime import open_artifact
from edgekit.runtime.numbers import run_batched
from edgekit.runtime.placement import PlacedNode

PERCEPTRON = """perceptron (float["batch", 64] x) => (float["batch", 10] y) {
    [first] a = MatMul(x, w1)
    [relu] r = Relu(a)
    [second] b = Gemm<alpha=0.5, beta=2.0>(r, w2, b2)
    [third] y = Gemm<transB=1>(b, w3, b3)
}"""
PERCEPTRON_SIZES = {"w1": (64, 96), "w2": (96, 64), "b2": (64,), "w3": (10, 64), "b3": (10,)}
ATTENTION = """attention (float["batch", 8, 32] x) => (float["batch", 8, 32] y) <float root = {5.6568542}> {
    [query] q = MatMul(x, wq)
    [key] k = MatMul(x, wk)
    [value] v = MatMul(x, wv)
    [turn] kt = Transpose<perm=[0, 2, 1]>(k)
    [scores] s = MatMul(q, kt)
    [scale] d = Div(s, root)
    [softmax] p = Softmax(d)
    [mixed] m = MatMul(p, v)
    [out] o = MatMul(m, wo)
    [skip] y = Add(o, x)
}"""
ATTENTION_SIZES = dict.fromkeys(("wq", "wk", "wv", "wo"), (32, 32))
RECURRENT = """recurrent (float["batch", 12, 16] x) => (float["batch", 1, 24] y) {
    [first] t = Transpose<perm=[1, 0, 2]>(x)
    [recur] all, h = KIND<hidden_size=24>(t, w, r)
    [last] y = Transpose<perm=[1, 0, 2]>(h)
}"""


def with_weights(text: str, sizes: Mapping[str, tuple[int, ...]]) -> onnx.ModelProto:
    """A model of ONNX text with normal weights of these sizes."""
    proto, rng = onnx.parser.parse_model(HEAD + text), np.random.default_rng(1)
    for name, size in sizes.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(rng.normal(0, 0.2, size).astype("float32"), name))
    return proto


def perceptron() -> onnx.ModelProto:
    """A MatMul and two Gemms, one scaled and one transposed."""
    return with_weights(PERCEPTRON, PERCEPTRON_SIZES)


def attention() -> onnx.ModelProto:
    """One head of attention with its four projections and a residual addition."""
    return with_weights(ATTENTION, ATTENTION_SIZES)


def recurrent(kind: str) -> onnx.ModelProto:
    """One LSTM or GRU."""
    gates = {"LSTM": 4, "GRU": 3}[kind]
    sizes = {"w": (1, gates * 24, 16), "r": (1, gates * 24, 24)}
    return with_weights(RECURRENT.replace("KIND", kind), sizes)


def run_on(
    engine: str, artifact: Artifact, out: Path, target: str = "x86-vnni", count: int = 8
) -> tuple[Array, list[PlacedNode]]:
    """Compiles for a target and runs normal samples: the first output, and the compute nodes as the engine ran them."""
    built = load_backend(engine).compile(artifact, load_target(target), 1, out)
    feeds = samples_for(artifact.inputs, count).tensors(range(count))
    session = open_artifact(built)
    outputs: dict[str, Array] = run_batched(session, feeds)
    compute = [node for node in session.placement().nodes if node.compute]
    session.close()
    return next(iter(outputs.values())), compute
