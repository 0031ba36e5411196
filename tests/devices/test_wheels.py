"""Wheels for a device that has neither numpy nor an engine, nor pip."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import tomllib
from device_project import write_device_project
from loopback_sshd import SSHD, loopback_device
from tiny_recipe import edgekit

from edgekit.artifact import read_json
from edgekit.devices.looking import Look, look
from edgekit.devices.ssh import connect
from edgekit.devices.wheels import LEAST, fetch_wheels, send_wheels
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
        assert "board: unpack wheels: 1/1 numpy" in first.stderr
        assert {path.name for path in device.root.glob("wheels/*/*") if path.name in LEAST} == {"numpy", "onnxruntime"}
        again = edgekit("verify", linear, "--device", "board", "--wheels")
        assert again.exit_code == 0
        assert "send" not in again.stderr
        assert device.left() == []


@pytest.fixture
def index(tmp_path, monkeypatch):
    """An index of wheels of numpy and ONNX Runtime for this machine, and of nothing else."""
    folder = tmp_path / "index"
    argv = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest", folder]
    wanted = [f"{name}=={importlib.metadata.version(name)}" for name in ("numpy", "onnxruntime")]
    if subprocess.run([*argv, *wanted], capture_output=True, check=False).returncode != 0:
        pytest.skip("needs a host with a package index")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))


@pytest.mark.skipif(SSHD is None, reason="sshd is not installed (Debian: openssh-server)")
def test_of_several_engines_one_without_wheels_is_told_by_name_and_the_others_go_on(tmp_path, named, index):
    """25 s where nothing else runs: a package index is asked, and two wheels are unpacked."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    recipe = write_device_project(tmp_path / "recipe", engines=["onnxruntime", "openvino"])
    deploy = ("deploy", recipe, "--out", tmp_path / "out", "--target", recipe / "board.toml", "--device", "board")
    with loopback_device(tmp_path / "device", path=f"{tmp_path}/venv/bin:/usr/bin:/bin") as device:
        named(board=device.address)
        done = edgekit(*deploy, "--wheels")
        assert done.exit_code == 0, done.output
        assert {path.name for path in device.root.glob("wheels/*/*") if path.name in LEAST} == {"numpy", "onnxruntime"}
        (target,) = read_json(tmp_path / "out/report.json")["targets"]
        ran, lacks = sorted(target["candidates"], key=lambda candidate: candidate["plan"])
        assert ran["measured"]["application"]["n"] >= 50
        failure = "engine 'openvino' cannot run on board\n  found:   no wheel of openvino>=2026.4 could be fetched for"
        assert lacks["failure"].startswith(failure)
        named_one = edgekit(*deploy, "--wheels", "--engine", "openvino")
        assert (named_one.exit_code, "no wheel of openvino>=" in named_one.stderr) == (1, True)


@pytest.mark.skipif(SSHD is None, reason="sshd is not installed (Debian: openssh-server)")
def test_where_no_engine_has_wheels_each_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with loopback_device(tmp_path / "device") as device, connect(device.address) as connection:
        bare = replace(look(connection), packages={"numpy": "2"})
        with pytest.raises(
            DeviceError, match=r"(?s)wheels of no engine for this device.*openvino: no wheel.*tensorrt: there are no"
        ):
            send_wheels(connection, bare, ["openvino", "tensorrt"])
