import json
import shutil
import sys

import numpy as np
import onnx
import pytest
import torch
from fake_line import (
    ZEROS,
    leftovers,
    make_recipe,
    torch_recipe,
    write_model,
    write_project,
    write_torch_project,
)

from edgekit.distilling import distill_recipe, train_models
from edgekit.errors import DataError, ModelError, TrainingError
from edgekit.ingredients import load_data, specs_of
from edgekit.lessons import train_student, train_teacher
from edgekit.making import export
from edgekit.models import load_module, save_weights, state_hash
from edgekit.progress import silent
from edgekit.roles import check_roles
from edgekit.teaching import (
    import_onnx,
    load_models,
    load_others,
    onnx_inputs,
    onnx_model,
    run_reference,
)

QUICK = {"epochs": 2, "batch_size": 16, "learning_rate": 0.05}


@pytest.fixture
def project(tmp_path):
    folder = write_torch_project(tmp_path / "teaching_nets")
    yield folder
    sys.modules.pop("teaching_nets", None)


@pytest.fixture
def calls(monkeypatch):
    counted = []
    from edgekit.distillation import students, trainer

    def count(owner, function, role):
        original = getattr(owner, function)

        def counting(*args, **kwargs):
            counted.append(role)
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, function, counting)

    count(trainer, "train", "teacher")
    count(students, "distill", "student")
    return counted


def taught(recipe, project, steps):
    """Teacher and student, as a deployment gets them."""
    check_roles(recipe)
    teacher, student = load_models(recipe, project)
    data = load_data(recipe, project, None)
    teacher = train_teacher(recipe, teacher, data, project, steps, silent)
    return teacher, None if student is None else train_student(
        recipe, student, [teacher, *load_others(recipe, project)], data, project, steps, silent
    )


# ---- roles ----


def test_both_models_are_made_before_one_is_trained(project):
    recipe = torch_recipe(project, student={"model": "teaching_nets:student", "args": {"depth": 3}})
    with pytest.raises(ModelError, match="student: teaching_nets:student: wrong arguments"):
        load_models(recipe, project)


# ---- training ----


def test_a_file_teaches_as_the_module_did_that_it_was_exported_from(project, tmp_path):
    recipe = torch_recipe(project)
    teacher, _ = taught(recipe, project, tmp_path / "steps")
    data = load_data(recipe, project, None)
    exported = export(teacher.module, data.test, tmp_path / "steps")
    shutil.copy(exported.path, project / "teacher.onnx")
    from_file = torch_recipe(project, teacher={"model": "teacher.onnx"})
    by_module, by_file = (
        distill_recipe(one, project, tmp_path / name) for one, name in ((recipe, "module"), (from_file, "file"))
    )
    assert by_file[0][:2] == ("teacher", "teacher.onnx")
    assert by_file[0][-1] == str(project / "teacher.onnx")
    assert not (tmp_path / "file" / "teacher.safetensors").exists()
    assert by_file[0][3] == by_module[0][3]  # its accuracy
    assert (tmp_path / "file" / "student.safetensors").exists()


