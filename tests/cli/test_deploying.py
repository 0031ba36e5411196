"""``deploy`` and ``distill`` as a user meets them."""

from __future__ import annotations

import itertools
import re
import shlex
import shutil
import signal
import subprocess
import sys

import pytest
from safetensors.torch import load_file
from tiny_recipe import edgekit, process_environment

from edgekit.artifact import read_json


@pytest.fixture
def run(deployed, tmp_path):
    """The finished run in a folder that may be changed; what it has done need not be done again."""
    return shutil.copytree(deployed.out, tmp_path / "run")


def deploy(deployed, out, *args):
    return edgekit("deploy", deployed.project, "--out", out, *args)


def shipped(out, target=0):
    return next(c for c in read_json(out / "report.json")["targets"][target]["candidates"] if c["shipped"])


def test_a_deploy_ends_with_a_verdict_and_exit_code_0(deployed):
    done = deployed.deployed
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("tiny on local, profile quick: PASS\n")
    assert f"report: {deployed.out}/report.md" in done.stdout
    ships = r"^ships: (onnxruntime|openvino) (fp32|int8): lowest (p50 bound|median)"
    assert re.search(ships, done.stdout, re.MULTILINE)


def test_both_engines_and_precisions_were_tried(deployed):
    (target,) = read_json(deployed.out / "report.json")["targets"]
    tried = {(c["engine"], c["precision"]): c for c in target["candidates"]}
    assert set(tried) - {("openvino", "bf16")} == {
        (e, p) for e in ("onnxruntime", "openvino") for p in ("fp32", "int8")
    }
    assert {c["status"] for c in tried.values()} == {"pass"}
    assert all(c["measured"]["application"]["n"] >= 50 for c in tried.values())
    assert all(tried[engine, "int8"]["proof"]["int8_share"] == 1.0 for engine in ("onnxruntime", "openvino"))


def test_nothing_but_the_report_is_printed_and_it_fits_the_terminal(deployed):
    lines = deployed.deployed.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in deployed.deployed.stdout + deployed.deployed.stderr
    known = r"(tiny on|report|host|engines|driven|load|measured|drift|note|inference|ships|limit|bundle|auto|built)\b.*"
    known += r"|(openvino|onnxruntime) \w+ ran in .*|(accuracy drop|p50|teacher|fp32|what|against).*"
    strangers = [
        line
        for before, line in itertools.pairwise(lines)
        if line.strip() and not line.startswith(" ") and not re.fullmatch(known, line) and not goes_on(before, line)
    ]
    assert not strangers


def goes_on(before, line):
    """Whether ``line`` is what was left of ``before`` when that was wrapped at 80 columns."""
    return len(before.rstrip()) + 1 + len(line.split()[0]) >= 80


def test_progress_goes_to_stderr_a_line_at_a_time(deployed):
    for line in [*deployed.distilled.stderr.splitlines(), *deployed.deployed.stderr.splitlines()]:
        assert re.fullmatch(r"[\w -]+: \d+/\d+( .+)?", line), line
    assert re.search(r"train student: (\d+)/\1 ", deployed.distilled.stderr)
    assert re.search(r"measure: 100/100 \d+ queries", deployed.deployed.stderr)


def test_what_was_distilled_is_not_trained_again(deployed):
    assert deployed.distilled.returncode == 0, deployed.distilled.stderr
    assert "train teacher" in deployed.distilled.stderr
    assert "train" not in deployed.deployed.stderr
    models = read_json(deployed.out / "report.json")["models"]
    assert all(models[role]["training"]["reused"] for role in ("teacher", "student"))


def test_distill_says_what_was_learned_and_where_it_is(deployed):
    printed = deployed.distilled.stdout
    assert re.search(r"teacher +tinynets:teacher +4,995 +\d", printed)
    assert re.search(r"student +tinynets:student +1,347 +\d", printed)
    for role, channels in (("teacher", 16), ("student", 8)):
        assert f"{role}: {deployed.out}/{role}.safetensors" in printed
        assert load_file(deployed.out / f"{role}.safetensors")["0.weight"].shape[0] == channels
    assert (
        f"next: edgekit deploy {shlex.quote(str(deployed.project))} --out {shlex.quote(str(deployed.out))}" in printed
    )


def test_a_second_deploy_does_nothing_again_and_says_the_same(deployed, run, monkeypatch):
    monkeypatch.setattr("edgekit.gains.SECONDS", 1.0)  # as in the process that deployed
    before = {path.name for path in (run / ".steps").iterdir()}
    again = deploy(deployed, run)
    assert again.exit_code == 0, again.stderr
    assert {path.name for path in (run / ".steps").iterdir()} == before
    assert read_json(run / "local" / "manifest.json")["id"] == read_json(deployed.bundle / "manifest.json")["id"]


