"""A device whose TensorRT and GPU a test may exchange, with its cache of plans; fixtures to be imported."""

import sys
from dataclasses import replace

import pytest
from tensorrt_fake import FakeDevice, fake_tensorrt

from edgekit.runtime import tensorrt_build, tensorrt_plans
from edgekit.runtime.cuda import Gpu

ORIN = Gpu(name="Orin", compute_capability="8.7", memory_mb=8000, free_mb=5000, driver="540.4", runtime="12.6")
FP32 = {"precision": "fp32"}


class Machine:
    """The device under test: its TensorRT and GPU, either of which a test may exchange."""

    def __init__(self, monkeypatch):
        self.monkeypatch = monkeypatch
        self.world = FakeDevice(version="10.3.0")
        self.now()

    def now(self, *, version=None, **gpu):
        self.gpu = replace(ORIN, **gpu)
        if version:
            self.world.version = version
        self.monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt(self.world))
        for module in (tensorrt_build, tensorrt_plans):
            self.monkeypatch.setattr(module, "gpu", lambda: self.gpu)


@pytest.fixture(name="machine")
def machine_fixture(monkeypatch, tmp_path):
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    return Machine(monkeypatch)


@pytest.fixture(name="model")
def model_fixture(tmp_path, tiny_onnx):
    import onnx

    onnx.save(tiny_onnx("conv_batch2"), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def break_plan(plan):
    plan.write_bytes(plan.read_bytes()[:-10])
