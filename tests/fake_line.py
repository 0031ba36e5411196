"""Everything between a model and a bundle on the null engine: a model of zeros, a target, profiles and samples."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.parser import parse_model

from edgekit.artifact import Artifact, hash_files
from edgekit.backends import null
from edgekit.candidate import Task
from edgekit.checking import References, make_references
from edgekit.conversion.clean import describe_onnx
from edgekit.data import Samples
from edgekit.ingredients import Ingredients
from edgekit.metrics import accuracy
from edgekit.recipe import Recipe
from edgekit.specs import Limits, Load, Profile, Target, parse

CLASSES = 3
FEATURES = 4

# The null engine answers zeros: so does this model, hence the two agree.
ZEROS = f"""<ir_version: 9, opset_import: ["" : 20]>
zeros (float["batch", {FEATURES}] input) => (float["batch", {CLASSES}] logits)
    <float[{FEATURES}, {CLASSES}] w = {{{", ".join(["0"] * FEATURES * CLASSES)}}}> {{ logits = MatMul(input, w) }}"""


def write_model(path: Path, text: str = ZEROS) -> Path:
    """Writes a model given as ONNX text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(parse_model(text), path)
    return path


def fp32_artifact(folder: Path, text: str = ZEROS) -> Artifact:
    """An fp32 ONNX artifact."""
    return describe_onnx(write_model(folder / "model.onnx", text), precision="fp32")


def null_artifact(folder: Path, *, precision: str = "fp32", batch: int = 1, **options: Any) -> Artifact:
    """A compiled artifact of the null engine with the specs of the model of zeros."""
    folder.mkdir(parents=True)
    (folder / "model.null").write_bytes(b"\0" * 2500)
    parent = fp32_artifact(folder / "parent")
    fixed = [
        tuple(dataclasses.replace(spec, shape=(batch, *spec.shape[1:])) for spec in specs)
        for specs in (parent.inputs, parent.outputs)
    ]
    return Artifact(
        folder=folder,
        model="model.null",
        files=hash_files(folder, ["model.null"]),
        engine="null",
        precision=precision,
        inputs=fixed[0],
        outputs=fixed[1],
        options=options | {"precision": precision},
        parent=parent.sha256,
    )


def fake_target(name: str = "fake", engines: tuple[str, ...] = ("null",), **fields: Any) -> Target:
    """A target that is this host; engines that no file may name are taken too."""
    known = {"description": "a fake", "precisions": ("fp32", "int8")}
    return Target.model_construct(**known | {"name": name, "engines": engines} | fields)  # type: ignore[arg-type]


def elsewhere(name: str = "elsewhere", **fields: Any) -> Target:
    """A target that no host of these tests is."""
    return fake_target(name, **{"cpu_model": "a CPU of another world"} | fields)


def quick_profile(batch: int = 1, min_count: int = 20, **limits: float) -> Profile:
    """A profile that is measured in a moment."""
    # Whatever else runs beside the tests is no concern of theirs.
    load = Load(batch=batch, min_seconds=0.001, min_count=min_count, max_other_load=1.0)
    return Profile(name="quick", description="for tests", limits=Limits(**limits), load=load)


