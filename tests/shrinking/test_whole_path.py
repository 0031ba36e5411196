"""Distilled, pruned and trained in int8 by one recipe and one ``deploy``."""

from __future__ import annotations

import re

import pytest
from tiny_pruning import BLOCKS_ALONE, write_striped
from tiny_recipe import edgekit

from edgekit.artifact import read_json
from edgekit.runtime.manifest import read_manifest

QUICK = "epochs = 1\nbatch_size = 8\nlearning_rate = 0.002\n"
STUDENT = f"[student]\ndepth = 0.75\n[distillation]\n{QUICK}[qat]\n{QUICK}[pruning]\n"
MET, MISSED, UNDECIDED = 0, 3, 4


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """The recipe deployed once."""
    project = write_striped(tmp_path_factory.mktemp("whole") / "project")
    recipe = BLOCKS_ALONE.replace("[pruning]\n", STUDENT).replace('precision = "fp32"', 'precision = "int8"')
    (project / "edgekit.toml").write_text(recipe)
    ran = edgekit("deploy", project, "--engine", "onnxruntime", "--out", project / "out")
    assert ran.exit_code in (MET, MISSED, UNDECIDED), ran.stderr
    trained = re.findall(r"^train (\S+): 1/", ran.stderr, re.M)
    assert trained[:3] == ["teacher", "student", "pruned-1"]
    assert trained[-1] == "qat"
    assert all(name.startswith("pruned-") for name in trained[3:-1]), "a step more where noise hid that one is enough"
    return project / "out"


@pytest.fixture(scope="module")
def report(out):
    return read_json(out / "report.json")


def test_each_step_has_its_gain_in_the_report(report):
    (target,) = report["targets"]
    names = [step["name"] for step in target["steps"]]
    assert names[:3] == ["teacher", "unpruned student", "fp32 student"]
    assert "int8 after training" in names
    assert "onnxruntime int8" in names
    parameters = [step["parameters"] for step in target["steps"]]
    assert parameters[0] > parameters[1] > parameters[2]
    assert all(step["score"] is not None and step["p50_ms"] is not None for step in target["steps"])


def test_how_it_was_pruned_and_trained_is_told(report):
    kept = [step["number"] for step in report["pruning"]["steps"] if step["kept"]]
    assert report["pruning"]["best"] == kept[-1] >= 1
    assert report["qat"][0]["targets"] == ["local"]
    assert report["models"]["teacher"]["parameters"] > report["models"]["student"]["parameters"]


def test_the_bundle_is_traced_to_its_teacher_through_every_student(out):
    kinds = [parent.kind for parent in read_manifest(out / "local").parents]
    order = [kind for kind in kinds if kind in ("teacher", "unpruned", "student", "fp32")]
    assert order == ["teacher", "unpruned", "student", "fp32"]


def test_the_page_tells_of_all_of_it(out):
    page = (out / "report.html").read_text()
    for text in ("Pruned to a latency budget", "unpruned student", "int8 after training"):
        assert text in page


def test_distilling_alone_says_what_it_leaves_out(out):
    ran = edgekit("distill", out.parent, "--out", out)  # what was trained there is found again
    assert ran.exit_code == 0, ran.stderr
    assert ran.stdout.rstrip().endswith("# does [pruning] and [qat] too, which distilling leaves out")
