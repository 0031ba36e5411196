import dataclasses

import numpy as np
import pytest
from fake_line import CLASSES, make_samples, null_artifact, perfect, references_of

from edgekit.artifact import to_json
from edgekit.checking import (
    PARITY_FLOOR_DB,
    References,
    check,
    load_outputs,
    make_references,
    parse_proof,
    runnable,
    save_outputs,
)
from edgekit.data import Samples
from edgekit.errors import BundleError, DataError, EngineError, ParityError, SpecError
from edgekit.metrics import accuracy
from edgekit.random_inputs import random_samples
from edgekit.runtime.numbers import snr_db


def constant(samples, value):
    return np.full((len(samples), CLASSES), value, np.float32)


def with_noise(outputs, db, seed=0):
    """Outputs of a student that lies ``db`` away from them."""
    noise = np.random.default_rng(seed).standard_normal(outputs.shape)
    signal = np.sqrt(np.square(outputs).sum() / np.square(noise).sum()) * 10 ** (-db / 20)
    return (outputs + signal * noise).astype(np.float64)


# ---- parity ----


def test_an_artifact_that_computes_the_same_is_proven(tmp_path):
    samples = make_samples(70)
    proof = check(references_of(samples), null_artifact(tmp_path / "a", batch=4), samples, accuracy)
    assert (proof.samples, proof.engine, proof.reference_db, proof.max_error) == (70, "null", 300.0, 0.0)
    assert proof.broken is None
    assert [(o.op, o.precision, o.compute, o.count) for o in proof.placement] == [("Null", "fp32", True, 1)]
    assert (proof.int8_share, proof.int8_share_macs, proof.int8_share_time) == (0.0, None, None)
    assert (proof.placement[0].macs, proof.placement[0].time_us, proof.ran_in_float) == (None, None, ())


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8"])
@pytest.mark.parametrize("distance", [-0.5, 0.5])
def test_parity_floors(tmp_path, monkeypatch, precision, distance):
    samples = make_samples(40)
    floor = PARITY_FLOOR_DB.get(precision, 20.0)
    own = np.random.default_rng(1).standard_normal((40, CLASSES))
    student = with_noise(own, floor + distance)
    monkeypatch.setattr("edgekit.checking.run_samples", lambda *args: {"logits": own})
    references = references_of(samples)
    references = dataclasses.replace(references, student={"logits": student})
    proof = check(references, null_artifact(tmp_path / "a", precision=precision), samples, accuracy)
    assert proof.reference_db == pytest.approx(snr_db(student, own))
    assert proof.reference_db == pytest.approx(floor + distance, abs=0.2)
    broken = precision != "int8" and distance < 0
    assert (proof.broken is not None) == broken
    if broken:
        assert f"under the {floor:.0f} dB that {precision} must keep" in proof.broken
        assert proof.metric is None  # a broken artifact has no score worth showing


def test_the_floors_are_those_that_are_published():
    assert PARITY_FLOOR_DB == {"fp32": 90.0, "fp16": 35.0, "bf16": 35.0}


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_nan_breaks_every_precision(tmp_path, precision):
    samples = make_samples(20)
    proof = check(
        references_of(samples), null_artifact(tmp_path / "a", precision=precision, nan_at=7), samples, accuracy
    )
    assert proof.broken == "output 'logits' holds NaN or infinity"
    assert (proof.reference_db, proof.max_error) == (-300.0, 1e300)
    assert to_json(proof)["broken"]


def test_the_worst_output_counts(tmp_path, monkeypatch):
    samples = make_samples(20)
    ones = np.ones((20, 2), np.float32)
    monkeypatch.setattr("edgekit.checking.run_samples", lambda *args: {"a": ones, "b": ones * 1.1})
    references = References(
        student={"a": ones, "b": ones}, teacher={"a": ones}, metric_name=None, teacher_score=None, student_score=None
    )
    proof = check(references, null_artifact(tmp_path / "a"), samples, None)
    assert proof.reference_db == pytest.approx(20.0, abs=0.1)
    assert proof.max_error == pytest.approx(0.1, rel=1e-3)
    assert "20.0 dB against the fp32 model" in proof.broken


