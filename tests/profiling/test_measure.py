from __future__ import annotations

import dataclasses
import itertools
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import edgekit
import edgekit.profiling.measure as measuring
from edgekit.artifact import Array, Artifact
from edgekit.errors import FeedError
from edgekit.processing_specs import Preprocessing
from edgekit.profiling.load import LoadSpec
from edgekit.profiling.measure import measure, measure_in_turns
from edgekit.profiling.measured import PHASES
from edgekit.profiling.turns import Pace

pytestmark = pytest.mark.usefixtures("independent")

MakeArtifact = Callable[..., Artifact]

IS_LOAD = 'case "$*" in *--load*)'
LOADS_WELL = f'{IS_LOAD} exec {sys.executable} "$@";; esac;'


@pytest.fixture(autouse=True)
def job_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "jobs"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_raw_latencies_and_resources_are_kept(
    null_artifact: MakeArtifact, feeds: dict[str, Array], brief: LoadSpec, job_folders: Path
) -> None:
    artifact = null_artifact(script="[6000, 9000]")
    measured = measure(artifact, brief, feeds)
    assert (measured.status, measured.reason) == ("ok", None)
    assert measured.turn_sizes == (9, 9, 9, 9), "turns of 10, the first of each dropped, until 30 are kept"
    assert measured.turns == 4
    assert measured.application_ms.shape == measured.engine_ms.shape == (36,)
    assert measured.dropped_ms.shape == (4,)
    assert (measured.engine_ms >= 6).all()
    assert (measured.application_ms >= measured.engine_ms).all()
    pairs = measured.engine_ms.reshape(4, 9)[:, :8].reshape(-1, 2)
    assert (pairs.max(axis=1) >= 9).all(), "one of two successive queries is the slow one"
    assert measured.load_ms > 0
    assert measured.first_inference_ms >= 6
    assert list(measured.peak_memory_mb) == list(PHASES)
    assert all(mb is None or 1 < mb < 10_000 for mb in measured.peak_memory_mb.values())
    assert measured.size_mb == 0.0025
    assert measured.artifact_sha256 == artifact.sha256
    assert measured.engine_version == "1.0"
    assert measured.started_at.endswith("+00:00")
    assert list(job_folders.iterdir()) == [], "nothing is left behind"


def test_enough_queries_for_every_percentile(
    null_artifact: MakeArtifact, feeds: dict[str, Array], brief: LoadSpec
) -> None:
    load = dataclasses.replace(brief, percentiles=(50.0, 99.0))
    fast, slow = measure_in_turns([null_artifact(), null_artifact(latency_us=1000.0)], load, feeds)
    assert fast.turns == slow.turns, "both take a turn in every round"
    assert len(slow.application_ms) >= 662
    assert len(fast.application_ms) > len(slow.application_ms), "turns of short queries are longer"


def test_time_under_load_is_held(
    null_artifact: MakeArtifact, feeds: dict[str, Array], brief: LoadSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "perf_counter", itertools.count(step=0.125).__next__)
    load = dataclasses.replace(brief, min_seconds=1.0)
    assert measure(null_artifact(), load, feeds).turns == 8, "each turn takes an eighth of a second on that clock"


def test_a_crash_a_hang_and_nan_are_told_and_the_others_go_on(
    null_artifact: MakeArtifact, feeds: dict[str, Array], brief: LoadSpec, job_folders: Path
) -> None:
    load = dataclasses.replace(brief, timeout_s=5.0)
    artifacts = [
        null_artifact(crash_at=0),
        null_artifact(latency_us=6000.0),
        null_artifact(hang_at=3),
        null_artifact(nan_at=0),
        null_artifact(bogus=1),
    ]
    crashed, fine, hung, nan, refused = measure_in_turns(artifacts, load, feeds)
    assert crashed.status == "crashed"
    assert "died of SIGABRT while loading and warming up" in crashed.reason
    assert fine.status == "ok"
    assert len(fine.application_ms) == 36
    assert hung.status == "hung"
    assert "no answer for 5 s while loading and warming up" in hung.reason
    assert nan.status == "failed"
    assert "output 'y' holds NaN or infinity" in nan.reason
    assert refused.status == "failed"
    assert "unknown null option 'bogus'" in refused.reason
    assert [m.artifact_sha256 for m in (crashed, fine, hung, nan, refused)] == [a.sha256 for a in artifacts]
    assert list(job_folders.iterdir()) == []


