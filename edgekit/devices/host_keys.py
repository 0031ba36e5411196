"""A host key that is not trusted: one never seen, or another than the one that is known."""

from __future__ import annotations

from typing import Any

from edgekit.devices.address import Address
from edgekit.errors import DeviceError


def watcher() -> tuple[Any, list[Any]]:
    """A factory of SSH clients that trust no key that ``known_hosts`` does not, and the keys they turned away."""
    import asyncssh

    offered: list[Any] = []

    class Watcher(asyncssh.SSHClient):
        def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
            offered.append(key)
            return False

    return Watcher, offered


def refused_key(address: Address, settings: dict[str, Any], offered: list[Any], exc: Exception) -> DeviceError:
    """Tells an unknown key from a changed one."""
    import asyncssh

    options = asyncssh.SSHClientConnectionOptions(host=address.host, **settings)
    host, port = options.host, options.port
    known = [] if options.known_hosts is None else asyncssh.match_known_hosts(options.known_hosts, host, "", port)[0]
    found = ", ".join(f"{_kind(key)} {key.get_fingerprint()}" for key in offered) or str(exc)
    if known:
        return DeviceError(
            f"{address.name}: the host key has CHANGED: this is another device, or somebody in between",
            found=found,
            allowed=", ".join(f"{_kind(key)} {key.get_fingerprint()}" for key in known),
            fix=f"if the device was set up anew, `ssh-keygen -R {_named(host, port)}` forgets the old key",
        )
    return DeviceError(
        f"{address.name}: the host key is not known",
        found=found,
        allowed="a key of ~/.ssh/known_hosts",
        fix=f"`ssh {'' if port == 22 else f'-p {port} '}{host}` once, and compare the fingerprint with the device's own",
    )


def _kind(key: Any) -> str:
    return str(key.get_algorithm())


def _named(host: str, port: int) -> str:
    return host if port == 22 else f"'[{host}]:{port}'"
