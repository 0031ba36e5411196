"""A device that is opened: what is sent, what runs, what is left."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

import edgekit
from edgekit.devices.device import call, come_back, opened, send_folder
from edgekit.devices.kit import MODULES, PACKAGES, make_kit
from edgekit.errors import ConnectionLost, DeviceError
from edgekit.profiling.host import this_host
from edgekit.profiling.keeper import processes_of


def wait_until(condition, seconds=15.0):
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.05)
    assert condition()


def cut(device):
    """Ends the sshd that serves a connection, so that it is lost."""
    parent = device.connection.run(["sh", "-c", "cut -d' ' -f4 /proc/$PPID/stat"]).stdout.strip()
    with pytest.raises(ConnectionLost):
        device.connection.run(["sh", "-c", f"kill -9 {parent}; sleep 1"])


def test_the_kit_is_small_and_holds_nothing_but_the_runtime():
    content = make_kit().content
    assert len(content) <= 300_000
    names = set(zipfile.ZipFile(io.BytesIO(content)).namelist())
    package = Path(edgekit.__file__).parent
    parts = {
        path.relative_to(package.parent).as_posix() for part in PACKAGES for path in (package / part).rglob("*.py")
    }
    assert names == parts | {f"edgekit/{name}.py" for name in MODULES}
    assert "edgekit/runtime/watch/reading.py" in names, "what lies in a package of its own too"


def test_a_device_runs_what_was_sent_and_is_left_clean(loopback):
    with opened(loopback.address) as device:
        assert device.host == this_host()
        code = "import json, edgekit.artifact, sys; print(json.dumps([edgekit.__file__, sorted(sys.modules)]))"
        argv = ["env", f"PYTHONPATH={device.kit}", device.python, "-c", code]
        file, modules = json.loads(device.connection.run(argv).stdout)
        assert file == f"{device.kit}/edgekit/__init__.py"
        assert {name.split(".")[0] for name in modules}.isdisjoint({"pydantic", "click", "rich", "torch"})
        ended = call(device, ["profiling.facts"])
        assert json.loads(ended.stdout)["host"]["arch"] == this_host().arch
        assert loopback.left() == ["lock"]
    assert loopback.left() == []
    assert not (loopback.root / "jobs" / device.session).exists()


def test_a_second_time_nothing_is_sent(loopback):
    with opened(loopback.address):
        pass
    steps = []
    with opened(loopback.address, progress=lambda *step: steps.append(step)):
        pass
    assert steps == []


def test_a_folder_is_sent_once_and_again_when_it_was_damaged_there(loopback, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/a.bin").write_bytes(os.urandom(3_000_000))
    (tmp_path / "b.bin").write_bytes(b"b")
    names, steps = ["model/a.bin", "b.bin"], []
    with opened(loopback.address) as device:
        for _ in range(2):
            there = send_folder(device, tmp_path, names, "0123", lambda *step: steps.append(step))
            assert there == f"{loopback.root}/bundles/0123"
        assert [step for step in steps if step[1] == 4] == steps[-1:]
        assert (loopback.root / "bundles/0123/model/a.bin").read_bytes() == (tmp_path / "model/a.bin").read_bytes()
        (loopback.root / "bundles/0123/model/a.bin").write_bytes(b"")  # power went while it was written
        send_folder(device, tmp_path, names, "0123")
        assert (loopback.root / "bundles/0123/model/a.bin").stat().st_size == 3_000_000


def test_two_users_do_not_spoil_each_others_numbers(loopback):
    busy = pytest.raises(DeviceError, match=r"(?s)somebody else is measuring.*@.*for \d+ s")
    with opened(loopback.address), busy, opened(loopback.address):
        pass
    assert loopback.left() == []


def test_a_cut_connection_comes_back_to_its_lock_and_its_jobs(loopback):
    with opened(loopback.address) as device:
        (loopback.root / "jobs" / device.session / "result").write_text("here")
        cut(device)
        with pytest.raises(DeviceError, match="somebody else is measuring"), opened(loopback.address):
            pass
        assert come_back(device, within_s=10) is False
        assert (loopback.root / "jobs" / device.session / "result").read_text() == "here"
        assert call(device, ["profiling.facts"]).status == 0
    assert loopback.left() == []


# A user's process that is killed in the middle, with a job running on the device.
KILLED = """
import os, sys
from pathlib import Path
from edgekit.devices.address import Address
from edgekit.devices.device import command, opened

with opened(Address(name="loopback", host="loopback", config=Path(sys.argv[1])), grace_s=0.5) as device:
    job = "import subprocess, sys; subprocess.Popen(['sleep', '60']); print('runs', flush=True); sys.stdin.read()"
    argv = command(device, ["profiling.facts"])[:-2] + ["-c", job]
    device.connection.start(argv)
    os.kill(os.getpid(), 9)
"""


def test_a_device_whose_user_was_killed_clears_up_by_itself(loopback):
    argv = [sys.executable, "-c", KILLED, loopback.folder / "ssh_config"]
    environment = os.environ | {"PYTHONPATH": str(Path(edgekit.__file__).parents[1])}
    assert subprocess.run(argv, env=environment, check=False).returncode == -9
    session = json.loads((loopback.root / "lock").read_text())["session"]
    assert loopback.left() == ["lock"]
    assert list(processes_of(session))
    wait_until(lambda: loopback.left() == [])
    assert list(processes_of(session)) == []


def test_a_user_whose_process_was_killed_is_not_kept_out_by_it(loopback):
    argv = [sys.executable, "-c", KILLED.replace("grace_s=0.5", "grace_s=300"), loopback.folder / "ssh_config"]
    environment = os.environ | {"PYTHONPATH": str(Path(edgekit.__file__).parents[1])}
    assert subprocess.run(argv, env=environment, check=False).returncode == -9
    session, steps = json.loads((loopback.root / "lock").read_text())["session"], []
    with opened(loopback.address, progress=lambda *step: steps.append(step[0])):
        assert list(processes_of(session)) == []
    assert steps == [f"cleared {session}, which somebody left there"]
    assert loopback.left() == []


def test_what_a_killed_keeper_left_is_cleared_with_a_word(loopback):
    steps = []
    with opened(loopback.address) as device:
        (loopback.root / "jobs" / device.session / "file").write_text("x")
        os.kill(json.loads((loopback.root / "lock").read_text())["pid"], signal.SIGKILL)
        with opened(loopback.address, progress=lambda *step: steps.append(step[0])):
            assert loopback.left() == ["lock"]
    assert steps == [f"cleared {device.session}, which somebody left there"]
    assert loopback.left() == []
