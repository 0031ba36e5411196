from __future__ import annotations

import gc
import itertools
from collections.abc import Mapping

import numpy as np
import pytest

from edgekit.artifact import Array
from edgekit.errors import EngineError
from edgekit.profiling.clock import not_finite, run_turn, split_queries


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
    queries = itertools.cycle(split_queries({"x": np.arange(3.0)[:, None]}, 1))
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
