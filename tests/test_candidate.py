import dataclasses

import numpy as np
import pytest
from fake_line import (
    compiled_with,
    elsewhere,
    fake_target,
    fp32_artifact,
    leftovers,
    make_samples,
    make_task,
    perfect,
    quick_profile,
    references_of,
)

from edgekit.backends import null
from edgekit.candidate import (
    Plan,
    choose,
    measure_all,
    prepare,
    try_plan,
    try_plans,
)
from edgekit.catalog import load_target
from edgekit.choosing import best, p50_bound_ms
from edgekit.data import Samples
from edgekit.errors import DataError, EdgeKitError, EngineError
from edgekit.making import measuring_feeds, tool_versions
from edgekit.processing_specs import Preprocessing
from edgekit.profiling.comparison import rounds_needed
from edgekit.profiling.host import this_host
from edgekit.quantization.schemes import plan_of
from edgekit.specs import Profile

FP32 = Plan(engine="null", precision="fp32")
INT8 = plan_of("null", "int8")
SLOW = 3000.0  # µs; a null query takes some ten


@pytest.fixture
def model(tmp_path):
    return fp32_artifact(tmp_path / "model")


@pytest.fixture
def steps(tmp_path):
    return tmp_path / "steps"


@pytest.fixture
def calls(monkeypatch):
    """Counts what the backend and the profiler do."""
    import edgekit.candidate as module
    from edgekit import making

    counted = []

    def count(owner, name):
        original = getattr(owner, name)

        def counting(*args, **kwargs):
            counted.append(name)
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, counting)

    for owner, name in ((null, "quantize"), (null, "compile"), (making, "measure_in_turns"), (module, "prove")):
        count(owner, name)
    return counted


# ---- one candidate ----


def test_prepare_ends_at_a_proof(model, steps):
    made = prepare(model, INT8, make_task(profile=quick_profile(batch=2)), steps)
    assert made.plan.scheme.name == "null"  # the engine's own dialect
    assert made.artifact.engine == "null"
    assert made.artifact.precision == "int8"
    assert made.artifact.inputs[0].shape == (2, 4)
    assert made.proof.samples == 64
    assert (made.measured, made.verdict, made.failure) == (None, None, None)


def test_an_artifact_names_its_parents(model, steps):
    made = prepare(model, INT8, make_task(), steps).artifact
    quantised = next(p for p in steps.iterdir() if p.name.startswith("quantize-"))
    assert made.parent != model.sha256
    assert f'"parent": "{model.sha256}"' in (quantised / "artifact.json").read_text()
    assert prepare(model, FP32, make_task(), steps).artifact.parent == model.sha256


def test_int8_without_calibration_is_refused(model, steps):
    with pytest.raises(DataError, match="null int8: int8 needs calibration samples"):
        prepare(model, INT8, make_task(calibration=None), steps)


def test_an_engine_that_cannot_prepare_says_why(model, steps, monkeypatch):
    monkeypatch.setattr(null, "missing", lambda target: "null is not installed: pip install null")
    with pytest.raises(EdgeKitError, match="cannot prepare a model here") as caught:
        prepare(model, FP32, make_task(), steps)
    assert caught.value.found == "null is not installed: pip install null"


def test_try_plan_goes_to_the_verdict(model, steps):
    made = try_plan(model, FP32, make_task(profile=quick_profile(p50_ms=1000.0)), steps)
    assert made.verdict.status == "pass"
    assert made.measured.status == "ok"
    assert len(made.measured.application_ms) >= 20
    assert p50_bound_ms(made) >= np.median(made.measured.application_ms)


# ---- what is kept between runs ----


def test_finished_steps_are_not_done_again(model, steps, calls):
    task = make_task()
    first = try_plans(model, [FP32, INT8], task, steps)
    assert sorted(calls) == ["compile", "compile", "measure_in_turns", "prove", "prove", "quantize"]
    calls.clear()
    again = try_plans(model, [FP32, INT8], task, steps)
    assert sorted(calls) == ["prove", "prove"]  # never kept: test data and metric may be other ones
    assert [c.artifact.sha256 for c in again] == [c.artifact.sha256 for c in first]
    assert np.array_equal(again[0].measured.application_ms, first[0].measured.application_ms)


