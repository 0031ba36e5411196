"""Measuring on a device, and what becomes of it when the connection goes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from loopback_sshd import LoopbackDevice, loopback_device
from sshd_sessions import at_work, cut, sessions
from tiny_bundles import null_bundle

from edgekit.artifact import Artifact, TensorSpec, hash_files
from edgekit.devices import dialling, measuring
from edgekit.devices.device import opened
from edgekit.devices.measuring import measure_at, measure_on
from edgekit.errors import DeviceError, FeedError
from edgekit.processing_specs import Postprocessing
from edgekit.profiling.host import this_host
from edgekit.profiling.in_numpy import InNumpy
from edgekit.profiling.load import LoadSpec
from edgekit.runtime.bundle import artifact_of
from edgekit.runtime.manifest import read_manifest

FEEDS = {"x": np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)}
BRIEF = LoadSpec(min_seconds=0.0, min_count=30, percentiles=(50.0,), timeout_s=60.0, cold_loads=1)
LONG = replace(BRIEF, min_seconds=2.0, max_seconds=3.0)
PATIENCE_S = 60


def null_artifact(folder: Path, **options: str | int | float) -> Artifact:
    folder.mkdir(parents=True)
    (folder / "model.null").write_bytes(os.urandom(2500))
    return Artifact(
        folder=folder,
        model="model.null",
        files=hash_files(folder, ["model.null"]),
        engine="null",
        precision="fp32",
        inputs=(TensorSpec(name="x", dtype="float32", shape=("batch", 4)),),
        outputs=(TensorSpec(name="y", dtype="float32", shape=("batch", 2)),),
        options=options,
    )


def wait_for(condition: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.1)


class Heard(list[tuple[str, int, int, str]]):
    """Progress, and what is done the first time that a step is told."""

    def __init__(self, step: str = "", then: Callable[[], None] = lambda: None) -> None:
        self.step, self.then = step, then

    def __call__(self, step: str, done: int, total: int, note: str = "") -> None:
        first = step == self.step and not any(each[0] == step for each in self)
        self.append((step, done, total, note))
        if first:
            self.then()


def test_what_is_measured_there_is_as_what_is_measured_here(loopback: LoopbackDevice, tmp_path: Path) -> None:
    artifacts = [null_artifact(tmp_path / "a", latency_us=2000.0), null_artifact(tmp_path / "b", crash_at=0)]
    heard = Heard()
    with opened(loopback.address) as device:
        fine, crashed = measure_on(device, artifacts, BRIEF, FEEDS, progress=heard)
        assert (fine.status, crashed.status) == ("ok", "crashed")
        assert "SIGABRT while loading and warming up" in str(crashed.reason)
        assert (fine.application_ms >= 2).all()
        assert len(fine.application_ms) >= 30
        assert [m.artifact_sha256 for m in (fine, crashed)] == [a.sha256 for a in artifacts]
        assert fine.host == device.host
        assert fine.host.cpu_model == this_host().cpu_model
        assert {step for step, *_ in heard} == {"send", "load", "measure"}
        again = Heard()
        (second,) = measure_on(device, artifacts[:1], BRIEF, FEEDS, progress=again)
        assert second.status == "ok"
        assert "send" not in {step for step, *_ in again}, "what is there is not sent again"
    assert loopback.left() == []
    assert at_work(loopback) == []


def test_what_numpy_does_is_done_there_for_each(loopback: LoopbackDevice, tmp_path: Path) -> None:
    artifacts = [null_artifact(tmp_path / name) for name in "abc"]
    softmax = Postprocessing(output="y", activation="softmax", top=1)
    steps = [InNumpy(), InNumpy(postprocessing=softmax), InNumpy(postprocessing=replace(softmax, output="z"))]
    with opened(loopback.address) as device:
        plain, after, wrong = measure_on(device, artifacts, BRIEF, FEEDS, in_numpy=steps)
    assert (plain.status, after.status, wrong.status) == ("ok", "ok", "failed")
    assert "output 'z' is missing" in str(wrong.reason)


def test_the_date_of_a_measurement_is_ours(tmp_path: Path) -> None:
    """A device without a clock says 1970."""
    if not shutil.which("faketime"):
        pytest.skip("faketime is not installed (Debian: faketime)")
    with loopback_device(tmp_path / "device", "clockless", command="faketime 1970-01-02") as there:
        (measured,) = measure_at(there.address, [null_artifact(tmp_path / "a")], BRIEF, FEEDS)
    assert not measured.started_at.startswith("1970")


def test_a_bundle_is_verified_there_before_it_is_timed(loopback: LoopbackDevice, tmp_path: Path) -> None:
    bundles = [null_bundle(tmp_path / "good"), null_bundle(tmp_path / "broken", nan_at=0)]
    artifacts = [artifact_of(path, read_manifest(path)) for path in bundles]
    feeds = {"input": np.zeros((4, 4), np.float32)}
    good, broken = measure_at(loopback.address, artifacts, BRIEF, feeds)
    assert good.status == "ok"
    assert (broken.status, broken.turns) == ("failed", 0)
    assert "golden samples: reference:" in str(broken.reason)


@pytest.mark.parametrize("name", ["model.null", "golden.npz", "feeds.npz", "manifest.json", "plain"])
def test_what_was_changed_there_meanwhile_is_sent_again_before_it_is_timed(tmp_path: Path, name: str) -> None:
    bundle = null_bundle(tmp_path / "bundle")
    artifact, feeds = artifact_of(bundle, read_manifest(bundle)), {"input": np.zeros((4, 4), np.float32)}
    if name == "plain":
        artifact, feeds = null_artifact(tmp_path / "plain"), FEEDS
    name = Path(artifact.model).name if name in ("plain", "model.null") else name
    with loopback_device(tmp_path / "device") as there:
        measure_at(there.address, [artifact], BRIEF, feeds)
        (file,) = (file for file in there.root.glob("bundles/**/*") if file.name == name)
        text = file.read_bytes()
        file.write_bytes(text[:-4] + bytes([text[-4] ^ 1]) + text[-3:])
        heard = Heard()
        (found,) = measure_at(there.address, [artifact], BRIEF, feeds, progress=heard)
        assert (found.status, found.reason) == ("ok", None)
        assert file.read_bytes() == text
        assert "send" in {step for step, *_ in heard}
        assert there.left() == []


@pytest.mark.parametrize("step", ["send", "load", "measure"])
def test_a_cut_connection_is_taken_up_again(loopback: LoopbackDevice, tmp_path: Path, step: str) -> None:
    heard = Heard(step, lambda: cut(loopback))
    artifacts = [null_artifact(tmp_path / "a", latency_us=500.0)]
    (measured,) = measure_at(loopback.address, artifacts, LONG, FEEDS, progress=heard)
    assert measured.status == "ok"
    assert measured.application_ms.sum() >= 1500, "what was measured meanwhile is not lost"
    loads = [each for each in heard if each[:2] == ("load", 0)]
    assert len(loads) == 1, "nothing was begun twice, and nothing told twice"
    assert loopback.left() == []


def test_a_connection_that_falls_silent_is_noticed_and_taken_up_again(
    loopback: LoopbackDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a cable is pulled: nobody closes it, and nothing comes any more."""
    monkeypatch.setattr(dialling, "ALIVE_S", 0.5)
    stopped: list[int] = []

    def fall_silent() -> None:
        stopped.extend(sessions(loopback))
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)

    heard = Heard("measure", fall_silent)
    try:
        (measured,) = measure_at(loopback.address, [null_artifact(tmp_path / "a")], LONG, FEEDS, progress=heard)
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGKILL)
    assert stopped
    assert measured.status == "ok"


