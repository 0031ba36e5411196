"""The measuring process: opens one artifact in a fresh process and times it, driven by a parent or on its own.

Driven, it answers ``ready NS`` on stdout after warm-up, NS being the median time of a query, ``done`` after each
``turn N`` that it reads from stdin, once the turn's latencies are in ``turns.bin``, and ends at ``stop``. When stdin
closes without one, the parent is gone and the process ends at once, whatever it does.
"""

from __future__ import annotations

import gc
import os
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.artifact import Array, Artifact, to_json
from edgekit.errors import EdgeKitError, EngineError, MeasurementError
from edgekit.profiling.clock import Feeds, Step, Turn, not_finite, rotate, run_turn, split_queries
from edgekit.profiling.host import this_host
from edgekit.profiling.in_numpy import after, before
from edgekit.profiling.job import (
    LOAD_FILE,
    TURNS_FILE,
    VERIFIED_FILE,
    Job,
    LoadKind,
    read_feeds,
    read_job,
    write_result,
    write_whole,
)
from edgekit.profiling.memory import peak_of
from edgekit.profiling.time_limit import refusal, time_is_up
from edgekit.profiling.turns import Pace
from edgekit.profiling.warm_up import WarmUp, warm_up
from edgekit.runtime import (
    engine_version,
    from_cache,
    get_ready,
    open_artifact,
    open_bundle,
    with_cache,
    without_cache,
)
from edgekit.runtime.bundle import Bundle
from edgekit.runtime.golden import placement_of, verify_opened
from edgekit.runtime.session import Session

PARENT_GONE = 3  # exit status
WARM_UP_SHARE = 0.5  # of the longest silence: what warm-up may take of it, loading being part of it too


@dataclass(slots=True, kw_only=True)
class Findings:
    """What is known so far; written as it stands when the engine fails."""

    started_at: str
    load_ms: float | None = None
    first_inference_ms: float | None = None
    engine_version: str | None = None
    peak_memory_mb: dict[str, float | None] = field(default_factory=dict)
    warm_up: WarmUp | None = None
    turn_started_s: list[float] = field(default_factory=list)
    turns: list[npt.NDArray[np.int64]] = field(default_factory=list)


def work(folder: Path) -> int:
    """Does the job of a folder and writes its result.

    Returns:
        The exit status: 0 when measured, 1 when the engine refused or failed (the result says why).

    Raises:
        BundleError: The folder holds no job.
        MeasurementError: Its ``job.json`` is not one.
    """
    job = read_job(folder)
    parent = _listen() if job.driven else None
    found = Findings(started_at=datetime.now(timezone.utc).isoformat(timespec="seconds"))
    status, reason = "ok", None
    try:
        get_ready(job.artifact)
        session = _load(job.artifact, found)
        timed = _timed(job, session)
        _first_inference(timed, found)
        steady = _warm_up(timed, found, job.load.timeout_s * WARM_UP_SHARE)
        with peak_of("steady", found.peak_memory_mb):
            if parent is not None:
                _obey(parent, job, timed, found, steady)
            elif (reason := refusal(job.load, steady.query_ns / 1e9)) is None:
                _drive_alone(job, timed, found)
            else:
                status = "refused"
        session.close()
    except EdgeKitError as exc:
        status, reason = "failed", str(exc)
    _write(job, found, status, reason)
    return 0 if status != "failed" else 1


def load_once(folder: Path, kind: LoadKind) -> int:
    """Opens a job's artifact, runs one query, and writes ``load.json``: driven by a parent, which it does not outlive.

    Args:
        folder: The job folder.
        kind: ``cold`` compiles anew; ``cached`` goes by way of the engine's cache, and fills it where it is empty.

    Returns:
        The exit status: 0 when loaded, 1 when the engine refused or failed (the file says why).

    Raises:
        BundleError: The folder holds no job.
        MeasurementError: Its ``job.json`` is not one.
    """
    job = read_job(folder)
    _listen()
    found = Findings(started_at="")
    reason, cached = None, False
    try:
        artifact = without_cache(job.artifact) if kind == "cold" else with_cache(job.artifact)
        if artifact is None:
            raise MeasurementError(f"engine {job.artifact.engine!r} has no cache to load from")
        session = _load(artifact, found)
        cached = from_cache(session)
        _first_inference(_timed(job, session), found)
        session.close()
    except EdgeKitError as exc:
        reason = str(exc)
    write_whole(
        job.folder / LOAD_FILE,
        {
            "reason": reason,
            "load_ms": found.load_ms,
            "first_inference_ms": found.first_inference_ms,
            "from_cache": cached,
        },
    )
    return 0 if reason is None else 1


def verify_once(folder: Path, bundle: Path) -> int:
    """Runs the golden samples of a job's bundle and writes ``verified.json``: driven by a parent, as :func:`load_once`.

    Where they are as they should be, the engine's record of them is added: what it ran, and in what precision.

    Args:
        folder: The job folder.
        bundle: The bundle.

    Returns:
        The exit status: 0 when they are as close as the manifest asks, 1 when not (the file says why).
    """
    _listen()
    where = folder / VERIFIED_FILE
    try:
        with open_bundle(bundle) as opened:
            found = verify_opened(opened)
            reason = None if found.passed else "golden samples: " + "; ".join(found.messages)
            write_whole(where, {"reason": reason})  # the record takes memory, for which the system may end us
            if reason is None:
                write_whole(where, {"reason": None, **_placed(opened)})
    except EdgeKitError as exc:
        reason = str(exc)
        write_whole(where, {"reason": reason})
    return 0 if reason is None else 1


