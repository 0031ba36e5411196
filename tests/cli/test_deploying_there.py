"""``deploy --device``: the verdict of a target comes from a device behind a real sshd."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from device_project import write_device_project
from fake_line import write_model
from loopback_sshd import SSHD, LoopbackDevice, loopback_device
from sshd_sessions import cut
from tiny_recipe import edgekit

from edgekit.apart import Apart
from edgekit.artifact import read_json
from edgekit.devices import measuring
from edgekit.pipeline import Choices
from edgekit.pipeline import deploy as run
from edgekit.profiling.host import this_host
from edgekit.recipe import load_recipe
from edgekit.runtime.placement import PlacedNode, Placement

pytestmark = pytest.mark.skipif(SSHD is None, reason="sshd is not installed (Debian: openssh-server)")


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    with loopback_device(tmp_path_factory.mktemp("board"), "board") as device:
        yield device


@pytest.fixture
def recipe(board: LoopbackDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe without training; targets that are this machine and one that is not; a user's devices."""
    folder = write_device_project(tmp_path / "project")
    config = tmp_path / "config/edgekit"
    config.mkdir(parents=True)
    (config / "devices.toml").write_text(f'[bench]\nhost = "board"\nconfig = "{board.folder}/ssh_config"\n')
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return folder


def deploy(recipe: Path, *more: object) -> Any:
    return edgekit("deploy", recipe, "--out", recipe / "out", "--target", recipe / "board.toml", *more)


def test_the_verdict_is_of_the_device(board: LoopbackDevice, recipe: Path) -> None:
    done = deploy(recipe, "--device", "bench")
    assert done.exit_code == 0, done.output
    assert "measured on: bench: " in done.output
    (target,) = read_json(recipe / "out/report.json")["targets"]
    assert (target["status"], target["not_measured"], target["device"]["name"]) == ("pass", None, "bench")
    assert target["device"]["host"]["arch"] == this_host().arch
    (candidate,) = target["candidates"]
    assert candidate["measured"]["application"]["n"] >= 50
    timings = read_json(recipe / "out/board/manifest.json")["timings"]
    assert timings["host"] == target["device"]["host"]
    assert board.left() == []
    sent = {path.name for path in board.root.glob("bundles/*/*")}
    assert {"manifest.json", "golden.npz", "feeds.npz"} <= sent, "a candidate is a bundle there, and was verified"
    again = deploy(recipe, "--device", "bench")
    assert again.exit_code == 0
    assert "bench: measure: " in done.output
    assert "measure: " not in again.output, "what was measured on this device is not measured again"
    missed = deploy(recipe, "--device", "bench", "--profile", recipe / "impossible.toml")
    assert missed.exit_code == 3


