"""Which process of a workstation holds a device, so that one that was killed does not keep its own user out."""

from __future__ import annotations

import os
from pathlib import Path

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_START = 19  # of /proc/PID/stat behind the name, in clock ticks since the machine was started: proc_pid_stat(5)


def this_process() -> str:
    """This process as no other one is called, on this machine or elsewhere; empty where the system does not tell."""
    started = _started(os.getpid())
    return f"{_boot()}:{os.getpid()}:{started}" if started else ""


def has_ended(process: str) -> bool:
    """Whether a process, as :func:`this_process` called it, was one of this machine and is no more."""
    boot, _, rest = process.partition(":")
    number, _, started = rest.partition(":")
    if not number.isdecimal() or not started or boot != _boot():
        return False
    return _started(int(number)) != started


def _boot() -> str:
    return _BOOT.read_text().strip() if _BOOT.is_file() else ""


def _started(process: int) -> str:
    try:
        told = Path(f"/proc/{process}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    state, *fields = told.rpartition(")")[2].split()
    return "" if state == "Z" else fields[_START - 1]