def test_an_engine_with_other_outputs_is_refused(tmp_path):
    samples = make_samples(20)
    references = dataclasses.replace(references_of(samples), student={"boxes": constant(samples, 0)})
    with pytest.raises(EngineError, match="null gives other outputs than the fp32 model") as caught:
        check(references, null_artifact(tmp_path / "a"), samples, None)
    assert (caught.value.found, caught.value.allowed) == ("logits", "boxes")


def test_another_shape_than_the_students_is_refused(tmp_path):
    samples = make_samples(20)
    references = dataclasses.replace(references_of(samples), student={"logits": np.zeros((20, 5), np.float32)})
    with pytest.raises(ParityError, match="another shape"):
        check(references, null_artifact(tmp_path / "a"), samples, None)


def test_an_engine_that_crashes_or_refuses_is_an_error(tmp_path):
    samples = make_samples(20)
    with pytest.raises(EngineError, match="null died of SIGABRT"):
        check(references_of(samples), null_artifact(tmp_path / "a", crash_at=9), samples, accuracy)
    gone = dataclasses.replace(null_artifact(tmp_path / "b"), model="gone.null")
    with pytest.raises(EngineError, match=r"null could not open gone.null"):
        check(references_of(samples), gone, samples, accuracy)


def test_more_samples_than_fit_in_memory_at_once_are_read_in_chunks(tmp_path):
    sizes = []
    samples = make_samples(600)
    counted = dataclasses.replace(samples, fetch=lambda i: sizes.append(len(i)) or samples.fetch(i))
    told = []
    proof = check(
        references_of(samples),
        null_artifact(tmp_path / "a", batch=7),
        counted,
        accuracy,
        lambda step, done, total, note="": told.append((step, done, total)),
    )
    assert proof.samples == 600
    assert told == [("check null fp32", done, 600) for done in (0, 256, 512, 600)]
    assert max(sizes) == 256
    assert sum(sizes) == 600 + 16  # those from which the record of the placement takes its query


# ---- scores ----


def test_the_drop_is_from_the_teacher_and_the_one_from_the_student_beside_it(tmp_path):
    samples = make_samples(60)
    references = references_of(samples, perfect(samples))
    proof = check(references, null_artifact(tmp_path / "a"), samples, accuracy)
    assert (proof.metric, proof.teacher, proof.held_out) == ("accuracy", 1.0, True)
    assert proof.student == proof.artifact == pytest.approx(40 / 60)  # zeros mean class 0
    assert proof.drop.points == pytest.approx(100 * 20 / 60)
    assert (proof.drop.n, proof.drop.disagreements) == (60, 20)
    assert (proof.drop_from_fp32.points, proof.drop_from_fp32.disagreements) == (0.0, 0)
    assert proof.drop_from_fp32.high > 0  # nothing is proven to be exactly zero


def test_without_labels_agreement_with_the_teacher_stands_in(tmp_path):
    labelled = make_samples(60)
    samples = dataclasses.replace(labelled, targets=None)
    references = make_references(
        {"logits": constant(samples, 0)}, {"logits": perfect(labelled)}, samples, accuracy, "accuracy"
    )
    assert references.metric_name == "agreement"
    proof = check(references, null_artifact(tmp_path / "a"), samples, accuracy)
    assert (proof.metric, proof.teacher) == ("agreement", 1.0)
    assert proof.artifact == pytest.approx(40 / 60)
    assert proof.drop.points == pytest.approx(100 * 20 / 60)
    assert proof.reference_db == 300.0


