"""A recipe of two tasks, from the data to the bundle."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tiny_recipe import edgekit, stripes

from edgekit.errors import SpecError
from edgekit.recipe import load_recipe
from edgekit.roles import check_roles
from edgekit.runtime import open_bundle

NETS = '''
"""Stripes and brightness of 12x12 pictures."""

from torch import nn


class Both(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()
        )
        self.stripes, self.light = nn.Linear(4 * width, 3), nn.Linear(4 * width, 1)

    def forward(self, x):
        x = self.body(x)
        return self.stripes(x), self.light(x)


def teacher():
    return Both(24)


def student():
    return Both(12)
'''
TASK = """
[[tasks]]
output = "output_1"
target = "light"
kind = "values"
"""


@pytest.fixture
def two(project):
    (project / "tinynets.py").write_text(NETS)
    for name, count, seed in (("train", 384, 0), ("test", 96, 1)):
        pictures, labels = stripes(count, seed)
        light = (pictures.mean(axis=(1, 2, 3)) / 255)[:, None].astype(np.float32)
        np.savez(project / f"{name}.npz", picture=pictures, light=light, y=labels)
    recipe = (project / "edgekit.toml").read_text().replace("[input]", '[input]\nname = "picture"')
    (project / "edgekit.toml").write_text(recipe + TASK)
    return project


def test_two_tasks_are_learnt_told_and_shipped(two):
    longer = ("--set", "teacher.train.epochs=8", "--set", "distillation.epochs=8")
    result = edgekit("distill", two, "--out", two / "out", *longer)
    assert result.exit_code == 0, result.stderr
    assert "root mean square error: output_1" in result.stdout
    (task,) = json.loads((two / "out" / "kept.json").read_text())["tasks"]
    assert task["teacher"] < 0.1  # the pictures' brightness varies by 0.13
    assert task["student"] < 0.1
    result = edgekit("deploy", two, "--out", two / "out", *longer, "--precision", "fp32")
    assert result.exit_code in (0, 4), result.stderr
    report = json.loads((two / "out" / "report.json").read_text())
    assert report["kept"]["tasks"] == [task]
    assert report["data"]["metric"] == "accuracy"
    assert "root mean square error: output_1" in (two / "out" / "report.html").read_text()
    with open_bundle(two / "out" / "local") as bundle:
        assert [spec.name for spec in bundle.inputs] == ["picture"]
        assert len(bundle.outputs) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('target = "light"', 'target = "lihgt"'), "no array 'lihgt' for the targets of a task"),
        (('kind = "values"', 'kind = "classes"'), "'light' holds no class numbers"),
        (('output = "output_1"', 'output = "output_2"'), "has no output 'output_2'"),
    ],
)
def test_a_task_that_does_not_fit_is_told(two, change, message):
    (two / "edgekit.toml").write_text((two / "edgekit.toml").read_text().replace(*change))
    result = edgekit("distill", two, "--out", two / "out")
    assert result.exit_code == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (TASK, "two have the same output"),
        (TASK.replace("output_1", "output_2"), "two have the same target"),
    ],
)
def test_two_tasks_need_outputs_and_targets_of_their_own(two, more, message):
    (two / "edgekit.toml").write_text((two / "edgekit.toml").read_text() + more)
    with pytest.raises(SpecError, match=message):
        check_roles(load_recipe(two))


def test_tasks_need_all_targets(two):
    with pytest.raises(SpecError, match="no targets of further tasks"):
        check_roles(load_recipe(two, ["data.labelled=0.5"]))
    with pytest.raises(SpecError, match="knows the first task alone"):
        check_roles(load_recipe(two, ['teacher={ model = "answers/" }']))
