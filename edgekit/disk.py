"""Files and folders that are written whole or not at all, and a full disk told as such."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PARTIAL = ".edgekit-partial-"  # told apart from whatever else lies in a folder of the user's
_FULL = (errno.ENOSPC, errno.EDQUOT)
_TEMPORARY = "edgekit-"
_HELD = ".held"
_NEXT_TO_NOTHING = 1 << 20  # bytes left free on a disk that an engine, which names no cause, could not write to


class DiskFull(OSError):
    """A disk is full. No EdgeKitError, for it is no candidate's own failure and must end the run.

    Args:
        what: What could not be written.
        place: A folder on the full disk.
        written: Bytes of it that were written before.
    """

    def __init__(self, what: str, place: Path, written: int = 0) -> None:
        there = next((folder for folder in (place, *place.absolute().parents) if folder.is_dir()), place)
        free = shutil.disk_usage(there).free
        so_far = f" after {written / 1e6:.3f} MB of it" if written else ""
        super().__init__(
            errno.ENOSPC,
            f"the disk is full: {what} could not be written\n  found:   {free / 1e6:.3f} MB free{so_far}\n"
            "  fix:     make room there and give the same command again; what is finished is kept",
            str(place),
        )


def disk_full(exc: BaseException, *folders: Path) -> Path | None:
    """Where a disk is full, if an error comes of one: said by the system, or by next to nothing being free.

    Args:
        exc: The error; its causes are looked at too.
        folders: Where the block that failed was writing, the likeliest first.

    Returns:
        One of the folders, or another that the system named; None: no disk is full.
    """
    tight = next((folder for folder in folders if folder.is_dir() and nearly_full(folder)), None)
    cause: BaseException | None = exc
    seen: set[int] = set()
    while cause is not None and id(cause) not in seen:  # what is raised again in a handler may end in a ring
        seen.add(id(cause))
        if isinstance(cause, OSError) and cause.errno in _FULL:
            named = Path(os.fsdecode(cause.filename)).parent if isinstance(cause.filename, (str, bytes)) else None
            return tight or named or folders[0]
        cause = cause.__cause__ or cause.__context__
    return tight


def nearly_full(folder: Path) -> bool:
    """Whether next to nothing is free on the disk of an existing folder."""
    return shutil.disk_usage(folder).free < _NEXT_TO_NOTHING


@contextmanager
def filled(partial: Path, what: str) -> Iterator[None]:
    """Makes an empty folder to fill, and leaves nothing of it when filling it fails.

    Args:
        partial: The folder; the block renames it when it is whole.
        what: What is written, for the message.

    Raises:
        DiskFull: The disk is full, there or where temporary files go, whatever the block itself made of that.
    """
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        yield
    except BaseException as exc:
        told = _told(exc, what, partial)  # before room is made
        shutil.rmtree(partial, ignore_errors=True)
        if told is not None:
            raise told from exc
        raise


@contextmanager
def temporary_folder(what: str) -> Iterator[Path]:
    """Makes a folder for temporary files, gone when the block ends; one that a killed process left goes too.

    Args:
        what: What is written there, for the message.

    Raises:
        DiskFull: There is no room where temporary files go, whatever the block itself made of that.
    """
    folder = None
    try:
        folder = Path(tempfile.mkdtemp(prefix=_TEMPORARY))
        with _held(folder):
            _clear_killed(folder.parent)
            yield folder
    except BaseException as exc:
        told = _told(exc, what, folder or Path(os.environ.get("TMPDIR", os.curdir)) / "edgekit")
        if told is not None:
            raise told from exc
        raise
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Marks a folder as one whose process lives, by a lock that ends with it."""
    unseen = folder / f"{_HELD}.new"
    with unseen.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        os.replace(unseen, folder / _HELD)  # whoever sees it finds it locked
        yield


def _clear_killed(root: Path) -> None:
    """Removes this user's temporary folders whose process was killed."""
    for held in root.glob(f"{_TEMPORARY}*/{_HELD}"):
        with contextlib.suppress(OSError):  # locked, another user's, or gone meanwhile
            if held.parent.is_symlink() or held.lstat().st_uid != os.getuid():
                continue
            with held.open() as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(held.parent)


def _told(exc: BaseException, what: str, partial: Path) -> DiskFull | None:
    """The full disk behind an error, unless that is told already."""
    if not isinstance(exc, Exception) or isinstance(exc, DiskFull):
        return None
    folders = [partial.parent]
    with contextlib.suppress(OSError):  # there is none that can be written to
        folders.append(Path(tempfile.gettempdir()))
    place = disk_full(exc, *folders)
    return None if place is None else DiskFull(what, place, folder_bytes(partial))


def folder_bytes(folder: Path) -> int:
    """Bytes of the files under a folder; 0 where there is none."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


@contextmanager
def whole(path: Path, what: str | None = None) -> Iterator[Path]:
    """Gives a path to write a file to, which takes the place of ``path`` when the block ends well.

    Args:
        path: The file.
        what: What it is, for the message; None: its name.

    Raises:
        DiskFull: The disk is full; nothing is left of the file, and an older one stays.
    """
    partial = path.with_name(f"{PARTIAL}{path.name}")
    with filled(partial, what or path.name):
        yield partial / path.name
        os.replace(partial / path.name, path)
    partial.rmdir()
