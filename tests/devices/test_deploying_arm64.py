"""``deploy --device`` on an emulated aarch64 device: built here, proven and judged there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tiny_recipe import DATA, NETS, PROFILE, edgekit, stripes

from edgekit.artifact import read_json

RECIPE = f"""
name = "tiny"
targets = ["arm.toml"]
profile = "quick.toml"
[teacher]
model = "tinynets:student"
weights = "factory"
[quantization]
precision = "int8"
{DATA}"""
TARGET = """
description = "The emulated device."
engines = ["onnxruntime"]
precisions = ["fp32", "int8"]
arch = "aarch64"
isa = "neon"
threads = 1
"""


@pytest.mark.slow  # every process there is emulated
def test_an_aarch64_device_gives_the_verdict(arm64, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tinynets.py").write_text(NETS)
    (tmp_path / "edgekit.toml").write_text(RECIPE)
    (tmp_path / "quick.toml").write_text(PROFILE.format(p50_ms=100_000.0))  # its speed says nothing
    (tmp_path / "arm.toml").write_text(TARGET)
    for name, count, seed in (("train", 96, 0), ("test", 48, 1)):
        images, labels = stripes(count, seed)
        np.savez(tmp_path / f"{name}.npz", x=images, y=labels)
    config = tmp_path / "config/edgekit"
    config.mkdir(parents=True)
    (config / "devices.toml").write_text(f'[arm]\nhost = "arm64"\nconfig = "{arm64.config}"\n')
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    done = edgekit("deploy", tmp_path, "--out", tmp_path / "out", "--device", "arm")
    assert done.exit_code == 0, done.output
    (target,) = read_json(tmp_path / "out/report.json")["targets"]
    assert target["not_measured"] is None
    assert target["device"]["host"]["arch"] == "aarch64"
    assert target["candidates"][0]["measured"]["application"]["n"] >= 50
    assert read_json(tmp_path / "out/arm/manifest.json")["timings"]["host"]["isa"] == "neon"
    verified = edgekit("verify", tmp_path / "out/arm", "--device", "arm")
    assert verified.exit_code == 0, verified.output