def _placed(bundle: Bundle) -> dict[str, Any]:
    try:
        return {"placement": to_json(placement_of(bundle))}
    except EdgeKitError as exc:
        return {"unread": str(exc)}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Timed:
    session: Session
    queries: Iterator[Feeds]
    preprocess: Step | None
    postprocess: Step | None

    def turn(self, count: int) -> Turn:
        turn = run_turn(self.session, self.queries, count, self.preprocess, self.postprocess)
        name = not_finite(turn.outputs)
        if name is not None:
            raise EngineError(
                f"output {name!r} holds NaN or infinity",
                found=f"in the last of {count} queries",
                fix="latencies of a broken model mean nothing: mend its numbers first",
            )
        return turn

    def turn_of(self, count: int, found: Findings) -> npt.NDArray[np.int64]:
        """Takes a turn that counts; its latencies by the application clock."""
        latencies_ns = self.turn(count).latencies_ns
        found.turns.append(latencies_ns)
        return latencies_ns[:, 0]


def _load(artifact: Artifact, found: Findings) -> Session:
    with peak_of("load", found.peak_memory_mb):
        began = perf_counter()
        session = open_artifact(artifact)
        found.load_ms = (perf_counter() - began) * 1e3
    found.engine_version = engine_version(artifact.engine)
    return session


def _timed(job: Job, session: Session) -> _Timed:
    queries = split_queries(read_feeds(job), job.load.batch)
    return _Timed(
        session=session, queries=rotate(queries), preprocess=before(job.in_numpy), postprocess=after(job.in_numpy)
    )


def _first_inference(timed: _Timed, found: Findings) -> None:
    with peak_of("first_inference", found.peak_memory_mb):
        found.first_inference_ms = float(timed.turn(1).latencies_ns[0, 0]) / 1e6


def _warm_up(timed: _Timed, found: Findings, longest_s: float) -> WarmUp:
    with peak_of("warm_up", found.peak_memory_mb):
        steady = found.warm_up = warm_up(lambda queries: timed.turn(queries).latencies_ns[:, 0], longest_s)
    gc.collect()
    gc.freeze()  # what lives now is never looked through again
    return steady


def _drive_alone(job: Job, timed: _Timed, found: Findings) -> None:
    pace, zero = Pace(), perf_counter()
    while pace.share(job.load) < 1:
        queries = pace.next_turn(job.load)
        if time_is_up(pace, job.load, queries):
            break
        began = perf_counter()
        application_ns = timed.turn_of(queries, found)
        pace.took(queries, int(application_ns.sum()) / 1e9, application_ns / 1e6)
        found.turn_started_s.append(began - zero)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parent:
    """Who drives: its commands, and the descriptor of the stdout it reads answers from."""

    commands: queue.SimpleQueue[str]
    answers: int

    def answer(self, text: str) -> None:
        os.write(self.answers, f"{text}\n".encode())


def _obey(parent: _Parent, job: Job, timed: _Timed, found: Findings, steady: WarmUp) -> None:
    with (job.folder / TURNS_FILE).open("wb", buffering=0) as latencies:
        parent.answer(f"ready {steady.query_ns:.0f}")
        while (line := parent.commands.get()) != "stop":
            words = line.split()
            if len(words) != 2 or words[0] != "turn" or not words[1].isdecimal() or int(words[1]) < 1:
                raise MeasurementError(
                    "the measuring process was told nonsense", found=repr(line), allowed="turn N, stop"
                )
            latencies.write(timed.turn_of(int(words[1]), found).tobytes())
            parent.answer("done")


def _listen() -> _Parent:
    """Reads commands on a thread of its own, so that a parent's end is noticed even while an engine hangs.

    From here on, what an engine prints on stdout goes to stderr: it is not an answer.
    """
    answers = os.dup(1)
    os.dup2(2, 1)
    commands: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_read_commands, args=(commands,), daemon=True).start()
    return _Parent(commands=commands, answers=answers)


def _read_commands(commands: queue.SimpleQueue[str]) -> None:
    # Unbuffered, since a buffered stdin that a daemon thread reads is a fatal error when the process ends.
    with open(0, "rb", buffering=0, closefd=False) as stream:
        while line := stream.readline():
            command = line.decode("ascii", errors="replace").strip()
            commands.put(command)
            if command == "stop":
                return
    os._exit(PARENT_GONE)


def _write(job: Job, found: Findings, status: str, reason: str | None) -> None:
    artifact, warmed = job.artifact, found.warm_up
    result: dict[str, Any] = {
        "status": status,
        "reason": reason,
        "artifact_sha256": artifact.sha256,
        "load_ms": found.load_ms,
        "cold_load_ms": [] if found.load_ms is None else [found.load_ms],
        "first_inference_ms": found.first_inference_ms,
        "first_inferences_ms": [] if found.first_inference_ms is None else [found.first_inference_ms],
        "warm_up_queries": 0 if warmed is None else warmed.queries,
        "warm_up_settled": warmed is not None and warmed.settled,
        "turn_started_s": found.turn_started_s,
        "peak_memory_mb": found.peak_memory_mb,
        "size_mb": artifact.size_bytes / 1e6,
        "host": this_host(),
        "engine_version": found.engine_version,
        "started_at": found.started_at,
        "queries": [len(turn) for turn in found.turns],
    }
    latencies: Array = np.concatenate([np.empty((0, 2), dtype=np.int64), *found.turns])
    warm_up_ns = np.empty(0, dtype=np.int64) if warmed is None else warmed.latencies_ns
    write_result(job.folder, to_json(result), latencies, warm_up_ns)
