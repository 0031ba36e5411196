"""``export``: one model, no recipe."""

from __future__ import annotations

import os

import numpy as np
import pytest
from tiny_recipe import as_tensors, edgekit, stripes, student_onnx

from edgekit.artifact import read_json

# Nothing is measured for another machine, so these take no time beyond making the bundle.
ELSEWHERE = ("--target", "raspberry-pi-4", "--engine", "onnxruntime")


@pytest.fixture
def here(project, monkeypatch, deployed):
    """The working folder: the networks, their data as model tensors, and the deployed student's weights and ONNX."""
    monkeypatch.chdir(project)
    for name, count, seed in (("train", 96, 0), ("test", 48, 1)):
        images, labels = stripes(count, seed)
        np.savez(f"{name}.npz", input=as_tensors(images), y=labels)
    onnx = student_onnx(deployed)
    os.symlink(onnx, "student.onnx")
    os.symlink(deployed.out / "student.safetensors", "student.safetensors")
    return project


def manifest_of(bundle):
    return read_json(bundle / "manifest.json")


def test_an_onnx_file_is_measured_on_this_machine(here):
    quick = here / "quick.toml"
    done = edgekit("export", "student.onnx", "--target", "local", "--engine", "onnxruntime", "--profile", quick)
    assert done.exit_code == 4, done.stderr  # fast enough, and nothing is known of its accuracy
    assert "student.onnx on local, profile quick: INCONCLUSIVE" in done.stdout
    assert "data: random inputs: nothing is known of the accuracy" in done.stdout
    assert "report: bundles/local.report.md" in done.stdout
    manifest = manifest_of(here / "bundles" / "local")
    assert (manifest["name"], manifest["precision"], manifest["golden"]["random"]) == ("student.onnx", "fp32", True)
    assert edgekit("verify", "bundles/local").exit_code == 0
    again = edgekit("report", "bundles/local")
    assert again.exit_code == 4
    assert again.output == done.stdout[: done.stdout.index("report: ")]


def test_an_onnx_file_with_data_is_quantised_and_judged(here):
    data = ("--calibration", "train.npz", "--test", "test.npz", "--set", "data.calibration=24")
    done = edgekit("export", "student.onnx", *ELSEWHERE, *data, "--precision", "int8", "--out", "out/pi")
    assert done.exit_code == 4, done.stderr
    assert "NOT MEASURED" in done.stdout or "INCONCLUSIVE" in done.stdout
    manifest = manifest_of(here / "out" / "pi")
    assert (manifest["precision"], manifest["golden"]["random"]) == ("int8", False)
    assert manifest["accuracy"]["metric"] == "accuracy"
    assert manifest["plan"]["scheme"]["name"] == "s8s8-per-channel"  # the target is an ARM, whatever this host is
    assert (
        read_json(here / "out" / "pi.report.json")["data"] | {"test_samples": 48}
        == read_json(here / "out" / "pi.report.json")["data"]
    )


def test_without_a_test_set_accuracy_is_agreement_with_the_model(here):
    done = edgekit("export", "student.onnx", *ELSEWHERE, "--calibration", "train.npz")
    assert done.exit_code == 4, done.stderr
    assert manifest_of(here / "bundles" / "raspberry-pi-4")["accuracy"]["metric"] == "agreement"


def test_a_factory_of_the_working_folder(here):
    done = edgekit(
        "export",
        "tinynets:student",
        *ELSEWHERE,
        *("--input", "input=f32[1,1,12,12]", "--weights", "student.safetensors", "--out", "b"),
    )
    assert done.exit_code == 4, done.stderr
    manifest = manifest_of(here / "b")
    assert manifest["inputs"] == [{"name": "input", "dtype": "float32", "shape": [1, 1, 12, 12]}]
    images, labels = stripes(30, seed=3)
    np.savez("x.npz", input=as_tensors(images))
    assert edgekit("run", "b", "--input", "x.npz", "--output", "y.npz").exit_code == 0
    with np.load("y.npz") as found:
        assert (found["output"].argmax(1) == labels).mean() > 0.9


def test_a_factory_with_calibration_data(here):
    done = edgekit(
        *("export", "tinynets:student", *ELSEWHERE, "--weights", "student.safetensors"),
        *("--calibration", "train.npz", "--precision", "int8"),
    )
    assert done.exit_code == 4, done.stderr
    manifest = manifest_of(here / "bundles" / "raspberry-pi-4")
    assert (manifest["precision"], manifest["inputs"][0]["shape"]) == ("int8", [1, 1, 12, 12])


@pytest.fixture
def timm():
    return pytest.importorskip("timm", reason="timm is not installed: pip install 'edgekit[vision]'")


def test_a_network_of_timm(here, timm):
    done = edgekit("export", "timm:test_resnet", *ELSEWHERE, "--input", "x=f32[1,3,64,64]", "--out", "net")
    assert done.exit_code == 4, done.stderr
    assert manifest_of(here / "net")["inputs"] == [{"name": "x", "dtype": "float32", "shape": [1, 3, 64, 64]}]


