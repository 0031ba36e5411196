"""The locks of a device: one on what an account keeps there, and one on the machine, which all its accounts share.

The kernel frees both (flock(2)) whenever their process ends, so that none is ever left behind. Every account can open
the machine's lock, and none can have another write elsewhere by it: what is a link, or has a second name, is refused,
and nothing that stands in it is trusted with more than being shown.

Needs nothing but the standard library: it also runs on a device whose disk has no room for more.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import math
import os
import pwd
import signal
import stat
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LOCK = "lock"
MACHINE_LOCK = "edgekit-device.lock"
# The first that all accounts may write to is taken by all of them; containers of one board may share a folder by name.
FOLDERS = ("/run/lock", "/var/lock", "/dev/shm", "/tmp")
FOLDER_VARIABLE = "EDGEKIT_LOCKS"
_OPEN = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_AGAIN = 20
_AGAIN_S = 0.1
_MOST_BYTES = 4096
_MOST_CHARS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """A lock that this process has, until it ends."""

    path: Path
    descriptor: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Other:
    """Who has a lock instead, as they say.

    Attributes:
        who: User and host that they came from.
        account: Their account on the device; empty where they did not say.
        since_s: How long they have had it, in seconds; None where they did not say.
        session: Theirs.
        process: Theirs on the machine that they came from, as that machine calls it; empty where it does not.
    """

    who: str
    account: str
    since_s: float | None
    session: str
    process: str


def lock_both(root: Path, sessions: Collection[str]) -> list[Lock] | Other:
    """Takes the lock of the machine and that of a folder of this account; the latter alone where there is no other.

    Args:
        root: The account's folder.
        sessions: This one, and those that it takes over.

    Raises:
        OSError: What lies in the place of a lock is not one, or its owner keeps others from it.
    """
    own = lock_account(root, sessions)
    if isinstance(own, Other):
        return own
    try:
        machine = lock_machine(sessions)
    except OSError:
        leave(own)
        raise
    if isinstance(machine, Other):
        leave(own)
        return machine
    return [own] if machine is None else [machine, own]


def lock_account(root: Path, sessions: Collection[str]) -> Lock | Other:
    """Takes the lock of a folder of this account; an older keeper of these sessions is sent away."""
    path = root / LOCK
    for _ in range(_AGAIN):
        found = _tried(path, os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        if isinstance(found, Lock):
            return found
        if found is None:
            continue
        if found.get("session") not in sessions:
            return _other(found)
        with contextlib.suppress(OSError):
            os.kill(int(found["pid"]), signal.SIGTERM)
        time.sleep(_AGAIN_S)
    return _other({})


def lock_machine(sessions: Collection[str]) -> Lock | Other | None:
    """Takes the lock of the machine; None where it has no folder that all accounts can open.

    Raises:
        OSError: What lies in the place of the lock is not one, or its owner keeps others from it.
    """
    folder = machine_folder()
    if folder is None:
        return None
    path = folder / MACHINE_LOCK
    for turn in range(_AGAIN):
        try:
            descriptor = _opened(path)
        except PermissionError:
            if turn == _AGAIN - 1:
                raise
            time.sleep(_AGAIN_S)  # whoever makes it has not opened it to all yet
            continue
        found = None if descriptor is None else _tried(path, descriptor)
        if isinstance(found, Lock):
            return found
        # An older keeper of ours is just ending. It is not ended here: anybody can write a process's number.
        if found is not None and found.get("session") not in sessions:
            return _other(found)
        time.sleep(_AGAIN_S)
    return _other({})


def machine_folder() -> Path | None:
    """Where the machine's lock is: the same folder for every account, by its mode alone."""
    named = os.environ.get(FOLDER_VARIABLE)
    if named:
        return Path(named)
    for folder in FOLDERS:
        with contextlib.suppress(OSError):
            mode = os.lstat(folder).st_mode
            open_to_all = stat.S_ISDIR(mode) and mode & 0o1777 == 0o1777
            if open_to_all and not os.statvfs(folder).f_flag & os.ST_RDONLY:
                return Path(folder)
    return None


def say_who(lock: Lock, who: str, session: str, process: str = "") -> None:
    """Writes into a lock who has it; on a full disk nobody is told."""
    owner = {
        "who": who,
        "account": _account(),
        "session": session,
        "process": process,
        "pid": os.getpid(),
        "monotonic_s": time.monotonic(),
    }
    with contextlib.suppress(OSError):
        os.ftruncate(lock.descriptor, 0)
        os.pwrite(lock.descriptor, json.dumps(owner).encode(), 0)


def leave(lock: Lock) -> None:
    """Removes a lock; where it is another account's file it stays, empty, and is free once this process has ended."""
    with contextlib.suppress(OSError):
        os.ftruncate(lock.descriptor, 0)
        if _same(lock.path, lock.descriptor):
            lock.path.unlink()


def only_account() -> str:
    """What is said where no lock of the machine can be had."""
    return (
        f"no folder of this device is open to all its accounts ({', '.join(FOLDERS)}): "
        f"nothing keeps another account than {_account()} from measuring at the same time"
    )


def _opened(path: Path) -> int | None:
    """The machine's lock, opened or made; None where another one made it at the same moment."""
    try:
        descriptor = os.open(path, _OPEN)  # without O_CREAT, with which fs.protected_regular refuses others' files
    except FileNotFoundError:
        with contextlib.suppress(FileExistsError):
            made = os.open(path, _OPEN | os.O_CREAT | os.O_EXCL, 0o600)
            os.fchmod(made, 0o666)  # whatever the umask
            return made
        return None
    except OSError as exc:
        if exc.errno != errno.ELOOP:
            raise
        raise OSError(exc.errno, "a symbolic link is in the place of the lock", str(path)) from exc
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode) and found.st_nlink <= 1:  # 0: removed just now
        return descriptor
    os.close(descriptor)
    raise OSError(errno.EINVAL, "something else than a file of its own is in the place of the lock", str(path))


def _tried(path: Path, descriptor: int) -> Lock | dict[str, Any] | None:
    """The lock, or what its owner wrote into it; None where it is worth trying again. All but a lock is closed."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        told = _told(descriptor)
        os.close(descriptor)
        return told
    if _same(path, descriptor):
        return Lock(path=path, descriptor=descriptor)
    os.close(descriptor)  # whoever had it removed the file meanwhile
    return None


def _same(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.lstat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _told(descriptor: int) -> dict[str, Any]:
    try:
        told = json.loads(os.pread(descriptor, _MOST_BYTES, 0))
    except (OSError, ValueError):  # it is just being written
        return {}
    return told if isinstance(told, dict) else {}


def _other(told: dict[str, Any]) -> Other:
    began = told.get("monotonic_s")
    since_s = time.monotonic() - began if isinstance(began, float) and math.isfinite(began) else None
    return Other(
        who=_shown(told.get("who")) or "somebody",
        account=_shown(told.get("account")),
        since_s=None if since_s is None else max(0.0, since_s),
        session=_shown(told.get("session")),
        process=_shown(told.get("process")),
    )


def _shown(text: object) -> str:
    """What another account wrote, as it may be shown."""
    return "".join(c for c in text if c.isprintable())[:_MOST_CHARS] if isinstance(text, str) else ""


def _account() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
