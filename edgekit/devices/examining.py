"""What a device is: its facts, the engines that run there, the targets that it is, and what disturbs timing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgekit.artifact import to_json
from edgekit.catalog import list_targets
from edgekit.devices.address import Address
from edgekit.devices.device import call, opened
from edgekit.devices.looking import clock_note
from edgekit.progress import Progress, silent
from edgekit.specs import mismatch


def examine(address: Address, folders: Sequence[Path] = (), progress: Progress = silent) -> dict[str, Any]:
    """Looks at a device, for ``edgekit doctor``.

    Args:
        address: Where it is.
        folders: Folders of the user's own targets.
        progress: Told what is sent.

    Returns:
        ``host``, ``python``, ``packages``, ``free_mb``, ``memory_left_mb``, ``clock``, ``alone`` (why other accounts
        may measure at the same time, or None), ``timing``, ``engines`` (why each does not execute there, or None),
        ``runs`` (whether any does), ``targets``, each with ``mismatch``, and what EdgeKit ``keeps`` there.

    Raises:
        DeviceError: It cannot be reached, is not trusted, or runs no Python that is new enough.
    """
    with opened(address, grace_s=1.0, progress=progress) as device:
        ended = call(device, ["profiling.facts"])
        if ended.status != 0:
            raise device.connection.refused("it does not say what it is", ended)
        facts = json.loads(ended.stdout)
        keeps = call(device, ["profiling.room", device.root])
        if keeps.status != 0:
            raise device.connection.refused("it does not say what is kept there", keeps)
        found = device.look
        engines = {engine: why for engine, why in facts["execute"].items() if engine != "null"}
        targets = [
            {"name": target.name, "engines": list(target.engines), "mismatch": mismatch(target, device.host)}
            for target in list_targets(folders)
            if not target.from_host
        ]
        return {
            "host": to_json(device.host),
            "python": {
                "path": found.python,
                "version": found.version,
                "libc": " ".join(found.libc).strip() or "unknown",
            },
            "packages": dict(found.packages),
            "free_mb": found.free_mb,
            "memory_left_mb": found.memory_mb,
            "clock": clock_note(found),
            "alone": device.note,
            "timing": facts["timing"],
            "engines": engines,
            "runs": any(why is None for why in engines.values()),
            "targets": targets,
            "keeps": json.loads(keeps.stdout),
        }
