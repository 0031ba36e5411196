"""Two accounts of one device: one of them measures at a time, and neither can harm the other by the lock they share."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback_sshd import SSHD, LoopbackDevice, loopback_device

from edgekit.devices.device import opened
from edgekit.errors import DeviceError
from edgekit.profiling import locks
from edgekit.profiling.locks import MACHINE_LOCK

SECOND = 65534
PYTHON = "/usr/bin/python3"  # the one of these tests may lie where no other account looks

pytestmark = [
    pytest.mark.skipif(SSHD is None, reason="sshd is not installed (Debian: openssh-server)"),
    pytest.mark.skipif(os.getuid() != 0, reason="needs root: what runs under a second account is started by it"),
    pytest.mark.skipif(
        not (Path(PYTHON).exists() and shutil.which("setpriv")), reason=f"needs {PYTHON} and setpriv of util-linux"
    ),
]


@pytest.fixture
def accounts() -> Iterator[tuple[LoopbackDevice, LoopbackDevice]]:
    """One machine with two accounts, root and another."""
    folder = Path(tempfile.mkdtemp(prefix="two-accounts-"))  # pytest's own folders are closed to other accounts
    folder.chmod(0o755)
    shared = folder / "locks"
    shared.mkdir()
    shared.chmod(0o1777)
    other = f"setpriv --reuid={SECOND} --regid={SECOND} --clear-groups"
    try:
        with (
            loopback_device(folder / "first", "first", path="/usr/bin:/bin", locks=shared) as first,
            loopback_device(folder / "second", "second", path="/usr/bin:/bin", locks=shared, command=other) as second,
        ):
            os.chown(second.home, SECOND, SECOND)
            yield first, second
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("turned", [False, True])
def test_one_account_waits_while_another_measures(accounts, turned):
    holder, asker = reversed(accounts) if turned else accounts
    lock = holder.folder.parent / "locks" / MACHINE_LOCK
    for _ in range(2):  # a second time the file of the first account may lie there
        with opened(holder.address) as device:
            assert device.note is None
            assert device.connection.run(["id", "-u"]).stdout.strip() == str(SECOND if turned else 0)
            assert lock.stat().st_mode & 0o777 == 0o666
            name = "nobody" if turned else "root"
            busy = rf"(?s)somebody else is measuring there.*\w+@.* \(account {name}\), for \d+ s"
            with pytest.raises(DeviceError, match=busy), opened(asker.address):
                pass
            assert asker.left() == []
        with opened(asker.address):
            pass
    assert not lock.exists()


def test_a_lock_that_another_account_was_killed_with_is_taken_over(accounts):
    first, second = accounts
    lock = first.folder.parent / "locks" / MACHINE_LOCK
    lock.write_text('{"who": "somebody who was killed"}')
    os.chown(lock, SECOND, SECOND)
    lock.chmod(0o666)
    with opened(first.address):
        assert '"account": "root"' in lock.read_text()
    lock.write_text("")
    lock.chmod(0o666)
    os.chown(lock, 0, 0)
    with opened(second.address):
        assert '"account": "nobody"' in lock.read_text()
    assert lock.read_text() == "", "it is another account's file, and stays"


@pytest.mark.parametrize("how", ["symlink", "hard link", "fifo", "closed"])
def test_no_account_can_have_another_write_over_a_file(accounts, how):
    first, second = accounts
    lock = first.folder.parent / "locks" / MACHINE_LOCK
    victim = first.folder.parent / "locks/victim"
    victim.write_text("root's own")
    if how == "symlink":
        lock.symlink_to(victim)
    elif how == "hard link":
        os.link(victim, lock)
    elif how == "fifo":
        os.mkfifo(lock, 0o666)
    else:
        lock.write_text("")
        lock.chmod(0o600)
    device = second if how == "closed" else first
    refused = r"(?s)its lock, which all accounts share, cannot be taken.*edgekit-device\.lock"
    with pytest.raises(DeviceError, match=refused), opened(device.address):
        pass
    assert victim.read_text() == "root's own"
    assert device.left() == []


def test_what_another_account_wrote_into_the_lock_is_only_shown(tmp_path):
    told = {"who": "\x1b[2Jme\n" + "x" * 500, "account": 7, "monotonic_s": float("nan"), "pid": 1}
    other = locks._other(told)
    assert (other.who[:5], len(other.who), other.account, other.since_s) == ("[2Jme", 100, "", None)


def test_where_no_folder_is_open_to_all_accounts_that_is_said(tmp_path, monkeypatch):
    monkeypatch.delenv("EDGEKIT_LOCKS", raising=False)
    (tmp_path / "open").mkdir()
    (tmp_path / "mine").mkdir(mode=0o755)
    (tmp_path / "link").symlink_to(tmp_path / "open")
    (tmp_path / "open").chmod(0o1777)
    monkeypatch.setattr(locks, "FOLDERS", (str(tmp_path / "mine"), str(tmp_path / "link"), str(tmp_path / "open")))
    assert locks.machine_folder() == tmp_path / "open"
    (tmp_path / "open").chmod(0o777)  # without the sticky bit anybody could put another file in its place
    assert locks.machine_folder() is None
    assert locks.lock_machine({"session"}) is None
    assert "nothing keeps another account than root from measuring" in locks.only_account()
