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
from edgekit.errors import EdgeKitError

KEY_FILE = "step.json"
_PARTIAL = ".partial-"


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
    """
    folder = root / f"{name}-{hash_json(key)[:16]}"
    if folder.is_dir():
        return folder
    partial = root / f"{_PARTIAL}{folder.name}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        make(partial)
        write_json(partial / KEY_FILE, key)
        os.replace(partial, folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return folder


def replace_folder(new: Path, final: Path) -> None:
    """Puts a finished folder in place of an older one; at every moment one of the two is whole."""
    final.parent.mkdir(parents=True, exist_ok=True)
    old = final.parent / f"{_PARTIAL}old-{final.name}"
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        os.replace(final, old)
    os.replace(new, final)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Holds a folder for one run at a time, and clears what a killed run left half-written.

    Raises:
        EdgeKitError: Another run holds it.
    """
    try:
        root.mkdir(parents=True, exist_ok=True)
        lock = (root / ".lock").open("w")
    except OSError as exc:
        raise EdgeKitError(
            f"{root}: cannot write here", found=str(exc), fix="choose another folder with --out"
        ) from exc
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise EdgeKitError(
                f"{root}: another run is working in this folder",
                fix="wait for it, or choose another folder with --out",
            ) from exc
        for partial in root.glob(f"{_PARTIAL}*"):
            final = root / partial.name.removeprefix(f"{_PARTIAL}old-")
            if partial.name.startswith(f"{_PARTIAL}old-") and not final.exists():
                os.replace(partial, final)  # killed between the two renames: the older one is still whole
            else:
                shutil.rmtree(partial, ignore_errors=True)
        yield
