from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_bundles import null_bundle

from edgekit.artifact import Array, Artifact, hash_file
from edgekit.profiling.following import is_running, stop
from edgekit.profiling.job import write_feeds
from edgekit.profiling.jobs import RESULTS, Sent, write_jobs
from edgekit.profiling.load import LoadSpec
from edgekit.profiling.measured import Measured, load_measured
from edgekit.runtime.bundle import artifact_of
from edgekit.runtime.manifest import read_manifest
from edgekit.timing import golden_feeds

MakeArtifact = Callable[..., Artifact]
LayOut = Callable[..., Path]
COMMAND = [sys.executable, "-m", "edgekit.profiling"]
PATIENCE_S = 60


@pytest.fixture
def laid_out(tmp_path: Path, feeds: dict[str, Array], brief: LoadSpec) -> Iterator[LayOut]:
    """Writes jobs for artifacts or bundles that lie on this machine; whatever still runs is ended afterwards."""
    folders: list[Path] = []

    def lay(artifacts: Sequence[Artifact], load: LoadSpec = brief, *, own_feeds: dict[str, Array] = feeds) -> Path:
        folder = tmp_path / f"jobs {len(folders)}"
        folder.mkdir()
        folders.append(folder)
        write_feeds(folder / "feeds.npz", own_feeds)
        sent_feeds = folder / hash_file(folder / "feeds.npz")
        sent_feeds.mkdir()
        (folder / "feeds.npz").rename(sent_feeds / "feeds.npz")
        sent = [
            Sent(artifact=one, folder=str(one.folder), bundle=(one.folder / "manifest.json").is_file())
            for one in artifacts
        ]
        write_jobs(folder, sent, str(sent_feeds), load)
        return folder

    yield lay
    for folder in folders:
        stop(folder)


def follow(folder: Path, seen: int = 0) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, "--follow", str(folder), str(seen)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def told(folder: Path, seen: int = 0) -> list[dict[str, object]]:
    """Follows the jobs to their end; what was said of them."""
    process = follow(folder, seen)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, err) == (0, "")
    return [json.loads(line) for line in out.splitlines() if line]


def results(folder: Path) -> list[Measured]:
    return [load_measured(path) for path in sorted((folder / RESULTS).iterdir())]


def workers(folder: Path) -> list[int]:
    """The processes whose command line names the folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes()
        except OSError:
            continue
        if str(folder).encode() in command and int(path.parent.name) != os.getpid():
            found.append(int(path.parent.name))
    return found


def wait_for(condition: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.05)


def endless(brief: LoadSpec) -> LoadSpec:
    return replace(brief, min_seconds=600.0, max_seconds=600.0, cold_loads=1)


def in_turns(process: subprocess.Popen[str]) -> None:
    """Reads until the timed turns are under way."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() and json.loads(line).get("step") == "measure":
            return
    raise AssertionError(process.communicate())


def test_jobs_give_what_measuring_in_turns_gives(
    null_artifact: MakeArtifact, laid_out: LayOut, brief: LoadSpec
) -> None:
    artifacts = [null_artifact(latency_us=2000.0), null_artifact(crash_at=0), null_artifact(nan_at=0)]
    folder = laid_out(artifacts)
    lines = told(folder)
    assert lines[0] == {"step": "load", "done": 0, "total": 3, "note": "null fp32"}
    assert [line for line in lines if line.get("step") == "measure"]
    assert lines[-1] == {"ended": "ok", "reason": None}
    fine, crashed, nan = results(folder)
    assert (fine.status, crashed.status, nan.status) == ("ok", "crashed", "failed")
    assert (fine.application_ms >= 2).all()
    assert len(fine.cold_load_ms) == 3
    assert fine.conditions is not None
    assert "SIGABRT" in str(crashed.reason)
    assert [m.artifact_sha256 for m in (fine, crashed, nan)] == [a.sha256 for a in artifacts]
    wait_for(lambda: not is_running(folder), "the process ends once all is written")
    assert workers(folder) == []


