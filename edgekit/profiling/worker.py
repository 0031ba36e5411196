"""The measuring process: opens one artifact in a fresh process and times it, driven by a parent or on its own.

Driven, it answers ``ready`` on stdout after warm-up, ``done`` after each ``turn N`` that it reads from stdin, and
ends at ``stop``. When stdin closes without one, the parent is gone and the process ends at once, whatever it does.
"""

from __future__ import annotations

import gc
import itertools
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

from edgekit.artifact import Array, to_json
from edgekit.errors import EdgeKitError, EngineError, MeasurementError
from edgekit.profiling.clock import Feeds, Preprocess, Turn, not_finite, run_turn, split_queries
from edgekit.profiling.host import this_host
from edgekit.profiling.job import Job, read_feeds, read_job, write_result
from edgekit.profiling.memory import peak_of
from edgekit.profiling.turns import Pace
from edgekit.runtime import engine_version, open_artifact
from edgekit.runtime.preprocessing import preprocess
from edgekit.runtime.session import Session

WARM_UP_QUERIES = 10
WARM_UP_S = 0.2
WARM_UP_MOST_S = 5.0
PARENT_GONE = 3  # exit status


@dataclass(slots=True, kw_only=True)
class Findings:
    """What is known so far; written as it stands when the engine fails."""

    started_at: str
    load_ms: float | None = None
    first_inference_ms: float | None = None
    engine_version: str | None = None
    peak_memory_mb: dict[str, float | None] = field(default_factory=dict)
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
    reason = None
    try:
        session = _load(job, found)
        timed = _Timed(session=session, queries=_queries(job), preprocess=_preprocess(job))
        _first_inference(timed, found)
        _warm_up(timed, found)
        with peak_of("steady", found.peak_memory_mb):
            if parent is None:
                _drive_alone(job, timed, found)
            else:
                _obey(parent, timed, found)
        session.close()
    except EdgeKitError as exc:
        reason = str(exc)
    _write(job, found, reason)
    return 0 if reason is None else 1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Timed:
    session: Session
    queries: Iterator[Feeds]
    preprocess: Preprocess | None

    def turn(self, count: int) -> Turn:
        turn = run_turn(self.session, self.queries, count, self.preprocess)
        name = not_finite(turn.outputs)
        if name is not None:
            raise EngineError(
                f"output {name!r} holds NaN or infinity",
                found=f"in the last of {count} queries",
                fix="latencies of a broken model mean nothing: mend its numbers first",
            )
        return turn


def _load(job: Job, found: Findings) -> Session:
    with peak_of("load", found.peak_memory_mb):
        began = perf_counter()
        session = open_artifact(job.artifact)
        found.load_ms = (perf_counter() - began) * 1e3
    found.engine_version = engine_version(job.artifact.engine)
    return session


def _queries(job: Job) -> Iterator[Feeds]:
    return itertools.cycle(split_queries(read_feeds(job), job.load.batch))


def _preprocess(job: Job) -> Preprocess | None:
    settings = job.preprocessing
    if settings is None:
        return None

    def prepare(raw: Feeds) -> Feeds:
        return {**raw, settings.input: preprocess(raw[settings.input], settings)}

    return prepare


def _first_inference(timed: _Timed, found: Findings) -> None:
    with peak_of("first_inference", found.peak_memory_mb):
        found.first_inference_ms = float(timed.turn(1).latencies_ns[0, 0]) / 1e6


def _warm_up(timed: _Timed, found: Findings) -> None:
    with peak_of("warm_up", found.peak_memory_mb):
        began = perf_counter()
        for done in itertools.count(1):
            timed.turn(1)
            seconds = perf_counter() - began
            if seconds >= WARM_UP_MOST_S or (done >= WARM_UP_QUERIES and seconds >= WARM_UP_S):
                break
    gc.collect()
    gc.freeze()  # what lives now is never looked through again


def _drive_alone(job: Job, timed: _Timed, found: Findings) -> None:
    pace = Pace()
    while pace.share(job.load) < 1:
        _take_turn(pace.next_turn(job.load), timed, found, pace)


def _take_turn(count: int, timed: _Timed, found: Findings, pace: Pace) -> None:
    latencies = timed.turn(count).latencies_ns
    found.turns.append(latencies)
    pace.took(count, int(latencies[:, 0].sum()) / 1e9)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parent:
    """Who drives: its commands, and the descriptor of the stdout it reads answers from."""

    commands: queue.SimpleQueue[str]
    answers: int

    def answer(self, text: str) -> None:
        os.write(self.answers, f"{text}\n".encode())


def _obey(parent: _Parent, timed: _Timed, found: Findings) -> None:
    parent.answer("ready")
    pace = Pace()
    while (line := parent.commands.get()) != "stop":
        words = line.split()
        if len(words) != 2 or words[0] != "turn" or not words[1].isdecimal() or int(words[1]) < 1:
            raise MeasurementError("the measuring process was told nonsense", found=repr(line), allowed="turn N, stop")
        _take_turn(int(words[1]), timed, found, pace)
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


def _write(job: Job, found: Findings, reason: str | None) -> None:
    artifact = job.artifact
    result: dict[str, Any] = {
        "status": "ok" if reason is None else "failed",
        "reason": reason,
        "artifact_sha256": artifact.sha256,
        "load_ms": found.load_ms,
        "first_inference_ms": found.first_inference_ms,
        "peak_memory_mb": found.peak_memory_mb,
        "size_mb": artifact.size_bytes / 1e6,
        "host": this_host(),
        "engine_version": found.engine_version,
        "started_at": found.started_at,
        "queries": [len(turn) for turn in found.turns],
    }
    latencies: Array = np.concatenate([np.empty((0, 2), dtype=np.int64), *found.turns])
    write_result(job.folder, to_json(result), latencies, np.empty(0, dtype=np.int64))
