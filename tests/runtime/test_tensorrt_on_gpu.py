"""Real plans on a real GPU: ``pytest -m gpu``. Elsewhere every test is skipped and says why.

What ONNX Runtime computes on the CPU is what a plan must compute; nothing here asserts on a time.
"""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from fake_line import fp32_artifact, make_samples, references_of

from edgekit import runtime
from edgekit.artifact import hash_files, load_artifact, save_artifact
from edgekit.errors import EngineError, FeedError
from edgekit.runtime import tensorrt
from edgekit.runtime.numbers import snr_db

REASON = tensorrt.missing()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(REASON is not None, reason=f"TensorRT cannot run here: {REASON}")]

RANGE = {"profile_min": "input:1x3x8x8", "profile_opt": "input:2x3x8x8", "profile_max": "input:4x3x8x8"}
NONZERO = """picked (float[6] input) => (int64[1, "found"] output) { output = NonZero(input) }"""
LINEAR = """<ir_version: 9, opset_import: ["" : 20]>
linear (float["batch", 4] input) => (float["batch", 3] logits)
    <float[4, 3] w = {0.5, -1, 2, 1, 0.25, -0.5, 3, 1, -2, 0.1, 0.2, 0.3}> { logits = MatMul(input, w) }"""


@pytest.fixture(autouse=True)
def _cache(monkeypatch, tmp_path):
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def opened(tiny_artifact):
    """Opens a tiny model on TensorRT and on ONNX Runtime's CPU provider."""
    sessions = []

    def open_(model, precision="fp32", **options):
        artifact = tiny_artifact(model, "tensorrt", precision=precision)
        artifact = dataclasses.replace(artifact, options={"precision": precision, **options})
        cpu = dataclasses.replace(artifact, engine="onnxruntime", options={})
        sessions.extend([runtime.open_artifact(artifact), runtime.open_artifact(cpu)])
        return sessions[-2:]

    yield open_
    for session in sessions:
        session.close()


def feeds_of(session, seed=0, **sizes):
    rng = np.random.default_rng(seed)
    shapes = {spec.name: [sizes.get(d, 1) if isinstance(d, str) else d for d in spec.shape] for spec in session.inputs}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def worst_db(gpu, cpu, feeds):
    expected = cpu.run(feeds)
    return min(snr_db(expected[name], array) for name, array in gpu.run(feeds).items())


def test_the_gpu_tells_its_facts():
    from edgekit.runtime.cuda import gpu

    found = gpu()
    assert found.name
    assert found.compute_capability.count(".") == 1
    assert 0 < found.free_mb <= found.memory_mb


def test_fp32_is_what_the_cpu_computes_and_the_graph_is_captured(opened):
    gpu, cpu = opened("conv_batch2")
    assert gpu.facts["cuda_graph"] == "captured"
    for seed in range(3):
        assert worst_db(gpu, cpu, feeds_of(gpu, seed)) > 90
    assert gpu.engine_ns() > 0


def test_it_computes_the_same_without_a_graph(opened):
    gpu, cpu = opened("conv_batch2", cuda_graph=False)
    assert gpu.facts["cuda_graph"] == "not used: the option cuda_graph is false"
    assert worst_db(gpu, cpu, feeds_of(gpu)) > 90


def test_int8_runs_in_int8(opened):
    gpu, cpu = opened("chain_int8", precision="int8")
    assert worst_db(gpu, cpu, feeds_of(gpu)) > 30
    assert gpu.placement().share("int8") == 1.0


def test_open_shapes(opened):
    gpu, cpu = opened("conv", **RANGE)
    for batch in (1, 4, 2):
        assert worst_db(gpu, cpu, feeds_of(gpu, batch=batch)) > 90
    with pytest.raises(FeedError, match="outside of the engine's optimisation profile"):
        gpu.run(feeds_of(gpu, batch=5))
    assert worst_db(gpu, cpu, feeds_of(gpu, batch=3)) > 90


def test_outputs_whose_size_the_data_decides(opened):
    gpu, cpu = opened(NONZERO)
    for given in ([0, 1, 0, 1, 1, 0], [0] * 6, [1] * 6):
        feeds = {"input": np.array(given, np.float32)}
        np.testing.assert_array_equal(gpu.run(feeds)["output"], cpu.run(feeds)["output"])


