"""The CIFAR-10 examples: fast tests on made-up pictures, a short run on real ones, and the full runs by hand."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from tiny_recipe import edgekit, process_environment

from edgekit._lookup import importable
from edgekit.artifact import read_json
from edgekit.backends import load_backend
from edgekit.candidate import Plan
from edgekit.catalog import load_profile, load_target
from edgekit.distillation.forward import forward
from edgekit.ingredients import load_data
from edgekit.making import export
from edgekit.models import count_parameters, load_module
from edgekit.recipe import load_recipe
from edgekit.runtime import open_artifact
from edgekit.runtime.numbers import run_batched, snr_db

FOLDER = Path(__file__).parents[2] / "examples" / "cifar10"
TEXTBOOK = FOLDER / "textbook.toml"
WHOLE = FOLDER / "whole.toml"
REAL = pytest.mark.skipif("EDGEKIT_DATA" not in os.environ, reason="needs EDGEKIT_DATA: CIFAR-10")
# int8 on one engine for another machine: nothing is measured.
FAST = ["--target", "raspberry-pi-4", "--engine", "onnxruntime", "--precision", "int8"]
NOT_MEASURED, LIMIT_MISSED = 4, 3  # so few pictures may leave the student far behind its teacher
BATCH_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


@pytest.fixture(scope="module")
def student():
    return load_module(load_recipe(FOLDER).student, base=FOLDER, seed=0, where="student")


def untrained_teacher():
    spec = load_recipe(FOLDER).teacher.model_copy(update={"weights": None})
    return load_module(spec, base=FOLDER, seed=0, where="teacher")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> list[str]:
    """Overrides that give 200 made-up pictures, and 100 others to test: noise around a colour for each class."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    colours = rng.integers(0, 256, (10, 1, 1, 3))
    given = []
    for part, count in (("train", 200), ("test", 100)):
        y = np.arange(count) % 10
        x = np.clip(colours[y] + rng.normal(0, 20, (count, 32, 32, 3)), 0, 255).astype(np.uint8)
        np.savez(folder / f"{part}.npz", x=x, y=y.astype(np.uint8))
        given.append(f"data.{part}={folder / part}.npz")
    return given


@pytest.mark.parametrize("recipe", [FOLDER, TEXTBOOK, WHOLE])
def test_the_recipes_and_their_profile_are_found_and_right(recipe):
    recipe = load_recipe(recipe)
    profile = load_profile(recipe.profile, [FOLDER])
    assert recipe.targets == ("local",)
    assert recipe.quantization.precision == "auto"
    assert recipe.distillation.augmentation.flip
    assert recipe.distillation.augmentation.crop == 4
    assert profile.limits.max_drop_points is not None
    assert profile.load.min_count >= 700


def test_the_whole_path_prunes_the_teachers_copy_and_trains_it_in_int8():
    recipe, first = load_recipe(WHOLE), load_recipe(FOLDER)
    assert (recipe.input, recipe.teacher) == (first.input, first.teacher)
    assert recipe.data.model_copy(update={"validation": first.data.validation}) == first.data
    begins, teacher = recipe.student, recipe.teacher
    assert (begins.model, begins.args, begins.weights) == (teacher.model, teacher.args, teacher.weights)
    assert recipe.pruning.ratio is not None
    assert recipe.pruning.train.augmentation.views is not None, "or the teacher is asked anew in every epoch"
    assert recipe.qat is not None


def test_both_recipes_read_the_same_data():
    first, second = load_recipe(FOLDER), load_recipe(TEXTBOOK)
    assert first.data == second.data
    assert first.input.model_copy(update={"resize": (64, 64)}) == second.input


