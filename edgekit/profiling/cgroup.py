"""Limits of the container this process runs in, from control groups of version 2 and 1.

A group is limited by those above it too: the tightest limit counts. Inside a container the path that the kernel names
may be the host's, which the container does not see; its own limits are then at the root of what it sees.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from edgekit.runtime.system import System, read_number, read_text

# Version 1 writes "no limit" as the largest whole number of pages.
_NO_LIMIT_BYTES = 1 << 60


def cpu_limit(system: System) -> float | None:
    """CPUs' worth of time that may be used; None: no limit, or not told."""
    return min((limit for limit, _ in _cpu_limits(system)), default=None)


def throttled_periods(system: System) -> tuple[int, int] | None:
    """Periods of the tightest CPU limit so far, and those in which it stopped us; None: no limit, or not told."""
    _, folder = min(_cpu_limits(system), default=(None, None))
    if folder is None:
        return None
    counts = dict(re.findall(r"^(nr_periods|nr_throttled) (\d+)$", read_text(folder / "cpu.stat"), re.MULTILINE))
    return (int(counts["nr_periods"]), int(counts["nr_throttled"])) if len(counts) == 2 else None


def memory_limit_mb(system: System) -> float | None:
    """Memory that may be used, in MB (10^6 bytes); None: no limit, or not told."""
    limits = []
    for folder in _groups(system, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            limit = read_number(folder / name)
            if limit is not None and limit < _NO_LIMIT_BYTES:
                limits.append(limit / 1e6)
    return min(limits, default=None)


def _cpu_limits(system: System) -> Iterator[tuple[float, Path]]:
    """Every CPU limit on this process, in CPUs, and the group that has it."""
    for folder in _groups(system, "cpu"):
        quota, _, period = read_text(folder / "cpu.max").partition(" ")
        if not quota:
            quota = read_text(folder / "cpu.cfs_quota_us").strip()
            period = read_text(folder / "cpu.cfs_period_us")
        if quota.isdigit() and period.strip().isdigit() and int(period):
            yield int(quota) / int(period), folder


def _groups(system: System, controller: str) -> Iterator[Path]:
    """Folders of this process's group for one controller and of the groups above it, those that exist."""
    mount = system.sys / "fs/cgroup"
    for line in (read_text(system.proc / "self/cgroup") or "0::/").splitlines():
        number, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        if number == "0":
            roots = [mount, mount / "unified"]
        elif controller in names.split(","):
            roots = [mount / controller]
        else:
            continue
        inner = Path(path.lstrip("/"))
        for root in roots:
            yield from (root / part for part in (inner, *inner.parents) if ".." not in part.parts)
