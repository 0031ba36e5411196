import dataclasses
import json

import numpy as np
import pytest
from fake_line import ZEROS, write_model
from sample_report import candidate, not_measured_report, report_of, sample_report, target_of
from tiny_bundles import null_bundle

from edgekit.errors import (
    BundleError,
    DataError,
    EngineMissing,
    FeedError,
    MeasurementError,
    ModelError,
    SpecError,
    UnknownName,
)
from edgekit.processing_specs import Preprocessing
from edgekit.sides import (
    batch_of,
    bundle_beside,
    check_same_inputs,
    check_same_kind,
    inputs_of,
    open_side,
    ready,
)

FIXED = ZEROS.replace('"batch"', "2")
PREPROCESSING = Preprocessing(input="input", scale=0.5)


@pytest.fixture
def write(tmp_path):
    """Writes a report: ``write(report)``."""

    def to(report, name="report.json", folder=tmp_path):
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(report))
        return folder / name

    return to


@pytest.fixture
def onnx(tmp_path):
    """An ONNX file made ready for the null engine: ``onnx(text)``."""

    def make(text=ZEROS, batch=1, path=None):
        side = open_side(path or write_model(tmp_path / "model.onnx", text))
        return ready(side, tmp_path / f"built{batch}", engine="null", threads=None, batch=batch)

    return make


def shipped(name):
    made = candidate(0, seed=0, shipped=True)
    return target_of([made], name)


def test_a_bundle_is_opened_with_what_it_is(tmp_path):
    side = open_side(null_bundle(tmp_path / "b", name="flowers", batch=2))
    assert (side.kind, side.name, side.failure) == ("bundle", "flowers null fp32", None)
    assert (side.identity.model, side.identity.target, side.identity.batch) == ("flowers", "fake", 2)
    assert side.artifact.engine == "null"


def test_a_bundle_whose_engine_is_not_here_is_no_error_yet(tmp_path, monkeypatch):
    monkeypatch.setattr("edgekit.places.missing", lambda engine: "pip install null")
    assert open_side(null_bundle(tmp_path / "b")).failure == "engine 'null' cannot run here: pip install null"


def test_a_damaged_bundle_is_named(tmp_path):
    folder = null_bundle(tmp_path / "b")
    (folder / "artifact" / "model.null").write_bytes(b"1")
    with pytest.raises(BundleError, match="damaged or was changed"):
        open_side(folder)


@pytest.mark.parametrize("as_folder", [True, False])
def test_a_run_is_its_shipped_candidate(write, as_folder):
    report = sample_report()
    path = write(report)
    side = open_side(path.parent if as_folder else path)
    made = next(c for c in report["targets"][0]["candidates"] if c["shipped"])
    assert (side.kind, side.name) == ("report", f"flowers {made['engine']} {made['precision']}")
    assert side.recorded == made["measured"]
    assert side.identity.model == "flowers"
    assert (side.identity.target, side.identity.batch) == ("local", 1)
    assert side.identity.cpu_model == report["host"]["cpu_model"]


def test_what_profile_wrote_is_a_report_too(write):
    report = sample_report()
    made = report["targets"][0]["candidates"][0]
    found = {
        "kind": "profile",
        "schema_version": 2,
        "bundle": {"name": "flowers", "id": "0" * 64, "engine": "null", "precision": "fp32"},
        "target": "local",
        "profile": "quick",
        "status": "pass",
        "reason": "",
        "exit_code": 0,
        "limits": [],
        "measured": made["measured"],
        "host": report["host"],
    }
    side = open_side(write(found, "profile.json"))
    assert (side.name, side.identity.batch, side.identity.target) == ("flowers null fp32", None, "local")


def test_a_report_of_several_targets_needs_a_name(write):
    path = write(report_of(shipped("local"), shipped("box")))
    with pytest.raises(MeasurementError, match="the report has several targets") as caught:
        open_side(path)
    assert caught.value.found == "local, box"
    assert "--target" in caught.value.fix
    assert open_side(path, target="box").identity.target == "box"
    with pytest.raises(MeasurementError, match="has no target 'bx'"):
        open_side(path, target="bx")


def test_of_several_targets_the_one_that_was_measured_is_meant(write):
    elsewhere = not_measured_report()["targets"][0]
    assert open_side(write(report_of(elsewhere, shipped("local")))).identity.target == "local"


def test_a_report_without_latencies_is_refused(write):
    with pytest.raises(MeasurementError, match="no latencies of target 'raspberry-pi-4'"):
        open_side(write(not_measured_report()))


@pytest.mark.parametrize("version", [1, 3, "2", None])
def test_a_report_of_another_schema_is_named(write, version):
    with pytest.raises(SpecError, match=r"(?s)not a report this version can read.*schema_version") as caught:
        open_side(write(sample_report(schema_version=version)))
    assert caught.value.allowed == 2


