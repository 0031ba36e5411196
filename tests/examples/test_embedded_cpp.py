"""examples/embedded_cpp finds in a bundle what EdgeKit's own runtime finds, on both engines."""

import os
import re

import numpy as np
import pytest
from embedded_builds import ENGINES, SOURCE, change, change_golden, written
from tiny_recipe import edgekit

from edgekit.artifact import read_json
from edgekit.processing_specs import Preprocessing
from edgekit.runtime import verify_bundle
from edgekit.runtime.files import run_file

BOTH = pytest.mark.parametrize("engine", ENGINES)


@BOTH
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_it_finds_the_same_db_as_edgekit_verify(program, exports, engine, precision):
    bundle = exports[engine, precision]
    expected, found = verify_bundle(bundle), program.verified(bundle)
    assert found["messages"] == list(expected.messages)
    assert found["reference_db"] == pytest.approx(expected.reference_db, abs=1e-6)
    assert (found["samples"], found["floor_db"], found["passed"]) == (16, expected.floor_db, True)
    assert found["own_db"] == pytest.approx(expected.own_db, abs=1e-6)


def test_it_prints_what_edgekit_verify_prints(program, exports):
    bundle = exports["onnxruntime", "int8"]
    ended = program("verify", bundle)
    lines = verify_bundle(bundle).messages
    assert ended.returncode == 0
    assert ended.stdout.splitlines() == [f"{bundle}: verified", *(f"  {line}" for line in lines)]


