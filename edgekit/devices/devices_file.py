"""The user's file of devices, ``~/.config/edgekit/devices.toml``: one table a device."""

from __future__ import annotations

from pathlib import Path

from edgekit.errors import SpecError, UnknownName
from edgekit.specs import Strict, parse, read_toml


class Entry(Strict):
    """One table of the file.

    Attributes:
        host: Host name or address, or a ``Host`` of the SSH configuration.
        port: Port of its SSH server.
        user: Who logs in.
        config: An SSH configuration to read instead of ``~/.ssh/config``, from the folder of the file on.
        python: The Python to run there.
        root: The folder there for what is sent.
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
    tables = read_toml(path) if path.is_file() else {}
    if name not in tables:
        raise UnknownName("device", name, tables, where=None if tables else f"{path} (or give ssh://user@host)")
    if not isinstance(tables[name], dict):
        raise SpecError(
            f"{path}: {name!r} is not a table", found=repr(tables[name]), allowed=f"[{name}]", fix="mend it"
        )
    entry = parse(Entry, tables[name], f"{path}: [{name}]")
    if entry.port is not None and not 1 <= entry.port <= 65535:
        raise SpecError(f"{path}: [{name}]: no such port", found=entry.port, allowed="1 to 65535")
    return entry