def test_several_teachers_teach_together_and_each_is_part_of_what_is_learnt(project, tmp_path, calls):
    steps, recipe = tmp_path / "steps", torch_recipe(project)
    teacher, _ = taught(recipe, project, steps)
    save_weights(teacher.module, project / "other.safetensors")
    other = {"model": "teaching_nets:teacher", "weights": "other.safetensors"}
    together = torch_recipe(project, distillation=QUICK | {"teachers": [other], "combine": "confidence"})
    first = taught(together, project, steps)[1]
    again = taught(together, project, steps)[1]
    assert calls == ["teacher", "student", "student"]
    assert state_hash(first.module) == state_hash(again.module)
    with torch.no_grad():
        next(teacher.module.parameters()).mul_(1.5)
    save_weights(teacher.module, project / "other.safetensors")
    changed = taught(together, project, steps)[1]
    assert calls[3:] == ["student"]
    assert state_hash(changed.module) != state_hash(first.module)
    none = torch_recipe(project, distillation=QUICK | {"teachers": [other | {"share": 0.0}], "teacher_share": 0.0})
    with pytest.raises(TrainingError, match="no teacher has a share"):
        taught(none, project, steps)


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"assistants": [{"model": "teaching_nets:student"}]}, ["teacher", "assistant-1", "student"]),
        ({"generations": 3}, ["teacher", "generation-1", "generation-2", "student"]),
    ],
)
def test_a_student_is_reached_through_others(project, tmp_path, fields, names):
    recipe, steps = torch_recipe(project, distillation=QUICK | {"epochs": 6} | fields), tmp_path / "steps"
    seen = []

    def progress(step, done, total, note=""):
        if step.startswith("train ") and step.removeprefix("train ") not in seen:
            seen.append(step.removeprefix("train "))

    student = train_models(recipe, project, steps, progress)[2]
    assert seen == names
    assert {folder.name.rsplit("-", 1)[0] for folder in steps.iterdir()} >= set(names)
    again = train_models(recipe, project, steps)[2]
    assert again.training["reused"]
    assert state_hash(again.module) == state_hash(student.module)
    direct = train_models(torch_recipe(project), project, steps)[2]
    assert state_hash(direct.module) != state_hash(student.module), "who taught makes a difference"


def test_a_change_of_a_loss_of_the_users_own_teaches_the_student_again(project, tmp_path, calls):
    steps, own = tmp_path / "steps", project / "own_loss.py"
    recipe = torch_recipe(project, distillation=QUICK | {"soft": "own_loss:gap"})
    students = []
    for power in (2, 2, 4):
        own.write_text(f"def gap(student, teacher):\n    return (student - teacher).abs().pow({power}).mean()\n")
        students.append(state_hash(taught(recipe, project, steps)[1].module))
        sys.modules.pop("own_loss", None)
    assert calls == ["teacher", "student", "student"]
    assert students[0] == students[1] != students[2]


def test_a_teacher_is_trained_and_a_student_distilled_once(project, tmp_path, calls):
    recipe, steps = torch_recipe(project), tmp_path / "steps"
    first = taught(recipe, project, steps)
    again = taught(recipe, project, steps)
    assert calls == ["teacher", "student"]
    for model, resumed in zip(first, again, strict=True):
        assert (model.training["reused"], resumed.training["reused"]) == (False, True)
        assert model.training["epochs"] == resumed.training["epochs"] == 2
        assert state_hash(model.module) == state_hash(resumed.module)
        assert model.sha256 == resumed.sha256
        assert not model.module.training
        assert not resumed.module.training
    assert sorted(p.name.split("-")[0] for p in steps.iterdir()) == ["outputs", "student", "teacher"]


def test_a_training_that_is_kept_by_its_step_is_found_again_under_another_name(project, tmp_path, calls):
    recipe, steps = torch_recipe(project), tmp_path / "steps"
    teacher, _ = taught(recipe, project, steps)
    calls.clear()
    data, told = load_data(recipe, project, None), []

    def progress(step, done, total, note=""):
        told.append(step)

    for name in ("pruned-1", "pruned-2"):
        student = load_models(recipe, project)[1]
        train_student(recipe, student, [teacher], data, project, steps, progress, name, step="pruned")
    assert calls == ["student"]
    assert "train pruned-1" in told
    assert len(list(steps.glob("pruned-*"))) == 1


@pytest.mark.parametrize(
    ("change", "repeated"),
    [
        ({"distillation": QUICK | {"temperature": 2.0}}, ["student"]),
        ({"distillation": QUICK | {"epochs": 3}}, ["student"]),
        ({"student": {"model": "teaching_nets:student", "args": {"classes": 3}}}, ["student"]),
        ({"teacher": {"model": "teaching_nets:teacher", "train": QUICK | {"epochs": 3}}}, ["teacher", "student"]),
        ({"seed": 1}, ["teacher", "student"]),
        ({"data": {"train": "train.npz", "test": "test.npz", "validation": 0.2}}, ["teacher", "student"]),
        ({"data": {"train": "train.npz", "test": "test.npz", "calibration": 20}}, []),
        ({"data": {"train": "train.npz"}}, []),
        ({"metric": "top5", "profile": "other", "name": "other", "quantization": {"precision": "fp32"}}, []),
    ],
)
def test_a_change_trains_only_what_depends_on_it(project, tmp_path, calls, change, repeated):
    steps = tmp_path / "steps"
    taught(torch_recipe(project), project, steps)
    calls.clear()
    taught(torch_recipe(project, **change), project, steps)
    assert calls == repeated


