"""A device that is ready: looked at, trusted with the kit, and ours alone until we leave it as it was."""

from __future__ import annotations

import contextlib
import getpass
import json
import socket
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.devices.address import Address
from edgekit.devices.archives import used_stamp
from edgekit.devices.holders import has_ended, this_process
from edgekit.devices.kit import IN_ROOT, make_kit, send_kit
from edgekit.devices.looking import Look, check, check_room, free_room_mb, look
from edgekit.devices.ssh import Connection, Ended, Running, connect
from edgekit.devices.wheels import Sites, send_wheels
from edgekit.errors import ConnectionLost, DeviceError, Unreachable
from edgekit.profiling.host import Host
from edgekit.profiling.keeper import BYE, SESSION_VARIABLE
from edgekit.profiling.measured import parse_host
from edgekit.progress import Progress, silent

if TYPE_CHECKING:
    from edgekit.specs import Target

GRACE_S = 30.0  # how long a device keeps the lock and the jobs for a user whose connection was cut
_KEEPER_S = 120.0  # until a device has cleared up after others and told its facts; seconds of it are an emulator's
_LEAVE_S = 3.0


@dataclass(slots=True, kw_only=True)
class Hold:
    """The process on a device that holds its lock for us.

    Attributes:
        keeper: The running process.
        boot: Names the device's present boot.
        grace_s: How long it waits for us after a cut.
        used: Folders there that were sent, or found, in this session.
    """

    keeper: Running
    boot: str
    grace_s: float
    used: set[str] = field(default_factory=set)


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
        sites: What it imports of wheels that were sent.
        session: Names this use of the device; its job folders lie in ``ROOT/jobs/SESSION/``.
        look: What was found there before anything was sent.
        note: Why other accounts may measure there at the same time, or None: they cannot.
        hold: What holds the lock.
    """

    name: str
    connection: Connection
    host: Host
    python: str
    root: str
    kit: str
    sites: Sites
    session: str
    look: Look
    note: str | None
    hold: Hold

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
    wheels: Sequence[str] = (),
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
        wheels: Engines whose wheels, and numpy's, are sent where the device has none; of several, where there are any.
        memory_mb: Memory that must be left there, in MB (10^6 bytes).
        grace_s: How long, after a cut, the lock is held and jobs run on.
        progress: Told what is sent.

    Raises:
        DeviceError: It cannot be reached, is not trusted, lacks something, has no room, or somebody else is at it.
        ConnectionLost: The connection went.
    """
    with connect(address) as connection:
        found = look(connection, make_kit().sha256)
        check(address.name, found, target, engine, wheels=wheels, memory_mb=memory_mb)
        there, found = _prepared(connection, found, wheels, progress)
        session = uuid.uuid4().hex
        keeper, told = _held(there, session, grace_s)
        for left in told["cleared"]:
            progress(f"cleared {left}, which somebody left there", 1, 1)
        for gone in told["removed"]:
            progress(f"removed {gone['name']} ({gone['mb']:.0f} MB), unused for {gone['days']:.0f} days", 1, 1)
        if told["note"]:
            progress(told["note"], 1, 1)
        device = Device(
            name=address.name,
            connection=connection,
            host=parse_host(told["host"]),
            python=there.python,
            root=there.root,
            kit=there.kit,
            sites=there.sites,
            session=session,
            look=found,
            note=told["note"],
            hold=Hold(keeper=keeper, boot=told["boot"], grace_s=grace_s),
        )
        try:
            yield device
        finally:
            _leave(device)


def _prepared(connection: Connection, found: Look, wheels: Sequence[str], progress: Progress) -> tuple[_There, Look]:
    """Sends the kit, and wheels of numpy and the engines where they are wanted and lacking."""
    kit, sites = f"{found.root}/kit/{make_kit().sha256}", Sites()
    if not found.kit:
        progress("kit", 0, 1)
        send_kit(connection, found.python, found.root)
        progress("kit", 1, 1)
    if wheels and not found.has("numpy", *wheels):
        sites, found = send_wheels(connection, found, wheels, progress)
    return _There(connection=connection, python=found.python, root=found.root, kit=kit, sites=sites), found


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
    """The command line that runs ``python -m edgekit.ARGUMENTS`` there; what it starts is known as this session's."""
    return _command(
        device.python, device.root, device.kit, device.sites, [f"{SESSION_VARIABLE}={device.session}"], arguments
    )


def send_folder(device: Device, folder: Path, names: Sequence[str], sha256: str, progress: Progress = silent) -> str:
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
    there = f"{device.root}/bundles/{sha256}"
    device.hold.used.add(there)
    files = {name: folder / name for name in names}
    sizes = {name: path.stat().st_size for name, path in files.items()}
    ended = device.connection.run(["sh", "-s", "--", used_stamp(), there, *names], stdin=_SIZES.encode())
    found = ended.stdout.split()
    if ended.status == 0 and found == [str(size) for size in sizes.values()]:
        return there
    if found != ["none"]:  # a disk that lost power while it wrote
        device.connection.run(["rm", "-rf", there])
    _make_room(device, sum(sizes.values()) / 1e6, folder.name)
    device.connection.put(files, there, progress)
    return there


