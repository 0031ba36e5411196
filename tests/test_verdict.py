import dataclasses

import numpy as np
import pytest
from fake_line import quick_profile

from edgekit.checking import Proof
from edgekit.errors import SpecError
from edgekit.metrics import Drop
from edgekit.profiling.conditions import Conditions, HostState
from edgekit.profiling.host import this_host
from edgekit.profiling.measured import Measured
from edgekit.profiling.statistics import bounds_of, percentile
from edgekit.specs import Limits, Profile
from edgekit.verdict import EXIT_BY_STATUS, check_clock, judge, peak_memory_mb

STEADY = np.random.default_rng(0).permutation(np.linspace(1.0, 2.0, 1000))
ELSEWHERE = "this host is avx2, the target is neon"


def measured(latencies=None, **fields):
    known = {
        "status": "ok",
        "artifact_sha256": "0",
        "load_ms": 120.0,
        "first_inference_ms": 8.0,
        "application_ms": np.asarray(STEADY if latencies is None else latencies, dtype=np.float64),
        "peak_memory_mb": {"load": 90.0, "steady": 110.0},
        "size_mb": 3.0,
        "host": this_host(),
        "started_at": "2026-11-20T10:00:00+00:00",
    }
    return Measured(**known | fields)


def proof(low=None, high=None, **fields):
    drop = (
        None
        if low is None
        else Drop(points=(low + high) / 2, low=low, high=high, n=500, disagreements=3, confidence=0.95)
    )
    known = {"samples": 500, "engine": "null", "reference_db": 120.0, "max_error": 0.0, "broken": None, "drop": drop}
    return Proof(**known | fields)


def judged(seen=None, about=None, *, not_measured=None, **limits):
    profile = Profile(name="quick", description="for tests", limits=Limits(**limits))
    return judge(about, seen, profile, size_mb=3.0, not_measured=not_measured)


def only(verdict):
    (result,) = verdict.limits
    return result


# ---- percentiles ----


@pytest.mark.parametrize(
    ("limit", "percentile"), [("p50_ms", 50.0), ("p90_ms", 90.0), ("p95_ms", 95.0), ("p99_ms", 99.0), ("p999_ms", 99.9)]
)
def test_a_percentile_passes_on_its_upper_bound_and_fails_on_its_lower(limit, percentile):
    latencies = np.random.default_rng(0).gamma(9.0, 0.2, 12000)
    bounds = bounds_of(latencies, percentile)
    low, high = bounds.lower_ms, bounds.upper_ms
    assert low < high
    for allowed, status in ((high, "pass"), (high - 1e-6, "inconclusive"), (low, "inconclusive"), (low - 1e-6, "fail")):
        verdict = judged(measured(latencies), **{limit: allowed})
        result = only(verdict)
        assert (verdict.status, result.status) == (status, status), allowed
        assert (result.limit, result.allowed, result.low, result.high) == (limit, allowed, low, high)
        assert low <= result.value <= high
        assert result.note in ("99%, n = 12000", f"99%, n ≈ {bounds.effective_n:.0f}")


def test_too_few_queries_for_a_bound_neither_pass_nor_say_nothing():
    result = only(judged(measured(np.full(20, 1.0)), p99_ms=1000.0))
    assert (result.status, result.value, result.high) == ("inconclusive", 1.0, None)
    assert result.note == "99%, n = 20"


def test_too_few_queries_may_still_prove_a_miss():
    result = only(judged(measured(np.full(20, 50.0)), p90_ms=10.0))
    assert (result.status, result.low, result.high) == ("fail", 50.0, None)


# ---- single observations ----


@pytest.mark.parametrize(
    ("limit", "seen"), [("load_ms", 120.0), ("first_inference_ms", 8.0), ("peak_memory_mb", 110.0), ("size_mb", 3.0)]
)
def test_a_single_observation_is_compared_as_it_is(limit, seen):
    for allowed, status in ((seen, "pass"), (seen - 0.001, "fail")):
        result = only(judged(measured(), **{limit: allowed}))
        assert (result.status, result.value, result.low, result.high) == (status, seen, None, None)
    assert result.note == ("" if limit == "size_mb" else "observed once")


def test_memory_is_the_highest_phase_and_unknown_where_the_system_does_not_tell():
    assert peak_memory_mb(None) is None
    assert peak_memory_mb(measured(peak_memory_mb={"load": None, "steady": 5.0})) == 5.0
    result = only(judged(measured(peak_memory_mb={"load": None}), peak_memory_mb=100.0))
    assert (result.status, result.value, result.note) == ("inconclusive", None, "not known on this system")


