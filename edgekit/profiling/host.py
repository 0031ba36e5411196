"""Facts about the machine a measurement runs on, read from the system and never guessed."""

from __future__ import annotations

import os
import platform
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from edgekit.runtime.cpu import parse_cpu_model


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One machine.

    Attributes:
        arch: ``x86_64`` or ``aarch64``.
        isa: Instruction-set tier that decides which int8 kernels run.
        cpu_model: CPU model string, or ``unknown``.
        board: Board model string from the device tree, or None.
        gpus: Names of NVIDIA GPUs.
        cores: Cores this process may use (affinity and container limit).
        memory_mb: Memory, in MB (10^6 bytes), within the container's limit.
        governor: cpufreq governor, or ``unknown``.
        os: Kernel name and release.
        python: Python version.
    """

    arch: str
    isa: str
    cpu_model: str
    board: str | None
    gpus: tuple[str, ...]
    cores: int
    memory_mb: float
    governor: str
    os: str
    python: str


@lru_cache(maxsize=1)
def this_host() -> Host:
    """Reads the facts of this machine (once a process)."""
    cpuinfo = _read("/proc/cpuinfo")
    arch = {"AMD64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine())
    return Host(
        arch=arch,
        isa=isa_tier(arch, cpuinfo),
        cpu_model=parse_cpu_model(cpuinfo),
        board=_read("/proc/device-tree/model").strip("\0\n ") or None,
        gpus=_gpus(),
        cores=_cores(),
        memory_mb=_memory_mb(),
        governor=_read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip() or "unknown",
        os=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
    )


def isa_tier(arch: str, cpuinfo: str) -> str:
    """The instruction-set tier of a CPU from the text of ``/proc/cpuinfo``.

    x86: ``amx`` > ``avx512-vnni`` > ``avx512`` > ``avx2-vnni`` > ``avx2`` > ``x86-64``.
    ARM: ``neon-i8mm`` > ``neon-dotprod`` > ``neon``. Anything else is ``unknown``.
    """
    match = re.search(r"^(?:flags|Features)\s*:\s*(.*)$", cpuinfo, re.MULTILINE)
    flags = set(match.group(1).split()) if match else set()
    if arch == "x86_64":
        if "amx_int8" in flags:
            return "amx"
        if "avx512f" in flags:
            return "avx512-vnni" if "avx512_vnni" in flags else "avx512"
        if "avx2" in flags:
            return "avx2-vnni" if "avx_vnni" in flags else "avx2"
        return "x86-64" if flags else "unknown"
    if arch == "aarch64" and flags:
        return "neon-i8mm" if "i8mm" in flags else "neon-dotprod" if "asimddp" in flags else "neon"
    return "unknown"


def _gpus() -> tuple[str, ...]:
    names = []
    for info in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        match = re.search(r"^Model:\s*(.*)$", _read(info), re.MULTILINE)
        names.append(match.group(1).strip() if match else "unknown NVIDIA GPU")
    return tuple(names)


def _cores() -> int:
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _read("/sys/fs/cgroup/cpu.max").split()
    if len(quota) == 2 and quota[0] != "max":
        allowed = min(allowed, max(1, int(quota[0]) // int(quota[1])))
    return allowed


def _memory_mb() -> float:
    match = re.search(r"^MemTotal:\s*(\d+) kB", _read("/proc/meminfo"), re.MULTILINE)
    total = int(match.group(1)) * 1024 if match else 0
    limit = _read("/sys/fs/cgroup/memory.max").strip()
    return (min(total, int(limit)) if limit.isdigit() else total) / 1e6


def _read(path: str | Path) -> str:
    """A file's text, or nothing where the system does not have it: "unknown" is a legal answer."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
