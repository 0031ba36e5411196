from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgekit.artifact import Array, Artifact, Option, TensorSpec, hash_files
from edgekit.profiling import dependence
from edgekit.profiling.load import LoadSpec


@pytest.fixture
def null_artifact(tmp_path: Path) -> Callable[..., Artifact]:
    """Makes artifacts of the null engine, each in a folder of its own."""
    numbers = itertools.count()

    def make(shape: tuple[int | str, ...] = ("batch", 4), **options: Option) -> Artifact:
        folder = tmp_path / f"null-{next(numbers)}"
        folder.mkdir()
        (folder / "model.null").write_bytes(b"\0" * 2500)
        return Artifact(
            folder=folder,
            model="model.null",
            files=hash_files(folder, ["model.null"]),
            engine="null",
            precision="fp32",
            inputs=(TensorSpec(name="x", dtype="float32", shape=shape),),
            outputs=(TensorSpec(name="y", dtype="float32", shape=("batch", 2)),),
            options=options,
        )

    return make


@pytest.fixture
def feeds() -> dict[str, Array]:
    return {"x": np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)}


@pytest.fixture
def brief() -> LoadSpec:
    """A load that ends after a few turns of 10 queries."""
    return LoadSpec(min_seconds=0.0, min_count=30, percentiles=(50.0,), timeout_s=60.0)


@pytest.fixture
def independent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Queries that do not hang together, however busy this machine is: turns follow from the load alone."""
    monkeypatch.setattr(dependence, "correlation_time", lambda series, errors=0.0: 1.0)
