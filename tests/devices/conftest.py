"""Devices to test with: a real sshd on a loopback port, and an emulated aarch64 machine behind another."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback_sshd import SSHD, LoopbackDevice, free_port, loopback_device

from edgekit.devices.address import Address


@pytest.fixture(scope="session")
def loopback(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackDevice]:
    """A device on this machine, with this Python and its engines."""
    if SSHD is None:
        pytest.skip("sshd is not installed (Debian: openssh-server)")
    with loopback_device(tmp_path_factory.mktemp("loopback")) as device:
        yield device


@pytest.fixture(scope="session")
def arm64(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    """An emulated aarch64 device, started by the script that ``EDGEKIT_ARM64_DEVICE`` names."""
    script = os.environ.get("EDGEKIT_ARM64_DEVICE")
    if not script:
        pytest.skip("needs EDGEKIT_ARM64_DEVICE, a script that starts an emulated aarch64 device")
    folder = tmp_path_factory.mktemp("arm64")
    subprocess.run([script, folder, str(free_port())], check=True, capture_output=True, timeout=300)
    yield Address(name="arm64", host="arm64", config=folder / "ssh_config")
    os.kill(int(Path(folder, "sshd.pid").read_text()), signal.SIGTERM)