def make_samples(count: int = 64, *, labelled: bool = True, seed: int = 0, name: str = "samples") -> Samples:
    """Samples of the model of zeros, two thirds of class 0."""
    x = np.random.default_rng(seed).standard_normal((count, FEATURES)).astype(np.float32)
    y = np.array([0, 1, 0, 2, 0, 0] * (count // 6 + 1), dtype=np.int64)[:count]
    return Samples(name=name, count=count, fetch=lambda i: {"input": x[i]}, targets=y if labelled else None)


def references_of(samples: Samples, teacher: np.ndarray | None = None, **options: Any) -> References:
    """References whose student answers zeros, as the null engine does, and whose teacher answers so too or as given."""
    zeros = np.zeros((len(samples), CLASSES), np.float32)
    metric = accuracy if samples.targets is not None else None
    return make_references(
        {"logits": zeros},
        {"logits": zeros if teacher is None else teacher},
        samples,
        metric,
        "accuracy" if metric else None,
        **options,
    )


def perfect(samples: Samples) -> np.ndarray:
    """Logits of a teacher that is always right."""
    assert samples.targets is not None
    return np.eye(CLASSES, dtype=np.float32)[samples.targets]


def make_task(target: Target | None = None, profile: Profile | None = None, **fields: Any) -> Task:
    """A task on the null engine."""
    test = fields.pop("test", None) or make_samples()
    known = {
        "target": target or fake_target(),
        "profile": profile or quick_profile(),
        "calibration": make_samples(32, seed=1),
        "test": test,
        "metric": accuracy if test.targets is not None else None,
        "references": references_of(test),
    }
    return Task(**known | fields)


def compiled_with(monkeypatch: pytest.MonkeyPatch, **by_precision: Mapping[str, Any]) -> None:
    """Gives the null engine's artifacts more options, by precision: ``int8={"crash_at": 100}``."""
    compiled = null.compile

    def compile(model: Artifact, *args: Any) -> Artifact:
        made = compiled(model, *args)
        return dataclasses.replace(made, options={**made.options, **by_precision.get(model.precision, {})})

    monkeypatch.setattr(null, "compile", compile)


def write_npz(path: Path, samples: Samples) -> Path:
    """Writes samples as a user's file."""
    arrays = samples.raw(np.arange(len(samples)))
    np.savez(path, **arrays, **({} if samples.targets is None else {"y": samples.targets}))
    return path


def write_project(folder: Path) -> Path:
    """A folder with the model of zeros, training samples and test samples."""
    folder.mkdir(parents=True, exist_ok=True)
    write_model(folder / "model.onnx")
    write_npz(folder / "train.npz", make_samples(80, seed=1))
    write_npz(folder / "test.npz", make_samples(64, seed=2))
    return folder


def make_recipe(**fields: Any) -> Recipe:
    """The recipe of such a folder."""
    known: dict[str, Any] = {
        "name": "zeros",
        "teacher": {"model": "model.onnx"},
        "data": {"train": "train.npz", "test": "test.npz"},
        "targets": ["fake"],
        "profile": "quick",
    }
    return parse(Recipe, known | fields, "recipe")


@pytest.fixture
def catalogue(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts targets and a profile before the pipeline: ``catalogue(fake_target(), profile=quick_profile())``."""

    def put(*targets: Target, profile: Profile | None = None) -> None:
        by_name = {target.name: target for target in targets or (fake_target(),)}
        monkeypatch.setattr("edgekit.pipeline.load_target", lambda name, folders: by_name[name])
        monkeypatch.setattr("edgekit.pipeline.load_profile", lambda name, folders: profile or quick_profile())

    return put


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file under a folder, by relative path."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def leftovers(folder: Path) -> list[Path]:
    """What is half-written under a folder."""
    return [path for path in folder.rglob("*") if "partial" in path.name]


NETS = """
import torch
from torch import nn


def teacher(hidden=8, classes=3):
    return nn.Sequential(nn.Linear(4, hidden), nn.ReLU(), nn.Linear(hidden, classes))


def student(classes=3):
    return nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, classes))
"""


def write_torch_project(folder: Path) -> Path:
    """A folder with two tiny torch networks and three separable classes, whose module is called as the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{folder.name}.py").write_text(NETS)
    rng = np.random.default_rng(0)
    for name, count in (("train", 96), ("test", 48)):
        y = np.arange(count) % CLASSES
        x = (np.eye(CLASSES, FEATURES)[y] * 3 + rng.standard_normal((count, FEATURES)) * 0.3).astype(np.float32)
        np.savez(folder / f"{name}.npz", x=x, y=y)
    return folder


def torch_recipe(project: Path, **fields: Any) -> Recipe:
    """The recipe of such a folder: the teacher is trained, the student distilled."""
    quick = {"epochs": 2, "batch_size": 16, "learning_rate": 0.05}
    known: dict[str, Any] = {
        "teacher": {"model": f"{project.name}:teacher", "train": quick},
        "student": {"model": f"{project.name}:student"},
        "distillation": quick,
    }
    return make_recipe(**known | fields)


def ingredients_of(samples: Samples) -> Ingredients:
    """The same samples for everything."""
    return Ingredients(
        train=samples,
        validation=samples,
        calibration=samples,
        test=samples,
        test_sha256="0",
        held_out=True,
        metric=None,
        metric_name=None,
        labels=(),
        parents=(),
    )
