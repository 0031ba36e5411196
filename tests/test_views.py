"""Teacher and student that take different inputs of a sample."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from tiny_recipe import edgekit, stripes
from torch import nn

from edgekit.data import Samples
from edgekit.distillation.adversarial import perturbed
from edgekit.distillation.forward import call, take_inputs
from edgekit.processing_specs import Preprocessing
from edgekit.recipe_augmentation import Adversarial
from edgekit.runtime import open_bundle

GUIDE = """

def guide():
    return nn.Sequential(nn.Linear(3, 24), nn.ReLU(), nn.Linear(24, 3))
"""


@pytest.fixture
def views(project):
    """Pictures for the student, and for its teacher what another sensor tells of the same stripes."""
    (project / "tinynets.py").write_text((project / "tinynets.py").read_text() + GUIDE)
    for name, count, seed in (("train", 384, 0), ("test", 96, 1)):
        pictures, labels = stripes(count, seed)
        noise = np.random.default_rng(seed).normal(0, 0.2, (count, 3))
        hint = (np.eye(3)[labels] + noise).astype(np.float32)
        np.savez(project / f"{name}.npz", picture=pictures, hint=hint, y=labels)
    recipe = (project / "edgekit.toml").read_text()
    recipe = recipe.replace('model = "tinynets:teacher"', 'model = "tinynets:guide"\ninputs = ["hint"]')
    recipe = recipe.replace(
        'model = "tinynets:student"', 'model = "tinynets:student"\ninputs = ["picture"]\nlarger = true'
    )
    recipe = recipe.replace("[input]", '[input]\nname = "picture"').replace(
        "[distillation]", "[distillation]\nsoft_weight = 1.0"
    )
    (project / "edgekit.toml").write_text(recipe)
    return project


def test_what_another_sensor_knows_is_learnt_by_pictures_and_ships_without_it(views):
    out = views / "out"
    longer = ("--set", "teacher.train.epochs=6", "--set", "distillation.epochs=6")
    result = edgekit("deploy", views, "--out", out, *longer, "--engine", "onnxruntime", "--precision", "int8")
    assert result.exit_code in (0, 4), result.stderr
    report = json.loads((out / "report.json").read_text())
    assert report["kept"]["student"]["accuracy"] > 0.8
    assert report["kept"]["corruption"] is not None
    (target,) = report["targets"]
    teacher = next(step for step in target["steps"] if step["name"] == "teacher")
    assert teacher["note"] == "it takes other inputs than what ships: hint"
    with open_bundle(out / "local") as bundle:
        pictures, labels = stripes(96, 1)
        feeds = bundle.preprocess(pictures)
        assert list(feeds) == ["picture"]
        rows = [bundle.run({"picture": row[None]}) for row in feeds["picture"]]
    answers = np.array([next(iter(row.values())).argmax() for row in rows])
    assert (answers == labels).mean() > 0.8


def test_a_copy_of_the_teacher_takes_what_the_teacher_takes(views):
    recipe = (views / "edgekit.toml").read_text()
    start, end = recipe.index("[student]"), recipe.index("[distillation]")
    (views / "edgekit.toml").write_text(recipe[:start] + "[student]\nwidth = 0.5\n" + recipe[end:])
    result = edgekit("distill", views, "--out", views / "out")
    assert result.exit_code == 0, result.stderr
    assert json.loads((views / "out" / "kept.json").read_text())["student"]["accuracy"] > 0.5


def test_an_array_that_is_not_there_is_told_before_any_training(views):
    result = edgekit("distill", views, "--out", views / "out", "--set", 'student.inputs=["pictur"]')
    assert result.exit_code == 1
    assert "student.inputs: the samples have no array 'pictur'" in result.stderr
    assert "did you mean 'picture'" in result.stderr
    assert not list((views / "out").glob(".steps/teacher-*"))


def test_inputs_of_a_deployed_onnx_file_are_refused(views):
    (views / "edgekit.toml").write_text('[teacher]\nmodel = "m.onnx"\ninputs = ["x"]\n')
    result = edgekit("deploy", views, "--out", views / "out")
    assert result.exit_code == 1
    assert "takes the arrays of its own inputs' names" in result.stderr


def test_an_attack_moves_only_what_the_model_takes():
    model = nn.Linear(4, 3)
    take_inputs(model, ["mine"])
    inputs = {"mine": torch.randn(5, 4), "theirs": torch.randn(5, 7)}
    assert torch.equal(call(model, inputs)["output"], model(inputs["mine"]))
    labels, generator = torch.tensor([0, 1, 2, 0, 1]), torch.Generator().manual_seed(0)
    moved = perturbed(model, inputs, labels, Adversarial(attack="pgd", epsilon=0.1), generator=generator)
    assert not torch.equal(moved["mine"], inputs["mine"])
    assert torch.equal(moved["theirs"], inputs["theirs"])


def test_samples_of_some_inputs_keep_labels_and_lose_the_preprocessing_of_others():
    arrays = {"a": np.ones((3, 2), np.float32), "b": np.zeros((3, 5), np.float32)}
    samples = Samples(
        name="s", count=3, fetch=lambda i: {name: array[i] for name, array in arrays.items()}, targets=np.arange(3)
    )
    samples = dataclasses.replace(samples, preprocessing=Preprocessing(input="a", scale=2.0))
    assert samples.only(["a"]).preprocessing == samples.preprocessing
    assert samples.only(["b"]).preprocessing is None
    part = samples.only(["b"]).subset([2, 0])
    assert list(part.tensors([0, 1])) == ["b"]
    assert part.targets.tolist() == [2, 0]
