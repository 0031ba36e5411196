"""Codebooks: what k-means finds, what the decoded weights are, what is left as it was."""

import numpy as np
import onnx
import pytest
from layered_nets import initial, net, run
from sklearn.cluster import KMeans

from edgekit.quantization.codebooks import INDICES, cluster, store_codebooks
from edgekit.runtime.numbers import snr_db

MIXED = """mixed (float[n, 16, 8, 8] x, int64[n, 4] ids) => (float[n, 10] y, float[n, 4, 32] e) {
    [conv] c = Conv<pads=[1, 1, 1, 1]>(x, w0)
    [up] u = ConvTranspose<strides=[2, 2]>(c, w1)
    [pool] p = GlobalAveragePool(u)
    [flat] f = Flatten(p)
    [dense] y = Gemm<transB=1>(f, w2)
    [embed] r = Gather(table, ids)
    [mix] e = MatMul(r, w3)
}"""
SIZES = {"w0": (64, 16, 3, 3), "w1": (64, 80, 2, 2), "w2": (10, 80), "table": (500, 64), "w3": (64, 32)}
RNG = np.random.default_rng(5)
SHAPES = {"normal": RNG.normal(size=4000), "heavy": RNG.standard_t(3, 4000), "two": RNG.choice([-1.0, 1.0], 4000)}


@pytest.fixture
def mixed():
    return net(MIXED, SIZES)


def feeds():
    rng = np.random.default_rng(1)
    return {"x": rng.normal(size=(2, 16, 8, 8)).astype(np.float32), "ids": rng.integers(0, 500, (2, 4))}


def values(proto, name):
    """A tensor as the decoding nodes give it."""
    proto = onnx.ModelProto.FromString(proto.SerializeToString())
    proto.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, SIZES[name]))
    return run(proto, feeds())[name]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("count", [4, 16])
def test_the_centres_are_about_as_near_as_scikit_learns_best_of_ten(shape, count):
    found, given = cluster(SHAPES[shape], count), SHAPES[shape]
    assert len(found) == count
    assert (np.diff(found) >= 0).all()
    ours = np.square(given - found[np.abs(given[:, None] - found).argmin(1)]).sum()
    distinct = min(count, len(np.unique(given)))
    theirs = KMeans(distinct, n_init=10, random_state=0).fit(given[:, None]).inertia_
    assert ours <= 1.1 * theirs + 1e-9


@pytest.mark.parametrize(("bits", "least"), [(8, 44.0), (4, 18.0)])
def test_decoded_weights_are_near_and_take_few_values(mixed, bits, least):
    before = {t.name: onnx.numpy_helper.to_array(t) for t in mixed.graph.initializer}
    reference = run(mixed, feeds())
    coded = store_codebooks(mixed, bits)
    assert set(coded.tensors) == {"w0", "w1", "table", "w3"}  # w2 would not be halved
    for name in coded.tensors:
        after = values(mixed, name)
        assert snr_db(before[name], after) > least
        channels = np.moveaxis(after, {"w0": 0, "w1": 1, "table": 0, "w3": 1}[name], 0)
        assert max(len(np.unique(channel)) for channel in channels) <= 2**bits
    for name, output in run(mixed, feeds()).items():
        assert snr_db(reference[name], output) > least - 6.0  # the noise of two layers


@pytest.mark.parametrize(("bits", "share"), [(8, 1.0), (4, 0.5)])
def test_indices_take_a_byte_or_half_of_one(mixed, bits, share):
    coded = store_codebooks(mixed, bits)
    stored = {t.name: len(t.raw_data) for t in mixed.graph.initializer}
    for name in coded.tensors:
        assert stored[name + INDICES] == share * np.prod(SIZES[name])
        assert name not in stored
    told = sum(size for name, size in stored.items() if "/codebook" in name)
    assert (coded.bytes_after, coded.bytes_before) == (told, 4 * sum(np.prod(SIZES[n]) for n in coded.tensors))


def test_an_odd_number_of_values_gets_a_byte_each():
    proto = net("g (float[n, 99] x) => (float[n, 101] y) { [only] y = MatMul(x, w) }", {"w": (99, 101)})
    store_codebooks(proto, 4)
    (indices,) = [t for t in proto.graph.initializer if t.name.endswith(INDICES)]
    assert list(indices.dims) == [99 * 101]


def test_what_the_plan_leaves_in_float_stays(mixed):
    before = initial(mixed, "w0")
    coded = store_codebooks(mixed, 4, {"conv"})
    assert coded.kept == ("conv",)
    assert "w0" not in coded.tensors
    assert np.array_equal(before, initial(mixed, "w0"))


def test_channels_of_zeros_stay_zero_and_scales_may_differ_by_far():
    proto = net("g (float[n, 64] x) => (float[n, 64] y) { [only] y = MatMul(x, w) }", {"w": (64, 64)})
    weights = onnx.numpy_helper.to_array(proto.graph.initializer[0]) * np.geomspace(1e-6, 1e6, 64).astype(np.float32)
    weights[:, 3] = 0.0
    proto.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weights, "w"))
    store_codebooks(proto, 4)
    given = np.eye(64, dtype=np.float32)
    after = run(proto, {"x": given})["y"]
    assert not after[:, 3].any()
    for channel in set(range(64)) - {3}:
        assert snr_db(weights[:, channel], after[:, channel]) > 14.0


def test_a_branch_reads_the_decoded_weights():
    proto = net(
        """g (float[n, 64] x, bool b) => (float[n, 64] y) {
            y = If (b) <
                then_branch = t () => (float[n, 64] a) { a = MatMul(x, w) },
                else_branch = f () => (float[n, 64] c) { c = Relu(x) } >
            }""",
        {"w": (64, 64)},
    )
    given = {"x": np.eye(64, dtype=np.float32), "b": np.array(True)}
    before = run(proto, given)["y"]
    coded = store_codebooks(proto, 8)
    assert not coded.tensors  # who reads it is not seen from here
    assert np.array_equal(before, run(proto, given)["y"])


def test_the_same_model_gives_the_same_bytes(mixed):
    again = net(MIXED, SIZES)
    store_codebooks(mixed, 4)
    store_codebooks(again, 4)
    assert mixed.SerializeToString(deterministic=True) == again.SerializeToString(deterministic=True)