def test_a_comparison_is_no_side(write):
    with pytest.raises(SpecError, match="report"):
        open_side(write({"kind": "comparison", "schema_version": 1}))


def test_nothing_to_compare_is_named(tmp_path):
    (tmp_path / "x.txt").write_text("x")
    for path, found in ((tmp_path / "no", "no such file"), (tmp_path / "x.txt", "neither"), (tmp_path, "neither")):
        with pytest.raises(BundleError, match=rf"(?s)nothing to compare.*{found}"):
            open_side(path)
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(BundleError, match="not JSON"):
        open_side(tmp_path / "x.json")


def test_an_onnx_file_is_made_ready_with_a_fixed_batch(onnx):
    side = onnx(batch=3)
    assert (side.kind, side.name, side.identity.batch) == ("onnx", "model.onnx null", 3)
    assert side.artifact.inputs[0].shape == (3, 4)


def test_a_fixed_batch_other_than_asked_for_is_an_error(onnx):
    with pytest.raises(ModelError, match="fixed batch of 2"):
        onnx(FIXED, batch=1)


def test_an_engine_that_refuses_a_model_is_a_side_that_failed(onnx, tmp_path, monkeypatch):
    from edgekit.backends import null
    from edgekit.errors import EngineError

    def refuse(*args):
        raise EngineError("null refuses the model", found="NonMaxSuppression")

    monkeypatch.setattr(null, "compile", refuse)
    side = onnx()
    assert side.artifact is None
    assert "NonMaxSuppression" in side.failure


def test_an_engine_that_is_not_here_or_unknown_is_an_error(tmp_path, monkeypatch):
    side = open_side(write_model(tmp_path / "model.onnx"))
    with pytest.raises(UnknownName, match="unknown engine 'ort'"):
        ready(side, tmp_path / "o", engine="ort", threads=None, batch=1)
    monkeypatch.setattr("edgekit.places.missing", lambda engine: "pip install it")
    with pytest.raises(EngineMissing, match=r"cannot run .*model\.onnx"):
        ready(side, tmp_path / "o", engine="null", threads=None, batch=1)


def test_what_is_no_onnx_model_is_named(tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"no model")
    with pytest.raises(ModelError, match="not a valid ONNX model"):
        ready(open_side(tmp_path / "x.onnx"), tmp_path / "o", engine="null", threads=None, batch=1)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_threads_reach_the_engine(tmp_path, engine):
    side = open_side(write_model(tmp_path / "model.onnx"))
    options = [
        ready(side, tmp_path / str(threads), engine=engine, threads=threads, batch=1).artifact.options
        for threads in (None, 1)
    ]
    assert set(options[1].items()) - set(options[0].items()) == {
        ("intra_op_num_threads" if engine == "onnxruntime" else "INFERENCE_NUM_THREADS", 1)
    }


def test_the_batch_is_the_bundles_or_what_was_asked_for(tmp_path):
    one, two = (open_side(null_bundle(tmp_path / str(n), batch=n)) for n in (1, 2))
    assert [batch_of([one], None), batch_of([two, two], None), batch_of([], None), batch_of([], 4)] == [1, 2, 1, 4]
    with pytest.raises(MeasurementError, match=r"(?s)different batches.*1: 1, .*2: 2"):
        batch_of([one, two], None)
    with pytest.raises(MeasurementError, match=r"(?s)different batches.*--batch: 4"):
        batch_of([two], 4)


def test_other_inputs_are_refused_and_both_are_told(tmp_path, onnx):
    bundle = open_side(null_bundle(tmp_path / "b"))
    same = onnx()
    check_same_inputs([bundle, same])
    for changed in ({"name": "x"}, {"dtype": "float64"}, {"shape": (1, 5)}, {"shape": (1, 4, 1)}):
        spec = dataclasses.replace(same.artifact.inputs[0], **changed)
        other = dataclasses.replace(same, artifact=dataclasses.replace(same.artifact, inputs=(spec,)))
        with pytest.raises(FeedError, match="do not take the same inputs") as caught:
            check_same_inputs([bundle, other])
        assert caught.value.allowed == "input: float32[1, 4]"
        assert caught.value.found == str(spec)


def test_bundles_of_one_preprocessing_are_fed_raw_samples(tmp_path):
    sides = [open_side(null_bundle(tmp_path / n, preprocessing=PREPROCESSING)) for n in "ab"]
    inputs = inputs_of(sides, None, 1)
    golden = dict(np.load(tmp_path / "a" / "golden.npz"))
    assert inputs.preprocessing == PREPROCESSING
    assert np.array_equal(inputs.feeds["input"] * 0.5, golden["input/input"])
    assert inputs.source == f"golden samples of {tmp_path / 'a'}"


