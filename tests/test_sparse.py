"""Zeros that a recipe asks for: held through training, shipped, and told for what they are worth."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load_file
from tiny_recipe import edgekit


def test_half_of_the_weights_are_zero_and_the_report_says_what_that_gains(project):
    out = project / "out"
    sparse = ("--set", "distillation.sparse={ share = 0.5 }", "--set", "distillation.epochs=6")
    result = edgekit("distill", project, "--out", out, *sparse)
    assert result.exit_code == 0, result.stderr
    assert "student: sparse: 50.0% of 1,272 weights are zero" in result.stdout
    weights = [array for name, array in load_file(out / "student.safetensors").items() if array.ndim > 1]
    zeros = sum(int((array == 0).sum()) for array in weights) / sum(array.size for array in weights)
    assert zeros == pytest.approx(0.5, abs=0.001)
    result = edgekit("deploy", project, "--out", out, *sparse, "--engine", "onnxruntime", "--precision", "fp32")
    assert result.exit_code in (0, 4), result.stderr
    (target,) = json.loads((out / "report.json").read_text())["targets"]
    (row,) = [step for step in target["steps"] if step["name"] == "fp32 without its zeros"]
    assert row["p50_ms"] is not None
    assert "zeros" in row["note"], target["steps"]
    assert row["note"] in (out / "report.md").read_text().replace("\\", "")


def test_two_of_four(project):
    wide = ("--set", "teacher.args={ width = 16 }", "--set", "student.larger=true")
    pattern = ("--set", "distillation.sparse={ pattern = [2, 4] }")
    result = edgekit("distill", project, "--out", project / "out", *wide, *pattern)
    assert result.exit_code == 0, result.stderr
    assert "dense: 0" in result.stdout  # one input channel is no multiple of four
    conv = load_file(project / "out" / "student.safetensors")["4.weight"]
    groups = np.moveaxis(conv, 1, -1).reshape(-1, 4)
    assert ((groups == 0).sum(axis=1) == 2).all()


@pytest.mark.parametrize(
    "given", ["{}", "{ share = 0.5, pattern = [2, 4] }", "{ pattern = [4, 2] }", "{ pattern = [2, 4], over = 0.5 }"]
)
def test_one_of_share_and_pattern_is_told(project, given):
    result = edgekit("distill", project, "--out", project / "out", "--set", f"distillation.sparse={given}")
    assert result.exit_code == 1
    assert "distillation.sparse" in result.stderr
    assert "pattern" in result.stderr
    assert not (project / "out" / ".steps").exists()  # told before anything is trained
