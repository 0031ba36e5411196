"""Wheels for a device that has neither numpy nor an engine, nor pip."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import tomllib
from loopback_sshd import SSHD, loopback_device
from tiny_recipe import edgekit

from edgekit.devices.looking import Look
from edgekit.devices.wheels import LEAST, fetch_wheels
from edgekit.errors import DeviceError

ROOT = Path(__file__).parents[2]
LOOK = Look(
    arch="aarch64",
    python="/usr/bin/python3",
    version="3.11.2",
    libc=("glibc", "2.36"),
    packages={},
    root="/root",
    kit=False,
    free_mb=1e5,
    memory_mb=1e5,
    clock_off_s=0.0,
)


def test_the_oldest_versions_are_those_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = [*project["dependencies"], *extras["onnxruntime"], *extras["openvino"]]
    assert {f"{name}>={version}" for name, version in LEAST.items()} <= set(asked)


def test_tensorrt_and_other_c_libraries_have_no_wheels():
    with pytest.raises(DeviceError, match=r"(?s)no wheels of tensorrt.*JetPack"):
        fetch_wheels(LOOK, ["tensorrt"])
    with pytest.raises(DeviceError, match="a C library that is not glibc"):
        fetch_wheels(Look(**{name: getattr(LOOK, name) for name in LOOK.__slots__} | {"libc": ("", "")}), ["numpy"])


def test_no_wheel_for_a_device_names_what_was_looked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(
        DeviceError, match=r"(?s)no wheel of numpy>=1.26 could be.*Python 3.11 on aarch64 with glibc 2.36"
    ):
        fetch_wheels(LOOK, ["numpy"])
    assert list((tmp_path / "edgekit/wheels").iterdir()) == []


@pytest.mark.skipif(SSHD is None, reason="sshd is not installed (Debian: openssh-server)")
def test_a_device_without_numpy_and_engine_gets_them_once(tmp_path, named, linear, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    with loopback_device(tmp_path / "device", path=f"{tmp_path}/venv/bin:/usr/bin:/bin") as device:
        named(board=device.address)
        first = edgekit("verify", linear, "--device", "board", "--wheels")
        if "could not be fetched" in first.stderr:
            pytest.skip("needs a host with a package index")
        assert first.exit_code == 0, first.stderr
        assert "board: unpack wheels: 1/1" in first.stderr
        (site,) = (device.root / "wheels").iterdir()
        assert (site / "numpy").is_dir()
        assert (site / "onnxruntime").is_dir()
        again = edgekit("verify", linear, "--device", "board", "--wheels")
        assert again.exit_code == 0
        assert "send" not in again.stderr
        assert device.left() == []