def test_who_asks_may_be_killed_and_another_one_learns_the_rest(
    null_artifact: MakeArtifact, laid_out: LayOut, brief: LoadSpec
) -> None:
    folder = laid_out([null_artifact(latency_us=1000.0)], replace(brief, min_seconds=1.0, max_seconds=1.5))
    first = follow(folder)
    in_turns(first)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert is_running(folder), "what was asked for goes on"
    lines = told(folder, 2)
    assert lines[-1]["ended"] == "ok"
    assert len(lines) + 2 == len((folder / "progress.jsonl").read_text().splitlines()), (
        "what is known is not told again"
    )
    assert [m.status for m in results(folder)] == ["ok"]
    assert told(folder, len(lines) + 2) == lines[-1:], "the end is told to whoever asks"


def test_jobs_are_done_once_however_often_they_are_asked_for(
    null_artifact: MakeArtifact, laid_out: LayOut, brief: LoadSpec
) -> None:
    folder = laid_out([null_artifact(latency_us=1000.0)], replace(brief, min_seconds=0.5, max_seconds=1.0))
    both = [follow(folder), follow(folder)]
    ends = [process.communicate(timeout=PATIENCE_S)[0].splitlines()[-1] for process in both]
    assert ends == ['{"ended": "ok", "reason": null}'] * 2
    assert (folder / "running").read_text().count("pid") == 1
    written = (folder / "progress.jsonl").read_bytes()
    assert subprocess.run([*COMMAND, "--jobs", str(folder)], check=True, timeout=PATIENCE_S).returncode == 0
    assert (folder / "progress.jsonl").read_bytes() == written


def test_they_are_stopped_with_all_that_they_started(
    null_artifact: MakeArtifact, laid_out: LayOut, brief: LoadSpec
) -> None:
    folder = laid_out([null_artifact(latency_us=1000.0)], endless(brief))
    process = follow(folder)
    in_turns(process)
    assert len(workers(folder)) == 3, "who asks, who measures, and the measuring process"
    done = subprocess.run([*COMMAND, "--stop", str(folder)], check=True, timeout=PATIENCE_S)
    assert done.returncode == 0
    out, _ = process.communicate(timeout=PATIENCE_S)
    assert json.loads(out.splitlines()[-1]) == {"ended": "stopped", "reason": "it was stopped"}
    assert workers(folder) == []
    assert not (folder / RESULTS).exists()


def test_a_killed_process_leaves_none_and_is_told_as_dead(
    null_artifact: MakeArtifact, laid_out: LayOut, brief: LoadSpec
) -> None:
    folder = laid_out([null_artifact(latency_us=1000.0), null_artifact(hang_at=12)], endless(brief))
    process = follow(folder)
    wait_for(lambda: len(workers(folder)) == 4, "the second measuring process begins")
    pid = json.loads((folder / "running").read_text())["pid"]
    os.kill(pid, signal.SIGKILL)
    out, _ = process.communicate(timeout=PATIENCE_S)
    last = json.loads(out.splitlines()[-1])
    assert (last["ended"], last["reason"]) == ("died", "the process that measures was killed")
    wait_for(lambda: workers(folder) == [], "the measuring processes, of which one hangs, have ended")


def test_a_machine_that_was_started_anew_meanwhile_is_told(
    null_artifact: MakeArtifact, laid_out: LayOut, brief: LoadSpec
) -> None:
    folder = laid_out([null_artifact()])
    (folder / "running").write_text('{"pid": 1, "boot": "of another day"}\n')
    (folder / "progress.jsonl").write_text('{"step": "load", "done": 0, "total": 1, "note": ""}\n{"st')
    assert told(folder)[1:] == [{"ended": "died", "reason": "the machine was started anew meanwhile"}]
    assert not (folder / RESULTS).exists(), "nothing is begun again"


