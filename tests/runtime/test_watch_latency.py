"""The histogram of latencies, and when a share is surely too large."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from edgekit.runtime.watch.latency import bucket, edges_with, over, quantile, surely_over


def counted(seconds, limits=()):
    edges = edges_with(limits)
    return Counter(bucket(edges, s) for s in seconds), edges


def test_a_latency_on_an_edge_is_below_it_as_prometheus_counts():
    edges = edges_with([0.033])
    place = edges.index(0.033)
    assert bucket(edges, 0.033) == place
    assert bucket(edges, math.nextafter(0.033, 1)) == place + 1
    assert bucket(edges, 1e9) == len(edges)


def test_who_is_over_a_limit_is_counted_exactly():
    seconds = np.random.default_rng(0).lognormal(-4, 0.5, 5000)
    counts, edges = counted(seconds, [0.0301])
    assert over(counts, edges, 0.0301) == int((seconds > 0.0301).sum())


@pytest.mark.parametrize("q", [0.01, 0.5, 0.9, 0.99, 0.999, 1.0])
def test_a_quantile_is_within_a_bucket_of_the_true_one(q):
    seconds = np.random.default_rng(1).lognormal(-4, 0.5, 5000)
    found = quantile(*counted(seconds), q)
    assert found is not None
    assert abs(math.log2(found / np.quantile(seconds, q))) <= 0.25


def test_no_quantile_without_latencies_and_the_last_edge_for_what_has_none():
    assert quantile(*counted([]), 0.5) is None
    assert quantile(*counted([1e6]), 0.5) == edges_with([])[-1]
    assert quantile(*counted([0.0]), 0.5) == pytest.approx(1e-5, rel=0.5)


@pytest.mark.parametrize(("count", "allowed"), [(30, 0.01), (200, 0.05), (1000, 0.5), (5000, 0.001)])
def test_a_share_is_surely_too_large_where_the_binomial_tail_is_under_a_hundredth(count, allowed):
    def tail(k):
        return 1 - sum(math.comb(count, i) * allowed**i * (1 - allowed) ** (count - i) for i in range(k))

    mean = count * allowed
    tried = range(int(mean + 6 * math.sqrt(mean) + 2))
    exact = [tail(k) < 0.01 and k > mean for k in tried]
    assert [surely_over(k, count, allowed) for k in tried] == exact
    assert any(exact)


def test_of_no_allowed_share_one_is_too_many_and_of_a_million_the_tail_is_still_right():
    assert surely_over(1, 10**6, 0.0)
    assert not surely_over(0, 10**6, 0.0)
    assert not surely_over(0, 0, 0.5)
    assert not surely_over(10_200, 10**6, 0.01)  # 2.0 standard deviations
    assert surely_over(10_300, 10**6, 0.01)  # 3.0
