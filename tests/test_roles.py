"""Recipes whose models can and cannot play their parts."""

from dataclasses import replace

import numpy as np
import pytest
from fake_line import ingredients_of, make_recipe, make_samples

from edgekit.errors import DataError, SpecError
from edgekit.ingredients import Ingredients
from edgekit.roles import check_labels, check_roles

QUICK = {"epochs": 2, "batch_size": 16, "learning_rate": 0.05}
ONNX = {"model": "model.onnx"}
HINT = {"loss": "hints", "student": "a", "teacher": "b"}
TORCH = {"model": "nets:teacher"}
GIVEN = TORCH | {"weights": "w.safetensors"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"teacher": ONNX, "student": {"model": "small.ONNX"}}, "student.model is an .onnx file"),
        (
            {"teacher": ONNX, "student": TORCH, "distillation": {"features": [HINT]}},
            "a teacher that is an .onnx file shows no layers",
        ),
        ({"teacher": ONNX | {"train": QUICK}}, "an .onnx file takes no args, weights or training"),
        ({"teacher": ONNX | {"weights": "w.safetensors"}}, "an .onnx file takes no args, weights or training"),
        ({"teacher": ONNX | {"args": {"depth": 3}}}, "an .onnx file takes no args, weights or training"),
        (
            {"teacher": TORCH | {"weights": "w.safetensors"}, "student": TORCH, "distillation": {"teachers": [TORCH]}},
            r"distillation.teachers\[0\] has no weights",
        ),
        (
            {
                "teacher": TORCH | {"weights": "w.safetensors"},
                "student": TORCH,
                "distillation": {"features": [HINT], "generations": 2},
            },
            "with generations others teach too",
        ),
        (
            {
                "teacher": TORCH | {"weights": "w.safetensors"},
                "student": TORCH,
                "distillation": {"assistants": [ONNX]},
            },
            r"distillation.assistants\[0\] is an .onnx file",
        ),
        (
            {"teacher": ONNX, "student": TORCH, "distillation": {"group_temperature": 5.0}},
            r"distillation.group_temperature draws samples by their group(.|\n)*= 5 without data.groups",
        ),
        (
            {"teacher": TORCH | {"train": QUICK | {"group_temperature": 2.0}}},
            "teacher.train.group_temperature draws samples by their group",
        ),
        (
            {
                "teacher": ONNX,
                "student": TORCH,
                "input": {"model_layout": "NHWC"},
                "distillation": {"augmentation": {"crop": 4}},
            },
            "distillation.augmentation.crop varies images",
        ),
        (
            {"teacher": ONNX, "student": {"depth": 0.5}},
            "an .onnx file has no layers that a student could begin with",
        ),
        (
            {"teacher": ONNX, "student": TORCH | {"take": {"a": "b"}}},
            r"teacher.model = 'model.onnx' and \[student.take\]",
        ),
        ({"teacher": GIVEN, "student": {"model": "teacher"}}, "a copy of the teacher of which nothing is cut"),
        ({"teacher": GIVEN, "student": {"larger": True}}, "a copy of the teacher of which nothing is cut"),
        (
            {"teacher": GIVEN, "student": {"width": 0.5, "args": {"depth": 3}}},
            "student.args is for a student of its own",
        ),
        ({"teacher": GIVEN, "student": {"width": 0.5, "take": {"a": "b"}}}, "student.take is for a student of its own"),
        ({"teacher": GIVEN, "student": TORCH | {"width": 0.5}}, "student.width is for a copy of the teacher"),
        ({"teacher": GIVEN, "student": TORCH | {"initial": "random"}}, "student.initial is for a copy of the teacher"),
        ({"teacher": TORCH}, "the teacher has neither weights nor training"),
        ({"teacher": TORCH, "student": TORCH}, "the teacher has neither weights nor training"),
        ({"teacher": TORCH, "student": TORCH, "data": None}, "training needs data"),
        ({"teacher": TORCH | {"train": QUICK}, "data": None}, "training needs data"),
    ],
)
def test_models_that_cannot_play_their_part_are_refused(fields, message):
    with pytest.raises(SpecError, match=message):
        check_roles(make_recipe(**fields))


@pytest.mark.parametrize(
    "fields",
    [
        {"teacher": ONNX},
        {"teacher": ONNX, "data": None},
        {"teacher": ONNX, "student": TORCH},
        {"teacher": TORCH, "data": None},  # how fast an architecture is needs no weights
        {"teacher": TORCH | {"weights": "w.safetensors"}},
        {"teacher": TORCH | {"weights": "w.safetensors", "train": QUICK}, "student": TORCH},
        {"teacher": TORCH | {"train": QUICK}},
        {
            "teacher": TORCH | {"train": QUICK | {"group_temperature": 2.0}},
            "data": {"train": "train.npz", "groups": "language"},
        },
        {
            "teacher": ONNX,
            "student": TORCH,
            "input": {"model_layout": "NHWC"},
            "distillation": {"augmentation": {"noise": 0.1}},
        },
    ],
)
def test_models_that_can(fields):
    recipe = make_recipe(**fields)
    check_roles(recipe)
    assert recipe.teacher.model == fields["teacher"]["model"]


def ingredients(targets) -> Ingredients:
    return ingredients_of(replace(make_samples(8), targets=targets))


@pytest.mark.parametrize(
    ("fields", "table"),
    [
        ({"teacher": TORCH | {"train": QUICK}}, "teacher.train"),
        ({"teacher": GIVEN, "student": TORCH}, "student"),
        ({"teacher": GIVEN, "pruning": {"ratio": 0.5}}, "pruning"),
        ({"teacher": GIVEN, "qat": {"epochs": 1}}, "qat"),
    ],
)
@pytest.mark.parametrize("shape", [(8,), (8, 2)])
def test_values_teach_nobody_to_tell_classes_apart(fields, table, shape):
    values = ingredients(np.linspace(-1, 1, np.prod(shape)).reshape(shape))
    said = rf"\[{table}\] learns to tell classes apart(.|\n)*float64\[8(.|\n)*kind = \"values\""
    with pytest.raises(DataError, match=said):
        check_labels(make_recipe(**fields), values)
    check_labels(make_recipe(teacher=GIVEN), values)  # what learns nothing is scored by a metric of the user's own
    check_labels(make_recipe(**fields), ingredients(None))
    check_labels(make_recipe(**fields), ingredients(np.arange(8) % 3))
