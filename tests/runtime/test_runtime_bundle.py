import json
import os
from dataclasses import replace

import numpy as np
import pytest
from made_bundles import write

from edgekit import runtime
from edgekit.artifact import GOLDEN_FILE, hash_file, hash_json, read_json, write_json
from edgekit.errors import BundleError, EdgeKitError, EngineMissing, FeedError
from edgekit.processing_specs import Preprocessing
from edgekit.runtime.bundle import open_bundle
from edgekit.runtime.cpu import cpu_model, parse_cpu_model
from edgekit.runtime.manifest import read_manifest

ENGINES = ["onnxruntime", "openvino", "null"]


def resave(folder, arrays):
    """Replaces golden.npz and makes the manifest agree with it."""
    np.savez(folder / GOLDEN_FILE, **arrays)
    manifest = read_manifest(folder, check=False)
    write(folder, replace(manifest, files={**manifest.files, GOLDEN_FILE: hash_file(folder / GOLDEN_FILE)}))


def golden_of(folder):
    with np.load(folder / GOLDEN_FILE) as archive:
        return {name: archive[name] for name in archive.files}


@pytest.mark.parametrize("engine", ENGINES)
def test_a_bundle_opens_and_runs(make_bundle, engine):
    folder = make_bundle(engine)
    with runtime.open_bundle(str(folder)) as bundle:
        assert bundle.manifest.name == "tiny"
        assert [spec.name for spec in bundle.inputs] == ["input"]
        assert bundle.run({"input": np.ones((2, 3, 8, 8), np.float32)})["output"].shape == (2, 4, 8, 8)
    with pytest.raises(EdgeKitError, match="session is closed"):
        bundle.run({"input": np.ones((2, 3, 8, 8), np.float32)})


def test_preprocess_does_what_the_manifest_says(make_bundle):
    settings = Preprocessing(input="input", layout="NHWC", scale=1 / 255)
    with open_bundle(make_bundle(preprocessing=settings)) as bundle:
        raw = np.full((2, 8, 8, 3), 255, np.uint8)
        for given in (raw, {"input": raw}):
            np.testing.assert_allclose(bundle.preprocess(given)["input"], np.ones((2, 3, 8, 8)), rtol=1e-6)
        with pytest.raises(FeedError, match="input 'input' is missing"):
            bundle.preprocess({"other": raw})


def test_preprocess_without_settings_leaves_arrays_as_they_are(make_bundle):
    with open_bundle(make_bundle()) as bundle:
        raw = np.zeros((2, 3, 8, 8), np.float32)
        assert bundle.preprocess(raw)["input"] is raw


def test_one_array_for_two_inputs_is_an_error(make_bundle):
    with (
        open_bundle(make_bundle(model="two_inputs")) as bundle,
        pytest.raises(FeedError, match="the model has several inputs"),
    ):
        bundle.preprocess(np.zeros((2, 4), np.float32))


@pytest.mark.parametrize("name", ["artifact/model.onnx", GOLDEN_FILE])
@pytest.mark.parametrize("harm", ["missing", "cut", "changed", "longer"])
def test_a_harmed_file_is_named(make_bundle, name, harm):
    folder = make_bundle()
    file, whole = folder / name, (folder / name).read_bytes()
    if harm == "missing":
        file.unlink()
    else:
        changed = whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:]
        file.write_bytes({"cut": whole[:-5], "changed": changed, "longer": whole + b"\0"}[harm])
    with pytest.raises(BundleError, match=f"{name}|not an ONNX file"):
        open_bundle(folder)


def test_a_changed_manifest_is_refused(make_bundle):
    folder = make_bundle()
    raw = read_json(folder / "manifest.json")
    raw["golden"]["floor_db"] = -300.0
    write_json(folder / "manifest.json", raw)
    with pytest.raises(BundleError, match=r"manifest.json is damaged or was changed"):
        open_bundle(folder)


def test_timings_are_not_part_of_the_id(make_bundle):
    folder = make_bundle()
    raw = read_json(folder / "manifest.json")
    write_json(folder / "manifest.json", raw | {"timings": {"p50_ms": 1.0}})
    with open_bundle(folder) as bundle:
        assert bundle.manifest.id == raw["id"]
        assert bundle.manifest.timings == {"p50_ms": 1.0}


