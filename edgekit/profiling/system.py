"""Where facts about a machine are read from: the files of ``/proc`` and ``/sys``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class System:
    """A machine's files, and this process on it.

    Attributes:
        proc: The machine's ``/proc``.
        sys: The machine's ``/sys``.
        cpus: Numbers of the CPUs this process may use.
        pid: This process.
    """

    proc: Path
    sys: Path
    cpus: tuple[int, ...]
    pid: int

    def cpu_folders(self) -> Iterator[Path]:
        """The folders in ``/sys`` of the CPUs this process may use."""
        return (self.sys / f"devices/system/cpu/cpu{cpu}" for cpu in self.cpus)


def this_system() -> System:
    """The machine that this process runs on."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    return System(proc=Path("/proc"), sys=Path("/sys"), cpus=tuple(sorted(allowed)), pid=os.getpid())


def read_text(path: Path) -> str:
    """A file's text, or nothing where the system does not have it or tell it: "unknown" is a legal answer."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def read_number(path: Path) -> int | None:
    """The whole number in a file, or None where the file is missing or holds something else."""
    try:
        return int(read_text(path))
    except ValueError:
        return None
