"""Where artifacts are measured, when that is not this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from edgekit.artifact import Array, Artifact
from edgekit.processing_specs import Preprocessing
from edgekit.profiling.host import Host, this_host
from edgekit.profiling.load import LoadSpec
from edgekit.profiling.measured import Measured
from edgekit.progress import Progress, silent
from edgekit.runtime import engine_version, missing


class Measure(Protocol):
    """What :func:`edgekit.profiling.measure.measure_in_turns` does, elsewhere."""

    def __call__(
        self,
        artifacts: Sequence[Artifact],
        load: LoadSpec,
        feeds: Mapping[str, Array],
        *,
        preprocessing: Preprocessing | None = None,
        progress: Progress = silent,
    ) -> list[Measured]:
        """Measures artifacts side by side."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Place:
    """A device as those see it who have artifacts measured there.

    Attributes:
        name: What it is called in messages.
        host: Its facts.
        builds: The build of every engine that executes there, by engine.
        lacking: By engine, why it does not execute there.
        measure: Measures there; of an artifact in a bundle's folder the golden samples are run there first.
    """

    name: str
    host: Host
    builds: Mapping[str, str]
    lacking: Mapping[str, str]
    measure: Measure


def host_of(place: Place | None) -> Host:
    """The machine that artifacts are measured on; None: this one."""
    return this_host() if place is None else place.host


def lacks(place: Place | None, engine: str) -> str | None:
    """Why an engine cannot execute there, or None; see :func:`edgekit.runtime.missing`.

    Raises:
        UnknownName: There is no such engine.
    """
    if place is None:
        return missing(engine)
    if engine in place.builds:
        return None
    return place.lacking.get(engine, "its edgekit does not know it")


def build_of(place: Place | None, engine: str) -> str:
    """The build of an engine there, e.g. ``1.31.1``, or that there is none."""
    if lacks(place, engine) is not None:
        return "(not installed)"
    return engine_version(engine) if place is None else place.builds[engine]
