"""Resumable steps: one folder a step, keyed by the hash of everything it depends on, made whole by a rename."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgekit.artifact import hash_json, write_json
from edgekit.errors import EdgeKitError

STEPS = ".steps"
KEY_FILE = "step.json"
PARTIAL = ".edgekit-partial-"  # told apart from whatever else lies in a folder of the user's
_OLD = f"{PARTIAL}old-"
_LOCK = ".lock"
_FULL = (errno.ENOSPC, errno.EDQUOT)
_NEXT_TO_NOTHING = 1 << 20  # bytes left free on a disk that an engine, which names no cause, could not write to


def run_step(root: Path, name: str, key: Any, make: Callable[[Path], None]) -> Path:
    """Makes a step's folder, or finds it from an earlier run.

    The step writes into a partial folder that is renamed when complete, so a folder that exists is whole, whatever
    killed an earlier run.

    Args:
        root: Where step folders lie.
        name: Step name, the start of the folder's name.
        key: Everything the step depends on, as JSON; kept in ``step.json``.
        make: Writes the step's files into the folder given.

    Returns:
        The step's folder.

    Raises:
        OSError: The disk is full, whatever the step itself made of that; nothing of the step is left.
    """
    folder = root / f"{name}-{hash_json(key)[:16]}"
    if folder.is_dir():
        return folder
    partial = root / f"{PARTIAL}{folder.name}"
    with filled(partial, f"the step {name!r}"):
        make(partial)
        write_json(partial / KEY_FILE, key)
        os.replace(partial, folder)
    return folder


@contextmanager
def filled(partial: Path, what: str) -> Iterator[None]:
    """Makes an empty folder to fill, and leaves nothing of it when filling it fails.

    Args:
        partial: The folder; the block renames it when it is whole.
        what: What is written, for the message.

    Raises:
        OSError: The disk is full, whatever the block itself made of that.
    """
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield
    except BaseException as exc:
        full = isinstance(exc, Exception) and disk_full(exc, partial.parent)  # asked before room is made
        shutil.rmtree(partial, ignore_errors=True)
        if full:
            message = f"the disk is full: {what} could not be written"
            raise OSError(errno.ENOSPC, message, str(partial.parent)) from exc
        raise


def disk_full(exc: BaseException, folder: Path) -> bool:
    """Whether an error comes of a full disk: said by the system, or by next to nothing being free at ``folder``."""
    cause: BaseException | None = exc
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in _FULL:
            return True
        cause = cause.__cause__ or cause.__context__
    return folder.is_dir() and shutil.disk_usage(folder).free < _NEXT_TO_NOTHING


def replace_folder(new: Path, final: Path) -> None:
    """Puts a finished folder in place of an older one; at every moment one of the two is whole."""
    final.parent.mkdir(parents=True, exist_ok=True)
    old = final.parent / f"{_OLD}{final.name}"
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        os.replace(final, old)
    try:
        os.replace(new, final)
    except OSError:
        if old.exists():
            os.replace(old, final)
        raise
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Gives a path to write a file to, which takes the place of ``path`` when the block ends well."""
    partial = path.with_name(f"{PARTIAL}{path.name}")
    with filled(partial, path.name):
        yield partial / path.name
        os.replace(partial / path.name, path)
    partial.rmdir()


@contextmanager
def locked(root: Path) -> Iterator[Path]:
    """Holds a folder for one run at a time, and clears what a killed run left half-written.

    Args:
        root: The run's folder, made where needed.

    Yields:
        Where its step folders lie.

    Raises:
        EdgeKitError: Another run holds it, or it cannot be written to.
    """
    steps = root / STEPS
    try:
        steps.mkdir(parents=True, exist_ok=True)
        lock = (steps / _LOCK).open("w")
    except OSError as exc:
        raise EdgeKitError(
            f"{root}: cannot write here", found=exc.strerror or str(exc), fix="choose another folder with --out"
        ) from exc
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise EdgeKitError(
                f"{root}: another run is working in this folder",
                fix="wait for it, or choose another folder with --out",
            ) from exc
        for folder in (root, steps):
            _clear(folder)
        yield steps


def _clear(folder: Path) -> None:
    for partial in folder.glob(f"{PARTIAL}*"):
        final = folder / partial.name.removeprefix(_OLD)
        if partial.name.startswith(_OLD) and not final.exists():
            os.replace(partial, final)  # killed between the two renames: the older one is still whole
        elif partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)
