"""Lines that stay bounded and can be read, whatever cuts them off: a kill, a full disk, a rotation."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from watched import feeds_of, states, watched_bundle

from edgekit.errors import EdgeKitError
from edgekit.runtime import open_bundle
from edgekit.runtime.system import boot_id, this_system
from edgekit.runtime.watch import start_watch
from edgekit.runtime.watch.files import LINES, OLDER, append_line, read_lines
from edgekit.runtime.watch.reading import find_folder, main, read_watch

HEAD = {"kind": "start", "run": "a", "seq": 0, "edges": [], "limits": {}, "period_s": 1.0, "window_s": 300.0}
HEAD |= {"bundle": {}, "statistics": None, "schema_version": 1}


def state(seq, run="a", **fields):
    known = {"kind": "state", "run": run, "seq": seq, "at_s": time.monotonic(), "boot": boot_id(this_system())}
    known |= dict.fromkeys(("queries", "failed", "taken", "dropped"), 0)
    return known | {"inputs": {}, "outputs": {}, "latency": {"counts": {}}} | fields


def numbers(folder):
    return [line["seq"] for line in read_lines(folder)[0]]


def test_lines_are_bounded_and_every_file_begins_with_the_head(tmp_path):
    for seq in range(1, 200):
        append_line(tmp_path, state(seq), HEAD, kept_bytes=4000)
    files = [tmp_path / LINES, tmp_path / OLDER]
    assert sum(file.stat().st_size for file in files) <= 4500
    for file in files:
        assert json.loads(file.read_text().splitlines()[0])["kind"] == "start"
    found = numbers(tmp_path)
    assert found[0] == 0
    assert found[1:] == list(range(found[1], 200)), "the newest, without a gap"


@pytest.mark.parametrize(
    "torn", [b'{"kind": "sta', b"\0\0\0\0", b'{"kind":"state","run":"a","seq":7}', b"\xff\xfe", b"[1]"]
)
def test_a_line_that_was_cut_off_costs_no_other(tmp_path, torn):
    append_line(tmp_path, HEAD, HEAD)
    append_line(tmp_path, state(1), HEAD)
    with (tmp_path / LINES).open("ab") as stream:
        stream.write(torn)
    append_line(tmp_path, state(2), HEAD)
    assert numbers(tmp_path) == [0, 1, 2]
    assert read_lines(tmp_path)[1] == (0 if torn == b"\0\0\0\0" else 1)
    assert read_watch(tmp_path).last["seq"] == 2


def test_a_file_that_is_rotated_while_it_is_read_gives_its_lines_once(tmp_path, monkeypatch):
    append_line(tmp_path, HEAD, HEAD)
    for seq in (1, 2, 3):
        append_line(tmp_path, state(seq), HEAD)
    real = Path.read_bytes

    def rotated_after(path):
        text = real(path)
        if path.name == LINES:
            os.replace(tmp_path / LINES, tmp_path / OLDER)
            append_line(tmp_path, state(4), HEAD)
        return text

    monkeypatch.setattr(Path, "read_bytes", rotated_after)
    assert numbers(tmp_path) == [0, 1, 2, 3]
    monkeypatch.undo()
    assert numbers(tmp_path) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        ([], "0 broken lines"),
        ([{}], "1 broken"),
        ([HEAD, state(3, run="b")], "with what limits"),
    ],
)
def test_a_file_without_what_is_needed_is_an_error(tmp_path, texts, found):
    (tmp_path / LINES).touch()
    for line in texts:
        append_line(tmp_path, line, line)
    with pytest.raises(EdgeKitError, match=found):
        read_watch(tmp_path)


def test_a_byte_that_changed_costs_its_line_only(tmp_path):
    append_line(tmp_path, HEAD, HEAD)
    for seq in range(1, 6):
        append_line(tmp_path, state(seq), HEAD)
    whole = (tmp_path / LINES).read_bytes()
    rng = random.Random(0)
    for _ in range(300):
        text = bytearray(whole)
        place = rng.randrange(len(text))
        text[place] ^= 1 << rng.randrange(8)
        (tmp_path / LINES).write_bytes(text)
        lost = set(range(6)) - set(numbers(tmp_path))
        assert len(lost) <= (2 if whole[place : place + 1] == b"\n" else 1)
        if 0 not in lost:
            assert read_watch(tmp_path).last["seq"] == max(set(range(6)) - lost)


def test_lines_of_a_newer_edgekit_are_told(tmp_path):
    append_line(tmp_path, HEAD | {"schema_version": 2}, HEAD)
    append_line(tmp_path, state(1), HEAD)
    with pytest.raises(EdgeKitError, match="written by a newer EdgeKit"):
        read_watch(tmp_path)


def test_a_line_of_another_boot_has_no_age(tmp_path):
    append_line(tmp_path, HEAD | {"limits": {"silence_s": 30.0}}, HEAD)
    append_line(tmp_path, state(1, boot="another"), HEAD)
    reading = read_watch(tmp_path)
    assert (reading.age_s, reading.state, reading.limits[0].status) == (None, "unknown", "unknown")


def test_silence_is_told_by_the_clock_since_boot(tmp_path):
    append_line(tmp_path, HEAD | {"limits": {"silence_s": 30.0}}, HEAD)
    append_line(tmp_path, state(1, at_s=time.monotonic() - 31, time=4e9), HEAD)
    reading = read_watch(tmp_path)
    assert (reading.state, reading.limits[0].status, reading.exit_code) == ("silent", "beyond", 3)


def test_only_the_last_seconds_of_the_last_process_are_judged(tmp_path):
    limits = {"failed_share": 0.5, "restarts": 1.0}
    now = time.monotonic()
    for run, seq, ago, failed in [("b", 1, 50, 0), ("b", 2, 40, 99), ("a", 1, 30, 0), ("a", 2, 20, 9), ("a", 3, 1, 10)]:
        append_line(tmp_path, HEAD | {"run": run, "limits": limits, "window_s": 15.0}, HEAD)
        append_line(tmp_path, state(seq, run=run, at_s=now - ago, failed=failed, queries=100 * seq), HEAD)
    seen = read_watch(tmp_path).recent
    assert (seen.failed, seen.queries, seen.restarts) == (1, 100, 0)
    append_line(tmp_path, HEAD | {"window_s": 100.0}, HEAD)
    assert read_watch(tmp_path).recent.restarts == 1


def test_the_module_prints_json_for_a_device(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert main([str(tmp_path / "nothing")]) == 1
    assert "no watch wrote there" in json.loads(capsys.readouterr().out)["error"]["problem"]
    folder = tmp_path / "edgekit/watch/0123456789abcdef"
    folder.mkdir(parents=True)
    append_line(folder, HEAD, HEAD)
    append_line(folder, state(1), HEAD)
    for arguments in ([str(folder)], ["--id", "0123456789abcdef" * 4]):
        assert main(arguments) == 4, "there are no limits"
        assert json.loads(capsys.readouterr().out)["last"]["seq"] == 1


# ---- kill -9 ----

RUNNING = """
import sys
from pathlib import Path
from edgekit.runtime import open_bundle
from edgekit.runtime.watch import start_watch
from edgekit.runtime.watch.files import append_line
from edgekit.runtime.session import zeros

