"""Training in int8 as a part of a recipe: a candidate beside the others, made in steps that are found again."""

from __future__ import annotations

import dataclasses
import shutil
import sys

import numpy as np
import pytest
from fake_line import (
    elsewhere,
    fake_target,
    fp32_artifact,
    make_task,
    quick_profile,
    torch_recipe,
    write_torch_project,
)
from safetensors.numpy import load_file

from edgekit.artifact import load_artifact
from edgekit.candidate import prepare
from edgekit.errors import EngineError, ModelError
from edgekit.pipeline import Choices, deploy
from edgekit.quantization.schemes import Plan
from edgekit.reporting.report import load_report

CROSSING = (
    "test_what_was_trained_is_a_candidate_and_the_report_says_how",
    "test_a_second_run_finds_every_step_again",
)
LEARNED = {"epochs": 8, "batch_size": 16, "learning_rate": 0.05}
QAT = {"epochs": 2, "batch_size": 16, "learning_rate": 0.005}


@pytest.fixture(autouse=True)
def _no_gains(monkeypatch):
    monkeypatch.setattr("edgekit.pipeline.measure_gains", lambda *_: [])


@pytest.fixture(scope="module")
def distilled(tmp_path_factory):
    """The tiny networks in float, deployed: steps that every test finds again."""
    project = write_torch_project(tmp_path_factory.mktemp("distilled") / "int8_nets")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgekit.pipeline.measure_gains", lambda *_: [])
        patch.setattr("edgekit.pipeline.load_target", lambda name, folders: fake_target())
        patch.setattr("edgekit.pipeline.load_profile", lambda name, folders: quick_profile())
        recipe = torch_recipe(project, distillation=LEARNED)
        deploy(recipe, project, project.parent / "run", Choices(precision="int8"))
    yield project.parent
    sys.modules.pop("int8_nets", None)


@pytest.fixture(autouse=True)
def _no_crossing(request, monkeypatch):
    """The null engine computes nothing: where it is not what is tested, the float model stands in for the trained."""

    def stand_in(module, sha256, samples, out):
        (made,) = [load_artifact(path) for path in out.glob("export-*") if "int8" not in path.name][:1]
        return dataclasses.replace(made, precision="int8")

    if request.function.__name__ not in CROSSING:
        monkeypatch.setattr("edgekit.trained_int8.export_trained", stand_in)


@pytest.fixture
def run(distilled, tmp_path, catalogue):
    """Deploys the tiny networks on the null engine; the fields are the recipe's."""
    catalogue()
    project = distilled / "int8_nets"

    def go(precision="int8", qat=QAT, out="run", progress=None, base=project, **fields):
        if not (tmp_path / out).exists():
            shutil.copytree(distilled / "run", tmp_path / out)
            shutil.rmtree(tmp_path / out / "fake")
        sys.modules.pop("int8_nets", None)
        recipe = torch_recipe(base, qat=qat, **{"distillation": LEARNED} | fields)
        more = {} if progress is None else {"progress": progress}
        return deploy(recipe, base, tmp_path / out, Choices(precision=precision), **more)

    return go


def plans(report):
    return [candidate["plan"] for candidate in report["targets"][0]["candidates"]]


def trained_weights(folder):
    (step,) = folder.glob(".steps/qat-*/model.safetensors")
    return load_file(step)


def test_what_was_trained_is_a_candidate_and_the_report_says_how(run, tmp_path):
    report = run()
    assert plans(report) == ["null int8", "null int8 qat"]
    (told,) = report["qat"]
    assert (told["targets"], told["weight_bits"], told["method"], told["teacher"]) == (["fake"], 8, "minmax", "student")
    assert (told["epochs"], len(told["scores"]), told["reused"]) == (2, 2, False)
    assert told["scheme"].startswith("u8s8")
    assert told["score"] >= told["first_score"]
    assert told["said"].startswith("trained in int8 for 2 epochs with 8-bit weights, taught by its float self")
    (trained,) = [c for c in report["targets"][0]["candidates"] if c["plan"].endswith("qat")]
    assert trained["scheme"] == told["scheme"]
    assert trained["failure"] is None
    assert load_report(tmp_path / "run")["qat"] == report["qat"]
    assert told["said"] in (tmp_path / "run" / "report.md").read_text().replace("\\", "")


def test_why_it_ships_says_what_was_decided(run, monkeypatch):
    monkeypatch.setattr("edgekit.rivals.shown_faster", lambda *_: False)
    target = run()["targets"][0]
    assert target["why"].startswith("null int8 qat: ")
    assert "; null int8 is not shown to be faster or better, and was not trained" in target["why"]
    assert [c["plan"] for c in target["candidates"] if c["shipped"]] == ["null int8 qat"]


def test_auto_tries_it_on_the_samples_that_plans_are_chosen_on(run):
    report = run("auto")
    assert plans(report)[-1] == "null int8 qat"
    assert [trial["plan"] for trial in report["targets"][0]["trials"]][-1] == "null int8 qat"


def test_a_second_run_finds_every_step_again(run, tmp_path):
    first = run()
    steps = sorted(path.name for path in (tmp_path / "run" / ".steps").iterdir())
    again = run()
    assert again["qat"][0] == first["qat"][0] | {"reused": True}
    assert sorted(path.name for path in (tmp_path / "run" / ".steps").iterdir()) == steps