def test_placement_names_the_convolutions(opened):
    gpu, _ = opened(
        "five_convs", **{key: f"input:{batch}x3x16x16" for key, batch in zip(RANGE, (1, 1, 2), strict=True)}
    )
    placement = gpu.placement()
    assert placement.device
    assert any(node.compute for node in placement.nodes)
    assert sum(node.time_us or 0 for node in placement.nodes) > 0


def test_opening_and_closing_leaves_no_memory_behind(tiny_artifact):
    from edgekit.runtime.cuda import gpu

    artifact = tiny_artifact("conv_batch2", "tensorrt")
    free = []
    for _ in range(12):
        session = runtime.open_artifact(artifact)
        session.run(feeds_of(session))
        session.close()
        free.append(gpu().free_mb)
    assert free[-1] >= free[2] - 8


def test_more_memory_than_there_is_is_told():
    from edgekit.runtime.cuda import Cuda

    with pytest.raises(EngineError, match="out of GPU memory"):
        Cuda().take("cudaMalloc", 1 << 46, release="cudaFree", doing="take 70 TB")


def test_a_bundle_is_built_verified_and_built_no_more(tmp_path, monkeypatch):
    from edgekit.backends import load_backend
    from edgekit.bundle import BundleFacts, make_golden, write_bundle
    from edgekit.catalog import load_target
    from edgekit.quantization.schemes import plan_of
    from edgekit.runtime import tensorrt_plans

    model = fp32_artifact(tmp_path / "model", LINEAR)
    samples = make_samples(40)
    cpu = runtime.open_artifact(dataclasses.replace(model, engine="onnxruntime"))
    student = cpu.run(samples.tensors(np.arange(40)))
    references = dataclasses.replace(references_of(samples), student=student, teacher=student)
    built = load_backend("tensorrt").compile(model, load_target("nvidia-l4"), 1, tmp_path / "built")
    facts = BundleFacts(
        name="linear",
        target="nvidia-l4",
        plan=plan_of("tensorrt", "fp32"),
        batch=1,
        preprocessing=None,
        labels=(),
        parents=(),
        accuracy={},
        timings={},
    )
    write_bundle(built, make_golden(built, references, samples, 1), facts, tmp_path / "bundle")
    assert runtime.verify_bundle(tmp_path / "bundle").passed
    monkeypatch.setattr(tensorrt_plans, "build_plan", lambda *args: pytest.fail("it was built again"))
    assert runtime.verify_bundle(tmp_path / "bundle").passed


def test_the_profiler_reads_both_clocks(tiny_artifact):
    from edgekit.profiling.load import LoadSpec
    from edgekit.profiling.measure import measure

    artifact = tiny_artifact("conv_batch2", "tensorrt")
    load = LoadSpec(batch=2, min_seconds=0.2, min_count=60, percentiles=(50.0,), cold_loads=1)
    feeds = {"input": np.random.default_rng(0).normal(size=(8, 3, 8, 8)).astype(np.float32)}
    measured = measure(artifact, load, feeds)
    assert measured.status == "ok", measured.reason
    assert (measured.engine_ms > 0).all()
    assert (measured.application_ms > measured.engine_ms).all(), "the GPU's time is part of a query's"


def test_a_plan_built_by_another_process_is_taken(tiny_artifact):
    artifact = save_artifact(tiny_artifact("conv_batch2", "tensorrt"))
    lines = ("import sys", "from pathlib import Path", "from edgekit import runtime")
    lines += ("from edgekit.artifact import load_artifact", "runtime.get_ready(load_artifact(Path(sys.argv[1])))")
    code = "\n".join(lines)
    subprocess.run([sys.executable, "-c", code, str(artifact.folder)], check=True, timeout=280)
    again = load_artifact(artifact.folder)
    assert again.files == hash_files(artifact.folder, ["model.onnx"])
    session = runtime.open_artifact(again)
    assert session.run(feeds_of(session))["output"].shape == (2, 4, 8, 8)
    session.close()


def test_onnx_runtimes_cuda_provider_computes_in_true_fp32(tiny_artifact):
    from edgekit.runtime.onnxruntime import lacks_provider

    options = {"provider": "CUDAExecutionProvider"}
    if lacks_provider(options):
        pytest.skip("this build of onnxruntime has no CUDA provider: pip install onnxruntime-gpu")
    gpu = runtime.open_artifact(tiny_artifact("conv_batch2", **options))
    cpu = runtime.open_artifact(tiny_artifact("conv_batch2"))
    assert worst_db(gpu, cpu, feeds_of(gpu)) > 90
    assert gpu.placement().device == "CUDAExecutionProvider"
