"""``report``: one run or several, in every form, and what cannot be shown."""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
from xml.etree import ElementTree

import pytest
from sample_report import failing_report, not_measured_report, sample_report, unsteady_report
from test_cases import profiled
from tiny_recipe import edgekit, edgekit_process

from edgekit.artifact import read_json, write_json


def test_a_finished_run_is_printed_again_and_exits_as_it_did(deployed):
    for run in (deployed.out, deployed.bundle, deployed.out / "report.json"):
        again = edgekit("report", run)
        assert again.exit_code == 0
        assert "tiny on local, profile quick: PASS" in again.stdout
    printed = deployed.deployed.stdout
    assert edgekit_process("report", deployed.out).stdout == printed[: printed.index("report: ")]


def test_json_and_markdown_are_those_of_the_run(deployed):
    assert json.loads(edgekit("report", deployed.out, "--json").output) == read_json(deployed.out / "report.json")
    assert edgekit("report", deployed.out, "--md", "-").output == (deployed.out / "report.md").read_text()


def test_a_page_and_junit_of_a_real_run(deployed, tmp_path):
    done = edgekit("report", deployed.out, "--html", tmp_path / "r.html", "--junit", tmp_path / "r.xml")
    assert done.exit_code == 0, done.output
    assert "tiny" in (tmp_path / "r.html").read_text()
    suite = ElementTree.parse(tmp_path / "r.xml").getroot()[0]
    assert (suite.get("name"), suite.get("failures"), suite.get("errors")) == ("tiny on local", "0", "0")


@pytest.fixture
def run(tmp_path):
    """Writes a report as a run's folder and gives the folder."""

    def write(report, name="run"):
        folder = tmp_path / name
        folder.mkdir()
        write_json(folder / "report.json", report)
        return folder

    return write


FORMS = {"html": "<!DOCTYPE html>", "md": "# flowers: **PASS**", "junit": '<?xml version="1.0"'}


def test_every_form_is_written_and_said(run, tmp_path):
    done = edgekit(
        *("report", run(sample_report())),
        *(arg for form in FORMS for arg in (f"--{form}", tmp_path / f"r.{form}")),
    )
    assert done.exit_code == 0
    assert done.output.splitlines() == [f"{form}: {tmp_path}/r.{form}" for form in FORMS]
    for form, start in FORMS.items():
        assert (tmp_path / f"r.{form}").read_text().lower().startswith(start.lower())
    assert not list(tmp_path.glob(".edgekit*"))


@pytest.mark.parametrize("form", FORMS)
def test_a_dash_is_standard_output_and_nothing_else_is_there(form, run):
    done = edgekit("report", run(sample_report()), f"--{form}", "-")
    assert done.stdout.lower().startswith(FORMS[form].lower())
    assert "\nhtml: " not in done.stdout


def test_annotations_are_printed_beside_files(run, tmp_path):
    done = edgekit("report", run(not_measured_report() | {"exit_code": 4}), "--github", "--md", tmp_path / "r.md")
    assert done.exit_code == 4
    assert re.fullmatch(r"::warning title=flowers on raspberry-pi-4%3A not measured::.*\n", done.stdout)
    assert (tmp_path / "r.md").is_file()


def test_of_several_runs_the_worst_exit_code_counts(run):
    runs = [run(sample_report(), "a"), run(unsteady_report() | {"exit_code": 4}, "b"), run(failing_report(), "c")]
    assert [edgekit("report", *runs[:n]).exit_code for n in (1, 2, 3)] == [0, 4, 1]
    shown = edgekit("report", *runs).stdout
    assert [word in shown for word in ("PASS", "INCONCLUSIVE", "FAIL")] == [True] * 3
    found = json.loads(edgekit("report", *runs, "--json").output)
    assert [report["exit_code"] for report in found] == [0, 4, 1]
    assert edgekit("report", *runs, "--md", "-").stdout.startswith("# 3 reports: **FAIL**")
    assert ElementTree.fromstring(edgekit("report", *runs, "--junit", "-").stdout).get("errors") == "3"


def test_what_profile_wrote_is_shown_too(tmp_path):
    write_json(tmp_path / "p.json", profiled())
    done = edgekit("report", tmp_path / "p.json")
    assert done.exit_code == 0
    assert "flowers (openvino int8) on local, profile realtime-120fps: PASS" in done.stdout
    done = edgekit("report", tmp_path / "p.json", "--html", "-")
    assert done.exit_code == 1
    assert "--html shows runs" in done.stderr


