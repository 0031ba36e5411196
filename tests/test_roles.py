"""Recipes whose models can and cannot play their parts."""

import pytest
from fake_line import make_recipe

from edgekit.errors import SpecError
from edgekit.roles import check_roles

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