def test_a_bundle_whose_golden_samples_fail_is_not_timed(tmp_path: Path, laid_out: LayOut, brief: LoadSpec) -> None:
    bundles = [null_bundle(tmp_path / "good"), null_bundle(tmp_path / "broken", nan_at=0)]
    bundles.append(null_bundle(tmp_path / "crashing", crash_at=0))
    manifests = [read_manifest(path) for path in bundles]
    artifacts = [artifact_of(path, manifest) for path, manifest in zip(bundles, manifests, strict=True)]
    folder = laid_out(artifacts, own_feeds=golden_feeds(bundles[0], manifests[0]))
    lines = told(folder)
    assert next(line for line in lines if line.get("step") == "verify")["done"] == 0, "first of all"
    assert next(line for line in reversed(lines) if line.get("step") == "verify")["done"] == 3
    assert [line["total"] for line in lines if line.get("step") == "load"] == [1, 1]
    good, broken, crashing = results(folder)
    assert good.status == "ok"
    assert broken.status == "failed"
    assert "golden samples: reference:" in str(broken.reason)
    assert "FAILED" in str(broken.reason)
    assert broken.turns == 0
    assert crashing.status == "crashed"
    assert "SIGABRT while running its golden samples" in str(crashing.reason)


def test_files_are_linked_and_stay_as_they_were(null_artifact: MakeArtifact, laid_out: LayOut) -> None:
    artifact = null_artifact()
    folder = laid_out([artifact])
    before = sorted(artifact.folder.iterdir())
    assert told(folder)[-1]["ended"] == "ok"
    assert (folder / "0/artifact/model.null").samefile(artifact.path), "no copy where a link will do"
    assert sorted(artifact.folder.iterdir()) == before


IN_A_SMALL_DISK = (
    'mount -t tmpfs -o size=1m tmpfs "$1" && cp -r "$2"/. "$1" && {{ head -c {left} /dev/zero > "$1/later"; '
    'cat /dev/zero > "$1/filler" 2>/dev/null; rm "$1/later"; shift 2; exec "$@"; }}'
)
CAN_MOUNT = (
    subprocess.run(["unshare", "-Urm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, check=False)
).returncode == 0


@pytest.mark.skipif(not CAN_MOUNT, reason="needs a host that lets a user mount a tmpfs")
@pytest.mark.parametrize("left", [0, 8192, 65536])
def test_a_full_disk_is_told_whenever_it_is_full(
    null_artifact: MakeArtifact, laid_out: LayOut, brief: LoadSpec, tmp_path: Path, left: int
) -> None:
    """From one that has no room at all to one that takes the jobs but not all that is measured."""
    folder = laid_out([null_artifact()], replace(brief, min_seconds=1.0, max_seconds=2.0))
    disk = tmp_path / "disk"
    disk.mkdir()
    inside = [*COMMAND, "--follow", str(disk), "0"]
    done = subprocess.run(
        ["unshare", "-Urm", "bash", "-c", IN_A_SMALL_DISK.format(left=left), "bash", str(disk), str(folder), *inside],
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert "the disk is full" in done.stdout + done.stderr, (done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    wait_for(lambda: workers(disk) == [], "no process is left")


@pytest.mark.parametrize(
    ("text", "ended", "reason"),
    [
        ('{"jobs": []}', "failed", "not measuring jobs"),
        ('{"feeds": "/no", "jobs": [{"folder": "/nowhere", "bundle": false}]}', "damaged", "['/no', '/nowhere']"),
        ("{", "failed", "not JSON"),
    ],
)
def test_jobs_that_are_none_are_refused(
    null_artifact: MakeArtifact, laid_out: LayOut, text: str, ended: str, reason: str
) -> None:
    folder = laid_out([null_artifact()])
    (folder / "jobs.json").write_text(text)
    (line,) = told(folder)
    assert line["ended"] == ended
    assert reason in str(line["reason"])


def test_a_file_name_cannot_leave_its_folder(null_artifact: MakeArtifact, laid_out: LayOut) -> None:
    folder = laid_out([null_artifact()])
    path = folder / "0/artifact/artifact.json"
    raw = json.loads(path.read_text())
    path.write_text(json.dumps(raw | {"files": {"../../out": "0" * 64}}))
    (line,) = told(folder)
    assert "points outside its folder" in str(line["reason"])
    assert not (folder / "out").exists()


def test_a_command_line_that_is_none_says_what_would_be() -> None:
    done = subprocess.run([*COMMAND, "--follow", "x", "much"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--follow FOLDER/ LINES" in done.stderr
