import json

import numpy as np
import pytest
from fake_line import ZEROS, write_model
from sample_report import sample_report
from tiny_bundles import ScriptedMeasure, null_bundle

import edgekit
from edgekit.comparing import Settings, compare
from edgekit.errors import BundleError, DataError, FeedError, MeasurementError
from edgekit.profiling.conditions import Conditions, HostState
from edgekit.profiling.host import this_host
from edgekit.profiling.in_numpy import InNumpy
from edgekit.reporting.validation import validate
from edgekit.sides import open_side

QUICK = Settings(seconds=0.01)


@pytest.fixture(autouse=True)
def unspoiled(monkeypatch):
    """Whatever else runs here meanwhile is not what these tests are about."""
    monkeypatch.setattr("edgekit.comparing.spoiled", lambda conditions, load: None)


@pytest.fixture
def scripted(monkeypatch):
    """Measurements made of arrays: ``scripted(1.0, 1.03)`` are the medians of the sides in ms."""

    def script(*medians_ms, **fields):
        made = ScriptedMeasure(medians_ms, **fields)
        monkeypatch.setattr("edgekit.comparing.measure_in_turns", made)
        return made

    return script


@pytest.fixture
def two(tmp_path):
    return [null_bundle(tmp_path / name) for name in "ab"]


@pytest.fixture
def run(tmp_path):
    """A run's report of this machine, with the bundle that it speaks of beside it where asked for."""

    def make(folder="run", *, bundle=False, **fields):
        report = sample_report(**fields)
        report["host"]["cpu_model"] = this_host().cpu_model
        (tmp_path / folder).mkdir()
        if bundle:
            made = null_bundle(tmp_path / folder / "local", name="flowers", target="local")
            report["targets"][0]["bundle"]["id"] = open_side(made).manifest.id
        (tmp_path / folder / "report.json").write_text(json.dumps(report))
        return tmp_path / folder / "report.json"

    return make


def shipped_ms(path):
    report = json.loads(path.read_text())
    made = next(c for c in report["targets"][0]["candidates"] if c["shipped"])
    return made["measured"]["application"]["percentiles"]["50.0"]["ms"]


def median(found, pair=0):
    return next(ratio for ratio in found["pairs"][pair]["ratios"] if ratio["percentile"] == 50.0)


def test_a_slower_side_is_found_and_the_result_is_what_the_schema_says(two, scripted):
    scripted(2.0, 2.2)
    found = compare(two)
    assert (found["status"], found["exit_code"], found["in_turns"]) == ("compared", 0, True)
    ratio = median(found)
    assert ratio["finding"] == found["pairs"][0]["finding"] == "slower"
    assert 1.08 < ratio["low"] < 1.1 < ratio["high"] < 1.12
    assert [(side["label"], side["kind"], side["queries"]) for side in found["sides"]] == [
        ("A", "bundle", 8000),
        ("B", "bundle", 8000),
    ]
    assert [ratio["percentile"] for ratio in found["pairs"][0]["ratios"]] == [50.0, 90.0, 99.0]
    validate(json.loads(json.dumps(found, allow_nan=False)), "found", kinds=("comparison",))


def test_like_sides_are_no_difference_shown(two, scripted):
    scripted(2.0, 2.0)
    found = compare(two)
    assert (found["pairs"][0]["finding"], found["exit_code"]) == ("no difference shown", 0)


def test_every_other_side_is_compared_with_the_first(two, scripted):
    scripted(2.0, 1.0, 4.0)
    found = compare([*two, two[0]])
    assert [(pair["other"], pair["finding"]) for pair in found["pairs"]] == [("B", "faster"), ("C", "slower")]
    assert median(found)["rounds_per_group"] >= 3


def test_the_load_is_short_turns_for_15_seconds(two, scripted):
    measure = scripted(1.0, 1.0)
    compare(two)
    load = measure.called["load"]
    assert (load.min_seconds, load.shortest_turn_s, load.turn_queries, load.min_count) == (15.0, 0.02, 10, 180)
    assert (load.percentiles, load.batch, load.scenario, load.cold_loads) == ((), 1, "single_stream", 1)
    compare(two, settings=Settings(seconds=90, percentiles=(99.0,)))
    load = measure.called["load"]
    assert (load.min_seconds, load.max_seconds, load.min_count, load.percentiles) == (90, 90, 2000, (99.0,))


