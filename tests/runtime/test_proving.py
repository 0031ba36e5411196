"""The golden check of a plan that was built on this device."""

import importlib
import json
from dataclasses import replace

import numpy as np
import pytest
from tensorrt_machine import FP32, break_plan, machine_fixture, model_fixture  # noqa: F401  # fixtures

from edgekit import runtime
from edgekit.artifact import ARTIFACT_FILE, GOLDEN_FILE, Golden, Manifest, bundle_id, hash_files, write_json
from edgekit.errors import EngineError
from edgekit.runtime import onnxruntime, tensorrt_plans
from edgekit.runtime.golden import asked_db, verify_bundle
from edgekit.runtime.tensorrt_plans import plan_for


class PlanSession:
    """Runs a fake plan; what the golden check sees of a session is its ``plan``."""

    def __init__(self, plan, model, inputs, outputs):
        self.plan, self.inputs, self.outputs = plan, inputs, outputs
        self._scale = np.float32(json.loads(plan.read_bytes().split(b"\n")[1])["scale"])
        self._session = onnxruntime.load(model, {"intra_op_num_threads": 1}, inputs, outputs)
        self.runs = 0

    def run(self, feeds):
        self.runs += 1
        return {name: array * self._scale for name, array in self._session.run(feeds).items()}

    def close(self):
        self._session.close()


@pytest.fixture
def bundle(machine, model, tmp_path, tiny_artifact, monkeypatch):
    """A bundle for TensorRT whose golden outputs were recorded by ONNX Runtime."""
    engine = importlib.import_module("edgekit.runtime.tensorrt")
    monkeypatch.setattr(engine, "missing", lambda: None)
    monkeypatch.setattr(engine, "version", lambda: machine.world.version)
    monkeypatch.setattr(
        engine,
        "load",
        lambda model, options, inputs, outputs: PlanSession(plan_for(model, options), model, inputs, outputs),
    )
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


def opened(folder):
    with runtime.open_bundle(folder) as found:
        return found.session.runs, found.session.plan


def test_the_golden_outputs_of_a_new_plan_are_checked_once(machine, bundle):
    runs, plan = opened(bundle)
    assert runs == 2  # four samples in batches of two
    assert opened(bundle) == (0, plan)
    assert machine.world.builds == 1


def test_they_are_checked_again_after_a_rebuild(machine, bundle):
    _, first = opened(bundle)
    machine.now(driver="560.1")
    runs, second = opened(bundle)
    assert runs == 2
    assert second != first
    assert not first.exists()  # replaced by one that was proven
    break_plan(second)
    assert opened(bundle) == (2, second)


def test_a_new_plan_with_wrong_outputs_is_refused_for_good(machine, bundle):
    machine.world.output_scale = 1.01
    for _ in range(2):
        with pytest.raises(
            EngineError, match=r"(?s)gives wrong outputs.*40\.0 dB, at least 90\.0 asked: FAILED.*remove"
        ):
            runtime.open_bundle(bundle)
    assert machine.world.builds == 1


def test_a_rebuilt_plan_with_wrong_outputs_gives_way_to_the_last_working_one(machine, bundle):
    _, first = opened(bundle)
    machine.now(driver="560.1")
    machine.world.output_scale = 1.01
    with pytest.warns(RuntimeWarning, match=r"(?s)earlier driver is used.*wrong outputs"):
        assert opened(bundle) == (2, first)  # checked under the new driver
    with pytest.warns(RuntimeWarning, match="earlier driver is used"):
        assert opened(bundle) == (0, first)
    assert machine.world.builds == 2


def test_an_engine_that_fails_on_a_golden_sample_leaves_the_bundle_closed(machine, bundle, monkeypatch):
    closed = []
    monkeypatch.setattr(PlanSession, "run", lambda self, feeds: (_ for _ in ()).throw(EngineError("it broke")))
    monkeypatch.setattr(PlanSession, "close", lambda self: closed.append(True))
    with pytest.raises(EngineError, match="it broke"):
        runtime.open_bundle(bundle)
    assert closed == [True]


def test_a_cache_that_cannot_be_written_to_any_more_still_serves(machine, bundle, monkeypatch):
    _, plan = opened(bundle)
    record = json.loads(plan.with_name("plan.json").read_text())
    write_json(plan.with_name("plan.json"), record | {"proven": []})

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tensorrt_plans, "_write_record", refuse)
    assert opened(bundle) == (2, plan)
    assert opened(bundle) == (2, plan)
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
