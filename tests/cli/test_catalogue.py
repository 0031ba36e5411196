"""``edgekit targets`` and ``edgekit profiles``."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from edgekit.catalog import list_profiles, list_targets, load_target
from edgekit.cli.main import cli
from edgekit.profiling.host import this_host
from edgekit.specs import mismatch


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("EDGEKIT_CATALOG", raising=False)


@pytest.fixture
def mine(tmp_path):
    (tmp_path / "targets").mkdir()
    (tmp_path / "targets" / "my-board.toml").write_text(
        'description = "mine"\nengines = ["onnxruntime"]\nprecisions = ["fp32"]\ncores = 4096\n'
    )
    return tmp_path


def edgekit(*args):
    return CliRunner().invoke(cli, list(args))


@pytest.mark.parametrize("kind", ["targets", "profiles"])
def test_lists_fit_80_columns_and_name_everything(kind):
    shown = edgekit(kind)
    assert shown.exit_code == 0
    assert max(map(len, shown.output.splitlines())) <= 80
    for item in list_targets() if kind == "targets" else list_profiles():
        assert any(line.split()[:1] == [item.name] for line in shown.output.splitlines())


def test_the_list_says_which_target_this_host_is():
    rows = json.loads(edgekit("targets", "--json").output)
    assert [row["name"] for row in rows] == [target.name for target in list_targets()]
    for row, target in zip(rows, list_targets(), strict=True):
        assert row["mismatch"] == mismatch(target, this_host())
        assert row["is_this_host"] is (row["mismatch"] is None)
    assert {row["name"]: row for row in rows}["local"]["is_this_host"]


def test_one_target_shows_all_its_fields():
    shown = edgekit("targets", "raspberry-pi-5")
    assert shown.exit_code == 0
    for field in type(load_target("raspberry-pi-5")).model_fields:
        assert any(line.split()[:1] == [field] for line in shown.output.splitlines()), field
    assert "fp32 = 153.6" in shown.output
    assert "Raspberry Pi 5 Model B" in shown.output


def test_one_profile_shows_its_limits():
    shown = edgekit("profiles", "realtime-30fps")
    assert shown.exit_code == 0
    assert "p99_ms = 33.3" in shown.output
    assert "p50_ms" not in shown.output


def test_one_of_them_as_json():
    assert json.loads(edgekit("targets", "nvidia-l4", "--json").output)["gpu"] == "NVIDIA L4"
    assert json.loads(edgekit("profiles", "interactive", "--json").output)["limits"]["p99_ms"] == 100.0
    assert len(json.loads(edgekit("profiles", "--json").output)) == len(list_profiles())


def test_a_catalogue_of_the_users_own(mine):
    assert "my-board" in edgekit("targets", "--catalog", str(mine)).output
    shown = edgekit("targets", "my-board", "--catalog", str(mine))
    assert "the target has at least 4096" in shown.output
    path = str(mine / "targets" / "my-board.toml")
    assert json.loads(edgekit("targets", path, "--json").output)["description"] == "mine"


def test_unknown_names_are_told():
    shown = edgekit("targets", "raspbery-pi-4")
    assert shown.exit_code == 1
    assert shown.stderr.startswith("error: unknown target 'raspbery-pi-4'")
    assert "did you mean 'raspberry-pi-4'?" in shown.stderr
    assert edgekit("profiles", "nothing").exit_code == 1


def test_a_missing_catalogue_is_a_usage_error(tmp_path):
    assert edgekit("targets", "--catalog", str(tmp_path / "nowhere")).exit_code == 2