def test_what_ran_in_int8_is_what_the_device_tells(
    board: LoopbackDevice, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine's record here is another one: as of a board with other kernels."""
    node = PlacedNode(name="here", op="OnlyHere", precision="int8", compute=True, macs=1)
    monkeypatch.setattr(Apart, "placement", lambda self, samples=None: Placement(device="cpu", nodes=(node,)))
    done = deploy(recipe, "--device", "bench", "--precision", "int8", "--engine", "onnxruntime")
    assert done.exit_code in (0, 4), done.output
    (target,) = read_json(recipe / "out/report.json")["targets"]
    proof = target["candidates"][0]["proof"]
    assert proof["placed_there"]
    assert proof["int8_share"] == 1.0
    assert "QLinearConv" in {placed["op"] for placed in proof["placement"]}
    assert "OnlyHere" not in str(proof)
    assert "100% of the nodes" in (recipe / "out/report.md").read_text()
    assert "on bench" in (recipe / "out/report.md").read_text()
    accuracy = read_json(recipe / "out/board/manifest.json")["accuracy"]
    assert (accuracy["placed_there"], accuracy["placement"][0]["op"]) == (True, proof["placement"][0]["op"])


def test_auto_chooses_by_what_the_device_took(board: LoopbackDevice, recipe: Path) -> None:
    """15 s where nothing else runs: two plans are made, proven and measured."""
    done = deploy(recipe, "--device", "bench", "--precision", "auto")
    assert done.exit_code == 0, done.output
    (target,) = read_json(recipe / "out/report.json")["targets"]
    found = {candidate["precision"]: candidate for candidate in target["candidates"]}
    assert {"fp32", "int8"} <= set(found)
    for precision in ("fp32", "int8"):
        assert found[precision]["measured"]["application"]["n"] >= 50
        assert found[precision]["proof"]["placed_there"]
    keys = [read_json(path) for path in (recipe / "out/.steps").glob("measure-*/step.json")]
    assert {key["device"] for key in keys} == {"bench"}, "nothing was measured anywhere else"
    assert board.left() == []
    again = deploy(recipe, "--device", "bench", "--precision", "auto")
    assert (again.exit_code, "measure: " in again.output) == (0, False), again.output


def test_quantize_takes_a_device_too(board: LoopbackDevice, recipe: Path) -> None:
    model = write_model(recipe / "zeros.onnx")
    target = ("--target", recipe / "board.toml", "--profile", recipe / "quick.toml", "--precision", "fp32")
    done = edgekit("quantize", model, *target, "--device", "bench", "--out", recipe / "bundle")
    assert done.exit_code == 4, f"of its accuracy nothing is known: {done.output}"
    (target,) = read_json(recipe / "bundle.report.json")["targets"]
    assert (target["not_measured"], target["device"]["name"]) == (None, "bench")
    assert board.left() == []


def test_numbers_that_differ_there_are_told_and_nothing_is_timed(
    board: LoopbackDevice, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a board whose engine computes something else: the golden outputs are not what it gives."""
    import edgekit.making

    original = edgekit.making.make_golden

    def other(artifact, references, samples, batch):
        made = original(artifact, references, samples, batch)
        arrays = {
            name: -array if name.startswith(("reference/", "artifact/")) else array
            for name, array in made.arrays.items()
        }
        return type(made)(arrays=arrays, golden=made.golden)

    monkeypatch.setattr(edgekit.making, "make_golden", other)
    done = deploy(recipe, "--device", "bench")
    assert done.exit_code == 1
    assert "nothing ships for board: onnxruntime fp32: golden samples: reference: -6.0 dB" in done.output
    (target,) = read_json(recipe / "out/report.json")["targets"]
    assert target["candidates"][0]["measured"]["application"] is None
    assert not (recipe / "out/board").exists()


def test_a_device_that_is_not_the_target_is_refused_before_any_work(board: LoopbackDevice, recipe: Path) -> None:
    done = edgekit("deploy", recipe, "--out", recipe / "out", "--target", recipe / "pi.toml", "--device", "bench")
    assert done.exit_code == 1
    assert "not what 'pi' means" in done.output
    assert not (recipe / "out").exists()


def test_each_target_takes_its_device_and_one_that_is_lost_takes_no_other_with_it(
    board: LoopbackDevice, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "GRACE_S", 2.0)
    with loopback_device(tmp_path / "weak", "weak") as weak:
        devices = tmp_path / "config/edgekit/devices.toml"
        devices.write_text(devices.read_text() + f'[weak]\nhost = "weak"\nconfig = "{weak.folder}/ssh_config"\n')
        told: list[str] = []

        def progress(step: str, done: int, total: int, note: str = "") -> None:
            if step == "weak: measure" and step not in told:
                cut(weak)
                weak.process.terminate()
            told.append(step)

        choices = Choices(
            targets=(str(recipe / "another.toml"), str(recipe / "board.toml")),
            devices=("weak", "bench"),
            engine="onnxruntime",
        )
        report = run(load_recipe(recipe), recipe, recipe / "out", choices, progress=progress)
    lost, good = report["targets"]
    assert (lost["target"], lost["device"]["name"], lost["exit_code"]) == ("another", "weak", 1)
    assert "weak" in lost["candidates"][0]["failure"]
    assert (good["target"], good["device"]["name"], good["status"]) == ("board", "bench", "pass")
    assert report["exit_code"] == 1
