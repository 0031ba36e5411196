"""CPU time of processes and of CPUs, in the kernel's ticks (proc(5)).

A process's own time is exact. A CPU's busy time may be sampled, once a tick: work that sleeps and wakes in step with
the tick is then counted up to twice too little or too much. So others' time is summed from their processes where all
of them can be seen, and is what our own leave of the CPUs' time elsewhere (in a container, or on some of the CPUs).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from edgekit.runtime.system import System, read_text

# The first process-id namespace has this number in every kernel (PROC_PID_INIT_INO): from it every process is seen.
_WHOLE_MACHINE = "pid:[4026531836]"
_SCANS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One process: its parent, when it started (ticks since boot), its own ticks and those of its ended children."""

    parent: int
    started: int
    own: int
    ended_children: int

    @property
    def total(self) -> int:
        """What its parent is charged with when it ends."""
        return self.own + self.ended_children


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuTicks:
    """Ticks of the allowed CPUs since boot."""

    busy: int
    idle: int
    stolen: int


def ticks_per_second() -> int:
    """Ticks a second, as the kernel tells them."""
    return os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


def read_cpus(system: System) -> CpuTicks | None:
    """Ticks of the allowed CPUs, from their own lines; None where the system does not tell."""
    lines = re.findall(r"^cpu(\d+) (.*)$", read_text(system.proc / "stat"), re.MULTILINE)
    rows = [[int(field) for field in fields.split()] for cpu, fields in lines if int(cpu) in system.cpus]
    if not rows or any(len(row) < 8 for row in rows):
        return None
    # user nice system idle iowait irq softirq steal; guests are in user and nice.
    sums = [sum(column) for column in zip(*(row[:8] for row in rows), strict=True)]
    return CpuTicks(busy=sums[0] + sums[1] + sums[2] + sums[5] + sums[6], idle=sums[3] + sums[4], stolen=sums[7])


def read_process(system: System, pid: int) -> Process | None:
    """One process, or None where it is not there."""
    # The name, in brackets, may hold anything, brackets and blanks too.
    fields = read_text(system.proc / str(pid) / "stat").rpartition(")")[2].split()
    if len(fields) < 20:
        return None
    return Process(
        parent=int(fields[1]),
        own=int(fields[11]) + int(fields[12]),
        ended_children=int(fields[13]) + int(fields[14]),
        started=int(fields[19]),
    )


def read_all(system: System) -> Mapping[int, Process] | None:
    """Every process; None where not all can be seen, or others may run on CPUs that are not ours."""
    try:
        whole = os.readlink(system.proc / "self/ns/pid") == _WHOLE_MACHINE
    except OSError:
        return None
    online = set(map(int, re.findall(r"^cpu(\d+) ", read_text(system.proc / "stat"), re.MULTILINE)))
    if not whole or not online <= set(system.cpus) or read_process(system, 1) is None:
        return None
    # One that ends meanwhile would be counted in its parent too, or in neither.
    for _ in range(_SCANS):
        pids = _pids(system)
        found = {pid: process for pid in pids if (process := read_process(system, pid)) is not None}
        if len(found) == len(pids) and pids <= _pids(system):
            return found
    return None


def _pids(system: System) -> set[int]:
    try:
        return {int(name) for name in os.listdir(system.proc) if name.isdigit()}
    except OSError:
        return set()


def with_descendants(ours: Iterable[int], processes: Mapping[int, Process]) -> set[int]:
    """These processes and whatever they started."""
    found = set(ours)
    while more := {pid for pid, process in processes.items() if process.parent in found and pid not in found}:
        found |= more
    return found


def read_threads(system: System, pids: Iterable[int]) -> dict[tuple[int, int], tuple[int, int]]:
    """Nanoseconds on a CPU and nanoseconds ready but waiting for one, by process and thread (schedstat)."""
    found = {}
    for pid in pids:
        for file in (system.proc / str(pid) / "task").glob("*/schedstat"):
            fields = read_text(file).split()
            if len(fields) == 3:
                found[pid, int(file.parent.name)] = (int(fields[0]), int(fields[1]))
    return found
