"""The session, against a fake TensorRT on a fake CUDA: what is really computed comes from ONNX Runtime."""

import gc
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from cuda_fake import FakeCuda
from tensorrt_fake import FakeDevice, fake_tensorrt
from tiny_models import onnx_specs

from edgekit.artifact import TensorSpec
from edgekit.errors import EngineError, EngineMissing, FeedError
from edgekit.runtime import tensorrt
from edgekit.runtime.tensorrt import open_built
from edgekit.runtime.tensorrt_module import collect_log

OPEN = {"profile": {"input": ((1, 3, 8, 8), (2, 3, 8, 8), (4, 3, 8, 8))}}
NONZERO = """picked (float[6] input) => (int64[1, "found"] output) { output = NonZero(input) }"""
RESHAPED = """reshaped (float[2, 6] input, int64[2] shape) => (float["a", "b"] output) { output = Reshape(input, shape) }"""


@pytest.fixture(params=["10.3.0", "11.4.0.106"])
def world(request, monkeypatch):
    """A device: TensorRT and CUDA, both fakes."""
    cuda = FakeCuda()
    cuda.install(monkeypatch)
    world = FakeDevice(version=request.param, enqueue=cuda.enqueue, finish=cuda.finish)
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt(world))
    world.cuda = cuda
    yield world
    gc.collect()
    assert cuda.live == {}, "a session left something behind"


@pytest.fixture
def opened(world, tmp_path, tiny_onnx):
    """Builds the plan of a tiny model and opens it; closes it after the test."""
    sessions = []

    def open_(model="conv_batch2", options=None, profile=None, inputs=None, outputs=None):
        proto = tiny_onnx(model)
        plan = tmp_path / "plan"
        plan.write_bytes(built(proto, tmp_path, profile))
        inputs = onnx_specs(proto.graph.input) if inputs is None else inputs
        outputs = onnx_specs(proto.graph.output) if outputs is None else outputs
        sessions.append(open_built(plan, options or {}, inputs, outputs, name="model.onnx"))
        return sessions[-1]

    yield open_
    for session in sessions:
        session.close()


def built(proto, folder: Path, profile=None):
    trt, log = sys.modules["tensorrt"], collect_log(sys.modules["tensorrt"])
    onnx.save(proto, folder / "model.onnx")
    builder = trt.Builder(log.logger)
    network, config = builder.create_network(1), builder.create_builder_config()
    assert trt.OnnxParser(network, log.logger).parse_from_file(str(folder / "model.onnx"))
    if profile:
        shapes = builder.create_optimization_profile()
        for name, (low, best, high) in profile.items():
            shapes.set_shape(name, low, best, high)
        config.add_optimization_profile(shapes)
    return bytes(builder.build_serialized_network(network, config))


def image(batch=2, seed=0):
    return np.random.default_rng(seed).normal(size=(batch, 3, 8, 8)).astype(np.float32)


def expected(images, tiny_onnx):
    import onnxruntime

    session = onnxruntime.InferenceSession(
        tiny_onnx("conv").SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"input": images})[0]


def test_it_computes_what_onnx_runtime_computes_and_gives_all_back(world, opened, tiny_onnx):
    session = opened()
    for seed in (0, 1):
        output = session.run({"input": image(seed=seed)})["output"]
        np.testing.assert_allclose(output, expected(image(seed=seed), tiny_onnx), atol=1e-6)
    session.close()
    assert world.cuda.live == {}
