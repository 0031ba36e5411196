"""Observes the machine before and after a run; what happened in between follows from the two."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from time import monotonic

from edgekit.profiling.cgroup import cpu_limit, memory_limit_mb, throttled_periods
from edgekit.profiling.conditions import Conditions, HostState
from edgekit.profiling.host_state import read_state
from edgekit.profiling.processes import (
    CpuTicks,
    Process,
    read_all,
    read_cpus,
    read_process,
    read_threads,
    ticks_per_second,
    with_descendants,
)
from edgekit.runtime.system import System, this_system

# The kernel counts in ticks of 10 ms, one more or less a CPU and a process: a second of two CPUs is told to 2%.
SHORTEST_SECONDS = 1.0
# Fewer ticks of work than this say nothing about the share that the hypervisor took.
_FEWEST_TICKS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The machine's state and counters at one moment.

    Attributes:
        at_s: Monotonic clock.
        state: What the machine is like.
        cpu_count: CPUs this process may use.
        cpus: Their ticks.
        us: This process.
        ours: The measuring processes, those that live.
        everyone: Every process, where all can be seen.
        threads: Nanoseconds running and waiting of the measuring processes' threads, by process and thread.
        cpu_limit: CPUs that the container may use.
        periods: Periods of that limit so far, and those in which it stopped the container.
        memory_limit_mb: Memory that the container may use.
    """

    at_s: float
    state: HostState
    cpu_count: int
    cpus: CpuTicks | None
    us: tuple[int, Process | None]
    ours: Mapping[int, Process]
    everyone: Mapping[int, Process] | None
    threads: Mapping[tuple[int, int], tuple[int, int]]
    cpu_limit: float | None
    periods: tuple[int, int] | None
    memory_limit_mb: float | None


def observe(our_pids: Iterable[int], *, system: System | None = None, at_s: float | None = None) -> Sample:
    """The machine's state and counters now.

    Args:
        our_pids: The measuring processes, those that have ended too: their work is not others'. This process is ours
            as well, the other processes that it started are not.
        system: The machine to read; this one where None.
        at_s: The monotonic clock; read now where None.
    """
    system = system or this_system()
    pids = tuple(our_pids)
    state, everyone = read_state(system), read_all(system)
    ours = {pid: process for pid in pids if (process := read_process(system, pid)) is not None}
    return Sample(
        state=state,
        cpu_count=len(system.cpus),
        us=(system.pid, read_process(system, system.pid)),
        ours=ours,
        everyone=everyone,
        threads=read_threads(system, pids),
        cpu_limit=cpu_limit(system),
        periods=throttled_periods(system),
        memory_limit_mb=memory_limit_mb(system),
        cpus=read_cpus(system),
        at_s=monotonic() if at_s is None else at_s,
    )


def conditions_between(before: Sample, after: Sample, *, shortest_s: float = SHORTEST_SECONDS) -> Conditions:
    """What happened between two samples.

    Args:
        before: As the run began.
        after: As it ended, of the same processes.
        shortest_s: Shares of a shorter run are not told: the kernel's counters are too coarse for it.
    """
    seconds = after.at_s - before.at_s
    told = seconds >= shortest_s
    periods = None
    if before.periods and after.periods:
        periods = (after.periods[0] - before.periods[0], after.periods[1] - before.periods[1])
    return Conditions(
        before=before.state,
        after=after.state,
        seconds=seconds,
        other_load=_other_load(before, after, seconds) if told else None,
        steal=_steal(before, after) if told else None,
        waited=_waited(before, after) if told else None,
        cpu_limit=after.cpu_limit,
        periods=periods[0] if periods else None,
        throttled_periods=periods[1] if periods else None,
        memory_limit_mb=after.memory_limit_mb,
    )


def _other_load(before: Sample, after: Sample, seconds: float) -> float | None:
    if before.cpus is None or after.cpus is None or before.cpu_count != after.cpu_count:
        return None
    capacity = seconds * ticks_per_second() * after.cpu_count
    idle = after.cpus.idle - before.cpus.idle
    stolen = after.cpus.stolen - before.cpus.stolen
    busy = min(max(capacity - idle - stolen, 0.0), capacity)
    if before.everyone is not None and after.everyone is not None:
        others: float = _others_ticks(before, after, before.everyone, after.everyone, busy)
    elif (ours := _our_ticks(before, after)) is not None:
        others = busy - ours
    else:
        return None
    return min(max(others / capacity, 0.0), 1.0)


def _others_ticks(
    before: Sample, after: Sample, earlier: Mapping[int, Process], later: Mapping[int, Process], busy: float
) -> float:
    """Ticks of every process that is not ours; of those that ended in between, as their parents were charged."""
    ours = with_descendants([*before.ours, *after.ours], dict(earlier) | dict(later)) | {after.us[0]}
    visible = charged = 0
    for pid, process in later.items():
        if pid in ours:
            continue
        then = earlier.get(pid)
        if then is None or then.started != process.started:
            visible += process.own
            charged += process.ended_children
        else:
            visible += process.own - then.own
            charged += process.ended_children - then.ended_children
    for pid, process in earlier.items():
        ended = pid not in later or later[pid].started != process.started
        if ended and pid not in ours and process.parent not in ours:
            charged -= process.total  # what it had used before the run is charged to its parent too
    # One that changed parents before it ended is charged whole to another: no more than what kept the CPUs busy.
    return visible + min(max(charged, 0), max(busy - visible, 0.0))


def _our_ticks(before: Sample, after: Sample) -> int | None:
    """Ticks of this process and the measuring ones; None where one ended and nobody was charged with its time."""
    us, we = before.us[1], after.us[1]
    if us is None or we is None:
        return None
    ticks = we.own - us.own
    ended = []
    for pid, then in before.ours.items():
        now = after.ours.get(pid)
        if now is None or now.started != then.started:
            ended.append(then)
        else:
            ticks += now.total - then.total
    if ended:
        charged = we.ended_children - us.ended_children
        spent_before = sum(process.total for process in ended)
        if charged < spent_before:
            return None
        ticks += charged - spent_before
    return ticks + sum(process.total for pid, process in after.ours.items() if pid not in before.ours)


def _steal(before: Sample, after: Sample) -> float | None:
    if before.cpus is None or after.cpus is None:
        return None
    stolen = after.cpus.stolen - before.cpus.stolen
    wanted = after.cpus.busy - before.cpus.busy + stolen
    return max(stolen / wanted, 0.0) if wanted >= _FEWEST_TICKS else None


def _waited(before: Sample, after: Sample) -> float | None:
    """Threads that ended in between are not counted; a kernel that keeps no such counts writes noughts."""
    ran = waited = 0
    for thread, (running, waiting) in after.threads.items():
        ran_before, waited_before = before.threads.get(thread, (0, 0))
        ran += running - ran_before
        waited += waiting - waited_before
    return max(waited / (ran + waited), 0.0) if ran > 0 and waited >= 0 else None
