"""SmoothQuant moves outliers into the weights and leaves the float function as it was."""

import numpy as np
import pytest
from layered_nets import initial, net, run, uneven

from edgekit.quantization.smooth_quant import smooth, smoothed_tensors
from edgekit.runtime.numbers import snr_db

OUTLIERS = np.array([1.0, 1.0, 100.0, 1.0, 1.0, 30.0, 1.0, 1.0])
BODIES = {
    "layer norm": (
        "h = LayerNormalization<axis=-1>(x, gain, shift) q = MatMul(h, wq) k = MatMul(h, wk) y = Add(q, k)",
        0,
    ),
    "mul and add": ("n = Mul(x, gain) h = Add(n, shift) q = MatMul(h, wq) k = MatMul(h, wk) y = Add(q, k)", 0),
    "mul alone": ("h = Mul(gain, x) q = MatMul(h, wq) k = MatMul(h, wk) y = Add(q, k)", 0),
    "nothing to fold into": ("q = MatMul(x, wq) k = MatMul(x, wk) y = Add(q, k)", 1),
    "another reader": (
        """h = LayerNormalization<axis=-1>(x, gain, shift)
        q = MatMul(h, wq) k = MatMul(h, wk) s = Add(q, k) y = Add(s, h)""",
        1,
    ),
    "gemm": ("r = Relu(x) y = Gemm<transB=1>(r, wq, shift)", 1),
}


def build(name):
    shape = "float[n, 8]" if name == "gemm" else "float[n, 3, 8]"
    proto = net(
        f"smoothed ({shape} x) => ({shape} y) {{ {BODIES[name][0]} }}",
        {key: (8, 8) if key[0] == "w" else (8,) for key in ("gain", "shift", "wq", "wk") if key in BODIES[name][0]},
    )
    if "gain" in BODIES[name][0]:
        uneven(proto, "gain", OUTLIERS)
    values = np.random.default_rng(1).normal(size=(6, 8) if name == "gemm" else (6, 3, 8)).astype(np.float32)
    return proto, {"x": values if "gain" in BODIES[name][0] else (values * OUTLIERS).astype(np.float32)}


def maxima_of(proto, feeds, tensors):
    import onnx

    probed = onnx.ModelProto()
    probed.CopyFrom(proto)
    probed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors if name not in feeds)
    values = run_unchecked(probed, feeds) | feeds
    return {name: np.abs(values[name]).reshape(-1, 8).max(axis=0) for name in tensors}


def run_unchecked(proto, feeds):
    import onnxruntime as ort

    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


@pytest.mark.parametrize("name", BODIES)
def test_the_function_stays_and_outliers_shrink(name):
    proto, feeds = build(name)
    (tensor,) = smoothed_tensors(proto)
    before, maxima = run(proto, feeds)["y"], maxima_of(proto, feeds, [tensor])
    added = smooth(proto, maxima)
    assert len(added) == BODIES[name][1]
    assert snr_db(before, run(proto, feeds)["y"]) >= 90.0
    smoothed = f"{tensor}_smooth_out" if added else tensor
    after = maxima_of(proto, feeds, [smoothed])[smoothed]
    assert np.ptp(np.log(after)) < 0.7 * np.ptp(np.log(maxima[tensor]))


def test_the_factor_is_the_papers():
    proto, feeds = build("mul alone")
    maxima = maxima_of(proto, feeds, ["h"])
    weights = np.maximum(np.abs(initial(proto, "wq")).max(1), np.abs(initial(proto, "wk")).max(1))
    gain = initial(proto, "gain")
    smooth(proto, maxima, alpha=0.7)
    np.testing.assert_allclose(gain / initial(proto, "gain"), maxima["h"] ** 0.7 / weights**0.3, rtol=1e-4)


def test_channels_of_zeros_and_tensors_without_maxima_are_left_alone():
    proto, _ = build("mul alone")
    before = proto.SerializeToString()
    assert smooth(proto, {}) == []
    assert proto.SerializeToString() == before
    smooth(proto, {"h": np.zeros(8, np.float32)})
    assert np.isfinite(initial(proto, "wq")).all()


def test_even_channels_are_not_worth_a_node_of_their_own():
    name = next(name for name, (_, added) in BODIES.items() if added)
    proto, feeds = build(name)
    (tensor,) = smoothed_tensors(proto)
    maxima = maxima_of(proto, feeds, [tensor])
    before = proto.SerializeToString()
    assert smooth(proto, {tensor: np.full_like(maxima[tensor], 3.0)}) == []
    assert proto.SerializeToString() == before
    assert len(smooth(proto, maxima)) == BODIES[name][1]


def test_weights_that_are_shared_or_no_constants_are_left_alone():
    proto = net(
        """shared (float[n, 8] x, float[8, 8] z) => (float[n, 8] y) {
            a = MatMul(x, w) b = MatMul(a, w) y = MatMul(b, z) }""",
        {"w": (8, 8)},
    )
    assert smoothed_tensors(proto) == []
