"""The steps from a model to measured latencies, each a folder keyed by what it depends on."""

from __future__ import annotations

import hashlib
import importlib.metadata
import shutil
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgekit import __version__
from edgekit.artifact import Array, Artifact, load_artifact, save_artifact, to_json
from edgekit.backends import load_backend
from edgekit.backends.in_graph import put_in_graph
from edgekit.bundle import BundleFacts, make_golden, write_bundle
from edgekit.data import Samples
from edgekit.errors import DataError, DeviceError
from edgekit.places import build_of, host_of
from edgekit.processing import raw_spec
from edgekit.profiling.host import this_host
from edgekit.profiling.load import LoadSpec
from edgekit.profiling.measure import measure_in_turns
from edgekit.profiling.measured import Measured, load_measured, save_measured
from edgekit.progress import Progress
from edgekit.quantization.forecast import forecast
from edgekit.quantization.schemes import Plan
from edgekit.runtime import engine_version, missing
from edgekit.runtime.bundle import artifact_of
from edgekit.runtime.manifest import read_manifest
from edgekit.steps import run_step

if TYPE_CHECKING:
    from torch.fx import GraphModule
    from torch.nn import Module

    from edgekit.candidate import Task

FEED_SAMPLES = 64
# What a target is called and how fast it might be changes nothing of what is built for it.
_NOT_BUILT_IN = ("name", "description", "peak_gops", "bandwidth_gb_s")
CALIBRATION_FIX = "give data in the recipe, or --calibration DATA, or use --precision fp32"
CACHE = "cache"


def hash_array(array: Array) -> str:
    """sha256 of an array's dtype, shape and values, as 64 hex digits."""
    digest = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def compile_step(artifact: Artifact, engine: str, task: Task, out: Path) -> Artifact:
    """Compiles an artifact for the task's target and batch, with what its graph is to do; a step like every other.

    Raises:
        EdgeKitError: The engine cannot compile it.
    """
    backend, batch = load_backend(engine), task.profile.load.batch
    key = {
        "parent": artifact.sha256,
        "engine": _version(engine),
        "target": {name: value for name, value in task.target if name not in _NOT_BUILT_IN},
        "batch": batch,
    }
    graph = task.in_graph
    if graph is None:
        return _artifact_step(out, "compile", key, lambda folder: backend.compile(artifact, task.target, batch, folder))
    raw = raw_spec(task.test, graph, batch)

    def make(folder: Path) -> Artifact:
        plain = backend.compile(artifact, task.target, batch, folder / "plain")
        made = put_in_graph(plain, graph, raw, folder)
        shutil.rmtree(folder / "plain")
        return made

    return _artifact_step(out, "compile", key | {"in_graph": graph, "raw": raw}, make)


def export(module: Module, samples: Samples, out: Path) -> Artifact:
    """Crosses from torch to ONNX with two real samples as the example; a step like every other."""
    from edgekit.conversion.onnx_export import OPSET, to_onnx
    from edgekit.models import class_sources, state_hash

    example = _example(samples)
    key = {
        "module": state_hash(module),
        "sources": class_sources(module),
        "tools": tool_versions("torch", "onnx", "onnxscript"),
        "opset": OPSET,
        "inputs": _shapes(example),
    }
    return _artifact_step(out, "export", key, lambda folder: to_onnx(module, example, folder))


def export_trained(module: GraphModule, sha256: str, samples: Samples, out: Path) -> Artifact:
    """Crosses from a network that was trained in int8 to ONNX with Q/DQ; a step like every other.

    Args:
        module: As of :func:`edgekit.qat.preparing.prepare_qat`.
        sha256: What identifies it, its weights included.
        samples: Two of them are the example.
        out: Root of the step folders.
    """
    from edgekit.conversion.onnx_export import OPSET
    from edgekit.qat.exporting import export_qat

    example = _example(samples)
    key = {
        "module": sha256,
        "tools": tool_versions("torch", "onnx", "onnxscript", "onnxruntime"),
        "opset": OPSET,
        "inputs": _shapes(example),
    }
    return _artifact_step(out, "export-int8", key, lambda folder: export_qat(module, example, folder))


def _example(samples: Samples) -> dict[str, Array]:
    """Two real samples, or one twice."""
    example = samples.tensors(np.arange(min(2, len(samples))))
    if len(samples) < 2:
        example = {name: np.concatenate([array, array]) for name, array in example.items()}
    return dict(example)


def _shapes(example: Mapping[str, Array]) -> dict[str, list[object]]:
    return {name: [str(array.dtype), *array.shape] for name, array in example.items()}


def quantize_step(fp32: Artifact, plan: Plan, task: Task, out: Path) -> Artifact:
    """Turns a model into a plan's precision; a step like every other. What serves every plan is kept in a cache beside.

    Raises:
        DataError: The plan needs calibration samples and there are none, or they do not fit.
        EdgeKitError: The engine cannot make it.
    """
    calibration = task.calibration
    if calibration is None and plan.needs_samples:
        raise DataError(f"{plan}: int8 needs calibration samples", found="no data", fix=CALIBRATION_FIX)
    backend = load_backend(plan.engine)
    fixed = [spec.shape[0] for spec in fp32.inputs if spec.shape and isinstance(spec.shape[0], int)]
    size = max(fixed, default=1)
    key = {
        "parent": fp32.sha256,
        "engine": _version(plan.engine),
        "tools": tool_versions("onnx", "nncf"),
        "plan": plan,
        "calibration": calibration.fingerprint() if calibration else None,
        "batch": size,
    }
    batches = calibration.batches(size) if calibration else None
    step, cache = f"quantise for {plan.engine}", out / CACHE

    def make(folder: Path) -> Artifact:
        # Once a run: its plans differ by little, and the next ones find the ranges that this one collects.
        note = "" if cache.exists() else str(forecast(fp32, batches, plan))
        task.progress(step, 0, 1, note or str(plan))
        return backend.quantize(fp32, batches, plan, folder, cache=cache)

    made = _artifact_step(out, "quantize", key, make)
    task.progress(step, 1, 1)
    return made


