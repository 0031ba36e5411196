"""What is counted of a running bundle: a third of a microsecond a query, and its values in one query of some."""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from edgekit.artifact import Array, Manifest
from edgekit.errors import FeedError
from edgekit.runtime.watch.latency import bucket
from edgekit.runtime.watch.tensors import Statistics
from edgekit.runtime.watch.windows import TensorWindow

_WINDOW = 64  # samples, where the bundle names none


class Taken(Protocol):
    """What a stream tells of its frames."""

    @property
    def taken(self) -> int:
        """Frames that were given."""
        ...

    @property
    def dropped(self) -> int:
        """Of those, the ones that never ran."""
        ...

    @property
    def failed(self) -> int:
        """Those with an error."""
        ...


class Counters:
    """Counts of queries, and the last values of every tensor. Any thread may use them.

    Args:
        manifest: The bundle's.
        statistics: What its tensors were like, or None.
        edges: Of the latencies' buckets, in seconds.
        every: Values are looked at in one query of so many.
    """

    def __init__(
        self, manifest: Manifest, statistics: Statistics | None, *, edges: Sequence[float], every: int
    ) -> None:
        self._edges, self._every = edges, every
        self._inputs, self._outputs = _windows(manifest, statistics)
        self._counts = [0] * (len(edges) + 1)
        self._seconds = 0.0
        self._queries = self._failed = self._untimed = self._sampled = 0
        self._next_look = 1
        self._stream: Callable[[], Taken] | None = None
        self._counting, self._looking = threading.Lock(), threading.Lock()

    def record(self, seconds: float, feeds: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        """Counts a query that was answered; see :meth:`edgekit.runtime.watch.Watch.record`."""
        timed = 0.0 <= seconds < math.inf  # a wall clock that was set back tells less than nothing
        with self._counting:
            if timed:
                self._counts[bucket(self._edges, seconds)] += 1
                self._seconds += seconds
            else:
                self._untimed += 1
            self._queries += 1
            look = self._queries >= self._next_look
            if look:  # after a random gap: cameras that take turns are all seen
                self._next_look = self._queries + random.randrange(1, 2 * self._every)
        if look:
            self._look(feeds, outputs)

    def failed(self, queries: int) -> None:
        """Counts queries that were not answered."""
        with self._counting:
            self._failed += queries

    def follow(self, counters: Callable[[], Taken]) -> None:
        """Takes over what a stream counts."""
        self._stream = counters

    def state(self) -> dict[str, Any]:
        """All that is counted, as JSON."""
        stream = None if self._stream is None else self._stream()
        with self._counting:
            found: dict[str, Any] = {
                "queries": self._queries,
                "failed": self._failed + (stream.failed if stream else 0),
                "taken": stream.taken if stream else 0,
                "dropped": stream.dropped if stream else 0,
                "untimed": self._untimed,
                "latency": {
                    "sum_s": self._seconds,
                    "counts": {str(place): count for place, count in enumerate(self._counts) if count},
                },
            }
        with self._looking:
            found["sampled"] = self._sampled
            for side, windows in (("inputs", self._inputs), ("outputs", self._outputs)):
                found[side] = {window.name: window.state() for window in windows}
        return found

    def _look(self, feeds: Mapping[str, Array], outputs: Mapping[str, Array]) -> None:
        if not self._looking.acquire(blocking=False):
            return  # another thread looks: a later query will do
        try:
            self._sampled += 1
            for windows, tensors in ((self._inputs, feeds), (self._outputs, outputs)):
                for window in windows:
                    window.add(_tensor(tensors, window.name))
        finally:
            self._looking.release()


def _windows(manifest: Manifest, statistics: Statistics | None) -> tuple[list[TensorWindow], list[TensorWindow]]:
    window = _WINDOW if statistics is None else statistics.window
    sides = ((), ()) if statistics is None else (statistics.inputs, statistics.outputs)
    known = [{tensor.name: tensor for tensor in side} for side in sides]
    inputs, outputs = (
        [TensorWindow(spec.name, of_side.get(spec.name), window) for spec in specs]
        for of_side, specs in zip(known, (manifest.inputs, manifest.outputs), strict=True)
    )
    return inputs, outputs


def _tensor(tensors: Mapping[str, Array], name: str) -> Array:
    if name not in tensors:
        raise FeedError(f"tensor {name!r} is missing in what a watch was given", found=", ".join(tensors) or "nothing")
    return tensors[name]
