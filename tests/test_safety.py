"""Nothing that comes from a file runs, and nothing named in a file is read outside its folder."""

from __future__ import annotations

import os
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_bundles import rewrite
from tiny_recipe import RECIPE, edgekit, stripes

from edgekit.artifact import GOLDEN_FILE, MANIFEST_FILE, hash_file, read_json, write_json
from edgekit.runtime.bundle import open_bundle

COMMANDS = ("verify", "inspect", "profile", "run")


class Booby:
    """Makes a file when it is unpickled."""

    def __init__(self, trap: Path) -> None:
        self.trap = trap

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trap),)


@pytest.fixture
def trap(tmp_path):
    """A folder that exists as soon as code from a file has run; pickle alone does make it."""
    path = tmp_path / "trap"
    pickle.loads(pickle.dumps(Booby(path)))  # noqa: S301  # shows that the trap works
    path.rmdir()
    yield path
    assert not path.exists(), "code from a file has run"


@pytest.fixture
def bundle(deployed, tmp_path):
    """The bundle, in a folder that may be changed."""
    return shutil.copytree(deployed.bundle, tmp_path / "bundle")


def run_every_command(bundle: Path) -> list[str]:
    """Tries a bundle in every way there is; none may succeed. Gives the messages."""
    source = bundle.parent / "x.npz"
    np.savez(source, input=stripes(2, seed=0)[0])
    messages = []
    for command in COMMANDS:
        extra = ("--input", source, "--output", bundle.parent / "y.npz") if command == "run" else ()
        done = edgekit(command, bundle, *extra)
        assert done.exit_code == 1, done.output
        assert done.stderr.startswith("error: "), done.stderr
        messages.append(done.stderr)
    assert not (bundle.parent / "y.npz").exists()
    return messages


# --- weights --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["pickle", "torch", "torch in a checkpoint", "torch before 1.6", "named safetensors"])
def test_weights_with_code_are_refused_and_never_run(project, trap, kind):
    name = "teacher.safetensors" if kind == "named safetensors" else "teacher.pt"
    path = project / name
    harmless = {"0.weight": torch.zeros(16, 1, 3, 3)}
    if kind in ("pickle", "named safetensors"):
        path.write_bytes(pickle.dumps(Booby(trap)))
    elif kind == "torch before 1.6":
        torch.save(harmless | {"bad": Booby(trap)}, path, _use_new_zipfile_serialization=False)
    else:
        nested = {"state_dict": harmless, "args": Booby(trap)}
        torch.save(nested if "checkpoint" in kind else harmless | {"bad": Booby(trap)}, path)
    (project / "edgekit.toml").write_text(
        RECIPE.replace('model = "tinynets:teacher"', f'model = "tinynets:teacher"\nweights = "{name}"')
    )
    for command in ("deploy", "distill"):
        done = edgekit(command, project, "--out", project / "out")
        assert done.exit_code == 1
        assert name in done.stderr
        if name.endswith(".pt"):
            assert "holds more than weights, and reading that could run code" in done.stderr


@pytest.mark.parametrize("model", ["teacher.pt", "teacher.pt2", "teacher.pkl"])
def test_a_file_that_would_be_unpickled_is_no_model(project, trap, model):
    (project / model).write_bytes(pickle.dumps(Booby(trap)))
    (project / "edgekit.toml").write_text(RECIPE.replace("tinynets:teacher", model))
    done = edgekit("deploy", project, "--out", project / "out")
    assert done.exit_code == 1
    assert "not something that makes a torch module" in done.stderr


def test_samples_with_code_are_refused_and_never_run(project, trap):
    for file in ("train.npz", "test.npz"):
        np.savez(project / file, x=np.array([Booby(trap)] * 3, dtype=object), y=np.arange(3))
        done = edgekit("deploy", project, "--out", project / "out")
        assert done.exit_code == 1
        assert "Python objects" in done.stderr
        images, labels = stripes(96, seed=2)
        np.savez(project / file, x=images, y=labels)


# --- bundles --------------------------------------------------------------------------------------------------------


def test_golden_samples_with_code_are_refused_and_never_run(bundle, trap):
    with np.load(bundle / GOLDEN_FILE) as archive:
        arrays = dict(archive)
    count = len(arrays["input/input"])
    np.savez(bundle / GOLDEN_FILE, **arrays | {"input/input": np.array([Booby(trap)] * count, dtype=object)})
    rewrite(bundle, lambda raw: raw["files"].update({GOLDEN_FILE: hash_file(bundle / GOLDEN_FILE)}))
    for command in ("verify", "profile"):
        done = edgekit(command, bundle)
        assert done.exit_code == 1
        assert GOLDEN_FILE in done.stderr


PYTHON_FILES = ("sitecustomize.py", "onnxruntime.py", "numpy.py", "edgekit.py", "__init__.py")


def test_a_bundle_that_brings_python_files_is_refused_and_runs_none_of_them(bundle, trap):
    for name in PYTHON_FILES:
        for folder in (bundle, bundle / "artifact"):
            (folder / name).write_text(f"import os; os.mkdir({str(trap)!r})")
    for message in run_every_command(bundle):
        assert "10 files that manifest.json does not list: __init__.py, artifact/__init__.py, " in message
    with open_bundle(bundle, check=False) as opened:  # even where nobody looks
        assert opened.outputs


