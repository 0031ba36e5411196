"""What every command shows with: plain text when nobody watches, progress in few lines."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from edgekit.cli._output import console, print_error, print_json, print_table, print_verified, show_progress, wrapped
from edgekit.errors import EdgeKitError


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock():
    class Clock:
        now = 0.0

        def __call__(self):
            return self.now

    return Clock()


def test_no_colour_and_no_markup_when_it_is_not_a_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    stream = io.StringIO()
    out = console(stream)
    out.print("f32[1,3] :smile: 42", style="bold red")
    assert stream.getvalue() == "f32[1,3] :smile: 42\n"
    assert out.width == 100


def test_colour_on_a_terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    stream = Terminal()
    console(stream).print("yes", style="bold red")
    assert "\x1b[" in stream.getvalue()


def test_json_is_parsed_back(capsys):
    print_json({"path": Path("a/b"), "list": (1, 2), "text": "µs"})
    assert json.loads(capsys.readouterr().out) == {"path": "a/b", "list": [1, 2], "text": "µs"}


def test_a_table_fits_80_columns(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    print_table(("name", "what"), [("a-long-name-that-stays-whole", "word " * 40)])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert any("a-long-name-that-stays-whole" in line for line in lines)


@pytest.mark.parametrize("columns", [60, 80, 100])
def test_a_long_message_of_verify_fits_the_terminal(capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    cpu = "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz"
    message = (
        f"its own outputs: not compared, they were recorded by openvino 2026.4.1 on {cpu}, this is 2026.5 on {cpu}"
    )
    print_verified("bundle", True, [message])
    head, *lines = capsys.readouterr().out.splitlines()
    assert head == "bundle: verified"
    assert max(map(len, lines)) <= columns
    assert " ".join(line.strip() for line in lines) == message
    assert [line[:5].count(" ") for line in lines] == [2, *[4] * (len(lines) - 1)]


ERROR = EdgeKitError(
    "board: no key of ours logs in as pi",
    found="/a/path/that/is/longer/than/any/terminal/" + "and/goes/on/" * 6,
    fix="`ssh-copy-id` it once, name it in ~/.ssh/config (IdentityFile), unlock it in ssh-agent (ssh-add)",
)


def test_an_error_is_wrapped_beside_its_labels_on_a_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    print_error(ERROR)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "error: board: no key of ours logs in as pi"
    assert lines[-2].startswith("  fix:     `ssh-copy-id` it once, ")
    assert lines[-1] == " " * 11 + "unlock it in ssh-agent (ssh-add)"
    assert ERROR.found in stream.getvalue(), "a path stays whole"


def test_an_error_that_goes_to_a_file_is_as_it_is(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    print_error(ERROR)
    assert stream.getvalue() == f"error: {ERROR}\n"


def test_commands_are_not_broken_in_two(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    lines = wrapped("to run this: pip install 'edgekit[tensorrt]', then `edgekit doctor --device board`", later="  ")
    assert any("pip install 'edgekit[tensorrt]'," in line for line in lines)
    assert any("`edgekit doctor --device board`" in line for line in lines)
    assert max(map(len, lines)) <= 40


def test_progress_lines_are_few(clock):
    stream = io.StringIO()
    with show_progress(stream, interval_s=2.0, clock=clock) as progress:
        for done in range(11):
            progress("train", done, 10, f"loss {done}")
            clock.now += 0.9
    assert stream.getvalue().splitlines() == [
        "train: 0/10 loss 0",
        "train: 3/10 loss 3",
        "train: 6/10 loss 6",
        "train: 9/10 loss 9",
        "train: 10/10 loss 10",
    ]


def test_progress_of_several_steps_and_of_a_step_again(clock):
    stream = io.StringIO()
    with show_progress(stream, interval_s=1e9, clock=clock) as progress:
        progress("teacher", 0, 2)
        progress("student", 0, 2)
        progress("teacher", 1, 2)
        progress("teacher", 2, 2)
        progress("teacher", 2, 2)
        progress("teacher", 0, 2)
    assert stream.getvalue().splitlines() == ["teacher: 0/2", "student: 0/2", "teacher: 2/2", "teacher: 0/2"]


def test_progress_on_a_terminal_is_a_bar(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    stream = Terminal()
    with show_progress(stream) as progress:
        progress("train [1]", 1, 4, "loss 0.5")
        progress("train [1]", 4, 4, "loss 0.1")
    shown = stream.getvalue()
    assert "train [1]" in shown
    assert "4/4" in shown
    assert "loss 0.1" in shown
    assert "\x1b[" in shown