# ---- accuracy ----


@pytest.mark.parametrize(
    ("low", "high", "status"),
    [
        (-1.0, 1.0, "pass"),
        (-1.0, 1.001, "inconclusive"),
        (1.0, 3.0, "inconclusive"),
        (1.001, 3.0, "fail"),
        (-9.0, -2.0, "pass"),
    ],
)
def test_accuracy_is_judged_on_the_whole_interval(low, high, status):
    verdict = judged(None, proof(low, high), max_drop_points=1.0)
    result = only(verdict)
    assert (verdict.status, result.status, result.low, result.high) == (status, status, low, high)
    assert result.note == "95%, n = 500"
    assert verdict.accuracy_failed == (status == "fail")


@pytest.mark.parametrize("about", [None, proof()])
def test_an_accuracy_limit_without_data_is_not_decided(about):
    verdict = judged(None, about, max_drop_points=5.0)
    assert (verdict.status, only(verdict).note) == ("inconclusive", "no data to judge by")
    assert EXIT_BY_STATUS[verdict.status] == 4


def test_samples_that_are_not_held_out_prove_a_miss_and_no_pass():
    for low, high, status in ((-1.0, 0.5, "inconclusive"), (0.0, 2.0, "inconclusive"), (2.0, 3.0, "fail")):
        verdict = judged(None, proof(low, high, held_out=False), max_drop_points=1.0)
        assert (verdict.status, only(verdict).value) == (status, (low + high) / 2)
    assert "not held out" in only(judged(None, proof(-1.0, 0.5, held_out=False), max_drop_points=1.0)).note


# ---- elsewhere than on the target ----


def test_elsewhere_what_was_not_measured_is_not_decided_and_the_size_is():
    verdict = judged(
        None, proof(-1.0, 0.5), not_measured=ELSEWHERE, p99_ms=10.0, load_ms=5.0, max_drop_points=1.0, size_mb=5.0
    )
    assert {r.limit: r.status for r in verdict.limits} == {
        "max_drop_points": "pass",
        "p99_ms": "not measured",
        "load_ms": "not measured",
        "size_mb": "pass",
    }
    assert verdict.status == "not measured"
    assert verdict.reason == f"not measured: {ELSEWHERE}"
    assert EXIT_BY_STATUS[verdict.status] == 4


def test_elsewhere_figures_are_shown_and_decide_nothing():
    verdict = judged(measured(), not_measured=ELSEWHERE, p50_ms=100.0, p99_ms=0.1, load_ms=1.0)
    assert verdict.status == "not measured"
    assert {r.status for r in verdict.limits} == {"not measured"}
    assert all(r.value is not None for r in verdict.limits)


def test_elsewhere_a_limit_that_needs_no_target_still_fails():
    verdict = judged(None, None, not_measured=ELSEWHERE, p99_ms=1.0, size_mb=2.0)
    assert (verdict.status, verdict.reason) == ("fail", "not met: size_mb")


def test_elsewhere_a_profile_without_timing_limits_is_not_met():
    assert judged(None, proof(-1.0, 0.5), not_measured=ELSEWHERE, max_drop_points=1.0).status == "not measured"
    assert judged(None, None, not_measured=ELSEWHERE).status == "not measured"


# ---- the whole ----


@pytest.mark.parametrize("status", ["crashed", "hung", "failed"])
def test_what_did_not_run_fails_whatever_the_limits_are(status):
    seen = measured(
        [], status=status, reason="the measuring process died of SIGSEGV", load_ms=None, first_inference_ms=None
    )
    for limits in ({}, {"size_mb": 100.0}, {"p99_ms": 100.0, "load_ms": 1.0}):
        verdict = judged(seen, None, **limits)
        assert (verdict.status, verdict.reason) == ("fail", "the measuring process died of SIGSEGV")


def test_the_worst_limit_is_the_verdict():
    fast, slow = {"p50_ms": 100.0}, {"p90_ms": 0.1}
    unknown = {"p999_ms": 100.0}
    assert judged(measured(), **fast).reason == "every limit is met"
    assert judged(measured(), **fast, **unknown).status == "inconclusive"
    verdict = judged(measured(), **fast, **unknown, **slow)
    assert (verdict.status, verdict.reason) == ("fail", "not met: p90_ms")
    assert [r.limit for r in verdict.limits] == ["p50_ms", "p90_ms", "p999_ms"]
    assert judged(measured(), **unknown).reason.startswith("not decided: p999_ms (about ")


