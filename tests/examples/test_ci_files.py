"""The files of examples/ci: what they call exists, and their shell steps run as they stand."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from edgekit.cli.main import COMMANDS, cli

FOLDER = Path(__file__).parents[2] / "examples" / "ci"
GITHUB = yaml.safe_load((FOLDER / "edgekit.yml").read_text(encoding="utf-8"))
GITLAB = yaml.safe_load((FOLDER / ".gitlab-ci.yml").read_text(encoding="utf-8"))
STEPS = GITHUB["jobs"]["edgekit"]["steps"]
SCRIPTS = {
    "github": [step["run"] for step in STEPS if "run" in step],
    "gitlab": [*GITLAB["edgekit"]["before_script"], *GITLAB["edgekit"]["script"]],
}
# When a step runs, for a push to the main branch and for a pull request.
CONDITIONS = {
    None: ("push", "pull_request"),
    "${{ !cancelled() }}": ("push", "pull_request"),
    "${{ github.ref == 'refs/heads/main' }}": ("push",),
}


def edgekit_lines(script: str) -> list[list[str]]:
    """Every call of edgekit in a script, as words; variables stay as they are."""
    joined = script.replace("\\\n", " ")
    return [
        shlex.split(re.split(r"\|\||>>|;", line)[0])
        for line in joined.splitlines()
        if re.match(r"\s*edgekit\s", line)
    ]  # fmt: skip


CALLS = [(name, *call) for name, scripts in SCRIPTS.items() for script in scripts for call in edgekit_lines(script)]


def test_every_command_is_called_by_both():
    for name in SCRIPTS:
        assert [call[2] for call in CALLS if call[0] == name] == ["deploy", "compare", "report"]


@pytest.mark.parametrize("call", CALLS, ids=lambda call: f"{call[0]}-{call[2]}")
def test_every_option_exists(call):
    name, words = call[2], call[3:]
    assert name in COMMANDS
    command = cli.get_command(None, name)
    known = {option for parameter in command.params for option in parameter.opts}
    used = [word for word in words if word.startswith("--")]
    assert used
    assert set(used) <= known


def test_the_readme_names_only_commands_that_exist():
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"`edgekit (\w+)", text)) <= set(COMMANDS)
    settings = set(re.findall(r"`([A-Z_]{3,})`", text))
    assert settings <= {*GITHUB["env"], *GITLAB["variables"]}


def test_actions_are_pinned_by_major():
    for step in STEPS:
        if "uses" in step:
            assert re.fullmatch(r"actions/[a-z/-]+@v\d+", step["uses"])
        assert step.get("if") in CONDITIONS


def test_both_have_the_same_settings():
    assert {key: value for key, value in GITHUB["env"].items() if key != "INCONCLUSIVE"} == GITLAB["variables"]


# A limit that is missed however restless the machine is.
TOO_SMALL = 'description = "A few bytes."\n[limits]\nsize_mb = 0.000001\n[load]\nmin_seconds = 0.3\nmin_count = 50\n'


@pytest.fixture
def work(deployed, tmp_path):
    """A checkout whose recipe was deployed before, so that nothing is trained again; a pip that installs nothing."""
    folder = tmp_path / "checkout"
    shutil.copytree(deployed.project, folder, ignore=shutil.ignore_patterns("out", "__pycache__"))
    shutil.copytree(deployed.out / ".steps", folder / "runs" / "ci" / ".steps")
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    (bin_folder / "pip").write_text('#!/bin/sh\necho "$@" >> "$PIP_LOG"\n')
    (bin_folder / "pip").chmod(0o755)
    return folder


def environment(work, settings, **more):
    path = os.pathsep.join([str(work.parent / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
    quick = {"COMPARE_SECONDS": "0.5", "MAX_REGRESSION": "900%", "PIP_LOG": str(work.parent / "pip.log")}
    threads = {"OMP_NUM_THREADS": "1", "COLUMNS": "80"}
    return {**os.environ, **settings, **quick, **threads, "PATH": path, **more}


def bash(script, work, env):
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-euo", "pipefail", "-c", script],
        cwd=work, env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip


def on_github(event, work, **more):
    """Runs the workflow's shell steps; returns what each printed, and the code of the first that failed."""
    summary = work.parent / f"summary-{event}.md"
    env = environment(work, GITHUB["env"], GITHUB_STEP_SUMMARY=str(summary), **more)
    printed, code = {}, 0
    for step in STEPS:
        always = "cancelled" in str(step.get("if"))
        if "run" not in step or event not in CONDITIONS[step.get("if")] or (code and not always):
            continue
        done = bash(step["run"], work, env)
        printed[step["name"]] = done.stdout + done.stderr
        code = code or done.returncode
    return printed, code, summary.read_text() if summary.exists() else ""


