"""Files on their way: a tar stream that is written as it is read, and taken apart without trust."""

from __future__ import annotations

import io
import os
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from edgekit.disk import PARTIAL
from edgekit.errors import DeviceError
from edgekit.progress import Progress, silent

WHOLE = ".edgekit-whole"  # last in a stream: without it, the stream was cut
SEND_STEP = "send"
_CHUNK = 1 << 17
_TIME = 946684800  # 2000: no device's clock says that this is to come
# One line, so that any login shell passes it on; what is partly there bears the number of the process that writes it.
# Not every tar says why it could not write.
_FULL = 'set -- $(df -Pk "$1" 2>/dev/null | tail -n 1); [ "${4:-9999}" -gt 999 ] || echo "No space left on device" >&2'
PUT = "; ".join(
    (
        f"full() {{ {_FULL}; exit 1; }}",
        "umask 077",
        'part="$1.part.$$"',
        "trap 'rm -rf \"$part\"' EXIT",
        "trap 'exit 1' HUP INT TERM PIPE",
        'mkdir -p "$part" && tar -xf - -C "$part" || full "$part"',
        f'[ -f "$part/{WHOLE}" ] || {{ echo "the stream was cut" >&2; exit 1; }}',
        f'rm "$part/{WHOLE}"',
        'TZ=UTC0 touch -t "$2" "$part" 2>/dev/null',
        '[ -d "$1" ] || mv "$part" "$1"',
    )
)


def packed(files: Mapping[str, Path], progress: Progress = silent) -> Iterator[bytes]:
    """A tar stream of files, by their names in it; files are read as the stream is taken.

    Raises:
        DeviceError: A file became shorter meanwhile.
    """
    sizes = {name: path.stat().st_size for name, path in files.items()}
    total, sent = _megabytes(sum(sizes.values())), 0
    folders = sorted({parent for name in files for parent in PurePosixPath(name).parents if parent.name})
    for folder in folders:
        yield _header(str(folder), 0, tarfile.DIRTYPE, 0o755)
    for name, path in files.items():
        yield _header(name, sizes[name], tarfile.REGTYPE, 0o644)
        left = sizes[name]
        with path.open("rb") as stream:
            while left:
                chunk = stream.read(min(_CHUNK, left))
                if not chunk:
                    raise DeviceError(f"{path}: became shorter while it was sent")
                left -= len(chunk)
                sent += len(chunk)
                yield chunk
                progress(SEND_STEP, _megabytes(sent), total, "MB")
        yield bytes(-sizes[name] % tarfile.BLOCKSIZE)
    yield _header(WHOLE, 0, tarfile.REGTYPE, 0o644) + bytes(2 * tarfile.BLOCKSIZE)


def used_stamp() -> str:
    """The time, as ``touch -t`` takes it: a folder's own time is when it was last used, by the clock here."""
    return time.strftime("%Y%m%d%H%M.%S", time.gmtime())


def unpack(data: bytes, names: Sequence[str], out: Path) -> None:
    """Takes files out of a tar stream, each whole or not at all.

    Args:
        data: The stream.
        names: The files that are wanted; anything else in the stream is refused.
        out: The folder they go to, which is made where needed.

    Raises:
        DeviceError: One is missing, or something else is in it.
    """
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for member in archive:
                name = member.name.removeprefix("./")
                stream = archive.extractfile(member) if member.isreg() else None
                if stream is None or name not in names:
                    raise DeviceError("the device sent something else than it was asked for", found=repr(member.name))
                found[name] = stream.read()
    except tarfile.TarError as exc:
        raise DeviceError("the files that the device sent are damaged", found=str(exc)) from exc
    lacking = [name for name in names if name not in found]
    if lacking:
        raise DeviceError("the device did not send a file", found="nothing", allowed=lacking[0])
    for name, content in found.items():
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{PARTIAL}{path.name}")
        part.write_bytes(content)
        os.replace(part, path)


def _header(name: str, size: int, kind: bytes, mode: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.mode, info.mtime = size, kind, mode, _TIME
    return info.tobuf(format=tarfile.GNU_FORMAT)


def _megabytes(count: int) -> int:
    return -(-count // 1_000_000)
