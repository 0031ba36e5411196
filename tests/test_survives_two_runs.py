"""Two runs in one folder at once, as real processes; reading what is finished goes on meanwhile."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_recipe import edgekit, process_environment

HOLDS = """
import sys, time
from pathlib import Path
from edgekit.steps import locked

with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def holder():
    """Starts a process that holds a folder as a run does."""
    running = []

    def hold(out: Path) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDS, str(out)], stdout=subprocess.PIPE, text=True, env=process_environment()
        )
        running.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    yield hold
    for process in running:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("command", ["deploy", "distill", "export"])
def test_a_second_run_in_one_folder_is_refused_and_after_a_kill_it_is_not(project, holder, command):
    out = project / "out"
    other = holder(out)
    args = {
        "deploy": ("deploy", project, "--out", out),
        "distill": ("distill", project, "--out", out),
        "export": (
            *("export", "tinynets:student", "--target", "raspberry-pi-4", "--weights", "none.safetensors"),
            *("--input", "input=f32[1,1,12,12]", "--out", out / "mine"),
        ),
    }[command]
    done = edgekit(*args)
    assert done.exit_code == 1
    assert done.stderr.startswith(f"error: {out}: another run is working in this folder\n")
    assert "choose another folder with --out" in done.stderr
    assert [path.name for path in out.iterdir()] == [".steps"]
    other.send_signal(signal.SIGKILL)
    other.wait()
    assert (
        "another run" not in edgekit(*args, *(["--set", "data.train=none.npz"] if command != "export" else [])).stderr
    )


def test_what_is_finished_can_be_read_while_a_run_works(deployed, tmp_path, holder):
    holder(deployed.out)
    assert edgekit("verify", deployed.bundle).exit_code == 0
    assert edgekit("inspect", deployed.bundle).exit_code == 0
    assert edgekit("report", deployed.out).exit_code in (0, 4)
