"""The catalogue: what is shipped is right, and folders of the user's own are found without shadowing."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
from pathlib import Path

import pytest

from edgekit import catalog
from edgekit.catalog import list_profiles, list_targets, load_profile, load_target
from edgekit.errors import SpecError, UnknownName
from edgekit.profiling.host import this_host
from edgekit.specs import mismatch

ROOT = Path(__file__).parent.parent
TARGET = 'description = "mine"\nengines = ["onnxruntime"]\nprecisions = ["fp32"]\n'
PROFILE = 'description = "mine"\n[limits]\np50_ms = 5\n'

# Fewest queries for a 99% bound on a percentile (MLPerf early stopping with one late query allowed).
FEWEST = {50.0: 11, 90.0: 64, 95.0: 130, 99.0: 662, 99.9: 6636}


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    monkeypatch.delenv(catalog.CATALOG_VARIABLE, raising=False)


@pytest.fixture
def mine(tmp_path):
    for kind, name, text in (("targets", "my-board", TARGET), ("profiles", "my-budget", PROFILE)):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / f"{name}.toml").write_text(text)
    return tmp_path


def test_every_shipped_target_and_profile_is_there():
    assert [t.name for t in list_targets()] == [
        "cpu-generic",
        "intel-nuc-13",
        "jetson-agx-orin",
        "jetson-agx-thor",
        "jetson-orin-nano",
        "local",
        "nvidia-l4",
        "nvidia-t4",
        "raspberry-pi-4",
        "raspberry-pi-5",
        "x86-avx2",
        "x86-vnni",
    ]
    names = ["always-on", "interactive", "offline-batch", "realtime-30fps", "realtime-60fps"]
    assert [p.name for p in list_profiles()] == names


@pytest.mark.parametrize("path", sorted([*ROOT.glob("targets/*.toml"), *ROOT.glob("profiles/*.toml")]), ids=str)
def test_every_figure_has_a_comment_with_its_source(path):
    above = False
    for line in path.read_text(encoding="utf-8").splitlines():
        figure = re.match(r"\w+ = -?\d", line)
        own = "#" in line and figure is not None
        choice_of_the_load = line.startswith(("min_seconds", "batch"))
        assert not figure or own or above or choice_of_the_load, f"{path.name}: {line}"
        above = line.startswith("#") or (above and bool(line.strip()))


def test_local_is_this_host():
    local = load_target("local")
    host = this_host()
    assert (local.arch, local.isa, local.cpu_model) == (host.arch, host.isa, host.cpu_model)
    assert (local.cores, local.threads, local.memory_mb) == (host.cores, host.cores, int(host.memory_mb))
    assert mismatch(local, host) is None


def test_what_the_host_does_not_know_is_left_out(monkeypatch):
    bare = dataclasses.replace(this_host(), arch="riscv64", isa="unknown", cpu_model="unknown", memory_mb=0.0)
    monkeypatch.setattr(catalog, "this_host", lambda: bare)
    local = load_target("local")
    assert (local.arch, local.isa, local.cpu_model, local.memory_mb) == (None, None, None, None)
    assert mismatch(local, bare) is None


def test_what_the_file_says_is_kept(mine):
    (mine / "targets" / "one-thread.toml").write_text(TARGET + "from_host = true\nthreads = 1\n")
    assert load_target("one-thread", [mine]).threads == 1


def test_the_rules_of_the_devices():
    assert load_target("raspberry-pi-4").isa == "neon"
    assert load_target("raspberry-pi-5").isa == "neon-dotprod"
    for name in ("jetson-orin-nano", "jetson-agx-orin", "jetson-agx-thor", "nvidia-l4", "nvidia-t4"):
        assert load_target(name).engines == ("tensorrt", "onnxruntime")
        assert load_target(name).options["onnxruntime"] == {"provider": "CUDAExecutionProvider"}
    assert "bf16" not in load_target("nvidia-t4").precisions
    for name in ("local", "cpu-generic", "x86-vnni", "x86-avx2", "intel-nuc-13"):
        assert set(load_target(name).engines) == {"openvino", "onnxruntime"}


def test_int8_is_never_slower_than_floats_on_paper():
    for target in list_targets():
        peaks = [target.peak_gops[p] for p in ("fp32", "fp16", "int8") if p in target.peak_gops]
        assert peaks == sorted(peaks), target.name
        assert set(target.peak_gops) <= set(target.precisions)


def test_every_profile_measures_enough_for_its_limits():
    for profile in list_profiles():
        for percentile in profile.limits.percentiles():
            assert profile.load.min_count >= FEWEST[percentile], profile.name
        assert profile.limits.max_drop_points == 1.0


def test_folders_of_the_users_own(mine):
    assert load_target("my-board", [mine]).description == "mine"
    assert load_profile("my-budget", [mine]).limits.p50_ms == 5
    assert "my-board" in [t.name for t in list_targets([mine])]
    assert "my-budget" in [p.name for p in list_profiles([mine])]


def test_folders_of_the_environment(mine, tmp_path_factory, monkeypatch):
    other = tmp_path_factory.mktemp("other")
    monkeypatch.setenv(catalog.CATALOG_VARIABLE, f"{other}{os.pathsep}{mine}{os.pathsep}")
    assert load_target("my-board").name == "my-board"


def test_a_folder_given_twice_or_the_checkout_itself_is_no_conflict(mine):
    assert load_target("my-board", [mine, mine]).name == "my-board"
    assert len(list_targets([ROOT])) == len(list_targets())


def test_a_copy_of_a_shipped_file_is_no_conflict(mine):
    shutil.copyfile(ROOT / "targets" / "x86-vnni.toml", mine / "targets" / "x86-vnni.toml")
    assert load_target("x86-vnni", [mine]) == load_target("x86-vnni")


def test_an_unknown_name_gives_the_nearest():
    with pytest.raises(UnknownName, match=r"unknown target 'rasbpery-pi-4'(.|\n)*did you mean 'raspberry-pi-4'"):
        load_target("rasbpery-pi-4")
    with pytest.raises(UnknownName, match=r"unknown profile 'realtime-30'(.|\n)*did you mean 'realtime-30fps'"):
        load_profile("realtime-30")


def test_a_name_of_the_users_own_never_shadows_a_shipped_one(mine):
    (mine / "targets" / "x86-vnni.toml").write_text(TARGET)
    with pytest.raises(SpecError, match=r"target 'x86-vnni' is defined twice") as caught:
        load_target("my-board", [mine])
    assert str(ROOT / "targets" / "x86-vnni.toml") in str(caught.value.found)
    assert str(mine / "targets" / "x86-vnni.toml") in str(caught.value.found)


def test_a_missing_folder_is_an_error(tmp_path, monkeypatch):
    with pytest.raises(SpecError, match=r"catalogue folder .*nowhere does not exist"):
        list_targets([tmp_path / "nowhere"])
    monkeypatch.setenv(catalog.CATALOG_VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(SpecError, match="nowhere does not exist"):
        load_profile("interactive")


def test_a_name_that_ends_in_toml_is_a_path(mine, monkeypatch):
    path = mine / "targets" / "my-board.toml"
    assert load_target(str(path)).name == "my-board"
    assert load_target("targets/my-board.toml", [mine]).name == "my-board"
    monkeypatch.chdir(mine)
    assert load_target("targets/my-board.toml").name == "my-board"
    assert load_target("targets/my-board.toml", [mine]).name == "my-board"


def test_a_path_to_nothing_or_to_two_files_is_an_error(mine, tmp_path_factory, monkeypatch):
    with pytest.raises(SpecError, match=r"target file 'no\.toml' does not exist(.|\n)*no file at"):
        load_target("no.toml", [mine])
    other = tmp_path_factory.mktemp("other")
    (other / "t.toml").write_text(TARGET)
    (mine / "t.toml").write_text(TARGET)
    monkeypatch.chdir(other)
    with pytest.raises(SpecError, match="could be several files"):
        load_target("t.toml", [mine])


def test_a_wrong_file_names_itself(mine):
    path = mine / "targets" / "my-board.toml"
    path.write_text(TARGET + "core = 4")
    with pytest.raises(SpecError, match=re.escape(str(path)) + r": unknown key 'core'(.|\n)*did you mean 'cores'"):
        load_target("my-board", [mine])


def test_data_inside_the_package_comes_before_the_checkout(tmp_path, monkeypatch):
    (tmp_path / "_data" / "targets").mkdir(parents=True)
    (tmp_path / "_data" / "targets" / "packed.toml").write_text(TARGET)
    monkeypatch.setattr(catalog, "files", lambda name: tmp_path)
    assert [t.name for t in list_targets()] == ["packed"]


def test_local_runs_the_half_precisions_that_this_cpu_computes_in(monkeypatch):
    for has in ((), ("bf16",), ("fp16", "bf16")):
        monkeypatch.setattr(catalog, "half_precisions_here", lambda has=has: has)
        assert load_target("local").precisions == ("fp32", *has, "int8", "w8", "w4")
