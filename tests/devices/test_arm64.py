"""An emulated aarch64 device. Numbers, protocol and files are what is looked at, never speed."""

from __future__ import annotations

import json

import pytest
from tiny_recipe import edgekit

from edgekit.profiling.host import this_host


@pytest.fixture(autouse=True)
def board(named, arm64):
    named(board=arm64)


def test_a_bundle_of_this_machine_computes_the_same_there(deployed):
    done = edgekit("verify", deployed.bundle, "--device", "board", "--json")
    assert done.exit_code == 0, done.stderr
    (found,) = json.loads(done.stdout)
    assert found["host"]["arch"] == "aarch64"
    assert found["reference_db"] >= found["floor_db"]
    assert found["own_db"] is None  # bit for bit is asked of one build and one family of CPUs only
    assert "send" not in edgekit("verify", deployed.bundle, "--device", "board").stderr


@pytest.mark.skipif(this_host().arch == "aarch64", reason="needs a host of another architecture")
def test_no_time_is_taken_of_a_bundle_for_another_architecture(deployed):
    done = edgekit("profile", deployed.bundle, "--device", "board")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "board: this device is not what 'local' means\n  found:   aarch64\n  allowed: x86_64" in done.stderr


def test_doctor_tells_what_it_is():
    done = edgekit("doctor", "--device", "board", "--json")
    assert done.exit_code == 0, done.stderr
    (found,) = json.loads(done.stdout)
    assert (found["host"]["arch"], found["host"]["isa"]) == ("aarch64", "neon")
    assert (found["engines"]["onnxruntime"], found["engines"]["openvino"] is None) == (None, False)
    assert found["timing"]["conditions"]["after"]["temperature_c"] == pytest.approx(48.312)