def test_a_network_of_timm_with_calibration_data(here, timm):
    import torch
    from safetensors.torch import save_model

    torch.manual_seed(0)  # of other weights int8 may lose more than the limit
    save_model(timm.create_model("test_resnet"), "net.safetensors")
    np.savez("images.npz", x=np.random.default_rng(0).normal(size=(20, 3, 64, 64)).astype(np.float32))
    data = ("--calibration", "images.npz", "--weights", "net.safetensors")
    done = edgekit("export", "timm:test_resnet", *ELSEWHERE, *data, "--precision", "int8", "--out", "net")
    assert done.exit_code == 4, done.stderr
    assert (manifest_of(here / "net")["precision"], manifest_of(here / "net")["golden"]["random"]) == ("int8", False)


@pytest.fixture
def image_folders(here):
    """Pictures by class as PNG, twice as large as the model takes them."""
    from PIL import Image

    for split, count, seed in (("train", 60, 4), ("test", 30, 5)):
        for index, (picture, label) in enumerate(zip(*stripes(count, seed), strict=True)):
            folder = here / "images" / split / ("flat", "rows", "columns")[label]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture[..., 0].repeat(2, axis=0).repeat(2, axis=1)).save(folder / f"{index}.png")
    return here


def test_pictures_by_class_are_preprocessed_as_the_recipe_says(image_folders):
    recipe = image_folders / "edgekit.toml"
    text = recipe.read_text().partition("[teacher.train]")[0] + (
        'weights = "student.safetensors"\n'
        '[data]\ntrain = "images/train"\ntest = "images/test"\nlabels = ["flat", "rows", "columns"]\n'
        '[input]\nlayout = "NHW"\nresize = [12, 12]\nscale = 0.00392156862745098\nmean = [0.5]\nstd = [0.5]\n'
    )
    recipe.write_text(text.replace("tinynets:teacher", "tinynets:student"))
    done = edgekit("deploy", recipe, *ELSEWHERE, "--precision", "fp32")
    assert done.exit_code == 4, done.stderr
    bundle = image_folders / "runs" / "tiny" / "raspberry-pi-4"
    manifest = manifest_of(bundle)
    assert manifest["preprocessing"]["resize"] == [12, 12]
    assert manifest["labels"] == ["flat", "rows", "columns"]
    assert manifest["accuracy"]["teacher"] > 0.9
    images, labels = stripes(12, seed=6)
    np.savez("x.npz", input=images[..., 0].repeat(2, axis=1).repeat(2, axis=2))
    assert edgekit("run", bundle, "--input", "x.npz", "--output", "y.npz").exit_code == 0
    with np.load("y.npz") as found:
        assert (found["output"].argmax(1) == labels).mean() > 0.9


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["student.onnx", "--target", "raspbery-pi-4"], "did you mean 'raspberry-pi-4'?"),
        (["student.onnx", *ELSEWHERE, "--precision", "int8"], "int8 needs calibration samples"),
        (["student.onnx", *ELSEWHERE, "--test", "test.npz"], "--test needs --calibration"),
        (["student.onnx", *ELSEWHERE, "--profile", "intractive"], "did you mean 'interactive'?"),
        (["student.onnx", "--target", "raspberry-pi-4", "--engine", "tensorrt"], "no candidate of target"),
        (["none.onnx", *ELSEWHERE], "none.onnx: no such file"),
        (["tinynets:student", *ELSEWHERE], "give data, or the shape: --input NAME=f32[1,3,224,224]"),
        (["tinynets:student", *ELSEWHERE, "--input", "input"], "allowed: NAME=f32[1,3,224,224]"),
        (["tinynets:student", *ELSEWHERE, "--input", "input=f33[1]"], "DTYPE one of f32"),
        (["tinynets:student", *ELSEWHERE, "--input", "input=f32[1,1,12,12]", "--weights", "s.pt"], "no such file"),
        (["tinynets:studnt", *ELSEWHERE, "--input", "input=f32[1,1,12,12]"], "did you mean 'student'?"),
        (["timm:resnet19", *ELSEWHERE, "--input", "x=f32[1,3,32,32]"], "timm has no model 'resnet19'"),
        (["student.onnx", *ELSEWHERE, "--input", "imput=f32[1,1,12,12]"], "imput"),
        (["student.onnx", *ELSEWHERE, "--calibration", "none.npz"], "none.npz: no such file or folder"),
        (["readme.txt", *ELSEWHERE, "--input", "x=f32[1,3,32,32]"], "unknown model 'readme.txt'"),
    ],
)
def test_what_cannot_be_exported_is_told_and_leaves_nothing(here, args, message):
    done = edgekit("export", *args)
    assert done.exit_code == 1
    assert done.stderr.count("error: ") == 1
    assert message in done.stderr
    left = [path for path in here.rglob("*") if "partial" in path.name or path.name == "manifest.json"]
    assert left == []