def test_golden_samples_are_fed(two, scripted):
    measure = scripted(1.0, 1.0)
    found = compare(two)
    golden = dict(np.load(two[0] / "golden.npz"))
    assert np.array_equal(measure.called["feeds"]["input"], golden["input/input"])
    assert measure.called["in_numpy"] == (InNumpy(), InNumpy())
    assert found["inputs"] == f"golden samples of {two[0]}"


def test_samples_of_ones_own_are_fed(two, scripted, tmp_path):
    measure = scripted(1.0, 1.0)
    np.savez(tmp_path / "x.npz", x=np.ones((3, 4), np.float32))
    compare(two, settings=Settings(samples=tmp_path / "x.npz"))
    assert measure.called["feeds"]["input"].shape == (3, 4)
    with pytest.raises(DataError, match="no such file"):
        compare(two, settings=Settings(samples=tmp_path / "y.npz"))


def test_an_onnx_file_beside_a_bundle(two, scripted, tmp_path):
    measure = scripted(1.0, 1.0)
    model = write_model(tmp_path / "model.onnx")
    found = compare([two[0], model], settings=Settings(engine="null"))
    assert [side["kind"] for side in found["sides"]] == ["bundle", "onnx"]
    assert measure.called["artifacts"][1].inputs[0].shape == (1, 4)
    assert found["inputs"] == f"golden samples of {two[0]}"


def test_other_inputs_are_refused_before_anything_is_measured(two, scripted, tmp_path):
    scripted()
    wider = write_model(tmp_path / "model.onnx", ZEROS.replace("] input", ", 2] input").replace("[4, 3] w", "[2, 6] w"))
    with pytest.raises(FeedError, match="do not take the same inputs"):
        compare([two[0], wider], settings=Settings(engine="null"))


@pytest.mark.parametrize(
    ("slower", "limit", "status", "code"),
    [(1.10, 0.05, "fail", 3), (1.10, 0.20, "pass", 0), (1.0, 0.0, "pass", 0), (1.051, 0.05, "pass", 0)],
)
def test_a_regression_is_judged_by_the_lower_end(two, scripted, slower, limit, status, code):
    scripted(2.0, 2.0 * slower)
    found = compare(two, settings=Settings(max_regression=limit))
    assert (found["status"], found["exit_code"], found["pairs"][0]["status"]) == (status, code, status)
    assert (median(found)["low"] > 1 + limit) == (status == "fail")


def test_the_worst_of_several_counts(two, scripted):
    scripted(2.0, 2.0, 4.0)
    found = compare([*two, two[1]], settings=Settings(max_regression=0.05))
    assert (found["status"], found["exit_code"]) == ("fail", 3)
    assert [pair["status"] for pair in found["pairs"]] == ["pass", "fail"]
    assert "p50 2.0" in found["pairs"][1]["reason"]


def test_tails_are_judged_where_asked_for(two, monkeypatch):
    from edgekit import comparing
    from edgekit.profiling.measured import Measured

    class Tail(ScriptedMeasure):
        def __call__(self, *args, **kwargs) -> list[Measured]:
            results = super().__call__(*args, **kwargs)
            results[1].application_ms[::40] *= 3  # one query in 40: p99 sees it, p50 does not
            return results

    monkeypatch.setattr(comparing, "measure_in_turns", Tail([2.0, 2.0]))
    assert compare(two, settings=Settings(max_regression=0.05))["exit_code"] == 0
    found = compare(two, settings=Settings(max_regression=0.05, percentiles=(99.0,)))
    assert (found["exit_code"], found["judged"]) == (3, [50.0, 99.0])
    assert "p99" in found["pairs"][0]["reason"]


def test_a_tail_that_is_not_supported_is_told_and_decides_nothing(two, scripted):
    scripted(2.0, 2.0, turns=40, kept=9)
    found = compare(two, settings=Settings(max_regression=0.05))
    assert (found["exit_code"], list(found["pairs"][0]["unsupported"])) == (0, ["99.0"])
    assert "360 queries, at least 2,000" in found["pairs"][0]["unsupported"]["99.0"]
    found = compare(two, settings=Settings(max_regression=0.05, percentiles=(99.0,)))
    assert (found["status"], found["exit_code"]) == ("inconclusive", 4)
    scripted(2.0, 4.0, turns=40, kept=9)
    found = compare(two, settings=Settings(max_regression=0.05, percentiles=(99.0,)))
    assert (found["status"], found["exit_code"]) == ("fail", 3)  # the median shows it


