"""What a machine was doing while it was timed, and whether the figures can be trusted.

Everything here is read from the system (:mod:`edgekit.profiling.watching`); what a system does not tell is None or
``unknown``, which is legal and said, never guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgekit.errors import MeasurementError
from edgekit.profiling.load import LoadSpec

# Of the periods of a container's CPU limit, the share in which it may be stopped: each stops a query for up to a
# whole period (100 ms as a rule), so one in twenty is far above what a tail of one in a hundred bears.
MAX_THROTTLED_PERIODS = 0.05
# Relative change of the highest clock allowed. Present clocks are not judged: they are read while the CPUs are idle,
# and on a Raspberry Pi they do not show throttling.
MAX_CLOCK_CHANGE = 0.10
# From here on a share of the time is worth a line, though it does not spoil a run.
WORTH_SAYING = 0.05
# A machine with less to spare may swap while it is timed.
LITTLE_MEMORY_MB = 100.0

_SET_GOVERNOR = "sudo cpupower frequency-set -g performance"


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
        name: None if raw[name] is None else tuple(map(str, raw[name]))
        for name in ("throttled", "throttled_since_boot")
    }
    return HostState(**dict(raw) | flags)


def spoiled(conditions: Conditions, load: LoadSpec) -> str | None:
    """Why the figures of a run are not the target's own, or None. What the system did not tell spoils nothing.

    Args:
        conditions: What was observed over the run.
        load: Says how much load of others it bears; the hypervisor's guests are others too.
    """
    reasons = [
        *_disturbed(conditions, load.max_other_load),
        *_stopped_by_limit(conditions),
        *_throttled(conditions),
        *_changed(conditions.before, conditions.after),
    ]
    return "; ".join(reasons) or None


def _disturbed(conditions: Conditions, allowed: float) -> list[str]:
    reasons = []
    if conditions.other_load is not None and conditions.other_load > allowed:
        reasons.append(
            f"others used {_percent(conditions.other_load)} of the CPUs while this was measured "
            f"(at most {allowed:.0%}): stop them, or measure again"
        )
    if conditions.steal is not None and conditions.steal > allowed:
        reasons.append(
            f"the hypervisor took {_percent(conditions.steal)} of the time this machine's CPUs wanted to work "
            f"(at most {allowed:.0%}): measure on a machine that is not shared, or again later"
        )
    return reasons


def _stopped_by_limit(conditions: Conditions) -> list[str]:
    if not conditions.throttled_periods or not conditions.periods:
        return []
    if conditions.throttled_periods <= MAX_THROTTLED_PERIODS * conditions.periods:
        return []
    return [
        f"the container's limit of {_cpus(conditions)} stopped this run in {conditions.throttled_periods} of "
        f"{conditions.periods} periods (at most {MAX_THROTTLED_PERIODS:.0%}): raise the limit, or use fewer threads"
    ]


def _throttled(conditions: Conditions) -> list[str]:
    before, after = conditions.before, conditions.after
    reasons = []
    if before.throttle_count is not None and after.throttle_count is not None:
        events = after.throttle_count - before.throttle_count
        if events > 0:
            reasons.append(
                f"the CPUs throttled {events} times while this was measured (at most 0{_heat(after)}): "
                "cool the machine, or let it rest, and measure again"
            )
    held = set(before.throttled or ()) | set(after.throttled or ())
    # What shows since boot only now held the clocks down during the run, though not as it began or ended.
    if before.throttled_since_boot is not None and after.throttled_since_boot is not None:
        held |= set(after.throttled_since_boot) - set(before.throttled_since_boot)
    if held:
        reasons.append(
            f"the clocks were held down while this was measured: {', '.join(sorted(held))} (allowed: nothing"
            f"{_heat(after)}): give it a stronger power supply or better cooling, and measure again"
        )
    return reasons


def _changed(before: HostState, after: HostState) -> list[str]:
    reasons = []
    if before.governor != after.governor:
        reasons.append(
            f"the governor changed from {before.governor} to {after.governor} while this was measured "
            "(allowed: one): leave it as it is, and measure again"
        )
    if before.max_frequency_mhz and after.max_frequency_mhz:
        change = after.max_frequency_mhz / before.max_frequency_mhz - 1
        if abs(change) > MAX_CLOCK_CHANGE:
            reasons.append(
                f"the highest clock allowed went from {before.max_frequency_mhz:.0f} to {after.max_frequency_mhz:.0f} "
                f"MHz while this was measured (at most {MAX_CLOCK_CHANGE:.0%} apart): keep the power mode, and "
                "measure again"
            )
    return reasons


def caveats(conditions: Conditions) -> list[str]:
    """What a reader of the figures must know, though it does not spoil them: one line each."""
    before, after = conditions.before, conditions.after
    lines = [*_clock_caveats(before), *_unknown(conditions)]
    if before.throttled_since_boot:
        lines.append(
            f"since it started, this board has shown {', '.join(before.throttled_since_boot)}: its power supply or "
            "cooling may fail it under load"
        )
    if conditions.waited is not None and conditions.waited > WORTH_SAYING:
        lines.append(
            f"for {_percent(conditions.waited)} of their time the measured threads were ready and no CPU was free "
            f"(up to {WORTH_SAYING:.0%} is usual): stop what else runs, or use fewer threads"
        )
    if conditions.steal is not None and conditions.steal > WORTH_SAYING:
        lines.append(f"the hypervisor took {_percent(conditions.steal)} of the time this machine's CPUs wanted to work")
    if conditions.throttled_periods and not _stopped_by_limit(conditions):
        lines.append(
            f"the container's limit of {_cpus(conditions)} stopped this run in {conditions.throttled_periods} "
            f"{'period' if conditions.throttled_periods == 1 else 'periods'}"
        )
    lowest = min((s.memory_available_mb for s in (before, after) if s.memory_available_mb is not None), default=None)
    if lowest is not None and lowest < LITTLE_MEMORY_MB:
        lines.append(f"only {lowest:.0f} MB of memory were left: the machine may have swapped")
    return lines


def _clock_caveats(state: HostState) -> list[str]:
    lines = []
    if state.governor not in ("unknown", "performance"):
        lines.append(
            f"the governor is {state.governor}, not performance: clocks may follow the load; "
            f"`{_SET_GOVERNOR}` holds them"
        )
    highest, made_for = state.max_frequency_mhz, state.hardware_max_mhz
    if highest and made_for and highest < (1 - MAX_CLOCK_CHANGE) * made_for:
        lines.append(
            f"the settings allow {highest:.0f} of {made_for:.0f} MHz: a power mode or a limit holds the clocks down"
        )
    return lines


def _unknown(conditions: Conditions) -> list[str]:
    state = conditions.after
    unknown = [
        *(["clocks"] if state.governor == "unknown" and state.frequency_mhz is None else []),
        *(["temperature"] if state.temperature_c is None else []),
        *(["throttling"] if state.throttle_count is None and state.throttled is None else []),
    ]
    lines = []
    if unknown:
        lines.append(f"this system does not tell its {_listed(unknown)}: slower clocks and heat may go unseen")
    if conditions.other_load is None:
        lines.append(f"how much others used the CPUs in these {conditions.seconds:.1f} s is not known")
    return lines


def _listed(words: list[str]) -> str:
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.1 else f"{share:.1%}"


def _cpus(conditions: Conditions) -> str:
    return "its CPUs" if conditions.cpu_limit is None else f"{conditions.cpu_limit:g} CPUs"


def _heat(state: HostState) -> str:
    return "" if state.temperature_c is None else f", at {state.temperature_c:.0f} °C"
