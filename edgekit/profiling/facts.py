"""``python -m edgekit.profiling.facts``: what a machine is, which engines run there, and what would disturb timing."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import time
from typing import Any

from edgekit.profiling.conditions import caveats, spoiled
from edgekit.profiling.host import this_host
from edgekit.profiling.host_state import clock_source
from edgekit.profiling.load import LoadSpec
from edgekit.profiling.watching import conditions_between, observe
from edgekit.runtime import ENGINES, engine_version, missing
from edgekit.runtime.system import System, this_system

# Long enough for the kernel's ticks of 10 ms to tell a busy machine from an idle one, and hardly felt.
WATCH_SECONDS = 0.3
# Read through the kernel and a device, instead of from a register of the CPU.
SLOW_CLOCKS = ("acpi_pm", "hpet", "jiffies", "refined-jiffies")


def timing(system: System, watch_s: float = WATCH_SECONDS) -> dict[str, Any]:
    """What a machine is like for timing at this moment, and what to do about it.

    Args:
        system: The machine.
        watch_s: How long it is watched, in seconds.

    Returns:
        ``clock_source``, ``conditions`` (a :class:`Conditions`) and ``advice``.
    """
    before = observe([], system=system)
    time.sleep(watch_s)
    found = conditions_between(before, observe([], system=system), shortest_s=watch_s)
    clock = clock_source(system)
    advice = caveats(found)
    if clock in SLOW_CLOCKS:
        advice.append(f"the clock source is {clock}: every reading takes a microsecond or more; allow tsc at boot")
    if (why := spoiled(found, LoadSpec())) is not None:
        advice.insert(0, f"a run now would be spoiled: {why}")
    return {"clock_source": clock, "conditions": found, "advice": advice}


def executes() -> dict[str, str | None]:
    """By engine, why it cannot execute here; None: it can."""
    if importlib.util.find_spec("numpy") is None:
        return dict.fromkeys(ENGINES, "the package numpy is not installed: pip install numpy")
    return {engine: missing(engine) for engine in ENGINES}


def main() -> None:
    """Prints the facts of this machine as JSON: ``host``, ``timing``, ``execute`` and ``versions`` by engine."""
    now, lacking = timing(this_system()), executes()
    facts = {
        "host": dataclasses.asdict(this_host()),
        "timing": {**now, "conditions": dataclasses.asdict(now["conditions"])},
        "execute": lacking,
        "versions": {engine: engine_version(engine) for engine, why in lacking.items() if why is None},
    }
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
