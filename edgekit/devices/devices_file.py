"""The user's file of devices, ``~/.config/edgekit/devices.toml``: one table a device."""

from __future__ import annotations

import re
from pathlib import Path

from edgekit.errors import SpecError, UnknownName
from edgekit.specs import Strict, parse, read_toml

# What people look for here, and SSH has a place for.
_OF_SSH = {"password", "passphrase", "key", "key_file", "identity", "identity_file", "jump", "proxy_jump", "host_key"}
_FIX_OF_SSH = "keys and jump hosts are named in ~/.ssh/config (IdentityFile, ProxyJump); no password is ever taken"


class Entry(Strict):
    """One table of the file.

    Attributes:
        host: Host name or address, or a ``Host`` of the SSH configuration.
        port: Port of its SSH server.
        user: Who logs in.
        config: An SSH configuration to read instead of ``~/.ssh/config``, from the folder of the file on.
        python: The Python to run there: a name, or a path (``~/`` is the home there).
        root: The folder there for what is sent: an absolute path, or one below ``~/``.
    """

    host: str
    port: int | None = None
    user: str | None = None
    config: str | None = None
    python: str | None = None
    root: str | None = None


def read_entry(path: Path, name: str) -> Entry:
    """Reads one device of the file.

    Raises:
        SpecError: The file is wrong.
        UnknownName: It has no such device, or there is no such file.
    """
    tables = read_toml(path) if path.exists() else {}
    if name not in tables:
        fix = f'write [{name}] with its host = "…" into that file, or give ssh://user@host'
        raise UnknownName("device", name, tables, where=str(path), fix=fix)
    if not isinstance(tables[name], dict):
        raise SpecError(
            f"{path}: {name!r} is not a table", found=repr(tables[name]), allowed=f"[{name}]", fix="mend it"
        )
    where = f"{path}: [{name}]"
    for key in sorted(_OF_SSH & tables[name].keys()):
        raise SpecError(f"{where}: unknown key {key!r}", allowed=", ".join(Entry.model_fields), fix=_FIX_OF_SSH)
    entry = parse(Entry, tables[name], where)
    if entry.port is not None and not 1 <= entry.port <= 65535:
        raise SpecError(f"{where}: no such port", found=entry.port, allowed="1 to 65535")
    if not _is_host(entry.host):
        raise SpecError(
            f"{where}: no host",
            found=repr(entry.host),
            allowed="a host name, an address, or a Host of ~/.ssh/config",
            fix="user and port have keys of their own",
        )
    if entry.root is not None and not entry.root.startswith(("/", "~/")):
        raise SpecError(f"{where}: root is a folder there", found=repr(entry.root), allowed="/…, or ~/… for its home")
    if entry.config is not None and not (path.parent / Path(entry.config).expanduser()).is_file():
        raise SpecError(f"{where}: no such file", found=f"config = {entry.config!r}", fix="check the path")
    return entry


def _is_host(text: str) -> bool:
    """Whether a text may name a host: no URL, no user, no port (but ``::1`` is an address), and no option of ssh."""
    return re.fullmatch(r"[^\s@/:-][^\s@/:]*|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*:[^\s@/]*", text) is not None
