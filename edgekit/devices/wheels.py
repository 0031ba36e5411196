"""Wheels of numpy and an engine for a device that has none, and perhaps neither pip nor a network.

pip fetches them here for the device's platform, ``zipfile`` unpacks them there. They stay there, named by what is in
them, and are on the path of what we run only: nothing is installed.
"""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgekit.artifact import hash_file, hash_json
from edgekit.devices.archives import used_stamp
from edgekit.devices.looking import PACKAGES, Look, check_room
from edgekit.devices.ssh import Connection, one_line
from edgekit.errors import DeviceError
from edgekit.progress import Progress, silent

# As in pyproject.toml; a test compares.
LEAST = {"numpy": "1.26", "onnxruntime": "1.23", "openvino": "2026.4"}
OLDEST_GLIBC = 17  # 2.17: manylinux2014
FETCH_STEP = "fetch wheels"
UNPACK_STEP = "unpack wheels"
_FETCH_S = 1800.0
_UNPACK_S = 900.0
_UNPACKED = 4.0  # times their size that wheels take once they are unpacked, at most

_IS_THERE = 'TZ=UTC0 touch -c -t "$1" "$0" 2>/dev/null; [ -d "$0" ]'  # and counts as used now

# Nothing is run of what is unpacked, and zipfile lets nothing out of the folder.
_UNPACK = """
import os, pathlib, shutil, sys, zipfile
sent, folder, now = sys.argv[1:]
part = folder + ".part." + str(os.getpid())
try:
    for wheel in sorted(pathlib.Path(sent).glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(part)
    os.sync()
    os.utime(part, (float(now), float(now)))
    if not os.path.isdir(folder):
        os.rename(part, folder)
finally:
    shutil.rmtree(part, ignore_errors=True)
    shutil.rmtree(sent, ignore_errors=True)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sites:
    """What a device imports of wheels that were sent.

    Attributes:
        folders: The folder there of each package's wheel, by package; none of what the device has itself.
        lacking: By engine, why no wheels of it were sent.
    """

    folders: Mapping[str, str] = field(default_factory=dict)
    lacking: Mapping[str, str] = field(default_factory=dict)


def send_wheels(
    connection: Connection, found: Look, engines: Sequence[str], progress: Progress = silent
) -> tuple[Sites, Look]:
    """Fetches the wheels that a device lacks, sends them and unpacks them there; what is there is not sent again.

    Of several engines those that there are no wheels of are told; one at least must be had.

    Args:
        connection: The way there.
        found: What the device is.
        engines: The engines that are wanted; numpy is too.
        progress: Told how far it is.

    Returns:
        What to import from there, and what the device has with it.

    Raises:
        DeviceError: There are no wheels of numpy, or of any of the engines, for this device; none could be fetched;
            or the device has no room.
        ConnectionLost: The connection went.
    """
    folders: dict[str, str] = {}
    failed: dict[str, DeviceError] = {}
    for package in ("numpy", *engines):
        if package in found.packages or package not in PACKAGES:
            continue
        progress(FETCH_STEP, 0, 1, package)
        try:
            wheels = fetch_wheels(found, [package])
        except DeviceError as exc:
            if package == "numpy" or len(engines) == 1:
                raise
            failed[package] = exc
            continue
        progress(FETCH_STEP, 1, 1, " ".join(wheel.name for wheel in wheels))
        folders[package] = _send(connection, found, package, wheels, progress)
        found = found.with_packages(dict(wheel.name.split("-")[:2] for wheel in wheels))
    if engines and len(failed) == len(set(engines)):
        raise DeviceError(
            f"{connection.address.name}: there are wheels of no engine for this device",
            found="; ".join(f"{engine}: {exc.problem}" for engine, exc in failed.items()),
            allowed="wheels of one of them",
        )
    lacking = {engine: f"{exc.problem}: {exc.found}" for engine, exc in failed.items()}
    return Sites(folders=folders, lacking=lacking), found


def _send(connection: Connection, found: Look, package: str, wheels: Sequence[Path], progress: Progress) -> str:
    """Sends a package's wheels and unpacks them, unless they are there; the folder there."""
    names = {wheel.name: wheel for wheel in wheels}
    folder = f"{found.root}/wheels/{hash_json({name: hash_file(wheel) for name, wheel in names.items()})}"
    if connection.run(["sh", "-c", _IS_THERE, folder, used_stamp()]).status == 0:
        return folder
    needed_mb = sum(wheel.stat().st_size for wheel in wheels) / 1e6 * (1 + _UNPACKED)
    check_room(connection, found.root, needed_mb, package)
    sent = f"{folder}.whl"
    connection.run(["rm", "-rf", sent])
    connection.put(names, sent, progress)
    progress(UNPACK_STEP, 0, 1, package)
    argv = [found.python, "-I", "-c", one_line(_UNPACK), sent, folder, f"{time.time():.0f}"]
    ended = connection.run(argv, timeout_s=_UNPACK_S)
    if ended.status != 0:
        raise connection.refused("the wheels could not be unpacked", ended, folder)
    progress(UNPACK_STEP, 1, 1, package)
    return folder


