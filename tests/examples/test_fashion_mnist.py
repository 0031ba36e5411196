"""The Fashion-MNIST example: fast tests on made-up pictures, a short run on real ones, and the full run by hand."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_recipe import edgekit, process_environment

from edgekit._lookup import importable
from edgekit.artifact import read_json
from edgekit.backends import load_backend
from edgekit.candidate import Plan
from edgekit.catalog import load_profile, load_target
from edgekit.ingredients import load_data
from edgekit.making import export
from edgekit.models import count_parameters, load_module
from edgekit.recipe import load_recipe
from edgekit.runtime import open_artifact
from edgekit.runtime.numbers import run_batched, snr_db

FOLDER = Path(__file__).parents[2] / "examples" / "fashion_mnist"
REAL = pytest.mark.skipif("EDGEKIT_DATA" not in os.environ, reason="needs EDGEKIT_DATA: Fashion-MNIST")
# int8 on one engine for another machine: nothing is measured.
FAST = ["--target", "raspberry-pi-4", "--engine", "onnxruntime", "--precision", "int8"]
NOT_MEASURED, ACCURACY_MISSED = 4, 3  # so few pictures may leave the student far behind its teacher


@pytest.fixture(scope="module", params=["teacher", "student"])
def model(request):
    return load_module(getattr(load_recipe(FOLDER), request.param), base=FOLDER, seed=0, where=request.param)


@pytest.fixture(scope="module")
def student():
    return load_module(load_recipe(FOLDER).student, base=FOLDER, seed=0, where="student")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> list[str]:
    """Overrides that give made-up pictures with the shapes and dtypes of the real set."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    given = []
    for part, count in (("train", 400), ("test", 100)):
        x = rng.integers(0, 256, (count, 28, 28)).astype(np.uint8)
        np.savez(folder / f"{part}.npz", x=x, y=(np.arange(count) % 10).astype(np.uint8))
        given.append(f"data.{part}={folder / part}.npz")
    return given


@pytest.fixture(scope="module")
def data(pictures):
    return load_data(load_recipe(FOLDER, pictures), FOLDER, None)


@pytest.fixture(scope="module")
def fp32(student, data, tmp_path_factory):
    """The untrained student as ONNX, with BatchNorms that have seen pictures."""
    student.train()
    with torch.no_grad():
        student(torch.from_numpy(data.calibration.tensors(range(200))["input"]))
    return export(student.eval(), data.test, tmp_path_factory.mktemp("export"))


def outputs(artifact, engine, samples, out) -> tuple[dict[str, np.ndarray], float | None]:
    """What an engine computes, and the share it runs in int8."""
    session = open_artifact(load_backend(engine).compile(artifact, load_target("local"), 1, out))
    try:
        return run_batched(session, samples), session.placement().share("int8")
    finally:
        session.close()


def test_the_recipe_and_its_profile_are_found_and_right():
    recipe = load_recipe(FOLDER)
    profile = load_profile(recipe.profile, [FOLDER])
    assert recipe.targets == ("local",)
    assert recipe.quantization.precision == "auto"
    assert profile.limits.max_drop_points is not None
    assert profile.load.min_count >= 700
    assert load_profile("short_look", [FOLDER]).limits.max_drop_points == 10.0


def test_both_models_take_pictures_and_give_ten_logits(model):
    with torch.no_grad():
        assert model(torch.zeros(3, 1, 28, 28)).shape == (3, 10)


def test_the_student_has_at_most_an_eighth_of_the_parameters(student):
    teacher = load_module(load_recipe(FOLDER).teacher, base=FOLDER, seed=0, where="teacher")
    assert 8 * count_parameters(student) <= count_parameters(teacher)


def test_the_student_is_depthwise_separable_and_the_teacher_is_not(student):
    teacher = load_module(load_recipe(FOLDER).teacher, base=FOLDER, seed=0, where="teacher")
    depthwise, residual = (
        [part.groups == part.in_channels for part in net.modules() if isinstance(part, torch.nn.Conv2d)][1:]
        for net in (student, teacher)
    )
    assert sum(depthwise) == len(depthwise) / 2
    assert not any(residual)


def test_pictures_are_mirrored_in_training_only():
    with importable(FOLDER):
        from fashion_mnist import Mirror
    mirror, x = Mirror(), torch.arange(400.0).reshape(100, 1, 2, 2)
    torch.manual_seed(0)
    y = mirror(x)
    mirrored = (y != x).flatten(1).any(dim=1)
    assert 30 < int(mirrored.sum()) < 70
    assert torch.equal(y[mirrored], x[mirrored].flip(3))
    assert torch.equal(mirror.eval()(x), x)


def test_raw_pictures_become_normalised_tensors(data):
    assert data.train is not None
    assert (len(data.train), len(data.validation), len(data.test)) == (380, 20, 100)
    (x,) = data.test.tensors(range(8)).values()
    (raw,) = data.test.raw(range(8)).values()
    assert raw.shape == (8, 28, 28)
    assert raw.dtype == np.uint8
    assert x.shape == (8, 1, 28, 28)
    np.testing.assert_allclose(x[:, 0], (raw / 255 - 0.286) / 0.353, atol=1e-5)
    assert len(data.labels) == 10


