"""The golden check of a plan that was built on this device: bundles on fakes of TensorRT and CUDA."""

import json
from dataclasses import replace

import numpy as np
import pytest
from cuda_fake import FakeCuda
from tensorrt_machine import FP32, break_plan, machine_fixture  # noqa: F401  # fixtures

from edgekit import runtime
from edgekit.artifact import ARTIFACT_FILE, GOLDEN_FILE, Golden, Manifest, bundle_id, hash_files, write_json
from edgekit.errors import EngineError
from edgekit.runtime import onnxruntime, tensorrt, tensorrt_plans
from edgekit.runtime.golden import asked_db, verify_bundle


@pytest.fixture
def bundle(machine, tiny_artifact, monkeypatch):
    """A bundle for TensorRT, on fakes of it and of CUDA; ONNX Runtime recorded its golden outputs."""
    cuda = FakeCuda()
    cuda.install(monkeypatch)
    machine.world.enqueue, machine.world.finish = cuda.enqueue, cuda.finish
    monkeypatch.setattr(tensorrt, "missing", lambda: None)
    artifact = tiny_artifact("conv_batch2", "tensorrt", **FP32)
    folder = artifact.folder
    (folder / ARTIFACT_FILE).unlink()  # a bundle has a manifest instead
    inputs = {"input": np.random.default_rng(0).normal(size=(4, 3, 8, 8)).astype(np.float32)}
    session = onnxruntime.load(artifact.path, {}, artifact.inputs, artifact.outputs)
    outputs = [session.run({"input": inputs["input"][at : at + 2]})["output"] for at in (0, 2)]
    arrays = {"input/input": inputs["input"], "reference/output": np.concatenate(outputs)}
    np.savez(folder / GOLDEN_FILE, **arrays, **{"artifact/output": arrays["reference/output"]})
    golden = Golden(
        samples=4, random=True, reference_db=300.0, floor_db=297.0, engine_version="onnxruntime 1.31.1", cpu_model="x"
    )
    manifest = Manifest(
        name="tiny",
        target="jetson-orin-nano-8gb",
        engine="tensorrt",
        engine_version="",
        precision="fp32",
        model="model.onnx",
        inputs=artifact.inputs,
        outputs=artifact.outputs,
        options=FP32,
        plan={},
        batch=2,
        preprocessing=None,
        labels=(),
        parents=(),
        files=hash_files(folder, ["model.onnx", GOLDEN_FILE]),
        golden=golden,
        accuracy={},
        edgekit_version="0",
    )
    write_json(folder / "manifest.json", replace(manifest, id=bundle_id(manifest)))
    return folder


@pytest.fixture
def opened(bundle, monkeypatch):
    """Opens and closes the bundle: gives how many queries were run on the way, and the plan it took."""
    queries = []
    run = tensorrt.TrtSession.run
    monkeypatch.setattr(tensorrt.TrtSession, "run", lambda self, feeds: queries.append(self) or run(self, feeds))

    def open_():
        queries.clear()
        with runtime.open_bundle(bundle) as found:
            return len(queries), found.session.plan

    return open_


def test_the_golden_outputs_of_a_new_plan_are_checked_once(machine, opened):
    runs, plan = opened()
    assert runs == 2  # four samples in batches of two
    assert opened() == (0, plan)
    assert machine.world.builds == 1


def test_they_are_checked_again_after_a_rebuild(machine, opened):
    _, first = opened()
    machine.now(driver="560.1")
    runs, second = opened()
    assert runs == 2
    assert second != first
    assert not first.exists()  # replaced by one that was proven
    break_plan(second)
    assert opened() == (2, second)


def test_a_new_plan_with_wrong_outputs_is_refused_for_good(machine, bundle):
    machine.world.output_scale = 1.01
    for _ in range(2):
        with pytest.raises(
            EngineError, match=r"(?s)gives wrong outputs.*40\.0 dB, at least 90\.0 asked: FAILED.*remove"
        ):
            runtime.open_bundle(bundle)
    assert machine.world.builds == 1


def test_a_rebuilt_plan_with_wrong_outputs_gives_way_to_the_last_working_one(machine, opened):
    _, first = opened()
    machine.now(driver="560.1")
    machine.world.output_scale = 1.01
    with pytest.warns(RuntimeWarning, match=r"(?s)earlier driver is used.*wrong outputs"):
        assert opened() == (4, first)  # both were checked under the new driver
    with pytest.warns(RuntimeWarning, match="earlier driver is used"):
        assert opened() == (0, first)
    assert machine.world.builds == 2


def test_an_engine_that_fails_on_a_golden_sample_leaves_the_bundle_closed(machine, bundle, monkeypatch):
    closed = []

    def broken(self, feeds):
        raise EngineError("it broke")

    close = tensorrt.TrtSession.close
    monkeypatch.setattr(tensorrt.TrtSession, "run", broken)
    monkeypatch.setattr(tensorrt.TrtSession, "close", lambda self: closed.append(True) or close(self))
    with pytest.raises(EngineError, match="it broke"):
        runtime.open_bundle(bundle)
    assert closed == [True]


def test_a_cache_that_cannot_be_written_to_any_more_still_serves(machine, opened, monkeypatch):
    _, plan = opened()
    record = json.loads(plan.with_name("plan.json").read_text())
    write_json(plan.with_name("plan.json"), record | {"proven": []})

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tensorrt_plans, "_write_record", refuse)
    assert opened() == (2, plan)
    assert opened() == (2, plan)
    with pytest.raises(EngineError, match="cannot be kept there"):
        tensorrt_plans.refuse(plan, "wrong")


def test_what_another_engine_recorded_asks_for_no_more_than_the_precision_keeps(machine, bundle):
    with runtime.open_bundle(bundle) as found:
        manifest = found.manifest
    assert asked_db(manifest) == 90.0
    assert asked_db(replace(manifest, precision="fp16")) == 35.0
    assert asked_db(replace(manifest, precision="int8")) == 297.0
    assert asked_db(replace(manifest, golden=replace(manifest.golden, engine_version="10.3.0"))) == 297.0
    assert verify_bundle(bundle).floor_db == 90.0
