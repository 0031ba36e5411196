"""Peak resident memory of a phase, from the kernel's own high-water mark.

``ru_maxrss`` survives ``exec``, so the child of a large parent reports the parent's peak. ``VmHWM`` of
``/proc/self/status`` does not, and writing 5 to ``/proc/self/clear_refs`` sets it back to the present size
(proc(5)), which gives one peak a phase. Device memory of a GPU is not in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")


def reset_peak() -> bool:
    """Sets the high-water mark back to the present size; False where the system does not allow it."""
    try:
        _CLEAR_REFS.write_text("5", encoding="ascii")
    except OSError:
        return False
    return True


def peak_mb() -> float | None:
    """Peak resident memory since the last reset, in MB (10^6 bytes); None where the system does not tell."""
    try:
        status = _STATUS.read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    match = re.search(r"^VmHWM:\s*(\d+) kB", status, re.MULTILINE)
    return int(match.group(1)) * 1024 / 1e6 if match else None


@contextmanager
def peak_of(phase: str, peaks: dict[str, float | None]) -> Iterator[None]:
    """Records the peak resident memory while the block runs as ``peaks[phase]``, in MB.

    It counts the whole process: the interpreter, numpy and the prepared samples too. None where the mark cannot be
    reset, since the peak would then be an earlier phase's.
    """
    fresh = reset_peak()
    yield
    peaks[phase] = peak_mb() if fresh else None
