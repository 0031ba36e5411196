"""A device that is ready: looked at, trusted with the kit, and ours alone until we leave it as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgekit.devices.address import Address
from edgekit.devices.ssh import Connection, Ended, connect
from edgekit.profiling.host import Host
from edgekit.progress import Progress, silent
from edgekit.specs import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device on which things can be run.

    Attributes:
        name: What it is called in messages.
        connection: The way there.
        host: Its facts, read by the kit itself.
        python: The Python there.
        root: The folder there for what is sent.
        kit: The folder there of the kit, which ``PYTHONPATH`` names.
        site: The folder there of the wheels that were sent; None: the device has its own.
        session: Names this use of the device; its job folders lie in ``ROOT/jobs/SESSION/``.
    """

    name: str
    connection: Connection
    host: Host
    python: str
    root: str
    kit: str
    site: str | None
    session: str

    @property
    def jobs(self) -> str:
        """The folder there for this use's jobs; gone when the device is left."""
        return f"{self.root}/jobs/{self.session}"


@contextmanager
def opened(
    address: Address,
    target: Target | None = None,
    engine: str | None = None,
    *,
    wheels: bool = False,
    memory_mb: float = 0.0,
    grace_s: float = 30.0,
    progress: Progress = silent,
) -> Iterator[Device]:
    """Connects to a device, looks at it, sends the kit, and holds the lock until the block ends.

    What the device lacks is found before anything is sent. However the block ends, the lock and the jobs are gone
    afterwards: where the connection is cut, a process on the device clears up after ``grace_s`` seconds, unless we
    came back (:func:`come_back`).

    Args:
        address: Where it is.
        target: What it should be; its architecture must be the device's.
        engine: The engine that must be there.
        wheels: Whether to send wheels of numpy and the engine where the device has none.
        memory_mb: Memory that must be left there, in MB (10^6 bytes).
        grace_s: How long, after a cut, the lock is held and jobs run on.
        progress: Told what is sent.

    Raises:
        DeviceError: It cannot be reached, is not trusted, lacks something, has no room, or somebody else is at it.
        ConnectionLost: The connection went.
    """
    raise NotImplementedError
    yield


def call(
    device: Device,
    arguments: Sequence[str],
    *,
    stdin: bytes = b"",
    timeout_s: float = 600.0,
    on_line: Callable[[str], None] | None = None,
) -> Ended:
    """Runs ``python -m edgekit.ARGUMENTS`` on a device, with the kit that was sent.

    Args:
        device: The device.
        arguments: The module below ``edgekit``, then its arguments.
        stdin: What it reads.
        timeout_s: The longest that it may take, in seconds.
        on_line: Told every line of its standard output as it comes.

    Raises:
        ConnectionLost: The connection went.
        DeviceError: It took longer than its time.
    """
    argv = command(device, arguments)
    return device.connection.run(argv, stdin=stdin, timeout_s=timeout_s, on_line=on_line)


def command(device: Device, arguments: Sequence[str]) -> list[str]:
    """The command line that runs ``python -m edgekit.ARGUMENTS`` there."""
    raise NotImplementedError


def send_folder(
    device: Device, folder: Path, names: Sequence[str], sha256: str, progress: Progress = silent
) -> str:
    """Sends a folder's files to ``ROOT/bundles/SHA256``; where they are there already, nothing is sent.

    Args:
        device: The device.
        folder: The local folder.
        names: Which of its files.
        sha256: Names the content.
        progress: Told the megabytes that were sent.

    Returns:
        The folder there.

    Raises:
        ConnectionLost: The connection went; nothing is left of the folder.
        DeviceError: The device has no room for it.
    """
    raise NotImplementedError


def come_back(device: Device, *, within_s: float = 300.0) -> None:
    """Connects again to a device whose connection went, and takes up the lock, which was kept for us.

    Raises:
        DeviceError: It does not let us in within that time, or somebody else is at it by now.
    """
    raise NotImplementedError