def test_failures_in_the_middle_of_a_turn(
    null_artifact: MakeArtifact, feeds: dict[str, Array], brief: LoadSpec
) -> None:
    # At 50 ms a query warm-up takes twenty, so the first turn is queries 21 to 30.
    crash, nan, fine = measure_in_turns(
        [
            null_artifact(latency_us=50_000.0, crash_at=25),
            null_artifact(latency_us=50_000.0, nan_at=30),
            null_artifact(latency_us=6000.0),
        ],
        brief,
        feeds,
    )
    assert crash.status == "crashed"
    assert "died of SIGABRT while taking a turn of 10 queries" in crash.reason
    assert nan.status == "failed"
    assert "in the last of 10 queries" in nan.reason
    assert nan.first_inference_ms >= 50, "what was learnt before stays"
    assert fine.status == "ok"


def test_the_order_rotates(
    null_artifact: MakeArtifact, feeds: dict[str, Array], brief: LoadSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    take = measuring._take_turn

    def noted(candidate: measuring._Candidate, queries: int) -> None:
        order.append(candidate.child.job.folder.name)
        take(candidate, queries)

    monkeypatch.setattr(measuring, "_take_turn", noted)
    measure_in_turns([null_artifact(latency_us=us) for us in (6000.0, 7000.0, 8000.0)], brief, feeds)
    assert "".join(order) == "012" + "120" + "201" + "210"


def test_the_start_of_each_turn_is_told_on_one_clock_for_all(
    null_artifact: MakeArtifact, feeds: dict[str, Array], brief: LoadSpec
) -> None:
    pair = [null_artifact(latency_us=6000.0), null_artifact(latency_us=6000.0, nan_at=0)]
    first, second = measure_in_turns([pair[0], null_artifact(latency_us=6000.0)], brief, feeds)
    assert len(first.turn_started_s) == len(second.turn_started_s) == 4
    assert first.turn_started_s[0] == 0
    # The order rotates: 01 10 01 10.
    order = sorted([(s, 0) for s in first.turn_started_s] + [(s, 1) for s in second.turn_started_s])
    assert [number for _, number in order] == [0, 1, 1, 0, 0, 1, 1, 0]
    assert all(later - earlier >= 0.06 for (earlier, _), (later, _) in itertools.pairwise(order)), "10 queries of 6 ms"
    fine, broken = measure_in_turns(pair, brief, feeds)
    assert (len(fine.turn_started_s), broken.turn_started_s) == (4, ())


def test_conditions_are_those_of_the_turns(
    null_artifact: MakeArtifact, feeds: dict[str, Array], brief: LoadSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    observe, take = measuring.observe, measuring._take_turn

    def observed(pids: list[int]) -> object:
        events.append("observe")
        assert all((Path("/proc") / str(pid)).exists() for pid in pids), "the processes live"
        assert len(pids) == 1, "the one that takes turns"
        return observe(pids)

    def taken(candidate: measuring._Candidate, queries: int) -> None:
        events.append("turn")
        take(candidate, queries)

    monkeypatch.setattr(measuring, "observe", observed)
    monkeypatch.setattr(measuring, "_take_turn", taken)
    measured, broken = measure_in_turns([null_artifact(latency_us=6000.0), null_artifact(nan_at=0)], brief, feeds)
    assert events == ["observe", *["turn"] * 4, "observe"]
    assert measured.conditions.seconds >= 4 * 0.06
    assert broken.conditions is None, "it took no turn"


def test_the_pace_sees_the_latencies_of_every_turn(
    null_artifact: MakeArtifact, feeds: dict[str, Array], brief: LoadSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Array] = []
    took = measuring.Pace.took

    def noted(pace: Pace, queries: int, seconds: float, application_ms: Array | None = None) -> None:
        seen.append(application_ms)
        took(pace, queries, seconds, application_ms)

    monkeypatch.setattr(measuring.Pace, "took", noted)
    measured = measure(null_artifact(latency_us=6000.0), brief, feeds)
    np.testing.assert_array_equal(np.concatenate([turn[1:] for turn in seen]), measured.application_ms)
    np.testing.assert_array_equal([turn[0] for turn in seen], measured.dropped_ms)


def test_preprocessing_is_on_the_application_clock(null_artifact: MakeArtifact, brief: LoadSpec) -> None:
    raw = np.random.default_rng(0).integers(0, 256, size=(4, 8, 8, 3), dtype=np.uint8)
    artifact = null_artifact(shape=("batch", 3, 8, 8), latency_us=6000.0)
    settings = Preprocessing(input="x", layout="NHWC", scale=1 / 255)
    measured = measure(artifact, brief, {"x": raw}, preprocessing=settings)
    assert measured.status == "ok"
    assert (measured.application_ms > measured.engine_ms).all()
    without = measure(artifact, brief, {"x": raw})
    assert without.status == "failed"
    assert "wrong dtype" in without.reason


def test_queries_are_batches_of_the_load(null_artifact: MakeArtifact, feeds: dict[str, Array], brief: LoadSpec) -> None:
    artifact = null_artifact(shape=(3, 4))
    load = dataclasses.replace(brief, scenario="batch", batch=3)
    assert measure(artifact, load, feeds).status == "ok"
    assert "wrong shape" in measure(artifact, brief, feeds).reason


def test_wrong_samples_are_refused_before_anything_starts(
    null_artifact: MakeArtifact, brief: LoadSpec, job_folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/nothing/to/start")
    with pytest.raises(FeedError, match="no samples"):
        measure(null_artifact(), brief, {})
    assert list(job_folders.iterdir()) == []


def test_progress_is_told_in_percent(null_artifact: MakeArtifact, feeds: dict[str, Array], brief: LoadSpec) -> None:
    told: list[tuple[str, int, int, str]] = []

    def progress(step: str, done: int, total: int, note: str = "") -> None:
        told.append((step, done, total, note))

    measure(null_artifact(latency_us=6000.0), brief, feeds, progress=progress)
    assert [(step, done, total) for step, done, total, _ in told] == [
        ("load", 0, 1),
        ("load", 1, 1),
        *[("measure", done, 100) for done in (0, 30, 60, 90, 100)],
    ]
    assert told[0][3] == "null fp32"
    assert told[-1][3].startswith("36 queries in ")


@pytest.mark.parametrize(
    ("script", "status", "reason"),
    [
        ("echo boom >&2; exit 7", "crashed", "ended with exit status 7 while loading and warming up\nboom"),
        ("exit 0", "crashed", "ended with exit status 0"),
        ("kill -SEGV $$", "crashed", "died of SIGSEGV"),
        ("echo hello; sleep 60", "failed", "gave an unknown answer 'hello'"),
        ("exec >&-; sleep 60", "hung", "did not end for 2 s"),
        ("echo ready; sleep 60", "failed", "did not say how fast it is"),
        (f"{LOADS_WELL} echo ready 5; exit 1", "crashed", "exit status 1 while taking a turn of 10 queries"),
        (f"{LOADS_WELL} echo ready 5; read turn; echo done; sleep 60", "failed", "left no latencies: No such file"),
        (
            f"{LOADS_WELL} echo ready 5; read turn; echo 1234567890 > turns.bin; echo done; sleep 60",
            "failed",
            "left 1 latencies of a turn of 10 queries",
        ),
        (f"{IS_LOAD} exit 0;; esac; echo ready 5; sleep 60", "crashed", "exit status 0 while loading once more"),
        (f"{IS_LOAD} kill -SEGV $$;; esac; echo ready 5; sleep 60", "crashed", "of SIGSEGV while loading once more"),
        (f"{IS_LOAD} sleep 60;; esac; echo ready 5; sleep 60", "hung", "no answer for 2 s while loading once more"),
        ('echo "switch=$ORT_DISABLE_TELEMETRY args=$*" >&2; exit 1', "crashed", "switch=1 args=-m edgekit.profiling"),
    ],
)
def test_a_process_that_breaks_the_contract_is_told(
    null_artifact: MakeArtifact,
    feeds: dict[str, Array],
    brief: LoadSpec,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    status: str,
    reason: str,
) -> None:
    monkeypatch.setattr(sys, "executable", fake_python(tmp_path, script))
    measured = measure(null_artifact(), dataclasses.replace(brief, timeout_s=2.0), feeds)
    assert measured.status == status
    assert reason in measured.reason


def fake_python(folder: Path, script: str) -> str:
    fake = folder / "fake-python"
    fake.write_text(f"#!/bin/sh\n{script}\n")
    fake.chmod(0o755)
    return str(fake)


def test_the_process_runs_the_very_edgekit_of_its_parent(
    null_artifact: MakeArtifact, feeds: dict[str, Array], tmp_path: Path
) -> None:
    checkout = tmp_path / "checkout"
    shutil.copytree(Path(edgekit.__file__).parent, checkout / "edgekit", ignore=shutil.ignore_patterns("__pycache__"))
    engine = checkout / "edgekit" / "runtime" / "null.py"
    engine.write_text(engine.read_text() + '\n\ndef version() -> str:\n    return "of the checkout"\n')
    artifact = null_artifact()
    program = f"""
import sys
sys.path.insert(0, {str(checkout)!r})
import pathlib
import numpy
from edgekit.artifact import Artifact, TensorSpec
from edgekit.profiling.load import LoadSpec
from edgekit.profiling.measure import measure
spec = TensorSpec(name="x", dtype="float32", shape=("n",))
artifact = Artifact(folder=pathlib.Path({str(artifact.folder)!r}), model="model.null", files={dict(artifact.files)!r},
                    engine="null", precision="fp32", inputs=(spec,), outputs=())
load = LoadSpec(min_seconds=0.0, min_count=9, percentiles=())
print(measure(artifact, load, {{"x": numpy.ones(1, dtype="float32")}}).engine_version)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path, check=True, timeout=120
    )
    assert done.stdout == "of the checkout\n"
