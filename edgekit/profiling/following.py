"""Asks the process that does the jobs of a folder how far it is, begins it where nobody has, and stops it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from edgekit.disk import nearly_full
from edgekit.errors import MeasurementError
from edgekit.profiling.environment import child_environment

RUNNING_FILE = "running"
PROGRESS_FILE = "progress.jsonl"
LOG_FILE = "log"
ENDED = "ended"
_LOOK_S = 0.1
_ALIVE_S = 1.0  # so often it is asked whether the process that measures lives
_SILENCE_S = 5.0  # after so long an empty line says that this process lives
_STOP_S = 15.0
_TAIL_CHARS = 2000


def hold(folder: Path) -> bool:
    """Marks a folder as one whose jobs are being done, by a lock that the kernel frees when this process ends.

    Returns:
        Whether this process is the first to do them; another one leaves them alone.
    """
    # Never closed: whoever finds it free shall find nothing of the process any more.
    lock = os.open(folder / RUNNING_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    first = os.fstat(lock).st_size == 0
    if first:
        os.write(lock, json.dumps({"pid": os.getpid(), "boot": _boot()}).encode() + b"\n")
    return first


def follow(folder: Path, seen: int) -> int:
    """Begins the jobs of a folder unless that was done, and prints their progress as it comes, as JSON lines.

    The process that does them is detached: it goes on when this one is killed, and another one may follow it. While
    there is nothing to tell, an empty line now and then says that this process lives. The last line says how the jobs
    ended: ``ok``, ``stopped``, ``failed``, or ``died`` where their process is gone and said nothing.

    Args:
        folder: The jobs' folder.
        seen: How many lines of progress are known already.

    Returns:
        The exit status 0: it is the last line that tells.

    Raises:
        MeasurementError: The process could not be begun.
    """
    _begin(folder)
    spoken = looked = time.monotonic()
    size = -1
    while True:
        # On a board of one core what we do is taken from what is measured: mostly a stat(2), and nothing else.
        grown, now = _size(folder / PROGRESS_FILE), time.monotonic()
        if grown == size and now - looked < _ALIVE_S:
            time.sleep(_LOOK_S)
            continue
        size, looked = grown, now
        alive, lines = is_running(folder), _lines(folder)  # in this order: a process that is gone writes no more
        if not alive and not (lines and is_last(lines[-1])):
            lines.append(json.dumps({ENDED: "died", "reason": _why_it_died(folder)}))
        over = bool(lines) and is_last(lines[-1])
        new = lines[seen:] or (lines[-1:] if over else [])
        seen += len(new)
        if new or now - spoken >= _SILENCE_S:
            spoken = now
            print("\n".join(new), flush=True)
        if over:
            return 0


def is_last(line: str) -> bool:
    """Whether a line of progress says how the jobs ended."""
    try:
        return ENDED in json.loads(line)
    except ValueError:  # a full disk cut it short
        return False


def stop(folder: Path) -> int:
    """Ends the process that does the jobs of a folder, and with it all that it started; 0 once none lives.

    Raises:
        MeasurementError: It cannot be ended.
    """
    # A killed one leaves measuring processes whose commands have ended, which ends them.
    for number in (signal.SIGTERM, signal.SIGKILL):
        if not is_running(folder):
            return 0
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(_known(folder)["pid"]), number)
        ends = time.monotonic() + _STOP_S
        while is_running(folder) and time.monotonic() < ends:
            time.sleep(_LOOK_S)
    if is_running(folder):
        raise MeasurementError("the process that measures cannot be ended", found=f"process {_known(folder)['pid']}")
    return 0


def is_running(folder: Path) -> bool:
    """Whether the process that does the jobs of a folder lives."""
    try:
        with (folder / RUNNING_FILE).open(encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _begin(folder: Path) -> None:
    """Starts the process unless it was started before; of two that are started at once the second ends by itself."""
    if _begun(folder):
        return
    with (folder / LOG_FILE).open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "edgekit.profiling", "--jobs", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=folder,
            env=child_environment(),
            start_new_session=True,  # no hang-up of ours reaches it
        )
    while not _begun(folder):
        if process.poll() is not None and not _begun(folder):
            raise MeasurementError(
                "the process that measures could not begin",
                found="the disk is full" if nearly_full(folder) else _tail(folder) or f"status {process.returncode}",
            )
        time.sleep(_LOOK_S)


def _begun(folder: Path) -> bool:
    path = folder / RUNNING_FILE
    return path.is_file() and path.stat().st_size > 0


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _lines(folder: Path) -> list[str]:
    """The whole lines of progress so far."""
    try:
        text = (folder / PROGRESS_FILE).read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    return text[: text.rfind("\n") + 1].splitlines()


def _why_it_died(folder: Path) -> str:
    if _known(folder).get("boot") != _boot():
        return "the machine was started anew meanwhile"
    if nearly_full(folder):
        return "the disk is full"
    return f"the process that measures was killed\n{_tail(folder)}".strip()


def _known(folder: Path) -> dict[str, Any]:
    """Which process does the jobs, and of which start of the machine; nothing where that was not written whole."""
    try:
        known: dict[str, Any] = json.loads((folder / RUNNING_FILE).read_text(encoding="utf-8"))
    except ValueError:
        return {}
    return known


def _boot() -> str:
    """What is another one each time the machine starts; empty where the system does not tell."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return ""


def _tail(folder: Path) -> str:
    with contextlib.suppress(OSError):
        return (folder / LOG_FILE).read_text(encoding="utf-8", errors="replace")[-_TAIL_CHARS:].strip()
    return ""
