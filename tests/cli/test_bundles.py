"""``run``, ``verify``, ``inspect`` and ``profile`` on a finished bundle."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
from tiny_recipe import CLASSES, as_tensors, edgekit, stripes, student_onnx

from edgekit.artifact import bundle_id, read_json, write_json
from edgekit.runtime import files
from edgekit.runtime.manifest import read_manifest


@pytest.fixture
def samples(tmp_path):
    """Writes an .npz in the test's folder."""

    def write(**arrays):
        path = tmp_path / "x.npz"
        np.savez(path, **arrays)
        return path

    return write


@pytest.fixture
def bundle(deployed, tmp_path):
    """The bundle, in a folder that may be changed."""
    return shutil.copytree(deployed.bundle, tmp_path / "bundle")


def load(path):
    with np.load(path) as archive:
        return dict(archive)


def test_run_preprocesses_raw_samples(deployed, samples, tmp_path):
    images, labels = stripes(37, seed=2)
    sink = tmp_path / "y.npz"
    done = edgekit("run", deployed.bundle, "--input", samples(input=images), "--output", sink)
    assert (done.exit_code, done.output) == (0, "output: float32[37, 3]\n")
    found = load(sink)
    assert list(found) == ["output"]
    assert (found["output"].argmax(1) == labels).mean() > 0.9


def test_run_raw_takes_model_tensors(deployed, samples, tmp_path):
    images, _ = stripes(9, seed=2)
    for name, path, raw in (("a", samples(input=images), []), ("b", None, ["--raw"])):
        path = path or samples(input=as_tensors(images))
        assert edgekit("run", deployed.bundle, "--input", path, "--output", tmp_path / name, *raw).exit_code == 0
    np.testing.assert_allclose(load(tmp_path / "a")["output"], load(tmp_path / "b")["output"], atol=1e-4)


def test_run_takes_the_one_array_by_any_name(deployed, samples, tmp_path):
    done = edgekit("run", deployed.bundle, "--input", samples(x=stripes(3, 2)[0]), "--output", tmp_path / "y.npz")
    assert done.exit_code == 0, done.stderr


IMAGES = stripes(4, seed=2)[0]
TENSORS = as_tensors(IMAGES)
BAD_FEEDS = {
    "wrong name": ({"imput": TENSORS, "b": TENSORS}, True, ["unknown input 'imput'", "did you mean 'input'?"]),
    "wrong name, raw": ({"imput": IMAGES, "b": IMAGES}, False, ["input 'input' is missing", "imput, b"]),
    "one too many": ({"input": TENSORS, "b": TENSORS}, True, ["unknown input 'b'"]),
    "wrong dtype": ({"input": TENSORS.astype(float)}, True, ["wrong dtype", "float64", "float32"]),
    "raw samples with --raw": ({"input": IMAGES}, True, ["wrong dtype", "uint8", "leave it out", "NHWC"]),
    "tensors without --raw": ({"input": TENSORS}, False, ["wrong shape", "give --raw with model tensors"]),
    "wrong shape": ({"input": TENSORS[:, :, :5]}, True, ["wrong shape", "[1, 1, 5, 12]", "[1, 1, 12, 12]"]),
    "wrong rank": ({"input": TENSORS[0, 0]}, True, ["wrong shape"]),
    "no samples": ({"input": TENSORS[:0]}, True, ["at least one", "input: 0"]),
    "a number": ({"input": np.float32(1)}, True, ["at least one"]),
    "text": ({"input": np.array(["a", "b"])}, False, ["numbers"]),
}


@pytest.mark.parametrize("case", BAD_FEEDS)
def test_run_says_what_does_not_fit_and_writes_nothing(deployed, samples, tmp_path, case):
    arrays, raw, words = BAD_FEEDS[case]
    path = samples(**arrays)
    done = edgekit("run", deployed.bundle, "--input", path, "--output", tmp_path / "y.npz", *(["--raw"] * raw))
    assert done.exit_code == 1
    assert done.stderr.startswith(f"error: {path}: ")
    for word in words:
        assert word in done.stderr
    assert done.stdout == ""
    assert [p.name for p in tmp_path.iterdir()] == ["x.npz"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"x = 1", "not an .npz file"),
        (b"", "not an .npz file"),
        ("half", "not an .npz file"),
        ("pickle", "holds Python objects"),
        ("nothing", "no arrays in it"),
    ],
)
def test_run_says_what_is_wrong_with_the_file(deployed, samples, tmp_path, content, message):
    path = tmp_path / "x.npz"
    if content == "pickle":
        samples(input=np.array([{}], dtype=object))
    elif content == "nothing":
        samples()
    elif content == "half":
        samples(input=IMAGES)
        path.write_bytes(path.read_bytes()[:-30])
    elif content is not None:
        path.write_bytes(content)
    done = edgekit("run", deployed.bundle, "--input", path, "--output", tmp_path / "y.npz")
    assert done.exit_code == 1
    assert f"error: {path}: {message}" in done.stderr
    assert "allow_pickle" not in done.stderr
    assert not (tmp_path / "y.npz").exists()