def _make_room(device: Device, needed_mb: float, what: str) -> None:
    """Sees to it that there is room for what is sent: what earlier sessions sent makes way for it."""
    if free_room_mb(device.connection, device.root) >= needed_mb:
        return
    device.connection.run(
        ["sh", "-s", "--", f"{device.root}/bundles", *sorted(device.hold.used)], stdin=_OTHERS.encode()
    )
    check_room(device.connection, device.root, needed_mb, what)


def come_back(device: Device, *, within_s: float = 300.0) -> bool:
    """Connects again to a device whose connection went, and takes up the lock, which was kept for us.

    Args:
        device: The device.
        within_s: How long to try, in seconds.

    Returns:
        Whether the device was started anew meanwhile: then nothing that ran there runs on.

    Raises:
        DeviceError: It does not let us in within that time, or somebody else is at it by now.
    """
    until = time.monotonic() + within_s
    while True:
        try:
            device.connection.reconnect()
            keeper, told = _held(_there(device), device.session, device.hold.grace_s)
            break
        except (Unreachable, ConnectionLost):
            if time.monotonic() >= until:
                raise
            time.sleep(min(1.0, max(0.0, until - time.monotonic())))
    rebooted = bool(told["boot"] != device.hold.boot)
    device.hold.keeper, device.hold.boot = keeper, told["boot"]
    return rebooted


# One line a file: its size; `none` where there is no such folder. One that is there counts as used now.
_SIZES = """
stamp=$1; folder=$2; shift 2
TZ=UTC0 touch -c -t "$stamp" "$folder" 2>/dev/null
[ -d "$folder" ] || { echo none; exit 1; }
cd "$folder" && for name in "$@"; do [ -f "$name" ] && echo $(($(wc -c < "$name"))) || exit 1; done
"""


# Removes all folders of one that are called by a hash, but for those that are named.
_OTHERS = """
cd "$1" || exit 0; shift
for folder in *; do
  case $folder in *[!0-9a-f]*) continue;; esac
  for used in "$@"; do [ "$used" = "$PWD/$folder" ] && continue 2; done
  rm -rf "./$folder"
done
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _There:
    """What is needed to run a module of the kit."""

    connection: Connection
    python: str
    root: str
    kit: str
    sites: Sites


def _there(device: Device) -> _There:
    return _There(
        connection=device.connection, python=device.python, root=device.root, kit=device.kit, sites=device.sites
    )


def _command(
    python: str, root: str, kit: str, sites: Sites, variables: Sequence[str], arguments: Sequence[str]
) -> list[str]:
    path = ":".join([kit, *sites.folders.values()])
    module, *others = arguments
    return [
        *("sh", "-c", IN_ROOT, root, "env", f"PYTHONPATH={path}", *variables),
        *(python, "-m", f"edgekit.{module}", *others),
    ]


def _held(there: _There, session: str, grace_s: float, after: str = "") -> tuple[Running, dict[str, Any]]:
    """Starts the keeper, which has the lock and tells the host's facts, or says who has it.

    A session that a killed process of this machine left is taken over.
    """
    name = there.connection.address.name
    who = f"{getpass.getuser()}@{socket.gethostname()}"
    arguments = [
        "profiling.keeper",
        there.root,
        session,
        who,
        f"{grace_s:g}",
        f"{time.time():.0f}",
        this_process(),
        after,
    ]
    argv = _command(there.python, there.root, there.kit, there.sites, (), arguments)
    line, keeper = there.connection.start(argv, timeout_s=_KEEPER_S)
    try:
        told = json.loads(line)
    except ValueError:
        raise there.connection.refused("the kit does not run there", keeper.end(BYE), there.kit) from None
    if told["held"]:
        return keeper, told
    keeper.end(BYE)
    if not after and "refused" not in told and has_ended(told["process"]):
        return _held(there, session, grace_s, after=told["session"])
    raise refused_lock(name, told)


def refused_lock(name: str, told: Mapping[str, Any]) -> DeviceError:
    """Why a lock of a device could not be had, as the keeper tells it."""
    if "refused" in told:
        return DeviceError(
            f"{name}: its lock, which all accounts share, cannot be taken",
            found=told["refused"],
            fix="have whoever put it there, or root, remove it",
        )
    since_s, account = told["since_s"], told["account"]
    return DeviceError(
        f"{name}: somebody else is measuring there",
        found=told["who"]
        + (f" (account {account})" if account else "")
        + ("" if since_s is None else f", for {since_s:.0f} s"),
        allowed="one user at a time: two would spoil each other's numbers",
        fix="wait until they are done",
    )


def _leave(device: Device) -> None:
    """Has the keeper remove the jobs and the lock; after a cut, by coming back if that is soon possible."""
    try:
        device.hold.keeper.end(BYE)
    except ConnectionLost:
        with contextlib.suppress(DeviceError):  # the keeper clears up by itself once its time of grace is over
            come_back(device, within_s=_LEAVE_S)
            device.hold.keeper.end(BYE)