def test_github_a_baseline_is_kept_and_a_pull_request_is_compared_with_it(work):
    printed, code, summary = on_github("push", work, INCONCLUSIVE="pass")
    assert code == 0, printed
    assert "edgekit[compress,onnxruntime,openvino]" in (work.parent / "pip.log").read_text()
    assert "nothing to compare" in printed["Compare with the main branch"]
    assert summary.startswith("# tiny: **PASS**\n")
    assert (work / "baseline" / "report.json").is_file()
    assert (work / "baseline" / "local" / "manifest.json").is_file()

    printed, code, summary = on_github("pull_request", work, INCONCLUSIVE="pass")
    assert code == 0, printed
    assert summary.startswith("# 2 reports: **")
    assert "against" in summary
    assert "::notice title=tiny on local%3A pass::" in printed["Report"]
    assert "Make this run the baseline" not in printed
    comparison = json.loads((work / "comparison.json").read_text())
    assert comparison["in_turns"]
    suites = ElementTree.parse(work / "edgekit.xml").getroot()
    assert len(suites) == 2
    assert suites[0].get("name") == "tiny on local"


@pytest.mark.slow
def test_github_a_missed_limit_is_shown_and_ends_the_job_with_3(work):
    (work / "quick.toml").write_text(TOO_SMALL)
    printed, code, summary = on_github("push", work)
    assert code == 3
    assert summary.startswith("# tiny: **FAIL**\n")
    assert "::error title=tiny on local%3A size not met::" in printed["Report"]
    assert not (work / "baseline").exists()


def test_github_what_is_not_decided_stops_or_not_as_chosen(work):
    printed, code, summary = on_github("pull_request", work, TARGET="raspberry-pi-4")
    assert code == 4, printed
    assert summary.startswith("# tiny: **NOT MEASURED**\n")
    assert "::warning title=tiny on raspberry-pi-4%3A not measured::" in printed["Report"]
    (report,) = [step["run"] for step in STEPS if step.get("name") == "Report"]
    let_through = environment(work, GITHUB["env"], GITHUB_STEP_SUMMARY="/dev/null", INCONCLUSIVE="pass")
    assert bash(report, work, let_through).returncode == 0


def test_github_an_error_ends_the_job_at_once(work):
    (work / "edgekit.toml").write_text("name = 3")
    printed, code, summary = on_github("push", work)
    assert (code, summary) == (1, "")
    assert list(printed) == ["Install", "Deploy", "Report"]
    assert "error: " in printed["Deploy"]


def on_gitlab(branch, work, **more):
    env = environment(work, GITLAB["variables"], CI_DEFAULT_BRANCH="main", CI_COMMIT_BRANCH=branch, **more)
    return bash("\n".join(SCRIPTS["gitlab"]), work, env)


@pytest.mark.slow
def test_gitlab_a_baseline_is_kept_and_a_merge_request_is_compared_with_it(work):
    done = on_gitlab("main", work)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (work / "baseline" / "local" / "manifest.json").is_file()
    done = on_gitlab("", work)
    assert done.returncode in (0, 4), done.stdout + done.stderr
    assert (work / "comparison.json").is_file()
    assert ElementTree.parse(work / "edgekit.xml").getroot().tag == "testsuites"
    assert GITLAB["edgekit"]["artifacts"]["reports"]["junit"] == "edgekit.xml"
    assert GITLAB["edgekit"]["allow_failure"]["exit_codes"] == [4]


def test_gitlab_a_missed_limit_makes_no_baseline(work):
    (work / "quick.toml").write_text(TOO_SMALL)
    with (work / "edgekit.toml").open("a") as recipe:
        recipe.write('precision = "fp32"\n')  # of [quantization]: another limit has all that is tried measured again
    assert on_gitlab("main", work).returncode == 3
    assert (work / "edgekit.md").read_text().startswith("# tiny: **FAIL**")
    assert not (work / "baseline").exists()