TEST = make_samples(64, seed=7)


@pytest.mark.parametrize(
    ("change", "repeated"),
    [
        ({}, []),
        ({"profile": quick_profile(size_mb=9.0)}, []),
        ({"profile": quick_profile(min_count=25)}, ["measure_in_turns"]),
        ({"profile": quick_profile(p99_ms=9.0)}, ["measure_in_turns"]),  # which needs 662 queries
        ({"profile": quick_profile(batch=2)}, ["compile", "compile", "measure_in_turns"]),
        ({"target": fake_target("renamed", description="another", peak_gops={"int8": 3.0})}, []),
        ({"target": fake_target(threads=1)}, ["compile", "compile"]),
        ({"target": fake_target(options={"null": {"latency_us": 1.0}})}, ["compile", "compile", "measure_in_turns"]),
        ({"calibration": make_samples(32, seed=8)}, ["quantize"]),
        ({"test": TEST, "references": references_of(TEST)}, ["measure_in_turns"]),  # the same artifacts, other queries
    ],
)
def test_a_change_redoes_only_what_depends_on_it(model, steps, calls, change, repeated):
    try_plans(model, [FP32, INT8], make_task(), steps)
    calls.clear()
    try_plans(model, [FP32, INT8], make_task(**change), steps)
    # The null engine copies its model, whatever the threads and the calibration: an equal artifact is not timed again.
    assert sorted(name for name in calls if name != "prove") == sorted(repeated)


@pytest.mark.parametrize("module", ["edgekit.making.engine_version", "edgekit.making.tool_versions"])
def test_another_engine_or_tool_redoes_the_quantised_model(model, steps, calls, monkeypatch, module):
    try_plans(model, [INT8], make_task(), steps)
    calls.clear()
    monkeypatch.setattr(module, lambda *names: "99.0")
    try_plans(model, [INT8], make_task(), steps)
    assert "quantize" in calls


def test_another_host_measures_again(model, steps, calls, monkeypatch):
    try_plans(model, [FP32], make_task(), steps)
    calls.clear()
    other = dataclasses.replace(this_host(), governor="powersave")
    monkeypatch.setattr("edgekit.making.this_host", lambda: other)
    try_plans(model, [FP32], make_task(), steps)
    assert [name for name in calls if name != "prove"] == ["measure_in_turns"]


def test_versions_of_tools():
    assert tool_versions("numpy", "no-such-distribution") == {"numpy": np.__version__, "no-such-distribution": None}


# ---- candidates that fail ----


def test_a_candidate_that_cannot_be_made_is_a_row_and_the_others_go_on(model, steps, monkeypatch):
    def refuse(*args, **kwargs):
        raise EngineError("null could not quantise the model", found="a Frobnicate")

    monkeypatch.setattr(null, "quantize", refuse)
    fp32, int8 = try_plans(model, [FP32, INT8], make_task(), steps)
    assert fp32.verdict.status == "pass"
    assert (int8.artifact, int8.verdict) == (None, None)
    assert "a Frobnicate" in int8.failure
    assert best([fp32, int8]) is fp32
    assert leftovers(steps) == []


def test_an_engine_without_the_precision_is_a_row(model, steps):
    tensorrt = plan_of("tensorrt", "bf16")
    fp32, bf16 = try_plans(model, [FP32, tensorrt], make_task(), steps)
    assert fp32.verdict.status == "pass"
    assert "engine 'tensorrt' has no bf16" in bf16.failure


def test_an_engine_that_is_missing_is_a_row(model, steps, monkeypatch):
    monkeypatch.setattr(null, "missing", lambda target: "null is not installed")
    (row,) = try_plans(model, [FP32], make_task(), steps)
    assert "null is not installed" in row.failure
    assert best([row]) is None


