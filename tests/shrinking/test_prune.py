"""``edgekit prune`` on a real engine: a residual network that is brought below a share of its own latency."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from tiny_pruning import BLOCKS_ALONE, write_striped
from tiny_recipe import edgekit

from edgekit.artifact import read_json
from edgekit.models import load_weights

ENGINE = ["--engine", "onnxruntime"]
MET, MISSED, NOT_MEASURED = 0, 3, 4
KEPT = r"nothing of Net can be left out(.|\n)*blocks.0 stays: it goes with blocks, which is in keep;.*head is in keep"
WIDER = r"nothing of Net can be left out(.|\n)*a multiple of 128 channels is more than all 64(.|\n)*a smaller multiple"


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    return write_striped(tmp_path_factory.mktemp("pruned") / "project")


@pytest.fixture(scope="module")
def ran(project):
    """The recipe pruned once."""
    return edgekit("prune", project, *ENGINE, "--out", project / "out")


@pytest.fixture(scope="module")
def report(project, ran):
    assert ran.exit_code in (MET, MISSED), ran.stderr  # the machine may be too busy for its budget
    return read_json(project / "out" / "pruning.json")


def test_blocks_go_and_every_step_that_is_kept_is_shown_to_be_faster(report):
    kept = [step for step in report["steps"][1:] if step["kept"]]
    assert kept, [step["why"] for step in report["steps"]]
    for step in kept:
        assert step["ratio"]["high"] < 1
        assert step["drop"]["n"] == report["samples"]
        assert step["epochs"] == 2
    macs = [step["macs"] for step in report["steps"] if step["kept"]]
    assert macs == sorted(macs, reverse=True)
    assert kept[-1]["parameters"] < report["steps"][0]["parameters"]
    assert any("left out" in said or "channels" in said for said in kept[0]["changes"])


def test_the_table_was_measured_and_says_what_a_block_saves(report):
    rows = report["table"]["rows"]
    assert report["table"]["source"] == "measured"
    removed = next(row for row in rows if row["move"] == "removed")
    assert removed["members"] >= 3
    assert removed["shown"]
    assert 0 < removed["low_ms"] <= removed["saved_ms"] <= removed["high_ms"] < report["table"]["whole_ms"]


def test_it_shows_a_table_within_80_columns_and_says_where_all_is(ran, report, project):
    assert max(len(line) for line in ran.stdout.splitlines() if str(project) not in line) <= 80
    assert f"picture: {project / 'out' / 'pruning.html'}" in ran.stdout.replace("\n", "")
    deploy = f"next: edgekit deploy {project} --engine onnxruntime --out {project / 'out'}"
    assert deploy in ran.stdout  # with the same choices, or another pruning would ship
    assert re.search(r"moves? ", ran.stderr)  # what is about to be measured is forecast


def test_every_step_can_be_had_again_from_its_file(report, project):
    from edgekit._lookup import importable
    from edgekit.pruning.changes import apply_change, from_json

    step = next(step for step in report["steps"][1:] if step["kept"])
    changes = json.loads((project / "out" / "pruned" / f"step-{step['number']}.json").read_text())
    with importable(project):
        from stripednets import Net
    module, inputs = Net().eval(), {"input": torch.zeros(2, 1, 12, 12)}
    for change in changes:
        apply_change(module, inputs, from_json(change))
    load_weights(module, project / "out" / "pruned" / f"step-{step['number']}.safetensors", where="test")
    assert sum(p.numel() for p in module.parameters()) == step["parameters"]


def test_once_more_it_trains_and_measures_nothing(report, project, ran):
    again = edgekit("prune", project, *ENGINE, "--out", project / "out")
    assert again.exit_code == ran.exit_code
    assert "train pruned" not in again.stderr
    found = read_json(project / "out" / "pruning.json")
    assert {**found, "seconds": 0} == {**report, "seconds": 0}


def test_deploy_ships_what_was_pruned_and_trains_nothing_again(report, project):
    deployed = edgekit("deploy", project, *ENGINE, "--out", project / "out")
    assert deployed.exit_code in (MET, MISSED, NOT_MEASURED), deployed.stderr
    assert "train pruned" not in deployed.stderr
    found = read_json(project / "out" / "report.json")
    best = report["steps"][report["best"]]
    assert found["models"]["student"]["parameters"] == best["parameters"]
    assert not found["same_model"]
    assert found["pruning"]["best"] == report["best"]
    assert found["targets"][0]["steps"][0]["name"] == "teacher"


def test_elsewhere_a_roofline_takes_the_place_of_measuring_and_says_so(project, ran, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(project / "out", out)
    shown = edgekit("prune", project, "--target", "raspberry-pi-4", *ENGINE, "--json", "--out", out)
    assert shown.exit_code == NOT_MEASURED, shown.output
    found = json.loads(shown.stdout)
    assert found["estimate"] == "estimate: roofline"
    assert all(step["estimated"] and step["ratio"] is None for step in found["steps"])
    assert found["steps"][-1]["p50_ms"] <= 1.01 * found["budget_ms"]


def test_a_table_alone_is_measured_for_a_student_that_is_pruned_elsewhere(project, ran, report, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(project / "out", out)
    (out / "latency_table.json").unlink()
    limits = ["--profile", "impossible.toml"]  # that no model meets: what a table is for is not asked here
    shown = edgekit("prune", project, *ENGINE, *limits, "--table-only", "--out", out)
    assert shown.exit_code == MET, shown.output
    assert "removed" in shown.output
    assert read_json(out / "latency_table.json")["rows"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--ratio", "1.5"], r"--ratio: .*ratio"),
        (["--budget", "-1"], r"--budget: .*budget_ms"),
        (["--budget", "1e-9"], r"budget_ms is below the clock's resolution"),
        (["--set", "pruning.keep=['nothing']"], r"keep names no layer of Net(.|\n)*'nothing'"),
        (["--set", "pruning.criterion=nowhere_at_all:own"], r"nowhere_at_all"),
        (["--set", "pruning.criterion=tailor"], r"criterion 'tailor'(.|\n)*taylor"),
        (["--set", "pruning.blocks=false", "--set", "pruning.channels=false"], r"blocks or channels"),
        (["--set", "pruning.train.generations=2"], r"no train.generations"),
        (["--engine", "openvin"], r"'openvin' is no candidate"),
        (["--budget", "0.0005", *ENGINE], r"below what an empty model takes(.|\n)*0.0005 ms"),
        (["--set", "pruning.blocks=false", "--set", "pruning.multiple=128"], WIDER),
        (["--set", "pruning.blocks=false", "--set", "pruning.multiple=128", "--set", "pruning.criterion=l1"], WIDER),
        (["--set", "pruning.keep=['stem', 'blocks', 'head']"], KEPT),
        (["--set", "pruning.train.freeze=['nothing']"], r"freeze: Net has no module 'nothing'"),
        (["--set", "pruning.train.rates.nothing=0.1"], r"rates: Net has no module 'nothing'"),
        (["--set", "pruning.train.teachers=[{model='stripednets:Net', weights='factory'}]"], r"no train.teachers"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_done(project, tmp_path, arguments, said):
    shown = edgekit("prune", project, *arguments, "--out", tmp_path / "out")
    assert shown.exit_code == 1, shown.output
    assert re.search(said, shown.output), shown.output
    assert not list((tmp_path / "out").glob(".steps/teacher-*"))
    assert "train teacher" not in shown.output


@pytest.mark.parametrize("command", ["prune", "deploy"])
def test_that_a_target_cuts_to_wider_layers_than_there_are_is_told_before_anything_is_trained(
    project, tmp_path, command
):
    facts = 'description = "wide"\nengines = ["onnxruntime"]\nprecisions = ["fp32"]\nchannel_multiple = 128\n'
    (tmp_path / "wide.toml").write_text(facts)
    recipe = write_striped(tmp_path / "wide")
    text = BLOCKS_ALONE.replace("channels = false", "blocks = false").replace("multiple = 32\n", "")
    (recipe / "edgekit.toml").write_text(text)
    shown = edgekit(command, recipe, "--target", tmp_path / "wide.toml", "--out", tmp_path / "out")
    assert shown.exit_code == 1, shown.output
    assert re.search(WIDER, shown.output), shown.output
    assert not list((tmp_path / "out").glob(".steps/teacher-*"))


def test_two_budgets_on_the_command_line_are_wrong_usage(project):
    assert edgekit("prune", project, "--budget", "1", "--ratio", "0.5").exit_code == 2


def test_a_recipe_without_the_table_is_told_how_to_prune(project, tmp_path):
    text = (project / "edgekit.toml").read_text()
    plain = re.sub(r"\[pruning\](.|\n)*?\[data\]", "[data]", text)
    copied = write_striped(tmp_path / "plain")
    (copied / "edgekit.toml").write_text(plain)
    shown = edgekit("prune", copied, "--out", tmp_path / "out")
    assert (shown.exit_code, "add the table, or --ratio 0.5" in shown.output) == (1, True)
