"""What a machine was doing while it was timed, and whether the figures can be trusted.

Everything here is read from the system (:mod:`edgekit.profiling.watching`); what a system does not tell is None or
``unknown``, which is legal and said, never guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgekit.errors import MeasurementError


@dataclass(frozen=True, slots=True, kw_only=True)
class HostState:
    """A machine at one moment. Clocks are means over the CPUs this process may use.

    Attributes:
        governor: cpufreq governor, several joined by ``+`` where the CPUs differ, or ``unknown``.
        frequency_mhz: Present clock.
        min_frequency_mhz: Lowest clock that the settings allow.
        max_frequency_mhz: Highest clock that the settings allow.
        hardware_max_mhz: Highest clock that the CPUs are made for.
        temperature_c: Hottest thermal zone.
        throttle_count: Times the CPUs throttled since boot (x86).
        throttled: What holds the clocks down at this moment, in words; None where the system does not tell.
        throttled_since_boot: What has held them down since boot (Raspberry Pi).
        load_average: Processes running or ready, mean of one minute.
        memory_available_mb: Memory that can be had without swapping, in MB (10^6 bytes).
    """

    governor: str = "unknown"
    frequency_mhz: float | None = None
    min_frequency_mhz: float | None = None
    max_frequency_mhz: float | None = None
    hardware_max_mhz: float | None = None
    temperature_c: float | None = None
    throttle_count: int | None = None
    throttled: tuple[str, ...] | None = None
    throttled_since_boot: tuple[str, ...] | None = None
    load_average: float | None = None
    memory_available_mb: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """A machine over a run.

    Attributes:
        before: As the timed turns began.
        after: As they ended.
        seconds: Time between the two.
        other_load: Share, 0 to 1, of the allowed CPUs' time that processes other than ours used.
        steal: Share, 0 to 1, of the time in which the allowed CPUs had work that the hypervisor took.
        waited: Share, 0 to 1, of our threads' time in which they stood ready and no CPU ran them.
        cpu_limit: CPUs that the container may use; None: no limit, or not told.
        periods: Periods over which the container's CPU limit was kept.
        throttled_periods: Periods in which the container was stopped by its CPU limit.
        memory_limit_mb: Memory that the container may use, in MB (10^6 bytes); None: no limit, or not told.
    """

    before: HostState
    after: HostState
    seconds: float
    other_load: float | None = None
    steal: float | None = None
    waited: float | None = None
    cpu_limit: float | None = None
    periods: int | None = None
    throttled_periods: int | None = None
    memory_limit_mb: float | None = None


def parse_conditions(raw: Mapping[str, Any]) -> Conditions:
    """Builds conditions from their JSON form (:func:`edgekit.artifact.to_json`).

    Raises:
        MeasurementError: It is not the JSON form of conditions.
    """
    try:
        return Conditions(
            **dict(raw) | {"before": _parse_state(raw["before"]), "after": _parse_state(raw["after"])},
        )
    except (KeyError, TypeError, ValueError) as exc:
        raise MeasurementError("not the conditions of a run", found=f"{type(exc).__name__}: {exc}") from exc


def _parse_state(raw: Mapping[str, Any]) -> HostState:
    flags = {
        name: None if raw[name] is None else tuple(map(str, raw[name])) for name in ("throttled", "throttled_since_boot")
    }
    return HostState(**dict(raw) | flags)
