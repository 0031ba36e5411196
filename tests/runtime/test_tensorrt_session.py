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
RESHAPED = (
    """reshaped (float[2, 6] input, int64[2] shape) => (float["a", "b"] output) { output = Reshape(input, shape) }"""
)


@pytest.fixture
def world(request, monkeypatch):
    """A device: TensorRT and CUDA, both fakes."""
    cuda = FakeCuda()
    cuda.install(monkeypatch)
    world = FakeDevice(version=getattr(request, "param", "10.3.0"), enqueue=cuda.enqueue, finish=cuda.finish)
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

    session = onnxruntime.InferenceSession(tiny_onnx("conv").SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"input": images})[0]


@pytest.mark.parametrize("world", ["10.3.0", "11.4.0.106"], indirect=True)
def test_it_computes_what_onnx_runtime_computes_and_gives_all_back(world, opened, tiny_onnx):
    session = opened()
    for seed in (0, 1):
        output = session.run({"input": image(seed=seed)})["output"]
        np.testing.assert_allclose(output, expected(image(seed=seed), tiny_onnx), atol=1e-6)
    session.close()
    assert world.cuda.live == {}


def test_nothing_is_computed_before_it_is_waited_for(world, opened, tiny_onnx):
    """The fake's streams do nothing by themselves: an output read too early would hold what memory held before."""
    session = opened(options={"cuda_graph": False})
    np.testing.assert_allclose(session.run({"input": image()})["output"], expected(image(), tiny_onnx), atol=1e-6)
    assert "cudaGraphLaunch" not in world.cuda.calls
    assert session.facts["cuda_graph"] == "not used: the option cuda_graph is false"


def test_a_captured_graph_is_launched_whole(world, opened, tiny_onnx):
    session = opened()
    assert session.facts == {"gpu": "Fake GPU, compute capability 8.7", "cuda_graph": "captured"}
    before = world.calls.count("IExecutionContext.execute_async_v3")
    for seed in range(3):
        output = session.run({"input": image(seed=seed)})["output"]
        np.testing.assert_allclose(output, expected(image(seed=seed), tiny_onnx), atol=1e-6)
    assert world.cuda.calls.count("cudaGraphLaunch") == 3
    assert world.calls.count("IExecutionContext.execute_async_v3") == before


@pytest.mark.parametrize("capture", ["breaks", "refuses"])
def test_an_engine_that_cannot_be_captured_runs_without_and_says_so(world, opened, tiny_onnx, capture):
    world.cuda.capture = capture
    session = opened()
    assert session.facts["cuda_graph"].startswith("not used: ")
    assert "cudaErrorStreamCaptureInvalidated" in session.facts["cuda_graph"]
    assert "cudaGetLastError" in world.cuda.calls
    np.testing.assert_allclose(session.run({"input": image()})["output"], expected(image(), tiny_onnx), atol=1e-6)


def test_time_on_the_gpu_is_the_gpus_own(world, opened):
    session = opened()
    session.run({"input": image()})
    assert session.engine_ns() == 250_000  # one kernel of the fake's
    session.close()
    with pytest.raises(EngineError, match="this tensorrt session is closed"):
        session.engine_ns()


@pytest.mark.parametrize("batches", [(1, 2, 4), (4, 1, 3, 3)])
def test_open_shapes_within_the_profile(world, opened, tiny_onnx, batches):
    session = opened("conv", **OPEN)
    assert session.facts["cuda_graph"] == "not used: the model's shapes are open"
    for batch in batches:
        output = session.run({"input": image(batch)})["output"]
        np.testing.assert_allclose(output, expected(image(batch), tiny_onnx), atol=1e-6)


def test_memory_grows_with_the_shapes_and_is_kept_for_the_same(world, opened):
    session = opened("conv", **OPEN)
    for batch in (2, 2, 1):
        session.run({"input": image(batch)})
    assert world.cuda.calls.count("cudaMalloc") == 2
    session.run({"input": image(4)})
    assert world.cuda.calls.count("cudaMalloc") == 4
    assert len([taken for taken in world.cuda.live.values() if isinstance(taken, tuple)]) == 4


@pytest.mark.parametrize("batch", [5, 64])
def test_a_shape_outside_the_profile_is_told_with_its_range(world, opened, batch):
    session = opened("conv", **OPEN)
    with pytest.raises(FeedError, match="outside of the engine's optimisation profile") as caught:
        session.run({"input": image(batch)})
    assert caught.value.found == [batch, 3, 8, 8]
    assert caught.value.allowed == "[1, 3, 8, 8] to [4, 3, 8, 8]"
    assert session.run({"input": image(4)})["output"].shape == (4, 4, 8, 8)


def test_an_artifact_may_fix_what_the_plan_leaves_open(world, opened, tiny_onnx):
    fixed = [
        TensorSpec(name=n, dtype="float32", shape=s) for n, s in (("input", (2, 3, 8, 8)), ("output", (2, 4, 8, 8)))
    ]
    session = opened("conv", **OPEN, inputs=fixed[:1], outputs=fixed[1:])
    assert session.facts["cuda_graph"] == "captured"
    np.testing.assert_allclose(session.run({"input": image()})["output"], expected(image(), tiny_onnx), atol=1e-6)


