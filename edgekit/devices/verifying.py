"""Verifying a bundle on a device: what its golden samples show there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgekit import errors
from edgekit.artifact import GOLDEN_FILE, MANIFEST_FILE, Manifest, hash_file
from edgekit.devices.device import Device, call, send_folder
from edgekit.devices.ssh import Ended
from edgekit.errors import BundleError, DeviceError, EdgeKitError
from edgekit.progress import Progress, silent
from edgekit.runtime import first_silence_s
from edgekit.runtime.golden import Verification
from edgekit.runtime.manifest import read_manifest

VERIFY_STEP = "verify"
VERIFY_S = 600.0
# What an engine takes besides the model: its own code and buffers. A model is held twice while it is opened.
_ENGINE_MB = 60.0
_COPIES = 2.0


def verify_on(device: Device, path: Path, progress: Progress = silent) -> Verification:
    """Sends a bundle to a device, unless it is there, and runs its golden samples on it.

    Args:
        device: The device.
        path: The bundle's folder.
        progress: Where it tells how far it is.

    Raises:
        BundleError: The bundle is damaged, here or there.
        EngineError: The engine is missing there, refuses the artifact or fails on a sample.
        DeviceError: The process there crashed, or the device has no room.
        ConnectionLost: The connection went.
    """
    manifest = read_manifest(path)
    there = send_bundle(device, path, manifest, progress)
    progress(VERIFY_STEP, 0, 1)
    try:
        found = _verified(device, there, manifest.engine)
    except BundleError:  # it is whole here: what lies there was damaged since
        device.connection.run(["rm", "-rf", there])
        send_bundle(device, path, manifest, progress)
        found = _verified(device, there, manifest.engine)
    progress(VERIFY_STEP, 1, 1)
    return Verification(**{**found, "messages": tuple(found["messages"])})


def _verified(device: Device, there: str, engine: str) -> dict[str, Any]:
    ended = call(device, ["runtime.verifying", there], timeout_s=first_silence_s(engine, VERIFY_S))
    return answer(device, ended, engine)


def send_bundle(device: Device, path: Path, manifest: Manifest, progress: Progress = silent) -> str:
    """Sends a bundle's files; returns its folder on the device. A bundle that is there already is not sent again."""
    names = [MANIFEST_FILE, *manifest.files]
    return send_folder(device, path, names, hash_file(path / MANIFEST_FILE), progress)


def needed_mb(path: Path, manifest: Manifest) -> float:
    """Memory without which a bundle need not be tried on a device, in MB (10^6 bytes)."""
    size = sum((path / name).stat().st_size for name in manifest.files if name != GOLDEN_FILE)
    return _ENGINE_MB + _COPIES * size / 1e6


def answer(device: Device, ended: Ended, engine: str) -> dict[str, Any]:
    """The JSON that a module of the kit printed last; an error that it told is raised as it was there.

    Raises:
        EdgeKitError: Whatever the module raised on the device.
        DeviceError: It crashed.
    """
    last = ended.stdout.strip().rpartition("\n")[2]
    try:
        found = json.loads(last) if ended.signal is None else None
    except ValueError:
        found = None
    if isinstance(found, dict) and ended.status == 0:
        return found
    if isinstance(found, dict) and "error" in found:
        raise _told(device, found["error"])
    said = ended.stderr.strip().splitlines()
    if ended.signal == "ILL":
        raise DeviceError(
            f"{device.name}: {engine} crashed on an instruction that this CPU does not have",
            found=f"SIGILL on {device.host.cpu_model} ({device.host.arch}, {device.host.isa})",
            fix=f"install a build of {engine} for this CPU on the device, or deploy with another engine",
        )
    if ended.signal == "KILL":
        raise DeviceError(
            f"{device.name}: the process was killed there: too little memory, most likely",
            found=f"SIGKILL; {device.look.memory_mb:.0f} MB were left",
            fix="end what else runs there, or deploy a smaller model",
        )
    how = f"SIG{ended.signal}" if ended.signal else f"exit status {ended.status}"
    raise DeviceError(
        f"{device.name}: {engine} crashed there",
        found=f"{how}: {said[-1]}" if said else how,
    )


def _told(device: Device, error: dict[str, Any]) -> EdgeKitError:
    kinds = (errors.BundleError, errors.EngineError, errors.EngineMissing, errors.FeedError, errors.ModelError)
    kind = next((kind for kind in kinds if kind.__name__ == error["kind"]), BundleError)
    return kind(f"{device.name}: {error['problem']}", found=error["found"], allowed=error["allowed"], fix=error["fix"])