def test_a_limit_that_is_not_met_is_bundled_and_exit_code_3(deployed, run):
    done = deploy(deployed, run, "--profile", "impossible.toml")
    assert done.exit_code == 3
    assert "tiny on local, profile impossible: FAIL" in done.output
    assert read_json(run / "local" / "manifest.json")["timings"]["verdict"]["status"] == "fail"


def test_accuracy_beyond_its_limit_is_not_bundled_and_exit_code_3(deployed, run, tmp_path):
    shutil.rmtree(run / "local")
    # The student learns nothing: one step at a rate too small to move a weight.
    done = deploy(
        deployed,
        run,
        *("--set", "distillation.learning_rate=1e-12", "--set", "distillation.epochs=1"),
        *("--engine", "onnxruntime", "--precision", "fp32", "--profile", strict(tmp_path)),
    )
    assert done.exit_code == 3
    assert "nothing ships: the accuracy limit is missed" in done.output
    assert not (run / "local").exists()


def strict(folder):
    path = folder / "strict.toml"
    path.write_text('description = "No loss."\n[limits]\nmax_drop_points = 1.0\n[load]\nmin_seconds = 0.3\n')
    return path


def test_two_targets_give_two_bundles_and_the_worst_exit_code(deployed, run):
    done = deploy(deployed, run, "--target", "local", "--target", "raspberry-pi-4")
    assert done.exit_code == 4
    assert "tiny on local, profile quick: PASS" in done.output
    assert "tiny on raspberry-pi-4, profile quick: NOT MEASURED" in done.output
    local, pi = read_json(run / "report.json")["targets"]
    assert (local["exit_code"], pi["exit_code"]) == (0, 4)
    assert "the target is aarch64" in pi["not_measured"]
    assert shipped(run, target=1)["precision"] == "fp32"
    for name in ("local", "raspberry-pi-4"):
        assert edgekit("verify", run / name).exit_code == 0


def test_engine_and_precision_narrow_what_is_tried(deployed, run):
    assert deploy(deployed, run, "--engine", "openvino", "--precision", "int8").exit_code == 0
    (target,) = read_json(run / "report.json")["targets"]
    assert [(c["engine"], c["precision"]) for c in target["candidates"]] == [("openvino", "int8")]
    manifest = read_json(run / "local" / "manifest.json")
    assert (manifest["engine"], manifest["precision"], manifest["model"]) == (
        "openvino",
        "int8",
        "artifact/model.xml",
    )


def test_set_overrides_a_key_and_only_what_depends_on_it_is_done_again(deployed, run):
    done = deploy(deployed, run, "--set", "data.calibration=16", "--engine", "onnxruntime", "--precision", "int8")
    assert done.exit_code == 0, done.stderr
    assert re.search(
        r"quantise for onnxruntime: 0/1 16 samples, about \d+ s and \d+ MB|: 0/1 onnxruntime int8", done.stderr
    )
    assert "train" not in done.stderr


def test_a_run_that_is_killed_while_it_trains_goes_on_from_there(project):
    args = ("deploy", project, "--out", project / "out", "--target", "raspberry-pi-4", "--engine", "onnxruntime")
    args += ("--precision", "fp32", "--set", "distillation.epochs=10")
    with subprocess.Popen(
        [sys.executable, "-m", "edgekit", *map(str, args)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=process_environment(),
    ) as process:
        assert process.stderr is not None
        assert any(line.startswith("train student: 1/") for line in process.stderr)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert list(project.glob("out/.steps/*partial*student*"))
    done = edgekit(*args)
    assert done.exit_code == 4, done.stderr
    assert "train teacher" not in done.stderr
    assert "train student" in done.stderr
    assert not list(project.rglob("*partial*"))


def test_what_a_kill_between_two_renames_leaves_is_mended(deployed, run):
    """What a kill leaves: a lock file, half a step, half a bundle, and the old bundle moved aside."""
    (run / ".steps" / ".edgekit-partial-compile-0").mkdir()
    (run / ".edgekit-partial-local").mkdir()
    (run / "local").rename(run / ".edgekit-partial-old-local")
    done = deploy(deployed, run)
    assert done.exit_code == 0, done.stderr
    assert not list(run.glob(".edgekit-partial*"))
    assert edgekit("verify", run / "local").exit_code == 0


@pytest.mark.parametrize(
    "args",
    [
        ["deploy"],
        ["deploy", ".", "--precision", "int7"],
        ["export", "model.onnx"],
        ["run", "bundle", "--input", "x.npz"],
        ["distill", ".", "--target", "local"],
    ],
)
def test_a_wrong_command_line_is_exit_code_2(args):
    done = edgekit(*args)
    assert done.exit_code == 2
    assert "Usage: " in done.stderr
