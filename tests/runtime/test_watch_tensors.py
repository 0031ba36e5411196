"""Bins, drift and saturation of one tensor against what it was calibrated with."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from edgekit.errors import BundleError
from edgekit.runtime.watch.tensors import Channel, TensorStatistics, binned, parse_statistics, picked, psi
from edgekit.runtime.watch.windows import VALUES, TensorWindow

NAN, INF = float("nan"), float("inf")


def quarters(*, channels: int = 1, axis: int | None = None) -> TensorStatistics:
    """Values evenly from 0 to 1, in four bins."""
    one = Channel(
        minimum=0.0, maximum=1.0, mean=0.5, std=0.29, quantiles=(), edges=(0.25, 0.5, 0.75), shares=(0.25,) * 4
    )
    return TensorStatistics(name="x", axis=axis, values=100, drift_noise=0.0, channels=(one,) * channels)


def even(count: int = 64, size: int = 100) -> np.ndarray:
    return np.random.default_rng(0).random((count, size)).astype(np.float32)


def seen(values: np.ndarray, statistics: TensorStatistics | None = None, window: int = 64):
    found = TensorWindow("x", statistics or quarters(), window)
    for value in values:
        found.add(value[np.newaxis])
    return found.state()


def test_drift_is_the_index_of_the_formula():
    shares, counts = np.array([[0.5, 0.25, 0.25]]), np.array([[2, 1, 1]])
    assert psi(counts, shares) == pytest.approx([0.0])
    moved = psi(10**6 * np.array([[1, 1, 2]]), shares)[0]
    assert moved == pytest.approx(-0.25 * math.log(0.5) + 0.25 * math.log(2), rel=1e-4)
    assert math.isfinite(psi(np.array([[10**9, 0, 0]]), shares)[0]), "an empty bin"
    assert psi(np.array([[2, 2, 0]]), shares)[0] < 0.1, "of four values an empty bin says little"
    assert psi(np.array([[0, 0, 0]]), shares) == [0.0], "nothing counted"


def test_a_value_on_an_edge_is_below_it_and_nan_is_in_no_bin():
    values = np.array([[[0.0, 1.0, 1.5, 2.0, 3.0, NAN]]])
    assert binned(values, np.array([[1.0, 2.0]])).tolist() == [[[2, 2, 1]]]
    assert binned(values, np.array([[1.0, INF]])).tolist() == [[[2, 3, 0]]], "a channel with fewer edges"
    assert binned(values, np.empty((1, 0))).tolist() == [[[5]]], "a channel of one value has no edges"


@pytest.mark.parametrize(("shape", "axis"), [((2, 3, 8, 8), 1), ((2, 8, 8, 3), 3), ((2, 8, 8), None), ((2, 7), 1)])
def test_every_value_is_picked_in_the_end(shape, axis):
    array = np.arange(math.prod(shape)).reshape(shape)
    once = picked(array, axis, 16)
    assert once.shape[:2] == (2, 1 if axis is None else shape[axis])
    assert set(np.concatenate([picked(array, axis, 16, start).ravel() for start in range(64)])) == set(array.ravel())
    if axis is not None:
        assert (once[:, 1] == picked(np.moveaxis(array, axis, 1)[:, 1:2], 1, 16 // shape[axis] or 1)[:, 0]).all()


def test_values_like_those_of_calibration_do_not_drift():
    state = seen(even())
    assert state["drift"][0] < 0.01
    assert state["saturated"] == [0.0]


def test_values_that_moved_drift_and_those_out_of_range_are_saturated():
    state = seen(even() * 0.5 + 0.7)
    assert state["drift"][0] > 0.25
    assert state["saturated"][0] == pytest.approx(0.4, abs=0.02), "0.7 to 1.2, of which 0.2 is beyond 1"
    assert seen(even() - 2)["saturated"] == [1.0]


def test_only_the_channel_that_moved_drifts():
    values = even(64, 300).reshape(64, 1, 3, 100)
    values[:, :, 1] += 1.0
    drift = seen(values.reshape(64, 3, 100), quarters(channels=3, axis=1))["drift"]
    assert drift[1] > 5 > 0.1 > max(drift[0], drift[2])


def test_nothing_is_told_before_a_window_is_full():
    assert seen(even(63))["drift"] is None
    assert seen(even(64))["drift"] is not None


def test_what_is_told_is_of_the_last_two_windows_at_most():
    found = TensorWindow("x", quarters(), 8)
    for value in [*(even(100) + 5), *even(16)]:
        found.add(value[np.newaxis])
    state = found.state()
    assert 8 <= state["samples"] <= 16
    assert state["drift"][0] < 0.1


def test_a_constant_channel_that_changes_drifts():
    same = Channel(minimum=0.0, maximum=0.0, mean=0.0, std=0.0, quantiles=(), edges=(), shares=(1.0,))
    statistics = TensorStatistics(name="x", axis=None, values=100, drift_noise=0.0, channels=(same,))
    assert seen(np.zeros((64, 5)), statistics)["drift"] == [0.0]
    for value in (1e-6, -3.0):
        state = seen(np.full((64, 5), value), statistics)
        assert state["drift"][0] > 5
        assert state["saturated"] == [1.0]


def test_what_another_library_rounds_is_not_outside():
    assert seen(np.full((64, 5), 1.0 + 3e-6))["saturated"] == [0.0]
    assert seen(np.full((64, 5), 1.0 + 3e-3))["saturated"] == [1.0]


def test_values_that_are_not_finite_are_counted_and_told_apart():
    values = even(64, 10)
    values[3, :2], values[4, 5] = NAN, -INF
    state = seen(values)
    assert (state["looked_at"], state["not_finite"]) == (640, 3)
    assert state["drift"][0] < 0.1
    assert state["saturated"] == [0.0]
    assert seen(np.full((64, 5), NAN))["drift"] == [0.0], "there is nothing left to drift"


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "uint8", "int64", "bool"])
def test_every_type_of_numbers_is_looked_at(dtype):
    state = seen((even() > 0.5).astype(dtype))
    assert state["looked_at"] == 6400
    assert state["drift"][0] > 0.25, "only noughts and ones"


def test_a_tensor_without_statistics_is_searched_for_nan_only():
    found = TensorWindow("x", None, 8)
    found.add(np.array([[1.0, NAN]]))
    assert found.state() == {
        "samples": 0,
        "values": 0,
        "drift": None,
        "saturated": None,
        "looked_at": 2,
        "not_finite": 1,
    }


def test_another_shape_or_no_numbers_are_left_out():
    found = TensorWindow("x", quarters(channels=3, axis=1), 8)
    for array in (np.zeros((1, 4, 5)), np.zeros(3), np.array(1.0), np.zeros((0, 3)), np.array([["a", "b", "c"]])):
        found.add(array)
    assert found.state()["looked_at"] == 0


def test_of_a_large_tensor_about_a_thousand_values_are_looked_at():
    found = TensorWindow("x", quarters(channels=3, axis=1), 8)
    found.add(np.zeros((1, 3, 640, 640), np.float32))
    assert VALUES / 2 <= found.state()["looked_at"] <= VALUES * 1.1


def raw(**channel):
    known = {"minimum": 0, "maximum": 1, "mean": 0.5, "std": 0.1, "quantiles": [], "edges": [0.5], "shares": [0.5, 0.5]}
    tensor = {"name": "x", "axis": None, "values": 9, "drift_noise": 0.1, "channels": [known | channel]}
    return {"source": "test", "samples": 9, "window": 8, "levels": [], "inputs": [tensor], "outputs": []}


def test_statistics_are_read_from_a_manifest():
    found = parse_statistics(raw(), Path("m"))
    assert found.inputs[0].channels[0].edges == (0.5,)


@pytest.mark.parametrize(
    "wrong",
    [
        raw(edges=[0.5, 0.5], shares=[0.3, 0.3, 0.4]),
        raw(edges=[0.7, 0.5], shares=[0.3, 0.3, 0.4]),
        raw(shares=[0.5]),
        raw(shares=[5, 5]),
        raw(minimum=None),
        raw(maximum="1"),
        raw(std=INF),
        raw(mean=10**400),
        raw() | {"samples": 0},
        raw() | {"samples": None},
        raw() | {"inputs": 3},
        raw() | {"inputs": [{}]},
        raw() | {"inputs": [raw()["inputs"][0] | {"channels": []}]},
        raw() | {"inputs": [raw()["inputs"][0] | {"axis": "x"}]},
        {},
    ],
)
def test_statistics_that_edgekit_did_not_write_are_refused(wrong):
    with pytest.raises(BundleError, match="statistics in it cannot be read"):
        parse_statistics(wrong, Path("m"))
