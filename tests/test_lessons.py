"""Trainings of a recipe: killed and gone on with, on several processes, in stages, from stored outputs."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from tiny_recipe import edgekit, process_environment, stripes, write_project

from edgekit.errors import SpecError
from edgekit.recipe import load_recipe

LONG = ("--set", "distillation.epochs=20", "--set", "teacher.train.epochs=1")


def weights(out: Path, name: str = "student") -> dict[str, np.ndarray]:
    return load_file(out / f"{name}.safetensors")


def equal(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> bool:
    return all(np.array_equal(first[name], second[name]) for name in first)


def test_a_training_killed_with_9_goes_on_to_the_same_weights(project):
    command = [sys.executable, "-m", "edgekit", "distill", str(project), *LONG, "--out"]
    whole, killed = project / "whole", project / "killed"
    done = edgekit("distill", project, *LONG, "--out", whole)
    assert done.exit_code == 0, done.stderr
    with subprocess.Popen([*command, str(killed)], env=process_environment(), stderr=subprocess.DEVNULL) as process:
        while not list(killed.glob(".steps/student-*.checkpoint")):
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert not (killed / "student.safetensors").exists()
    again = edgekit("distill", project, *LONG, "--out", killed)
    assert again.exit_code == 0, again.stderr
    assert "train student 22/" not in again.stderr  # the first epoch was not made again
    assert equal(weights(killed), weights(whole))
    assert not list(killed.glob(".steps/*.checkpoint"))


def test_two_processes_train_one_student(project, monkeypatch):
    out = project / "two"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*torchrun, "-m", "edgekit", "distill", str(project), "--out", str(out)],
        capture_output=True,
        text=True,
        env=process_environment(),
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("student.safetensors") == 1
    (step,) = out.glob(".steps/student-*")
    assert json.loads((step / "step.json").read_text())["processes"] == 2
    assert json.loads((step / "history.json").read_text())["scores"][-1] > 0.5
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert edgekit("distill", project, "--out", out).exit_code == 0
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    refused = edgekit("deploy", project, "--out", out)
    assert refused.exit_code == 1
    assert "deploy measures latency, so it runs in one process" in refused.stderr


def test_the_teachers_answers_are_written_once_and_read_by_every_student(project):
    out = project / "out"
    assert edgekit("distill", project, "--out", out).exit_code == 0
    (outputs,) = out.glob(".steps/outputs-*")
    assert edgekit("distill", project, "--out", out, "--set", "distillation.learning_rate=0.01").exit_code == 0
    assert list(out.glob(".steps/outputs-*")) == [outputs]
    fresh = project / "fresh"
    assert edgekit("distill", project, "--out", fresh, "--set", "distillation.cache=false").exit_code == 0
    assert not list(fresh.glob(".steps/outputs-*"))
    changed = ("--set", "distillation.augmentation.noise=0.1")
    assert edgekit("distill", project, "--out", fresh, *changed).exit_code == 0
    assert not list(fresh.glob(".steps/outputs-*"))
    views = ("--set", "distillation.augmentation.views=1")
    assert edgekit("distill", project, "--out", fresh, *changed, *views).exit_code == 0
    assert len(list(fresh.glob(".steps/outputs-*"))) == 1


def test_a_damaged_cache_is_told(project):
    out = project / "out"
    assert edgekit("distill", project, "--out", out).exit_code == 0
    shard = next(out.glob(".steps/outputs-*/*.npy"))
    shard.write_bytes(shard.read_bytes()[:-4] + b"\1\2\3\4")
    result = edgekit("distill", project, "--out", out, "--set", "distillation.learning_rate=0.01")
    assert result.exit_code == 1
    assert "the stored outputs are damaged" in result.stderr


def test_a_folder_of_outputs_teaches_and_is_what_the_drop_is_counted_from(project):
    folder = project / "answers"
    folder.mkdir()
    for name, count, seed in (("train", 384, 0), ("test", 96, 1)):
        labels = stripes(count, seed)[1]
        np.save(folder / f"{name}.npy", (8.0 * np.eye(3)[labels]).astype(np.float32))
    recipe = (project / "edgekit.toml").read_text()
    start, end = recipe.index("[teacher]"), recipe.index("[student]")
    (project / "edgekit.toml").write_text(recipe[:start] + '[teacher]\nmodel = "answers/"\n' + recipe[end:])
    result = edgekit("distill", project, "--out", project / "out", "--set", "distillation.epochs=6")
    assert result.exit_code == 0, result.stderr
    (row,) = [line for line in result.stdout.splitlines() if "answers/" in line and "teacher" in line]
    assert " 100%" in row or "100.0" in row, result.stdout
    (folder / "test.npy").unlink()
    result = edgekit("distill", project, "--out", project / "out", "--set", "distillation.epochs=6")
    assert result.exit_code == 1
    assert "store the teacher's logits for the test set too" in result.stderr


STAGES = """
[[distillation.stages]]
soft_weight = 1.0
epochs = 1
data = "more.npz"
[[distillation.stages]]
epochs = 2
freeze = ["0"]
"""


def test_stages_go_on_with_the_same_weights_each_with_its_own_data_and_frozen_parts(project):
    images, _ = stripes(64, seed=9)
    np.savez(project / "more.npz", x=images)  # without labels
    with (project / "edgekit.toml").open("a") as file:
        file.write(STAGES)
    out = project / "out"
    result = edgekit("distill", project, "--out", out)
    assert result.exit_code == 0, result.stderr
    first, second = (load_file(next(out.glob(f".steps/student-stage-{n}-*")) / "model.safetensors") for n in (1, 2))
    assert np.array_equal(first["0.weight"], second["0.weight"])
    assert not np.array_equal(first["9.weight"], second["9.weight"])
    assert equal(weights(out), second)
    settings = [json.loads(next(out.glob(f".steps/student-stage-{n}-*/step.json")).read_text()) for n in (1, 2)]
    # What is as it always was is not in the key.
    assert [s["settings"].get("soft_weight") for s in settings] == [1.0, None]
    assert settings[0]["data"] != settings[1]["data"]


@pytest.mark.parametrize(
    ("stage", "message"),
    [("epochz = 3", r"stages\[0\]"), ("epochs = 0", r"stages\[0\]\.epochs"), ("stages = []", r"stages\[0\]")],
)
def test_a_stage_that_is_wrong_is_told_before_anything_is_trained(project, stage, message):
    with (project / "edgekit.toml").open("a") as file:
        file.write(f"[[distillation.stages]]\n{stage}\n")
    with pytest.raises(SpecError, match=message):
        load_recipe(project)


def test_a_stage_must_not_train_on_the_test_set(project):
    with (project / "edgekit.toml").open("a") as file:
        file.write('[[distillation.stages]]\ndata = "test.npz"\n')
    result = edgekit("distill", project, "--out", project / "out")
    assert result.exit_code == 1
    assert "training samples are in the test set" in result.stderr


def test_peers_are_part_of_what_a_student_depends_on(project):
    out = project / "out"
    with (project / "edgekit.toml").open("a") as file:
        file.write('[[distillation.peers]]\nmodel = "tinynets:student"\n')
    assert edgekit("distill", project, "--out", out).exit_code == 0
    alone = project / "alone"
    write_project(alone)
    assert edgekit("distill", alone, "--out", alone / "out").exit_code == 0
    assert not equal(weights(out), weights(alone / "out"))
