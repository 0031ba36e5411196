"""Real exported models from end to end; they lie in the folder that EDGEKIT_DATA names."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from tiny_recipe import edgekit

from edgekit.artifact import read_json

pytestmark = pytest.mark.skipif("EDGEKIT_DATA" not in os.environ, reason="needs EDGEKIT_DATA: real exported models")
ELSEWHERE = ("--target", "intel-nuc-13")
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("dtln-1", "fastestdet", "version-slim-320")]
MODELS = ["dtln-2", "version-RFB-320", *SLOW]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def take(name: str) -> Path:
    return Path(os.environ["EDGEKIT_DATA"]) / "onnx" / f"{name}.onnx"


def samples(path: Path, count: int, seed: int) -> dict[str, np.ndarray]:
    """Smooth noise in the models' sizes: pictures between -1 and 1, spectra, and states that are not zero."""
    rng = np.random.default_rng(seed)
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in onnx.load(path).graph.input}
    constants = {tensor.name for tensor in onnx.load(path).graph.initializer}
    return {
        name: np.abs(rng.normal(0, 0.5, (count, *shape[1:]))).clip(0, 1).astype(np.float32)
        for name, shape in shapes.items()
        if name not in constants
    }


@pytest.mark.parametrize("name", MODELS)
def test_both_engines_make_a_bundle_in_int8(name, here):
    path = take(name)
    np.savez("train.npz", **samples(path, 32, seed=0))
    np.savez("test.npz", **samples(path, 16, seed=1))
    data = ("--calibration", "train.npz", "--test", "test.npz", "--precision", "int8")
    done = edgekit("export", path, *ELSEWHERE, *data, "--out", "b")
    assert done.exit_code in (3, 4), done.stderr
    for candidate in read_json(here / "b.report.json")["targets"][0]["candidates"]:
        assert candidate["failure"] is None
        assert candidate["proof"]["broken"] is None
        assert candidate["proof"]["reference_db"] > 5
    assert edgekit("verify", "b").exit_code == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_in_float_without_samples(name, here):
    done = edgekit("export", take(name), *ELSEWHERE, "--precision", "fp32", "--out", "b")
    assert done.exit_code == 4, done.stderr
    candidates = read_json(here / "b.report.json")["targets"][0]["candidates"]
    assert [candidate["failure"] for candidate in candidates] == [None, None]
