"""Equalisation evens ranges out and leaves the float function as it was."""

import numpy as np
import pytest
from layered_nets import initial, net, run, uneven

from edgekit.quantization.equalization import equalize
from edgekit.runtime.numbers import snr_db

WILD = np.geomspace(0.01, 100.0, 8)
CHAINS = {
    "conv-relu-conv": (
        """chain (float[n, 3, 8, 8] x) => (float[n, 4, 8, 8] y) {
            c = Conv<pads=[1, 1, 1, 1]>(x, w0, b0) r = Relu(c) y = Conv<pads=[1, 1, 1, 1]>(r, w1, b1) }""",
        {"w0": (8, 3, 3, 3), "b0": (8,), "w1": (4, 8, 3, 3), "b1": (4,)},
    ),
    "depthwise": (
        """chain (float[n, 3, 8, 8] x) => (float[n, 4, 6, 6] y) {
            c = Conv(x, w0) d = Conv<group=8>(c, w1, b1) r = Relu(d) y = Conv(r, w2) }""",
        {"w0": (8, 3, 1, 1), "w1": (8, 1, 3, 3), "b1": (8,), "w2": (4, 8, 1, 1)},
    ),
    "grouped": (
        """chain (float[n, 3, 8, 8] x) => (float[n, 6, 8, 8] y) {
            c = Conv(x, w0) r = LeakyRelu<alpha=0.1>(c) y = Conv<group=2>(r, w1) }""",
        {"w0": (8, 3, 1, 1), "w1": (6, 4, 1, 1)},
    ),
    "gemm": (
        """chain (float[n, 5] x) => (float[n, 4] y) {
            c = Gemm<transB=1>(x, w0, b0) r = Relu(c) y = Gemm(r, w1, b1) }""",
        {"w0": (8, 5), "b0": (8,), "w1": (8, 4), "b1": (1, 4)},
    ),
    "pooled": (
        """chain (float[n, 3, 8, 8] x) => (float[n, 4, 4, 4] y) {
            c = Conv(x, w0) r = Relu(c) p = MaxPool<kernel_shape=[2, 2], strides=[2, 2]>(r) y = Conv(p, w1) }""",
        {"w0": (8, 3, 1, 1), "w1": (4, 8, 1, 1)},
    ),
}


def feeds(proto):
    shape = [d.dim_value or 4 for d in proto.graph.input[0].type.tensor_type.shape.dim]
    return {"x": np.random.default_rng(1).normal(size=shape).astype(np.float32)}


@pytest.mark.parametrize("name", CHAINS)
def test_the_function_stays_and_ranges_are_even(name):
    proto = net(*CHAINS[name])
    uneven(proto, "w0", WILD)
    before, spread = run(proto, feeds(proto))["y"], np.ptp(np.log(np.abs(initial(proto, "w0")).reshape(8, -1).max(1)))
    assert equalize(proto) == {"depthwise": 2}.get(name, 1)
    assert snr_db(before, run(proto, feeds(proto))["y"]) >= 90.0
    assert np.ptp(np.log(np.abs(initial(proto, "w0")).reshape(8, -1).max(1))) < 0.6 * spread


@pytest.mark.parametrize(
    "text",
    [
        "chain (float[n, 8, 4, 4] x) => (float[n, 8, 4, 4] y) { c = Conv(x, w0) r = Sigmoid(c) y = Conv(r, w1) }",
        "chain (float[n, 8, 4, 4] x) => (float[n, 8, 4, 4] y, float[n, 8, 4, 4] c) { c = Conv(x, w0) y = Conv(c, w1) }",
        "chain (float[n, 8, 4, 4] x) => (float[n, 8, 4, 4] y) { c = Conv(x, w0) d = Conv(c, w1) y = Add(c, d) }",
        "chain (float[n, 8, 4, 4] x) => (float[n, 8, 4, 4] y) { c = Conv(x, w0) y = Conv(c, w0) }",
    ],
    ids=["sigmoid between", "an output between", "a second reader", "shared weights"],
)
def test_what_minds_a_factor_is_left_alone(text):
    proto = net(text, {"w0": (8, 8, 1, 1), "w1": (8, 8, 1, 1)})
    before = proto.SerializeToString()
    assert equalize(proto) == 0
    assert proto.SerializeToString() == before


def test_dead_channels_stay_dead():
    proto = net(*CHAINS["conv-relu-conv"])
    uneven(proto, "w0", np.array([0.0, *[1.0] * 7]))
    equalize(proto)
    assert not initial(proto, "w0")[0].any()
    assert np.isfinite(initial(proto, "w1")).all()


def test_what_an_inner_graph_reads_is_left_alone():
    proto = net(
        """chain (float[n, 8, 4, 4] x, bool flag) => (float[n, 8, 4, 4] y) {
            c = Conv(x, w0)
            d = Conv(c, w1)
            e = If(flag) <then_branch = a () => (float[n, 8, 4, 4] t) { t = Relu(c) },
                          else_branch = b () => (float[n, 8, 4, 4] f) { f = Neg(d) }>
            y = Add(d, e)
        }""",
        {"w0": (8, 8, 1, 1), "w1": (8, 8, 1, 1)},
    )
    assert equalize(proto) == 0