def test_outputs_whose_size_the_data_decides(world, opened):
    world.dims_at_enqueue = True
    session = opened(NONZERO)
    assert session.facts["cuda_graph"] == "not used: shapes depend on the data"
    for given in ([0, 1, 0, 1, 1, 0], [0] * 6, [1] * 6, [1, 0, 0, 0, 0, 0]):
        output = session.run({"input": np.array(given, np.float32)})["output"]
        np.testing.assert_array_equal(output, [np.flatnonzero(given)])
        assert output.dtype == np.int64


def test_no_memory_for_an_output_whose_size_the_data_decides(world, opened):
    world.dims_at_enqueue = True
    session = opened(NONZERO)  # which runs zeros once: nothing is picked
    world.cuda.fail["cudaMalloc"] = ("cudaErrorMemoryAllocation", world.cuda.calls.count("cudaMalloc"))
    with pytest.raises(EngineError, match=r"out of GPU memory: CUDA could not take 0\.0 MB for 'output'"):
        session.run({"input": np.ones(6, np.float32)})
    assert session.run({"input": np.ones(6, np.float32)})["output"].shape == (1, 6)


def test_shapes_given_as_a_tensor_are_read_on_the_host(world, opened):
    world.on_host = ("shape",)
    session = opened(RESHAPED)
    data = np.arange(12, dtype=np.float32).reshape(2, 6)
    for shape in ((3, 4), (12, 1), (3, 4)):
        output = session.run({"input": data, "shape": np.array(shape)})["output"]
        np.testing.assert_array_equal(output, data.reshape(shape))


def test_outputs_belong_to_the_caller(world, opened):
    session = opened()
    first = session.run({"input": image(seed=1)})["output"]
    kept = first.copy()
    session.run({"input": image(seed=2)})
    session.close()
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("make", [lambda x: x[::-1], np.asfortranarray], ids=["reversed", "fortran"])
def test_arrays_that_are_not_contiguous_are_read_right(world, opened, tiny_onnx, make):
    output = opened().run({"input": make(image())})["output"]
    np.testing.assert_allclose(output, expected(np.ascontiguousarray(make(image())), tiny_onnx), atol=1e-6)


@pytest.mark.parametrize(
    ("feeds", "match"),
    [
        ({}, "input 'input' is missing"),
        ({"inptu": image()}, "unknown input 'inptu'"),
        ({"input": image().astype(np.float64)}, "wrong dtype"),
        ({"input": image(3)}, "wrong shape"),
    ],
)
def test_wrong_feeds_are_refused_before_the_gpu_is_asked(world, opened, feeds, match):
    session = opened()
    calls = len(world.cuda.calls)
    with pytest.raises(FeedError, match=match):
        session.run(feeds)
    assert len(world.cuda.calls) == calls
    assert session.run({"input": image()})["output"].shape == (2, 4, 8, 8)


def test_a_plan_of_another_model_than_declared_is_refused(world, opened):
    other = (TensorSpec(name="input", dtype="float16", shape=(2, 3, 8, 8)),)
    with pytest.raises(EngineError, match="its inputs are not the ones the artifact declares"):
        opened(inputs=other)


def test_placement_is_the_engines_record_with_the_time_of_every_layer(world, opened):
    session = opened("five_convs", profile={"input": ((1, 3, 16, 16),) * 3})
    placement = session.placement()
    assert placement.device == "Fake GPU, compute capability 8.7"
    assert len([node for node in placement.nodes if node.compute]) == 5
    assert {node.time_us for node in placement.nodes} == {125.0}
    assert placement.share("fp32") == 1.0
    assert session.run({"input": np.ones((1, 3, 16, 16), np.float32)})["output"].shape == (1, 8, 16, 16)


def test_a_closed_session_says_so(world, opened):
    session = opened()
    session.close()
    session.close()
    for ask in (lambda: session.run({"input": image()}), session.placement):
        with pytest.raises(EngineError, match="this tensorrt session is closed"):
            ask()


def test_a_session_that_nobody_holds_gives_all_back(world, opened, tiny_onnx, tmp_path):
    plan = tmp_path / "plan"
    proto = tiny_onnx("conv_batch2")
    plan.write_bytes(built(proto, tmp_path))
    session = open_built(plan, {}, onnx_specs(proto.graph.input), onnx_specs(proto.graph.output))
    session.run({"input": image()})
    assert world.cuda.live
    del session
    gc.collect()
    assert world.cuda.live == {}


CALLS = [
    *("cudaGetDeviceCount", "cudaGetDevice", "cudaGetDeviceProperties", "cudaMemGetInfo", "cudaDriverGetVersion"),
    *("cudaRuntimeGetVersion", "cudaStreamCreateWithFlags", "cudaEventCreate", "cudaHostAlloc", "cudaMalloc"),
    *("cudaMemcpyAsync", "cudaEventRecord", "cudaStreamSynchronize", "cudaStreamBeginCapture"),
]