def test_agreement_is_of_the_same_output_in_whatever_order_an_engine_gives_them(tmp_path, monkeypatch):
    labelled = make_samples(30)
    samples = dataclasses.replace(labelled, targets=None)
    outputs = {"logits": perfect(labelled), "features": constant(samples, 1.0)}
    references = make_references(outputs, outputs, samples, None, None)
    swapped = dict(reversed(outputs.items()))
    monkeypatch.setattr("edgekit.checking.run_samples", lambda *args: swapped)
    proof = check(references, null_artifact(tmp_path / "a"), samples, None)
    assert (proof.metric, proof.artifact, proof.drop.disagreements) == ("agreement", 1.0, 0)


def test_outputs_that_are_no_class_scores_are_proven_in_db_alone(tmp_path, monkeypatch):
    samples = make_samples(20, labelled=False)
    images = np.ones((20, 3, 4, 4), np.float32)
    monkeypatch.setattr("edgekit.checking.run_samples", lambda *args: {"image": images})
    references = make_references({"image": images}, {"image": images}, samples, None, None)
    assert (references.metric_name, references.teacher_score) == (None, None)
    proof = check(references, null_artifact(tmp_path / "a"), samples, None)
    assert (proof.metric, proof.drop, proof.broken, proof.reference_db) == (None, None, None, 300.0)


def test_agreement_on_random_inputs_says_nothing(tmp_path):
    artifact = null_artifact(tmp_path / "a")
    samples = random_samples(artifact.inputs)
    references = make_references(
        {"logits": constant(samples, 0)}, {"logits": constant(samples, 0)}, samples, None, None
    )
    proof = check(references, artifact, samples, None)
    assert (proof.metric, proof.drop, proof.reference_db) == (None, None, 300.0)


def test_what_is_not_held_out_is_marked(tmp_path):
    samples = make_samples(20, labelled=False)
    references = references_of(samples, held_out=False)
    proof = check(references, null_artifact(tmp_path / "a"), samples, None)
    assert (proof.metric, proof.held_out) == ("agreement", False)


def whole_set(outputs, targets):
    """An aggregate: one number for all samples."""
    return float((outputs.argmax(axis=1) == targets).mean())


def test_an_aggregate_metric_gets_an_interval_too(tmp_path):
    samples = make_samples(60)
    outputs = {"logits": perfect(samples)}, {"logits": constant(samples, 0)}
    references = make_references(outputs[1], outputs[0], samples, whole_set, "mine:whole_set")
    assert (references.teacher_score, references.student_score) == (1.0, pytest.approx(40 / 60))
    proof = check(references, null_artifact(tmp_path / "a"), samples, whole_set)
    assert (proof.metric, proof.teacher, proof.artifact) == ("mine:whole_set", 1.0, pytest.approx(40 / 60))
    assert proof.drop.points == pytest.approx(100 * 20 / 60)
    assert proof.drop.low < proof.drop.points < proof.drop.high
    assert proof.drop_from_fp32.low < 0 < proof.drop_from_fp32.high


def test_a_metric_that_works_in_place_changes_nothing(tmp_path):
    samples = make_samples(20)

    def careless(outputs, targets):
        outputs -= 9.0
        return (outputs.argmax(axis=1) == targets).astype(float)

    zeros = {"logits": constant(samples, 0)}
    references = make_references(zeros, {"logits": perfect(samples)}, samples, careless, "mine:careless")
    assert references.teacher["logits"].max() == 1.0
    assert check(references, null_artifact(tmp_path / "a"), samples, careless).reference_db == 300.0


def test_a_metric_that_fails_is_told_as_the_users(tmp_path):
    samples = make_samples(20)
    with pytest.raises(SpecError, match="the metric 'broken' failed") as caught:
        make_references({"logits": constant(samples, 0)}, {"logits": perfect(samples)}, samples, broken, "mine:broken")
    assert caught.value.found == "KeyError: 'boxes'"


def broken(outputs, targets):
    return {}["boxes"]


