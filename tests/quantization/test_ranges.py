"""Each range method on distributions whose answer is known."""

import numpy as np
import pytest

from edgekit.errors import UnknownName
from edgekit.quantization.histograms import Histogram
from edgekit.quantization.ranges import NEEDS_HISTOGRAM, RANGE_METHODS, TensorStatistics, range_of
from edgekit.quantization.schemes import STATIC_METHODS


def statistics(*batches, histogram=True):
    found = TensorStatistics(histogram=Histogram() if histogram else None)
    for batch in batches:
        found.add(np.asarray(batch, np.float32))
    return found


def normal(count=200_000, seed=0):
    return np.random.default_rng(seed).normal(size=count)


def quantised_error(values, ends):
    """Mean squared error of 256 levels over a range that holds zero."""
    low, high = min(ends[0], 0.0), max(ends[1], 0.0)
    scale = (high - low) / 255
    zero = round(-low / scale)
    return np.mean(np.square((np.clip(np.round(values / scale) + zero, 0, 255) - zero) * scale - values))


def test_the_methods_are_the_static_ones():
    assert tuple(RANGE_METHODS) == STATIC_METHODS
    with pytest.raises(UnknownName, match=r"unknown range method 'minmacs'(.|\n)*did you mean 'minmax'"):
        range_of(statistics([1.0]), "minmacs")


def test_minmax_and_average_need_no_histogram():
    found = statistics([-1.0, 2.0], [-3.0, 8.0], histogram=False)
    assert range_of(found, "minmax") == (-3.0, 8.0)
    assert range_of(found, "average") == (-2.0, 5.0)
    with pytest.raises(ValueError, match="without histograms"):
        range_of(found, "mse")


def test_percentile_cuts_what_is_outside_of_it():
    low, high = range_of(statistics(normal(1_000_000)), "percentile")
    assert low == pytest.approx(-3.89, abs=0.15)  # 0.005% on each side
    assert high == pytest.approx(3.89, abs=0.15)
    low, high = range_of(statistics(np.abs(normal(1_000_000))), "percentile")
    assert 0.0 <= low < 0.01
    assert high == pytest.approx(3.89, abs=0.15)  # 0.01% of one side alone


@pytest.mark.parametrize("method", ["percentile", "entropy"])
def test_one_wild_value_does_not_set_the_range(method):
    _, high = range_of(statistics(np.append(normal(), 50.0)), method)
    assert high < 20.0


def test_entropy_keeps_nearly_all_of_a_normal_distribution_and_cuts_long_tails():
    assert range_of(statistics(normal()), "entropy")[1] > 3.0
    tails = np.random.default_rng(0).standard_t(2, 200_000)
    assert range_of(statistics(tails), "entropy")[1] < 0.5 * tails.max()


def test_entropy_of_what_a_relu_gives_is_not_ruled_by_its_zeros():
    assert range_of(statistics(np.maximum(normal(), 0.0)), "entropy")[1] > 3.0


@pytest.mark.parametrize("seed", [0, 1])
def test_mse_errs_no_more_than_any_other_method(seed):
    rng = np.random.default_rng(seed)
    for values in (rng.normal(size=50_000), rng.laplace(size=50_000), np.maximum(rng.standard_t(3, 50_000), 0.0)):
        found = statistics(values)
        errors = {method: quantised_error(values, range_of(found, method)) for method in RANGE_METHODS}
        assert errors["mse"] <= 1.02 * min(errors.values())


@pytest.mark.parametrize("method", RANGE_METHODS)
@pytest.mark.parametrize(
    ("values", "expected"),
    [([0.0] * 4, (0.0, 0.0)), ([], (0.0, 0.0)), ([np.nan, np.inf], (0.0, 0.0))],
    ids=["zeros", "nothing", "none finite"],
)
def test_tensors_without_a_range(method, values, expected):
    assert range_of(statistics(values), method) == expected


@pytest.mark.parametrize("method", RANGE_METHODS)
@pytest.mark.parametrize("value", [3.0, -3.0, 1e-35, 1e30])
def test_a_constant_tensor_is_within_its_range(method, value):
    low, high = range_of(statistics([value] * 8), method)
    assert min(low, 0.0) <= np.float32(value) * 1.01 <= max(high, 0.0) * 1.02 or value < 0
    assert np.float32(value) == pytest.approx(max((low, high), key=abs), rel=0.02)


@pytest.mark.parametrize("method", RANGE_METHODS)
def test_values_that_are_not_finite_are_noted_and_left_out(method):
    found = statistics([np.inf, 1.0, -1.0, np.nan])
    assert found.infinite
    low, high = range_of(found, method)
    assert -1.0 <= low <= high <= 1.0


def test_methods_that_need_histograms_are_told():
    assert set(NEEDS_HISTOGRAM) == set(RANGE_METHODS) - {"minmax", "average"}
