"""``prune --device``: what moves save is measured on a device behind a real sshd."""

from __future__ import annotations

from pathlib import Path

import pytest
from loopback_sshd import SSHD, loopback_device
from tiny_pruning import BLOCKS_ALONE, NETS, write_striped
from tiny_recipe import edgekit

from edgekit.artifact import read_json

pytestmark = pytest.mark.skipif(SSHD is None, reason="sshd is not installed (Debian: openssh-server)")


def test_a_table_of_latencies_is_measured_on_a_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = write_striped(tmp_path / "project")
    (project / "stripednets.py").write_text(NETS + "\n\ndef small():\n    return Net(blocks=2, width=32)\n")
    recipe = BLOCKS_ALONE.replace("stripednets:Net", "stripednets:small").replace("epochs = 2", "epochs = 1")
    (project / "edgekit.toml").write_text(recipe)
    config = tmp_path / "config/edgekit"
    config.mkdir(parents=True)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    with loopback_device(tmp_path / "board", "board") as board:
        (config / "devices.toml").write_text(f'[bench]\nhost = "board"\nconfig = "{board.folder}/ssh_config"\n')
        done = edgekit(
            "prune", project, "--table-only", "--engine", "onnxruntime", "--device", "bench", "--out", tmp_path / "out"
        )
        assert done.exit_code == 0, done.output
        table = read_json(next((tmp_path / "out").glob("*table*.json")))
        assert (table["source"], table["engine"]) == ("measured", "onnxruntime")
        assert table["rows"], "a move was measured beside the whole network"
        sent = list(board.root.glob("bundles/*/model.onnx"))
        assert len(sent) >= 2, "the whole network and a variant went there"
        assert board.left() == []
    keys = [read_json(path) for path in (tmp_path / "out/.steps").glob("measure-*/step.json")]
    assert {key["device"] for key in keys} == {"bench"}, "nothing was measured anywhere else"