def test_other_training_data_train_again_and_other_test_data_do_not(project, tmp_path, calls):
    steps, recipe = tmp_path / "steps", torch_recipe(project)
    taught(recipe, project, steps)
    for name, repeated in (("test", []), ("train", ["teacher", "student"])):
        calls.clear()
        arrays = dict(np.load(project / f"{name}.npz"))
        np.savez(project / f"{name}.npz", x=arrays["x"] + 0.001, y=arrays["y"])
        taught(recipe, project, steps)
        assert calls == repeated


def test_another_source_of_the_networks_trains_again(project, tmp_path, calls):
    steps, recipe = tmp_path / "steps", torch_recipe(project)
    taught(recipe, project, steps)
    calls.clear()
    source = project / "teaching_nets.py"
    source.write_text(source.read_text() + "# the forward pass may be another one\n")
    taught(recipe, project, steps)
    assert calls == ["teacher", "student"]


@pytest.mark.parametrize("resumed", [False, True])
def test_a_head_is_replaced_on_resuming_too(project, tmp_path, calls, resumed):
    steps = tmp_path / "steps"
    head = QUICK | {"head": {"module": "2", "classes": 3}, "freeze": ["0"], "rates": {"2": 2.0}}
    recipe = torch_recipe(
        project, student=None, teacher={"model": "teaching_nets:teacher", "args": {"classes": 7}, "train": head}
    )
    if resumed:
        taught(recipe, project, steps)
    teacher, student = taught(recipe, project, steps)
    assert student is None
    assert teacher.training["reused"] == resumed
    assert teacher.module[2].out_features == 3
    assert teacher.parameters == 4 * 8 + 8 + 8 * 3 + 3


def test_weights_are_fine_tuned_from(project, tmp_path, calls):
    weights = project / "w.safetensors"
    untrained = torch_recipe(project).teacher
    save_weights(load_module(untrained, base=project, seed=9, where="teacher"), weights)
    still = torch_recipe(project, student=None, teacher={"model": "teaching_nets:teacher", "weights": "w.safetensors"})
    teacher, _ = taught(still, project, tmp_path / "steps")
    assert (calls, teacher.training) == ([], None)
    tuned = torch_recipe(
        project, student=None, teacher={"model": "teaching_nets:teacher", "weights": "w.safetensors", "train": QUICK}
    )
    tuned_teacher, _ = taught(tuned, project, tmp_path / "steps")
    assert calls == ["teacher"]
    assert tuned_teacher.sha256 != teacher.sha256


def test_training_that_fails_leaves_nothing(project, tmp_path):
    recipe = torch_recipe(project, teacher={"model": "teaching_nets:teacher", "train": QUICK | {"freeze": ["9"]}})
    with pytest.raises(TrainingError, match="has no module '9'"):
        taught(recipe, project, tmp_path / "steps")
    assert list((tmp_path / "steps").iterdir()) == []


def test_training_needs_labels(project, tmp_path):
    arrays = dict(np.load(project / "train.npz"))
    np.savez(project / "train.npz", x=arrays["x"])
    with pytest.raises(DataError, match="no labels"):
        taught(torch_recipe(project), project, tmp_path / "steps")
    assert leftovers(tmp_path) == []


# ---- models from elsewhere ----


