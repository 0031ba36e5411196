"""How a device is named: ``ssh://user@host[:port]``, or a name of ``~/.config/edgekit/devices.toml``."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from edgekit.errors import SpecError

SCHEME = "ssh://"
DEVICES_FILE = "edgekit/devices.toml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a device is; what is None here is what ``~/.ssh/config`` says of the host.

    Attributes:
        name: What it is called in messages.
        host: Its host name or address, or a ``Host`` of the SSH configuration.
        port: Port of its SSH server.
        user: Who logs in.
        config: An SSH configuration to read instead of ``~/.ssh/config``.
        python: The Python to run there; None: the first that is new enough.
        root: The folder there for what is sent; None: ``~/.cache/edgekit-device``.
    """

    name: str
    host: str
    port: int | None = None
    user: str | None = None
    config: Path | None = None
    python: str | None = None
    root: str | None = None


def find_device(text: str) -> Address:
    """The address that a text names.

    Args:
        text: ``ssh://[user@]host[:port]``, where a ``Host`` of ``~/.ssh/config`` is enough; or a name of
            ``~/.config/edgekit/devices.toml`` (below ``$XDG_CONFIG_HOME`` where that is set).

    Raises:
        SpecError: It is no such URL, or the file is wrong.
        UnknownName: The file has no such name.
    """
    if "://" in text:
        return _from_url(text)
    path = devices_file()
    from edgekit.devices.devices_file import read_entry  # pydantic's half a second is for those who name devices

    entry = read_entry(path, text)
    return Address(
        name=text,
        host=entry.host,
        port=entry.port,
        user=entry.user,
        config=None if entry.config is None else path.parent / Path(entry.config).expanduser(),
        python=entry.python,
        root=entry.root,
    )


def devices_file() -> Path:
    """Where a user's devices are named."""
    home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(home) / DEVICES_FILE


def _from_url(text: str) -> Address:
    wrong = SpecError(
        f"{text!r} does not name a device",
        found=text,
        allowed=f"{SCHEME}user@host[:port], or a name of {devices_file()}",
        fix="keys and passwords do not belong into it: name a key in ~/.ssh/config" if "@" in text else None,
    )
    if not text.startswith(SCHEME):
        raise wrong
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as exc:
        raise wrong from exc
    if not parts.hostname or parts.password is not None or parts.path or parts.query or parts.fragment or port == 0:
        raise wrong
    host = parts.netloc.rpartition("@")[2]  # `hostname` is in small letters, a Host of the configuration may not be
    host = host[1 : host.index("]")] if host.startswith("[") else host.partition(":")[0]
    if host.startswith("-") or parts.username == "" or (parts.username or "").startswith("-"):
        raise wrong
    return Address(name=text.removeprefix(SCHEME), host=host, port=port, user=parts.username)
