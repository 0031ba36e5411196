"""Devices to test with: a real sshd on a loopback port, and an emulated aarch64 machine behind another."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from device_bundles import linear_bundle
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
def linear(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small bundle for ONNX Runtime."""
    return linear_bundle(tmp_path_factory.mktemp("linear") / "bundle")


@pytest.fixture
def named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Names devices in a devices.toml of the test's own: ``named(board=address)``."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))

    def add(**addresses: Address) -> None:
        tables = []
        for name, address in addresses.items():
            keys = {"host": address.host, "config": str(address.config), "python": address.python}
            tables += [f"[{name}]", *(f'{key} = "{value}"' for key, value in keys.items() if value is not None)]
        (tmp_path / "edgekit").mkdir(exist_ok=True)
        (tmp_path / "edgekit/devices.toml").write_text("\n".join(tables))

    return add


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