MORE_THAN_ONCE = CALLS[7:12]


@pytest.mark.parametrize(("call", "at"), [*((call, 0) for call in CALLS), *((call, 1) for call in MORE_THAN_ONCE)])
def test_a_call_that_fails_while_opening_is_told_and_leaves_nothing(world, opened, call, at):
    opened().close()
    made = world.cuda.calls.count(call)
    world.cuda.fail[call] = ("cudaErrorLaunchFailure", made + at)
    with pytest.raises(EngineError, match=rf"CUDA could not .*\n.*{call} answered cudaErrorLaunchFailure \(719\)"):
        opened()
    assert world.cuda.live == {}


@pytest.mark.parametrize("call", ["cudaStreamEndCapture", "cudaGraphInstantiate"])
def test_a_graph_that_cannot_be_made_is_done_without(world, opened, tiny_onnx, call):
    world.cuda.fail[call] = ("cudaErrorMemoryAllocation", 0)
    session = opened()
    assert "out of GPU memory" in session.facts["cuda_graph"]
    np.testing.assert_allclose(session.run({"input": image()})["output"], expected(image(), tiny_onnx), atol=1e-6)


RUN_CALLS = ["cudaMemcpyAsync", "cudaEventRecord", "cudaGraphLaunch", "cudaStreamSynchronize", "cudaEventElapsedTime"]


@pytest.mark.parametrize("call", RUN_CALLS)
def test_a_call_that_fails_while_running_is_told_and_the_next_query_runs(world, opened, tiny_onnx, call):
    session = opened()
    world.cuda.fail[call] = ("cudaErrorIllegalAddress", world.cuda.calls.count(call))

    def timed_query():
        session.run({"input": image()})
        session.engine_ns()

    with pytest.raises(EngineError, match=f"{call} answered cudaErrorIllegalAddress"):
        timed_query()
    np.testing.assert_allclose(session.run({"input": image()})["output"], expected(image(), tiny_onnx), atol=1e-6)


@pytest.mark.parametrize(
    "call",
    ["cudaFree", "cudaFreeHost", "cudaEventDestroy", "cudaStreamDestroy", "cudaGraphDestroy", "cudaGraphExecDestroy"],
)
def test_what_cuda_does_not_take_back_is_told_after_all_else_is_given_back(world, opened, call):
    session = opened()
    world.cuda.fail[call] = ("cudaErrorLaunchFailure", 0)
    with pytest.raises(EngineError, match=f"{call} answered cudaErrorLaunchFailure"):
        session.close()
    assert len(world.cuda.live) == 1  # the one
    world.cuda.live.clear()
    session.close()


def test_every_call_is_made_to_fail_somewhere(world, opened):
    session = opened("conv", **OPEN)
    session.run({"input": image()})
    opened().engine_ns()
    injected = {*CALLS, *RUN_CALLS, "cudaStreamEndCapture", "cudaGraphInstantiate"}
    assert set(world.cuda.calls) <= injected


def test_a_device_out_of_memory_says_what_was_asked_and_what_is_free(world, opened):
    world.cuda.free_mb = 0
    with pytest.raises(
        EngineError, match=r"out of GPU memory: CUDA could not pin 0\.0 MB of the host's memory"
    ) as caught:
        opened()
    assert "0 of 8000 MB are free" in caught.value.found
    assert "smaller batch" in caught.value.fix


def test_no_memory_for_the_engines_own_tensors(world, opened):
    world.context_memory = False
    with pytest.raises(
        EngineError, match=r"out of GPU memory: tensorrt could not make room to run model\.onnx"
    ) as caught:
        opened()
    assert "1 MB asked, 6000 of 8000 MB are free" in caught.value.found
    assert "OutOfMemory" in caught.value.found


def test_no_gpu(world, opened):
    world.cuda.devices = 0
    with pytest.raises(EngineMissing, match="CUDA has no GPU to work with"):
        opened()


def test_a_plan_of_another_version_is_told(world, opened, tmp_path, tiny_onnx, monkeypatch):
    proto = tiny_onnx("conv_batch2")
    plan = tmp_path / "plan"
    plan.write_bytes(built(proto, tmp_path))
    world.version = "10.9.0"
    with pytest.raises(EngineError, match="it was built for another TensorRT version or GPU") as caught:
        open_built(plan, {}, onnx_specs(proto.graph.input), onnx_specs(proto.graph.output))
    assert "10.9.0" in caught.value.found


@pytest.mark.parametrize("found", ["8.6.1", "9.3.0", "10.2.0", "12.0.1"])
def test_a_version_that_does_not_do_is_told_before_anything_is_done(monkeypatch, tmp_path, found):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr("importlib.metadata.version", lambda name: found)
    monkeypatch.setattr(tensorrt, "_GPUS", (tmp_path,))
    assert f"TensorRT {found} is too" in tensorrt.missing()
    assert "upgrade" in tensorrt.missing()


def test_the_cuda_graph_option_is_true_or_false(world, opened):
    with pytest.raises(EngineError, match="option 'cuda_graph' has the wrong type"):
        opened(options={"cuda_graph": "yes"})
