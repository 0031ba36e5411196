"""``compare --device`` on a real device behind a real sshd."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from loopback_sshd import SSHD, LoopbackDevice, loopback_device
from tiny_bundles import null_bundle

from edgekit.cli.main import cli

pytestmark = pytest.mark.skipif(SSHD is None, reason="sshd is not installed (Debian: openssh-server)")


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    with loopback_device(tmp_path_factory.mktemp("board"), "board") as device:
        yield device


@pytest.fixture
def named(board: LoopbackDevice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The device under two names, and one that is off."""
    folder = tmp_path / "config/edgekit"
    folder.mkdir(parents=True)
    entry = f'host = "board"\nconfig = "{board.folder}/ssh_config"\n'
    off = f'host = "board"\nport = 1\nconfig = "{board.folder}/ssh_config"\n'
    (folder / "devices.toml").write_text(f"[board]\n{entry}[off]\n{off}")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr("edgekit.comparing.spoiled", lambda conditions, load: None)
    monkeypatch.setattr("edgekit.profiling.comparison.rounds_needed", lambda *args: 12)


def run(*args: object) -> Result:
    result = CliRunner().invoke(cli, ["compare", *map(str, args)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_bundles_are_compared_there(board: LoopbackDevice, named: None, tmp_path: Path) -> None:
    quick, slow = null_bundle(tmp_path / "a", latency_us=500.0), null_bundle(tmp_path / "b", latency_us=2000.0)
    file = tmp_path / "c.json"
    done = run(quick, slow, "--device", "board", "--seconds", 3, "--max-regression", "5%", "--json", file)
    assert done.exit_code == 3, done.output
    assert "board:" in done.output
    (found,) = json.loads(file.read_text())
    assert (found["kind"], found["status"]) == ("comparison", "fail")
    assert found["notes"] == ["measured on the device board"]
    (pair,) = found["pairs"]
    assert pair["in_turns"]
    assert pair["finding"] == "slower"
    assert board.left() == []


def test_a_bundle_that_computes_something_else_there_is_not_timed(
    board: LoopbackDevice, named: None, tmp_path: Path
) -> None:
    good, broken = null_bundle(tmp_path / "a"), null_bundle(tmp_path / "b", nan_at=0)
    file = tmp_path / "c.json"
    done = run(good, broken, "--device", "board", "--seconds", 0.2, "--json", file)
    assert done.exit_code == 1
    (found,) = json.loads(file.read_text())
    assert [side["status"] for side in found["sides"]] == ["ok", "failed"]
    assert "golden samples: reference:" in found["sides"][1]["reason"]


def test_a_device_that_is_off_is_told_and_the_other_goes_on(board: LoopbackDevice, named: None, tmp_path: Path) -> None:
    both = null_bundle(tmp_path / "a", latency_us=1000.0), null_bundle(tmp_path / "b", latency_us=1000.0)
    file = tmp_path / "c.json"
    done = run(*both, "--device", "off", "--device", "board", "--seconds", 3, "--json", file)
    assert done.exit_code == 1, "the worst counts"
    off, board_found = json.loads(file.read_text())
    assert (off["device"], set(off)) == ("off", {"device", "error"})
    assert board_found["status"] == "compared"
    assert "error: off:" in done.output


def test_an_engine_that_is_not_there_is_a_side_that_failed(
    board: LoopbackDevice, named: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgekit.devices.places.ENGINES", {"tensorrt": "edgekit.runtime.tensorrt"})
    from edgekit.devices import places

    original = places.place_on

    def without_null(device):
        place = original(device)
        builds = {name: build for name, build in place.builds.items() if name != "null"}
        return places.replace(place, builds=builds, lacking={"null": "it is not installed on board"})

    monkeypatch.setattr(places, "place_on", without_null)
    done = run(null_bundle(tmp_path / "a"), null_bundle(tmp_path / "b"), "--device", "board")
    assert done.exit_code == 1
    assert "cannot run on board" in done.output