append_line.__kwdefaults__ = None
append_line.__defaults__ = (60_000,)
with open_bundle(Path(sys.argv[1])) as bundle, start_watch(bundle, Path(sys.argv[2])) as opened:
    feeds = zeros(bundle.inputs)
    print("runs", flush=True)
    while True:
        opened.run(feeds)
        opened.write()
"""


def test_a_kill_while_it_writes_loses_at_most_the_line_being_written(tmp_path):
    bundle = watched_bundle(tmp_path / "b")
    folder = tmp_path / "w"
    environment = dict(os.environ) | {"PYTHONPATH": os.pathsep.join(sys.path)}
    for kill in range(4):
        running = subprocess.Popen(
            [sys.executable, "-c", RUNNING, str(bundle), str(folder)], stdout=subprocess.PIPE, env=environment
        )
        assert running.stdout is not None
        assert running.stdout.readline() == b"runs\n"
        time.sleep(0.15 + 0.037 * kill)
        running.send_signal(signal.SIGKILL)
        running.wait()
        running.stdout.close()
        lines, broken = read_lines(folder)
        own = [line["seq"] for line in lines if line["run"] == lines[-1]["run"] and line["kind"] == "state"]
        assert own == list(range(own[0], own[-1] + 1)), "no gap"
        assert broken <= kill + 1
        page = (folder / "watch.prom").read_text()
        assert page.startswith("# HELP edgekit_bundle_info")
        assert page.endswith("\n")
        assert 'edgekit_limit{limit="silence_s"}' not in page
    with open_bundle(bundle) as opened, start_watch(opened, folder) as watch:
        watch.run(feeds_of(1)[0])
    assert states(folder)[-1]["kind"] == "end", "the lock went with the killed process"


# ---- a full disk ----

FULL = """
import os, sys
from pathlib import Path
from edgekit.runtime import open_bundle
from edgekit.runtime.watch import start_watch
from edgekit.runtime.session import zeros
from edgekit.runtime.watch.files import read_lines

