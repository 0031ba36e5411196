"""Removes from a device what EdgeKit keeps there; nothing is sent for it but a program on standard input."""

from __future__ import annotations

import getpass
import json
import socket
import uuid
from typing import Any

from edgekit.devices.address import Address
from edgekit.devices.device import refused_lock
from edgekit.devices.looking import look
from edgekit.devices.ssh import connect, one_line
from edgekit.profiling import locks, room
from edgekit.progress import Progress, silent

CLEAN_STEP = "clean"
_CLEAN_S = 600.0
_MODULES = (locks, room)

# The disk may be full, so these two modules run from memory: they need the standard library only, as a test shows.
_RUN = """
import json, sys, types
for name, source in json.load(sys.stdin):
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(source, name, "exec"), module.__dict__)
sys.exit(module.main(sys.argv[1:]))
"""


def clean_on(address: Address, progress: Progress = silent) -> dict[str, Any]:
    """Removes everything that EdgeKit keeps on a device for this account and that is not in use.

    TensorRT's plans stay: programs on the device load them.

    Args:
        address: Where it is.
        progress: Told when it begins and ends.

    Returns:
        ``root``; ``removed_mb``; ``kept``, folders that a process there uses; ``left``, what could not be removed;
        ``plans``, their ``folder`` and ``mb``.

    Raises:
        DeviceError: It cannot be reached, or somebody is measuring there.
        ConnectionLost: The connection went.
    """
    with connect(address) as connection:
        found = look(connection)
        progress(CLEAN_STEP, 0, 1)
        sources = [(module.__name__, _source(module.__file__)) for module in _MODULES]
        who = f"{getpass.getuser()}@{socket.gethostname()}"
        argv = [found.python, "-I", "-c", one_line(_RUN), "--clean", found.root, uuid.uuid4().hex, who]
        ended = connection.run(argv, stdin=json.dumps(sources).encode(), timeout_s=_CLEAN_S)
        try:
            told: dict[str, Any] = json.loads(ended.stdout)
        except ValueError:
            raise connection.refused("nothing could be removed there", ended, found.root) from None
        if "removed_mb" not in told:
            raise refused_lock(address.name, told)
        progress(CLEAN_STEP, 1, 1)
        return {"root": found.root, **told}


def _source(file: str | None) -> str:
    assert file is not None  # a module of ours
    with open(file, encoding="utf-8") as stream:
        return stream.read()