def fetch_wheels(found: Look, packages: Sequence[str]) -> list[Path]:
    """Has pip fetch wheels for a device's platform and Python, unless they were fetched before.

    An engine is taken in the version that is installed here, so that both compute with one build; where that has no
    wheel for the device, the newest that has one.

    Raises:
        DeviceError: There is none for it, or pip could not fetch it.
    """
    name, version = found.libc
    unknown = [package for package in packages if package not in LEAST]
    if unknown or name != "glibc":
        raise DeviceError(
            f"there are no wheels of {' and '.join(unknown or packages)} for this device",
            found=f"{found.arch}, " + (f"{name} {version}".strip() or "a C library that is not glibc"),
            allowed=f"{', '.join(LEAST)} on glibc",
            fix="TensorRT comes with JetPack or NVIDIA's packages" if "tensorrt" in unknown else "install them there",
        )
    python = ".".join(found.version.split(".")[:2])
    wanted = [[f"{package}=={_version_here(package)}", f"{package}>={LEAST[package]}"] for package in packages]
    cache = _cache() / hash_json([found.arch, version, python, wanted])[:24]
    if not cache.is_dir():
        cache.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache.parent, prefix=".part-") as folder:
            for choices in wanted:
                _fetch(choices, found.arch, version, python, Path(folder))
            made = Path(folder) / "wheels"
            made.mkdir()
            for wheel in Path(folder).glob("*.whl"):
                wheel.rename(made / wheel.name)
            if not cache.is_dir():
                os.replace(made, cache)
    return sorted(cache.glob("*.whl"))


def _fetch(choices: Sequence[str], arch: str, glibc: str, python: str, folder: Path) -> None:
    """Fetches the first of several requirements that there is a wheel of."""
    minor = int(glibc.split(".")[1])
    platforms = [f"manylinux_2_{n}_{arch}" for n in range(minor, OLDEST_GLIBC - 1, -1)] + [f"manylinux2014_{arch}"]
    said = ""
    for requirement in choices:
        argv = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--quiet", "--no-deps"]
        argv += ["--only-binary=:all:", "--implementation", "cp", "--python-version", python, "--dest", str(folder)]
        argv += [argument for platform in platforms for argument in ("--platform", platform)]
        try:
            done = subprocess.run([*argv, requirement], capture_output=True, text=True, check=False, timeout=_FETCH_S)
        except subprocess.TimeoutExpired as exc:
            raise DeviceError("pip fetched no wheel in time", found=requirement, fix="give the command again") from exc
        if done.returncode == 0:
            return
        said = next((line for line in done.stderr.splitlines() if line.startswith("ERROR")), done.stderr.strip())
    raise DeviceError(
        f"no wheel of {choices[-1]} could be fetched for this device",
        found=said.removeprefix("ERROR: "),
        allowed=f"a wheel for Python {python} on {arch} with glibc {glibc}",
        fix="install it on the device, or give the command where there is a network",
    )


def _version_here(package: str) -> str:
    """The version that is installed here, else the oldest that will do."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return LEAST[package]


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgekit/wheels"