@pytest.mark.parametrize(("sink", "message"), [("none/y.npz", "no folder"), (".", "a folder")])
def test_run_refuses_an_output_that_cannot_be_written_before_running(deployed, samples, tmp_path, sink, message):
    done = edgekit("run", deployed.bundle, "--input", samples(input=IMAGES), "--output", tmp_path / sink)
    assert done.exit_code == 1
    assert "cannot be written" in done.stderr
    assert message in done.stderr


def test_run_keeps_an_older_output_whole_when_the_disk_is_full(deployed, samples, tmp_path, monkeypatch):
    path, sink = samples(input=IMAGES), tmp_path / "y.npz"
    sink.write_text("older")

    def full(stream, **arrays):
        stream.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.np, "savez", full)
    done = edgekit("run", deployed.bundle, "--input", path, "--output", sink)
    assert done.exit_code == 1
    assert done.stderr.startswith(f"error: {tmp_path}: the disk is full: y.npz could not be written\n")
    assert sink.read_text() == "older"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.npz", "y.npz"]


@pytest.fixture
def two_inputs(tmp_path, tiny_onnx, monkeypatch):
    """A bundle of a model with two inputs and two outputs, exported from ONNX."""
    import onnx

    monkeypatch.chdir(tmp_path)
    onnx.save(tiny_onnx("two_inputs"), "two.onnx")
    done = edgekit("export", "two.onnx", "--target", "raspberry-pi-4", "--engine", "onnxruntime", "--out", "two")
    assert done.exit_code == 4, done.stderr
    return tmp_path / "two"


def test_run_feeds_several_inputs_by_name(two_inputs, samples, tmp_path):
    left, right = np.random.default_rng(0).normal(size=(2, 5, 4)).astype(np.float32)
    done = edgekit("run", two_inputs, "--input", samples(right=right, left=left), "--output", tmp_path / "y.npz")
    assert done.exit_code == 0, done.stderr
    assert done.output == "sum: float32[5, 4]\nproduct: float32[5, 4]\n"
    found = load(tmp_path / "y.npz")
    np.testing.assert_allclose(found["sum"], left + right, rtol=1e-6)
    np.testing.assert_allclose(found["product"], left * right, rtol=1e-6)


def test_run_asks_for_every_input_and_as_many_samples_of_each(two_inputs, samples, tmp_path):
    left = np.ones((5, 4), np.float32)
    for arrays, message in (({"left": left}, "input 'right' is missing"), ({"left": left, "right": left[:2]}, "same")):
        done = edgekit("run", two_inputs, "--input", samples(**arrays), "--output", tmp_path / "y.npz")
        assert done.exit_code == 1
        assert message in done.stderr


def test_verify_passes_a_good_bundle(deployed):
    done = edgekit("verify", deployed.bundle)
    assert done.exit_code == 0
    assert done.output.startswith(f"{deployed.bundle}: verified\n  reference: ")
    assert json.loads(edgekit("verify", deployed.bundle, "--json").output)["passed"] is True


def test_verify_fails_a_bundle_that_computes_something_else_with_exit_code_3(bundle):
    manifest = read_json(bundle / "manifest.json")
    manifest["golden"]["floor_db"] = 299.0  # as if it had been proven to be the reference itself
    write_json(bundle / "manifest.json", manifest)
    manifest["id"] = bundle_id(read_manifest(bundle, check=False))
    write_json(bundle / "manifest.json", manifest)
    done = edgekit("verify", bundle)
    assert done.exit_code == 3
    assert f"{bundle}: NOT VERIFIED" in done.output
    assert "at least 299.0 asked: FAILED" in done.output


