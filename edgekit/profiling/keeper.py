"""``python -m edgekit.profiling.keeper ROOT SESSION WHO GRACE_S``: holds a device for one user, and clears up.

The kernel frees the lock (flock(2)) whenever the keeper ends, so that none is ever left behind. The keeper hears from
its user every few seconds; a cut connection closes its standard input, or leaves it silent. It then holds the lock for
a while, in which the same session may come back, and ends the session's processes and removes its jobs after that. No
clock but the monotonic one is read: a device's date may be off by years.

It prints one line of JSON: ``held``, and either ``host``, what was ``cleared`` and ``boot``, or ``who`` has the lock
and ``since_s``. The last word ``bye`` on standard input ends it at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import select
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgekit.profiling.host import this_host
from edgekit.runtime.system import read_text

LOCK = "lock"
JOBS = "jobs"
SESSION_VARIABLE = "EDGEKIT_DEVICE_SESSION"
SILENT_S = 60.0
BYE = "bye"
_TERM_S = 2.0
_PARTS = ("bundles/*.part.*", "wheels/*.part.*", "kit/*.part.*")
_AGAIN = 20


def main(arguments: list[str]) -> int:
    """Holds the lock of a device; returns the exit status: 0 held until the end, 3 somebody else has it."""
    root, session, who, grace_s = Path(arguments[0]), arguments[1], arguments[2], float(arguments[3])
    root.mkdir(parents=True, exist_ok=True)
    descriptor = _lock(root, session)
    if descriptor is None:
        other = _owner(root / LOCK)
        since_s = _since(other)
        _say({"held": False, "who": other.get("who", "somebody"), "since_s": since_s})
        return 3
    # An older keeper is sent away by the next one of its session, which goes on with the jobs.
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(0))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the connection went: that is what it is here for
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    owner = {"who": who, "session": session, "pid": os.getpid(), "monotonic_s": time.monotonic()}
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(owner).encode(), 0)
    cleared = _clear_others(root, session)
    (root / JOBS / session).mkdir(parents=True, exist_ok=True)
    boot = read_text(Path("/proc/sys/kernel/random/boot_id")).strip()
    _say({"held": True, "host": dataclasses.asdict(this_host()), "cleared": cleared, "boot": boot})
    if not _heard_bye():
        time.sleep(grace_s)
    _end_session(root, session)
    (root / LOCK).unlink(missing_ok=True)
    return 0


def _lock(root: Path, session: str) -> int | None:
    """The locked file, or None where another session has it; an older keeper of the same session is sent away."""
    for _ in range(_AGAIN):
        descriptor = os.open(root / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            other = _owner(root / LOCK)
            if other.get("session") != session:
                return None
            with contextlib.suppress(OSError):
                os.kill(int(other["pid"]), signal.SIGTERM)
            time.sleep(0.1)
            continue
        with contextlib.suppress(FileNotFoundError):  # whoever had it may have removed the file meanwhile
            if os.fstat(descriptor).st_ino == (root / LOCK).stat().st_ino:
                return descriptor
        os.close(descriptor)
    return None


def _owner(lock: Path) -> dict[str, Any]:
    try:
        owner = json.loads(lock.read_text())
    except (OSError, ValueError):  # it is just being written
        return {}
    return owner if isinstance(owner, dict) else {}


def _since(owner: dict[str, Any]) -> float | None:
    began = owner.get("monotonic_s")
    return None if not isinstance(began, float) else max(0.0, time.monotonic() - began)


def _say(message: dict[str, Any]) -> None:
    print(json.dumps(message), flush=True)


def _heard_bye() -> bool:
    """Listens until the last word, or until nothing more comes."""
    text = b""
    while BYE.encode() not in text:
        ready, _, _ = select.select([0], [], [], SILENT_S)
        chunk = os.read(0, 4096) if ready else b""
        if not chunk:
            return False
        text = (text + chunk)[-64:]
    return True


def _clear_others(root: Path, session: str) -> list[str]:
    """Removes what sessions left that nobody holds the lock for: their processes, their jobs, half-sent folders."""
    cleared = []
    for folder in sorted((root / JOBS).glob("*")):
        if folder.name != session:
            _end_session(root, folder.name)
            cleared.append(folder.name)
    for pattern in _PARTS:
        for part in sorted(root.glob(pattern)):
            writer = part.name.rpartition(".")[2]
            if not (writer.isdecimal() and Path("/proc", writer).exists()):
                shutil.rmtree(part, ignore_errors=True)
                cleared.append(part.name)
    return cleared


def _end_session(root: Path, session: str) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        for pid in processes_of(session):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)
        until = time.monotonic() + _TERM_S
        while next(processes_of(session), None) is not None and time.monotonic() < until:
            time.sleep(0.05)
    shutil.rmtree(root / JOBS / session, ignore_errors=True)


def processes_of(session: str) -> Iterator[int]:
    """Processes of a session, by the variable that all of them inherit; not this one."""
    mark = f"{SESSION_VARIABLE}={session}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes()
        except OSError:  # another user's, or gone
            continue
        if mark in environment.split(b"\0") and int(folder.name) != os.getpid():
            yield int(folder.name)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