def test_too_few_rounds_for_anything_is_inconclusive(two, scripted):
    scripted(2.0, 2.0, turns=8)
    found = compare(two)
    assert found["exit_code"] == 1
    assert "try --seconds" in found["pairs"][0]["unsupported"]["50.0"]
    assert found["pairs"][0]["finding"] == "not compared"


def test_a_spoiled_run_decides_nothing(two, scripted, monkeypatch):
    scripted(2.0, 4.0, conditions=Conditions(before=HostState(), after=HostState(), seconds=1.0))
    monkeypatch.setattr("edgekit.comparing.spoiled", lambda conditions, load: "others used 50%")
    found = compare(two, settings=Settings(max_regression=0.05))
    assert (found["status"], found["exit_code"]) == ("inconclusive", 4)
    assert found["pairs"][0]["reason"] == "the run of A and B was spoiled: others used 50%"
    assert found["pairs"][0]["finding"] == "slower"
    assert compare(two)["exit_code"] == 4


def drifting(medians, drift, end):
    """A measuring in which the sides of some numbers slow down evenly, at last by a factor."""

    class Drifting(ScriptedMeasure):
        def __call__(self, *args, **kwargs):
            results = super().__call__(*args, **kwargs)
            for side in drift:
                results[side].application_ms[:] *= np.linspace(1, end, len(results[side].application_ms))
            return results

    return Drifting(medians)


def test_sides_that_drift_apart_decide_nothing(two, monkeypatch):
    monkeypatch.setattr("edgekit.comparing.measure_in_turns", drifting([2.0, 2.0], [1], 1.5))
    found = compare(two, settings=Settings(max_regression=0.05))
    assert (found["pairs"][0]["finding"], found["exit_code"]) == ("unsettled", 4)
    assert "stay correlated" in found["pairs"][0]["reason"]


def test_sides_that_drift_far_beyond_the_limit_fail(two, monkeypatch):
    monkeypatch.setattr("edgekit.comparing.measure_in_turns", drifting([2.0, 4.0], [1], 1.1))
    found = compare(two, settings=Settings(max_regression=0.05))
    assert (found["pairs"][0]["ratios"][0]["settled"], found["pairs"][0]["finding"]) == (False, "slower")
    assert (found["status"], found["exit_code"]) == ("fail", 3)
    monkeypatch.setattr("edgekit.comparing.measure_in_turns", drifting([4.0, 2.0], [1], 1.1))
    assert compare(two, settings=Settings(max_regression=0.05))["status"] == "pass"


def test_drift_that_both_sides_see_does_no_harm(two, monkeypatch):
    monkeypatch.setattr("edgekit.comparing.measure_in_turns", drifting([2.0, 2.0], [0, 1], 1.5))
    found = compare(two, settings=Settings(max_regression=0.05))
    assert (found["pairs"][0]["finding"], found["exit_code"]) == ("no difference shown", 0)
    assert all(side["drift"] for side in found["sides"])


@pytest.mark.parametrize(
    ("options", "status", "reason"),
    [({"crash_at": 40}, "crashed", "SIGABRT"), ({"nan_at": 0}, "failed", "NaN")],
)
def test_a_side_that_dies_is_told_and_the_others_are_compared(tmp_path, options, status, reason):
    good = null_bundle(tmp_path / "good", latency_us=20.0)
    bad = null_bundle(tmp_path / "bad", latency_us=20.0, **options)
    found = compare([good, bad, good], settings=QUICK)
    assert [side["status"] for side in found["sides"]] == ["ok", status, "ok"]
    assert reason in found["sides"][1]["reason"]
    assert found["pairs"][0]["finding"] == "not compared"
    assert median(found, 1)["low"] > 0
    assert (found["status"], found["exit_code"]) == ("inconclusive", 4)
    validate(json.loads(json.dumps(found, allow_nan=False)), "found", kinds=("comparison",))


def test_where_the_base_dies_nothing_can_be_compared(tmp_path):
    bad = null_bundle(tmp_path / "bad", crash_at=0)
    good = null_bundle(tmp_path / "good")
    found = compare([bad, good], settings=QUICK)
    assert (found["status"], found["exit_code"]) == ("failed", 1)
    assert "SIGABRT" in found["pairs"][0]["reason"]


def test_an_engine_that_is_not_here_is_told(two, scripted, monkeypatch):
    scripted(1.0)
    monkeypatch.setattr("edgekit.places.missing", lambda engine: "pip install it")
    found = compare(two[:1] * 2)
    assert (found["exit_code"], found["sides"][0]["status"]) == (1, "failed")
    assert "pip install it" in found["pairs"][0]["reason"]


