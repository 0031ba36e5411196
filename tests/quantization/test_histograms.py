"""Histograms that grow: no count is lost or moved, whatever order values come in."""

import numpy as np
import pytest

from edgekit.quantization.histograms import BINS, Histogram


def filled(*batches):
    histogram = Histogram()
    for batch in batches:
        values = np.asarray(batch, np.float32)
        histogram.add(values, float(values.min()), float(values.max()))
    return histogram


@pytest.mark.parametrize("spread", [[1.0, 1.0, 1.0], [0.01, 1.0, 300.0], [300.0, 1.0, 0.01]])
@pytest.mark.parametrize("shift", [-5.0, 0.0, 5.0])
def test_it_counts_as_one_histogram_of_all_values_would(spread, shift):
    rng = np.random.default_rng(0)
    batches = [rng.normal(shift, 1.0, 70_000) * scale for scale in spread]
    histogram = filled(*batches)
    values = np.concatenate(batches).astype(np.float32)
    expected, _ = np.histogram(values, histogram.edges())
    assert histogram.counts.sum() == values.size
    # A value on an edge may fall on either side, by the rounding of float32.
    assert np.abs(np.cumsum(expected - histogram.counts)).max() <= values.size * 1e-3


def test_the_range_holds_every_value_and_zero():
    histogram = filled([3.0, 4.0], [90.0], [-1.0], [5000.0])
    edges = histogram.edges()
    assert edges[0] <= -1.0
    assert edges[-1] >= 5000.0
    assert len(edges) == BINS + 1


def test_growing_merges_pairs_and_loses_none():
    histogram = filled(np.linspace(0, 1, 1000))
    before, width = histogram.counts.copy(), histogram.width
    histogram.add(np.array([1.5 * width], np.float32), 1.5 * width, 1.5 * width)
    assert histogram.width == 2 * width
    np.testing.assert_array_equal(histogram.counts[: BINS // 2], before.reshape(-1, 2).sum(axis=1))
    assert histogram.counts[BINS // 2 :].sum() == 1


def test_zeros_before_anything_else_are_counted_where_zero_is():
    histogram = filled(np.zeros(10), [-1.0, 3.0])
    edges = histogram.edges()
    zero = int(np.searchsorted(edges, 0.0, side="right")) - 1
    assert histogram.counts[zero] == 10
    assert histogram.counts.sum() == 12


def test_only_zeros_have_no_width():
    histogram = filled(np.zeros(10))
    assert (histogram.width, histogram.counts.sum()) == (0.0, 10)


def test_numbers_next_to_nothing_are_counted():
    histogram = filled([1e-42, 0.0], [2e-42], [1.0])
    assert histogram.counts.sum() == 4
