"""Recipes: bad input is explained, overrides are typed, paths may be a folder."""

from __future__ import annotations

import pytest

from edgekit.errors import SpecError
from edgekit.recipe import load_recipe

GOOD = '[teacher]\nmodel = "model:build"\n'


@pytest.fixture
def recipe(tmp_path):
    folder = tmp_path / "digits"
    folder.mkdir()

    def load(text=GOOD, *overrides):
        (folder / "edgekit.toml").write_text(text, encoding="utf-8")
        return load_recipe(folder, overrides)

    return load


def test_the_smallest_recipe_has_defaults(recipe):
    loaded = recipe()
    assert loaded.name == "digits"
    assert (loaded.targets, loaded.profile, loaded.quantization.precision) == (("local",), "interactive", "auto")
    assert loaded.student is None
    assert loaded.data is None


def test_a_file_and_its_folder_are_the_same_recipe(recipe, tmp_path):
    assert recipe() == load_recipe(tmp_path / "digits" / "edgekit.toml")


@pytest.mark.parametrize(
    ("text", "problem", "found", "allowed", "fix"),
    [
        ("techer = 1\n" + GOOD, "unknown key 'techer'", "techer", "data, distillation", "did you mean 'teacher'?"),
        (
            GOOD + "[distillation]\ntemprature = 3",
            "unknown key 'distillation.temprature'",
            "temprature",
            "standardise, teacher_share, teachers, temperature",
            "did you mean 'temperature'?",
        ),
        (
            GOOD + '[teacher.train.head]\nmodul = "fc"\nclasses = 3',
            "unknown key 'teacher.train.head.modul'",
            "modul",
            "classes, module",
            "did you mean 'module'?",
        ),
        (
            GOOD + '[student]\nmodle = "x"',
            "unknown key 'student.modle'",
            "modle",
            "args, depth",
            "did you mean 'model'?",
        ),
        (GOOD + '[data]\ntrian = "x"', "unknown key 'data.trian'", "trian", "test, train", "did you mean 'train'?"),
        (
            GOOD + '[distillation]\nepochs = "ten"',
            "wrong value for key 'distillation.epochs'",
            "'ten'",
            "an integer",
            None,
        ),
        (GOOD + "[distillation]\nepochs = 0", "wrong value for key 'distillation.epochs'", "0", "more than 0", None),
        (GOOD + "[distillation]\nsoft_weight = 2", "wrong value for key 'distillation.soft_weight'", "2", "1", None),
        (
            GOOD + "[distillation]\ntemperature = nan",
            "wrong value for key 'distillation.temperature'",
            "nan",
            "a finite number",
            None,
        ),
        (
            GOOD + '[distillation]\nrates = { fc = "x" }',
            "wrong value for key 'distillation.rates.fc'",
            "'x'",
            "a number",
            None,
        ),
        (
            GOOD + '[quantization]\nprecision = "int9"',
            "wrong value for key 'quantization.precision'",
            "'int9'",
            "'auto', 'fp32', 'fp16', 'bf16', 'fp8', 'int8', 'w8' or 'w4'",
            "did you mean 'int8'?",
        ),
        ('targets = "local"\n' + GOOD, "wrong value for key 'targets'", "'local'", "a list: [ … ]", None),
        ("targets = []\n" + GOOD, "wrong value for key 'targets'", "[]", "a list of at least 1", None),
        ("targets = [1]\n" + GOOD, "wrong value for key 'targets[0]'", "1", "text in quotes", None),
        (
            'teacher = "model:build"',
            "wrong value for key 'teacher'",
            "'model:build'",
            "a table with the keys args",
            None,
        ),
        (GOOD + "[input]\nresize = [1]", "wrong value for key 'input.resize'", "[1]", "a list of at least 2", None),
        (
            GOOD + "[input]\nresize = [1, 2, 3]",
            "wrong value for key 'input.resize'",
            "[1, 2, 3]",
            "a list of at most 2",
            None,
        ),
        (GOOD + "[input]\nresize = [1, -2]", "wrong value for key 'input.resize[1]'", "-2", "more than 0", None),
        (GOOD + "[input]\nstd = [0.0]", "wrong value for key 'input.std[0]'", "0.0", "more than 0", None),
        ("seed = 1", "key 'teacher' is missing", None, "teacher = …", "add it"),
        ("[teacher]\nargs = {}", "key 'teacher.model' is missing", None, "model = …", "add it"),
        (GOOD + "[data]\nvalidation = 0.5", "key 'data.train' is missing", None, "train = …", "add it"),
    ],
)
def test_wrong_recipes_are_explained(recipe, tmp_path, text, problem, found, allowed, fix):
    with pytest.raises(SpecError) as caught:
        recipe(text)
    assert caught.value.problem == f"{tmp_path / 'digits' / 'edgekit.toml'}: {problem}"
    assert caught.value.found == found
    assert allowed in caught.value.allowed
    assert caught.value.fix == fix


def test_mean_and_std_must_have_as_many_channels(recipe):
    with pytest.raises(SpecError, match=r"'input'(.|\n)*mean and std of as many channels, or one value for all"):
        recipe(GOOD + "[input]\nmean = [0.1, 0.2, 0.3]\nstd = [1.0, 2.0]")
    preprocessing = recipe(GOOD + "[input]\nmean = [0.1, 0.2, 0.3]\nscale = 2").input.preprocessing()
    assert (preprocessing.mean, preprocessing.std, preprocessing.scale) == ((0.1, 0.2, 0.3), (1.0,), 2.0)


def test_a_missing_recipe_says_how_to_write_one(tmp_path):
    with pytest.raises(SpecError, match=r"edgekit\.toml: no such file\n  fix: .*edgekit init"):
        load_recipe(tmp_path)


def test_bad_toml_says_where(recipe):
    with pytest.raises(SpecError, match=r"not valid TOML\n  found: .*line 1, column"):
        recipe("seed = \n" + GOOD)


def test_overrides_are_typed_and_reach_into_tables(recipe):
    loaded = recipe(
        GOOD,
        "distillation.epochs=3",
        "quantization.precision=int8",
        'targets=["local", "x86-vnni"]',
        "teacher.args.depth=20",
        "name=two words",
    )
    assert loaded.distillation.epochs == 3
    assert loaded.quantization.precision == "int8"
    assert loaded.targets == ("local", "x86-vnni")
    assert loaded.teacher.args == {"depth": 20}
    assert loaded.name == "two words"


def test_a_later_override_wins(recipe):
    assert recipe(GOOD, "seed=1", "seed=2").seed == 2


@pytest.mark.parametrize(
    ("override", "match"),
    [
        ("distillation.epochs", r"--set distillation\.epochs: not an override(.|\n)*KEY=VALUE"),
        ("=3", "not an override"),
        ("a..b=1", "not an override"),
        ("distillation.epochs=ten", r"with --set distillation\.epochs=ten: wrong value(.|\n)*'ten'(.|\n)*an integer"),
        ("distillation.epoch=3", r"unknown key 'distillation\.epoch'(.|\n)*did you mean 'epochs'"),
        ("teacher.model.x=1", "'model' is a value, not a table"),
    ],
)
def test_wrong_overrides_are_explained(recipe, override, match):
    with pytest.raises(SpecError, match=match):
        recipe(GOOD, override)
