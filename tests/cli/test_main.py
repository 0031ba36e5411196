"""The command line's frame: help without imports, errors without tracebacks, exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

import edgekit
from edgekit.cli import main as frame
from edgekit.cli.main import COMMANDS, cli
from edgekit.errors import DataError, EdgeKitError


@pytest.fixture
def command(monkeypatch):
    """Puts a command in the table whose body is the function given, and calls it."""

    def call(body, *args):
        monkeypatch.setitem(COMMANDS, "probe", (f"{__name__}:probe", "A probe."))
        monkeypatch.setattr(frame.importlib, "import_module", lambda name: sys.modules[__name__])
        monkeypatch.setattr(sys.modules[__name__], "probe", click.Command("probe", callback=body), raising=False)
        return CliRunner().invoke(cli, [*args, "probe"])

    return call


def raiser(error):
    def body():
        raise error

    return body


def run(*args, **kwargs):
    return subprocess.run(
        [sys.executable, "-m", "edgekit", *args], capture_output=True, text=True, check=False, **kwargs
    )


def test_help_imports_click_and_nothing_heavy():
    script = (
        "import sys\nfrom edgekit.cli.main import cli\n"
        "try:\n    cli(['--help'])\nexcept SystemExit as exc:\n    assert exc.code == 0\n"
        "import json; print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    modules = json.loads(done.stdout.splitlines()[-1])
    ours = {name for name in modules if name.split(".")[0] == "edgekit"}
    assert ours == {"edgekit", "edgekit.errors", "edgekit.cli", "edgekit.cli.main"}
    assert "click" in modules
    assert not {"numpy", "pydantic", "rich", "torch", "onnx", "onnxruntime", "openvino"} & set(modules)


def test_help_lists_every_command_with_its_line():
    shown = CliRunner().invoke(cli, ["--help"])
    assert shown.exit_code == 0
    for name, (_, line) in COMMANDS.items():
        assert name in shown.output
        assert line in " ".join(shown.output.split())


def test_every_command_can_be_imported_and_helps():
    for name in COMMANDS:
        shown = CliRunner().invoke(cli, [name, "--help"])
        assert shown.exit_code == 0, name
        assert f"Usage: cli {name}" in shown.output


def test_version():
    assert CliRunner().invoke(cli, ["--version"]).output == f"edgekit, version {edgekit.__version__}\n"


def test_python_m_edgekit_is_the_command():
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"edgekit, version {edgekit.__version__}\n")


def test_an_unknown_command_gives_the_nearest():
    shown = CliRunner().invoke(cli, ["tragets"])
    assert shown.exit_code == 2
    assert "no such command 'tragets'; did you mean 'targets'?" in shown.stderr


def test_an_unknown_command_with_nothing_near_gives_all():
    shown = CliRunner().invoke(cli, ["xyz"])
    assert shown.exit_code == 2
    assert f"the commands are: {', '.join(COMMANDS)}" in shown.stderr


def test_a_wrong_option_is_a_usage_error():
    assert CliRunner().invoke(cli, ["targets", "--jsn"]).exit_code == 2


@pytest.mark.parametrize(("returned", "code"), [(None, 0), (0, 0), (3, 3), (4, 4)])
def test_a_command_returns_its_exit_code(command, returned, code):
    assert command(lambda: returned).exit_code == code


def test_our_errors_are_told_without_a_traceback(command):
    shown = command(raiser(DataError("test.npz: no samples", found="0", allowed="1 or more")))
    assert shown.exit_code == 1
    assert shown.stderr == "error: test.npz: no samples\n  found:   0\n  allowed: 1 or more\n"
    assert shown.stdout == ""


def test_debug_shows_the_traceback(command):
    shown = command(raiser(DataError("broken")), "--debug")
    assert shown.exit_code == 1
    assert "Traceback (most recent call last)" in shown.stderr
    assert shown.stderr.endswith("error: broken\n")


def test_an_error_has_its_own_exit_code(command):
    class Special(EdgeKitError):
        exit_code = 7

    assert command(raiser(Special("x"))).exit_code == 7


def test_errors_of_the_file_system_are_told_without_a_traceback(command):
    shown = command(raiser(OSError(28, "No space left on device", "/out/model.onnx")))
    assert shown.exit_code == 1
    assert shown.stderr == "error: /out/model.onnx: No space left on device\n"


def test_a_bug_of_ours_is_not_hidden(command):
    shown = command(raiser(ZeroDivisionError("a bug")))
    assert isinstance(shown.exception, ZeroDivisionError)


def test_ctrl_c_is_one_line(command):
    shown = command(raiser(KeyboardInterrupt()))
    assert (shown.exit_code, shown.stderr) == (130, "interrupted\n")


def test_ctrl_c_in_a_real_process():
    script = (
        "import os, signal, click\nfrom edgekit.cli import main\nfrom edgekit.cli import doctor\n"
        "doctor.doctor = click.Command('doctor', callback=lambda: os.kill(os.getpid(), signal.SIGINT) or 0)\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\nmain.cli(['doctor'])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


def test_a_reader_that_goes_away_is_no_error():
    read, write = os.pipe()
    os.close(read)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "edgekit", "targets"], stdout=write, stderr=subprocess.PIPE, text=True, check=False
        )
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")
