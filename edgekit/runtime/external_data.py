"""Where the tensors of an ONNX file lie, read without the onnx package.

An ONNX file is a protobuf message; a tensor may name another file that holds its bytes, and an engine opens that
file wherever it is. This walks the message (https://protobuf.dev/programming-guides/encoding/) down to those names.
"""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Iterator
from typing import NamedTuple

from edgekit.artifact import StrPath, check_inside
from edgekit.errors import BundleError

# Fields that lead to tensors, by number: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
_MESSAGES: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 20: "Training", 25: "Function"},
    "Graph": {1: "Node", 5: "Tensor", 15: "SparseTensor"},
    "Training": {1: "Graph", 2: "Graph"},
    "Function": {7: "Node", 11: "Attribute"},
    "Node": {5: "Attribute"},
    "Attribute": {5: "Tensor", 6: "Graph", 10: "Tensor", 11: "Graph", 22: "SparseTensor", 23: "SparseTensor"},
    "SparseTensor": {1: "Tensor", 2: "Tensor"},
    "Tensor": {13: "Entry"},
    "Entry": {1: "Key", 2: "Value"},
}
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class _Field(NamedTuple):
    number: int
    start: int
    end: int


def check_external_data(model: StrPath) -> None:
    """Refuses an ONNX file whose tensors lie outside its folder, before an engine opens it.

    Args:
        model: The ``.onnx`` file.

    Raises:
        BundleError: It is missing, is no ONNX file, or names a file that is missing or outside its folder.
    """
    for name in external_files(model):
        check_file_inside(name, os.path.dirname(model), model)


def check_file_inside(name: str, folder: StrPath, where: StrPath) -> None:
    """Refuses a file name that leads out of ``folder``, by its text or through a link, or that is missing.

    Raises:
        BundleError: The name is not that of a file inside the folder.
    """
    check_inside(name, where)
    file = os.path.join(folder, name)
    if not _is_file(file, where):
        raise BundleError(f"{where}: the file {name!r} is missing", fix="copy the whole folder again")
    inside = os.path.join(os.path.realpath(folder), "")
    if not os.path.realpath(file).startswith(inside):
        raise BundleError(
            f"{where}: a file name points outside its folder through a link",
            found=f"{name!r} is a link",
            allowed="files inside the folder",
            fix="copy the folder with its files, not with links to them",
        )


def _is_file(file: str, where: StrPath) -> bool:
    try:
        return stat.S_ISREG(os.stat(file).st_mode)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # the last: text that is no name here
        return False
    except OSError as exc:  # no name that a file can have
        name = os.path.basename(file)
        raise BundleError(f"{where}: a file's name is impossible", found=f"{name[:60]}…: {exc.strerror}") from exc


def external_files(model: StrPath) -> tuple[str, ...]:
    """Names of the files in which an ONNX file keeps tensors, as written in it, sorted.

    Raises:
        BundleError: The file is missing or is not an ONNX file.
    """
    try:
        with open(model, "rb") as stream:
            if not stream.seek(0, 2):
                raise ValueError("it is empty")
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return tuple(sorted(set(_locations(data))))
    except FileNotFoundError as exc:
        raise BundleError(f"{model}: no such file", fix="check the folder") from exc
    except (ValueError, IndexError) as exc:
        raise BundleError(f"{model}: not an ONNX file", found=str(exc), fix="it is damaged; make it again") from exc


def _locations(data: mmap.mmap) -> Iterator[str]:
    todo = [("Model", 0, len(data))]
    while todo:
        message, start, end = todo.pop()
        children = _MESSAGES[message]
        keys, values = set(), []
        for field in _fields(data, start, end):
            child = children.get(field.number)
            if child == "Key":
                keys.add(data[field.start : field.end])
            elif child == "Value":
                values.append(data[field.start : field.end].decode())
            elif child is not None:
                todo.append((child, field.start, field.end))
        if b"location" in keys:
            yield from values


def _fields(data: mmap.mmap, at: int, end: int) -> Iterator[_Field]:
    """The length-delimited fields of the message in ``data[at:end]``."""
    while at < end:
        tag, at = _varint(data, at, end)
        wire = tag & 7
        if wire == _VARINT:
            _, at = _varint(data, at, end)
        elif wire == _BYTES:
            size, at = _varint(data, at, end)
            yield _Field(tag >> 3, at, at + size)
            at += size
        elif wire in (_FIXED64, _FIXED32):
            at += 8 if wire == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {wire} at byte {at}")
        if at > end:
            raise ValueError(f"a field ends at byte {at}, its message at {end}")


def _varint(data: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    """The variable-length integer at ``at``, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            raise ValueError(f"it is cut off at byte {at}")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise ValueError(f"a number at byte {at} is too long")
