"""``edgekit init``: the recipe it writes is whole and true."""

from __future__ import annotations

import re

import pytest
from click.testing import CliRunner
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from edgekit.cli.init import TEMPLATE
from edgekit.cli.main import cli
from edgekit.recipe import DataSpec, InputSpec, OutputSpec, Quantization, Recipe
from edgekit.recipe import load_recipe as load
from edgekit.recipe_pruning import Pruning
from edgekit.recipe_qat import Qat
from edgekit.recipe_student import StudentSpec
from edgekit.recipe_training import Distillation, FeatureMatch, ModelSpec, OtherTeacher, TaskSpec, Teacher, Training
from edgekit.recipe_watch import WatchLimits, WatchSpec
from edgekit.specs import parse_toml

TABLES = {
    "": Recipe,
    "teacher": Teacher,
    "teacher.train": Training,
    "student": StudentSpec,
    "distillation": Distillation,
    "pruning": Pruning,
    "data": DataSpec,
    "input": InputSpec,
    "output": OutputSpec,
    "quantization": Quantization,
    "qat": Qat,
    "watch": WatchSpec,
    "watch.limits": WatchLimits,
}


def edgekit(*args):
    return CliRunner().invoke(cli, list(args))


@pytest.fixture
def everything():
    """The template with every setting switched on."""
    return re.sub(r"(?m)^#(?! )", "", TEMPLATE)


def test_it_parses_as_it_is(tmp_path):
    folder = tmp_path / "new" / "project"
    shown = edgekit("init", str(folder))
    assert shown.exit_code == 0
    assert f"wrote {folder / 'edgekit.toml'}" in shown.output
    recipe = load(folder)
    assert (recipe.name, recipe.targets, recipe.profile) == ("project", ("local",), "interactive")


def test_it_parses_with_every_setting_on(tmp_path, everything):
    (tmp_path / "edgekit.toml").write_text(everything)
    assert load(tmp_path).teacher.train.head.classes == 10


LISTS = {"assistants": ModelSpec, "features": FeatureMatch, "teachers": OtherTeacher, "tasks": TaskSpec}


@pytest.mark.parametrize("table", TABLES)
def test_every_key_is_there_with_its_default(everything, table):
    raw = parse_toml(everything, "template")
    for part in filter(None, table.split(".")):
        raw = raw[part]
    for name, field in TABLES[table].model_fields.items():
        if table == "qat" and name in Qat.REFUSED:
            assert name not in raw
            continue
        assert name in raw, f"{table}.{name}"
        default = field.get_default(call_default_factory=True, validated_data={})
        if default is None or default is PydanticUndefined or isinstance(default, BaseModel):
            continue
        if name in LISTS:  # a list of tables cannot be shown empty: one shows every key
            assert set(raw[name][0]) == set(LISTS[name].model_fields)
            assert LISTS[name].model_validate(raw[name][0])
            continue
        value = tuple(raw[name]) if isinstance(default, tuple) else raw[name]
        assert value == default, f"{table}.{name}"


def test_it_never_overwrites_without_force(tmp_path):
    path = tmp_path / "edgekit.toml"
    path.write_text("mine")
    shown = edgekit("init", str(tmp_path))
    assert shown.exit_code == 1
    assert shown.stderr == f"error: {path} is already there\n  fix:     use --force to overwrite it\n"
    assert path.read_text() == "mine"
    assert edgekit("init", str(tmp_path), "--force").exit_code == 0
    assert path.read_text() == TEMPLATE


def test_a_folder_that_cannot_be_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    shown = edgekit("init", str(tmp_path / "file" / "below"))
    assert shown.exit_code == 1
    assert shown.stderr.startswith("error: ")
