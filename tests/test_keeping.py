"""What was kept in a run: where it is measured, where not, and that it is not measured again."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np
import pytest
import torch
from tiny_recipe import CLASSES, as_tensors, stripes
from torch import nn

from edgekit.artifact import Array, read_json
from edgekit.data import Samples
from edgekit.ingredients import Ingredients
from edgekit.keeping import KEPT_JSON, keep, read_kept, write_kept
from edgekit.recipe import Recipe
from edgekit.recipe_augmentation import Adversarial
from edgekit.recipe_training import Distillation, Teacher
from edgekit.reporting.tables import percent
from edgekit.teaching import TrainedModel, run_reference


def model(seed: int) -> TrainedModel:
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Flatten(), nn.Linear(144, 3))
    return TrainedModel(name=f"model {seed}", module=module, sha256=f"{seed:064x}")


def ingredients(**fields: Any) -> Ingredients:
    images, labels = stripes(60, 1)
    tensors = as_tensors(images)
    test = Samples(name="test", count=60, fetch=lambda i: {"x": tensors[i]}, targets=labels, classes=CLASSES)
    known = {"train": test, "validation": test, "calibration": test, "test": test, "test_sha256": "5" * 64,
             "held_out": True, "metric": None, "metric_name": None, "labels": CLASSES, "parents": ()}  # fmt: skip
    return Ingredients(**known | fields)


@pytest.fixture
def kept(tmp_path):
    """Measures two models: ``kept(student=…, data=…)``; ``kept.told`` is what progress was told of."""

    def go(
        teacher: TrainedModel | None = None,
        student: TrainedModel | None = None,
        data: Ingredients | None = None,
        outputs: list[dict[str, Array]] | None = None,
        seed: int = 0,
        attack: Adversarial | None = None,
    ) -> dict[str, Any] | None:
        models = (teacher or go.models[0], student or go.models[1])
        data = data or ingredients()
        found = outputs or [run_reference(one, None, data.test) for one in go.models]
        learning = Distillation(adversarial=attack)
        recipe = Recipe(name="kept", seed=seed, teacher=Teacher(model="m:teacher"), distillation=learning)
        return keep(*models, tuple(found), data, recipe, tmp_path, lambda *told: go.told.append(told))

    go.models = (model(1), model(2))
    go.told = []
    return go


def test_it_is_measured_once(kept, tmp_path):
    first = kept()
    assert first is not None
    assert first["samples"] == 60
    assert first["corruption"]["samples"] == 60
    assert [one["name"] for one in first["classes"]] == list(CLASSES)
    told = len(kept.told)
    assert told
    assert kept() == first
    assert len(kept.told) == told
    assert len(list(tmp_path.glob("kept-*"))) == 1


def test_what_it_depends_on_makes_it_anew(kept, tmp_path):
    kept()
    other = dataclasses.replace(kept.models[0], sha256="9" * 64)
    kept(teacher=other)
    kept(student=dataclasses.replace(kept.models[1], sha256="8" * 64))
    kept(data=ingredients(test_sha256="7" * 64))
    kept(seed=1)
    groups = {"groups": np.arange(60) % 2, "group_names": ("old", "new")}
    grouped = dataclasses.replace(ingredients().test, **groups)
    found = kept(data=ingredients(test=grouped, test_sha256="6" * 64))
    assert [one["name"] for one in found["groups"]] == ["old", "new"]
    assert len(list(tmp_path.glob("kept-*"))) == 6


def test_where_there_is_nothing_to_compare_nothing_is_measured(kept, tmp_path):
    data = ingredients()
    teacher, student = kept.models
    scores = np.zeros((60, 3), np.float32)
    targets = {
        "none": None,
        "real numbers": np.zeros(60),
        "boxes": np.zeros((60, 4), np.int64),
        "beyond the classes": np.full(60, 3),
    }
    for values in targets.values():
        assert kept(data=ingredients(test=dataclasses.replace(data.test, targets=values))) is None
    assert kept(student=teacher) is None
    assert kept(data=ingredients(held_out=False)) is None
    assert kept(student=dataclasses.replace(student, module=None)) is None
    for outputs in (scores[:, :1], scores[:, :, None], scores[:, :2]):
        assert kept(outputs=[{"y": scores}, {"y": outputs}]) is None
    assert list(tmp_path.iterdir()) == []


def test_the_file_beside_the_weights_is_of_this_run_or_there_is_none(kept, tmp_path):
    found = kept()
    write_kept(found, tmp_path)
    assert read_kept(tmp_path) == found == read_json(tmp_path / KEPT_JSON)
    write_kept(None, tmp_path)
    assert read_kept(tmp_path) is None
    write_kept(None, tmp_path)


# ---- the commands ----


def test_distill_prints_a_table_and_writes_what_deploy_reports(deployed):
    found = read_json(deployed.out / KEPT_JSON)
    report = read_json(deployed.out / "report.json")
    assert report["kept"] == found
    assert len(list((deployed.out / ".steps").glob("kept-*"))) == 1
    printed = deployed.distilled.stdout
    assert max(map(len, printed.split("next:")[0].splitlines())) <= 100 + len(str(deployed.out))
    scores = [percent(found[role]["accuracy"]) for role in ("teacher", "student")]
    assert re.search(rf"accuracy +{scores[0]} +{scores[1]}", printed)
    assert re.search(rf"agreement with the teacher +{percent(found['agreement'])}", printed)
    assert re.search(r"calibration error +\d", printed)
    assert re.search(r"worst corruption: (noise|blur|contrast|brightness|occlusion) +\d", printed)
    assert f"kept: {deployed.out / KEPT_JSON}" in printed
    assert "run under corruption: 16/16" in deployed.distilled.stderr
    assert "run under corruption" not in deployed.deployed.stderr


def test_the_report_shows_where_the_student_lost(deployed):
    for name in ("report.html", "report.md"):
        assert "Where the student lost" in (deployed.out / name).read_text(encoding="utf-8")


def test_an_attack_that_was_trained_against_is_shown_beside_the_corruptions(kept):
    plain = kept()["corruption"]
    found = kept(attack=Adversarial(attack="pgd", epsilon=0.5, steps=3))["corruption"]
    assert [one["kind"] for one in found["kinds"]] == [*(one["kind"] for one in plain["kinds"]), "pgd attack, 0.5"]
    assert found["teacher_mean"] == plain["teacher_mean"]
    row = found["kinds"][-1]
    assert row["teacher_mean"] + row["student_mean"] < found["teacher_clean"] + found["student_clean"]
    assert row["student"] == [row["student_mean"]]
