from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable

import numpy as np
import pytest

from edgekit.artifact import Array, Artifact
from edgekit.profiling.load import LoadSpec
from edgekit.profiling.measure import measure
from edgekit.profiling.measured import Measured
from edgekit.profiling.warm_up import FEWEST_QUERIES, LEAST_S, MOST_S, WarmUp, change_point, steady_from, warm_up

MakeArtifact = Callable[..., Artifact]
US, MS = 1_000, 1_000_000


def warmed(level: Callable[[Array], Array], noise: float = 0.02, longest_s: float = 60.0) -> WarmUp:
    """Warms up a model whose latency in ns is a function of the query's index, with log-normal noise."""
    rng = np.random.default_rng(0)
    queries = 0

    def take(count: int) -> Array:
        nonlocal queries
        indices = np.arange(queries, queries + count)
        queries += count
        return (level(indices) * rng.lognormal(0, noise, count)).astype(np.int64)

    return warm_up(take, longest_s)


@pytest.mark.parametrize("level_ns", [50 * US, 200 * US, MS, 5 * MS])
def test_a_longest_start_is_found(level_ns: int) -> None:
    found = warmed(lambda i: np.where(i < 30, 3 * level_ns, level_ns))
    assert found.queries == 30
    assert found.settled
    assert found.query_ns == pytest.approx(level_ns, rel=0.02), "the time of a query is that of the steady part"
    assert len(found.latencies_ns) >= 60, "the steady part is at least as long"


def test_the_steady_part_is_as_long_as_what_came_before() -> None:
    found = warmed(lambda i: np.where(i < 90, 2 * MS, MS))
    assert (found.queries, found.settled) == (90, True)
    assert 180 <= len(found.latencies_ns) <= 250, "0.2 s were over after 110 queries"


def test_several_levels_end_at_the_last() -> None:
    found = warmed(lambda i: np.select([i < 20, i < 60], [4 * MS, 2 * MS], MS))
    assert (found.queries, found.settled) == (60, True)


def test_getting_slower_is_a_change_too() -> None:
    found = warmed(lambda i: np.where(i < 80, MS, 2 * MS))
    assert (found.queries, found.settled) == (80, True)


@pytest.mark.parametrize("level_ns", [5 * US, 50 * US, MS, 20 * MS, 200 * MS])
def test_steady_from_the_start_is_done_at_once(level_ns: int) -> None:
    found = warmed(lambda i: np.full(len(i), level_ns))
    assert (found.queries, found.settled) == (0, True)
    assert len(found.latencies_ns) >= FEWEST_QUERIES
    assert LEAST_S * 0.9e9 <= found.latencies_ns.sum() <= max(0.3e9, 51 * level_ns)


def test_spikes_are_no_change() -> None:
    spikes = np.random.default_rng(1).random(1_000_000) < 0.05
    found = warmed(lambda i: np.where(spikes[i], 20 * MS, MS))
    assert (found.queries, found.settled) == (0, True)
    assert (found.latencies_ns > 10 * MS).any(), "there were some"


def test_drift_without_end_never_settles() -> None:
    for found in (warmed(lambda i: MS * (1 + i / 100)), warmed(lambda i: 20 * MS * 1.03**i)):
        assert not found.settled
        assert MOST_S * 1e9 <= found.latencies_ns.sum() <= (MOST_S + 0.3) * 1e9


def test_a_model_too_slow_for_twenty_queries_in_its_time_is_not_called_steady() -> None:
    found = warmed(lambda i: np.full(len(i), 4000 * MS), longest_s=60.0)
    assert len(found.latencies_ns) in (15, 16)
    assert not found.settled
    found = warmed(lambda i: np.full(len(i), 2000 * MS), longest_s=60.0)
    assert (len(found.latencies_ns), found.settled) == (FEWEST_QUERIES, True)


def test_a_short_patience_of_the_parent_shortens_it() -> None:
    found = warmed(lambda i: 20 * MS * 1.03**i, longest_s=2.0)
    assert not found.settled
    assert found.latencies_ns.sum() < 2.2e9


def test_small_changes_are_none() -> None:
    assert warmed(lambda i: np.where(i < 100, 1.03 * MS, MS)).queries == 0, "3%"
    assert warmed(lambda i: np.where(i < 3000, 11 * US, 10 * US)).queries == 0, "1 µs: what the clock may cost"


@pytest.mark.parametrize("n", [20, 100, 1000])
def test_a_steady_series_shows_a_change_in_one_of_fifty_at_most(n: int) -> None:
    rng = np.random.default_rng(n)
    found = sum(change_point((MS * rng.lognormal(0, 0.5, n)).astype(np.int64)) is not None for _ in range(500))
    assert found <= 20


def test_what_has_no_change() -> None:
    for latencies in ([], [5], [5, 9], [7] * 100):
        assert change_point(np.array(latencies, dtype=np.int64)) is None
        assert steady_from(np.array(latencies, dtype=np.int64)) == 0


def test_long_series_are_judged_by_blocks() -> None:
    latencies = np.where(np.arange(100_000) < 33_333, 300 * US, 100 * US)
    assert change_point(latencies) == pytest.approx(33_333, abs=50)


def scripted(null_artifact: MakeArtifact, latencies_us: list[float]) -> Artifact:
    """The first entry is the first inference's."""
    return null_artifact(script=json.dumps(latencies_us))


def measured_where(
    holds: Callable[[Measured], bool], artifact: Artifact, load: LoadSpec, feeds: dict[str, Array]
) -> Measured:
    """Measures three times at most: other load lengthens a query now and then, and never makes what is looked for."""
    for _ in range(3):
        measured = measure(artifact, load, feeds)
        if holds(measured):
            break
    return measured


def test_the_measuring_process_finds_the_change(
    null_artifact: MakeArtifact, feeds: dict[str, Array], brief: LoadSpec
) -> None:
    script = scripted(null_artifact, [20_000.0] * 31 + [1000.0] * 20_000)
    measured = measured_where(lambda it: it.warm_up_settled and 28 <= it.warm_up_queries <= 32, script, brief, feeds)
    assert measured.status == "ok"
    assert 28 <= measured.warm_up_queries <= 32
    assert measured.warm_up_settled
    assert len(measured.warm_up_ms) >= 2 * measured.warm_up_queries
    assert (measured.warm_up_ms[:30] >= 20).all()
    assert measured.warm_up_ms.dtype == np.float64


def test_the_measuring_process_tells_a_drift(
    null_artifact: MakeArtifact, feeds: dict[str, Array], brief: LoadSpec
) -> None:
    load = dataclasses.replace(brief, min_count=9)
    script = scripted(null_artifact, [8000.0 * 1.03**i for i in range(120)])
    measured = measured_where(lambda it: not it.warm_up_settled, script, load, feeds)
    assert measured.status == "ok", "it is timed all the same"
    assert not measured.warm_up_settled