def test_the_teachers_weights_have_the_names_that_its_file_has():
    expected = {"conv1.weight", "linear.weight", "linear.bias", *(f"bn1.{name}" for name in BATCH_NORM)}
    for stage in (1, 2, 3):
        for block in range(9):
            for number in (1, 2):
                expected.add(f"layer{stage}.{block}.conv{number}.weight")
                expected.update(f"layer{stage}.{block}.bn{number}.{name}" for name in BATCH_NORM)
    teacher = untrained_teacher()
    assert set(teacher.state_dict()) == expected
    assert count_parameters(teacher) == 853_018  # table 6 of the paper: 0.85 million
    assert teacher.layer3[0].conv1.weight.shape == (64, 32, 3, 3)


def test_the_student_is_a_resnet_14_of_a_fifth_of_the_size(student):
    assert sum(isinstance(part, torch.nn.Conv2d) for part in student.modules()) == 13
    assert 4.5 < 853_018 / count_parameters(student) < 5
    with torch.no_grad():
        assert student(torch.zeros(3, 3, 32, 32)).shape == (3, 10)


def test_a_shortcut_takes_every_second_pixel_and_fills_channels_with_zeros():
    with importable(FOLDER):
        from cifar10 import Block
    block = Block(2, 4, stride=2).eval()
    torch.nn.init.zeros_(block.bn2.weight)
    x = torch.arange(32.0).reshape(1, 2, 4, 4)
    with torch.no_grad():
        y = block(x)
    assert y.shape == (1, 4, 2, 2)
    assert torch.equal(y[:, 1:3], x[:, :, ::2, ::2])
    assert not y[:, [0, 3]].any()


@pytest.fixture(scope="module")
def data(pictures):
    return load_data(load_recipe(FOLDER, pictures), FOLDER, None)


@pytest.fixture(scope="module")
def fp32(student, data, tmp_path_factory):
    """The untrained student as ONNX, with BatchNorms that have seen pictures."""
    student.train()
    with torch.no_grad():
        student(torch.from_numpy(data.calibration.tensors(range(100))["input"]))
    return export(student.eval(), data.test, tmp_path_factory.mktemp("export"))


# Not every dialect's pads and strides of option A load in every engine.
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_the_student_is_the_same_on_an_engine_and_runs_in_int8_there(engine, student, fp32, data, tmp_path):
    samples = data.test.tensors(range(32))
    with torch.no_grad():
        expected = student(torch.from_numpy(samples["input"])).numpy()
    found, share = outputs(fp32, engine, samples, tmp_path / "fp32")
    assert snr_db(expected, found["output"]) > 90
    assert share == 0
    backend = load_backend(engine)
    plan = Plan(engine=engine, precision="int8", method="minmax", scheme=backend.scheme(load_target("local")))
    int8 = backend.quantize(fp32, data.calibration.batches(16), plan, tmp_path / "quantised")
    found, share = outputs(int8, engine, samples, tmp_path / "int8")
    assert snr_db(expected, found["output"]) > 15
    assert share == 1


def outputs(artifact, engine, samples, out) -> tuple[dict[str, np.ndarray], float | None]:
    """What an engine computes, and the share it runs in int8."""
    session = open_artifact(load_backend(engine).compile(artifact, load_target("local"), 1, out))
    try:
        return run_batched(session, samples), session.placement().share("int8")
    finally:
        session.close()


def textbook(command: str, out: Path, pictures: list[str], *options: str):
    """The textbook pair on 200 pictures; timm is in the extras that the tests are run with."""
    pytest.importorskip("timm")
    settings = {
        "teacher.train.epochs": 2, "teacher.train.batch_size": 20, "distillation.epochs": 1,
        "distillation.batch_size": 20, "input.resize": "[32, 32]",
    }  # fmt: skip
    overrides = [*pictures, *(f"{key}={value}" for key, value in settings.items())]
    return edgekit(command, TEXTBOOK, "--out", out, *options, *(w for text in overrides for w in ("--set", text)))


