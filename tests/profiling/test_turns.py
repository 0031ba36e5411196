from __future__ import annotations

import numpy as np
import pytest

from edgekit.errors import MeasurementError
from edgekit.profiling.load import LoadSpec
from edgekit.profiling.turns import MOST_TURN_QUERIES, Pace, queries_wanted


def test_percentiles_raise_the_count() -> None:
    assert queries_wanted(LoadSpec(min_count=20, percentiles=(50.0,))) == 20
    assert queries_wanted(LoadSpec(min_count=20, percentiles=(50.0, 99.0))) == 662
    assert queries_wanted(LoadSpec(min_count=20, percentiles=())) == 20


def test_turns_of_short_queries_are_longer() -> None:
    load, pace = LoadSpec(turn_queries=10), Pace()
    assert pace.next_turn(load) == 10
    pace.took(10, 0.01)  # 1 ms a query
    assert pace.next_turn(load) == 50
    pace.took(50, 5.0)  # a slow turn does not shorten the next
    assert pace.next_turn(load) == 50
    pace.took(50, 0.0)
    assert pace.next_turn(load) == MOST_TURN_QUERIES


def test_turns_of_long_queries_keep_their_number() -> None:
    load, pace = LoadSpec(turn_queries=12), Pace()
    pace.took(12, 12.0)
    assert pace.next_turn(load) == 12


def test_enough_is_both_time_and_count() -> None:
    load = LoadSpec(min_seconds=2.0, min_count=18, percentiles=())
    pace = Pace()
    assert pace.share(load) == 0
    pace.took(10, 2.0)
    assert pace.kept == 9, "the first of a turn is dropped"
    assert pace.share(load) == 0.5
    pace.took(10, 0.1)
    assert pace.share(load) == 1
    quick = Pace()
    quick.took(1000, 0.5)
    assert quick.share(load) == 0.25


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("scenario", "server", "single_stream or batch"),
        ("batch", 0, "1 or more"),
        ("min_seconds", -1.0, "0 or more"),
        ("min_count", 0, "1 or more"),
        ("percentiles", (50.0, 100.0), "below 100"),
        ("turn_queries", 9, "10 or more"),
        ("timeout_s", 0.0, "above 0"),
    ],
)
def test_a_load_out_of_range_is_refused(field: str, value: object, allowed: str) -> None:
    with pytest.raises(MeasurementError, match=rf"(?s)load: {field} is out of range.*{allowed}"):
        LoadSpec(**{field: value})


def take(pace: Pace, latencies_ms: np.ndarray) -> None:
    """A turn of these latencies, the first of which is dropped."""
    pace.took(len(latencies_ms), float(latencies_ms.sum()) / 1e3, latencies_ms)


def test_queries_that_hang_together_ask_for_more_of_them() -> None:
    load = LoadSpec(min_seconds=1.0, min_count=700, percentiles=(50.0, 90.0))
    rng = np.random.default_rng(0)
    independent, stretches = Pace(), Pace()
    take(independent, rng.gamma(25.0, 0.04, 1100))
    assert independent.share(load) == 1
    take(stretches, np.repeat(rng.gamma(25.0, 0.04, 22), 50))
    assert 0.05 < stretches.share(load) < 0.9
    for _ in range(3):
        take(stretches, np.repeat(rng.gamma(25.0, 0.04, 22), 50))
    assert stretches.share(load) == 1, "3.5 times as long as planned is enough, whatever it says"


def test_nothing_goes_on_beyond_the_longest_time() -> None:
    load = LoadSpec(min_seconds=1.0, max_seconds=1.2, min_count=10, percentiles=(99.0,))
    pace = Pace()
    take(pace, np.full(10, 130.0))
    assert pace.share(load) == 1


def test_what_has_enough_takes_turns_on_and_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    load, pace = LoadSpec(min_seconds=1.0, min_count=700, percentiles=(50.0,)), Pace()
    take(pace, np.random.default_rng(0).gamma(25.0, 0.04, 1100))
    assert pace.share(load) == 1
    monkeypatch.setattr(Pace, "_asked_for", None)
    take(pace, np.repeat([1.0, 2.0], 500))
    assert pace.share(load) == 1
    assert pace.kept == 1099 + 999
