import dataclasses

import numpy as np
import pytest

from edgekit.candidate import Candidate, Plan, best, p50_bound_ms
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
