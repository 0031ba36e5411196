import errno
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from edgekit.disk import PARTIAL
from edgekit.errors import EdgeKitError, EngineError
from edgekit.steps import KEY_FILE, OLD, locked, replace_folder, run_step


def write(text):
    return lambda folder: (folder / "made.txt").write_text(text)


def fail(exc):
    def make(folder):
        (folder / "half.bin").write_bytes(b"half")
        raise exc

    return make


# ---- steps ----


def test_a_step_is_made_once_and_keeps_its_key(tmp_path):
    folder = run_step(tmp_path, "build", {"a": 1}, write("first"))
    assert run_step(tmp_path, "build", {"a": 1}, write("second")) == folder
    assert (folder / "made.txt").read_text() == "first"
    assert (folder / KEY_FILE).read_text().split() == ["{", '"a":', "1", "}"]


@pytest.mark.parametrize(("name", "key"), [("build", {"a": 2}), ("build", {"a": 1, "b": None}), ("check", {"a": 1})])
def test_another_key_or_name_is_another_step(tmp_path, name, key):
    first = run_step(tmp_path, "build", {"a": 1}, write("first"))
    second = run_step(tmp_path, name, key, write("second"))
    assert first != second
    assert (first / "made.txt").read_text() == "first"
    assert (second / "made.txt").read_text() == "second"


@pytest.mark.parametrize("exc", [ValueError("bad"), KeyboardInterrupt(), EngineError("refused")])
def test_a_step_that_fails_leaves_nothing_and_is_made_next_time(tmp_path, exc):
    with pytest.raises(type(exc)):
        run_step(tmp_path, "build", 1, fail(exc))
    assert list(tmp_path.iterdir()) == []
    assert (run_step(tmp_path, "build", 1, write("good")) / "made.txt").read_text() == "good"


def test_a_step_that_was_killed_half_way_starts_afresh(tmp_path):
    done = run_step(tmp_path, "build", 1, write("good"))
    partial = tmp_path / f"{PARTIAL}{done.name}"
    os.replace(done, partial)
    (partial / "stale.bin").write_bytes(b"stale")
    assert sorted(p.name for p in run_step(tmp_path, "build", 1, write("again")).iterdir()) == ["made.txt", KEY_FILE]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_as_such_whatever_the_step_made_of_it(tmp_path, number):
    refused = EngineError("onnxruntime could not quantise the model")
    refused.__cause__ = OSError(number, os.strerror(number))
    with pytest.raises(OSError, match="the disk is full: the step 'quantize' could not be written") as caught:
        run_step(tmp_path, "quantize", 1, fail(refused))
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(tmp_path)
    assert caught.value.__cause__ is refused
    assert list(tmp_path.iterdir()) == []


# ---- folders replaced whole ----


def folder_of(path, text):
    path.mkdir()
    (path / "file").write_text(text)
    return path


def test_replace_folder_puts_the_new_one_in_place(tmp_path):
    final = folder_of(tmp_path / "bundle", "old")
    replace_folder(folder_of(tmp_path / "new", "new"), final)
    assert (final / "file").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


def test_replace_folder_makes_the_parents(tmp_path):
    replace_folder(folder_of(tmp_path / "new", "new"), tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b" / "file").read_text() == "new"


def test_replace_folder_brings_the_old_one_back_when_the_new_one_cannot_take_its_place(tmp_path):
    final = folder_of(tmp_path / "bundle", "old")
    with pytest.raises(FileNotFoundError):
        replace_folder(tmp_path / "nothing", final)
    assert (final / "file").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


# ---- one run at a time ----


def test_two_runs_in_one_folder_are_refused_and_the_next_one_is_not(tmp_path):
    with locked(tmp_path), pytest.raises(EdgeKitError, match="another run is working in this folder"), locked(tmp_path):
        pass
    with locked(tmp_path) as steps:
        assert steps == tmp_path / ".steps"


def test_a_run_in_another_process_is_refused_too(tmp_path):
    script = f"from pathlib import Path; from edgekit.steps import locked\nwith locked(Path({str(tmp_path)!r})): pass"
    with locked(tmp_path):
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "another run is working in this folder" in done.stderr


def test_a_folder_that_cannot_be_made_says_so(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(EdgeKitError, match="cannot write here") as caught, locked(tmp_path / "file"):
        pass
    assert caught.value.fix == "choose another folder with --out"


def test_stale_partials_are_cleared_and_what_is_the_users_stays(tmp_path):
    steps = tmp_path / ".steps"
    steps.mkdir()
    for folder in (tmp_path, steps):
        folder_of(folder / f"{PARTIAL}local", "half")
        (folder / f"{PARTIAL}report.json").write_text("half")
        folder_of(folder / ".partial-mine", "mine")
        folder_of(folder / "done", "done")
    with locked(tmp_path):
        for folder in (tmp_path, steps):
            assert sorted(p.name for p in folder.iterdir() if p.name not in (".lock", ".steps")) == [
                ".partial-mine",
                "done",
            ]


@pytest.mark.parametrize("final_is_there", [False, True])
def test_a_bundle_that_was_being_replaced_is_never_lost(tmp_path, final_is_there):
    folder_of(tmp_path / f"{OLD}local", "old")
    if final_is_there:
        folder_of(tmp_path / "local", "new")
    with locked(tmp_path):
        pass
    assert (tmp_path / "local" / "file").read_text() == ("new" if final_is_there else "old")
    assert not list(tmp_path.glob(".edgekit-*"))


def test_a_half_written_bundle_of_a_target_called_old_is_no_older_bundle(tmp_path):
    folder_of(tmp_path / f"{PARTIAL}old-local", "half")
    with locked(tmp_path):
        assert [p.name for p in tmp_path.iterdir()] == [".steps"]


KILLED = """
import os, signal, sys
from pathlib import Path
from edgekit.steps import locked, run_step

def make(folder):
    (folder / "big.bin").write_bytes(b"0" * 100_000)
    if sys.argv[2] == "die":
        os.kill(os.getpid(), signal.SIGKILL)

with locked(Path(sys.argv[1])) as steps:
    run_step(steps, "first", 1, lambda folder: (folder / "a").write_text(sys.argv[2]))
    run_step(steps, "second", 2, make)
"""


def test_a_killed_process_leaves_whole_steps_and_no_lock(tmp_path):
    def run(word):
        command = [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path), word]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert run("die").returncode == -signal.SIGKILL
    steps = tmp_path / ".steps"
    assert [p.name.split("-")[0] for p in steps.glob("[!.]*")] == ["first"]
    assert len(list(steps.glob(f"{PARTIAL}*"))) == 1
    assert run("live").returncode == 0
    names = {p.name.split("-")[0]: p for p in steps.glob("[!.]*")}
    assert sorted(names) == ["first", "second"]
    assert (names["first"] / "a").read_text() == "die"  # not made again
    assert not list(steps.glob(f"{PARTIAL}*"))
    assert Path(names["second"] / "big.bin").stat().st_size == 100_000
