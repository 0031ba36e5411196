"""Facts of the host, read from texts as Linux writes them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edgekit.profiling import host
from edgekit.profiling.host import isa_tier, this_host

PI_5 = """\
processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x4
CPU part\t: 0xd0b
"""

XEON = "processor\t: 0\nmodel name\t: Intel(R) Xeon(R)  Platinum\nflags\t\t: fpu avx2 avx512f avx512_vnni\n"


@pytest.fixture
def system(monkeypatch):
    """Reads facts from the files given instead of the system's."""

    def read_from(files, affinity=64):
        monkeypatch.setattr(host, "_read", lambda path: files.get(str(path), ""))
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(affinity)), raising=False)
        return this_host.__wrapped__()

    return read_from


@pytest.mark.parametrize(
    ("arch", "flags", "tier"),
    [
        ("x86_64", "fpu avx2 avx512f avx512_vnni amx_tile amx_int8", "amx"),
        ("x86_64", "fpu avx2 avx512f avx512_vnni", "avx512-vnni"),
        ("x86_64", "fpu avx2 avx512f", "avx512"),
        ("x86_64", "fpu avx2 avx_vnni", "avx2-vnni"),
        ("x86_64", "fpu avx2", "avx2"),
        ("x86_64", "fpu sse4_2", "x86-64"),
        ("aarch64", "fp asimd asimddp i8mm", "neon-i8mm"),
        ("aarch64", "fp asimd asimddp", "neon-dotprod"),
        ("aarch64", "fp asimd", "neon"),
        ("riscv64", "rv64gc", "unknown"),
    ],
)
def test_instruction_set_tiers(arch, flags, tier):
    key = "Features" if arch == "aarch64" else "flags"
    assert isa_tier(arch, f"processor\t: 0\n{key}\t\t: {flags}\n") == tier


@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_no_flags_is_unknown(arch):
    assert isa_tier(arch, "") == "unknown"


def test_a_raspberry_pi(system, monkeypatch):
    monkeypatch.setattr(host.platform, "machine", lambda: "aarch64")
    found = system(
        {
            "/proc/cpuinfo": PI_5,
            "/proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
            "/proc/meminfo": "MemTotal:        8245824 kB\nMemFree:  1 kB\n",
            "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "ondemand\n",
        },
        affinity=4,
    )
    assert (found.arch, found.isa, found.cpu_model) == ("aarch64", "neon-dotprod", "ARM 0x41 part 0xd0b")
    assert found.board == "Raspberry Pi 5 Model B Rev 1.0"
    assert (found.cores, found.governor) == (4, "ondemand")
    assert found.memory_mb == pytest.approx(8245824 * 1024 / 1e6)


def test_a_container_is_as_large_as_its_limits(system, monkeypatch):
    monkeypatch.setattr(host.platform, "machine", lambda: "x86_64")
    files = {
        "/proc/cpuinfo": XEON,
        "/proc/meminfo": "MemTotal:       65536000 kB\n",
        "/sys/fs/cgroup/cpu.max": "250000 100000\n",
        "/sys/fs/cgroup/memory.max": "4000000000\n",
    }
    found = system(files)
    assert (found.cores, found.memory_mb) == (2, 4000.0)
    assert (found.cpu_model, found.isa) == ("Intel(R) Xeon(R)  Platinum", "avx512-vnni")
    half = system(files | {"/sys/fs/cgroup/cpu.max": "50000 100000\n", "/sys/fs/cgroup/memory.max": "max\n"})
    assert (half.cores, half.memory_mb) == (1, pytest.approx(67108.864))


def test_what_the_system_does_not_say_is_unknown(system, monkeypatch):
    monkeypatch.setattr(host.platform, "machine", lambda: "AMD64")
    found = system({}, affinity=8)
    assert (found.arch, found.isa, found.cpu_model, found.governor) == ("x86_64", "unknown", "unknown", "unknown")
    assert (found.board, found.cores, found.memory_mb) == (None, 8, 0.0)


def test_gpus_are_named_by_the_driver(system, monkeypatch):
    cards = [Path("/proc/driver/nvidia/gpus/0000:01/information"), Path("/proc/driver/nvidia/gpus/0000:02/information")]
    monkeypatch.setattr(Path, "glob", lambda self, pattern: iter(reversed(cards)))
    found = system({str(cards[0]): "Model: \t\t NVIDIA L4\nIRQ:   37\n"})
    assert found.gpus == ("NVIDIA L4", "unknown NVIDIA GPU")


def test_this_host_is_read_once():
    assert this_host() is this_host()
    assert this_host().cores >= 1