# OpenVINO 2026.4 runs NNCF's depthwise convolutions in float: 8 of 14 are left.
@pytest.mark.parametrize(("engine", "least"), [("onnxruntime", 1.0), ("openvino", 0.5)])
def test_the_student_is_the_same_on_an_engine_and_runs_in_int8_there(engine, least, student, fp32, data, tmp_path):
    with torch.no_grad():
        expected = student(torch.from_numpy(data.test.tensors(range(64))["input"])).numpy()
    samples = data.test.subset(range(64)).tensors(range(64))
    found, share = outputs(fp32, engine, samples, tmp_path / "fp32")
    assert snr_db(expected, found["output"]) > 90
    assert share == 0
    backend, local = load_backend(engine), load_target("local")
    plan = Plan(engine=engine, precision="int8", method="minmax", scheme=backend.scheme(local))
    int8 = backend.quantize(fp32, data.calibration.batches(16), plan, tmp_path / "quantised")
    found, share = outputs(int8, engine, samples, tmp_path / "int8")
    assert snr_db(expected, found["output"]) > 15
    assert share >= least


@pytest.mark.parametrize("folder", [None, "nowhere"])
def test_missing_data_say_what_to_set_and_where_they_can_be_had(folder, tmp_path):
    environment = {"EDGEKIT_DATA": str(tmp_path / folder)} if folder else {}
    kept = {name: value for name, value in process_environment().items() if name != "EDGEKIT_DATA"}
    command = [sys.executable, "-m", "edgekit", "deploy", str(FOLDER), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=kept | environment)
    assert done.returncode == 1
    told = "no such file or folder" if folder else "the environment variable EDGEKIT_DATA is not set"
    assert (
        f"error: data.train: {'' if not folder else tmp_path / folder / 'fashion-mnist/train.npz: '}{told}"
        in done.stderr
    )
    assert "https://github.com/zalandoresearch/fashion-mnist" in done.stderr
    assert ("export EDGEKIT_DATA=/path/to/folder" in done.stderr) == (folder is None)


def test_pack_makes_the_two_files_of_what_zalando_publishes(tmp_path, capsys):
    rng = np.random.default_rng(0)
    parts = {}
    for part, name, count in (("train", "train", 30), ("test", "t10k", 20)):
        x, y = rng.integers(0, 256, (count, 28, 28)).astype(np.uint8), (np.arange(count) % 10).astype(np.uint8)
        parts[part] = x, y
        for array, kind in ((x, "images-idx3"), (y, "labels-idx1")):
            head = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
            (tmp_path / f"{name}-{kind}-ubyte.gz").write_bytes(gzip.compress(head + array.tobytes()))
    with importable(FOLDER):
        import pack
    pack.pack(tmp_path, tmp_path / "fashion-mnist")
    assert "train.npz: 30 pictures, 30 labels" in capsys.readouterr().out
    for part, (x, y) in parts.items():
        with np.load(tmp_path / "fashion-mnist" / f"{part}.npz") as stored:
            np.testing.assert_array_equal(stored["x"], x)
            np.testing.assert_array_equal(stored["y"], y)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"PK\3\4 something else"))
    with pytest.raises(ValueError, match="not an idx file of bytes"):
        pack.pack(tmp_path, tmp_path / "again")


@REAL
def test_a_short_run_on_a_few_real_pictures(tmp_path):
    overrides = []
    for part, step in (("train", 150), ("test", 25)):
        with np.load(Path(os.environ["EDGEKIT_DATA"]) / "fashion-mnist" / f"{part}.npz") as whole:
            np.savez(tmp_path / f"{part}.npz", x=whole["x"][::step], y=whole["y"][::step])  # sorted by class
        overrides.append(f"data.{part}={tmp_path / part}.npz")
    short = {"epochs": 4, "batch_size": 32}
    settings = [f"{table}.{key}={value}" for table in ("teacher.train", "distillation") for key, value in short.items()]
    options = [word for override in [*overrides, *settings] for word in ("--set", override)]
    done = edgekit("deploy", FOLDER, "--out", tmp_path / "out", *FAST, *options)
    assert done.exit_code in (NOT_MEASURED, ACCURACY_MISSED), done.output
    report = read_json(tmp_path / "out" / "report.json")
    (candidate,) = report["targets"][0]["candidates"]
    assert candidate["proof"]["samples"] == 400
    assert candidate["proof"]["artifact"] > 0.4  # of ten classes
    assert report["models"]["teacher"]["training"]["epochs"] == 4


@pytest.mark.slow
@pytest.mark.timeout(0)
@REAL
def test_the_full_run_meets_the_figures(tmp_path):
    done = edgekit("deploy", FOLDER, "--out", tmp_path)
    assert done.exit_code in (0, 4), done.output  # 4: beside other work the p99 limit may stay open
    report = read_json(tmp_path / "report.json")
    (shipped,) = (row for row in report["targets"][0]["candidates"] if row["shipped"])
    int8 = [row["proof"] for row in report["targets"][0]["candidates"] if row["precision"] == "int8"]
    assert shipped["proof"]["teacher"] >= 0.925
    assert shipped["proof"]["student"] >= 0.99 * shipped["proof"]["teacher"]
    assert shipped["proof"]["artifact"] >= 0.99 * shipped["proof"]["teacher"]
    for proof in int8:
        assert proof["drop_from_fp32"]["n"] == 10_000
        assert proof["drop_from_fp32"]["high"] < 0.5
