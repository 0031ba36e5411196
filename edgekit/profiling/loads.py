"""Loads of one artifact in short processes of their own: cold, and from the engine's cache."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from edgekit.artifact import read_json
from edgekit.errors import BundleError
from edgekit.profiling.child import Failure, ending, exited, started
from edgekit.profiling.job import LOAD_FILE, Job, LoadKind
from edgekit.runtime import with_cache

CACHED_LOADS = 2
MOST_S = 20.0  # no load begins after so long: one that takes a minute is known well enough from few


@dataclass(frozen=True, slots=True, kw_only=True)
class Loads:
    """What the short processes of one artifact gave.

    Attributes:
        cold_ms: Cold loads.
        first_inferences_ms: The first query after each of them.
        cached_ms: Loads from the engine's own cache; empty where it has none.
        cached_note: Why there is none though the engine has a cache.
    """

    cold_ms: tuple[float, ...] = ()
    first_inferences_ms: tuple[float, ...] = ()
    cached_ms: tuple[float, ...] = ()
    cached_note: str | None = None


def load_again(job: Job) -> Loads | Failure:
    """Loads an artifact in fresh processes, one after another.

    A cold load that fails is the artifact's failure. One by way of the engine's cache is not: what ships does not
    use it, so there is a note in place of figures.
    """
    again = job.load.cold_loads - 1
    if not again:
        return Loads()
    ends = perf_counter() + MOST_S
    cold: list[Mapping[str, Any]] = []
    while len(cold) < again and perf_counter() < ends:
        found = _load_once(job, "cold", "loading once more")
        if isinstance(found, Failure):
            return found
        cold.append(found)
    cached_ms, note = _from_cache(job, ends)
    return Loads(
        cold_ms=tuple(found["load_ms"] for found in cold),
        first_inferences_ms=tuple(found["first_inference_ms"] for found in cold),
        cached_ms=cached_ms,
        cached_note=note,
    )


def _from_cache(job: Job, ends: float) -> tuple[tuple[float, ...], str | None]:
    """Loads from the engine's cache, which one more process fills, or why there are none."""
    if with_cache(job.artifact) is None:
        return (), None
    cached_ms: list[float] = []
    for index in range(1 + CACHED_LOADS):
        if perf_counter() >= ends:
            break
        found = _load_once(job, "cached", "loading by way of its engine's cache")
        if isinstance(found, Failure):
            return (), found.reason
        if index > 0 and not found["from_cache"]:
            return (), f"{job.artifact.engine} did not load it from its cache"
        if index > 0:
            cached_ms.append(found["load_ms"])
    return tuple(cached_ms), None if cached_ms else f"not tried: loading takes too long for more within {MOST_S:g} s"


def _load_once(job: Job, kind: LoadKind, doing: str) -> Mapping[str, Any] | Failure:
    written = job.folder / LOAD_FILE
    written.unlink(missing_ok=True)
    with started(job, "--load", kind) as child:
        status = ending(child, doing)
        if isinstance(status, Failure):
            return status
        try:
            found: Mapping[str, Any] = read_json(written)
        except BundleError:
            return exited(child, status, doing)
    return found if found["reason"] is None else Failure(status="failed", reason=found["reason"])
