"""How a watched program ended, told by real processes: as it should, by an error, or by a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from watched import feeds_of, states, watched_bundle

from edgekit.runtime import open_bundle
from edgekit.runtime.watch import start_watch
from edgekit.runtime.watch.reading import read_watch

PROGRAM = """
import signal, sys, time
from edgekit.runtime.watch import start_watch

stops, way = sys.argv[3:]
if stops == "exit":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())

def end():
    print("runs", flush=True)
    if way == "error":
        raise ValueError("of the program")
    if way == "exit 1":
        sys.exit(1)
    time.sleep(600)

if stops == "exit":
    with start_watch(*sys.argv[1:3]):
        end()
else:
    start_watch(*sys.argv[1:3])
    end()
"""


@pytest.fixture
def bundle(tmp_path):
    return watched_bundle(tmp_path / "bundle", {"silence_s": 0.5}, period_s=0.1)


def ended_by(number, bundle, folder, *, stops="exit", way="sleep"):
    """Runs the program until it says so, sends it a signal (None: it ends by itself), and gives its exit code."""
    environment = dict(os.environ) | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", PROGRAM, str(bundle), str(folder), stops, way]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"runs\n"
        if number is not None:
            running.send_signal(number)
        running.communicate(timeout=60)
    return running.returncode


def until_silent(folder):
    until = time.monotonic() + 60
    while (reading := read_watch(folder)).state == "running" and time.monotonic() < until:
        time.sleep(0.05)
    return reading


def silence_of(reading):
    return next(limit for limit in reading.limits if limit.name == "silence_s")


def test_a_stop_by_systemd_of_a_program_that_asks_for_an_exit_is_an_orderly_end(bundle, tmp_path):
    assert ended_by(signal.SIGTERM, bundle, tmp_path / "w") == 0
    reading = read_watch(tmp_path / "w")
    assert (reading.state, silence_of(reading).status) == ("ended", "met")


@pytest.mark.parametrize(
    ("number", "stops"), [(signal.SIGKILL, "exit"), (signal.SIGKILL, "no"), (signal.SIGTERM, "no")]
)
def test_a_kill_and_a_stop_that_nothing_handles_are_silence(bundle, tmp_path, number, stops):
    assert ended_by(number, bundle, tmp_path / "w", stops=stops) == -number
    reading = until_silent(tmp_path / "w")
    assert (reading.state, reading.exit_code) == ("silent", 3)
    assert silence_of(reading).note.startswith("it hangs, was killed, was stopped without closing its watch, or ")


@pytest.mark.parametrize("stops", ["exit", "no"], ids=["in a with block", "never closed"])
def test_an_error_that_nobody_catches_is_a_failure_at_once_and_then_silence(bundle, tmp_path, stops):
    assert ended_by(None, bundle, tmp_path / "w", stops=stops, way="error") == 1
    assert states(tmp_path / "w")[-1]["error"] == "ValueError"
    until = time.monotonic() + 60
    while (reading := read_watch(tmp_path / "w")).exit_code != 3 and time.monotonic() < until:
        assert reading.state == "failed"
        time.sleep(0.05)
    assert (reading.state, silence_of(reading).status) == ("failed", "beyond")
    assert silence_of(reading).note == "it ended with ValueError"


@pytest.mark.parametrize("stops", ["exit", "no"], ids=["in a with block", "never closed"])
def test_an_exit_code_of_its_own_is_an_orderly_end(bundle, tmp_path, stops):
    assert ended_by(None, bundle, tmp_path / "w", stops=stops, way="exit 1") == 1
    assert read_watch(tmp_path / "w").state == "ended"


def test_at_a_prompt_an_error_before_the_end_is_no_failure(bundle, tmp_path):
    typed = (
        f"from edgekit.runtime.watch import start_watch\nstart_watch({str(bundle)!r}, {str(tmp_path / 'w')!r})\n1/0\n"
    )
    environment = dict(os.environ) | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-i"], input=typed, capture_output=True, text=True, env=environment, check=False
    )
    assert "ZeroDivisionError" in done.stderr
    assert read_watch(tmp_path / "w").state == "ended"


def test_a_restart_after_a_failure_runs_again(bundle, tmp_path):
    ended_by(None, bundle, tmp_path / "w", way="error")
    with open_bundle(bundle) as opened, start_watch(opened, tmp_path / "w") as watch:
        watch.run(feeds_of(1)[0])
        watch.write()
        reading = read_watch(tmp_path / "w")
        assert (reading.state, reading.recent.restarts) == ("running", 1)
