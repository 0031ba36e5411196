"""CPUs that an artifact is to run on: an option of every engine, which the kernel takes and no engine sees."""

from __future__ import annotations

import contextlib
import os
import re
import threading
import warnings
from collections.abc import Callable, Iterable

from edgekit.errors import EngineError
from edgekit.runtime.session import Session

OPTION = "cpus"
_PART = re.compile(r"(\d{1,4})(?:-(\d{1,4}))?")


def spell_cpus(cpus: Iterable[int]) -> str:
    """CPU numbers as text, e.g. ``0,4-7``."""
    runs: list[list[int]] = []
    for cpu in sorted(set(cpus)):
        if runs and runs[-1][-1] == cpu - 1:
            runs[-1].append(cpu)
        else:
            runs.append([cpu])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def parse_cpus(text: str) -> set[int]:
    """CPU numbers of text such as ``0,4-7``.

    Raises:
        EngineError: It is none.
    """
    found: set[int] = set()
    for part in text.split(","):
        match = _PART.fullmatch(part.strip())
        first, last = (int(match.group(1)), int(match.group(2) or match.group(1))) if match else (1, 0)
        if last < first:
            raise EngineError(f"option {OPTION!r} is not a list of CPUs", found=repr(text), allowed="e.g. 0,4-7")
        found.update(range(first, last + 1))
    return found


def pinned(cpus: str, load: Callable[[], Session]) -> Session:
    """Opens a session with this thread, and every thread that the engine starts, on some CPUs alone.

    This thread stays there, because an engine computes in the thread that calls it too, until the session is closed.
    What it was allowed before is narrowed and never widened; of CPUs that it may not use, or that there are not, the
    others are taken, and a warning says so.

    Args:
        cpus: As :func:`parse_cpus` takes them.
        load: Opens the session.

    Raises:
        EngineError: ``cpus`` is no list of CPUs.
    """
    wanted = parse_cpus(cpus)
    if not hasattr(os, "sched_setaffinity"):
        _warn(wanted, "this system does not pin threads")
        return load()
    before, thread = os.sched_getaffinity(0), threading.get_native_id()
    possible = wanted & before
    if possible != wanted:
        _warn(wanted, f"CPUs {spell_cpus(before)} are what this thread may use")
    if not possible:
        return load()

    def undo() -> None:
        with contextlib.suppress(ProcessLookupError):  # the thread has ended meanwhile
            os.sched_setaffinity(thread, before)

    os.sched_setaffinity(0, possible)
    try:
        session = load()
    except BaseException:
        undo()
        raise
    close = session.close

    def close_and_undo() -> None:
        close()
        undo()

    setattr(session, "close", close_and_undo)  # noqa: B010  # mypy refuses to set a method
    return session


def _warn(wanted: Iterable[int], why: str) -> None:
    warnings.warn(f"the artifact is made for CPUs {spell_cpus(wanted)}, and {why}", stacklevel=4)