def test_without_check_only_paths_are_checked(make_bundle):
    folder = make_bundle()
    (folder / GOLDEN_FILE).write_bytes(b"damaged")
    with pytest.raises(BundleError, match="damaged or was changed"):
        open_bundle(folder)
    with runtime.open_bundle(folder, check=False) as bundle:
        assert bundle.manifest.files[GOLDEN_FILE]


@pytest.mark.parametrize("field", ["model", "files"])
@pytest.mark.parametrize("name", ["../model.onnx", "/etc/passwd", "artifact/../../x", "C:/x", "..\\x"])
def test_a_path_out_of_the_bundle_is_refused(make_bundle, field, name):
    folder = make_bundle()
    raw = read_json(folder / "manifest.json")
    raw[field] = name if field == "model" else {**raw["files"], name: "0" * 64}
    write_json(folder / "manifest.json", raw)
    with pytest.raises(BundleError, match="points outside its folder"):
        open_bundle(folder, check=False)


@pytest.mark.parametrize("name", ["artifact/model.onnx", GOLDEN_FILE])
def test_a_link_out_of_the_bundle_is_refused(make_bundle, tmp_path, name):
    folder = make_bundle()
    (folder / name).rename(tmp_path / "elsewhere")
    (folder / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError, match="through a link"):
        open_bundle(folder)


def test_a_file_the_manifest_does_not_list_is_not_used(make_bundle):
    folder = make_bundle()
    manifest = read_manifest(folder)
    write(folder, replace(manifest, files={GOLDEN_FILE: manifest.files[GOLDEN_FILE]}))
    with pytest.raises(BundleError, match=r"'artifact/model.onnx' is not listed"):
        open_bundle(folder)


def test_a_newer_schema_is_refused(make_bundle):
    with pytest.raises(BundleError, match="written in schema 2") as caught:
        open_bundle(make_bundle(schema_version=2))
    assert "upgrade edgekit" in str(caught.value.fix)


@pytest.mark.parametrize(
    "content", ["", "[]", "{", "null", '{"schema_version": 1}', '{"files": {}, "schema_version": 1}']
)
def test_what_is_no_manifest_is_refused(tmp_path, content):
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(BundleError, match=r"manifest.json: (not JSON|not a manifest|this bundle was written)"):
        open_bundle(tmp_path)


def test_an_empty_folder_is_no_bundle(tmp_path):
    with pytest.raises(BundleError, match="no bundle here"):
        open_bundle(tmp_path)
    with pytest.raises(BundleError, match="no bundle here"):
        open_bundle(tmp_path / "nowhere")