def test_one_that_was_killed_goes_on_to_the_same_weights(run, tmp_path):
    class Killed(BaseException):
        pass

    def kill(step, done, total, note=""):
        if step == "train qat" and done == 8:  # in the second epoch of six steps each
            raise Killed

    run(out="whole")
    with pytest.raises(Killed):
        run(out="killed", progress=kill)
    assert list((tmp_path / "killed").glob(".steps/qat-*.checkpoint"))
    seen = []
    run(out="killed", progress=lambda step, done, total, note="": seen.append((step, done)))
    steps = [done for step, done in seen if step == "train qat"]
    assert min(steps) == 7
    whole, killed = trained_weights(tmp_path / "whole"), trained_weights(tmp_path / "killed")
    assert whole.keys() == killed.keys()
    assert all(np.array_equal(whole[name], killed[name]) for name in whole)
    assert "0.layer.weight" in whole


def test_a_rate_that_destroys_it_leaves_what_calibration_gave(run, tmp_path):
    wild = QAT | {"learning_rate": 1e3, "optimizer": "sgd", "weight_decay": 0.0, "warmup": 0.0, "epochs": 1}
    (told,) = run(qat=wild)["qat"]
    assert told["best_epoch"] == 0
    assert told["score"] == told["first_score"] > told["scores"][0]
    assert "in vain: no epoch did better" in told["said"]
    kept = trained_weights(tmp_path / "run")
    assert all((values == 1).all() for name, values in kept.items() if name.endswith(".ratio"))


def test_a_training_that_diverges_is_told_and_what_was_calibrated_ships(run, tmp_path):
    wild = QAT | {"learning_rate": 1e38, "optimizer": "sgd", "warmup": 0.0}
    report = run(qat=wild)
    assert "qat" not in report
    calibrated, trained = report["targets"][0]["candidates"]
    assert (calibrated["plan"], calibrated["failure"]) == ("null int8", None)
    assert trained["plan"] == "null int8 qat"
    assert "qat: epoch 1, batch" in trained["failure"]
    assert "lower learning_rate" in trained["failure"]
    assert (tmp_path / "run" / "fake" / "manifest.json").is_file()
    assert "qat: epoch 1, batch" in (tmp_path / "run" / "report.md").read_text()


def test_the_recipes_teacher_may_teach_it(run):
    (told,) = run(qat=QAT | {"teacher": "teacher"})["qat"]
    assert told["teacher"] == "teacher"
    assert "taught by the teacher" in told["said"]


def test_the_deployed_model_may_be_the_teacher_itself(run):
    (told,) = run(student=None, qat=QAT | {"soft_weight": 0.5})["qat"]
    assert told["epochs"] == 2


def test_without_labels_it_learns_from_its_teacher_alone(run, tmp_path):
    project = write_torch_project(tmp_path / "int8_nets")
    for name in ("train", "test"):
        with np.load(project / f"{name}.npz") as arrays:
            x = arrays["x"]
        np.savez(project / f"{name}.npz", x=x)
    given = {"model": "int8_nets:teacher", "weights": "factory"}
    (told,) = run(base=project, teacher=given, distillation=LEARNED | {"soft_weight": 1.0})["qat"]
    assert told["epochs"] == 2


def test_adversarial_and_averaged_training_work_on_the_traced_copy(run):
    more = {"adversarial": {"attack": "fgsm", "epsilon": 0.05}, "ema": 0.9, "freeze": ["0"], "rates": {"2": 0.5}}
    (told,) = run(qat=QAT | more)["qat"]
    assert told["epochs"] == 2


def test_zeros_of_the_student_stay_zero(run, tmp_path):
    run(distillation=LEARNED | {"sparse": {"share": 0.5}})
    student = max((tmp_path / "run").glob(".steps/student-*/model.safetensors"), key=lambda p: p.stat().st_mtime)
    before, after = load_file(student), trained_weights(tmp_path / "run")
    for name in ("0", "2"):
        zeros = before[f"{name}.weight"] == 0
        assert zeros.any()
        assert (after[f"{name}.layer.weight"][zeros] == 0).all()
        assert (after[f"{name}.layer.weight"] != before[f"{name}.weight"]).any()


def test_another_precision_or_engine_trains_nothing_and_says_so(run):
    report = run("fp32")
    assert "qat" not in report
    assert report["targets"][0]["why"].endswith("; nothing was trained in int8: fp32 was asked for")


def test_auto_trains_nothing_for_a_target_that_cannot_be_measured(run, catalogue, tmp_path):
    catalogue(elsewhere())
    report = run("auto", targets=["elsewhere"])
    assert "qat" not in report
    assert "auto does not choose int8 that cannot be measured" in report["targets"][0]["why"]
    assert [entry["targets"] for entry in run("int8", targets=["elsewhere"])["qat"]] == [["elsewhere"]]


def test_targets_of_one_dialect_share_a_training(run, catalogue, tmp_path):
    catalogue(fake_target(), fake_target("other"))
    report = run(targets=["fake", "other"])
    assert [told["targets"] for told in report["qat"]] == [["fake", "other"]]
    assert len(list((tmp_path / "run").glob(".steps/qat-*/"))) == 1


def test_a_plan_that_was_trained_takes_no_float_model(tmp_path):
    plan = Plan(engine="null", precision="int8", method="qat")
    with pytest.raises(ModelError, match="null int8 qat is what a training ends in"):
        prepare(fp32_artifact(tmp_path / "fp32"), plan, make_task(), tmp_path)
    other = Plan(engine="tensorrt", precision="int8", method="qat")
    with pytest.raises(EngineError, match=r"engine 'tensorrt' has no method 'qat'(.|\n)*onnxruntime and openvino have"):
        prepare(fp32_artifact(tmp_path / "again"), other, make_task(), tmp_path)
