"""The clock loop: times queries one after another on two clocks, and does nothing else in between."""

from __future__ import annotations

import gc
import itertools
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from time import perf_counter_ns
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edgekit.artifact import Array

Feeds = Mapping[str, Array]
Step = Callable[[Feeds], Feeds]  # from tensors by name to others


class Runs(Protocol):
    """The part of a session that is timed."""

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Runs one batch."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Turn:
    """What one turn gave.

    Attributes:
        latencies_ns: int64, shape [queries, 2]: application clock, engine clock.
        outputs: The last query's outputs.
    """

    latencies_ns: npt.NDArray[np.int64]
    outputs: Mapping[str, Array]


def run_turn(
    session: Runs,
    queries: Iterator[Feeds],
    count: int,
    preprocess: Step | None = None,
    postprocess: Step | None = None,
) -> Turn:
    """Runs and times ``count`` queries, one in flight.

    The **application** clock covers preprocessing, ``session.run``, which copies the inputs in, and postprocessing; the
    **engine** clock covers ``session.run`` only, or what the engine's own clock says of it where the session has
    ``engine_ns``: the time on the GPU, copies left out. Garbage collection is off meanwhile; the profiler allocates
    nothing that stays (its arrays are made before the first query, and a time stamp is gone at the next query), and the
    tensors, outputs and answers of the query before are freed outside of both clocks.

    Args:
        session: What runs.
        queries: An endless iterator over prepared queries (:func:`rotate`); the turn takes ``count`` of them.
        count: Queries to run, at least one.
        preprocess: From a raw query to model tensors; None when the queries are model tensors already.
        postprocess: From outputs to answers; None when the outputs are the answers.
    """
    application, engine = array("q", bytes(8 * count)), array("q", bytes(8 * count))
    run, now = session.run, perf_counter_ns
    own: Callable[[], int] | None = getattr(session, "engine_ns", None)
    _fed: Feeds = {}
    held: Mapping[str, Array] = {}
    _answered: Mapping[str, Array] = {}
    collecting = gc.isenabled()
    gc.disable()
    try:
        for index, raw in zip(range(count), queries, strict=False):
            began = now()
            feeds = raw if preprocess is None else preprocess(raw)
            prepared = now()
            outputs = run(feeds)
            ended = ran = now()
            if postprocess is not None:
                answers = postprocess(outputs)
                ended = now()
                _answered = answers
            application[index] = ended - began
            engine[index] = ran - prepared if own is None else own()
            _fed, held = feeds, outputs  # second names, so that no assignment inside the clocks frees anything
    finally:
        if collecting:
            gc.enable()
    latencies_ns = np.stack([np.asarray(application, dtype=np.int64), np.asarray(engine, dtype=np.int64)], axis=1)
    return Turn(latencies_ns=latencies_ns, outputs=held)


@cache
def clock_step_ns() -> int:
    """The smallest step of the clock on this host that two successive readings show, in ns."""
    readings = np.array([perf_counter_ns() for _ in range(10_000)])
    steps = np.diff(readings)
    return int(steps[steps > 0].min())


def split_queries(feeds: Feeds, batch: int) -> list[dict[str, Array]]:
    """Cuts stacked samples into queries of ``batch`` samples, each an array of its own.

    Samples left over fill one more query with the first ones, so every sample is used; fewer samples than a batch
    are repeated.

    Args:
        feeds: Stacked samples by input, first axis samples, all of the same count above zero.
        batch: Samples a query.
    """
    samples = len(next(iter(feeds.values())))
    starts = range(0, samples, batch)
    return [{name: np.take(a, range(s, s + batch), axis=0, mode="wrap") for name, a in feeds.items()} for s in starts]


def rotate(queries: Sequence[Feeds]) -> Iterator[Feeds]:
    """Goes round the queries for ever; unlike ``itertools.cycle`` it keeps no growing copy of them."""
    return itertools.chain.from_iterable(itertools.repeat(queries))


def not_finite(outputs: Mapping[str, Array]) -> str | None:
    """The name of the first output that holds NaN or infinity, or None."""
    floats = [name for name, output in outputs.items() if np.issubdtype(output.dtype, np.inexact)]
    return next((name for name in floats if not np.isfinite(outputs[name]).all()), None)