disk = Path(sys.argv[2])

def fill():
    with (disk / "filler").open("ab", buffering=0) as stream:
        try:
            while True:
                stream.write(bytes(4096))
        except OSError:
            pass
        try:
            while True:
                stream.write(b"0")
        except OSError:
            pass

if sys.argv[3] != "while it runs":
    (disk / "w").mkdir()
    fill()
if sys.argv[3] == "to the end":
    with open_bundle(Path(sys.argv[1])) as bundle, start_watch(bundle, disk / "w") as watch:
        for _ in range(5):
            watch.run(zeros(bundle.inputs))
            watch.write()
    sys.exit()
with open_bundle(Path(sys.argv[1])) as bundle, start_watch(bundle, disk / "w") as watch:
    feeds = zeros(bundle.inputs)
    watch.run(feeds)
    watch.write()
    before = [line["seq"] for line in read_lines(disk / "w")[0]]
    fill()
    for _ in range(5):
        watch.run(feeds)
        watch.write()
    full = [line["seq"] for line in read_lines(disk / "w")[0]]
    problem = watch.problem
    os.remove(disk / "filler")
    watch.run(feeds)
    watch.write()
    lines, broken = read_lines(disk / "w")
    last = lines[-1]
    print(repr({"before": before, "full": full, "problem": problem, "after": watch.problem, "broken": broken,
                "queries": last["queries"], "failures": last["write_failures"],
                "left": sorted(p.name for p in (disk / "w").iterdir())}))
"""
CAN_MOUNT = (
    subprocess.run(
        ["unshare", "-Urm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, check=False
    ).returncode
    == 0
)


def on_a_small_disk(tmp_path, when):
    """What the program above does on a disk that is full at some time."""
    bundle = watched_bundle(tmp_path / "b")
    (tmp_path / "disk").mkdir()
    environment = dict(os.environ) | {"PYTHONPATH": os.pathsep.join(sys.path)}
    mounted = ["unshare", "-Urm", "bash", "-c", 'mount -t tmpfs -o size=128k tmpfs "$0" && exec "$@"']
    command = [sys.executable, "-c", FULL, str(bundle), str(tmp_path / "disk"), when]
    done = subprocess.run(
        [*mounted, str(tmp_path / "disk"), *command], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.skipif(not CAN_MOUNT, reason="needs a host that lets a user mount a tmpfs")
def test_a_disk_that_stays_full_is_told_once_and_ends_nothing_in_a_traceback(tmp_path):
    done = on_a_small_disk(tmp_path, "to the end")
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert "the watch cannot write: " in done.stderr


@pytest.mark.skipif(not CAN_MOUNT, reason="needs a host that lets a user mount a tmpfs")
@pytest.mark.parametrize("when", ["while it runs", "from the start"])
def test_a_full_disk_is_told_once_stops_no_query_and_ends_with_the_fullness(tmp_path, when):
    done = on_a_small_disk(tmp_path, when)
    found = eval(done.stdout)  # noqa: S307  # what the process of this test printed
    told = [line for line in done.stderr.splitlines() if "the watch cannot write" in line]
    assert len(told) == 1, done.stderr
    assert "No space left" in told[0] or "disk is full" in told[0]
    assert found["problem"] is not None
    assert found["after"] is None
    assert found["queries"] == 7
    assert found["failures"] >= 5
    assert found["broken"] == 0
    assert found["left"] == ["watch.jsonl", "watch.lock", "watch.prom"]
    if when == "while it runs":
        assert found["full"][: len(found["before"])] == found["before"]


@pytest.mark.parametrize("find", [find_folder, read_watch])
def test_an_account_that_may_not_look_is_told_so(tmp_path, find):
    folder = tmp_path / "closed/w"
    folder.mkdir(parents=True)
    append_line(folder, state(1), HEAD, kept_bytes=4000)
    folder.parent.chmod(0)
    root = os.geteuid() == 0
    try:
        if root:
            os.seteuid(65534)
        with pytest.raises(EdgeKitError, match=r"w: this account may not read it(.|\n)*Permission denied(.|\n)*root"):
            find(folder)
    finally:
        if root:
            os.seteuid(0)
        folder.parent.chmod(0o700)
