import dataclasses

import numpy as np
import pytest
from fake_line import (
    CLASSES,
    fp32_artifact,
    leftovers,
    make_samples,
    null_artifact,
    perfect,
    references_of,
    snapshot,
)

from edgekit.artifact import Parent, read_json, tensor_specs
from edgekit.bundle import (
    GOLDEN_SAMPLES,
    NOT_HERE,
    BundleFacts,
    check_replaceable,
    golden_indices,
    make_golden,
    write_bundle,
)
from edgekit.candidate import Plan
from edgekit.checking import make_references
from edgekit.data import Samples
from edgekit.errors import BundleError
from edgekit.processing_specs import Preprocessing
from edgekit.quantization.schemes import Scheme
from edgekit.random_inputs import random_samples
from edgekit.runtime import open_bundle, verify_bundle
from edgekit.runtime.preprocessing import preprocess

PLAN = Plan(
    engine="null",
    precision="int8",
    method="minmax",
    scheme=Scheme(name="null", activation_signed=True, activation_symmetric=True),
)


def make_facts(**fields):
    known = {
        "name": "zeros",
        "target": "fake",
        "plan": PLAN,
        "batch": 1,
        "preprocessing": None,
        "labels": ("a", "b", "c"),
        "parents": (Parent(kind="teacher", name="nets:teacher", sha256="7" * 64),),
        "accuracy": {"metric": "accuracy", "drop": None, "placement": []},
        "timings": {"verdict": "pass"},
    }
    return BundleFacts(**known | fields)


def write(artifact, out, samples=None, facts=None):
    samples = samples or make_samples()
    facts = facts or make_facts()
    return write_bundle(artifact, make_golden(artifact, references_of(samples), samples, facts.batch), facts, out)


def labelled(targets):
    return dataclasses.replace(make_samples(len(targets)), targets=np.asarray(targets))


# ---- golden samples ----


