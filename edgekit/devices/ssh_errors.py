"""What asyncssh and the system raise, told as errors of ours."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from edgekit.devices.address import Address
from edgekit.errors import ConnectionLost, DeviceError, Unreachable

INSTALL = "pip install 'edgekit[devices]'"


@contextmanager
def connecting(address: Address) -> Iterator[None]:
    """Tells why a device could not be reached."""
    try:
        import asyncssh
    except ModuleNotFoundError as exc:
        raise DeviceError("devices are reached with asyncssh, which is not installed", fix=INSTALL) from exc
    where = f"{address.name}: "
    try:
        yield
    except asyncssh.PermissionDenied as exc:
        raise DeviceError(
            f"{where}no key of ours logs in" + (f" as {address.user}" if address.user else ""),
            found=exc.reason,
            allowed="a key that the device knows; passwords are not asked for",
            fix="`ssh-copy-id` it once, name it in ~/.ssh/config (IdentityFile), unlock it in ssh-agent (ssh-add)",
        ) from exc
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError, asyncssh.ConfigParseError) as exc:
        raise DeviceError(
            f"{where}the SSH configuration or a key that it names cannot be used",
            found=str(exc),
            fix="mend the configuration; unlock a key with a passphrase in ssh-agent (ssh-add)",
        ) from exc
    except socket.gaierror as exc:
        raise DeviceError(
            f"{where}no such host", found=address.host, fix="check the name, or give HostName in ~/.ssh/config"
        ) from exc
    except (TimeoutError, asyncio.TimeoutError) as exc:  # two before Python 3.11
        raise Unreachable(
            f"{where}it does not answer", found="nothing within 20 s", fix="is it on, and reachable?"
        ) from exc
    except (asyncssh.Error, OSError) as exc:
        if isinstance(exc, OSError) and exc.filename is not None:
            raise DeviceError(
                f"{where}a file that the SSH configuration names cannot be read",
                found=f"{exc.filename}: {exc.strerror}",
                fix="mend the configuration (IdentityFile, CertificateFile, Include)",
            ) from exc
        raise Unreachable(
            f"{where}it cannot be reached",
            found=str(exc) or type(exc).__name__,
            fix="is it on, and does an SSH server listen there? `ssh` must get in first",
        ) from exc


@contextmanager
def using(address: Address, doing: str) -> Iterator[None]:
    """Tells what went wrong with a connection that stood."""
    import asyncssh

    try:
        yield
    except asyncssh.ChannelOpenError as exc:
        if exc.code == asyncssh.OPEN_CONNECT_FAILED and "closed" in exc.reason.lower():
            raise _lost(address, doing, exc) from exc
        raise DeviceError(f"{address.name}: the device runs no command", found=exc.reason) from exc
    except (asyncssh.Error, ConnectionError, BrokenPipeError, TimeoutError) as exc:
        raise _lost(address, doing, exc) from exc


def _lost(address: Address, doing: str, exc: BaseException) -> ConnectionLost:
    return ConnectionLost(
        f"{address.name}: the connection was lost while {doing}",
        found=str(exc) or type(exc).__name__,
        fix="give the same command again: what was sent whole is kept there",
    )