def test_where_preprocessing_is_not_shared_model_tensors_are_fed(tmp_path):
    sides = [
        open_side(null_bundle(tmp_path / "a", preprocessing=PREPROCESSING)),
        open_side(null_bundle(tmp_path / "b")),
    ]
    inputs = inputs_of(sides, None, 1)
    golden = dict(np.load(tmp_path / "a" / "golden.npz"))
    assert inputs.preprocessing is None
    assert np.array_equal(inputs.feeds["input"], golden["input/input"])
    assert "preprocessing is not timed" in inputs.source


def test_an_onnx_file_in_a_bundle_gets_its_golden_samples(tmp_path, onnx):
    folder = null_bundle(tmp_path / "b", model=ZEROS)
    inside = onnx(path=folder / "artifact" / "model.onnx")
    inputs = inputs_of([inside], None, 1)
    assert inputs.source == f"golden samples of {folder}"
    assert len(inputs.feeds["input"]) == 16


def test_golden_samples_that_do_not_fit_are_not_used(tmp_path, onnx):
    wider = ZEROS.replace("4] input", "5] input").replace("[4,", "[5,").replace(", 0, 0, 0}", ", 0, 0, 0, 0, 0, 0}")
    folder = null_bundle(tmp_path / "b", model=wider)
    wider = onnx(path=folder / "artifact" / "model.onnx")
    assert inputs_of([wider], None, 1).source == "random samples: no bundle has any"


def test_without_a_bundle_samples_are_random_and_said_to_be(onnx):
    inputs = inputs_of([onnx(batch=2)], None, 2)
    assert inputs.source == "random samples: no bundle has any"
    assert (inputs.feeds["input"].shape, inputs.feeds["input"].dtype) == ((32, 4), np.float32)


def test_random_whole_numbers_are_small(onnx):
    text = """<ir_version: 9, opset_import: ["" : 20]>
        g (int64["batch", 3] input) => (int64["batch", 3] y) { y = Neg(input) }"""
    feeds = inputs_of([onnx(text)], None, 1).feeds["input"]
    assert (feeds.dtype, set(np.unique(feeds))) == (np.int64, {0, 1})


def test_open_sizes_need_samples(tmp_path, onnx):
    text = """<ir_version: 9, opset_import: ["" : 20]>
        g (float["batch", "length"] input) => (float["batch", "length"] y) { y = Neg(input) }"""
    side = onnx(text)
    with pytest.raises(FeedError, match="random samples cannot be made for input 'input'") as caught:
        inputs_of([side], None, 1)
    assert "--input" in caught.value.fix
    np.savez(tmp_path / "x.npz", anything=np.ones((4, 7), np.float32))
    inputs = inputs_of([side], tmp_path / "x.npz", 1)
    assert (inputs.feeds["input"].shape, inputs.source) == ((4, 7), str(tmp_path / "x.npz"))


def test_samples_that_cannot_be_read_are_named(tmp_path, onnx):
    with pytest.raises(DataError, match="no such file"):
        inputs_of([onnx()], tmp_path / "no.npz", 1)


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"model": "other"}, "model"),
        ({"target": "box"}, "target"),
        ({"batch": 8}, "batch"),
        ({"cpu_model": "x"}, "host"),
    ],
)
def test_figures_of_something_else_are_refused_and_both_are_told(write, changed, word):
    base = open_side(write(sample_report()))
    check_same_kind(base, base)
    other = dataclasses.replace(base, identity=dataclasses.replace(base.identity, **changed))
    with pytest.raises(MeasurementError, match=f"another {word}") as caught:
        check_same_kind(base, other)
    assert repr(next(iter(changed.values()))) in caught.value.found
    assert repr(getattr(base.identity, next(iter(changed)))) in caught.value.allowed


def test_what_is_not_known_is_not_compared(write, onnx):
    base = open_side(write(sample_report()))
    side = onnx()
    check_same_kind(
        base, dataclasses.replace(side, identity=dataclasses.replace(side.identity, cpu_model=base.identity.cpu_model))
    )


def test_the_bundle_beside_a_report_is_found_if_it_is_the_one(tmp_path, write):
    folder = null_bundle(tmp_path / "local")
    report = sample_report()
    assert bundle_beside(write(report)) is None  # another id
    report["targets"][0]["bundle"]["id"] = open_side(folder).manifest.id
    assert bundle_beside(write(report)) == folder
    assert bundle_beside(write(report).parent) == folder
    report["targets"][0]["bundle"]["path"] = "gone"
    assert bundle_beside(write(report)) is None
    report["targets"][0]["bundle"] = None
    assert bundle_beside(write(report)) is None