def test_what_is_long_is_wrapped_as_edgekit_verify_wraps_it(program, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    bundle = written(tmp_path / "bundle")
    golden = read_json(bundle / "manifest.json")["golden"]
    change(bundle, golden={**golden, "cpu_model": "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz"})
    ended = program("verify", bundle)
    assert ended.stdout == edgekit("verify", bundle).output
    assert max(map(len, ended.stdout.splitlines()[1:])) <= 80


def test_help_is_no_error_and_fits_80_columns(program):
    for word in ("--help", "-h"):
        ended = program(word)
        assert (ended.returncode, ended.stderr) == (0, "")
        assert ended.stdout.startswith("usage: ")
        assert max(map(len, ended.stdout.splitlines())) <= 80


@BOTH
def test_it_infers_the_very_bits_that_python_infers(program, exports, engine, tmp_path):
    bundle, source = exports[engine, "int8"], tmp_path / "x.npz"
    np.savez(source, anything=np.random.default_rng(1).normal(size=(5, 3, 16, 16)).astype(np.float32))
    expected = run_file(bundle, source, tmp_path / "python.npz")
    ended = program("run", bundle, source, tmp_path / "cpp.npz")
    assert ended.stdout == "output: float32[5, 8, 16, 16]\n"
    with np.load(tmp_path / "cpp.npz") as found:
        assert found.files == ["output"]
        assert np.array_equal(found["output"], expected["output"])


@BOTH
@pytest.mark.parametrize("model", ["two_inputs", "integers", "conv_batch2", "classifier"])
def test_several_inputs_integers_and_fixed_batches(program, engine, model, tmp_path):
    bundle = written(tmp_path / "bundle", model, engine)
    found = program.verified(bundle)
    assert (found["reference_db"], found["own_db"], found["passed"]) == (300.0, 300.0, True)


def test_a_batch_that_is_not_full_is_padded_and_cut(program, tmp_path):
    bundle = written(tmp_path / "bundle", "conv_batch2")
    np.savez(tmp_path / "x.npz", input=np.random.default_rng(2).normal(size=(3, 3, 8, 8)).astype(np.float32))
    expected = run_file(bundle, tmp_path / "x.npz", tmp_path / "python.npz")
    assert program("run", bundle, tmp_path / "x.npz", tmp_path / "cpp.npz").returncode == 0
    with np.load(tmp_path / "cpp.npz") as found:
        assert np.array_equal(found["output"], expected["output"])


def test_columns_first_and_long_headers_are_read_as_numpy_reads_them(program, tmp_path):
    bundle = written(tmp_path / "bundle", "conv")
    array = np.random.default_rng(3).normal(size=(4, 3, 8, 8)).astype(np.float32)
    for name, given in (("rows", array), ("columns", np.asfortranarray(array))):
        np.savez(tmp_path / f"{name}.npz", input=given)
        assert program("run", bundle, tmp_path / f"{name}.npz", tmp_path / f"{name}-out.npz").returncode == 0
    with np.load(tmp_path / "rows-out.npz") as rows, np.load(tmp_path / "columns-out.npz") as columns:
        assert np.array_equal(rows["output"], columns["output"])


MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RAW = {
    "picture": (Preprocessing(layout="NHWC", scale=1 / 255, mean=MEAN, std=STD), (3, 8, 8, 3), "u1"),
    "smaller": (Preprocessing(layout="NHWC", scale=1 / 255, mean=MEAN, std=STD, resize=(8, 8)), (3, 4, 5, 3), "u1"),
    "larger": (Preprocessing(layout="NCHW", resize=(8, 8)), (2, 3, 30, 21), "i2"),
    "channels first": (Preprocessing(layout="NCHW", scale=2.0), (2, 3, 8, 8), "f8"),
    "any axes": (Preprocessing(layout="any", scale=0.25, mean=(1.5,), std=(3.0,)), (2, 3, 8, 8), "i4"),
}


@pytest.mark.parametrize("name", RAW)
def test_it_preprocesses_as_the_manifest_says(program, name, tmp_path):
    """The model gives its input back, so that what is seen is what preprocessing made."""
    settings, shape, dtype = RAW[name]
    same = 'same (float["n", 3, 8, 8] input) => (float["n", 3, 8, 8] output) { output = Identity(input) }'
    bundle = written(tmp_path / "bundle", same, preprocessing=settings)
    raw = (np.random.default_rng(4).random(shape) * 255).astype(dtype)
    np.savez(tmp_path / "x.npz", input=raw)
    expected = run_file(bundle, tmp_path / "x.npz", tmp_path / "python.npz")["output"]
    ended = program("run", bundle, tmp_path / "x.npz", tmp_path / "cpp.npz")
    assert ended.returncode == 0, ended.stderr
    with np.load(tmp_path / "cpp.npz") as found:
        assert np.abs(found["output"] - expected).max() <= 1e-6 * np.abs(expected).max()


def test_model_tensors_are_not_preprocessed_again(program, tmp_path):
    bundle = written(tmp_path / "bundle", preprocessing=Preprocessing(layout="NCHW", scale=0.5))
    np.savez(tmp_path / "x.npz", input=np.random.default_rng(5).normal(size=(2, 3, 8, 8)).astype(np.float32))
    expected = run_file(bundle, tmp_path / "x.npz", tmp_path / "python.npz", raw=True)["output"]
    assert program("run", bundle, tmp_path / "x.npz", tmp_path / "cpp.npz", "--raw").returncode == 0
    with np.load(tmp_path / "cpp.npz") as found:
        assert np.array_equal(found["output"], expected)


def test_a_bundle_that_computes_something_else_here_is_told_by_3(program, tmp_path):
    bundle = written(tmp_path / "bundle")
    with np.load(bundle / "golden.npz") as arrays:
        other = arrays["reference/output"] * np.float32(1.01)
    change_golden(bundle, np.savez, **{"reference/output": other})
    ended = program("verify", bundle)
    assert ended.returncode == 3
    assert "NOT VERIFIED" in ended.stdout
    assert "reference: 40.1 dB, at least 90.0 asked: FAILED" in ended.stdout
    assert not verify_bundle(bundle).passed


@pytest.mark.parametrize("recorder", ["1.31.1", "openvino 2026.4.1"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_what_is_asked_of_another_build_is_what_edgekit_asks(program, recorder, precision, tmp_path):
    bundle = written(tmp_path / "bundle")
    golden = {**read_json(bundle / "manifest.json")["golden"], "floor_db": 297.0}
    change(bundle, precision=precision, golden={**golden, "engine_version": recorder, "cpu_model": "another"})
    assert program.verified(bundle)["floor_db"] == verify_bundle(bundle).floor_db < 297.0


@BOTH
def test_it_stays_on_the_cpus_that_a_bundle_names(program, engine, tmp_path):
    mine = sorted(os.sched_getaffinity(0))
    bundle = written(tmp_path / "bundle", engine=engine)
    change(bundle, options={"cpus": str(mine[0])})
    ended = program("verify", bundle)
    assert (ended.returncode, ended.stderr) == (0, "")
    change(bundle, options={"cpus": f"{mine[0]},1000-1002"})
    ended = program("verify", bundle)
    assert ended.returncode == 0
    assert ended.stderr.splitlines() == [
        f"warning: the bundle is made for CPUs {mine[0]},1000-1002, and 1 of these 4 may be used"
    ]


def test_nan_is_the_worst(program, tmp_path):
    bundle = written(tmp_path / "bundle")
    with np.load(bundle / "golden.npz") as arrays:
        other = arrays["reference/output"].copy()
    other.flat[0] = np.nan
    change_golden(bundle, np.savez, **{"reference/output": other})
    assert program.verified(bundle)["reference_db"] == -300.0 == verify_bundle(bundle).reference_db


def test_what_others_wrote_has_its_licence_and_its_version_beside_it():
    folders = SOURCE / "third_party"
    text = (folders / "README.md").read_text(encoding="utf-8")
    for name, licence in (("onnxruntime", "LICENSE"), ("nlohmann", "LICENSE.MIT")):
        assert f"`{name}`" in text
        assert "MIT License" in (folders / name / licence).read_text(encoding="utf-8")
    header = (folders / "onnxruntime" / "onnxruntime_c_api.h").read_text(encoding="utf-8")
    assert f"`ORT_API_VERSION {re.search(r'#define ORT_API_VERSION (.*)', header)[1]}`" in text
    assert "public domain" in (folders / "sha256" / "sha256.c").read_text(encoding="utf-8")


def test_sources_are_short():
    sizes = {path.name: path.read_text().count("\n") for path in (SOURCE / "src").iterdir()}
    assert max(sizes.values()) <= 400, sizes