def test_a_metric_of_several_outputs_sees_them_by_name(tmp_path, monkeypatch):
    samples = make_samples(20)
    both = {"logits": perfect(samples), "features": constant(samples, 1.0)}
    monkeypatch.setattr("edgekit.checking.run_samples", lambda *args: both)

    def metric(outputs, targets):
        return (outputs["logits"].argmax(axis=1) == targets).astype(float)

    references = make_references(both, both, samples, metric, "mine:metric")
    assert check(references, null_artifact(tmp_path / "a"), samples, metric).artifact == 1.0


def test_nan_of_the_teacher_is_told_as_the_teachers():
    samples = make_samples(20)
    with pytest.raises(ParityError, match="holds NaN"):
        make_references(
            {"logits": constant(samples, 0)}, {"logits": constant(samples, np.nan)}, samples, accuracy, "accuracy"
        )


def test_labels_beyond_the_models_classes_are_refused():
    samples = dataclasses.replace(make_samples(20), targets=np.full(20, 7))
    with pytest.raises(DataError, match="a label is not one of the model's classes"):
        references_of(samples)


# ---- odds and ends ----


def test_a_tensorrt_artifact_is_checked_by_onnx_runtime(tmp_path, monkeypatch):
    artifact = dataclasses.replace(null_artifact(tmp_path / "a"), engine="tensorrt", options={"precision": "fp32"})
    monkeypatch.setattr("edgekit.checking.missing", lambda engine: "not installed")
    assert (runnable(artifact).engine, runnable(artifact).options) == (
        "onnxruntime",
        {"provider": "CPUExecutionProvider", "session.disable_quant_qdq": "1"},
    )
    absent = dataclasses.replace(artifact, engine="openvino")
    assert runnable(absent) is absent
    monkeypatch.setattr("edgekit.checking.missing", lambda engine: None)
    assert runnable(artifact) is artifact


def test_a_provider_that_is_not_here_is_stood_in_for_by_the_cpu_but_not_on_the_target(tmp_path):
    options = {"provider": "CUDAExecutionProvider", "inter_op_num_threads": 1}
    artifact = dataclasses.replace(null_artifact(tmp_path / "a"), engine="onnxruntime", options=options)
    assert runnable(artifact).options["provider"] == "CPUExecutionProvider"
    assert runnable(artifact, on_target=True) is artifact
    here = dataclasses.replace(artifact, options={"provider": "CPUExecutionProvider"})
    assert runnable(here) is here


@pytest.mark.parametrize("labelled", [True, False])
def test_a_proof_survives_json(tmp_path, labelled):
    samples = make_samples(60, labelled=labelled)
    proof = check(references_of(samples), null_artifact(tmp_path / "a"), samples, accuracy if labelled else None)
    assert proof.drop is not None
    assert parse_proof(to_json(proof)) == proof


@pytest.mark.parametrize("raw", [{}, {"drop": 3, "drop_from_fp32": None, "placement": []}, {"samples": 1}])
def test_a_damaged_proof_is_refused(raw):
    with pytest.raises(BundleError, match="what a manifest says of its accuracy cannot be read"):
        parse_proof(raw)


def test_outputs_survive_a_file_whatever_their_names(tmp_path):
    outputs = {"file": np.ones((2, 3)), "args": np.zeros(2), "b/c": np.arange(2), "a": np.ones(2)}
    save_outputs(outputs, tmp_path / "x.npz")
    found = load_outputs(tmp_path / "x.npz")
    assert list(found) == list(outputs)
    assert all(np.array_equal(found[name], outputs[name]) for name in outputs)


def test_a_dataset_without_a_batch_axis_in_its_outputs_is_told(tmp_path, monkeypatch):
    artifact = null_artifact(tmp_path / "a", batch=4)
    flat = tuple(dataclasses.replace(spec, shape=(3,)) for spec in artifact.outputs)
    samples: Samples = make_samples(20)
    with pytest.raises(EngineError, match="has no batch axis"):
        check(references_of(samples), dataclasses.replace(artifact, outputs=flat), samples, accuracy)
