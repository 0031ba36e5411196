"""``prune --device``: what moves save is measured on a device behind a real sshd."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback_sshd import SSHD, LoopbackDevice, loopback_device
from tiny_pruning import BLOCKS_ALONE, NETS, write_striped
from tiny_recipe import edgekit

from edgekit.artifact import read_json

pytestmark = pytest.mark.skipif(SSHD is None, reason="sshd is not installed (Debian: openssh-server)")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe that leaves blocks out of a small network; its devices are of a file of its own."""
    folder = write_striped(tmp_path / "project")
    (folder / "stripednets.py").write_text(NETS + "\n\ndef small():\n    return Net(blocks=3, width=32)\n")
    recipe = BLOCKS_ALONE.replace("stripednets:Net", "stripednets:small").replace("epochs = 2", "epochs = 1")
    (folder / "edgekit.toml").write_text(recipe)
    (tmp_path / "config/edgekit").mkdir(parents=True)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return folder


@pytest.fixture
def board(project: Path, tmp_path: Path) -> Iterator[LoopbackDevice]:
    with loopback_device(tmp_path / "board", "board") as device:
        entry = f'[bench]\nhost = "board"\nconfig = "{device.folder}/ssh_config"\n'
        (tmp_path / "config/edgekit/devices.toml").write_text(entry)
        yield device


def measured_on(out: Path) -> set[str | None]:
    """Where what was measured in a run was."""
    return {read_json(path).get("device") for path in (out / ".steps").glob("measure-*/step.json")}


def test_a_table_of_latencies_is_measured_on_a_device(project: Path, board: LoopbackDevice, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = edgekit("prune", project, "--table-only", "--engine", "onnxruntime", "--device", "bench", "--out", out)
    assert done.exit_code == 0, done.output
    table = read_json(next(out.glob("*table*.json")))
    assert (table["source"], table["engine"]) == ("measured", "onnxruntime")
    assert table["rows"], "a move was measured beside the whole network"
    sent = list(board.root.glob("bundles/*/model.onnx"))
    assert len(sent) >= 2, "the whole network and a variant went there"
    assert board.left() == []
    assert measured_on(out) == {"bench"}, "nothing was measured anywhere else"


def test_a_network_is_pruned_to_what_a_device_takes_and_deployed_there(
    project: Path, board: LoopbackDevice, tmp_path: Path
) -> None:
    """15 s where nothing else runs: a teacher and a step are trained, and five networks measured."""
    there = (project, "--engine", "onnxruntime", "--device", "bench", "--out", tmp_path / "out")
    done = edgekit("prune", *there)
    assert done.exit_code in (0, 3), done.output  # a busy machine may hide what a step saves
    assert "measured on: bench" in done.output
    assert read_json(tmp_path / "out/pruning.json")["device"] == "bench"
    assert "--device bench" in done.output.rpartition("next: edgekit deploy")[2]
    assert measured_on(tmp_path / "out") == {"bench"}, "nothing was measured anywhere else"
    assert board.left() == []
    deployed = edgekit("deploy", *there)
    assert deployed.exit_code in (0, 4), deployed.output
    assert "train " not in deployed.output, "what was pruned is what is deployed"
    report = read_json(tmp_path / "out/report.json")
    (target,) = report["targets"]
    assert target["device"]["name"] == "bench"
    assert measured_on(tmp_path / "out") == {"bench"}
    assert board.left() == []
