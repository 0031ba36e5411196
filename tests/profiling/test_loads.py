from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.artifact import Array, Artifact
from edgekit.profiling import loads, worker
from edgekit.profiling.child import Failure
from edgekit.profiling.job import Job, write_job
from edgekit.profiling.load import LoadSpec
from edgekit.profiling.loads import Loads, load_again
from edgekit.profiling.measure import measure
from edgekit.runtime import from_cache, open_artifact, with_cache, without_cache

MakeArtifact = Callable[..., Artifact]
COMMAND = [sys.executable, "-m", "edgekit.profiling", "--load"]


def job_of(folder: Path, artifact: Artifact, feeds: dict[str, Array], **load: Any) -> Job:
    spec = LoadSpec(min_seconds=0.0, min_count=9, percentiles=(), **load)
    job = Job(folder=folder, artifact=artifact, load=spec, driven=True)
    write_job(job, feeds)
    return job


def test_an_artifact_is_loaded_three_times_cold(
    null_artifact: MakeArtifact, feeds: dict[str, Array], brief: LoadSpec
) -> None:
    measured = measure(null_artifact(script="[6000, 1000]"), brief, feeds)
    assert len(measured.cold_load_ms) == len(measured.first_inferences_ms) == 3
    assert measured.load_ms == max(measured.cold_load_ms)
    assert measured.first_inference_ms == max(measured.first_inferences_ms)
    assert all(ms >= 6 for ms in measured.first_inferences_ms), "each process is fresh: its first query is the first"
    assert (measured.cached_load_ms, measured.cached_load_note) == ((), None), "an engine without a cache"


def test_a_short_process_writes_its_figures(
    null_artifact: MakeArtifact, feeds: dict[str, Array], tmp_path: Path
) -> None:
    job = job_of(tmp_path / "job", null_artifact(latency_us=3000.0), feeds)
    with subprocess.Popen([*COMMAND, "cold", str(job.folder)], stdin=subprocess.PIPE) as process:
        assert process.wait(timeout=60) == 0
    found = json.loads((job.folder / "load.json").read_text())
    assert (found["reason"], found["from_cache"]) == (None, False)
    assert found["load_ms"] > 0
    assert found["first_inference_ms"] >= 3
    assert not (job.folder / "result.json").exists()


@pytest.mark.parametrize("arguments", [["warm", "JOB"], ["cold"], []])
def test_a_wrong_call_is_told(arguments: list[str]) -> None:
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: ")


def test_a_short_process_ends_with_its_parent(
    null_artifact: MakeArtifact, feeds: dict[str, Array], tmp_path: Path
) -> None:
    job = job_of(tmp_path / "job", null_artifact(hang_at=0), feeds)
    with subprocess.Popen([*COMMAND, "cold", str(job.folder)], stdin=subprocess.PIPE) as process:
        process.stdin.close()
        assert process.wait(timeout=60) == worker.PARENT_GONE


@pytest.mark.parametrize(
    ("options", "status", "reason"),
    [
        ({"bogus": 1}, "failed", "unknown null option 'bogus'"),
        ({"crash_at": 0}, "crashed", "died of SIGABRT while loading once more"),
        ({"hang_at": 0}, "hung", "no answer for 4 s while loading once more"),
        ({"nan_at": 0}, "failed", "output 'y' holds NaN or infinity"),
    ],
)
def test_a_load_that_fails_is_told(
    null_artifact: MakeArtifact,
    feeds: dict[str, Array],
    tmp_path: Path,
    options: dict[str, int],
    status: str,
    reason: str,
) -> None:
    found = load_again(job_of(tmp_path / "job", null_artifact(**options), feeds, timeout_s=4.0))
    assert isinstance(found, Failure)
    assert found.status == status
    assert reason in found.reason


def test_figures_of_an_earlier_process_are_not_taken(
    null_artifact: MakeArtifact, feeds: dict[str, Array], tmp_path: Path
) -> None:
    job = job_of(tmp_path / "job", null_artifact(crash_at=0), feeds)
    (job.folder / "load.json").write_text('{"reason": null, "load_ms": 1.0, "first_inference_ms": 1.0}')
    assert isinstance(load_again(job), Failure)


