"""What runs on a loopback device: its connections, which a test may cut, and the kit's processes."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from loopback_sshd import LoopbackDevice


def sessions(device: LoopbackDevice) -> list[int]:
    """The processes of sshd that serve a connection each."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == device.process.pid:
            found.append(int(stat.parent.name))
    return found


def cut(device: LoopbackDevice) -> None:
    """Cuts every connection."""
    for pid in sessions(device):
        os.kill(pid, signal.SIGKILL)


def at_work(device: LoopbackDevice) -> list[str]:
    """Command lines of the kit's processes on the device, but not of the one that keeps its lock."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if "edgekit.profiling " in command and str(device.root) in command:
            found.append(command)
    return found
