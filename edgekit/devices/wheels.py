"""Wheels of numpy and an engine for a device that has none, and perhaps neither pip nor a network."""

from __future__ import annotations

from edgekit.devices.looking import Look
from edgekit.devices.ssh import Connection
from edgekit.progress import Progress, silent


def send_wheels(connection: Connection, found: Look, engine: str, progress: Progress = silent) -> str | None:
    """Fetches the wheels that a device lacks, sends them and unpacks them there.

    Returns:
        The folder there to import from; None where nothing is lacking.
    """
    if "numpy" in found.packages and engine in found.packages:
        return None
    raise NotImplementedError
