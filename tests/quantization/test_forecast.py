"""The forecast: what it counts, and that it looks at one batch alone."""

import numpy as np
import onnx
import pytest
from layered_nets import net

from edgekit.conversion.clean import describe_onnx
from edgekit.data import Samples
from edgekit.errors import DataError
from edgekit.quantization import forecast as module
from edgekit.quantization.forecast import Forecast, forecast
from edgekit.quantization.schemes import Plan

TEXT = """big (float[n, 3, 64, 64] x) => (float[n, 4, 64, 64] y) {
    c = Conv<pads=[1, 1, 1, 1]>(x, w0) r = Relu(c) y = Conv(r, w1) }"""


@pytest.fixture
def fp32(tmp_path):
    proto = net(TEXT, {"w0": (64, 3, 3, 3), "w1": (4, 64, 1, 1)})
    onnx.save(proto, tmp_path / "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    return describe_onnx(tmp_path / "model.onnx", precision="fp32")


def samples(count, read=None):
    def fetch(indices):
        if read is not None:
            read.extend(indices.tolist())
        return {"x": np.zeros((len(indices), 3, 64, 64), np.float32)}

    return Samples(name="zeros", count=count, fetch=fetch)


def plan(method="minmax", **changes):
    return Plan(engine="onnxruntime", precision="int8", method=method, **changes)


def test_it_reads_one_batch_only(fp32):
    read = []
    found = forecast(fp32, samples(500, read).batches(1), plan())
    assert found.samples == 500
    assert read == [0]


def test_time_grows_with_samples_and_memory_does_not(fp32, monkeypatch):
    monkeypatch.setattr(module, "_one_batch", lambda *args, **more: (0.5, 8e6))
    few, many = (forecast(fp32, samples(count).batches(1), plan()) for count in (10, 500))
    assert many.seconds - few.seconds == pytest.approx(490 * 0.5)
    assert many.peak_mb == few.peak_mb
    corrected = forecast(fp32, samples(10).batches(1), plan(corrections=("bias-correction",)))
    assert corrected.seconds > few.seconds + 4.0


def test_memory_counts_what_is_held_of_a_batch(fp32):
    small, large = (forecast(fp32, samples(32).batches(size), plan("entropy")).peak_mb for size in (1, 16))
    batch_mb = (64 + 64 + 4 + 3) * 64 * 64 * 4 / 1e6
    assert large - small == pytest.approx(15 * batch_mb, rel=0.1)


def test_what_needs_no_samples_is_told_so(fp32):
    found = forecast(fp32, None, plan("dynamic"))
    assert found.samples == 0
    assert str(found).startswith("no samples needed, about 1 s and ")


def test_static_int8_without_samples_is_refused(fp32):
    with pytest.raises(DataError, match="onnxruntime int8: no calibration samples"):
        forecast(fp32, None, plan())


def test_it_reads_as_a_sentence():
    assert str(Forecast(samples=300, seconds=12.4, peak_mb=431.0)) == "300 samples, about 12 s and 431 MB"
