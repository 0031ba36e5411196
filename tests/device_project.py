"""A recipe without training, whose target is this machine under another name: what a loopback device is deployed to."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tiny_recipe import DATA, NETS, PROFILE, stripes

from edgekit.profiling.host import this_host

RECIPE = f"""
name = "tiny"
targets = ["board"]
profile = "quick.toml"
[teacher]
model = "tinynets:student"
weights = "factory"
[quantization]
precision = "fp32"
{DATA}"""
TARGET = """
description = "The device of these tests."
engines = {engines}
precisions = ["fp32", "int8"]
arch = "{arch}"
isa = "{isa}"
threads = 1
"""


def write_device_project(folder: Path, engines: Sequence[str] = ("onnxruntime",)) -> Path:
    """A recipe without training; targets that are this machine and one that is not."""
    folder.mkdir()
    (folder / "tinynets.py").write_text(NETS)
    (folder / "edgekit.toml").write_text(RECIPE)
    (folder / "quick.toml").write_text(PROFILE.format(p50_ms=1000.0))
    (folder / "impossible.toml").write_text(PROFILE.format(p50_ms=0.0001))
    listed = json.dumps(list(engines))
    here = TARGET.format(engines=listed, arch=this_host().arch, isa=this_host().isa)
    (folder / "board.toml").write_text(here)
    (folder / "another.toml").write_text(here)
    (folder / "pi.toml").write_text(TARGET.format(engines=listed, arch="aarch64", isa="neon"))
    for name, count, seed in (("train", 96, 0), ("test", 48, 1)):
        images, labels = stripes(count, seed)
        np.savez(folder / f"{name}.npz", x=images, y=labels)
    return folder