def test_a_connection_cut_before_any_of_its_commands_is_taken_up_again(
    loopback: LoopbackDevice, tmp_path: Path
) -> None:
    """Seven times over, from the first question what is there to the fetching of the results."""
    with opened(loopback.address, grace_s=30.0) as device:
        started, commands, cuts = device.connection._started, 0, 0

        async def sabotaged(argv: list[str]) -> object:
            nonlocal commands, cuts
            commands += 1
            if commands == at:
                cuts += 1
                cut(loopback)
            return await started(argv)

        device.connection._started = sabotaged  # type: ignore[method-assign]
        for at in range(1, 20):
            commands, before = 0, cuts
            artifact = null_artifact(tmp_path / str(at))
            feeds = {"x": FEEDS["x"] + at}
            (measured,) = measure_on(device, [artifact], BRIEF, feeds)
            assert (measured.status, measured.artifact_sha256) == ("ok", artifact.sha256)
            if cuts == before:
                break
        assert cuts >= 7, "asked, sent and asked, sent the feeds, sent the jobs, followed, fetched"
    assert loopback.left() == []


def test_a_connection_that_goes_time_and_again_is_told(loopback: LoopbackDevice, tmp_path: Path) -> None:
    def always(step: str, done: int, total: int, note: str = "") -> None:
        if step == "send":
            cut(loopback)

    with pytest.raises(DeviceError, match="connection"):
        measure_at(loopback.address, [null_artifact(tmp_path / "a")], BRIEF, FEEDS, progress=always)
    assert loopback.left() == []


