"""Facts about the machine a measurement runs on, read from the system and never guessed."""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass
from functools import lru_cache

from edgekit.profiling.cgroup import cpu_limit, memory_limit_mb
from edgekit.runtime.cpu import parse_cpu_model
from edgekit.runtime.system import System, read_text, this_system

_FLAGS = re.compile(r"^(?:flags|Features)\s*:\s*(.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One machine. Nothing here changes while it runs: a measurement is known again by it.

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
    return read_host(this_system())


def read_host(system: System) -> Host:
    """Reads the facts of a machine from its files."""
    cpuinfo = read_text(system.proc / "cpuinfo")
    arch = {"AMD64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine())
    return Host(
        arch=arch,
        isa=isa_tier(arch, cpuinfo),
        cpu_model=parse_cpu_model(cpuinfo),
        board=read_text(system.proc / "device-tree/model").strip("\0\n ") or None,
        gpus=_gpus(system),
        cores=_cores(system),
        memory_mb=_memory_mb(system),
        governor=read_text(system.sys / "devices/system/cpu/cpu0/cpufreq/scaling_governor").strip() or "unknown",
        os=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
    )


def isa_tier(arch: str, cpuinfo: str) -> str:
    """The instruction-set tier of a CPU from the text of ``/proc/cpuinfo``.

    x86: ``amx`` > ``avx512-vnni`` > ``avx512`` > ``avx2-vnni`` > ``avx2`` > ``x86-64``.
    ARM: ``neon-i8mm`` > ``neon-dotprod`` > ``neon``. Anything else is ``unknown``.
    """
    match = _FLAGS.search(cpuinfo)
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


@lru_cache(maxsize=1)
def half_precisions_here() -> tuple[str, ...]:
    """``fp16`` and ``bf16`` where this machine's CPU computes in them (read once a process)."""
    host = this_host()
    return half_precisions(host.arch, read_text(this_system().proc / "cpuinfo"))


def half_precisions(arch: str, cpuinfo: str) -> tuple[str, ...]:
    """``fp16`` and ``bf16`` where a CPU computes in them, from the text of ``/proc/cpuinfo``.

    x86: AVX512-FP16; AVX512-BF16 or AMX-BF16. ARM: half-precision vectors of Armv8.2; BF16 of Armv8.6.
    """
    match = _FLAGS.search(cpuinfo)
    flags = set(match.group(1).split()) if match else set()
    fp16, bf16 = ({"avx512_fp16"}, {"avx512_bf16", "amx_bf16"}) if arch == "x86_64" else ({"asimdhp"}, {"bf16"})
    return tuple(name for name, any_of in (("fp16", fp16), ("bf16", bf16)) if flags & any_of)


def _gpus(system: System) -> tuple[str, ...]:
    names = []
    for info in sorted(system.proc.glob("driver/nvidia/gpus/*/information")):
        match = re.search(r"^Model:\s*(.*)$", read_text(info), re.MULTILINE)
        names.append(match.group(1).strip() if match else "unknown NVIDIA GPU")
    return tuple(names)


def _cores(system: System) -> int:
    limit = cpu_limit(system)
    allowed = len(system.cpus)
    return allowed if limit is None else min(allowed, max(1, int(limit)))


def _memory_mb(system: System) -> float:
    match = re.search(r"^MemTotal:\s*(\d+) kB", read_text(system.proc / "meminfo"), re.MULTILINE)
    total = int(match.group(1)) * 1024 / 1e6 if match else 0.0
    limit = memory_limit_mb(system)
    return total if limit is None else min(total, limit)
