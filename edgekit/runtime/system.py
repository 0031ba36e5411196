"""Where facts about a machine are read from: the files of ``/proc`` and ``/sys``."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Zones that are switched off or have no sensor give values that no running machine has.
_PLAUSIBLE_C = (-40.0, 150.0)
_CPU_SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal")


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


def temperature_c(system: System) -> float | None:
    """The hottest of the machine's thermal zones and of its CPU's own sensors; None where it does not tell."""
    files = list(system.sys.glob("class/thermal/thermal_zone*/temp"))
    for folder in system.sys.glob("class/hwmon/hwmon*"):
        if read_text(folder / "name").strip() in _CPU_SENSORS:
            files += folder.glob("temp*_input")
    low, high = _PLAUSIBLE_C
    found = [milli / 1000 for milli in map(read_number, files) if milli is not None and low < milli / 1000 < high]
    return max(found, default=None)


def memory_available_mb(system: System) -> float | None:
    """Memory that programs could still get, in MB (10^6 bytes); None where the machine does not tell."""
    return _kb("MemAvailable", system.proc / "meminfo")


def resident_mb(system: System) -> float | None:
    """Memory of this process that is in RAM, in MB (10^6 bytes); None where the machine does not tell."""
    return _kb("VmRSS", system.proc / "self/status")


def peak_resident_mb(system: System) -> float | None:
    """Its most since the process began, or since its mark was set back, in MB; None where the machine does not tell."""
    return _kb("VmHWM", system.proc / "self/status")


def boot_id(system: System) -> str:
    """What tells one start of this machine from every other, or ``unknown``."""
    return read_text(system.proc / "sys/kernel/random/boot_id").strip() or "unknown"


def _kb(name: str, path: Path) -> float | None:
    found = re.search(rf"^{name}:\s*(\d+) kB", read_text(path), re.MULTILINE)
    return int(found.group(1)) * 1024 / 1e6 if found else None
