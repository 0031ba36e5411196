"""The way to a device: hop by hop where ``ProxyJump`` says so, and no hop without a host key that is known."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgekit.devices.address import Address
from edgekit.devices.ssh_errors import connecting
from edgekit.errors import DeviceError

CONNECT_S = 20.0  # until a device has answered and let us in
ALIVE_S = 10.0  # a device that is silent is asked as often whether it is there …
ALIVE_COUNT = 4  # … and given up after as many questions without an answer
# OpenSSH's own defaults (ssh_config(5)).
_USER_FILES = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2")
_GLOBAL_FILES = ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Hop:
    """One host on the way, as the SSH configuration has it."""

    host: str
    port: int
    known: Any
    known_name: str
    jumps: str | None
    settings: dict[str, Any]


async def dialled(address: Address, via: Any = None, seen: tuple[str, ...] = ()) -> list[Any]:
    """Connects to a host, and to those on the way to it.

    Args:
        address: The host.
        via: The connection that leads there; None: what ``ProxyJump`` says.
        seen: Hosts that this one is on the way to.

    Returns:
        The connections, the host's own last.
    """
    import asyncssh

    hop = _hop(address)
    opened: list[Any] = []
    try:
        for jump in _jumps(hop, address) if via is None and address.host not in seen else ():
            with connecting(jump):
                opened += await dialled(jump, opened[-1] if opened else None, (*seen, address.host))
        offered: list[Any] = []
        try:
            tunnel = opened[-1] if opened else via
            ssh, _ = await asyncssh.create_connection(
                _watcher(offered), address.host, tunnel=tunnel, known_hosts=hop.known, **hop.settings
            )
        except (asyncssh.HostKeyNotVerifiable, asyncssh.KeyExchangeFailed) as exc:
            raise _untrusted(address, hop, offered, exc) from exc
    except BaseException:
        for connection in reversed(opened):
            connection.close()
        raise
    return [*opened, ssh]


def _hop(address: Address) -> _Hop:
    """What the configuration says of a host."""
    import asyncssh

    settings: dict[str, Any] = {"config": () if address.config is None else [str(address.config)]}
    settings |= {key: value for key, value in (("port", address.port), ("username", address.user)) if value is not None}
    asked = asyncssh.SSHClientConnectionOptions(host=address.host, known_hosts=b"", client_keys=None, **settings)
    alias = asked.host_key_alias or asked.host
    return _Hop(
        host=asked.host,
        port=asked.port,
        known=_known_hosts(asked),
        known_name=alias if asked.port == 22 else f"[{alias}]:{asked.port}",
        jumps=asked.tunnel if isinstance(asked.tunnel, str) else None,
        settings=settings
        | {
            "connect_timeout": CONNECT_S,
            "keepalive_interval": ALIVE_S,
            "keepalive_count_max": ALIVE_COUNT,
            "preferred_auth": "publickey",
            "password_auth": False,
            "kbdint_auth": False,
            "request_pty": False,
        },
    )


def _known_hosts(asked: Any) -> Any:
    """The keys that are known. Read here: of ``UserKnownHostsFile none`` asyncssh would make that any key is good."""
    import asyncssh

    files = [
        *asked.config.get("UserKnownHostsFile", _USER_FILES),
        *asked.config.get("GlobalKnownHostsFile", _GLOBAL_FILES),
    ]
    paths = [Path(name).expanduser() for name in files]
    return asyncssh.import_known_hosts("\n".join(_text(path) for path in paths))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""


def _jumps(hop: _Hop, address: Address) -> list[Address]:
    jumps = []
    for text in (hop.jumps or "").split(","):
        user, _, place = text.strip().removeprefix("ssh://").rpartition("@")
        host, _, port = place.partition(":") if place.count(":") <= 1 else (place.strip("[]"), "", "")
        if host:
            jump = Address(name=f"{address.name}, on the way, {host}", host=host, config=address.config)
            jumps.append(replace(jump, user=user or None, port=int(port) if port.isdecimal() else None))
    return jumps


def _watcher(offered: list[Any]) -> Any:
    """A class of SSH clients that trust no key but the known ones, and note those they turn away."""
    import asyncssh

    class Watcher(asyncssh.SSHClient):
        def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
            offered.append(key)
            return False

    return Watcher


def _untrusted(address: Address, hop: _Hop, offered: list[Any], exc: Exception) -> DeviceError:
    """Tells a host key never seen from another than the one that is known; asyncssh tells them alike."""
    import asyncssh

    port = hop.port if hop.port != 22 else None
    name = hop.known_name if port is None else hop.known_name[1:].partition("]")[0]
    known = asyncssh.match_known_hosts(hop.known, name, "", port)[0]
    found = ", ".join(f"{_kind(key)} {key.get_fingerprint()}" for key in offered) or str(exc)
    if known:
        return DeviceError(
            f"{address.name}: the host key has changed: this is another device, or somebody in between",
            found=found,
            allowed=", ".join(f"{_kind(key)} {key.get_fingerprint()}" for key in known),
            fix=f"if the device was set up anew, forget the old key: `ssh-keygen -R '{hop.known_name}'`",
        )
    if not offered:
        return DeviceError(f"{address.name}: it and we know no common way to talk", found=str(exc))
    return DeviceError(
        f"{address.name}: the host key is not known",
        found=found,
        allowed=f"a key of {hop.known_name} in known_hosts",
        fix="log in with `ssh` once, and compare the fingerprint with the device's own",
    )


def _kind(key: Any) -> str:
    return str(key.get_algorithm())
