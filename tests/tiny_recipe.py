"""A tiny recipe as a user would write it, deployed once a session through the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from edgekit.cli.main import cli

NETS = '''
"""Two networks for 12x12 pictures of stripes."""

from torch import nn


def teacher(width=16):
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(width, 2 * width, 3, padding=1), nn.BatchNorm2d(2 * width), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, 3),
    )


def student():
    return teacher(width=8)
'''

DATA = """\
[data]
train = "train.npz"
test = "test.npz"
calibration = 32
labels = ["flat", "rows", "columns"]
[input]
layout = "NHWC"
scale = 0.00392156862745098
mean = [0.5]
std = [0.5]
"""

RECIPE = f"""
name = "tiny"
targets = ["local"]
profile = "quick.toml"
[teacher]
model = "tinynets:teacher"
[teacher.train]
epochs = 2
batch_size = 16
learning_rate = 0.02
[student]
model = "tinynets:student"
[distillation]
epochs = 2
batch_size = 16
learning_rate = 0.02
{DATA}"""

PROFILE = """
description = "Limits that every machine meets."
[limits]
p50_ms = {p50_ms}
max_drop_points = 60.0
[load]
min_seconds = 0.3
min_count = 50
max_other_load = 1.0
"""

CLASSES = ("flat", "rows", "columns")


def stripes(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Grey pictures uint8 ``[n, 12, 12, 1]`` without stripes, with rows or with columns; and which, int64 ``[n]``."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    images = rng.integers(60, 120, (count, 12, 12, 1))
    images[labels == 1, ::3] += 120
    images[labels == 2, :, ::3] += 120
    return images.astype(np.uint8), labels.astype(np.int64)


def as_tensors(images: np.ndarray) -> np.ndarray:
    """What the recipe's preprocessing makes of raw pictures: float32 ``[n, 1, 12, 12]`` in -1 … 1."""
    return ((images / 255 - 0.5) / 0.5).astype(np.float32).transpose(0, 3, 1, 2)


def write_project(folder: Path, *, train: int = 384, test: int = 96) -> Path:
    """Writes the recipe, its networks, so many samples and its profiles into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tinynets.py").write_text(NETS)
    (folder / "edgekit.toml").write_text(RECIPE)
    (folder / "quick.toml").write_text(PROFILE.format(p50_ms=1000.0))
    (folder / "impossible.toml").write_text(PROFILE.format(p50_ms=0.001))
    for name, count, seed in (("train", train, 0), ("test", test, 1)):
        images, labels = stripes(count, seed)
        np.savez(folder / f"{name}.npz", x=images, y=labels)
    return folder


def edgekit(*args: object) -> Result:
    """Runs the command line in this process; what is not an exit is a bug and is raised."""
    torch.set_num_threads(1)  # as in a process of its own, so that both find each other's steps
    for name in [name for name, module in sys.modules.items() if _is_users(module)]:
        del sys.modules[name]  # another test's module of the same name, from another folder
    result = CliRunner().invoke(cli, [str(arg) for arg in args], env={"COLUMNS": os.environ.get("COLUMNS", "80")})
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def _is_users(module: object) -> bool:
    return "pytest-of-" in (getattr(module, "__file__", None) or "")


# As `python -m edgekit`, but that each artifact is loaded once; nothing here looks at how long loading takes.
BRIEF = """
import sys
from edgekit.profiling import loads
loads.MOST_S = 0.0
from edgekit.cli.main import main
sys.exit(main())
"""


def edgekit_process(*args: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the command line as a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", BRIEF, *map(str, args)],
        capture_output=True,
        text=True,
        check=False,
        env=process_environment() | environment,
    )


def process_environment() -> dict[str, str]:
    """A terminal of 80 columns, and one thread for torch.

    The networks are tiny, and threads that wait for each other cost most on a busy machine.
    """
    return dict(os.environ) | {"COLUMNS": "80", "OMP_NUM_THREADS": "1"}


@dataclass(frozen=True, kw_only=True)
class Deployed:
    """A finished run: where it is, and what its two commands printed."""

    project: Path
    out: Path
    distilled: subprocess.CompletedProcess[str]
    deployed: subprocess.CompletedProcess[str]

    @property
    def bundle(self) -> Path:
        return self.out / "local"


def student_onnx(deployed: Deployed) -> Path:
    """The student as it crossed to ONNX; the teacher, which is twice as wide, lies beside it."""
    crossed = sorted(deployed.out.glob(".steps/export-*/model.onnx"), key=lambda path: path.stat().st_size)
    assert len(crossed) == 2
    return crossed[0]


@pytest.fixture(scope="session")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Deployed:
    """The tiny recipe distilled, then deployed on both CPU engines; nobody may change what is in it.

    One plan an engine: where noise has int8 gain little, a search for what to leave in float would find something.
    """
    project = write_project(tmp_path_factory.mktemp("déployed") / "a run")  # names as users have them
    with (project / "edgekit.toml").open("a") as recipe:
        recipe.write("[quantization]\ntrials = 1\n")
    out = project / "out"
    runs = [edgekit_process(command, project, "--out", out) for command in ("distill", "deploy")]
    assert [run.returncode for run in runs] == [0, 0], "\n".join(run.stderr for run in runs)
    return Deployed(project=project, out=out, distilled=runs[0], deployed=runs[1])


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A fresh folder with the tiny recipe."""
    return write_project(tmp_path / "project")