def test_a_profile_without_limits_is_met_by_what_runs():
    verdict = judged(measured())
    assert (verdict.status, verdict.reason, verdict.limits) == ("pass", "the profile sets no limit", ())


def test_every_limit_of_a_profile_is_judged():
    limits = dict.fromkeys(Limits.model_fields, 1000.0)
    verdict = judged(measured(np.full(8000, 1.0)), proof(-1.0, 0.5), **limits)
    assert {r.limit for r in verdict.limits} == set(limits)
    assert verdict.status == "pass"


def test_exit_codes():
    assert EXIT_BY_STATUS == {"pass": 0, "fail": 3, "inconclusive": 4, "not measured": 4}


def test_results_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        judged(measured()).status = "fail"


# ---- runs that decide nothing ----


def conditions(**fields):
    return Conditions(before=HostState(), after=HostState(), seconds=3.0, **fields)


def test_a_run_spoiled_by_others_decides_no_time_and_says_why():
    spoiled = measured(conditions=conditions(other_load=0.46))
    verdict = judged(spoiled, proof(-1.0, 0.5), p50_ms=100.0, load_ms=500.0, size_mb=5.0, max_drop_points=1.0)
    assert {r.limit: r.status for r in verdict.limits} == {
        "max_drop_points": "pass",
        "p50_ms": "inconclusive",
        "load_ms": "inconclusive",
        "size_mb": "pass",
    }
    assert verdict.status == "inconclusive"
    assert "p50_ms, load_ms" in verdict.reason
    assert verdict.reason.count("others used 46% of the CPUs") == 1
    assert judged(measured(conditions=conditions(other_load=0.02)), p50_ms=100.0).status == "pass"


def test_what_never_settled_must_be_within_the_limit_twice():
    run = measured(warm_up_settled=False, warm_up_ms=np.arange(30.0))
    stretches = [percentile(part, 50.0) for part in np.split(STEADY, 20)]
    assert judged(run, p50_ms=2 * max(stretches)).status == "pass"
    assert judged(run, p50_ms=min(stretches) / 2.001).status == "fail"
    verdict = judged(run, p50_ms=1.9 * max(stretches))
    assert verdict.status == "inconclusive"
    assert "p50_ms (latencies never settled in a warm-up of 30 queries)" in verdict.reason


def test_what_drifted_must_be_within_the_limit_twice():
    latencies = STEADY * np.linspace(1.0, 1.2, 1000)
    stretches = [percentile(part, 50.0) for part in np.split(latencies, 20)]
    low, high = min(stretches), max(stretches)
    assert judged(measured(latencies), p50_ms=2 * high).status == "pass"
    assert judged(measured(latencies), p50_ms=low / 2.001).status == "fail"
    verdict = judged(measured(latencies), p50_ms=1.9 * high)
    assert verdict.status == "inconclusive"
    assert "p50_ms (latencies drifted: their median went from 1." in verdict.reason


def test_without_a_bound_the_slowest_stretch_must_be_within_the_limit_twice():
    levels = np.repeat(np.random.default_rng(0).permutation([1.0, 2.0, 3.0, 4.0]), 250)
    assert bounds_of(levels, 50.0).upper_ms is None
    assert judged(measured(levels), p50_ms=8.0).status == "pass"
    assert judged(measured(levels), p50_ms=7.9).status == "inconclusive"
    assert judged(measured(levels), p50_ms=0.49).status == "fail"
    assert judged(measured(levels[:8]), p50_ms=80.0).status == "inconclusive", "too few queries altogether"


def test_what_was_refused_is_not_decided():
    refused = measured([], status="refused", reason="p99.9 needs 6,636 queries")
    verdict = judged(refused, p999_ms=1.0)
    assert (verdict.status, verdict.reason) == ("inconclusive", "p99.9 needs 6,636 queries")


def test_a_limit_below_the_clocks_resolution_is_refused():
    check_clock(quick_profile(p99_ms=0.01, size_mb=1e-9))
    with pytest.raises(
        SpecError, match=r"(?s)'quick': p99_ms is below the clock's resolution.*1e-06 ms.*in seconds"
    ) as caught:
        check_clock(quick_profile(p50_ms=1.0, p99_ms=1e-6))
    assert "ms or more on this host" in caught.value.allowed


def test_too_close_to_tell_says_so():
    verdict = judged(measured(), p50_ms=float(np.median(STEADY)))
    assert verdict.reason == "not decided: p50_ms (too close to the limit for more queries to settle it)"