def test_a_candidate_that_crashes_while_checked_is_a_row(model, steps, monkeypatch):
    compiled_with(monkeypatch, int8={"crash_at": 5})
    fp32, int8 = try_plans(model, [FP32, INT8], make_task(), steps)
    assert fp32.verdict.status == "pass"
    assert (int8.artifact, int8.failure) == (None, "null died of SIGABRT while running the samples")
    assert best([fp32, int8]) is fp32


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"crash_at": 30}, "died of SIGABRT"),
        ({"hang_at": 30}, "gave no answer for 5 s"),
        ({"nan_at": 30}, "output 'logits' holds NaN or infinity"),
    ],
)
def test_a_candidate_that_crashes_hangs_or_gives_nan_while_measured_is_a_row(model, steps, monkeypatch, options, said):
    compiled_with(monkeypatch, int8=options)
    load_spec = Profile.load_spec
    monkeypatch.setattr(Profile, "load_spec", lambda self: dataclasses.replace(load_spec(self), timeout_s=5.0))
    task = make_task(test=make_samples(20))  # so the 30th query is one of the measuring process
    fp32, int8 = try_plans(model, [FP32, INT8], task, steps)
    assert (fp32.failure, fp32.verdict.status) == (None, "pass")
    assert said in int8.failure
    assert (int8.verdict, int8.proof.broken) == (None, None)
    assert best([int8]) is None
    assert best([fp32, int8]) is fp32
    # A measurement that failed is not kept: there may be more memory the next time.
    assert not [p for p in steps.iterdir() if p.name.startswith("measure-")]


def test_broken_numbers_are_never_measured(model, steps, calls):
    test = make_samples()
    references = dataclasses.replace(references_of(test), student={"logits": perfect(test)})
    fp32, int8 = try_plans(model, [FP32, INT8], make_task(test=test, references=references), steps)
    assert "0.0 dB against the fp32 model, under the 90 dB that fp32 must keep" in fp32.failure
    assert (fp32.verdict, fp32.measured) == (None, None)
    assert int8.failure is None  # int8 has no floor
    assert int8.measured.status == "ok"
    assert best([fp32, int8]) is int8


def test_when_every_candidate_is_broken_nothing_is_measured(model, steps, calls):
    test = make_samples()
    references = dataclasses.replace(references_of(test), student={"logits": perfect(test)})
    with pytest.raises(EdgeKitError, match="no candidate for target 'fake' may ship") as caught:
        choose(model, [FP32], make_task(test=test, references=references), steps)
    assert "under the 90 dB" in caught.value.found
    assert "measure_in_turns" not in calls


def test_a_full_disk_is_no_row(model, steps, monkeypatch):
    def fill(*args):
        raise EngineError("null could not compile the model") from OSError(28, "No space left on device")

    monkeypatch.setattr(null, "compile", fill)
    with pytest.raises(OSError, match="the disk is full: the step 'compile' could not be written"):
        try_plans(model, [FP32, INT8], make_task(), steps)
    assert leftovers(steps) == []


# ---- elsewhere ----


def test_elsewhere_everything_is_built_and_checked_and_nothing_is_timed(model, steps, calls):
    task = make_task(elsewhere(), quick_profile(p99_ms=5.0))
    (made,) = try_plans(model, [FP32], task, steps)
    assert "measure_in_turns" not in calls
    assert (made.proof.samples, made.measured, made.failure) == (64, None, None)
    assert made.verdict.status == "not measured"
    assert "the target is a CPU of another world" in made.verdict.reason
    assert best([made]) is made


# ---- which one ships ----


def test_the_faster_precision_ships(model, steps, monkeypatch):
    task = make_task(profile=quick_profile(p50_ms=1000.0))
    compiled_with(monkeypatch, fp32={"latency_us": SLOW})
    assert choose(model, [FP32, INT8], task, steps).plan.precision == "int8"
    monkeypatch.undo()
    compiled_with(monkeypatch, int8={"latency_us": SLOW})
    assert choose(model, [FP32, INT8], task, steps / "other").plan.precision == "fp32"


