"""A device on this machine: Debian's sshd on a loopback port, with its own keys, its own home and its own shell."""

from __future__ import annotations

import os
import pwd
import shlex
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgekit.devices.address import Address

SSHD = next((path for path in ("/usr/sbin/sshd", shutil.which("sshd")) if path and Path(path).exists()), None)
PYTHON_FOLDER = Path(sys.executable).parent

# SHLVL: else a bash that sshd starts reads the ~/.bashrc of whoever runs the tests, at every command.
CONFIG = """\
ListenAddress 127.0.0.1:{port}
HostKey {folder}/host_key
PidFile none
AuthorizedKeysFile {folder}/client_key.pub
AuthenticationMethods publickey
StrictModes no
UsePAM no
UseDNS no
PrintMotd no
ForceCommand {folder}/shell
SetEnv SHLVL=2
"""
CLIENT = """\
Host {name}
  HostName 127.0.0.1
  Port {port}
  User {user}
  IdentityFile {folder}/client_key
  IdentitiesOnly yes
  UserKnownHostsFile {folder}/known_hosts
  GlobalKnownHostsFile /dev/null
"""
# The device's own environment: nothing of the test's reaches it, and its home is its own. So is the folder of the lock
# that the accounts of one machine share: several devices of tests are on this one.
SHELL = """\
#!/bin/sh
set -- HOME={home} PATH={path} LANG=C.UTF-8 EDGEKIT_LOCKS={locks}
cd {home} && exec env -i "$@" {command} /bin/sh -c "$SSH_ORIGINAL_COMMAND"
"""


@dataclass(frozen=True, kw_only=True)
class LoopbackDevice:
    """A running sshd.

    Attributes:
        address: How it is reached.
        folder: Its keys and configuration; ``known_hosts`` and ``ssh_config`` are the client's.
        port: Its port.
        process: Its sshd.
    """

    address: Address
    folder: Path
    port: int
    process: subprocess.Popen[bytes]

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def root(self) -> Path:
        return self.home / ".cache/edgekit-device"

    def left(self) -> list[str]:
        """What is in the device's folder besides the caches of what was sent whole."""
        caches = ("kit/", "bundles/", "wheels/")
        files = sorted(path.relative_to(self.root).as_posix() for path in self.root.rglob("*") if path.is_file())
        return [name for name in files if not name.startswith(caches) or ".part." in name]


@contextmanager
def loopback_device(
    folder: Path,
    name: str = "loopback",
    *,
    path: str = "",
    command: str = "",
    shell: str = "",
    config: str = "",
    locks: Path | None = None,
) -> Iterator[LoopbackDevice]:
    """Starts a device and stops it.

    Args:
        folder: Where its files go.
        name: What it is called.
        path: Its ``PATH``; default: this Python's folder, then the system's.
        command: Words before its shell, for instance ``faketime 1970-01-02``.
        shell: The whole script that runs a command, instead of the usual one.
        config: More lines for sshd.
        locks: The folder of the lock that all accounts share; default: one of this device alone.
    """
    assert SSHD is not None
    folder.mkdir(parents=True, exist_ok=True)
    locks = locks or folder
    home = folder / "home"
    home.mkdir(exist_ok=True)
    for key in ("host_key", "client_key"):
        new_key(folder / key)
    port = free_port()
    path = path or f"{PYTHON_FOLDER}:/usr/local/bin:/usr/bin:/bin"
    script = folder / "shell"
    usual = SHELL.format(home=shlex.quote(str(home)), path=path, command=command, locks=shlex.quote(str(locks)))
    script.write_text(shell or usual)
    script.chmod(0o755)
    (folder / "sshd_config").write_text(CONFIG.format(port=port, folder=folder) + config)
    write_known_hosts(folder, port)
    user = pwd.getpwuid(os.getuid()).pw_name
    (folder / "ssh_config").write_text(CLIENT.format(name=name, port=port, folder=folder, user=user))
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    with (folder / "sshd.log").open("wb") as log:
        process = subprocess.Popen([SSHD, "-D", "-e", "-f", folder / "sshd_config"], stdout=log, stderr=log)
    try:
        wait_for(port)
        address = Address(name=name, host=name, config=folder / "ssh_config")
        yield LoopbackDevice(address=address, folder=folder, port=port, process=process)
    finally:
        process.terminate()
        process.wait(timeout=10)


def new_key(file: Path) -> None:
    """Makes a key pair, unless it is there."""
    if not file.exists():
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", file], check=True)


def write_known_hosts(folder: Path, port: int, key: str = "host_key.pub") -> None:
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {(folder / key).read_text()}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(port: int) -> None:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise AssertionError(f"nothing listens on port {port}")
