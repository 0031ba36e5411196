"""The kit: the part of EdgeKit that runs on a device, in one zip that is named by what is in it."""

from __future__ import annotations

import hashlib
import io
import time
import zipfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import edgekit
from edgekit.devices.ssh import Connection, one_line

# What needs numpy, the standard library and one engine only; tests/test_layers.py holds them to it.
MODULES = ("__init__", "errors", "progress", "disk", "processing_specs", "artifact")
PACKAGES = ("runtime", "profiling")
# Where no folder is called edgekit, which Python would import instead of the kit.
IN_ROOT = 'cd "$0" && exec "$@"'
_LONG_AGO = (1980, 1, 1, 0, 0, 0)

# Reads the zip on standard input. Compiled once, since a program that is imported from a zip is compiled every time.
_UNPACK = """
import compileall, io, os, shutil, sys, zipfile
folder, now = sys.argv[1], float(sys.argv[2])
part = folder + ".part." + str(os.getpid())
try:
    os.makedirs(part, mode=0o700)
    with zipfile.ZipFile(io.BytesIO(sys.stdin.buffer.read())) as archive:
        archive.extractall(part)
    compileall.compile_dir(part, quiet=2)
    os.sync()
    os.utime(part, (now, now))
    if not os.path.isdir(folder):
        os.rename(part, folder)
finally:
    shutil.rmtree(part, ignore_errors=True)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kit:
    """The kit as it is sent.

    Attributes:
        sha256: Names its content.
        content: The zip.
    """

    sha256: str
    content: bytes


@lru_cache(maxsize=1)
def make_kit() -> Kit:
    """Packs the kit of this EdgeKit (once a process)."""
    package = Path(edgekit.__file__).parent
    files = [package / f"{name}.py" for name in MODULES]
    files += [file for folder in PACKAGES for file in sorted((package / folder).rglob("*.py"))]
    stream, content = io.BytesIO(), hashlib.sha256()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for file in files:
            name, data = file.relative_to(package.parent).as_posix(), file.read_bytes()
            content.update(f"{name}\0{len(data)}\0".encode() + data)
            archive.writestr(zipfile.ZipInfo(name, _LONG_AGO), data, zipfile.ZIP_DEFLATED)
    return Kit(sha256=content.hexdigest(), content=stream.getvalue())


def send_kit(connection: Connection, python: str, root: str) -> str:
    """Sends the kit to a device and unpacks it there, whole or not at all.

    Args:
        connection: The way there.
        python: The Python there.
        root: The folder there for what is sent.

    Returns:
        The kit's folder there.

    Raises:
        ConnectionLost: The connection went.
        DeviceError: It could not be written there.
    """
    kit = make_kit()
    folder = f"{root}/kit/{kit.sha256}"
    ended = connection.run(
        [python, "-I", "-c", one_line(_UNPACK), folder, f"{time.time():.0f}"], stdin=kit.content, timeout_s=120
    )
    if ended.status != 0:
        raise connection.refused("the kit could not be unpacked", ended, folder)
    return folder