def test_seven_sides_have_turns_enough_for_a_ratio(model, steps, monkeypatch):
    """Three seconds are what a profile usually asks for: at 0.25 ms a query, 60 turns of 50 ms are too few."""
    profile = Profile.model_validate(quick_profile().model_dump() | {"load": {"min_seconds": 3.0, "min_count": 300}})
    task = make_task(fake_target(), profile=profile)
    seen = []

    def measure_step(artifacts, task, out, load=None):
        seen.append(load)
        raise EngineError("looked at, not measured")

    candidate = prepare(model, plan_of("null", "fp32"), task, steps)
    monkeypatch.setattr("edgekit.candidate.measure_step", measure_step)
    with pytest.raises(EngineError, match="looked at"):
        measure_all([candidate], task, steps)
    (load,) = seen
    assert load.min_seconds / load.shortest_turn_s >= 2 * 7 * rounds_needed()
    assert (load.min_seconds, load.min_count) == (3.0, 300)


def test_an_accuracy_beyond_its_limit_keeps_everything_back(model, steps):
    test = make_samples(600)
    task = make_task(
        profile=quick_profile(max_drop_points=1.0), test=test, references=references_of(test, perfect(test))
    )
    with pytest.raises(EdgeKitError, match="no candidate") as caught:
        choose(model, [FP32], task, steps)
    assert caught.value.found == "null fp32: not met: max_drop_points"


# ---- queries ----


@pytest.mark.parametrize(
    ("count", "batch", "wanted"), [(20, 1, 20), (500, 1, 64), (20, 8, 24), (3, 8, 8), (500, 7, 70)]
)
def test_queries_rotate_over_spread_samples(count, batch, wanted):
    feeds = measuring_feeds(make_samples(count), batch)
    assert feeds["input"].shape == (wanted, 4)
    assert len(np.unique(feeds["input"], axis=0)) >= min(count, 64) - 1


def test_queries_are_what_the_model_takes_and_raw_only_where_they_are_preprocessed():
    rows = np.random.default_rng(0).standard_normal((30, 4))
    plain = Samples(name="doubles", count=30, fetch=lambda i: {"input": rows[i], "mask": rows[i] > 0})
    feeds = measuring_feeds(plain, 1)
    assert (feeds["input"].dtype, feeds["mask"].dtype) == (np.float32, bool)  # float64 is how a user stores them
    preprocessed = dataclasses.replace(plain, preprocessing=Preprocessing(input="input", scale=0.5))
    assert np.array_equal(measuring_feeds(preprocessed, 1)["input"], rows)


# ---- real engines ----


def test_two_real_engines_and_one_that_refuses(tmp_path, steps):
    import onnx

    weights = np.random.default_rng(0).standard_normal(4 * 3).round(3)
    text = f"""<ir_version: 9, opset_import: ["" : 20]>
    linear (float["batch", 4] input) => (float["batch", 3] logits)
        <float[4, 3] w = {{{", ".join(map(str, weights))}}}> {{ logits = MatMul(input, w) }}"""
    model = fp32_artifact(tmp_path / "model", text)
    assert onnx.load(model.path).graph.name == "linear"
    test = make_samples()
    outputs = {"logits": test.tensors(np.arange(64))["input"] @ weights.reshape(4, 3).astype(np.float32)}
    references = dataclasses.replace(references_of(test), student=outputs, teacher=outputs)
    target = load_target("local")
    plans = [*(plan_of(engine, "fp32") for engine in target.engines), plan_of("tensorrt", "bf16")]
    *made, refused = try_plans(model, plans, make_task(target, test=test, references=references), steps)
    assert {c.artifact.engine for c in made} == {"onnxruntime", "openvino"}
    assert all(c.verdict.status == "pass" and c.proof.reference_db > 90 for c in made), [c.failure for c in made]
    assert best([*made, refused]) in made
    assert measure_all([refused], make_task(target), steps) == [refused]