def test_reports_are_compared_as_they_are_and_marked(run):
    found = compare([run("a"), run("b")], settings=Settings(max_regression=0.05))
    assert (found["in_turns"], found["pairs"][0]["in_turns"]) == (False, False)
    assert found["not_in_turns"].startswith("not in turns: the sides were measured at different times")
    assert (found["status"], found["exit_code"], found["inputs"]) == ("pass", 0, None)
    assert median(found)["ratio"] == 1.0
    validate(json.loads(json.dumps(found, allow_nan=False)), "found", kinds=("comparison",))


def test_a_bundle_is_compared_with_a_report(run, scripted, tmp_path):
    base = run()
    bundle = null_bundle(tmp_path / "b", name="flowers", target="local")
    scripted(2 * shipped_ms(base))
    found = compare([base, bundle], settings=Settings(max_regression=0.05))
    assert (found["in_turns"], found["pairs"][0]["finding"], found["exit_code"]) == (False, "slower", 3)
    assert median(found)["base_ms"] == shipped_ms(base)
    assert median(found)["groups"] > 0


def test_a_report_that_drifted_or_was_spoiled_decides_nothing(run):
    base = run("a")
    for key in ("drift", "spoiled"):
        other = run(key)
        report = json.loads(other.read_text())
        for made in report["targets"][0]["candidates"]:
            made["measured"][key] = "so it was"
        other.write_text(json.dumps(report))
        found = compare([base, other], settings=Settings(max_regression=0.05))
        assert (found["status"], found["exit_code"]) == ("inconclusive", 4)
        assert "so it was" in found["pairs"][0]["reason"]


def test_the_bundle_beside_a_baseline_is_measured_anew(run, scripted, tmp_path):
    baseline = run(bundle=True)
    candidate = null_bundle(tmp_path / "b", name="flowers", target="local")
    measure = scripted(1.0, 1.2)
    found = compare([candidate], baseline=baseline, settings=Settings(max_regression=0.05))
    assert len(measure.called["artifacts"]) == 2
    assert (found["in_turns"], found["exit_code"]) == (True, 3)
    assert "measured anew, in turns" in found["notes"][0]


def test_the_reports_own_numbers_are_taken_without_turns_or_without_its_bundle(run, scripted, tmp_path):
    candidate = null_bundle(tmp_path / "c", name="flowers", target="local")
    for baseline, settings, why in (
        (run("a", bundle=True), Settings(in_turns=False), "asked for"),
        (run("b"), Settings(), "does not lie beside it any more"),
    ):
        measure = scripted(shipped_ms(baseline))
        found = compare([candidate], baseline=baseline, settings=settings)
        assert len(measure.called["artifacts"]) == 1
        assert found["in_turns"] is False
        assert why in found["notes"][0]


@pytest.mark.parametrize(("name", "target", "word"), [("other", "local", "model"), ("flowers", "box", "target")])
def test_a_baseline_of_another_model_or_target_is_named(run, scripted, tmp_path, name, target, word):
    measure = scripted(1.0)
    other = null_bundle(tmp_path / "b", name=name, target=target)
    with pytest.raises(MeasurementError, match=f"another {word}") as caught:
        compare([other], baseline=run())
    assert "'flowers'" in str(caught.value) or "'local'" in str(caught.value)
    assert measure.called == {}


def test_a_baseline_of_another_host_is_named(run, tmp_path):
    base = run()
    report = json.loads(base.read_text())
    report["host"]["cpu_model"] = "a CPU of another world"
    base.write_text(json.dumps(report))
    with pytest.raises(MeasurementError, match=r"(?s)another host.*a CPU of another world"):
        compare([null_bundle(tmp_path / "b", name="flowers", target="local")], baseline=base)


def test_one_thing_alone_and_nothing_at_all_are_refused(two, tmp_path):
    with pytest.raises(MeasurementError, match="nothing to compare with"):
        compare(two[:1])
    with pytest.raises(BundleError, match="nothing to compare"):
        compare([two[0], tmp_path / "no"])


def test_a_time_that_is_none_is_refused(two):
    with pytest.raises(MeasurementError, match="min_seconds is out of range"):
        compare(two, settings=Settings(seconds=-1))


def test_progress_is_told_and_it_is_public(two):
    told = []
    found = edgekit.compare(two, settings=QUICK, progress=lambda step, done, total, note="": told.append(step))
    assert "measure" in told
    assert found["kind"] == "comparison"
