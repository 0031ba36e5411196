import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fake_line import leftovers, make_recipe, make_samples, quick_profile, snapshot, write_npz, write_project

from edgekit.metrics import METRICS
from edgekit.pipeline import deploy
from edgekit.runtime import verify_bundle
from edgekit.steps import locked


@pytest.fixture(autouse=True)
def _no_gains(monkeypatch):
    """What each step gained is measured in a step of its own, which these tests need not repeat."""
    monkeypatch.setattr("edgekit.pipeline.measure_gains", lambda *_: [])


@pytest.fixture
def project(tmp_path):
    return write_project(tmp_path / "project")


@pytest.fixture
def run(project, tmp_path):
    """Deploys the model of zeros."""

    def go(**fields):
        return deploy(make_recipe(**fields), project, tmp_path / "run")

    return go


def proof_of(report):
    return report["targets"][0]["candidates"][0]["proof"]


@pytest.fixture
def steps_made(monkeypatch):
    """The names of the steps that are made, not found."""
    import edgekit.making
    import edgekit.references
    import edgekit.teaching
    from edgekit.steps import run_step

    made = []

    def watching(root, name, key, make):
        return run_step(root, name, key, lambda folder: made.append(name) or make(folder))

    for module in (edgekit.making, edgekit.references, edgekit.teaching):
        monkeypatch.setattr(module, "run_step", watching)
    return made


# References on the test samples, and on those that auto chooses by.
ALL = ["import", "references", "references", "compile", "quantize", "compile", "measure"]


@pytest.mark.parametrize(
    ("change", "profile", "repeated"),
    [
        ({}, {}, []),
        ({}, {"size_mb": 9.0, "max_drop_points": 1.0}, []),
        ({"metric": "top5"}, {}, []),
        ({"quantization": {"precision": "fp32"}}, {}, ["measure"]),
        # Other calibration samples; the null engine makes the same of them.
        ({"data": {"train": "train.npz", "test": "test.npz", "calibration": 20}}, {}, ["quantize"]),
        ({"data": {"train": "train.npz"}}, {}, ["references", "measure"]),
        (
            {"name": "other", "data": {"train": "train.npz", "test": "test.npz", "labels": list("abc")}},
            {},
            ["references", "references", "quantize"],
        ),
    ],
)
def test_a_change_redoes_only_what_depends_on_it(run, catalogue, steps_made, change, profile, repeated):
    catalogue()
    run()
    assert steps_made == ALL
    steps_made.clear()
    catalogue(profile=quick_profile(**profile))
    run(**change)
    assert steps_made == repeated


def test_other_test_data_are_judged_anew(run, catalogue, steps_made, project):
    catalogue()
    first = proof_of(run())
    steps_made.clear()
    write_npz(project / "test.npz", make_samples(66, seed=9))
    again = proof_of(run())
    assert steps_made == ["references", "measure"]
    assert (first["samples"], again["samples"]) == (64, 66)


def test_another_metric_scores_anew(run, catalogue, steps_made, project, monkeypatch):
    catalogue()
    scores = [proof_of(run())["artifact"]]
    steps_made.clear()
    scores.append(proof_of(run(metric="top5"))["artifact"])
    # The same name may stand for another function the next day.
    monkeypatch.setitem(METRICS, "accuracy", lambda outputs, targets: np.full(len(targets), 0.25))
    scores.append(proof_of(run())["artifact"])
    assert scores == [42 / 64, 1.0, 0.25]
    assert steps_made == []


def test_progress_names_what_is_going_on(project, tmp_path, catalogue):
    catalogue()
    told = []
    deploy(make_recipe(), project, tmp_path / "run", progress=lambda step, done, total, note="": told.append(step))
    assert list(dict.fromkeys(told)) == [
        *("run teacher and student", "auto", "check null fp32"),
        *("quantise for null", "check null int8", "load", "measure"),
    ]


# ---- a killed run goes on ----

SCRIPT = """
import json, os, signal, sys
from pathlib import Path

import edgekit.bundle, edgekit.gains, edgekit.making, edgekit.pipeline, edgekit.profiling.loads, edgekit.references
import edgekit.steps, edgekit.teaching
from fake_line import fake_target, make_recipe, quick_profile

project, out, victim = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
run_step, replace_folder, made = edgekit.steps.run_step, edgekit.steps.replace_folder, []

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def watching(root, name, key, make):
    def making(folder):
        make(folder)
        made.append(name)
        if name == victim:
            die()  # all is written, nothing is renamed
    return run_step(root, name, key, making)

def replacing(new, final):
    if victim == "between the renames":
        os.replace(final, final.parent / (edgekit.steps.OLD + final.name))
    if victim in ("bundle", "between the renames"):
        die()
    replace_folder(new, final)

def writing(*args, **kwargs):
    if victim == "report":
        die()
    return written(*args, **kwargs)

for module in (edgekit.making, edgekit.references, edgekit.teaching):
    module.run_step = watching
edgekit.bundle.replace_folder = replacing
written, edgekit.pipeline.to_markdown = edgekit.pipeline.to_markdown, writing
edgekit.pipeline.load_target = lambda name, folders: fake_target()
edgekit.pipeline.load_profile = lambda name, folders: quick_profile()
edgekit.gains.SECONDS, edgekit.profiling.loads.MOST_S = 0.01, 0.0  # as in the tests' own process
report = edgekit.pipeline.deploy(make_recipe(quantization={"precision": "int8"}), project, out)
print(json.dumps({"made": made, "id": report["targets"][0]["bundle"]["id"]}))
"""


def run_script(project, out, victim):
    environment = dict(os.environ) | {"PYTHONPATH": str(Path(__file__).parent)}
    command = [sys.executable, "-c", SCRIPT, str(project), str(out), victim]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    """A run that nobody disturbed: its folder, and what it made."""
    folder = tmp_path_factory.mktemp("whole")
    project = write_project(folder / "project")
    done = run_script(project, folder / "run", "nobody")
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


STEPS = ["import", "references", "quantize", "compile", "measure"]
GAINS = ["compile", "measure"]  # what each step gained: the fp32 model beside what ships, after the bundle


def test_a_run_that_nobody_disturbed(whole_run):
    assert whole_run[1]["made"] == STEPS + GAINS


@pytest.mark.parametrize(
    "victim", [*(pytest.param(step, marks=pytest.mark.slow) for step in STEPS), "bundle", "report"]
)
def test_a_run_killed_at_any_step_goes_on_from_there(whole_run, tmp_path, victim):
    project, out = whole_run[0] / "project", tmp_path / "run"
    killed = run_script(project, out, victim)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (out / "report.md").exists()
    again = run_script(project, out, "nobody")
    assert again.returncode == 0, again.stderr
    found = json.loads(again.stdout)
    assert found["id"] == whole_run[1]["id"]
    left = {"bundle": GAINS, "report": []}
    assert found["made"] == (left[victim] if victim in left else STEPS[STEPS.index(victim) :] + GAINS)
    assert leftovers(out) == []
    assert verify_bundle(out / "fake").passed


@pytest.mark.parametrize("victim", ["bundle", "between the renames", "report"])
def test_an_older_bundle_survives_a_kill_while_it_is_replaced(whole_run, tmp_path, victim):
    project, out = whole_run[0] / "project", tmp_path / "run"
    shutil.copytree(whole_run[0] / "run", out)
    before = snapshot(out / "fake")
    assert run_script(project, out, victim).returncode == -signal.SIGKILL
    with locked(out):  # as the next run does first
        assert leftovers(out) == []
        assert snapshot(out / "fake").keys() == before.keys()
        assert verify_bundle(out / "fake").passed
