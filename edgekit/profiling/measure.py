"""Measures artifacts, each in a fresh process of its own, in turns."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import site
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from time import perf_counter
from typing import IO

from edgekit.artifact import Array, Artifact, Preprocessing
from edgekit.errors import BundleError, MeasurementError
from edgekit.profiling.host import this_host
from edgekit.profiling.job import Job, check_feeds, read_result, write_job
from edgekit.profiling.load import LoadSpec
from edgekit.profiling.measured import Measured, Status
from edgekit.profiling.turns import Pace
from edgekit.progress import Progress, silent

STEP = "measure"
_STDERR_FILE = "stderr.txt"
_TAIL_CHARS = 2000


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

    Every candidate takes its turn in every round until each has the load's seconds, its count, and enough queries
    for each of its percentiles, so all of them see the same conditions. The first query of a turn is dropped.

    Args:
        artifacts: What is compared.
        load: The load generator's settings.
        feeds: Raw samples stacked, by input, first axis samples; model tensors where ``preprocessing`` is None.
        preprocessing: From raw samples to model tensors, timed on the application clock.
        progress: Told in percent, with the number of queries.

    Returns:
        One result an artifact, in order. A process that dies, hangs or gives NaN is told in its ``status`` and
        ``reason``; the others go on.

    Raises:
        DataError: There are no samples, their counts differ, or an array is not of numbers.
        FeedError: An input has no samples, or a name is not an input.
    """
    for artifact in artifacts:
        check_feeds(artifact, feeds, preprocessing)
    with contextlib.ExitStack() as cleaning:
        root = Path(cleaning.enter_context(tempfile.TemporaryDirectory(prefix="edgekit-measure-")))
        children = []
        for index, artifact in enumerate(artifacts):
            folder = root / str(index)
            job = Job(folder=folder, artifact=artifact, load=load, preprocessing=preprocessing, driven=True)
            write_job(job, feeds)
            # One after another, so that no load disturbs another's load and first inference.
            child = cleaning.enter_context(_started(job))
            child.outcome = _expect(child, "ready", "loading and warming up")
            children.append(child)
        _take_turns(children, load, progress)
        return [_finish(child) for child in children]


@dataclass(slots=True, kw_only=True)
class _Child:
    """A measuring process. ``outcome`` is set once it will take no more turns."""

    job: Job
    process: subprocess.Popen[bytes]
    commands: IO[bytes]
    answers: queue.SimpleQueue[str | None]
    started_at: str
    pace: Pace = field(default_factory=Pace)
    outcome: Measured | None = None


@contextlib.contextmanager
def _started(job: Job) -> Iterator[_Child]:
    """A measuring process, which never outlives the block."""
    started_at = datetime.now(timezone.utc).isoformat(timespec="seconds")
    with (job.folder / _STDERR_FILE).open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "edgekit.profiling", str(job.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            cwd=job.folder,
            env=child_environment(),
            start_new_session=True,  # a Ctrl-C reaches the parent, which ends its children in order
        )
    assert process.stdin is not None
    assert process.stdout is not None
    answers: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    reader = threading.Thread(target=_read_answers, args=(process.stdout, answers), daemon=True)
    reader.start()
    try:
        yield _Child(job=job, process=process, commands=process.stdin, answers=answers, started_at=started_at)
    finally:
        _kill(process)
        reader.join()
        process.stdout.close()
        with contextlib.suppress(OSError):  # a command the dead process never read may still be in the pipe
            process.stdin.close()


def child_environment() -> dict[str, str]:
    """This process's environment for a child, without telemetry, and with this very edgekit importable."""
    environment = dict(os.environ) | {"ORT_DISABLE_TELEMETRY": "1"}
    root = str(Path(__file__).resolve().parents[2])
    if root not in [*site.getsitepackages(), site.getusersitepackages()]:
        known = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = root + (os.pathsep + known if known else "")
    return environment


def _take_turns(children: Sequence[_Child], load: LoadSpec, progress: Progress) -> None:
    offset = 0
    while live := [child for child in children if child.outcome is None]:
        slowest = min(live, key=lambda child: child.pace.share(load))
        share = slowest.pace.share(load)
        progress(STEP, int(share * 100), 100, f"{slowest.pace.kept} queries in {slowest.pace.seconds:.1f} s")
        if share >= 1:
            return
        first = offset % len(live)
        for child in live[first:] + live[:first]:
            _take_turn(child, child.pace.next_turn(load))
        offset += 1


def _take_turn(child: _Child, queries: int) -> None:
    began = perf_counter()
    _tell(child, f"turn {queries}")
    child.outcome = _expect(child, "done", f"taking a turn of {queries} queries")
    if child.outcome is None:
        child.pace.took(queries, perf_counter() - began)


def _tell(child: _Child, command: str) -> None:
    with contextlib.suppress(BrokenPipeError):  # it died: the end of its answers says so, and more
        child.commands.write(f"{command}\n".encode())
        child.commands.flush()


def _expect(child: _Child, answer: str | None, doing: str) -> Measured | None:
    """Waits for an answer (None: for the end of answers); returns the outcome where something else happens."""
    try:
        got = child.answers.get(timeout=child.job.load.timeout_s)
    except queue.Empty:
        return _hung(child, "gave no answer", doing)
    if got == answer:
        return None
    if got is not None:
        _kill(child.process)
        return _failed(child, "failed", f"gave an unknown answer {got!r} while {doing}")
    return _ended(child, doing)


def _finish(child: _Child) -> Measured:
    """Stops a process and reads its result; one that failed before has its outcome already."""
    if child.outcome is not None:
        return child.outcome
    _tell(child, "stop")
    return _expect(child, None, "writing its result") or _ended(child, "ending")


def _ended(child: _Child, doing: str) -> Measured:
    """What a process that closed its answers leaves: its result, or how it died."""
    try:
        status = child.process.wait(timeout=child.job.load.timeout_s)
    except subprocess.TimeoutExpired:
        return _hung(child, "did not end", doing)
    if status < 0:
        return _failed(child, "crashed", f"died of {_signal_name(-status)} while {doing}")
    try:
        measured = read_result(child.job.folder)
    except (BundleError, MeasurementError):
        measured = None
    if measured is None or (measured.status == "ok" and status != 0):
        return _failed(child, "crashed", f"ended with exit status {status} while {doing}")
    return measured


def _hung(child: _Child, what: str, doing: str) -> Measured:
    _kill(child.process)
    return _failed(child, "hung", f"{what} for {child.job.load.timeout_s:g} s while {doing}, and was ended")


def _failed(child: _Child, status: Status, reason: str) -> Measured:
    artifact = child.job.artifact
    written = (child.job.folder / _STDERR_FILE).read_text(encoding="utf-8", errors="replace")
    tail = written[-_TAIL_CHARS:].strip()
    return Measured(
        status=status,
        reason=f"the measuring process {reason}" + (f"\n{tail}" if tail else ""),
        artifact_sha256=artifact.sha256,
        size_mb=artifact.size_bytes / 1e6,
        host=this_host(),
        started_at=child.started_at,
    )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # real-time signals have no name
        return f"signal {number}"


def _read_answers(stream: IO[bytes], answers: queue.SimpleQueue[str | None]) -> None:
    for line in stream:
        answers.put(line.decode("utf-8", errors="replace").strip())
    answers.put(None)


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
