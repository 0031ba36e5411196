from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgekit.artifact import Array, Artifact
from edgekit.profiling.job import Job, read_result, write_job
from edgekit.profiling.load import LoadSpec
from edgekit.profiling.measure import measure_in_turns
from edgekit.profiling.time_limit import refusal, time_is_up
from edgekit.profiling.turns import Pace
from edgekit.profiling.worker import work

MakeArtifact = Callable[..., Artifact]


def test_a_percentile_that_takes_too_long_is_refused_in_words() -> None:
    load = LoadSpec(min_seconds=0.5, max_seconds=1.0, percentiles=(50.0, 99.9))
    assert refusal(load, 0.0102) == (
        "p99.9 needs 6,636 queries, about 68 s at 10.2 ms a query; max_seconds is 1: raise it to 82, or drop p99.9"
    )


def test_every_percentile_that_must_go_is_named() -> None:
    load = LoadSpec(min_seconds=0.5, max_seconds=1.0, percentiles=(99.9, 50.0, 99.0))
    said = refusal(load, 0.0102)
    assert said.startswith("p99.9 needs")
    assert said.endswith("drop p99 and p99.9")


def test_what_fits_is_not_refused() -> None:
    load = LoadSpec(max_seconds=60.0, percentiles=(50.0, 99.0, 99.9))
    assert refusal(load, 0.009) is None
    assert refusal(LoadSpec(max_seconds=60.0, percentiles=()), 100.0) is None


def test_short_times_keep_a_decimal() -> None:
    assert "about 6.6 s at 1 ms" in refusal(LoadSpec(min_seconds=0, max_seconds=5.0, percentiles=(99.9,)), 0.001)


def test_a_turn_that_would_go_beyond_is_not_taken() -> None:
    load, pace = LoadSpec(min_seconds=0.0, max_seconds=10.0), Pace()
    assert not time_is_up(pace, load, 1000), "the first turn is always taken"
    pace.took(10, 4.0)
    assert not time_is_up(pace, load, 10)
    pace.took(10, 4.0)
    assert time_is_up(pace, load, 10)


def test_refused_after_warm_up_and_the_others_go_on(
    null_artifact: MakeArtifact, feeds: dict[str, Array], brief: LoadSpec
) -> None:
    load = LoadSpec(min_seconds=0.0, max_seconds=20.0, min_count=30, percentiles=(99.0,))
    slow, fast = measure_in_turns([null_artifact(latency_us=40_000.0), null_artifact(latency_us=500.0)], load, feeds)
    assert slow.status == "refused"
    assert slow.reason.startswith("p99 needs 662 queries, about ")
    assert "max_seconds is 20" in slow.reason
    assert (slow.turns, len(slow.application_ms), slow.conditions) == (0, 0, None)
    assert len(slow.cold_load_ms) == 3, "what was learnt before stays"
    assert len(slow.warm_up_ms) >= 20
    assert (fast.status, fast.reason) == ("ok", None)
    assert len(fast.application_ms) >= 662


def test_on_its_own_it_refuses_too(null_artifact: MakeArtifact, feeds: dict[str, Array], tmp_path: Path) -> None:
    load = LoadSpec(min_seconds=0.0, max_seconds=1.0, percentiles=(99.0,))
    artifact = null_artifact(latency_us=5000.0)
    write_job(Job(folder=tmp_path, artifact=artifact, load=load, driven=False), feeds)
    assert work(tmp_path) == 0
    measured = read_result(tmp_path)
    assert measured.status == "refused"
    assert measured.reason.startswith("p99 needs 662 queries")
    assert measured.turns == 0


@pytest.mark.usefixtures("independent")
def test_it_ends_at_its_longest_time_and_the_others_go_on(null_artifact: MakeArtifact, feeds: dict[str, Array]) -> None:
    load = LoadSpec(min_seconds=0.0, max_seconds=1.0, min_count=2000, percentiles=(), cold_loads=1)
    slow, fast = measure_in_turns([null_artifact(latency_us=30_000.0), null_artifact(latency_us=50.0)], load, feeds)
    assert slow.status == fast.status == "ok"
    assert 1 <= slow.turns <= 3, "a turn takes 0.3 s"
    assert len(fast.application_ms) >= 2000


def test_on_its_own_it_ends_at_its_longest_time(
    null_artifact: MakeArtifact, feeds: dict[str, Array], tmp_path: Path
) -> None:
    load = LoadSpec(min_seconds=0.0, max_seconds=1.0, min_count=10_000, percentiles=())
    artifact = null_artifact(latency_us=20_000.0)
    write_job(Job(folder=tmp_path, artifact=artifact, load=load, driven=False), feeds)
    assert work(tmp_path) == 0
    measured = read_result(tmp_path)
    assert 1 <= measured.turns <= 5
    assert len(measured.turn_started_s) == measured.turns
    assert measured.turn_started_s[0] >= 0
    assert list(measured.turn_started_s) == sorted(measured.turn_started_s)
