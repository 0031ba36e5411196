import dataclasses
import json
import shutil

import numpy as np
import pytest
from fake_line import (
    elsewhere,
    fake_target,
    make_samples,
    make_task,
    null_artifact,
    perfect,
    quick_profile,
    references_of,
)
from tiny_bundles import rewrite

from edgekit.artifact import hash_json, read_json, to_json, write_json
from edgekit.bundle import BundleFacts, make_golden, write_bundle
from edgekit.candidate import Plan
from edgekit.catalog import load_target
from edgekit.checking import check
from edgekit.errors import BundleError, EngineMissing, MeasurementError, SpecError, UnknownName
from edgekit.metrics import accuracy
from edgekit.processing_specs import Postprocessing, Preprocessing
from edgekit.reporting.validation import validate
from edgekit.timing import profile_bundle


@pytest.fixture
def bundle(tmp_path, monkeypatch):
    """Makes a bundle of the null engine as a deployment would: ``bundle(target, profile, **engine options)``."""
    from edgekit import specs

    # A recorded target is read like any file; this one names the fake engine.
    monkeypatch.setattr("edgekit.timing.parse", lambda model, raw, where: read(specs, model, raw, where))

    def make(target=None, profile=None, teacher=None, samples=None, batch=1, **options):
        samples = samples or make_samples(40)
        references = references_of(samples, teacher)
        artifact = null_artifact(tmp_path / "artifact", batch=batch, **options)
        metric = accuracy if samples.targets is not None else None
        facts = BundleFacts(
            name="zeros",
            target=(target or fake_target()).name,
            plan=Plan(engine="null", precision="fp32"),
            batch=batch,
            preprocessing=samples.preprocessing,
            labels=(),
            parents=(),
            accuracy=to_json(check(references, artifact, samples, metric)),
            timings={
                "profile": (profile or quick_profile(batch=batch)).model_dump(),
                "target": to_json(dict(target or fake_target())),
            },
        )
        write_bundle(artifact, make_golden(artifact, references, samples, batch), facts, tmp_path / "bundle")
        return tmp_path / "bundle"

    return make


def read(specs, model, raw, where):
    return specs.parse(model, raw | ({"engines": ["openvino"]} if "engines" in raw else {}), where)


def limits(found):
    return {limit["limit"]: limit["status"] for limit in found["limits"]}


def test_a_bundle_is_measured_and_judged_on_its_target(bundle):
    found = profile_bundle(bundle(profile=quick_profile(p50_ms=1000.0, size_mb=1.0)))
    assert (found["status"], found["exit_code"], found["reason"]) == ("pass", 0, "every limit is met")
    assert limits(found) == {"p50_ms": "pass", "size_mb": "pass"}
    assert found["bundle"] | {"id": ""} == {"name": "zeros", "id": "", "engine": "null", "precision": "fp32"}
    assert (found["target"], found["profile"]) == ("fake", "quick")
    assert found["measured"]["application"]["n"] >= 20
    json.dumps(found, allow_nan=False)


def test_a_missed_limit_exits_with_3(bundle):
    found = profile_bundle(bundle(profile=quick_profile(p50_ms=0.0001)))
    assert (found["status"], found["exit_code"], found["reason"]) == ("fail", 3, "not met: p50_ms")


def test_another_profile_can_be_asked_for(bundle, tmp_path):
    (tmp_path / "mine" / "profiles").mkdir(parents=True)
    (tmp_path / "mine" / "profiles" / "strict.toml").write_text(
        'description = "strict"\n[limits]\np50_ms = 0.0001\n'
        "[load]\nmin_seconds = 0.01\nmin_count = 20\nmax_other_load = 1.0\n"
    )
    found = profile_bundle(bundle(profile=quick_profile(p50_ms=1000.0)), "strict", [tmp_path / "mine"])
    assert (found["profile"], found["exit_code"]) == ("strict", 3)
    with pytest.raises(UnknownName, match="unknown profile 'strct'"):
        profile_bundle(tmp_path / "bundle", "strct", [tmp_path / "mine"])


def test_a_profile_of_another_batch_is_refused(bundle, tmp_path):
    path = bundle(batch=2)
    with pytest.raises(SpecError, match="profile 'interactive' asks for batch 1") as caught:
        profile_bundle(path, "interactive")
    assert caught.value.found == "a bundle compiled for batch 2"
    assert profile_bundle(path)["exit_code"] == 0


def test_elsewhere_figures_are_shown_and_the_verdict_is_not_measured(bundle):
    found = profile_bundle(bundle(elsewhere(), quick_profile(p50_ms=1000.0, size_mb=1.0)))
    assert (found["status"], found["exit_code"]) == ("not measured", 4)
    assert "the target is a CPU of another world" in found["reason"]
    assert limits(found) == {"p50_ms": "not measured", "size_mb": "pass"}
    assert found["measured"]["application"]["n"] >= 20
    assert found["limits"][0]["value"] is not None


def test_local_is_the_machine_a_bundle_was_made_on(bundle):
    here = load_target("local")
    path = bundle(dataclasses_replaced(here))
    assert profile_bundle(path)["exit_code"] == 0
    manifest = read_json(path / "manifest.json")
    manifest["timings"]["target"]["cpu_model"] = "another CPU"
    write_json(path / "manifest.json", manifest | {"timings_sha256": hash_json(manifest["timings"])})
    assert "the target is another CPU" in profile_bundle(path)["reason"]


