"""The whole line with torch and both CPU engines: what the null engine cannot show."""

import getpass
import os
import shutil
import sys
import zipfile
from pathlib import Path

import pytest
from fake_line import leftovers, quick_profile, torch_recipe, write_torch_project

from edgekit.artifact import read_json
from edgekit.pipeline import Choices, deploy
from edgekit.runtime import verify_bundle

TRIES = [(engine, precision) for engine in ("onnxruntime", "openvino") for precision in ("fp32", "int8")]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """The same recipe deployed in two folders, once an engine and precision: bundles by folder and try."""
    made = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgekit.pipeline.load_profile", lambda name, folders: quick_profile(p50_ms=1000.0))
        for place in ("here", "elsewhere"):
            folder = tmp_path_factory.mktemp(place)
            project = write_torch_project(folder / "real_nets")
            sys.modules.pop("real_nets", None)
            for engine, precision in TRIES:
                choices = Choices(targets=("local",), engine=engine, precision=precision)
                report = deploy(
                    torch_recipe(project), project, folder / "run", choices, command=f"edgekit deploy {project}"
                )
                assert report["exit_code"] == 0, report["targets"][0]["why"]
                kept = folder / f"{engine}-{precision}"
                shutil.copytree(folder / "run" / "local", kept)
                made[place, engine, precision] = kept
            assert leftovers(folder) == []
    yield made
    sys.modules.pop("real_nets", None)


@pytest.mark.parametrize(("engine", "precision"), TRIES)
def test_the_id_is_the_same_in_another_folder(bundles, engine, precision):
    here, there = (read_json(bundles[place, engine, precision] / "manifest.json") for place in ("here", "elsewhere"))
    assert here["files"] == there["files"]
    measured = {"timings", "timings_sha256"}
    assert {key: here[key] for key in here if key not in measured} == {
        key: there[key] for key in there if key not in measured
    }
    assert here["id"] == there["id"]


@pytest.mark.parametrize(("engine", "precision"), TRIES)
def test_no_path_of_this_machine_is_in_any_byte_of_a_bundle(bundles, engine, precision):
    bundle = bundles["here", engine, precision]
    tests = Path(__file__).parent
    forbidden = [
        str(bundle.parent),
        bundle.parent.name,
        "real_nets.py",
        str(Path.home()),
        str(tests),
        os.getcwd(),
        sys.prefix,
    ]
    forbidden += [] if getpass.getuser() == "root" else [getpass.getuser()]
    files = [path for path in bundle.rglob("*") if path.is_file()]
    assert len(files) >= 3
    for path in files:
        contents = {path.name: path.read_bytes()}
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                contents |= {name: archive.read(name) for name in archive.namelist()}
                assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        for name, content in contents.items():
            for text in forbidden:
                assert text.encode() not in content, f"{text} is in {path.name}/{name}"
                assert text.encode("utf-16-le") not in content


@pytest.mark.parametrize(("engine", "precision"), TRIES)
def test_a_bundle_verifies_and_names_its_ancestors(bundles, engine, precision):
    bundle = bundles["here", engine, precision]
    found = verify_bundle(bundle)
    assert (found.passed, found.same_build) == (True, True)
    assert found.own_db >= 80
    manifest = read_json(bundle / "manifest.json")
    kinds = [parent["kind"] for parent in manifest["parents"]]
    assert kinds == ["data", "data", "teacher", "student", "fp32", *(["quantized"] if precision == "int8" else [])]
    assert manifest["engine_version"] == manifest["golden"]["engine_version"]
    assert manifest["accuracy"]["metric"] == "accuracy"
    assert manifest["golden"]["samples"] == 16


def test_students_are_the_same_whatever_ships(bundles):
    students = {
        parent["sha256"]
        for bundle in bundles.values()
        for parent in read_json(bundle / "manifest.json")["parents"]
        if parent["kind"] == "student"
    }
    assert len(students) == 1
