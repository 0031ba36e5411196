import json
import math

import numpy as np
import pytest
from fake_line import (
    compiled_with,
    elsewhere,
    fake_target,
    leftovers,
    make_recipe,
    make_samples,
    quick_profile,
    snapshot,
    write_npz,
    write_project,
)

from edgekit.artifact import read_json
from edgekit.backends import null
from edgekit.errors import BundleError, DataError, EngineError, EngineMissing, SpecError
from edgekit.pipeline import Choices, deploy, worst
from edgekit.reporting.html import to_html
from edgekit.reporting.markdown import to_markdown
from edgekit.reporting.report import load_report
from edgekit.runtime import verify_bundle


@pytest.fixture
def project(tmp_path):
    return write_project(tmp_path / "project")


@pytest.fixture
def run(project, tmp_path):
    """Deploys the model of zeros: ``run(targets=["fake"])``; the run's folder is ``run.out``."""

    def go(choices=None, out=None, bundle=None, **fields):
        return deploy(make_recipe(**fields), project, out or go.out, choices, bundle=bundle, command="edgekit deploy .")

    go.out = tmp_path / "run"
    return go


def rows(report, target=0):
    return {f"{c['engine']} {c['precision']}": c for c in report["targets"][target]["candidates"]}


def finite(value):
    """Whether no number in a JSON value is NaN or infinite."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and finite(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(finite, value))
    return not isinstance(value, float) or math.isfinite(value)


# ---- the whole line ----


def test_a_run_leaves_a_bundle_a_report_and_its_steps(run, catalogue):
    catalogue(profile=quick_profile(p50_ms=1000.0, size_mb=1.0))
    report = run()
    assert report["exit_code"] == 0
    assert sorted(p.name for p in run.out.iterdir()) == [".steps", "fake", "report.html", "report.json", "report.md"]
    assert verify_bundle(run.out / "fake").passed
    (target,) = report["targets"]
    assert target["bundle"] == {"path": "fake", "id": read_json(run.out / "fake" / "manifest.json")["id"]}
    assert [c["shipped"] for c in target["candidates"]].count(True) == 1
    assert sorted(rows(report)) == ["null fp32", "null int8"]
    assert leftovers(run.out) == []


def test_the_report_on_disk_is_the_one_returned_and_clean_json(run, catalogue):
    catalogue()
    report = run()
    text = (run.out / "report.json").read_text()
    assert json.loads(text) == report == load_report(run.out)
    assert finite(report)
    assert (run.out / "report.md").read_text() == to_markdown(json.loads(text))
    assert (run.out / "report.html").read_text() == to_html(json.loads(text))
    assert set(report) == {
        *("schema_version", "edgekit_version", "name", "created", "seconds", "command", "seed", "host", "engines"),
        *("kind", "models", "same_model", "untrained", "data", "reproduce", "targets", "exit_code"),
    }
    assert report["data"] == {"test_samples": 64, "random": False, "held_out": True, "metric": "accuracy"}
    assert report["same_model"]
    assert not report["untrained"]


def test_a_bundle_can_be_traced_to_its_teacher_and_its_data(run, catalogue):
    catalogue()
    report = run(choices=Choices(precision="int8"))
    manifest = read_json(run.out / "fake" / "manifest.json")
    kinds = {(parent["kind"], parent["name"]): parent["sha256"] for parent in manifest["parents"]}
    assert list(kinds) == [
        ("data", "train"),
        ("data", "test"),
        ("teacher", "model.onnx"),
        ("fp32", "onnx"),
        ("quantized", "null int8"),
    ]
    assert kinds["teacher", "model.onnx"] == report["models"]["teacher"]["sha256"]
    assert len(set(kinds.values())) == 5, "its nodes got names on the way in"
    assert manifest["timings"]["profile"]["name"] == "quick"
    assert manifest["timings"]["target"]["name"] == "fake"
    assert manifest["accuracy"]["drop"]["n"] == 64


def test_the_bundles_id_is_that_of_any_run_anywhere(run, catalogue, tmp_path):
    catalogue()
    ids = [run(out=tmp_path / name, choices=Choices(precision="fp32"))["targets"][0]["bundle"]["id"] for name in "ab"]
    ids.append(run(out=tmp_path / "a", choices=Choices(precision="fp32"))["targets"][0]["bundle"]["id"])
    assert len(set(ids)) == 1
    timings = [read_json(tmp_path / name / "fake" / "manifest.json")["timings"]["measured"] for name in "ab"]
    assert timings[0] != timings[1]


def test_a_bundle_of_another_name_has_a_report_of_that_name(run, catalogue):
    catalogue()
    report = run(bundle="mine")
    assert report["targets"][0]["bundle"]["path"] == "mine"
    reports = [f"mine.report.{kind}" for kind in ("html", "json", "md")]
    assert sorted(p.name for p in run.out.iterdir()) == [".steps", "mine", *reports]
    assert load_report(run.out / "mine.report.json") == report


# ---- ship or not ----


def perfect_teacher(monkeypatch, student="teacher"):
    """Makes the teacher always right, and the student like it or (``zeros``) like the null engine."""
    import edgekit.references as module

    original = module.make_references

    def references(of_student, of_teacher, samples, *args, **kwargs):
        right = {"logits": np.eye(3, dtype=np.float32)[samples.targets]}
        return original(right if student == "teacher" else of_student, right, samples, *args, **kwargs)

    monkeypatch.setattr(module, "make_references", references)


def test_broken_parity_ships_nothing_and_exits_with_1(run, catalogue, monkeypatch):
    catalogue()
    perfect_teacher(monkeypatch)
    report = run(choices=Choices(precision="fp32"))
    (target,) = report["targets"]
    assert (report["exit_code"], target["status"], target["bundle"]) == (1, "fail", None)
    assert "under the 90 dB that fp32 must keep" in rows(report)["null fp32"]["failure"]
    assert target["why"] == "nothing ships: every candidate failed"
    assert not (run.out / "fake").exists()
    assert load_report(run.out)["exit_code"] == 1


def test_an_accuracy_wholly_beyond_its_limit_ships_nothing_and_exits_with_3(run, catalogue, monkeypatch):
    catalogue(profile=quick_profile(max_drop_points=1.0))
    perfect_teacher(monkeypatch, student="zeros")
    report = run()
    assert (report["exit_code"], report["targets"][0]["bundle"]) == (3, None)
    assert report["targets"][0]["why"] == "nothing ships: the accuracy limit is missed"
    assert rows(report)["null fp32"]["reason"] == "not met: max_drop_points"
    assert not (run.out / "fake").exists()


def test_when_nothing_ships_an_older_bundle_stays_and_is_called_old(run, catalogue, monkeypatch):
    catalogue()
    run()
    before = snapshot(run.out / "fake")
    perfect_teacher(monkeypatch)
    report = run(choices=Choices(precision="fp32"))
    assert report["targets"][0]["why"].endswith("; the bundle in fake is from an earlier run")
    assert snapshot(run.out / "fake") == before


@pytest.mark.parametrize(
    ("data", "shapes", "claimed"),
    [
        ({"train": "train.npz", "test": "test.npz"}, {}, "accuracy"),  # 64 samples prove no drop under one point
        ({"train": "train.npz", "test": "unlabelled.npz"}, {}, "agreement"),
        ({"train": "train.npz"}, {}, "agreement"),
        (None, {"input": "f32[1,4]"}, None),
    ],
)
def test_an_undecided_accuracy_is_bundled_and_exits_with_4(run, catalogue, project, data, shapes, claimed):
    catalogue(profile=quick_profile(max_drop_points=1.0))
    write_npz(project / "unlabelled.npz", make_samples(64, seed=2, labelled=False))
    report = run(data=data, shapes=shapes)
    assert (report["exit_code"], report["targets"][0]["status"]) == (4, "inconclusive")
    assert report["data"]["metric"] == claimed
    manifest = read_json(run.out / "fake" / "manifest.json")
    assert manifest["timings"]["verdict"]["status"] == "inconclusive"
    assert manifest["golden"]["random"] == (data is None)


def test_without_a_test_set_not_even_full_agreement_is_a_pass(run, catalogue):
    catalogue(profile=quick_profile(max_drop_points=50.0))
    report = run(data={"train": "train.npz"})
    assert report["exit_code"] == 4
    shipped = next(c for c in report["targets"][0]["candidates"] if c["shipped"])
    assert (shipped["proof"]["artifact"], shipped["proof"]["held_out"]) == (1.0, False)
    assert "not held out" in shipped["limits"][0]["note"]


def test_a_missed_latency_is_bundled_said_and_exits_with_3(run, catalogue):
    catalogue(profile=quick_profile(p50_ms=0.0001))
    report = run()
    assert (report["exit_code"], report["targets"][0]["status"]) == (3, "fail")
    timings = read_json(run.out / "fake" / "manifest.json")["timings"]
    assert (timings["verdict"]["status"], timings["verdict"]["reason"]) == ("fail", "not met: p50_ms")
    assert verify_bundle(run.out / "fake").passed
    assert "of the best there is (fail)" in report["targets"][0]["why"]


def test_elsewhere_auto_ships_fp32_says_so_and_exits_with_4(run, catalogue):
    catalogue(elsewhere("fake"), profile=quick_profile(p50_ms=1.0))
    report = run()
    (target,) = report["targets"]
    assert (report["exit_code"], target["status"], sorted(rows(report))) == (4, "not measured", ["null fp32"])
    assert target["why"].startswith("null fp32: auto ships fp32 where nothing can be measured (this host is")
    manifest = read_json(run.out / "fake" / "manifest.json")
    assert manifest["timings"]["measured"] is None
    assert "the target is a CPU of another world" in manifest["timings"]["not_measured"]


def test_elsewhere_a_named_precision_ships_as_asked(run, catalogue):
    catalogue(elsewhere("fake"))
    report = run(quantization={"precision": "int8"})
    assert (report["exit_code"], sorted(rows(report))) == (4, ["null int8"])
    assert "as asked" in report["targets"][0]["why"]
    assert read_json(run.out / "fake" / "manifest.json")["precision"] == "int8"


@pytest.mark.parametrize(
    ("codes", "wanted"), [([], 0), ([0], 0), ([0, 4], 4), ([4, 3, 0], 3), ([0, 1, 3, 4], 1), ([4, 4], 4), ([3, 4], 3)]
)
def test_of_several_targets_the_worst_counts(codes, wanted):
    assert worst(codes) == wanted


def test_every_target_gets_its_bundle_and_the_worst_exit_code_wins(run, catalogue):
    catalogue(fake_target("here"), elsewhere("there"), fake_target("slow", options={"null": {"latency_us": 9000.0}}),
              profile=quick_profile(p50_ms=5.0))  # fmt: skip
    report = run(targets=["here", "there", "slow"])
    assert [target["exit_code"] for target in report["targets"]] == [0, 4, 3]
    assert report["exit_code"] == 3
    for name in ("here", "there", "slow"):
        assert read_json(run.out / name / "manifest.json")["target"] == name
        assert verify_bundle(run.out / name).passed


# ---- engines ----


def test_a_missing_engine_is_a_row_and_the_others_go_on(run, catalogue):
    catalogue(fake_target(engines=("openvino", "null")))
    from edgekit.backends import openvino

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(openvino, "missing", lambda target: "nncf is not installed: pip install 'edgekit[compress]'")
        report = run(choices=Choices(precision="fp32"))
    assert report["exit_code"] == 0
    assert "nncf is not installed" in rows(report)["openvino fp32"]["failure"]
    assert rows(report)["null fp32"]["shipped"]
    assert "the only candidate left" in report["targets"][0]["why"]


def test_a_missing_engine_that_is_named_is_an_error(run, catalogue, monkeypatch):
    catalogue()
    monkeypatch.setattr(null, "missing", lambda target: "null is not installed")
    with pytest.raises(EngineMissing, match="engine 'null' was named and cannot prepare") as caught:
        run(choices=Choices(engine="null"))
    assert caught.value.found == "null is not installed"
    assert not run.out.exists()


def test_when_no_engine_is_left_it_exits_with_1(run, catalogue, monkeypatch):
    catalogue()
    monkeypatch.setattr(null, "missing", lambda target: "null is not installed")
    report = run()
    assert report["exit_code"] == 1
    assert all("null is not installed" in c["failure"] for c in rows(report).values())


def test_a_named_engine_that_fails_exits_with_1(run, catalogue, monkeypatch):
    def refuse(*args, **kwargs):
        raise EngineError("null cannot run operator MatMul")

    catalogue()
    monkeypatch.setattr(null, "compile", refuse)
    report = run(choices=Choices(engine="null"))
    assert report["exit_code"] == 1
    assert "null cannot run operator MatMul" in (run.out / "report.md").read_text()


def test_a_crashing_candidate_is_a_row_and_the_other_ships(run, catalogue, monkeypatch):
    catalogue()
    compiled_with(monkeypatch, fp32={"crash_at": 200})
    report = run()
    assert report["exit_code"] == 0
    assert "died of SIGABRT" in rows(report)["null fp32"]["failure"]
    assert rows(report)["null int8"]["shipped"]


def test_candidates_that_all_crash_ship_nothing_and_exit_with_1(run, catalogue):
    catalogue(fake_target(options={"null": {"crash_at": 200}}))
    report = run()
    assert (report["exit_code"], report["targets"][0]["bundle"]) == (1, None)
    assert not (run.out / "fake").exists()


# ---- mistakes are told before any work ----


@pytest.mark.parametrize(
    ("fields", "choices", "error", "message"),
    [
        ({}, {"engine": "nul"}, SpecError, "engine 'nul' is no candidate of target 'fake'"),
        ({}, {"precision": "fp16"}, SpecError, "does not run fp16"),
        ({"targets": ["fake", "fake"]}, {}, SpecError, "two targets are called 'fake'"),
        ({"data": None}, {"precision": "int8"}, DataError, "int8 needs calibration samples"),
    ],
)
def test_a_mistake_in_what_is_asked_leaves_nothing(run, catalogue, fields, choices, error, message):
    catalogue()
    with pytest.raises(error, match=message):
        run(choices=Choices(**choices), **fields)
    assert not run.out.exists()


def test_one_bundle_name_for_several_targets(run, catalogue):
    catalogue(fake_target("a"), fake_target("b"))
    with pytest.raises(SpecError, match="one bundle name for several targets"):
        run(targets=["a", "b"], bundle="mine")


def test_a_folder_of_the_users_is_not_replaced_and_this_is_told_first(run, catalogue, monkeypatch):
    catalogue()
    (run.out / "fake").mkdir(parents=True)
    (run.out / "fake" / "notes.txt").write_text("mine")
    with pytest.raises(BundleError, match="the bundle would go here, and this is something else"):
        run()
    assert snapshot(run.out) == {"fake/notes.txt": b"mine"}
