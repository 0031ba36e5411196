"""A measuring process as its parent sees it: started, told commands, listened to, and never left behind."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import IO

from edgekit.profiling.environment import child_environment
from edgekit.profiling.job import Job
from edgekit.profiling.measured import Status

_TAIL_CHARS = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """How a process went wrong, in the words of :class:`~edgekit.profiling.measured.Measured`."""

    status: Status
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Child:
    """A measuring process."""

    job: Job
    process: subprocess.Popen[bytes]
    commands: IO[bytes]
    answers: queue.SimpleQueue[str | None]
    stderr: IO[bytes]
    started_at: str


@contextlib.contextmanager
def started(job: Job, *options: str) -> Iterator[Child]:
    """A measuring process on a job folder, which never outlives the block."""
    started_at = datetime.now(timezone.utc).isoformat(timespec="seconds")
    with tempfile.TemporaryFile() as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "edgekit.profiling", *options, str(job.folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            cwd=job.folder,
            env=child_environment(),
            start_new_session=True,  # a Ctrl-C reaches the parent, which ends its children in order
        )
        commands, stdout = process.stdin, process.stdout
        assert commands is not None
        assert stdout is not None
        answers: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        reader = threading.Thread(target=_read_answers, args=(stdout, answers), daemon=True)
        reader.start()
        try:
            yield Child(
                job=job, process=process, commands=commands, answers=answers, stderr=stderr, started_at=started_at
            )
        finally:
            _kill(process)
            reader.join()
            stdout.close()
            with contextlib.suppress(OSError):  # a command the dead process never read may still be in the pipe
                commands.close()


def tell(child: Child, command: str) -> None:
    """Sends a command; a dead process is found out by the end of its answers, which says more."""
    with contextlib.suppress(BrokenPipeError):
        child.commands.write(f"{command}\n".encode())
        child.commands.flush()


def expect(child: Child, answer: str, doing: str, silence_s: float | None = None) -> str | int | Failure:
    """Waits for an answer.

    Args:
        child: The process.
        answer: First word of the answer.
        doing: What it does meanwhile, for the message.
        silence_s: Longest wait; None: the load's.

    Returns:
        The rest of the answer; the exit status, 0 or more, of a process that ended instead; or what went wrong.
    """
    got = _next_answer(child, doing, silence_s)
    if got is None:
        return _end(child, doing)
    if isinstance(got, Failure):
        return got
    word, _, rest = got.partition(" ")
    return rest if word == answer else _unknown(child, got, doing)


def ending(child: Child, doing: str, silence_s: float | None = None) -> int | Failure:
    """Waits for the process to end; its exit status, 0 or more, or what went wrong."""
    got = _next_answer(child, doing, silence_s)
    if got is None:
        return _end(child, doing)
    return got if isinstance(got, Failure) else _unknown(child, got, doing)


def failure(child: Child, status: Status, what: str) -> Failure:
    """A failure in words, with the end of what the process wrote on stderr; it is ended if it lives."""
    _kill(child.process)
    child.stderr.seek(0)
    tail = child.stderr.read().decode("utf-8", errors="replace")[-_TAIL_CHARS:].strip()
    return Failure(status=status, reason=f"the measuring process {what}" + (f"\n{tail}" if tail else ""))


def exited(child: Child, status: int, doing: str) -> Failure:
    """A process that ended without saying why."""
    return failure(child, "crashed", f"ended with exit status {status} while {doing}")


def _next_answer(child: Child, doing: str, silence_s: float | None = None) -> str | Failure | None:
    silence_s = child.job.load.timeout_s if silence_s is None else silence_s
    try:
        return child.answers.get(timeout=silence_s)
    except queue.Empty:
        return _hung(child, "gave no answer", doing, silence_s)


def _end(child: Child, doing: str) -> int | Failure:
    try:
        status = child.process.wait(timeout=child.job.load.timeout_s)
    except subprocess.TimeoutExpired:
        return _hung(child, "did not end", doing, child.job.load.timeout_s)
    if status < 0:
        return failure(child, "crashed", f"died of {_signal_name(-status)} while {doing}")
    return status


def _unknown(child: Child, answer: str, doing: str) -> Failure:
    return failure(child, "failed", f"gave an unknown answer {answer!r} while {doing}")


def _hung(child: Child, what: str, doing: str, silence_s: float) -> Failure:
    return failure(child, "hung", f"{what} for {silence_s:g} s while {doing}, and was ended")


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