def measure_step(artifacts: Sequence[Artifact], task: Task, out: Path, load: LoadSpec | None = None) -> list[Measured]:
    """Measures artifacts in turns; a step of its own, kept only when every one was measured.

    Args:
        artifacts: What is measured.
        task: Its target, profile and samples.
        out: Root of the step folders.
        load: How they are driven; None: as the profile says.

    Returns:
        One result an artifact, in order. Where the device that measures is lost, all say so.
    """
    load = load or task.profile.load_spec()
    feeds = measuring_feeds(task.test, load.batch)
    key = {
        "artifacts": [a.sha256 for a in artifacts],
        "load": load,
        "feeds": {name: hash_array(array) for name, array in feeds.items()},
        "host": this_host() if task.place is None else task.place.host,
        "engines": sorted({f"{a.engine} {build_of(task.place, a.engine)}" for a in artifacts}),
        "in_numpy": task.in_numpy,
        "edgekit": __version__,
        **({} if task.place is None else {"device": task.place.name}),  # of two boards of a kind each is its own
    }

    def make(folder: Path) -> None:
        measure = measure_in_turns if task.place is None else task.place.measure
        around = [task.in_numpy] * len(artifacts)
        results = measure(artifacts, load, feeds, in_numpy=around, progress=_progress_of(task))
        for i, result in enumerate(results):
            save_measured(result, folder / str(i))

    try:
        folder = run_step(out, "measure", key, make)
    except DeviceError as exc:
        return [_lost(artifact, task, str(exc)) for artifact in artifacts]
    results = [load_measured(folder / str(i)) for i in range(len(artifacts))]
    if any(result.status != "ok" for result in results):
        shutil.rmtree(folder)  # what crashed for want of memory may do well next time
    return results


def _progress_of(task: Task) -> Progress:
    """The task's progress; of a device with its name before each step."""
    place = task.place
    if place is None:
        return task.progress

    def named(step: str, done: int, total: int, note: str = "") -> None:
        task.progress(f"{place.name}: {step}", done, total, note)

    return named


def _lost(artifact: Artifact, task: Task, reason: str) -> Measured:
    return Measured(
        status="failed",
        reason=reason,
        artifact_sha256=artifact.sha256,
        size_mb=artifact.size_bytes / 1e6,
        host=host_of(task.place),
        started_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )


def golden_step(artifact: Artifact, plan: Plan, task: Task, out: Path) -> Artifact:
    """Puts an artifact into a bundle with golden samples, so that a device can prove its numbers before it times them.

    It is no bundle that ships: it says nothing of its teacher, and no verdict.

    Args:
        artifact: A compiled artifact.
        plan: How it was made.
        task: Its target, samples and references.
        out: Root of the step folders.

    Returns:
        The artifact in the bundle's folder.
    """
    facts = BundleFacts(
        name=task.target.name,
        target=task.target.name,
        plan=plan,
        batch=task.profile.load.batch,
        preprocessing=task.test.preprocessing,
        labels=(),
        parents=(),
        accuracy={},
        timings={},
    )
    key = {
        "edgekit": __version__,
        "artifact": artifact.sha256,
        "facts": facts,
        "samples": task.test.fingerprint(),
        "references": {name: hash_array(array) for name, array in task.references.student.items()},
    }

    def make(folder: Path) -> None:
        write_bundle(artifact, make_golden(artifact, task.references, task.test, facts.batch), facts, folder / "bundle")

    folder = run_step(out, "golden", to_json(key), make) / "bundle"
    return artifact_of(folder, read_manifest(folder))


def measuring_feeds(samples: Samples, batch: int) -> dict[str, Array]:
    """Samples that queries rotate over, raw where they are preprocessed: evenly spread, a multiple of the batch."""
    count = -(-min(FEED_SAMPLES, len(samples)) // batch) * batch
    indices = np.linspace(0, len(samples) - 1, num=count).astype(np.int64)
    feeds = samples.tensors(indices)
    if samples.preprocessing is not None:
        feeds[samples.preprocessing.input] = samples.raw(indices)[samples.preprocessing.input]
    return feeds


def _artifact_step(out: Path, name: str, key: object, make: Callable[[Path], Artifact]) -> Artifact:
    def fill(folder: Path) -> None:
        save_artifact(make(folder))

    return load_artifact(run_step(out, name, {"edgekit": __version__} | to_json(key), fill))


def tool_versions(*distributions: str) -> dict[str, str | None]:
    """Versions of the distributions that make a step's files; None where one is not installed."""

    def version(name: str) -> str | None:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return None

    return {name: version(name) for name in distributions}


def _version(engine: str) -> str:
    return f"{engine} {engine_version(engine)}" if missing(engine) is None else f"{engine} (not installed)"
