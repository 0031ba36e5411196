"""What EdgeKit keeps on a device, how much room that takes, and its removal.

::

    python -m edgekit.profiling.room ROOT                        tells what is kept, as JSON
    python -m edgekit.profiling.room --clean ROOT SESSION WHO    removes all of it that nobody uses, and tells

    ROOT/kit/<sha256>/      the runtime as it was sent, of one version each
    ROOT/wheels/<sha256>/   wheels, unpacked
    ROOT/bundles/<sha256>/  bundles, artifacts and samples
    ROOT/jobs/<session>/    what is being measured

The time of a folder is when it was last used, by the clock of who used it: a device's own may be off by years. What is
removed gets another name first, so that nothing half removed is ever found; a kill leaves that to the next visit.
Whatever else lies in ROOT is not touched.

Needs nothing but the standard library: it also runs on a device whose disk has no room for the kit.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from edgekit.profiling.locks import Other, leave, lock_both, say_who

KINDS = ("kit", "wheels", "bundles")
JOBS = "jobs"
UNUSED_DAYS = 30
_DAY_S = 86400.0
_OURS = re.compile(r"[0-9a-f]{64}|[0-9a-f]{32}")
_HALF = re.compile(r"(?:[0-9a-f]{64}|[0-9a-f]{32})(?:\.whl)?(?:\.part\.([0-9]+))?")
_BLOCK = 512


def remove_unused(root: Path, now_s: float, keep: Iterable[Path]) -> list[dict[str, Any]]:
    """Removes what nobody has used for 30 days: kits of other versions, wheels, bundles.

    Args:
        root: The folder there for what is sent; its lock is ours.
        now_s: The time, in seconds since 1970, by the clock of who visits.
        keep: Folders that this visit uses.

    Returns:
        What was removed: ``name``, ``mb``, ``days`` unused.
    """
    old: dict[Path, float] = {}
    for folder in (folder for kind in KINDS for folder in _folders(root / kind) if _OURS.fullmatch(folder.name)):
        days = (now_s - folder.stat().st_mtime) / _DAY_S
        if days < -1:  # written by a clock that is ahead, and else never old
            os.utime(folder, (now_s, now_s))
        elif days > UNUSED_DAYS and folder not in set(keep):
            old[folder] = days
    removed = []
    busy = used_now(old)
    for folder, days in old.items():
        mb = size_mb([folder])
        if folder not in busy and _removed(folder, folder.stat().st_mtime):
            removed.append({"name": f"{folder.parent.name}/{folder.name[:12]}", "mb": mb, "days": days})
    return removed


def kept(root: Path) -> dict[str, Any]:
    """What is kept: ``root``, by kind its ``count`` and ``mb`` (10^6 bytes), ``mb`` of all, and ``plans``."""
    kinds = {kind: list(_folders(root / kind)) for kind in KINDS}
    return {
        "root": str(root),
        **{kind: {"count": len(folders), "mb": size_mb(folders)} for kind, folders in kinds.items()},
        "mb": size_mb(_all(root)),
        "plans": _plans(),
    }


def clean(root: Path, session: str, who: str) -> dict[str, Any]:
    """Removes everything that is kept and not in use.

    Returns:
        ``removed_mb``; ``kept``: folders that a process there uses; ``left``: what cannot be removed; ``plans``. Or,
        where another one measures, ``who``, ``account`` and ``since_s``; or why the lock was ``refused``.
    """
    if not root.is_dir():
        return {"removed_mb": 0.0, "kept": [], "left": [], "plans": _plans()}
    try:
        locks = lock_both(root, {session})  # the machine's too: removing much is work for a board's disk
    except OSError as exc:
        return {"refused": f"{exc.filename}: {exc.strerror}"}
    if isinstance(locks, Other):
        return dataclasses.asdict(locks)
    for lock in locks:
        say_who(lock, who, session)
    before_mb = size_mb(_all(root))
    found = list(_all(root))
    busy = used_now(found)
    left = [folder for folder in found if folder not in busy and not _removed(folder)]
    after_mb = size_mb(_all(root))
    for lock in locks:
        leave(lock)
    for folder in (*(root / kind for kind in (*KINDS, JOBS)), root):
        with contextlib.suppress(OSError):  # something is in it
            folder.rmdir()
    return {
        "removed_mb": before_mb - after_mb,
        "kept": sorted(map(str, busy)),
        "left": sorted(map(str, left)),
        "plans": _plans(),
    }


def used_now(folders: Iterable[Path]) -> set[Path]:
    """Those that a living process names in its command or environment, or has mapped; a half's writer may live."""
    names = {folder: os.fsencode(folder) for folder in folders}
    half = {folder: _HALF.fullmatch(folder.name) for folder in names}
    found = {folder for folder, match in half.items() if match and match[1] and Path("/proc", match[1]).exists()}
    for process in Path("/proc").glob("[0-9]*"):
        if len(found) == len(names) or int(process.name) == os.getpid():
            continue
        said = b""
        for file in ("cmdline", "environ", "maps"):
            with contextlib.suppress(OSError):  # another account's, or gone
                said += (process / file).read_bytes()
        found |= {folder for folder, name in names.items() if name in said}
    return found


def size_mb(folders: Iterable[Path]) -> float:
    """Room that folders take on the disk, in MB (10^6 bytes); files with several names count once."""
    seen: dict[tuple[int, int], int] = {}
    for folder in folders:
        for path in (folder, *folder.rglob("*")):
            with contextlib.suppress(OSError):
                found = path.lstat()
                seen[found.st_dev, found.st_ino] = found.st_blocks * _BLOCK
    return sum(seen.values()) / 1e6


def _all(root: Path) -> Iterator[Path]:
    for kind in (*KINDS, JOBS):
        yield from _folders(root / kind)


def _folders(place: Path) -> Iterator[Path]:
    """Folders of ours, whole or half; nothing where the place is a link, which leads to what is not ours."""
    if place.is_symlink() or not place.is_dir():
        return
    for folder in sorted(place.iterdir()):
        if _HALF.fullmatch(folder.name) and folder.is_dir() and not folder.is_symlink():
            yield folder


def _removed(folder: Path, used_s: float | None = None) -> bool:
    """Removes a folder; not one that was used since a time. Whether nothing of it is left."""
    part = folder.with_name(f"{folder.name.partition('.part.')[0]}.part.{os.getpid()}")
    try:
        os.rename(folder, part)
        if used_s is not None and part.stat().st_mtime != used_s:
            os.rename(part, folder)
            return False
    except OSError:
        return False
    shutil.rmtree(part, ignore_errors=True)
    return not part.exists()


def _plans() -> dict[str, Any]:
    """TensorRT's plans, where :mod:`edgekit.runtime.tensorrt_plans` keeps them: programs on the device load them."""
    shared = os.environ.get("XDG_CACHE_HOME", "")
    cache = Path(shared if os.path.isabs(shared) else os.path.expanduser("~/.cache")) / "edgekit"
    folder = Path(os.environ.get("EDGEKIT_CACHE") or cache) / "tensorrt"
    return {"folder": str(folder), "mb": size_mb([folder])}


def main(arguments: list[str]) -> int:
    """Does what the command line says; returns the exit status."""
    match arguments:
        case ["--clean", root, session, who]:
            print(json.dumps(clean(Path(root), session, who)))
        case [root]:
            print(json.dumps(kept(Path(root))))
        case _:
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
