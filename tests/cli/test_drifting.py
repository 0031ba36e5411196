"""``inspect --drift``: what is printed of it."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from tiny_recipe import edgekit

from edgekit.cli.drifting import AROUND, shown
from edgekit.drift.walking import Step

ON_LOCAL = ("inspect", "model.onnx", "--drift", "--target", "local")


@pytest.fixture
def here(tmp_path, monkeypatch, tiny_onnx):
    onnx.save(tiny_onnx("five_convs"), tmp_path / "model.onnx")
    x = np.random.default_rng(0).standard_normal((40, 3, 16, 16)).astype(np.float32)
    x[20:] *= 50  # the test samples are far out of the calibrated range
    np.savez(tmp_path / "calm.npz", x=x[:20])
    np.savez(tmp_path / "wild.npz", x=x[20:])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_first_tensor_that_parts_is_named_and_marked(here):
    done = edgekit(
        *(
            *ON_LOCAL,
            "--engine",
            "onnxruntime",
            "--precision",
            "int8",
            "--calibration",
            "calm.npz",
            "--test",
            "wild.npz",
        )
    )
    assert done.exit_code == 0, done.stderr
    told = " ".join(done.stdout.split())
    assert "onnxruntime int8: onnx -> quantised -> compiled" in told
    assert "quantised: 'input' (input) is the first of" in told
    assert "(floor 30 dB), range -" in told
    marked = [row for row in done.stdout.splitlines() if row.rstrip().endswith("<-")]
    assert len(marked) == 1
    assert marked[0].split()[:2] == ["input", "quantised"]
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_all_of_it_is_in_json(here):
    done = edgekit(*ON_LOCAL, "--engine", "openvino", "--precision", "fp32", "--json")
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["model"], told["target"]) == ("model.onnx", "local")
    (drift,) = told["drifts"]
    assert (drift["plan"], drift["stages"], drift["first"]) == ("openvino fp32", ["onnx", "compiled"], {})
    assert {"tensor", "op", "stage", "before", "db", "reference_db", "range", "before_range", "parts"} == set(
        drift["steps"][0]
    )


def test_where_nothing_parts_it_says_so(here):
    done = edgekit(*ON_LOCAL, "--engine", "onnxruntime", "--precision", "fp32")
    assert done.exit_code == 0, done.stderr
    assert "compiled: none of" in done.stdout
    assert "<-" not in done.stdout


def test_a_recipe_names_its_target_itself(project):
    done = edgekit("inspect", project, "--drift", "--set", "teacher.model=nowhere:net")
    assert done.exit_code == 1
    assert "nowhere" in done.stderr


def test_a_model_needs_a_target(here):
    done = edgekit("inspect", "model.onnx", "--drift")
    assert done.exit_code == 2
    assert "--drift needs --target NAME" in done.stderr


@pytest.mark.parametrize("option", [("--target", "local"), ("--input", "x=f32[1]"), ("--set", "a=1"), ("--out", "x")])
def test_options_of_drift_alone_are_refused_without_it(here, option):
    done = edgekit("inspect", "model.onnx", *option)
    assert done.exit_code == 2
    assert f"{option[0]} goes with --drift" in done.stderr


def step(i, stage="quantised", db=40.0):
    return Step(
        tensor=f"t{i}",
        op="Conv",
        stage=stage,
        before="onnx",
        db=db,
        reference_db=db,
        range=(0.0, 1.0),
        before_range=(0.0, 1.0),
    )


def test_of_many_steps_those_around_the_first_the_lowest_and_the_last_are_shown():
    steps = [step(i, db=30.0 if i == 50 else 40.0) for i in range(100)]
    assert [s.tensor for s in shown(steps, [])] == ["t50", "t99"]
    around = [f"t{i}" for i in range(20 - AROUND, 20 + AROUND + 1)]
    assert [s.tensor for s in shown(steps, [steps[20]])] == [*around, "t50", "t99"]
    assert shown([], []) == []
