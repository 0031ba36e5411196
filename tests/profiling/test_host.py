"""Facts of the host, read from files as Linux writes them."""

from __future__ import annotations

import dataclasses

import fake_machines
import pytest
from fake_machines import machine

from edgekit.profiling import host
from edgekit.profiling.host import half_precisions, isa_tier, read_host, this_host


@pytest.fixture
def arch(monkeypatch):
    """Sets the machine's architecture."""
    return lambda name: monkeypatch.setattr(host.platform, "machine", lambda: name)


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


def test_a_raspberry_pi(tmp_path, arch):
    arch("aarch64")
    found = read_host(machine(tmp_path, fake_machines.RASPBERRY_PI_5))
    assert (found.arch, found.isa, found.cpu_model) == ("aarch64", "neon-dotprod", "ARM 0x41 part 0xd0b")
    assert found.board == "Raspberry Pi 5 Model B Rev 1.0"
    assert (found.cores, found.governor) == (4, "ondemand")
    assert found.memory_mb == pytest.approx(8245824 * 1024 / 1e6)


def test_a_container_is_as_large_as_its_limits(tmp_path, arch):
    arch("x86_64")
    found = read_host(machine(tmp_path, fake_machines.CONTAINER, cpus=64))
    assert (found.cores, found.memory_mb) == (2, 4000.0)
    assert (found.cpu_model, found.isa) == ("Intel(R) Xeon(R)  Platinum", "avx512-vnni")
    limits = {"sys/fs/cgroup/cpu.max": "50000 100000\n", "sys/fs/cgroup/memory.max": "max\n"}
    half = read_host(machine(tmp_path, limits, cpus=64))
    assert (half.cores, half.memory_mb) == (1, pytest.approx(67108.864))


def test_a_container_of_the_first_kind_is_as_large_as_its_limits(tmp_path):
    files = fake_machines.OLD_CONTAINER | {"proc/meminfo": "MemTotal:       65536000 kB\n"}
    found = read_host(machine(tmp_path, files, cpus=64))
    assert (found.cores, found.memory_mb) == (1, 512.0)


def test_what_the_system_does_not_say_is_unknown(tmp_path, arch):
    arch("AMD64")
    found = read_host(machine(tmp_path, fake_machines.NOTHING, cpus=8))
    assert (found.arch, found.isa, found.cpu_model, found.governor) == ("x86_64", "unknown", "unknown", "unknown")
    assert (found.board, found.cores, found.memory_mb, found.gpus) == (None, 8, 0.0, ())


def test_gpus_are_named_by_the_driver(tmp_path):
    files = {
        "proc/driver/nvidia/gpus/0000:02/information": "IRQ: 3\n",
        "proc/driver/nvidia/gpus/0000:01/information": "Model: \t\t NVIDIA L4\nIRQ:   37\n",
    }
    assert read_host(machine(tmp_path, files)).gpus == ("NVIDIA L4", "unknown NVIDIA GPU")


def test_this_host_is_read_once():
    assert this_host() is this_host()
    assert this_host().cores >= 1


def test_nothing_that_changes_over_a_run_is_a_fact_of_the_host(tmp_path):
    """A measurement is known again by its host: one that changed would be measured anew, every time."""
    before = read_host(machine(tmp_path, fake_machines.RASPBERRY_PI_5 | fake_machines.cpu_ticks((1, 1, 1))))
    later = {
        "proc/loadavg": "9.99 8.88 7.77 9/999 99\n",
        "proc/meminfo": "MemTotal:        8245824 kB\nMemFree:  7 kB\nMemAvailable:    1000 kB\n",
        "sys/class/thermal/thermal_zone0/temp": "84000\n",
        "sys/devices/platform/soc/soc:firmware/get_throttled": "F000F\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "600000\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq": "1000000\n",
    }
    assert read_host(machine(tmp_path, later | fake_machines.cpu_ticks((2, 2, 2)))) == before
    assert {f.name for f in dataclasses.fields(before)} == {
        *("arch", "isa", "cpu_model", "board", "gpus", "cores", "memory_mb", "governor", "os", "python")
    }


@pytest.mark.parametrize(
    ("arch", "flags", "runs"),
    [
        ("x86_64", "flags : avx512f avx512_vnni", ()),
        ("x86_64", "flags : avx512f avx512_bf16", ("bf16",)),
        ("x86_64", "flags : amx_bf16 avx512_fp16", ("fp16", "bf16")),
        ("aarch64", "Features : fp asimd asimdhp asimddp", ("fp16",)),
        ("aarch64", "Features : asimd", ()),
        ("riscv64", "", ()),
    ],
)
def test_half_precisions_need_their_instructions(arch, flags, runs):
    assert half_precisions(arch, f"model name : x\n{flags}\n") == runs
