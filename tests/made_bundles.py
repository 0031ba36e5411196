"""Whole bundles of tiny models, golden samples included, for any engine."""

import threading
from dataclasses import replace

import numpy as np
import pytest

from edgekit import runtime
from edgekit.artifact import GOLDEN_FILE, Golden, Manifest, bundle_id, hash_files, write_json
from edgekit.runtime.bundle import open_bundle
from edgekit.runtime.cpu import cpu_model
from edgekit.runtime.numbers import run_batched


@pytest.fixture
def make_bundle(tiny_artifact, tmp_path):
    """Writes a whole bundle of a tiny model, golden samples included."""

    def make(engine="onnxruntime", model="conv_batch2", preprocessing=None, **changes):
        artifact = tiny_artifact(model, engine)
        folder = tmp_path / f"bundle-{engine}-{len(list(tmp_path.iterdir()))}"
        (folder / "artifact").mkdir(parents=True)
        artifact.path.rename(folder / "artifact" / "model.onnx")
        artifact = replace(artifact, folder=folder, model="artifact/model.onnx")
        rng = np.random.default_rng(0)
        inputs = {spec.name: rng.normal(size=(4, *spec.shape[1:])).astype(spec.dtype) for spec in artifact.inputs}
        session = runtime.open_artifact(artifact)
        outputs = run_batched(session, inputs)
        session.close()
        noise = {name: array * np.float32(1 + 1e-3) for name, array in outputs.items()}
        arrays = {f"input/{k}": v for k, v in inputs.items()} | {f"artifact/{k}": v for k, v in outputs.items()}
        np.savez(folder / GOLDEN_FILE, **arrays, **{f"reference/{k}": v for k, v in noise.items()})
        manifest = Manifest(
            name="tiny",
            target="local",
            engine=engine,
            engine_version=runtime.engine_version(engine),
            precision="fp32",
            model="artifact/model.onnx",
            inputs=artifact.inputs,
            outputs=artifact.outputs,
            options={},
            plan={},
            batch=2,
            preprocessing=preprocessing,
            labels=(),
            parents=(),
            files=hash_files(folder, ["artifact/model.onnx", GOLDEN_FILE]),
            golden=Golden(
                samples=4,
                random=True,
                reference_db=60.0,
                floor_db=57.0,
                engine_version=runtime.engine_version(engine),
                cpu_model=cpu_model(),
            ),
            accuracy={},
            edgekit_version="0",
        )
        write(folder, replace(manifest, **changes))
        return folder

    return make


def write(folder, manifest):
    write_json(folder / "manifest.json", replace(manifest, id=bundle_id(manifest)))


def tensors(count):
    """Model tensors of one frame each."""
    return list(np.random.default_rng(0).normal(size=(count, 3, 8, 8)).astype(np.float32))


def one_by_one(folder, frames, batch=1, raw=False):
    """What the bundle itself gives for every frame, each in a batch of copies of it."""
    with open_bundle(folder) as bundle:
        queries = (np.stack([frame] * batch) for frame in frames)
        return [bundle.run(bundle.preprocess(q) if raw else {"input": q})["output"][0] for q in queries]


class Slowly:
    """A session that waits for leave to run: how a slow engine looks to a stream."""

    def __init__(self, session):
        self.inputs, self.outputs, self._session = session.inputs, session.outputs, session
        self.may_run, self.runs, self.closed = threading.Semaphore(0), threading.Event(), 0
        self.threads = set()

    def run(self, feeds):
        self.threads.add(threading.get_ident())
        self.runs.set()
        self.may_run.acquire()
        return self._session.run(feeds)

    def close(self):
        self.closed += 1
        self._session.close()


@pytest.fixture
def slow(make_bundle):
    """An opened bundle whose queries wait for leave."""

    def make(**changes):
        bundle = open_bundle(make_bundle(model="conv_one", batch=1, **changes))
        return replace(bundle, session=Slowly(bundle.session))

    return make
