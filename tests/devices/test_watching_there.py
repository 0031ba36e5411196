"""``edgekit watch --device``: what a watch on a device wrote, read over a real sshd."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from watched import feeds_of, watched_bundle

from edgekit.cli.main import cli
from edgekit.runtime import open_bundle
from edgekit.runtime.watch import start_watch


def run(*args):
    result = CliRunner().invoke(cli, ["watch", *map(str, args)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def place(tmp_path, named, loopback):
    named(board=loopback.address)
    bundle = watched_bundle(tmp_path / "bundle")
    with open_bundle(bundle) as opened, start_watch(opened, tmp_path / "w") as watch:
        for feeds in feeds_of(40, shift=3.0):
            watch.run(feeds)
    return tmp_path / "w"


def test_a_watch_is_judged_on_the_device_as_here(place):
    here = run(place, "--once")
    there = run(place, "--once", "--device", "board")
    assert (here.exit_code, there.exit_code) == (3, 3)
    assert there.stdout.startswith("board:\nzeros (null fp32,")
    assert (
        there.stdout.partition("last line")[2].splitlines()[1:]
        == here.stdout.partition("last line")[2].splitlines()[1:]
    )
    (found,) = json.loads(run(place, "--once", "--json", "--device", "board").stdout)
    assert (found["device"], found["exit_code"]) == ("board", 3)


def test_neither_a_lock_nor_a_job_is_there_afterwards(place, loopback):
    run(place, "--once", "--device", "board")
    assert loopback.left() == []


def test_a_bundle_here_is_found_there_by_its_id(place, tmp_path):
    done = run(tmp_path / "bundle", "--once", "--device", "board")
    assert done.exit_code == 1
    assert "board: " in done.stderr
    assert "no watch wrote there" in done.stderr


def test_a_path_that_is_no_path_of_the_device_is_refused(place):
    done = run("some/where", "--once", "--device", "board")
    assert done.exit_code == 1
    assert "an absolute path there" in done.stderr


def test_one_device_without_a_watch_does_not_hide_another(place, named, loopback, tmp_path):
    gone = loopback.address.__class__(name="gone", host="127.0.0.1", config=tmp_path / "empty")
    (tmp_path / "empty").write_text("Port 1\n")
    named(board=loopback.address, gone=gone)
    done = run(place, "--once", "--device", "board", "--device", "gone")
    assert done.exit_code == 1
    assert "drift" in done.stdout
    assert "gone" in done.stderr
