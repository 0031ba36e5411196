import dataclasses

import numpy as np
import pytest

from edgekit.candidate import Candidate, Plan
from edgekit.checking import Proof
from edgekit.choosing import best, p50_bound_ms, ratio_in_turns, shown_faster
from edgekit.profiling.host import this_host
from edgekit.profiling.measured import Measured
from edgekit.verdict import LimitResult, Verdict

FP32 = Plan(engine="null", precision="fp32")


def judged(status, p50_ms=None, precision="fp32", accuracy_failed=False, failure=None):
    """A candidate as it stands after judging."""
    measured = None
    if p50_ms is not None:
        latencies = np.full(100, float(p50_ms))
        measured = Measured(
            status="ok",
            artifact_sha256="0",
            application_ms=latencies,
            engine_ms=latencies,
            size_mb=1.0,
            host=this_host(),
            started_at="now",
        )
    limit = LimitResult(
        limit="max_drop_points",
        allowed=1.0,
        value=9.0,
        low=8.0,
        high=10.0,
        status="fail" if accuracy_failed else "pass",
    )
    verdict = None if failure else Verdict(status=status, limits=(limit,), reason="")
    return Candidate(
        plan=dataclasses.replace(FP32, precision=precision), measured=measured, verdict=verdict, failure=failure
    )


def collapsed_one(p50_ms=0.1, precision="int8", db=13.0):
    proof = Proof(samples=64, engine="null", reference_db=db, max_error=9.0, broken=None)
    return dataclasses.replace(judged("pass", p50_ms, precision), proof=proof)


def test_what_has_collapsed_goes_back_to_fp32_where_that_was_tried():
    fp32 = judged("pass", 2.0)
    assert best([collapsed_one(), fp32]) is fp32
    sound = collapsed_one(db=15.0)
    assert best([sound, fp32]) is sound
    asked_for = collapsed_one()
    assert best([asked_for]) is asked_for  # there is nothing to go back to: its report says so
    assert best([collapsed_one(), judged("", failure="73 dB against the fp32 model")]) is None


@pytest.mark.parametrize(
    ("candidates", "wanted"),
    [
        ([judged("pass", 2.0), judged("pass", 1.0)], 1),
        ([judged("pass", 2.0), judged("fail", 1.0)], 0),
        ([judged("fail", 2.0), judged("fail", 1.0)], 1),
        ([judged("inconclusive", 1.0), judged("pass", 5.0)], 1),
        ([judged("fail", 1.0), judged("inconclusive", 5.0)], 1),
        # At equal p50 the float one, then the first engine of the target.
        ([judged("pass", 1.0, "int8"), judged("pass", 1.0, "fp32")], 1),
        ([judged("pass", 1.0, "int8"), judged("pass", 1.0, "int8")], 0),
        ([judged("not measured"), judged("not measured")], 0),
        # Fast and beyond the accuracy limit never ships.
        ([judged("fail", 0.1, "int8", accuracy_failed=True), judged("fail", 9.0)], 1),
        ([judged("", failure="refused"), judged("fail", 9.0)], 1),
        ([judged("fail", 0.1, accuracy_failed=True)], None),
        ([judged("", failure="refused"), judged("", failure="crashed")], None),
        ([], None),
    ],
)
def test_of_those_with_the_best_verdict_the_lowest_p50_bound_ships(candidates, wanted):
    assert best(candidates) is (None if wanted is None else candidates[wanted])


def test_the_p50_bound_is_unknown_where_there_is_none():
    assert p50_bound_ms(judged("not measured")) is None
    short = judged("pass", 1.0)
    few = dataclasses.replace(short.measured, application_ms=np.ones(5))
    assert p50_bound_ms(dataclasses.replace(short, measured=few)) is None
    crashed = dataclasses.replace(short.measured, status="crashed")
    assert p50_bound_ms(dataclasses.replace(short, measured=crashed)) is None


def in_turns(precision, factors, base_ms=1.0, engine="null"):
    """A candidate of 60 turns of 20 queries; the factor of a turn is the same for all that ran in it."""
    rng = np.random.default_rng(round(1000 * base_ms))
    latencies = np.concatenate([base_ms * factor * rng.lognormal(0, 0.05, 20) for factor in factors])
    made = judged("pass", 1.0, precision)
    measured = dataclasses.replace(
        made.measured, application_ms=latencies, engine_ms=latencies, turn_sizes=(20,) * 60, turns=60
    )
    return dataclasses.replace(made, plan=Plan(engine=engine, precision=precision), measured=measured)


FACTORS = np.random.default_rng(0).lognormal(0, 0.1, 60)


def test_int8_ships_only_when_it_is_shown_to_be_faster_than_fp32():
    fp32 = in_turns("fp32", FACTORS)
    faster, as_fast = in_turns("int8", FACTORS, 0.9), in_turns("int8", FACTORS, 0.999)
    assert best([fp32, faster]) is faster
    assert best([fp32, as_fast]) is fp32
    assert best([as_fast]) is as_fast, "nobody asked for fp32"


def first_turns(candidate, count):
    latencies = candidate.measured.application_ms[: 20 * count]
    return dataclasses.replace(
        candidate.measured, application_ms=latencies, engine_ms=latencies, turn_sizes=(20,) * count, turns=count
    )


def test_half_the_time_is_shown_in_few_turns_of_many_sides():
    """A slow model of which seven plans took 24 turns each: whole rotations would make three groups."""
    base, half, same = (first_turns(in_turns("int8", FACTORS, ms), 24) for ms in (1.0, 0.5, 1.001))
    assert ratio_in_turns(base, half, 7).ratio == pytest.approx(0.5, rel=0.05)
    assert shown_faster(base, half, 7)
    assert not shown_faster(base, same, 7)
    assert not shown_faster(same, base, 7)
    assert ratio_in_turns(first_turns(in_turns("fp32", FACTORS), 9), half, 7) is None


def test_what_is_fast_on_a_slow_engine_is_no_gain_over_fp32_of_a_fast_one():
    fast, slow = in_turns("fp32", FACTORS, engine="a"), in_turns("fp32", FACTORS, 4.0, engine="b")
    int8 = in_turns("int8", FACTORS, 2.0, engine="b")
    assert best([fast, slow, int8]) is fast
