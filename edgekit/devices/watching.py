"""What a watch on a device wrote, read there: the lock is not taken, for nothing is measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgekit.artifact import MANIFEST_FILE
from edgekit.devices.address import Address
from edgekit.devices.kit import IN_ROOT, make_kit, send_kit
from edgekit.devices.looking import look
from edgekit.devices.ssh import Connection, connect
from edgekit.errors import DeviceError, EdgeKitError, EngineMissing
from edgekit.progress import Progress, silent
from edgekit.runtime.manifest import read_manifest
from edgekit.runtime.watch.reading import Reading, parse_reading

_READ_S = 60.0


def watch_on(address: Address, path: Path, progress: Progress = silent) -> Reading:
    """Reads a watch on a device and judges it there, by the device's own clock.

    Args:
        address: The device.
        path: A bundle here, whose watch there writes where it does unless told otherwise; or, on the device, the
            folder of a watch or of a bundle.
        progress: Told when the kit is sent.

    Raises:
        EdgeKitError: There is nothing of a watch.
        DeviceError: The device cannot be reached or used, or the path on it is not absolute.
        EngineMissing: Its Python has no numpy.
        ConnectionLost: The connection went.
    """
    asked = _asked(path, address.name)
    with connect(address) as connection:
        kit = make_kit().sha256
        found = look(connection, kit)
        if not found.has("numpy"):
            raise EngineMissing(
                f"{address.name}: numpy cannot be imported there",
                found=f"Python {found.version} at {found.python}",
                fix=f"name the Python that runs the bundle: python = … of [{address.name}] in devices.toml",
            )
        if not found.kit:
            progress("kit", 0, 1)
            send_kit(connection, found.python, found.root)
            progress("kit", 1, 1)
        argv = [found.python, "-m", "edgekit.runtime.watch.reading", *asked]
        return _read(connection, ["sh", "-c", IN_ROOT, found.root, "env", f"PYTHONPATH={found.root}/kit/{kit}", *argv])


def _asked(path: Path, name: str) -> list[str]:
    if (path / MANIFEST_FILE).is_file():
        return ["--id", read_manifest(path, check=False).id]
    if not path.is_absolute():
        raise DeviceError(
            f"{name}: no bundle is at {path} here, and no path of the device is it either",
            found=str(path),
            allowed="a bundle here, or an absolute path there",
        )
    return [str(path)]


def _read(connection: Connection, argv: list[str]) -> Reading:
    ended = connection.run(argv, timeout_s=_READ_S)
    try:
        found: Any = json.loads(ended.stdout.strip().rpartition("\n")[2])
    except ValueError:
        raise connection.refused("the watch could not be read there", ended) from None
    if "error" in found:
        error = found["error"]
        parts = {key: error[key] for key in ("found", "allowed", "fix")}
        raise EdgeKitError(f"{connection.address.name}: {error['problem']}", **parts)
    return parse_reading(found)
