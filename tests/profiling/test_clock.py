from __future__ import annotations

import gc
import itertools
import sys
import tracemalloc
from array import array
from collections.abc import Mapping

import numpy as np
import pytest

from edgekit.artifact import Array
from edgekit.errors import EngineError
from edgekit.profiling import clock
from edgekit.profiling.clock import Step, not_finite, rotate, run_turn, split_queries


class Recorder:
    """A session that notes what it is fed and whether garbage collection is on."""

    def __init__(self) -> None:
        self.fed: list[float] = []
        self.collecting: list[bool] = []

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        self.fed.append(float(feeds["x"].ravel()[0]))
        self.collecting.append(gc.isenabled())
        return {"y": feeds["x"] * 2}


def test_queries_rotate_over_the_samples_and_go_on_in_the_next_turn() -> None:
    session = Recorder()
    queries = rotate(split_queries({"x": np.arange(3.0)[:, None]}, 1))
    run_turn(session, queries, 4)
    last = run_turn(session, queries, 3)
    assert session.fed == [0, 1, 2, 0, 1, 2, 0]
    assert last.outputs["y"].tolist() == [[0.0]], "the last query's outputs are kept"


def test_a_turn_is_timed_on_two_clocks() -> None:
    queries = itertools.cycle(split_queries({"x": np.ones((2, 4))}, 1))
    turn = run_turn(Recorder(), queries, 20, preprocess=lambda raw: {"x": raw["x"] + 1})
    assert turn.latencies_ns.dtype == np.int64
    assert turn.latencies_ns.shape == (20, 2)
    assert (turn.latencies_ns[:, 0] > turn.latencies_ns[:, 1]).all(), "preprocessing is on the application clock only"
    assert (turn.latencies_ns[:, 1] > 0).all()


def test_postprocessing_is_on_the_application_clock_only(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0]
    monkeypatch.setattr(clock, "perf_counter_ns", lambda: now[0])

    def takes(nanoseconds: int, gives: Mapping[str, Array]) -> Mapping[str, Array]:
        now[0] += nanoseconds
        return gives

    class Engine:
        def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
            return dict(takes(10, {"y": feeds["x"] * 2}))

    turn = run_turn(
        Engine(),
        itertools.repeat({"x": np.ones(1)}),
        3,
        lambda raw: takes(1, raw),
        lambda outputs: takes(100, {"label": outputs["y"]}),
    )
    assert turn.latencies_ns.tolist() == [[111, 10]] * 3
    assert list(turn.outputs) == ["y"], "what is looked through for NaN is the engine's own"


def test_an_engine_with_a_clock_of_its_own_is_timed_by_it_beside_the_application_clock() -> None:
    class Gpu(Recorder):
        def engine_ns(self) -> int:
            return 1000 + len(self.fed)

    turn = run_turn(Gpu(), itertools.cycle([{"x": np.ones(1)}]), 3)
    assert turn.latencies_ns[:, 1].tolist() == [1001, 1002, 1003]
    assert (turn.latencies_ns[:, 0] > 0).all()


def test_preprocessing_comes_before_the_session() -> None:
    session = Recorder()
    run_turn(session, itertools.cycle([{"x": np.array([3.0])}]), 1, preprocess=lambda raw: {"x": raw["x"] * 10})
    assert session.fed == [30.0]


def test_garbage_collection_is_off_in_a_turn_only() -> None:
    session = Recorder()
    run_turn(session, itertools.cycle([{"x": np.ones(1)}]), 2)
    assert session.collecting == [False, False]
    assert gc.isenabled()


def test_garbage_collection_comes_back_when_the_engine_fails() -> None:
    class Failing:
        def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
            raise EngineError("it broke")

    with pytest.raises(EngineError, match="it broke"):
        run_turn(Failing(), itertools.cycle([{"x": np.ones(1)}]), 2)
    assert gc.isenabled()


