"""Resumable steps: one folder a step, keyed by the hash of everything it depends on, made whole by a rename."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgekit.artifact import hash_json, write_json
from edgekit.disk import PARTIAL, filled
from edgekit.errors import EdgeKitError

STEPS = ".steps"
KEY_FILE = "step.json"
OLD = ".edgekit-old-partial-"  # what a finished folder is called while a newer one takes its place
_LOCK = ".lock"


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
        DiskFull: The disk is full, whatever the step itself made of that; nothing of the step is left.
    """
    folder = step_folder(root, name, key)
    if folder.is_dir():
        return folder
    partial = root / f"{PARTIAL}{folder.name}"
    with filled(partial, f"the step {name!r}"):
        make(partial)
        write_json(partial / KEY_FILE, key)
        os.replace(partial, folder)
    return folder


def step_folder(root: Path, name: str, key: Any) -> Path:
    """Where a step's folder is, whether it was made or not."""
    return root / f"{name}-{hash_json(key)[:16]}"


def replace_folder(new: Path, final: Path) -> None:
    """Puts a finished folder in place of an older one; at every moment one of the two is whole."""
    final.parent.mkdir(parents=True, exist_ok=True)
    old = final.parent / f"{OLD}{final.name}"
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
        _remove(partial)
    for old in folder.glob(f"{OLD}*"):
        final = folder / old.name.removeprefix(OLD)
        if final.exists():
            _remove(old)
        else:
            os.replace(old, final)  # killed between the two renames: the older one is still whole


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
