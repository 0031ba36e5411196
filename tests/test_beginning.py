"""Students of recipes that begin with something of their teacher."""

import sys

import pytest
import torch
from fake_line import torch_recipe, write_torch_project

from edgekit import beginning
from edgekit.distilling import train_models
from edgekit.errors import ModelError, SpecError, TrainingError
from edgekit.models import state_hash
from edgekit.recipe_training import Training

QUICK = {"epochs": 2, "batch_size": 16, "learning_rate": 0.05}
TEACHER = {"model": "beginning_nets:teacher", "train": QUICK}


@pytest.fixture
def project(tmp_path):
    folder = write_torch_project(tmp_path / "beginning_nets")
    yield folder
    sys.modules.pop("beginning_nets", None)


@pytest.fixture
def begun(monkeypatch):
    """What students began as: clones of their weights, and of the teacher's then."""
    seen = []
    original = beginning.begin_student

    def watched(recipe, student, teacher, data, seed):
        made = original(recipe, student, teacher, data, seed)
        copies = [{k: v.clone() for k, v in model.module.state_dict().items()} for model in (made, teacher)]
        seen.append((made, *copies))
        return made

    for owner in ("edgekit.distilling", "edgekit.chains"):
        monkeypatch.setattr(f"{owner}.begin_student", watched)
    return seen


def test_a_copy_begins_with_the_trained_teachers_weights_and_is_made_again_when_they_change(project, tmp_path, begun):
    recipe, steps = torch_recipe(project, student={"width": 0.5}), tmp_path / "steps"
    _, teacher, student = train_models(recipe, project, steps)
    made, weights, teachers = begun[0]
    assert student.name == made.name == "beginning_nets:teacher, width 0.5"
    assert student.parameters == 35 < teacher.parameters == 67
    assert student.notes[0].startswith("width 0.5: 2 layers, 35 of 67 parameters")
    assert all(torch.equal(tensor, teacher.module.state_dict()[name]) for name, tensor in teachers.items()), "trained"
    rows = {tuple(row) for row in teachers["0.weight"].tolist()}
    assert all(tuple(row) in rows for row in weights["0.weight"].tolist())
    assert student.training["reused"] is False
    again = train_models(recipe, project, steps)[2]
    assert again.training["reused"]
    assert state_hash(again.module) == state_hash(student.module)
    longer = torch_recipe(project, student={"width": 0.5}, teacher=TEACHER | {"train": QUICK | {"epochs": 3}})
    assert train_models(longer, project, steps)[2].training["reused"] is False
    wider = torch_recipe(project, student={"width": 0.75})
    assert train_models(wider, project, steps)[2].training["reused"] is False


def test_a_student_of_its_own_takes_weights_of_the_trained_teacher(project, tmp_path, begun):
    taking = {"model": "beginning_nets:student", "take": {"0": "0"}}
    recipe, steps = torch_recipe(project, student=taking), tmp_path / "steps"
    student = train_models(recipe, project, steps)[2]
    _, weights, teachers = begun[0]
    assert torch.equal(weights["0.weight"], teachers["0.weight"][:4])
    assert student.notes == ("0: the leading part of 0",)
    assert train_models(recipe, project, steps)[2].training["reused"]
    plain = torch_recipe(project, student={"model": "beginning_nets:student"})
    assert train_models(plain, project, steps)[2].sha256 != student.sha256


def test_generations_begin_anew_and_of_the_first_teacher(project, tmp_path, begun):
    recipe = torch_recipe(project, student={"width": 0.5, "initial": "random"}, distillation=QUICK | {"generations": 2})
    train_models(recipe, project, tmp_path / "steps")
    (last, _, first_teacher), (before, _, second_teacher) = begun
    assert last.sha256 != before.sha256, "other first weights"
    assert all(torch.equal(tensor, second_teacher[name]) for name, tensor in first_teacher.items())


def test_a_head_that_the_teacher_is_given_is_the_copys_too(project, tmp_path):
    teacher = TEACHER | {"args": {"classes": 5}, "train": QUICK | {"head": {"module": "2", "classes": 3}}}
    student = train_models(torch_recipe(project, teacher=teacher, student={"width": 0.5}), project, tmp_path)[2]
    assert student.module[2].out_features == 3


@pytest.mark.parametrize(
    ("student", "error", "message"),
    [
        ({"depth": 0.5}, ModelError, "Sequential has no list of blocks"),
        ({"keep": {"layer": [0]}}, ModelError, "no list of blocks 'layer'"),
        ({"width": 0.99}, ModelError, "drops no channel"),
        ({"embeddings": 4}, ModelError, "no embedding table"),
        ({"model": "beginning_nets:student", "take": {"5": "0"}}, TrainingError, "no module '5'"),
        (
            {"model": "beginning_nets:teacher", "args": {"hidden": 9}},
            SpecError,
            "larger than its teacher(.|\n)*75 param",
        ),
    ],
)
def test_a_mistake_is_told_before_any_training(project, tmp_path, student, error, message):
    with pytest.raises(error, match=message):
        train_models(torch_recipe(project, student=student), project, tmp_path / "steps")
    assert not (tmp_path / "steps").exists()


@pytest.mark.parametrize(
    "distillation", [{"bn_sparsity": 1e-4}, {"stages": [{"epochs": 1}, {"bn_sparsity": 1e-4}]}], ids=["all", "a stage"]
)
def test_sparsity_training_of_a_student_without_scales_is_told_before_any_training(project, tmp_path, distillation):
    recipe = torch_recipe(project, student={"width": 0.5}, distillation=QUICK | distillation)
    with pytest.raises(ModelError, match=r"bn_sparsity\) needs BatchNorm scales"):
        train_models(recipe, project, tmp_path / "steps")
    assert not (tmp_path / "steps").exists()


def test_a_student_may_be_as_large_as_its_teacher_and_larger_where_that_is_meant(project, tmp_path):
    for number, student in enumerate(
        ({}, {"args": {"hidden": 9}, "larger": True}, {"args": {"classes": 5}}),
    ):
        head = {"head": {"module": "2", "classes": 3}} if number == 2 else {}  # counted as it will be
        recipe = torch_recipe(
            project, student={"model": "beginning_nets:teacher"} | student, distillation=QUICK | {"epochs": 1} | head
        )
        assert train_models(recipe, project, tmp_path / "steps")[2].parameters >= 67


def test_further_teachers_count_where_sizes_are_compared(project):
    from edgekit.ingredients import load_data
    from edgekit.teaching import load_models, load_others

    other = {"model": "beginning_nets:teacher", "args": {"hidden": 12}, "weights": "factory"}
    recipe = torch_recipe(
        project,
        student={"model": "beginning_nets:teacher", "args": {"hidden": 9}},
        distillation=QUICK | {"teachers": [other]},
    )
    teacher, student = load_models(recipe, project)
    data = load_data(recipe, project, None)
    beginning.check_beginning(recipe, student, [teacher, *load_others(recipe, project)], data)
    with pytest.raises(SpecError, match="larger than its teacher"):
        beginning.check_beginning(recipe, student, [teacher], data)


def test_training_without_a_student_has_nothing_to_begin(project, tmp_path):
    recipe = torch_recipe(project, student=None)
    assert recipe.teacher.train == Training(**QUICK)
    _, teacher, student = train_models(recipe, project, tmp_path / "steps")
    assert student is teacher