def test_the_textbook_pair_learns_200_pictures(pictures, tmp_path):
    done = textbook("distill", tmp_path, pictures)
    assert done.exit_code == 0, done.output
    teacher = load_file(tmp_path / "teacher.safetensors")
    assert teacher["fc.weight"].shape == (10, 512)  # it was made for 1,000 classes
    history = read_json(next(tmp_path.glob(".steps/teacher-*/history.json")))
    assert history["scores"][-1] > 0.5  # of ten colours
    student = load_file(tmp_path / "student.safetensors")
    assert sum(array.size for array in student.values()) < 1_000_000


@pytest.mark.slow
def test_the_textbook_pair_goes_from_teacher_to_bundle(pictures, tmp_path):
    done = textbook("deploy", tmp_path, pictures, *FAST)
    assert done.exit_code in (NOT_MEASURED, LIMIT_MISSED), done.output
    report = read_json(tmp_path / "report.json")
    (candidate,) = report["targets"][0]["candidates"]
    assert candidate["failure"] is None
    assert candidate["proof"]["samples"] == 100
    assert report["models"]["teacher"]["parameters"] == 11_181_642


def test_missing_data_say_what_to_set_and_where_they_can_be_had(tmp_path):
    kept = {name: value for name, value in process_environment().items() if name != "EDGEKIT_DATA"}
    command = [sys.executable, "-m", "edgekit", "deploy", str(FOLDER), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=kept)
    assert done.returncode == 1
    assert "the environment variable EDGEKIT_DATA is not set" in done.stderr
    assert "export EDGEKIT_DATA=/path/to/folder" in done.stderr


def few_of(archive: Path, out: Path, counts: dict[str, int]) -> None:
    """Copies the first so many pictures of every class of each part into a smaller archive."""
    taken: Counter[str] = Counter()
    with tarfile.open(archive) as source, tarfile.open(out, "w:gz") as kept:
        for member in source:
            parts = PurePosixPath(member.name).parts
            if member.isfile() and taken[parts[0] + parts[1]] < counts[parts[0]]:
                taken[parts[0] + parts[1]] += 1
                kept.addfile(member, source.extractfile(member))


@REAL
def test_a_student_learns_from_the_trained_teacher_on_a_few_real_pictures(tmp_path):
    archive = Path(os.environ["EDGEKIT_DATA"]) / "cifar10" / "images.tar.gz"
    few_of(archive, tmp_path / "few.tar.gz", {"train": 24, "test": 10})
    settings = {"data.train": f"{tmp_path}/few.tar.gz!train", "data.test": f"{tmp_path}/few.tar.gz!test"}
    settings |= {"distillation.epochs": 2, "distillation.batch_size": 24, "distillation.augmentation.views": 1}
    options = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    done = edgekit("distill", FOLDER, "--out", tmp_path / "out", *options)
    assert done.exit_code == 0, done.output
    assert len(list((tmp_path / "out" / ".steps").glob("outputs-*"))) == 1  # the teacher was asked once
    recipe = load_recipe(FOLDER, [f"{key}={value}" for key, value in settings.items()])
    test = load_data(recipe, FOLDER, None).test
    teacher = load_module(recipe.teacher, base=FOLDER, seed=0, where="teacher")
    right = forward(teacher, test)["output"].argmax(axis=1) == test.targets
    assert right.mean() > 0.8  # the weights fit, and so does the preprocessing


@pytest.mark.slow
@pytest.mark.timeout(0)
@REAL
def test_the_full_run_meets_the_figures(tmp_path):
    done = edgekit("deploy", FOLDER, "--out", tmp_path)
    assert done.exit_code in (0, 4), done.output  # 4: beside other work the p99 limit may stay open
    report = read_json(tmp_path / "report.json")
    (shipped,) = (row for row in report["targets"][0]["candidates"] if row["shipped"])
    assert shipped["precision"] == "int8"
    assert shipped["proof"]["teacher"] > 0.89
    assert shipped["proof"]["drop"]["high"] < 6