def test_no_load_begins_after_the_longest_time(
    null_artifact: MakeArtifact, feeds: dict[str, Array], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, loads.MOST_S - 1, loads.MOST_S])
    monkeypatch.setattr(loads, "perf_counter", lambda: next(clock))
    found = load_again(job_of(tmp_path / "job", null_artifact(), feeds))
    assert isinstance(found, Loads)
    assert len(found.cold_ms) == 1


def fake_loads(monkeypatch: pytest.MonkeyPatch, cached: list[dict[str, Any] | Failure]) -> list[str]:
    """Short processes that give these figures by way of the cache, and 50 ms cold; the kinds that were asked for."""
    asked: list[str] = []
    left = iter(cached)

    def load_once(job: Job, kind: str, doing: str) -> dict[str, Any] | Failure:
        asked.append(kind)
        return {"load_ms": 50.0, "first_inference_ms": 5.0} if kind == "cold" else next(left)

    monkeypatch.setattr(loads, "_load_once", load_once)
    return asked


@pytest.fixture
def cached_job(null_artifact: MakeArtifact, feeds: dict[str, Array], tmp_path: Path) -> Job:
    return job_of(tmp_path / "job", dataclasses.replace(null_artifact(), engine="openvino"), feeds)


def test_one_process_fills_the_cache_and_two_load_from_it(cached_job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = fake_loads(monkeypatch, [{"load_ms": ms, "from_cache": ms < 50} for ms in (60.0, 11.0, 12.0)])
    assert load_again(cached_job) == Loads(
        cold_ms=(50.0, 50.0), first_inferences_ms=(5.0, 5.0), cached_ms=(11.0, 12.0), cached_note=None
    )
    assert asked == ["cold", "cold", "cached", "cached", "cached"]


def test_what_was_compiled_anew_is_not_told_as_cached(cached_job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_loads(monkeypatch, [{"load_ms": 60.0, "from_cache": False}] * 3)
    found = load_again(cached_job)
    assert (found.cached_ms, found.cached_note) == ((), "openvino did not load it from its cache")
    assert found.cold_ms == (50.0, 50.0)


def test_a_cache_that_fails_is_a_note(cached_job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_loads(monkeypatch, [Failure(status="crashed", reason="died of SIGSEGV")])
    found = load_again(cached_job)
    assert (found.cached_ms, found.cached_note) == ((), "died of SIGSEGV")


def test_openvino_loads_from_its_cache(tiny_artifact: Callable[..., Artifact], tmp_path: Path) -> None:
    artifact = tiny_artifact("five_convs", "openvino", INFERENCE_NUM_THREADS=1)
    feeds = {spec.name: np.ones([2, *spec.shape[1:]], dtype=spec.dtype) for spec in artifact.inputs}
    found = load_again(job_of(tmp_path / "job", artifact, feeds))
    assert isinstance(found, Loads)
    assert (len(found.cold_ms), len(found.cached_ms), found.cached_note) == (2, 2, None)
    assert list((tmp_path / "job" / "artifact").glob("engine-cache/*.blob"))
    assert not list(artifact.folder.glob("**/*.blob")), "the artifact's own folder is left alone"


def test_an_artifact_set_to_use_a_cache_is_loaded_cold_without_it(tiny_artifact: Callable[..., Artifact]) -> None:
    artifact = tiny_artifact("conv", "openvino", CACHE_DIR="own", NUM_STREAMS=1)
    assert without_cache(artifact).options == {"NUM_STREAMS": 1}
    assert with_cache(artifact, "another").options == {"NUM_STREAMS": 1, "CACHE_DIR": "another"}
    sessions = [open_artifact(artifact), open_artifact(artifact), open_artifact(without_cache(artifact))]
    assert [from_cache(session) for session in sessions] == [False, True, False]


def test_onnx_runtime_has_no_cache(tiny_artifact: Callable[..., Artifact]) -> None:
    artifact = tiny_artifact("conv", "onnxruntime")
    assert with_cache(artifact) is None
    assert without_cache(artifact) == artifact
    assert not from_cache(open_artifact(artifact))


def test_a_cache_that_is_not_there_is_told(
    null_artifact: MakeArtifact, feeds: dict[str, Array], tmp_path: Path
) -> None:
    found = loads._load_once(job_of(tmp_path / "job", null_artifact(), feeds), "cached", "loading")
    assert isinstance(found, Failure)
    assert "engine 'null' has no cache" in found.reason
