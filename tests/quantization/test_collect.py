"""Calibration streams: the same statistics whatever the batches, and no tensor is held longer than its batch."""

import gc
import weakref

import numpy as np
import onnx
import pytest
from layered_nets import net, run

from edgekit.quantization.collect import (
    Probe,
    channel_maxima,
    collect,
    load_statistics,
    open_probe,
    save_statistics,
)
from edgekit.quantization.ranges import RANGE_METHODS, range_of

TEXT = """small (float[n, 3, 8, 8] x) => (float[n, 4, 8, 8] y) {
    c = Conv<pads=[1, 1, 1, 1]>(x, w0) r = Relu(c) s = Shape(r) y = Conv(r, w1) }"""
WEIGHTS = {"w0": (8, 3, 3, 3), "w1": (4, 8, 1, 1)}


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(net(TEXT, WEIGHTS), path)
    return path


def batches(size, count=12):
    values = np.random.default_rng(0).normal(size=(count, 3, 8, 8)).astype(np.float32)
    return [{"x": values[i : i + size]} for i in range(0, count, size)]


def test_it_sees_what_the_model_computes(model):
    proto = net(TEXT, WEIGHTS)
    proto.graph.output.append(onnx.ValueInfoProto(name="r"))
    values = run_all(proto, batches(12)[0])
    found = collect(open_probe(model, ["x", "r", "y"]), batches(1))
    for name in ("x", "r", "y"):
        assert (found[name].minimum, found[name].maximum) == pytest.approx((values[name].min(), values[name].max()))
        each = values[name].reshape(12, -1)
        assert found[name].sum_of_maxima / found[name].batches == pytest.approx(each.max(axis=1).mean(), rel=1e-5)
        assert found[name].histogram is None


def run_all(proto, feeds):
    import onnxruntime as ort

    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True)) | feeds


def test_the_size_of_batches_changes_no_extremes_and_no_counts(model):
    one, many = (collect(open_probe(model, ["r"]), batches(size), histograms=True)["r"] for size in (1, 5))
    assert (one.minimum, one.maximum) == pytest.approx((many.minimum, many.maximum), rel=1e-5)
    assert one.histogram.counts.sum() == many.histogram.counts.sum() == 12 * 8 * 64
    for method in ("percentile", "mse"):
        assert range_of(one, method)[1] == pytest.approx(range_of(many, method)[1], rel=0.1)


def test_tensors_that_are_no_floats_and_that_do_not_exist_are_left_out(model):
    probe = open_probe(model, ["s", "r", "w0", "nothing", "x"])
    assert dict(probe.given) == {"r": "float32"}
    assert dict(probe.fed) == {"x": "float32"}


def test_no_batch_outlives_its_turn():
    class Engine:
        """Gives an array a run, and remembers them weakly."""

        def __init__(self):
            self.given = []

        def run(self, names, feeds):
            assert not [ref for ref in self.given if ref() is not None]
            values = [np.ones((4, 4), np.float32) for _ in names]
            self.given += [weakref.ref(value) for value in values]
            return values

    engine = Engine()
    probe = Probe(session=engine, given={"a": "float32", "b": "float32"}, fed={})
    found = collect(probe, ({} for _ in range(5)), histograms=True)
    gc.collect()
    assert len(engine.given) == 10
    assert found["a"].batches == 5


def test_statistics_come_back_from_their_folder(model, tmp_path):
    found = collect(open_probe(model, ["x", "r", "y"]), batches(3), histograms=True)
    save_statistics(found, tmp_path)
    again = load_statistics(tmp_path)
    for method in RANGE_METHODS:
        assert {n: range_of(s, method) for n, s in again.items()} == {n: range_of(s, method) for n, s in found.items()}


def test_statistics_without_histograms_come_back_so(model, tmp_path):
    save_statistics(collect(open_probe(model, ["r"]), batches(3)), tmp_path)
    assert load_statistics(tmp_path)["r"].histogram is None


def test_maxima_of_channels(model):
    maxima = channel_maxima(open_probe(model, ["x"]), batches(5), axis=1)
    values = batches(12)[0]["x"]
    np.testing.assert_array_equal(maxima["x"], np.abs(values).max(axis=(0, 2, 3)))


def test_the_model_file_itself_stays(model):
    before = model.read_bytes()
    open_probe(model, ["r"])
    assert model.read_bytes() == before
    assert run(onnx.load(model), batches(2)[0])["y"].shape == (2, 4, 8, 8)