@pytest.mark.parametrize("count", [16, 17, 50, 1000])
@pytest.mark.parametrize("batch", [1, 2, 5, 16])
def test_golden_samples_are_sixteen_at_least_a_multiple_of_the_batch_and_spread(count, batch):
    indices = golden_indices(make_samples(count, labelled=False), batch)
    wanted = min(-(-GOLDEN_SAMPLES // batch) * batch, count)
    assert len(indices) == wanted
    assert len(set(indices.tolist())) == wanted
    assert list(indices) == sorted(indices)
    assert (indices[0], indices[-1]) == (0, count - 1)


@pytest.mark.parametrize("batch", [1, 8])
def test_every_class_is_among_them_however_rare(batch):
    targets = np.zeros(2000, dtype=np.int64)
    targets[[3, 700, 1999]] = [1, 2, 3]
    chosen = targets[golden_indices(labelled(targets), batch)]
    assert set(chosen.tolist()) == {0, 1, 2, 3}
    assert len(chosen) == 16


def test_more_classes_than_sixteen_make_more_samples():
    targets = np.arange(60) % 30
    indices = golden_indices(labelled(targets), 8)
    assert len(indices) == 32
    assert set(targets[indices].tolist()) == set(range(30))


def test_more_classes_than_a_batch_can_be_filled_with():
    indices = golden_indices(labelled(np.arange(20)), 16)
    assert list(indices) == list(range(20))  # 32 are not there


def test_targets_that_are_no_classes_do_not_choose():
    boxes = dataclasses.replace(make_samples(40), targets=np.ones((40, 4), np.float32))
    assert len(golden_indices(boxes, 1)) == 16


def test_a_golden_set_holds_inputs_reference_and_artifact(tmp_path):
    samples = make_samples(40)
    references = references_of(samples)
    references = dataclasses.replace(references, student={"logits": perfect(samples)})
    made = make_golden(null_artifact(tmp_path / "a", precision="int8"), references, samples, 1)
    indices = golden_indices(samples, 1)
    assert set(made.arrays) == {"input/input", "reference/logits", "artifact/logits"}
    assert np.array_equal(made.arrays["input/input"], samples.tensors(indices)["input"])
    assert np.array_equal(made.arrays["reference/logits"], perfect(samples)[indices])
    assert np.array_equal(made.arrays["artifact/logits"], np.zeros((16, CLASSES), np.float32))
    assert (made.golden.samples, made.golden.random) == (16, False)
    assert (made.golden.reference_db, made.golden.floor_db) == (0.0, -3.0)
    assert made.golden.engine_version == "1.0"


def test_random_samples_are_marked(tmp_path):
    artifact = null_artifact(tmp_path / "a")
    samples = random_samples(artifact.inputs)
    zeros = {"logits": np.zeros((len(samples), CLASSES), np.float32)}
    references = make_references(zeros, zeros, samples, None, None)
    made = make_golden(artifact, references, samples, 1)
    assert (made.golden.random, made.golden.samples) == (True, 16)


def pictures():
    """Raw pictures uint8 NHWC, preprocessed to the four numbers of the model."""
    raw = np.random.default_rng(0).integers(0, 256, (40, 4, 1, 1), dtype=np.uint8)
    settings = Preprocessing(input="input", layout="any", scale=1 / 255)
    return Samples(name="pictures", count=40, fetch=lambda i: {"input": raw[i, :, 0, 0]}, preprocessing=settings)


def test_raw_samples_travel_where_they_are_preprocessed(tmp_path):
    samples = pictures()
    zeros = {"logits": np.zeros((40, CLASSES), np.float32)}
    references = make_references(zeros, zeros, samples, None, None)
    made = make_golden(null_artifact(tmp_path / "a"), references, samples, 1)
    assert made.arrays["raw/input"].dtype == np.uint8
    assert np.array_equal(preprocess(made.arrays["raw/input"], samples.preprocessing), made.arrays["input/input"])


def test_a_tensorrt_artifact_says_which_engine_made_its_golden_outputs(tmp_path):
    artifact = fp32_artifact(tmp_path / "onnx")
    one = {"inputs": tuple(dataclasses.replace(s, shape=(1, *s.shape[1:])) for s in artifact.inputs)}
    artifact = dataclasses.replace(artifact, engine="tensorrt", options={"precision": "fp32"}, **one)
    manifest = write(artifact, tmp_path / "out")
    assert manifest.engine_version == NOT_HERE
    assert manifest.golden.engine_version.startswith("onnxruntime 1.")


# ---- the manifest ----


def test_the_manifest_holds_everything_a_device_and_a_reader_need(tmp_path):
    out = tmp_path / "fake"
    settings = Preprocessing(input="input", scale=0.5)
    artifact = dataclasses.replace(
        null_artifact(tmp_path / "a", precision="int8", batch=2), notes=("left in float: a",)
    )
    made = write(artifact, out, facts=make_facts(batch=2, preprocessing=settings))
    raw = read_json(out / "manifest.json")
    assert raw["schema_version"] == 1
    assert raw["inputs"] == [{"name": "input", "dtype": "float32", "shape": [2, 4]}]
    assert raw["outputs"] == [{"name": "logits", "dtype": "float32", "shape": [2, 3]}]
    assert tensor_specs(raw["inputs"]) == artifact.inputs
    assert raw["preprocessing"]["scale"] == 0.5
    assert raw["labels"] == ["a", "b", "c"]
    assert (raw["name"], raw["target"], raw["batch"]) == ("zeros", "fake", 2)
    assert (raw["engine"], raw["engine_version"], raw["precision"]) == ("null", "1.0", "int8")
    assert raw["options"] == {"precision": "int8"}
    assert raw["plan"]["method"] == "minmax"
    assert raw["plan"]["scheme"]["name"] == "null"
    assert raw["plan"]["notes"] == ["left in float: a"]
    assert raw["parents"] == [{"kind": "teacher", "name": "nets:teacher", "sha256": "7" * 64}]
    assert sorted(raw["files"]) == ["artifact/model.null", "golden.npz"]
    assert (raw["model"], raw["golden"]["samples"]) == ("artifact/model.null", 16)
    assert raw["golden"]["floor_db"] == raw["golden"]["reference_db"] - 3.0
    assert raw["accuracy"]["metric"] == "accuracy"
    assert raw["timings"] == {"verdict": "pass"}
    assert raw["id"] == made.id
    assert len(made.id) == 64


def test_a_bundle_opens_and_verifies(tmp_path):
    write(null_artifact(tmp_path / "a"), tmp_path / "fake")
    with open_bundle(tmp_path / "fake") as bundle:
        assert bundle.run({"input": np.ones((1, 4), np.float32)})["logits"].shape == (1, 3)
    found = verify_bundle(tmp_path / "fake")
    assert (found.passed, found.same_build, found.own_db) == (True, True, 300.0)


def test_files_in_folders_of_the_artifact_keep_their_place(tmp_path):
    artifact = null_artifact(tmp_path / "a")
    (artifact.folder / "weights").mkdir()
    (artifact.folder / "weights" / "w.bin").write_bytes(b"123")
    artifact = dataclasses.replace(artifact, files={**artifact.files, "weights/w.bin": "0" * 64})
    write(artifact, tmp_path / "fake")
    assert (tmp_path / "fake" / "artifact" / "weights" / "w.bin").read_bytes() == b"123"


# ---- the id ----


def test_the_id_is_of_content_and_not_of_time_or_place(tmp_path):
    first = write(null_artifact(tmp_path / "a"), tmp_path / "one")
    second = write(
        null_artifact(tmp_path / "b"), tmp_path / "deep" / "er" / "two", facts=make_facts(timings={"verdict": "fail"})
    )
    assert first.id == second.id
    one, two = snapshot(tmp_path / "one"), snapshot(tmp_path / "deep" / "er" / "two")
    assert one.keys() == two.keys()
    assert [name for name in one if one[name] != two[name]] == ["manifest.json"]  # its timings


@pytest.mark.parametrize(
    "change",
    [
        {"labels": ()},
        {"name": "other"},
        {"target": "other"},
        {"accuracy": {"metric": None}},
        {"parents": ()},
        {"plan": Plan(engine="null", precision="fp32")},
        {"preprocessing": Preprocessing()},
    ],
)
def test_the_id_changes_with_what_the_manifest_says(tmp_path, change):
    artifact = null_artifact(tmp_path / "a")
    assert write(artifact, tmp_path / "1").id != write(artifact, tmp_path / "2", facts=make_facts(**change)).id


def test_the_id_changes_with_the_artifact_and_its_options_and_the_golden_samples(tmp_path):
    artifact = null_artifact(tmp_path / "a")
    ids = {
        write(artifact, tmp_path / "1").id,
        write(dataclasses.replace(artifact, options={"latency_us": 5.0}), tmp_path / "2").id,
        write(artifact, tmp_path / "3", make_samples(seed=9)).id,
    }
    (artifact.folder / "model.null").write_bytes(b"\1" * 2500)
    ids.add(write(dataclasses.replace(artifact, files={"model.null": "1" * 64}), tmp_path / "4").id)
    assert len(ids) == 4


# ---- replacing ----


def test_an_older_bundle_is_replaced_whole(tmp_path):
    out = tmp_path / "fake"
    write(null_artifact(tmp_path / "a"), out)
    (out / "artifact" / "stale.bin").write_bytes(b"stale")
    write(null_artifact(tmp_path / "b"), out)
    assert not (out / "artifact" / "stale.bin").exists()
    assert verify_bundle(out).passed
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    "failing", ["edgekit.bundle.write_json", "edgekit.bundle.hash_file", "edgekit.bundle.replace_folder"]
)
def test_an_older_bundle_stays_when_the_new_one_fails(tmp_path, monkeypatch, failing):
    out = tmp_path / "fake"
    write(null_artifact(tmp_path / "a"), out)
    before = snapshot(out)

    def fail(*args):
        raise RuntimeError("no")

    monkeypatch.setattr(failing, fail)
    with pytest.raises(RuntimeError, match="no"):
        write(null_artifact(tmp_path / "b", latency_us=3.0), out)
    assert snapshot(out) == before
    assert leftovers(tmp_path) == []


def test_nothing_but_a_bundle_is_replaced(tmp_path):
    mine = tmp_path / "project"
    mine.mkdir()
    (mine / "thesis.tex").write_text("years of work")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(mine)
    for name, found in (("project", "a folder without a manifest.json"), ("file", "a file"), ("link", "a link")):
        with pytest.raises(BundleError, match="the bundle would go here, and this is something else") as caught:
            write(null_artifact(tmp_path / f"a-{name}"), tmp_path / name)
        assert (caught.value.found, caught.value.fix) == (found, "choose another folder with --out")
    assert (mine / "thesis.tex").read_text() == "years of work"
    (tmp_path / "empty").mkdir()
    check_replaceable(tmp_path / "empty")
    check_replaceable(tmp_path / "nothing")
