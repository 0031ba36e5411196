"""``edgekit watch``: shown to people and machines, judged, and its exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner
from jsonschema import Draft202012Validator
from watched import feeds_of, watched_bundle

from edgekit.cli.main import cli
from edgekit.runtime import open_bundle
from edgekit.runtime.watch import start_watch
from edgekit.schemas import published


def run(*args):
    result = CliRunner().invoke(cli, ["watch", *map(str, args)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return watched_bundle(tmp_path / "bundle", {"p50_ms": 1000.0})


def watched(bundle, count, shift=0.0):
    with open_bundle(bundle) as opened, start_watch(opened) as watch:
        for feeds in feeds_of(count, shift=shift):
            watch.run(feeds)
        return watch.folder


def test_a_bundle_that_does_well_is_0(folder):
    watched(folder, 40)
    done = run(folder, "--once")
    assert done.exit_code == 0
    assert "zeros (null fp32," in done.output
    assert "40 queries, 0 failed" in done.output
    assert "values against 256 calibration samples:" in done.output
    assert [line.split()[:2] for line in done.output.splitlines() if "drift" in line.split()[:1]] == [["drift", "met"]]


def test_the_folder_of_a_watch_says_the_same_as_its_bundle(folder):
    place = watched(folder, 40)
    with_folder, with_bundle = (json.loads(run(path, "--once", "--json").output) for path in (place, folder))
    assert with_folder["recent"] == with_bundle["recent"]
    assert with_folder["bundle"]["name"] == "zeros"


def test_a_limit_that_is_passed_is_3_and_named(folder):
    watched(folder, 40, shift=3.0)
    done = run(folder, "--once")
    assert done.exit_code == 3
    assert any(line.split()[:2] == ["drift", "beyond"] for line in done.output.splitlines())
    found = json.loads(run(folder, "--once", "--json").output)
    assert found["exit_code"] == 3
    assert {"drift", "saturated_share"} <= {one["name"] for one in found["limits"] if one["status"] == "beyond"}


@pytest.mark.parametrize("count", [1, 40])
def test_json_is_what_its_schema_says(folder, count):
    watched(folder, count)
    found = json.loads(run(folder, "--once", "--json").output)
    Draft202012Validator(published("watch")).validate(found)


def test_too_few_queries_are_4_and_it_says_how_many_are_needed(folder):
    watched(folder, 1)
    done = run(folder, "--once")
    assert done.exit_code == 4
    assert "too few samples yet" in done.output
    assert "input 'input': 1 of 16 samples, not enough for drift yet" in done.output


@pytest.mark.parametrize("count", [1, 40])
def test_it_fits_a_terminal_of_80_columns(folder, monkeypatch, count):
    monkeypatch.setenv("COLUMNS", "80")
    watched(folder, count, shift=3.0)
    lines = run(folder, "--once").output.splitlines()
    assert max(map(len, lines)) <= 80
    first = next(i for i, line in enumerate(lines) if line.startswith(" limit"))
    verdicts = [line.split()[1] for line in lines[first + 2 :] if line[1:2].islower()]
    assert len(verdicts) == 7
    assert set(verdicts) <= {"met", "beyond", "unknown"}


def test_a_bundle_that_nobody_watches_is_an_error_that_says_what_to_do(folder, tmp_path):
    done = run(folder, "--once")
    assert done.exit_code == 1
    assert "start_watch(bundle)" in done.output
    assert run(tmp_path / "nothing").exit_code == 1


def test_without_once_it_goes_on_until_it_is_interrupted(folder):
    watched(folder, 40)
    command = [sys.executable, "-m", "edgekit", "watch", str(folder), "--json"]
    environment = dict(os.environ) | {"PYTHONPATH": os.pathsep.join(sys.path)}
    running = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests run in the background ignore it
    )
    assert running.stdout is not None
    first = json.loads(running.stdout.readline())
    time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    rest, told = running.communicate()
    assert first["state"] == "ended"
    assert running.returncode == 130
    assert told == "interrupted\n"
    assert "Traceback" not in rest + told


def test_nothing_heavy_is_imported_to_look(folder):
    watched(folder, 40)
    script = (
        "import sys\nfrom edgekit.runtime.watch.reading import main\n"
        f"code = main([{str(folder)!r}])\n"
        "heavy = {'torch', 'onnxruntime', 'openvino', 'pydantic', 'click', 'onnx'} & set(sys.modules)\n"
        "heavy |= {f'edgekit.runtime.{n}' for n in ('watch.writing', 'watch.tensors', 'bundle')} & set(sys.modules)\n"
        "sys.exit(f'{heavy} {code}' if heavy or code else 0)"
    )
    environment = dict(os.environ) | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