OUTSIDE = ["../secret", "/etc/hostname", "artifact/../../secret", "C:\\secret", "..\\secret"]


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_path_in_a_manifest_cannot_leave_the_bundle(bundle, name):
    (bundle.parent / "secret").write_text("secret")

    def listed(raw: dict[str, Any]) -> None:
        raw["files"][name] = hash_file(bundle.parent / "secret")

    def opened(raw: dict[str, Any]) -> None:
        listed(raw)
        raw["model"] = name

    for change in (listed, opened):
        rewrite(bundle, change)
        for message in run_every_command(bundle):
            assert "a file name points outside its folder" in message


@pytest.mark.parametrize("linked", ["model", GOLDEN_FILE, "artifact"])
def test_a_link_in_a_bundle_cannot_leave_it(bundle, linked):
    model = read_json(bundle / MANIFEST_FILE)["model"]
    file = bundle / (model if linked == "model" else linked)
    file.rename(bundle.parent / "elsewhere")
    file.symlink_to(bundle.parent / "elsewhere")
    for message in run_every_command(bundle):
        assert "points outside its folder through a link" in message


@pytest.fixture
def large(tmp_path, tiny_onnx):
    """An ONNX file whose weights lie in a file beside it."""
    import onnx

    folder = tmp_path / "large"
    folder.mkdir()
    proto = tiny_onnx("conv")
    for tensor in proto.graph.initializer:  # ONNX text gives lists of numbers, which stay where they are
        tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor), tensor.name))
    onnx.save(proto, folder / "m.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert (folder / "weights.bin").is_file()
    return folder / "m.onnx"


EXPORT = ("--target", "raspberry-pi-4", "--input", "input=f32[1,3,8,8]")


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/hostname", "link.bin"])
def test_external_data_of_an_onnx_file_cannot_leave_its_folder(large, tmp_path, monkeypatch, location):
    import onnx

    monkeypatch.chdir(tmp_path)
    shutil.copy(large.parent / "weights.bin", tmp_path / "secret.bin")
    (large.parent / "link.bin").symlink_to(tmp_path / "secret.bin")
    proto = onnx.load(large, load_external_data=False)
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            entry.value = location if entry.key == "location" else entry.value
    onnx.save(proto, large)
    for args in (("export", large, *EXPORT), ("inspect", large)):
        done = edgekit(*args)
        assert done.exit_code == 1, done.output
        assert "outside its folder" in done.stderr
    assert not (tmp_path / "bundles" / "raspberry-pi-4").exists()


def test_external_data_inside_the_folder_is_taken(large, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = edgekit("export", large, *EXPORT, "--engine", "onnxruntime")
    assert done.exit_code == 4, done.stderr
    assert edgekit("verify", "bundles/raspberry-pi-4").exit_code == 0


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def _flip(path: Path) -> None:
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 1
    path.write_bytes(bytes(whole))


@pytest.mark.parametrize("harm", [_cut, _flip, Path.unlink], ids=["cut", "flipped", "missing"])
@pytest.mark.parametrize("name", ["model", GOLDEN_FILE])
def test_a_damaged_file_of_a_bundle_is_named(bundle, name, harm):
    file = read_json(bundle / MANIFEST_FILE)["model"] if name == "model" else name
    harm(bundle / file)
    for message in run_every_command(bundle):
        assert Path(file).name in message


def test_a_manifest_that_was_changed_says_so(bundle):
    raw = read_json(bundle / MANIFEST_FILE)
    raw["golden"]["floor_db"] = 0.0
    write_json(bundle / MANIFEST_FILE, raw)
    for message in run_every_command(bundle):
        assert "manifest.json is damaged or was changed" in message


def test_a_cut_manifest_says_so(bundle):
    _cut(bundle / MANIFEST_FILE)
    for message in run_every_command(bundle):
        assert "manifest.json: not JSON" in message


def test_a_bundle_of_a_newer_schema_asks_for_an_upgrade(bundle):
    rewrite(bundle, lambda raw: raw.update(schema_version=2, something="new"))
    for message in run_every_command(bundle):
        assert "written in schema 2" in message
        assert "upgrade edgekit" in message


def test_a_bundle_in_an_archive_is_no_bundle(bundle):
    """Nothing is unpacked on the quiet."""
    path = bundle.parent / "bundle.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(bundle / MANIFEST_FILE, MANIFEST_FILE)
    for command in ("verify", "inspect"):
        assert edgekit(command, path).exit_code == 1


def test_a_report_that_is_something_else_is_refused(tmp_path):
    for content in ("[]", "{}", '{"schema_version": 1}', '{"schema_version": 2, "targets": []}', "x", ""):
        (tmp_path / "report.json").write_text(content)
        done = edgekit("report", tmp_path)
        assert done.exit_code == 1
        assert done.stderr.startswith(f"error: {tmp_path}/report.json: ")
        assert done.stderr.count("error: ") == 1