def test_inspect_says_what_a_bundle_is(deployed):
    done = edgekit("inspect", deployed.bundle)
    assert done.exit_code == 0
    manifest = read_json(deployed.bundle / "manifest.json")
    for word in ("tiny for local", manifest["id"][:16], manifest["engine"], "input: float32[1, 1, 12, 12]"):
        assert word in done.output
    for parent in manifest["parents"]:
        assert parent["sha256"][:16] in done.output
    assert all(name in done.output for name in CLASSES)
    assert "Conv" in done.output
    assert "input: scale 0.00392157, mean 0.5, std 0.5, NHWC to NCHW\n" in done.output
    raw = json.loads(edgekit("inspect", deployed.bundle, "--json").output)
    assert raw["manifest"] == manifest
    assert {parent["kind"] for parent in raw["manifest"]["parents"]} >= {"data", "teacher", "student", "fp32"}


def test_inspect_fits_the_terminal(deployed, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lines = edgekit("inspect", deployed.bundle).output.splitlines()
    assert max(map(len, lines)) <= 80
    facts = lines[: lines.index(next(line for line in lines if not line.strip()))]
    assert {line.index(line.partition(":")[2].strip()) for line in facts if line[0] != " "} == {17}, "one column"


def test_inspect_says_what_an_onnx_file_is(deployed):
    model = student_onnx(deployed)
    done = edgekit("inspect", model)
    assert done.exit_code == 0
    assert re.search(r"^opset: +ai\.onnx 20$", done.output, re.MULTILINE)
    operators = {o["op"]: o["count"] for o in json.loads(edgekit("inspect", model, "--json").output)["operators"]}
    assert operators["Conv"] == 2


def test_inspect_of_something_else(tmp_path):
    done = edgekit("inspect", tmp_path)
    assert done.exit_code == 1
    assert "a bundle's folder or an .onnx file" in done.stderr


def test_profile_measures_again_and_writes_what_it_found(deployed, tmp_path):
    file = tmp_path / "result.json"
    done = edgekit("profile", deployed.bundle, "--json", file)
    assert done.exit_code == 0, done.stderr
    assert "on local, profile quick: PASS" in done.stdout
    found = read_json(file)
    assert (found["status"], found["profile"], found["exit_code"]) == ("pass", "quick", 0)
    assert found["measured"]["application"]["n"] >= 50
    assert found["bundle"]["id"] == read_json(deployed.bundle / "manifest.json")["id"]


def test_profile_against_another_profile(deployed):
    done = edgekit("profile", deployed.bundle, "--profile", deployed.project / "impossible.toml")
    assert done.exit_code == 3
    assert "profile impossible: FAIL" in done.stdout
    assert "not met: p50_ms" in done.stdout


def test_profile_refuses_a_file_it_cannot_write_before_measuring(deployed, tmp_path):
    done = edgekit("profile", deployed.bundle, "--json", tmp_path / "none" / "result.json")
    assert done.exit_code == 1
    assert "cannot be written" in done.stderr
    assert "measure" not in done.stderr


def test_profile_of_another_batch_is_refused(deployed, tmp_path):
    path = tmp_path / "batch.toml"
    path.write_text(
        'description = "Four at a time."\n[limits]\np50_ms = 1000.0\n[load]\nscenario = "batch"\nbatch = 4\n'
    )
    done = edgekit("profile", deployed.bundle, "--profile", path)
    assert done.exit_code == 1
    assert "compiled for batch 1" in done.stderr


@pytest.mark.parametrize("command", ["verify", "profile", "inspect"])
def test_a_folder_without_a_bundle(tmp_path, command):
    done = edgekit(command, tmp_path / "none")
    assert done.exit_code == 1
    assert f"error: {tmp_path}/none: n" in done.stderr


def test_a_bundle_for_an_engine_that_is_not_here_says_what_is_missing(deployed, samples, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(deployed.out, out)
    made = edgekit("deploy", deployed.project, "--out", out, "--target", "jetson-orin-nano", "--engine", "tensorrt")
    assert made.exit_code == 4, made.stderr
    jetson = out / "jetson-orin-nano"
    assert read_json(jetson / "manifest.json")["engine"] == "tensorrt"
    path = samples(input=IMAGES)
    for args in (
        ["run", jetson, "--input", path, "--output", tmp_path / "y.npz"],
        ["verify", jetson],
        ["profile", jetson],
    ):
        done = edgekit(*args)
        assert done.exit_code == 1
        assert "engine 'tensorrt' cannot run here" in done.stderr
        assert "the package tensorrt is not installed" in done.stderr
    assert not (tmp_path / "y.npz").exists()
    assert edgekit("inspect", jetson).exit_code == 0
