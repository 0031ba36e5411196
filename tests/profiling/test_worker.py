from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgekit.artifact import Array, Artifact
from edgekit.profiling.job import Job, read_result, write_job
from edgekit.profiling.load import LoadSpec
from edgekit.profiling.worker import PARENT_GONE

MakeArtifact = Callable[..., Artifact]
COMMAND = [sys.executable, "-m", "edgekit.profiling"]
PATIENCE_S = 60


def make_job(folder: Path, artifact: Artifact, feeds: dict[str, Array], load: LoadSpec, *, driven: bool) -> Path:
    write_job(Job(folder=folder, artifact=artifact, load=load, driven=driven), feeds)
    return folder


def test_a_job_folder_is_self_contained(
    null_artifact: MakeArtifact, feeds: dict[str, Array], brief: LoadSpec, tmp_path: Path
) -> None:
    artifact = null_artifact(latency_us=6000.0)
    job = make_job(tmp_path / "here", artifact, feeds, brief, driven=False)
    elsewhere = tmp_path / "another" / "machine"
    elsewhere.parent.mkdir()
    shutil.move(job, elsewhere)
    shutil.rmtree(artifact.folder)
    done = subprocess.run([*COMMAND, str(elsewhere)], capture_output=True, text=True, cwd="/", timeout=PATIENCE_S)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    measured = read_result(elsewhere)
    assert measured.status == "ok"
    assert measured.turns >= 4
    assert measured.turn_sizes == (9,) * measured.turns
    raw = np.load(elsewhere / "latencies.npy")
    assert raw.dtype == np.int64
    assert raw.shape == (10 * measured.turns, 2), "every query is kept, the first of each turn too"
    assert (raw >= 6_000_000).all(), "nanoseconds"
    assert json.loads((elsewhere / "result.json").read_text())["queries"] == [10] * measured.turns
    assert not list(elsewhere.glob("*.part"))
    assert (
        str(tmp_path) not in (elsewhere / "job.json").read_text() + (elsewhere / "artifact/artifact.json").read_text()
    )


def test_on_its_own_it_holds_the_time_under_load(
    null_artifact: MakeArtifact, feeds: dict[str, Array], tmp_path: Path
) -> None:
    load = LoadSpec(min_seconds=0.5, min_count=1, percentiles=())
    job = make_job(tmp_path / "job", null_artifact(latency_us=1000.0), feeds, load, driven=False)
    subprocess.run([*COMMAND, str(job)], check=True, timeout=PATIENCE_S)
    assert np.load(job / "latencies.npy")[:, 0].sum() >= 0.5e9


def test_an_engine_that_refuses_is_told_in_the_result(
    null_artifact: MakeArtifact, feeds: dict[str, Array], brief: LoadSpec, tmp_path: Path
) -> None:
    job = make_job(tmp_path / "job", null_artifact(bogus=1), feeds, brief, driven=False)
    done = subprocess.run([*COMMAND, str(job)], capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 1
    measured = read_result(job)
    assert measured.status == "failed"
    assert "unknown null option 'bogus'" in measured.reason


def test_a_wrong_call_is_told(tmp_path: Path) -> None:
    done = subprocess.run(COMMAND, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: python -m edgekit.profiling [--load cold|cached | --verify BUNDLE/] JOB/\n")
    done = subprocess.run([*COMMAND, str(tmp_path)], capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 1
    assert "job.json: no such file" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_parent_drives_by_lines(
    null_artifact: MakeArtifact, feeds: dict[str, Array], brief: LoadSpec, tmp_path: Path
) -> None:
    job = make_job(tmp_path / "job", null_artifact(), feeds, brief, driven=True)
    told = "turn 12\nturn 3\nstop\n"
    done = subprocess.run([*COMMAND, str(job)], input=told, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0
    assert re.fullmatch(r"ready \d+\ndone\ndone\n", done.stdout)
    assert read_result(job).turn_sizes == (11, 2)


@pytest.mark.parametrize("line", ["turn", "turn x", "turn 0", "turn -3", "run 5"])
def test_nonsense_is_refused(
    null_artifact: MakeArtifact, feeds: dict[str, Array], brief: LoadSpec, tmp_path: Path, line: str
) -> None:
    job = make_job(tmp_path / "job", null_artifact(), feeds, brief, driven=True)
    with subprocess.Popen([*COMMAND, str(job)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        process.stdin.write(f"{line}\n")
        process.stdin.flush()
        assert process.stdout.readline().startswith("ready ")
        assert process.wait(timeout=PATIENCE_S) == 1
    assert "told nonsense" in read_result(job).reason


def test_what_an_engine_prints_is_no_answer(
    null_artifact: MakeArtifact, feeds: dict[str, Array], brief: LoadSpec, tmp_path: Path
) -> None:
    job = make_job(tmp_path / "job", null_artifact(), feeds, brief, driven=True)
    program = f"""
import os, pathlib
from edgekit.profiling import worker
from edgekit.runtime import null
load = null.load
null.load = lambda *given: (os.write(1, b"loading\\n"), load(*given))[1]
worker.work(pathlib.Path({str(job)!r}))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], input="stop\n", capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert re.fullmatch(r"ready \d+\n", done.stdout)
    assert done.stderr == "loading\n"


def test_it_ends_with_its_parent_even_while_the_engine_hangs(
    null_artifact: MakeArtifact, feeds: dict[str, Array], brief: LoadSpec, tmp_path: Path
) -> None:
    job = make_job(tmp_path / "job", null_artifact(hang_at=0), feeds, brief, driven=True)
    with subprocess.Popen([*COMMAND, str(job)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdin.close()
        assert process.wait(timeout=PATIENCE_S) == PARENT_GONE
    assert not (job / "result.json").exists()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for the process in /proc")
def test_a_killed_parent_leaves_no_process(null_artifact: MakeArtifact, tmp_path: Path) -> None:
    artifact = null_artifact(hang_at=0)
    jobs = tmp_path / "jobs"
    jobs.mkdir()
    program = f"""
import pathlib, numpy
from edgekit.artifact import Artifact, TensorSpec
from edgekit.profiling.load import LoadSpec
from edgekit.profiling.measure import measure
spec = TensorSpec(name="x", dtype="float32", shape=("n",))
artifact = Artifact(folder=pathlib.Path({str(artifact.folder)!r}), model="model.null", files={dict(artifact.files)!r},
                    engine="null", precision="fp32", inputs=(spec,), outputs=(), options={{"hang_at": 0}})
measure(artifact, LoadSpec(timeout_s=1000.0), {{"x": numpy.ones(1, dtype="float32")}})
"""
    with subprocess.Popen([sys.executable, "-c", program], env=dict(os.environ, TMPDIR=str(jobs))) as parent:
        found = wait_for(lambda: measuring_processes(jobs))
        parent.send_signal(signal.SIGKILL)
        parent.wait(timeout=PATIENCE_S)
    assert found
    assert wait_for(lambda: not measuring_processes(jobs))


def measuring_processes(folder: Path) -> list[int]:
    """Living processes that were started on a job under a folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:  # it ended meanwhile
            continue
        if b"edgekit.profiling" in words and any(word.startswith(os.fsencode(folder)) for word in words):
            found.append(int(entry.name))
    return found


def wait_for(condition: Callable[[], object]) -> bool:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def test_the_profiler_loads_numpy_and_nothing_heavier() -> None:
    program = """
import sys
import edgekit.profiling.measure, edgekit.profiling.worker
heavy = {"torch", "onnx", "onnxruntime", "openvino", "pydantic", "click", "rich"}
print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE_S)
    assert (done.stdout, done.stderr) == ("[]\n", "")
