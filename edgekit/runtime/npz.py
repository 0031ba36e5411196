"""Reads ``.npz`` files that others wrote: arrays of numbers only, and no more memory than the file accounts for."""

from __future__ import annotations

import struct
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import IO

import numpy as np

from edgekit.artifact import Array

_KINDS = "biuf"
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
# What numpy, zipfile and zlib raise on files that are cut, changed or made to mislead.
DAMAGED = (
    *(OSError, EOFError, ValueError, MemoryError, RuntimeError, NotImplementedError, OverflowError, SyntaxError),
    *(TypeError, IndexError, struct.error, zipfile.BadZipFile, zlib.error, tokenize.TokenError),
)


class Damaged(Exception):
    """Why a file's arrays cannot be read."""


def read_arrays(path: Path, names: Sequence[str] | None = None, *, compressed: bool = True) -> dict[str, Array]:
    """Reads arrays of booleans, integers and floats; nothing in the file is ever run.

    A header may claim any shape, so its size is compared with the bytes that the archive holds for it before memory
    is taken (the format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html).

    Args:
        path: The file.
        names: The arrays to read; None: all.
        compressed: Whether they may be; otherwise they take no more memory than the file has bytes.

    Raises:
        KeyError: An array of ``names`` is not in it.
        Damaged: It is no such file, is cut or changed, or an array is no array of numbers.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            found = _names(archive, compressed)
            for name in names or ():
                if name not in found:
                    raise KeyError(name)
            return {name: _read(archive, name) for name in (found if names is None else names)}
    except DAMAGED as exc:
        raise Damaged(f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__) from exc


def _names(archive: zipfile.ZipFile, compressed: bool) -> list[str]:
    entries = archive.infolist()
    for entry in entries:
        if not entry.filename.endswith(".npy"):
            raise ValueError(f"{entry.filename!r} in it is no array")
        if not compressed and entry.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{entry.filename!r} in it is compressed")
    names = [entry.filename.removesuffix(".npy") for entry in entries]
    if len(set(names)) != len(names):
        raise ValueError("two arrays in it have one name")
    return names


def _read(archive: zipfile.ZipFile, name: str) -> Array:
    entry = archive.getinfo(f"{name}.npy")
    with archive.open(entry) as stream:
        shape, dtype = _header(stream, name)
        size, held = prod(shape) * dtype.itemsize, entry.file_size - stream.tell()
        if size != held:
            raise ValueError(f"array {name!r} claims {dtype}{list(shape)}, {size} bytes, and {held} are there")
    with archive.open(entry) as stream:
        array: Array = np.lib.format.read_array(stream, allow_pickle=False)
        if stream.read(1):  # reads on to the end, where the checksum is compared
            raise ValueError(f"array {name!r} is followed by other bytes")
    return array


def _header(stream: IO[bytes], name: str) -> tuple[tuple[int, ...], np.dtype[np.generic]]:
    version = np.lib.format.read_magic(stream)
    if version not in _HEADERS:
        raise ValueError(f"array {name!r} is of format version {version}")
    shape, _, dtype = _HEADERS[version](stream)
    if dtype.kind not in _KINDS:
        held = "Python objects, and reading them could run code" if dtype.hasobject else str(dtype)
        raise ValueError(f"array {name!r} holds {held}; numbers are allowed")
    if any(side < 0 for side in shape):
        raise ValueError(f"array {name!r} claims the shape {list(shape)}")
    return shape, dtype
