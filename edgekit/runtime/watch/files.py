"""Where a watch writes: JSON lines that are bounded and survive a kill, and one process at a time that writes them."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from edgekit.disk import DiskFull
from edgekit.errors import EdgeKitError

SCHEMA_VERSION = 1  # of the lines
LINES, OLDER, LOCK, PROMETHEUS = "watch.jsonl", "watch.jsonl.1", "watch.lock", "watch.prom"
KEPT_BYTES = 2_000_000  # of lines, in two files
_CHECKSUM = b',"crc32":'  # of what stands before it: a worn flash card changes bytes without a word
_EVERY: dict[str, Any] = {"run": str, "seq": int, "kind": str}
_START = _EVERY | {
    "schema_version": int,
    "edges": list,
    "limits": dict,
    "window_s": (int, float),
    "period_s": (int, float),
}
_STATE = _EVERY | {
    **dict.fromkeys(("queries", "failed", "taken", "dropped"), int),
    **dict.fromkeys(("inputs", "outputs", "latency"), dict),
    "at_s": (int, float),
    "boot": str,
}


def default_folder(bundle_id: str) -> Path:
    """Where a bundle's watch writes if nothing else is said: below ``$XDG_STATE_HOME``, or ``~/.local/state``."""
    state = os.environ.get("XDG_STATE_HOME", "")
    root = Path(state) if Path(state).is_absolute() else Path.home() / ".local/state"
    return root / "edgekit/watch" / (bundle_id[:16] or "unnamed")


def take_folder(folder: Path) -> IO[str]:
    """Makes a watch's folder and takes it for this process; the lock ends with the process, however that ends.

    Returns:
        The lock's file; closing it gives the folder free.

    Raises:
        EdgeKitError: It cannot be made or written, or another process writes there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / LOCK).open("a+", encoding="ascii")
    except OSError as exc:
        raise EdgeKitError(
            f"{folder}: a watch cannot write there", found=exc.strerror, fix="give another folder"
        ) from exc
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        lock.seek(0)
        holder = lock.read(20).strip() or "unknown"
        lock.close()
        raise EdgeKitError(
            f"{folder}: another process writes its watch there",
            found=f"process {holder}",
            fix="give each process a folder of its own",
        ) from exc
    with contextlib.suppress(OSError):  # a full disk: the lock holds without the number, which no buffer may keep
        os.truncate(lock.fileno(), 0)
        os.write(lock.fileno(), f"{os.getpid()}\n".encode())
    return lock


def append_line(folder: Path, line: Mapping[str, Any], head: Mapping[str, Any], kept_bytes: int = KEPT_BYTES) -> None:
    """Adds a line, in one write; half the kept bytes full, the file becomes the older one and a new one begins.

    Every file begins with ``head``, without which its lines cannot be read. A line that a kill or a full disk cut is
    ended, so that no other is lost with it.

    Raises:
        DiskFull: There is no room; nothing of the line is left.
        OSError: It cannot be written.
    """
    path = folder / LINES
    text = _text(line)
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size + len(text) > kept_bytes // 2:
            os.replace(path, folder / OLDER)
    with path.open("ab", buffering=0) as stream:
        size = stream.tell()
        before = b"" if size else _text(head) if line != head else b""
        if size and not _ends(path):
            before = b"\n"
        data = before + text
        try:
            whole = stream.write(data) == len(data)
        except OSError:
            os.truncate(path, size)
            raise
        if not whole:
            os.truncate(path, size)
            raise DiskFull("a line of the watch", folder)


def _ends(path: Path) -> bool:
    with path.open("rb") as stream:
        stream.seek(-1, os.SEEK_END)
        return stream.read(1) == b"\n"


def _text(line: Mapping[str, Any]) -> bytes:
    body = json.dumps(line, separators=(",", ":"), allow_nan=False)[:-1].encode()
    return b"%s%s%d}\n" % (body, _CHECKSUM, zlib.crc32(body))


def read_lines(folder: Path) -> tuple[list[dict[str, Any]], int]:
    """Every line that can be read, the oldest first, and how many cannot: torn ones, or none of ours.

    A file that is rotated while it is read gives its lines once.

    Raises:
        OSError: They cannot be read.
    """
    texts = []
    for name in (LINES, OLDER):  # the newer one first: rotated in between, its lines come again and are told by number
        try:
            texts.append((folder / name).read_bytes())
        except FileNotFoundError:
            texts.append(b"")
    found: dict[tuple[str, int], dict[str, Any]] = {}
    broken = 0
    for text in reversed(texts):
        for row in text.split(b"\n"):
            line = _parsed(row)
            if line is not None:
                found[line["run"], line["seq"]] = line
            elif row.strip(b"\0 "):
                broken += 1
    return list(found.values()), broken


def _parsed(row: bytes) -> dict[str, Any] | None:
    body, _, checksum = row.rpartition(_CHECKSUM)
    try:
        if int(checksum.rstrip(b"}")) != zlib.crc32(body):
            return None
        line = json.loads(body + b"}")
        wanted = _START if line["kind"] == "start" else _STATE
        return line if all(isinstance(line[key], kind) for key, kind in wanted.items()) else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
