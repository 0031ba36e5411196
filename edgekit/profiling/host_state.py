"""A machine at one moment: clocks, heat, what holds the clocks down, load and memory.

Sources: the kernel's ``admin-guide/pm/cpufreq``, ``driver-api/thermal/sysfs-api`` and ``hwmon/raspberrypi-hwmon``
documents; the bits of a Raspberry Pi are those of ``vcgencmd get_throttled`` in its own documentation.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from edgekit.profiling.conditions import HostState
from edgekit.runtime.system import System, memory_available_mb, read_number, read_text, temperature_c

# Bits of the firmware's word: now; the same 16 bits higher: since boot.
_FIRMWARE_BITS = {0: "under-voltage", 1: "clock capped", 2: "throttled", 3: "soft temperature limit"}
_SINCE_BOOT = 16


def read_state(system: System) -> HostState:
    """The machine as it is now; what it does not tell is None or ``unknown``."""
    throttled, since_boot = _throttled(system)
    loads = read_text(system.proc / "loadavg").split()
    return HostState(
        governor=_governor(system),
        frequency_mhz=_clock_mhz(system, "scaling_cur_freq"),
        min_frequency_mhz=_clock_mhz(system, "scaling_min_freq"),
        max_frequency_mhz=_clock_mhz(system, "scaling_max_freq"),
        hardware_max_mhz=_clock_mhz(system, "cpuinfo_max_freq"),
        temperature_c=temperature_c(system),
        throttle_count=_throttle_count(system),
        throttled=throttled,
        throttled_since_boot=since_boot,
        load_average=float(loads[0]) if loads else None,
        memory_available_mb=memory_available_mb(system),
    )


def clock_source(system: System) -> str:
    """The kernel's clock source, e.g. ``tsc``, or ``unknown``."""
    name = read_text(system.sys / "devices/system/clocksource/clocksource0/current_clocksource").strip()
    return name or "unknown"


def _governor(system: System) -> str:
    names = {read_text(folder / "cpufreq/scaling_governor").strip() for folder in system.cpu_folders()}
    return "+".join(sorted(names - {""})) or "unknown"


def _clock_mhz(system: System, name: str) -> float | None:
    found = [read_number(folder / "cpufreq" / name) for folder in system.cpu_folders()]
    clocks_khz = [khz for khz in found if khz is not None]
    return sum(clocks_khz) / len(clocks_khz) / 1000 if clocks_khz else None


def _throttle_count(system: System) -> int | None:
    """Thermal events of the allowed CPUs and of their packages; every CPU shows its package's whole count."""
    cores: list[int] = []
    packages: dict[str, int] = {}
    for folder in system.cpu_folders():
        core = read_number(folder / "thermal_throttle/core_throttle_count")
        package = read_number(folder / "thermal_throttle/package_throttle_count")
        if core is not None:
            cores.append(core)
        if package is not None:
            packages[read_text(folder / "topology/physical_package_id")] = package
    return sum(cores) + sum(packages.values()) if cores or packages else None


def _throttled(system: System) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None]:
    """What holds the clocks down now, and what has since boot; None where nothing tells."""
    now: list[str] = []
    since_boot: tuple[str, ...] | None = None
    words = _firmware_words(system.sys.glob("devices/platform/soc*/*firmware/get_throttled"))
    alarms = _alarms(system)
    cooling = _cooling(system)
    for word in words:
        now += [text for bit, text in _FIRMWARE_BITS.items() if word >> bit & 1]
        since_boot = tuple(text for bit, text in _FIRMWARE_BITS.items() if word >> bit + _SINCE_BOOT & 1)
    now += [_FIRMWARE_BITS[0] for alarm in alarms if alarm]
    now += [f"{name} at step {step}" for name, step in cooling.items() if step > 0]
    told = bool(words or alarms or cooling)
    return tuple(dict.fromkeys(now)) if told else None, since_boot


def _firmware_words(files: Iterable[Path]) -> list[int]:
    """The firmware's word, in hexadecimal without a prefix."""
    texts = [read_text(file).strip() for file in files]
    return [int(text, 16) for text in texts if re.fullmatch(r"(0x)?[0-9a-fA-F]+", text)]


def _alarms(system: System) -> list[int]:
    """Raspberry Pi's under-voltage alarm, in kernels without the firmware's word."""
    sensors = [f for f in system.sys.glob("class/hwmon/hwmon*") if read_text(f / "name").strip() == "rpi_volt"]
    found = [read_number(folder / "in0_lcrit_alarm") for folder in sensors]
    return [alarm for alarm in found if alarm is not None]


def _cooling(system: System) -> dict[str, int]:
    """The kernel's own cooling by lower CPU clocks (ARM boards): the step in force, 0 where none is."""
    steps = {}
    for folder in sorted(system.sys.glob("class/thermal/cooling_device*")):
        name, step = read_text(folder / "type").strip(), read_number(folder / "cur_state")
        if "cpufreq" in name and step is not None:
            steps[name] = step
    return steps
