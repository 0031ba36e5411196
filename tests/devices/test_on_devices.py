"""``verify``, ``profile`` and ``doctor`` with ``--device``, from the command line to a real sshd and back."""

from __future__ import annotations

import importlib.util
import json
import shutil

import pytest
from loopback_sshd import loopback_device
from tiny_recipe import edgekit

from edgekit.artifact import hash_file, read_json
from edgekit.profiling.host import this_host


@pytest.fixture(autouse=True)
def board(named, loopback):
    named(board=loopback.address)


def test_verify_says_of_a_device_what_it_says_here(deployed, loopback):
    here = edgekit("verify", deployed.bundle)
    there = edgekit("verify", deployed.bundle, "--device", "board")
    assert there.exit_code == 0, there.stderr
    assert there.stdout == f"board: {here.stdout}"
    assert loopback.left() == []


def test_verify_a_second_time_sends_nothing(deployed):
    edgekit("verify", deployed.bundle, "--device", "board")
    done = edgekit("verify", deployed.bundle, "--device", "board", "--json")
    assert done.stderr.splitlines() == ["board: verify: 0/1", "board: verify: 1/1"]
    (found,) = json.loads(done.stdout)
    assert (found["device"], found["passed"], found["host"]["cpu_model"]) == ("board", True, this_host().cpu_model)


def test_a_bundle_that_was_damaged_there_is_sent_again(linear, loopback):
    assert edgekit("verify", linear, "--device", "board").exit_code == 0
    there = loopback.root / "bundles" / hash_file(linear / "manifest.json") / "artifact/model.onnx"
    sound = there.read_bytes()
    there.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    done = edgekit("verify", linear, "--device", "board")
    assert (done.exit_code, "board: send: 1/1 MB" in done.stderr.splitlines()) == (0, True), done.stderr
    assert there.read_bytes() == sound


def test_profile_judges_what_was_measured_there(deployed, tmp_path, loopback):
    done = edgekit("profile", deployed.bundle, "--device", "board", "--json", tmp_path / "found.json")
    assert done.exit_code in (0, 4), done.stderr  # a busy machine leaves it open
    assert done.stdout.startswith("board:\n")
    (found,) = read_json(tmp_path / "found.json")
    assert found["device"]["name"] == "board"
    assert found["measured"]["application"]["n"] >= 50
    assert loopback.left() == []


def test_doctor_tells_what_a_device_is(loopback):
    done = edgekit("doctor", "--device", "board")
    assert done.exit_code == 0, done.stderr
    assert f"board: {this_host().cpu_model}" in done.stdout
    assert "engines:  onnxruntime, openvino" in done.stdout
    if importlib.util.find_spec("tensorrt") is None:
        why = done.stdout.index("- tensorrt does not run there")
        assert done.stdout.index("engines:") < why < done.stdout.index("targets:"), "beside the engines that run"
    assert loopback.left() == []


def test_one_device_that_fails_does_not_stop_the_others(deployed, named, loopback, tmp_path):
    gone = loopback.address.__class__(name="gone", host="127.0.0.1", config=tmp_path / "empty")
    (tmp_path / "empty").write_text("Port 1\n")
    with loopback_device(tmp_path / "second", "second") as second:
        named(board=loopback.address, gone=gone, second=second.address)
        argv = ["--device", "board", "--device", "gone", "--device", "second"]
        done = edgekit("verify", deployed.bundle, *argv)
        assert done.exit_code == 1
        assert done.stdout.count(": verified") == 2
        assert "error: gone: it cannot be reached" in done.stderr
        assert {"board: verify: 1/1", "second: verify: 1/1"} <= set(done.stderr.splitlines())
        found = json.loads(edgekit("verify", deployed.bundle, *argv, "--json").stdout)
        assert [one["device"] for one in found] == ["board", "gone", "second"]
        assert found[1]["error"]["problem"] == "gone: it cannot be reached"


def test_an_unknown_name_is_told_before_anything_is_done(deployed):
    done = edgekit("verify", deployed.bundle, "--device", "bord")
    assert done.exit_code == 1
    assert "unknown device 'bord'" in done.stderr
    assert "did you mean 'board'?" in done.stderr


def test_a_bundle_that_is_damaged_here_is_not_sent(deployed, tmp_path, loopback):
    bundle = shutil.copytree(deployed.bundle, tmp_path / "bundle")
    (bundle / "golden.npz").write_bytes(b"")
    done = edgekit("verify", bundle, "--device", "board")
    assert (done.exit_code, "damaged" in done.stderr) == (1, True)


def test_wheels_without_a_device_are_a_usage_error(deployed):
    assert edgekit("verify", deployed.bundle, "--wheels").exit_code == 2
