"""Measures artifacts, each in a fresh process of its own, in turns."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np

from edgekit.artifact import Array, Artifact
from edgekit.disk import DiskFull, folder_bytes, nearly_full, temporary_folder
from edgekit.errors import BundleError, MeasurementError
from edgekit.processing_specs import Preprocessing
from edgekit.profiling.child import Child, Failure, ending, exited, expect, failure, started, tell
from edgekit.profiling.conditions import Conditions
from edgekit.profiling.host import this_host
from edgekit.profiling.job import TURNS_FILE, Job, check_feeds, read_result, write_job
from edgekit.profiling.load import LoadSpec
from edgekit.profiling.loads import Loads, load_again
from edgekit.profiling.measured import Measured
from edgekit.profiling.time_limit import refusal, time_is_up
from edgekit.profiling.turns import Pace
from edgekit.profiling.watching import conditions_between, observe
from edgekit.progress import Progress, silent
from edgekit.runtime import first_silence_s

STEP = "measure"
LOAD_STEP = "load"
JOBS = "the measuring jobs"


def measure(
    artifact: Artifact,
    load: LoadSpec,
    feeds: Mapping[str, Array],
    *,
    preprocessing: Preprocessing | None = None,
    progress: Progress = silent,
) -> Measured:
    """Measures one artifact in a fresh process; see :func:`measure_in_turns`."""
    return measure_in_turns([artifact], load, feeds, preprocessing=preprocessing, progress=progress)[0]


def measure_in_turns(
    artifacts: Sequence[Artifact],
    load: LoadSpec,
    feeds: Mapping[str, Array],
    *,
    preprocessing: Preprocessing | None = None,
    progress: Progress = silent,
) -> list[Measured]:
    """Measures artifacts side by side: one process each, taking turns of several queries in a rotating order.

    First each is loaded and warmed up, and loaded again in short processes of its own. Then every candidate takes its
    turn in every round until each has the load's seconds, its count, and enough queries for each of its percentiles,
    so all of them see the same conditions. The first query of a turn is dropped. A candidate whose longest time is up
    takes no more turns.

    Args:
        artifacts: What is compared.
        load: The load generator's settings.
        feeds: Raw samples stacked, by input, first axis samples; model tensors where ``preprocessing`` is None.
        preprocessing: From raw samples to model tensors, timed on the application clock.
        progress: Told the artifacts that are loaded, then in percent, with the number of queries.

    Returns:
        One result an artifact, in order. A process that dies, hangs or gives NaN, and a percentile that would take
        longer than the load allows, are told in its ``status`` and ``reason``; the others go on.

    Raises:
        DataError: There are no samples, their counts differ, or an array is not of numbers.
        FeedError: An input has no samples, or a name is not an input.
        DiskFull: There is no room for the jobs or their results.
    """
    for artifact in artifacts:
        check_feeds(artifact, feeds, preprocessing)
    with temporary_folder(JOBS) as root:
        jobs = [
            Job(folder=root / str(index), artifact=artifact, load=load, preprocessing=preprocessing, driven=True)
            for index, artifact in enumerate(artifacts)
        ]
        for job in jobs:
            write_job(job, feeds)
        results = measure_jobs(jobs, progress)
        if any(result.status in ("failed", "crashed") for result in results) and nearly_full(root):
            raise DiskFull(JOBS, root.parent, folder_bytes(root))  # a process that could not write cannot say so
        return results


def measure_jobs(jobs: Sequence[Job], progress: Progress = silent) -> list[Measured]:
    """Measures job folders that are written and share a load; see :func:`measure_in_turns`."""
    with contextlib.ExitStack() as cleaning:
        candidates = []
        # One after another, so that no load disturbs another's load and first inference.
        for index, job in enumerate(jobs):
            progress(LOAD_STEP, index, len(jobs), f"{job.artifact.engine} {job.artifact.precision}")
            candidate = _Candidate(child=cleaning.enter_context(started(job)))
            _get_ready(candidate)
            candidates.append(candidate)
        progress(LOAD_STEP, len(jobs), len(jobs))
        pids = [candidate.child.process.pid for candidate in candidates if candidate.runs]
        before = observe(pids)
        _take_turns(candidates, progress)
        conditions = conditions_between(before, observe(pids))
        zero = min((began for candidate in candidates for began in candidate.began), default=0.0)
        return [_complete(candidate, _finish(candidate), conditions, zero) for candidate in candidates]


@dataclass(slots=True, kw_only=True)
class _Candidate:
    """One artifact on its way.

    Attributes:
        child: Its measuring process.
        loads: What its short processes gave.
        pace: How far it is.
        taken: Queries of all its turns.
        began: When each of its turns began, by this process's clock, in seconds.
        refused: Why the timed run never begins.
        time_is_up: It takes no more turns, and is well.
        outcome: Set once it went wrong.
    """

    child: Child
    loads: Loads = field(default_factory=Loads)
    pace: Pace = field(default_factory=Pace)
    taken: int = 0
    began: list[float] = field(default_factory=list)
    refused: str | None = None
    time_is_up: bool = False
    outcome: Measured | None = None

    @property
    def runs(self) -> bool:
        """Whether it takes turns."""
        return self.outcome is None and self.refused is None and not self.time_is_up


def _get_ready(candidate: _Candidate) -> None:
    """Waits until a process is warm, loads its artifact again, and asks whether there is time for the percentiles."""
    child, doing = candidate.child, "loading and warming up"
    silence_s = first_silence_s(child.job.artifact.engine, child.job.load.timeout_s)
    query_ns = expect(child, "ready", doing, silence_s)
    if not isinstance(query_ns, str):
        candidate.outcome = _outcome(child, query_ns, doing)
        return
    if not query_ns.isdecimal():
        candidate.outcome = _outcome(
            child, failure(child, "failed", f"did not say how fast it is while {doing}"), doing
        )
        return
    loads = load_again(child.job)
    if isinstance(loads, Failure):
        candidate.outcome = _outcome(child, loads, doing)
        return
    candidate.loads = loads
    candidate.refused = refusal(child.job.load, int(query_ns) / 1e9)


def _take_turns(candidates: Sequence[_Candidate], progress: Progress) -> None:
    offset = 0
    while live := [candidate for candidate in candidates if candidate.runs]:
        load = live[0].child.job.load
        slowest = min(live, key=lambda candidate: candidate.pace.share(load))
        share = slowest.pace.share(load)
        progress(STEP, int(share * 100), 100, f"{slowest.pace.kept} queries in {slowest.pace.seconds:.1f} s")
        if share >= 1:
            return
        for candidate in _order(live, offset):
            queries = candidate.pace.next_turn(load)
            candidate.time_is_up = time_is_up(candidate.pace, load, queries)
            if not candidate.time_is_up:
                _take_turn(candidate, queries)
        offset += 1


def _order(live: Sequence[_Candidate], offset: int) -> list[_Candidate]:
    """Who takes a turn after whom; of three or more every other rotation runs backwards, so that all precede alike."""
    first = offset % len(live)
    order = [*live[first:], *live[:first]]
    return order[::-1] if len(live) > 2 and offset // len(live) % 2 else order


def _take_turn(candidate: _Candidate, queries: int) -> None:
    child, doing = candidate.child, f"taking a turn of {queries} queries"
    began = perf_counter()
    tell(child, f"turn {queries}")
    got = expect(child, "done", doing)
    seconds = perf_counter() - began
    if not isinstance(got, str):
        candidate.outcome = _outcome(child, got, doing)
        return
    application_ms = _latencies(candidate, queries)
    if isinstance(application_ms, Failure):
        candidate.outcome = _outcome(child, application_ms, doing)
        return
    candidate.began.append(began)
    candidate.taken += queries
    candidate.pace.took(queries, seconds, application_ms)


def _latencies(candidate: _Candidate, queries: int) -> Array | Failure:
    """The application latencies of the turn that was just taken, in ms."""
    child = candidate.child
    path, offset = child.job.folder / TURNS_FILE, candidate.taken * np.dtype(np.int64).itemsize
    try:
        latencies_ns = np.fromfile(path, dtype=np.int64, count=queries, offset=offset)
    except OSError as exc:
        return failure(child, "failed", f"left no latencies: {exc.strerror}")
    if len(latencies_ns) != queries:
        return failure(child, "failed", f"left {len(latencies_ns)} latencies of a turn of {queries} queries")
    application_ms: Array = latencies_ns / 1e6
    return application_ms


def _finish(candidate: _Candidate) -> Measured:
    """Stops a process and reads its result; one that failed before has its outcome already."""
    if candidate.outcome is not None:
        return candidate.outcome
    tell(candidate.child, "stop")
    doing = "writing its result"
    return _outcome(candidate.child, ending(candidate.child, doing), doing)


def _outcome(child: Child, ended: int | Failure, doing: str) -> Measured:
    """What a process that ended leaves: its result, or how it died."""
    if isinstance(ended, Failure):
        return _failed(child, ended)
    try:
        measured = read_result(child.job.folder)
    except (BundleError, MeasurementError):
        measured = None
    if measured is None or (measured.status == "ok" and ended != 0):
        return _failed(child, exited(child, ended, doing))
    return measured


def _failed(child: Child, how: Failure) -> Measured:
    artifact = child.job.artifact
    return Measured(
        status=how.status,
        reason=how.reason,
        artifact_sha256=artifact.sha256,
        size_mb=artifact.size_bytes / 1e6,
        host=this_host(),
        started_at=child.started_at,
    )


def _complete(candidate: _Candidate, measured: Measured, conditions: Conditions, zero: float) -> Measured:
    """A process's own result with what only its parent knows; ``zero`` is when the first turn of all began."""
    loads = candidate.loads
    cold_load_ms = measured.cold_load_ms + loads.cold_ms
    first_inferences_ms = measured.first_inferences_ms + loads.first_inferences_ms
    refused = candidate.refused if measured.status == "ok" else None
    return dataclasses.replace(
        measured,
        status=measured.status if refused is None else "refused",
        reason=measured.reason if refused is None else refused,
        load_ms=max(cold_load_ms, default=None),
        cold_load_ms=cold_load_ms,
        cached_load_ms=loads.cached_ms,
        cached_load_note=loads.cached_note,
        first_inference_ms=max(first_inferences_ms, default=None),
        first_inferences_ms=first_inferences_ms,
        turn_started_s=tuple(began - zero for began in candidate.began[: measured.turns]),
        conditions=conditions if measured.turns else None,
    )