def test_an_onnx_file_is_taken_in_without_what_its_exporter_noted(tmp_path):
    project = write_project(tmp_path / "project")
    proto = onnx.load(project / "model.onnx")
    proto.doc_string = "written at /home/me/secret"
    proto.graph.node[0].metadata_props.add(key="pkg.torch.onnx.stack_trace", value="/home/me/secret/nets.py")
    onnx.save(proto, project / "model.onnx")
    model = onnx_model(make_recipe().teacher, project)
    artifact = import_onnx(model, tmp_path / "steps", onnx_inputs(model, {}))
    assert (artifact.engine, artifact.precision, artifact.model) == ("onnx", "fp32", "model.onnx")
    assert b"secret" not in artifact.path.read_bytes()
    assert (model.name, model.parameters, model.module) == ("model.onnx", None, None)
    assert import_onnx(model, tmp_path / "steps", onnx_inputs(model, {})).folder == artifact.folder


def test_external_data_come_along(tmp_path):
    path = write_model(tmp_path / "project" / "model.onnx", ZEROS)
    proto = onnx.load(path)
    (weights,) = proto.graph.initializer
    weights.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weights), weights.name))
    onnx.save(proto, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    model = onnx_model(make_recipe().teacher, path.parent)
    artifact = import_onnx(model, tmp_path / "steps", onnx_inputs(model, {}))
    assert sorted(artifact.files) == ["model.onnx", "weights.bin"]
    assert (artifact.folder / "weights.bin").read_bytes() == (path.parent / "weights.bin").read_bytes()


def test_open_sizes_are_fixed_where_they_are_given(tmp_path):
    text = """<ir_version: 9, opset_import: ["" : 17]>
    open (float["b", "t", 8] x, float["b", "t", 1] m) => (float["b", "t", 8] y) { y = Mul(x, m) }"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "model.onnx")
    model = onnx_model(make_recipe().teacher, tmp_path)
    assert [spec.shape for spec in onnx_inputs(model, {})] == [("b", "t", 8), ("b", "t", 1)]
    given = onnx_inputs(model, {"x": "f32[1,16,8]"})
    assert [spec.shape for spec in given] == [("batch", 16, 8), ("b", 16, 1)]  # one name is one size
    fixed = import_onnx(model, tmp_path / "steps", given)
    assert [spec.shape for spec in (*fixed.inputs, *fixed.outputs)] == [("b", 16, 8), ("b", 16, 1), ("b", 16, 8)]


def test_an_onnx_file_that_is_none_is_told(tmp_path):
    with pytest.raises(ModelError, match="no such file"):
        onnx_model(make_recipe().teacher, tmp_path)
    (tmp_path / "model.onnx").write_text("{}")
    with pytest.raises(ModelError, match="not a valid ONNX model"):
        onnx_model(make_recipe().teacher, tmp_path)


def test_the_reference_of_an_onnx_file_is_itself_in_fp32(tmp_path):
    project = write_project(tmp_path / "project")
    model = onnx_model(make_recipe().teacher, project)
    data = load_data(make_recipe(), project, onnx_inputs(model, {}), whole_queries=True)
    artifact = import_onnx(model, tmp_path / "steps", specs_of(data.test))
    outputs = run_reference(model, artifact, data.test)
    assert {name: array.shape for name, array in outputs.items()} == {"logits": (64, 3)}
    assert not outputs["logits"].any()


def test_the_reference_of_a_module_is_torchs(project, tmp_path):
    recipe = torch_recipe(project)
    teacher, _ = load_models(recipe, project)
    data = load_data(recipe, project, None)
    outputs = run_reference(teacher, None, data.test)
    with torch.no_grad():
        expected = teacher.module(torch.from_numpy(data.test.tensors(np.arange(48))["input"]))
    assert np.allclose(outputs["output"], expected.numpy(), atol=1e-6)


def test_history_is_kept_beside_the_weights(project, tmp_path):
    taught(torch_recipe(project), project, tmp_path / "steps")
    trained = [*(tmp_path / "steps").glob("teacher-*"), *(tmp_path / "steps").glob("student-*")]
    assert len(trained) == 2
    for folder in trained:
        assert sorted(p.name for p in folder.iterdir()) == ["history.json", "model.safetensors", "step.json"]
        assert json.loads((folder / "history.json").read_text())["best_epoch"] in (1, 2)
        assert "torch" in json.loads((folder / "step.json").read_text())["tools"]