def test_an_exported_bundle_has_its_report_beside_it(run, tmp_path):
    folder = run(sample_report())
    (folder / "report.json").rename(folder / "net.report.json")
    (folder / "net").mkdir()
    (folder / "net" / "manifest.json").write_text("{}")
    assert edgekit("report", folder / "net").exit_code == 0


# ---- what cannot be shown ----


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no such file"),
        ("", "not JSON"),
        ('{"schema_version": 2, "kind": "run", "targ', "not JSON"),
        ('{"schema_version": 2, "kind": "run", "targets": []}', "key 'edgekit_version' is missing"),
        ('{"schema_version": 1, "targets": []}', "not a report this version can read"),
        ('{"schema_version": 3, "kind": "run"}', "upgrade edgekit"),
        ('{"openapi": "3.1"}', "not a report of EdgeKit"),
        ('{"schema_version": 2, "kind": "poem"}', "a report of another kind"),
    ],
)
def test_what_is_no_report_is_named(text, message, tmp_path):
    if text is not None:
        (tmp_path / "report.json").write_text(text)
    done = edgekit("report", tmp_path, "--md", tmp_path / "r.md")
    assert done.exit_code == 1
    assert f"{tmp_path}/report.json: " in done.stderr
    assert message in done.stderr
    assert not (tmp_path / "r.md").exists()


@pytest.mark.parametrize(
    "options",
    [
        ("--md", "-", "--junit", "-"),
        ("--md", "-", "--json"),
        ("--github", "--json"),
        ("--html", "-", "--github"),
        ("--md", "r.txt", "--junit", "./r.txt"),
    ],
)
def test_two_things_in_one_place_are_a_usage_error(options, run, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    done = edgekit("report", run(sample_report()), *options)
    assert done.exit_code == 2
    assert "standard output" in done.stderr or "the same file" in done.stderr
    assert not (tmp_path / "r.txt").exists()


def test_without_a_run_it_is_a_usage_error():
    assert edgekit("report").exit_code == 2
    assert edgekit("report", ".", "--md").exit_code == 2


def test_a_file_that_cannot_be_written_is_told_before_anything_is_read(tmp_path):
    done = edgekit("report", tmp_path / "nothing", "--html", tmp_path / "missing" / "r.html")
    assert done.exit_code == 1
    assert f"no folder {tmp_path}/missing" in done.stderr
    assert "a folder" in edgekit("report", tmp_path / "nothing", "--md", tmp_path).stderr


def test_an_older_file_stays_where_making_a_new_one_fails(run, tmp_path):
    (tmp_path / "r.md").write_text("old")
    broken = sample_report()
    del broken["targets"][0]["why"]
    assert edgekit("report", run(broken), "--md", tmp_path / "r.md").exit_code == 1
    assert (tmp_path / "r.md").read_text() == "old"


def test_a_link_stays_a_link(run, tmp_path):
    (tmp_path / "real.md").write_text("old")
    (tmp_path / "r.md").symlink_to("real.md")
    assert edgekit("report", run(sample_report()), "--md", tmp_path / "r.md").exit_code == 0
    assert (tmp_path / "r.md").is_symlink()
    assert (tmp_path / "real.md").read_text().startswith("# flowers")


def test_a_device_and_a_pipe_are_written_to_and_not_replaced(run, tmp_path):
    folder = run(sample_report())
    os.mkfifo(tmp_path / "pipe")
    got = []
    reader = threading.Thread(target=lambda: got.append((tmp_path / "pipe").read_text()), daemon=True)
    reader.start()
    done = edgekit("report", folder, "--md", tmp_path / "pipe", "--junit", "/dev/null")
    reader.join(10)
    assert done.exit_code == 0, done.output
    assert got[0].startswith("# flowers")
    assert (tmp_path / "pipe").is_fifo()


def test_a_report_beside_a_copied_bundle_is_missing_and_said(deployed, tmp_path):
    bundle = shutil.copytree(deployed.bundle, tmp_path / "copied")
    done = edgekit("report", bundle)
    assert done.exit_code == 1
    assert "report.json: no such file" in done.stderr