def test_queries_are_batches_and_every_sample_is_used() -> None:
    queries = split_queries({"a": np.arange(5), "b": np.arange(10).reshape(5, 2)}, 2)
    assert [q["a"].tolist() for q in queries] == [[0, 1], [2, 3], [4, 0]]
    assert queries[2]["b"].tolist() == [[8, 9], [0, 1]]
    assert all(q["b"].flags.c_contiguous and q["b"].base is None for q in queries)


def test_fewer_samples_than_a_batch_are_repeated() -> None:
    (query,) = split_queries({"a": np.arange(2)}, 5)
    assert query["a"].tolist() == [0, 1, 0, 1, 0]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_output_that_is_not_finite_is_named(value: float) -> None:
    outputs = {"labels": np.array([1, 2]), "good": np.ones(3), "bad": np.array([0.0, value], dtype=np.float16)}
    assert not_finite(outputs) == "bad"
    assert not_finite({"labels": outputs["labels"], "good": outputs["good"]}) is None


class Watcher:
    """A session that allocates nothing and notes what is allocated around it."""

    def __init__(self, count: int) -> None:
        self.outputs = {"y": np.zeros(1)}
        self.blocks = array("q", bytes(8 * count))
        self.query = 0

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        self.blocks[self.query] = sys.getallocatedblocks()
        self.query += 1
        return self.outputs


QUERIES = 10_000


@pytest.mark.parametrize("step", [None, lambda tensors: tensors])
def test_nothing_is_allocated_between_the_first_query_and_the_last(step: Step | None) -> None:
    session = Watcher(QUERIES)
    run_turn(session, rotate(split_queries({"x": np.ones((7, 4))}, 1)), QUERIES, step, step)
    # Integers above 256 are objects: two time stamps, their difference and the loop's index come and go.
    steady = np.array(session.blocks)[10:]
    assert (steady - np.minimum.accumulate(steady)).max() <= 4  # what another thread gave back is no allocation
    assert steady[-100:].mean() - steady[:100].mean() <= 2, "and nothing grows"


def test_a_turn_takes_no_memory_beyond_its_own_arrays() -> None:
    session, queries = Watcher(QUERIES), rotate(split_queries({"x": np.ones((7, 4))}, 1))
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        turn = run_turn(session, queries, QUERIES)
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    clocks = 2 * 8 * QUERIES
    assert turn.latencies_ns.nbytes == clocks
    assert peak - before <= 2 * clocks + 8 * QUERIES + 8192, "both clocks' arrays, their stack, one copy on the way"
    assert after - before <= clocks + 4096, "what stays is the result"


def test_rotating_keeps_no_copy_of_the_queries() -> None:
    queries = split_queries({"x": np.ones((5000, 1))}, 1)
    tracemalloc.start()
    try:
        rotating = rotate(queries)
        for _ in range(5000):
            next(rotating)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5000 * 8, "itertools.cycle would note every one of them"


def test_tensors_and_outputs_are_freed_outside_of_the_clocks(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []

    class Told:
        def __init__(self, name: str) -> None:
            self.name = name

        def __del__(self) -> None:
            events.append(f"{self.name} freed")

    class Session:
        def run(self, feeds: Mapping[str, object]) -> dict[str, object]:
            events.append("run")
            return {"y": Told("outputs")}

    def now() -> int:
        events.append("clock")
        return 0

    monkeypatch.setattr(clock, "perf_counter_ns", now)
    tensors, answers = (lambda _: {"x": Told("tensors")}), (lambda _: {"y": Told("answers")})
    run_turn(Session(), itertools.repeat({}), 3, tensors, answers)
    query = ["clock", "clock", "run", "clock", "clock"]
    assert events[:5] == query
    freed_in_the_clocks = [
        event for i, event in enumerate(events) if "freed" in event and events[:i].count("clock") % 4 > 0
    ]
    assert not freed_in_the_clocks
    for what in ("tensors", "outputs", "answers"):
        assert events.count(f"{what} freed") >= 2
