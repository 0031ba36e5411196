"""Tells systemd that a service is ready, lives and stops: datagrams to the socket that systemd names.

The protocol: https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable


def notify(*states: str) -> bool:
    """Sends states such as ``READY=1`` in one datagram.

    Returns:
        Whether anyone was told: without systemd there is no socket, and nothing is sent.

    Raises:
        OSError: There is a socket, and it does not take the datagram.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    if address.startswith("@"):  # Linux' abstract names
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.sendto("\n".join(states).encode(), address)
    return True


def watchdog_s() -> float | None:
    """How long systemd waits for a sign of life before it kills this process, in seconds; None: it does not."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    return int(microseconds) / 1e6 if microseconds.isdecimal() and int(microseconds) > 0 else None


class Watchdog:
    """Gives signs of life, no more often than is useful.

    Args:
        limit_s: What systemd waits, or None: then nothing is sent.
        clock: Seconds that never go back.
    """

    def __init__(self, limit_s: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._every_s = None if limit_s is None else limit_s / 4
        self._clock = clock
        self._last_s = float("-inf")

    def alive(self) -> None:
        """To be called after every piece of work that shows that all is well, and never for any other reason."""
        if self._every_s is None or self._clock() - self._last_s < self._every_s:
            return
        self._last_s = self._clock()
        notify("WATCHDOG=1")
