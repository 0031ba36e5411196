"""A target's threads and CPUs as options of an engine."""

from __future__ import annotations

from edgekit.artifact import Option
from edgekit.runtime.affinity import OPTION, spell_cpus
from edgekit.specs import Target


def placed_on(target: Target, threads: str) -> dict[str, Option]:
    """The number of threads, under the engine's own name for it, and the CPUs; nothing that the target leaves open."""
    options: dict[str, Option] = {}
    cpus = target.cpus or ()
    count = target.threads or len(set(cpus))
    if count:
        options[threads] = count
    if cpus:
        options[OPTION] = spell_cpus(cpus)
    return options