def dataclasses_replaced(target):
    return fake_target(
        "local", **{key: getattr(target, key) for key in ("arch", "isa", "cpu_model", "cores", "threads")}
    )


def test_a_bundle_that_does_not_say_its_target_or_profile(bundle):
    path = bundle()
    manifest = read_json(path / "manifest.json")
    del manifest["timings_sha256"]
    write_json(path / "manifest.json", manifest | {"timings": {"profile": manifest["timings"]["profile"]}})
    with pytest.raises(UnknownName, match="unknown target 'fake'"):
        profile_bundle(path)
    write_json(path / "manifest.json", manifest | {"timings": {}})
    with pytest.raises(SpecError, match="does not say what it was deployed for") as caught:
        profile_bundle(path)
    assert caught.value.fix == "give --profile NAME"


def test_the_accuracy_proven_when_it_was_made_is_judged_and_not_measured_again(bundle, tmp_path):
    samples = make_samples(600)
    path = bundle(profile=quick_profile(max_drop_points=50.0), teacher=perfect(samples), samples=samples)
    found = profile_bundle(path)
    assert (found["status"], found["limits"][0]["value"]) == ("pass", pytest.approx(100 / 3, abs=0.5))
    (tmp_path / "strict.toml").write_text(
        'description = "x"\n[limits]\nmax_drop_points = 1.0\n[load]\nmin_seconds = 0.01\nmin_count = 20\n'
    )
    assert profile_bundle(path, str(tmp_path / "strict.toml"))["exit_code"] == 3


def test_an_accuracy_that_was_not_decided_still_is_not(bundle):
    assert profile_bundle(bundle(profile=quick_profile(max_drop_points=0.1)))["exit_code"] == 4


def test_the_application_clock_has_pre_and_postprocessing_in(bundle, tmp_path, monkeypatch):
    samples = dataclasses.replace(make_samples(40), preprocessing=Preprocessing(input="input", scale=0.5))
    path = bundle(samples=samples)
    after = {"output": "logits", "activation": "softmax", "axis": 1, "top": 2}
    rewrite(path, lambda raw: raw.update(postprocessing=after, labels=["a", "b", "c"]))
    seen = {}
    import edgekit.timing

    measure = edgekit.timing.measure_in_turns

    def watching(artifacts, load, feeds, **kwargs):
        seen.update(feeds=feeds, steps=kwargs["in_numpy"][0])
        return measure(artifacts, load, feeds, **kwargs)

    monkeypatch.setattr(edgekit.timing, "measure_in_turns", watching)
    found = profile_bundle(path)
    assert seen["steps"].preprocessing.scale == 0.5
    assert (seen["steps"].postprocessing, seen["steps"].labels) == (Postprocessing(**after), ("a", "b", "c"))
    golden = dict(np.load(path / "golden.npz"))
    assert np.array_equal(seen["feeds"]["input"] * 0.5, golden["input/input"])
    measured = found["measured"]
    assert measured["application"]["mean_ms"] > measured["engine"]["mean_ms"]


@pytest.mark.parametrize("options", [{"crash_at": 50}, {"nan_at": 50}])
def test_a_bundle_that_does_not_run_is_told_and_fails(bundle, options):
    found = profile_bundle(bundle(**options))
    assert (found["status"], found["exit_code"]) == ("fail", 3)
    assert "SIGABRT" in found["reason"] or "NaN" in found["reason"]
    assert found["measured"]["status"] in ("crashed", "failed")
    assert found["measured"]["application"] is None
    validate(found, "profile", kinds=("profile",))


def test_a_percentile_that_takes_too_long_is_refused(bundle, tmp_path):
    (tmp_path / "hasty.toml").write_text(
        'description = "p99.9 in one second"\n[limits]\np999_ms = 50.0\n[load]\nmin_seconds = 1.0\nmax_seconds = 1.0\n'
    )
    with pytest.raises(
        MeasurementError, match=r"(?s)'hasty' asks for more.*p99.9 needs 6,636 queries, about"
    ) as caught:
        profile_bundle(bundle(latency_us=2000.0), str(tmp_path / "hasty.toml"))
    assert "max_seconds is 1: raise it to" in caught.value.found


def test_a_missing_engine_and_a_damaged_bundle_are_told(bundle, tmp_path, monkeypatch):
    path = bundle()
    monkeypatch.setattr("edgekit.places.missing", lambda engine: "pip install null")
    with pytest.raises(EngineMissing, match="engine 'null' cannot run here"):
        profile_bundle(path)
    (path / "artifact" / "model.null").write_bytes(b"1")
    with pytest.raises(BundleError, match="damaged or was changed"):
        profile_bundle(path)
    shutil.rmtree(path)
    with pytest.raises(BundleError, match="no bundle here"):
        profile_bundle(path)


def test_progress_is_told(bundle):
    told = []
    profile_bundle(bundle(), progress=lambda step, done, total, note="": told.append((step, done)))
    assert told[:3] == [("load", 0), ("load", 1), ("measure", 0)]
    assert told[-1] == ("measure", 100)


def test_a_task_elsewhere_says_why():
    assert make_task().not_measured is None
    assert "another world" in make_task(elsewhere()).not_measured