def test_a_device_that_stays_away_is_told_and_clears_up_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "GRACE_S", 3.0)
    artifact = null_artifact(tmp_path / "a", latency_us=500.0)
    endless = replace(LONG, min_seconds=600.0, max_seconds=600.0)
    with loopback_device(tmp_path / "device", "gone") as there:

        def switch_off() -> None:
            assert len(at_work(there)) >= 3, "who asks, who measures, and the measuring process"
            cut(there)
            there.process.terminate()

        with pytest.raises(DeviceError, match="gone"):
            measure_at(there.address, [artifact], endless, FEEDS, progress=Heard("measure", switch_off))
        wait_for(lambda: at_work(there) == [], "the jobs are ended there")
        wait_for(lambda: there.left() == [], "and nothing is left of them")


def test_a_process_that_is_killed_there_is_told_and_the_device_is_clean(
    loopback: LoopbackDevice, tmp_path: Path
) -> None:
    def kill() -> None:
        (running,) = loopback.root.glob("jobs/*/*/running")
        os.kill(json.loads(running.read_text())["pid"], signal.SIGKILL)

    with pytest.raises(DeviceError) as caught:
        measure_at(loopback.address, [null_artifact(tmp_path / "a")], LONG, FEEDS, progress=Heard("measure", kill))
    assert str(caught.value) == (
        "loopback: nothing was measured: it died\n  found:   the process that measures was killed"
    )
    assert loopback.left() == []
    assert at_work(loopback) == []


def test_a_machine_that_starts_anew_meanwhile_is_told(loopback: LoopbackDevice, tmp_path: Path) -> None:
    def restart() -> None:
        (running,) = loopback.root.glob("jobs/*/*/running")
        pid = json.loads(running.read_text())["pid"]
        running.write_text(json.dumps({"pid": pid, "boot": "the one before"}))
        os.kill(pid, signal.SIGKILL)
        cut(loopback)

    with pytest.raises(DeviceError, match="the machine was started anew meanwhile"):
        measure_at(loopback.address, [null_artifact(tmp_path / "a")], LONG, FEEDS, progress=Heard("measure", restart))
    assert loopback.left() == []


def test_what_ends_us_ends_what_runs_there(loopback: LoopbackDevice, tmp_path: Path) -> None:
    class Ended(Exception):
        pass

    def end() -> None:
        raise Ended

    endless = replace(LONG, min_seconds=600.0, max_seconds=600.0)
    with opened(loopback.address) as device:
        with pytest.raises(Ended):
            measure_on(device, [null_artifact(tmp_path / "a")], endless, FEEDS, progress=Heard("measure", end))
        wait_for(lambda: at_work(loopback) == [], "the jobs are ended there")  # the shell that told us, a moment later
    assert loopback.left() == []


def test_samples_that_do_not_fit_are_refused_before_anything_is_sent(loopback: LoopbackDevice, tmp_path: Path) -> None:
    heard = Heard()
    with opened(loopback.address) as device, pytest.raises(FeedError):
        measure_on(device, [null_artifact(tmp_path / "a")], BRIEF, {"other": FEEDS["x"]}, progress=heard)
    assert heard == []