def leaves(value, path=()):
    """Paths to every value in nested JSON."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in items:
        yield from leaves(below, (*path, key))


def replaced(value, path, new):
    if not path:
        return new
    copy = value.copy()
    copy[path[0]] = replaced(value[path[0]], path[1:], new)
    return copy


@pytest.mark.parametrize("new", [None, [], {}, "x", 7, True, 1.5, [1], [[1]], {"a": 1}])
@pytest.mark.parametrize("engine", ["null", "openvino"])
def test_any_value_of_any_type_is_refused_or_right_even_with_a_right_id(make_bundle, engine, new):
    folder = make_bundle(engine, preprocessing=Preprocessing(input="input", layout="NHWC", resize=(8, 8)))
    raw, refused = read_json(folder / "manifest.json"), 0
    for path in leaves(raw):
        changed = replaced(raw, path, new)
        if isinstance(changed, dict):
            content = {key: value for key, value in changed.items() if key not in ("id", "timings", "timings_sha256")}
            changed["id"] = changed["id"] if path == ("id",) else hash_json(content)
        (folder / "manifest.json").write_text(json.dumps(changed))
        try:
            with open_bundle(folder) as bundle:
                bundle.preprocess(np.zeros((2, 8, 8, 3), np.uint8))
            runtime.verify_bundle(folder)
        except EdgeKitError:
            refused += 1
    assert refused > 30


def test_a_bundle_for_a_missing_engine_says_what_is_missing(make_bundle):
    folder = make_bundle()
    write(folder, replace(read_manifest(folder), engine="tensorrt"))
    with pytest.raises(EngineMissing, match="engine 'tensorrt' cannot run here"):
        open_bundle(folder)


def test_opening_a_bundle_runs_no_pickle(make_bundle, tmp_path):
    folder, proof = make_bundle(), tmp_path / "ran"

    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(proof),)

    resave(folder, golden_of(folder) | {"input/input": np.array([Trap()] * 4, dtype=object)})
    with pytest.raises(BundleError, match=r"golden.npz: cannot be read"):
        runtime.verify_bundle(folder)
    assert not proof.exists()


@pytest.mark.parametrize("engine", ENGINES)
def test_verify_passes_a_good_bundle(make_bundle, engine):
    found = runtime.verify_bundle(make_bundle(engine))
    assert found.passed
    assert found.same_build
    assert found.own_db >= 80
    assert found.samples == 4
    assert found.reference_db == pytest.approx(300 if engine == "null" else 60, abs=0.1)


def test_verify_fails_under_the_floor(make_bundle):
    folder = make_bundle()
    manifest = read_manifest(folder)
    write(folder, replace(manifest, golden=replace(manifest.golden, floor_db=61.0)))
    found = runtime.verify_bundle(folder)
    assert not found.passed
    assert found.own_db >= 80
    assert any("60.0 dB, at least 61.0 asked: FAILED" in message for message in found.messages)


def test_verify_fails_when_its_own_outputs_do_not_come_again(make_bundle):
    folder = make_bundle()
    golden = golden_of(folder)
    resave(folder, golden | {"artifact/output": golden["artifact/output"] * np.float32(1.001)})
    found = runtime.verify_bundle(folder)
    assert not found.passed
    assert found.reference_db >= found.floor_db
    assert any("own outputs" in message and "FAILED" in message for message in found.messages)


@pytest.mark.parametrize("field", ["engine_version", "cpu_model"])
def test_verify_asks_for_its_own_outputs_only_on_the_same_build(make_bundle, field):
    folder = make_bundle()
    golden = golden_of(folder)
    resave(folder, golden | {"artifact/output": golden["artifact/output"] * np.float32(2)})
    manifest = read_manifest(folder)
    write(folder, replace(manifest, golden=replace(manifest.golden, **{field: "other"})))
    found = runtime.verify_bundle(folder)
    assert found.passed
    assert not found.same_build
    assert found.own_db is None
    assert any("not compared" in message for message in found.messages)


def test_the_very_bits_of_the_reference_are_asked_only_where_they_were_made(make_bundle):
    folder = make_bundle()
    golden = golden_of(folder)
    resave(folder, golden | {"reference/output": golden["artifact/output"] * np.float32(1 + 1e-5)})  # 100 dB
    manifest = read_manifest(folder)
    known = replace(manifest.golden, floor_db=297.0)
    for cpu, asked, passed in ((known.cpu_model, 297.0, False), ("other", 90.0, True)):
        write(folder, replace(manifest, golden=replace(known, cpu_model=cpu)))
        found = runtime.verify_bundle(folder)
        assert (found.floor_db, found.passed) == (asked, passed)


def test_verify_names_an_array_that_is_missing(make_bundle):
    folder = make_bundle()
    golden = golden_of(folder)
    del golden["reference/output"]
    resave(folder, golden)
    with pytest.raises(BundleError, match="an array is missing") as caught:
        runtime.verify_bundle(folder)
    assert "reference/output" in str(caught.value.found)


@pytest.mark.parametrize("change", [lambda a: a[:3], lambda a: a[0, 0, 0, 0]])
def test_verify_refuses_other_counts_of_samples(make_bundle, change):
    folder = make_bundle()
    golden = golden_of(folder)
    resave(folder, golden | {"reference/output": change(golden["reference/output"])})
    with pytest.raises(BundleError, match="do not hold the samples"):
        runtime.verify_bundle(folder)


def test_verify_refuses_a_reference_of_another_shape(make_bundle):
    folder = make_bundle()
    golden = golden_of(folder)
    resave(folder, golden | {"reference/output": golden["reference/output"][:, :1]})
    with pytest.raises(BundleError, match="another shape than the model's output"):
        runtime.verify_bundle(folder)


def test_the_cpu_model_is_the_profilers():
    from edgekit.profiling.host import this_host

    assert cpu_model() == this_host().cpu_model


@pytest.mark.parametrize(
    ("cpuinfo", "model"),
    [
        ("processor : 0\nmodel name\t: Intel(R) Core(TM) i7\nflags : a\n", "Intel(R) Core(TM) i7"),
        ("CPU implementer\t: 0x41\nCPU part\t: 0xd0b\n", "ARM 0x41 part 0xd0b"),
        ("", "unknown"),
    ],
)
def test_the_cpu_model_is_read_from_cpuinfo(cpuinfo, model):
    assert parse_cpu_model(cpuinfo) == model
