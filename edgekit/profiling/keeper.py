"""Holds a device for one user, and clears up.

``python -m edgekit.profiling.keeper ROOT SESSION WHO GRACE_S NOW_S PROCESS AFTER``

It has the locks of :mod:`edgekit.profiling.locks` and hears from its user every few seconds; a cut connection closes
its standard input, or leaves it silent. It then holds the locks for a while, in which the same session may come back,
and ends the session's processes and removes its jobs after that. No clock but the monotonic one is read: a device's
date may be off by years, so its user says what time it is. ``PROCESS`` is the user's, and ``AFTER`` a session whose
process that user knows to have ended: it is taken over, and cleared up. Both may be empty.

It prints one line of JSON: ``held``, and either ``host``, what was ``cleared`` and ``removed``, a ``note`` or null,
and ``boot``; or ``who`` has a lock, their ``account``, ``since_s``, ``session`` and ``process``; or why the lock was
``refused``. The last word ``bye`` on standard input ends it at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
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
from edgekit.profiling.locks import Other, leave, lock_both, only_account, say_who
from edgekit.profiling.room import JOBS, remove_unused
from edgekit.runtime.system import read_text

SESSION_VARIABLE = "EDGEKIT_DEVICE_SESSION"
SILENT_S = 60.0
BYE = "bye"
_TERM_S = 2.0
_PARTS = ("bundles/*.part.*", "wheels/*.part.*", "kit/*.part.*")
REFUSED = 3


def main(arguments: list[str]) -> int:
    """Holds the lock of a device; returns the exit status: 0 held until the end, 3 it cannot be had."""
    root, session, who = Path(arguments[0]), arguments[1], arguments[2]
    grace_s, now_s = float(arguments[3]), float(arguments[4])
    process, after = arguments[5], arguments[6]
    root.mkdir(parents=True, exist_ok=True)
    try:
        locks = lock_both(root, {session, after} - {""})
    except OSError as exc:
        _say({"held": False, "refused": f"{exc.filename}: {exc.strerror}"})
        return REFUSED
    if isinstance(locks, Other):
        _say({"held": False, **dataclasses.asdict(locks)})
        return REFUSED
    # An older keeper is sent away by the next one of its session, which goes on with the jobs.
    signal.signal(signal.SIGTERM, lambda number, frame: os._exit(0))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the connection went: that is what it is here for
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    for lock in locks:
        say_who(lock, who, session, process)
    cleared = _clear_others(root, session)
    (root / JOBS / session).mkdir(parents=True, exist_ok=True)
    boot = read_text(Path("/proc/sys/kernel/random/boot_id")).strip()
    told = {
        "host": dataclasses.asdict(this_host()),
        "cleared": cleared,
        "removed": remove_unused(root, now_s, [Path(place) for place in sys.path]),
        "note": only_account() if len(locks) == 1 else None,
        "boot": boot,
    }
    _say({"held": True, **told})
    if not _heard_bye():
        time.sleep(grace_s)
    _end_session(root, session)
    for lock in locks:
        leave(lock)
    return 0


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
