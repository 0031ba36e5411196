"""Intervals of the centre of a sample, and of the shift between two, that assume no shape: by ranks."""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from edgekit.errors import MeasurementError

CONFIDENCE = 0.995  # a 95% interval calls 2.7% of like pairs different
_EXACT_RANKS = 200  # above it the normal approximation is as good

Floats = npt.NDArray[np.float64]


def groups_needed(confidence: float = CONFIDENCE) -> int:
    """Fewest log ratios whose extremes hold the centre with ``confidence``: 9 at 99.5%.

    Raises:
        MeasurementError: ``confidence`` is out of range.
    """
    if not 0.5 <= confidence < 1:
        raise MeasurementError("a confidence is out of range", found=confidence, allowed="0.5 or more, below 1")
    return math.ceil(1 - math.log2(1 - confidence))


def signed_rank_interval(values: Floats, confidence: float = CONFIDENCE) -> tuple[float, float, float] | None:
    """Interval and Hodges–Lehmann estimate of the centre of a symmetric distribution.

    The ends are order statistics of the Walsh averages (x_i + x_j) / 2, i <= j, picked by the distribution of
    Wilcoxon's signed-rank statistic.

    Args:
        values: Independent values, shape [n].
        confidence: Two-sided confidence, at least.

    Returns:
        Lower end, centre, upper end; None with fewer than :func:`groups_needed` values.
    """
    n = len(values)
    if n < groups_needed(confidence):
        return None
    first, second = np.triu_indices(n)
    averages = np.sort((values[first] + values[second]) / 2)
    end = _signed_rank_quantile(n, (1 - confidence) / 2)
    return float(averages[end - 1]), float(np.median(averages)), float(averages[-end])


def rank_sum_interval(base: Floats, other: Floats, confidence: float = CONFIDENCE) -> tuple[float, float, float] | None:
    """Interval and Hodges–Lehmann estimate of how far ``other`` lies above ``base``, two samples of like shape.

    The ends are order statistics of all differences, picked by the normal approximation of the rank-sum statistic.

    Args:
        base: Independent values, shape [n].
        other: Independent values, shape [m].
        confidence: Two-sided confidence.

    Returns:
        Lower end, centre, upper end; None where the samples are too small for the confidence.
    """
    n, m = len(base), len(other)
    spread = math.sqrt(n * m * (n + m + 1) / 12)
    end = math.floor(n * m / 2 + NormalDist().inv_cdf((1 - confidence) / 2) * spread + 0.5)
    if end < 1:
        return None
    differences = np.sort((other[:, None] - base[None, :]).ravel())
    return float(differences[end - 1]), float(np.median(differences)), float(differences[-end])


@lru_cache(maxsize=1024)
def _signed_rank_quantile(n: int, tail: float) -> int:
    """Which of the Walsh averages, the smallest being 1, ends the interval: the largest k with P(W < k) <= tail.

    W is the statistic. By convolution: the rank i is in the sum or not, each with probability one half.
    """
    if n > _EXACT_RANKS:
        mean, deviation = n * (n + 1) / 4, math.sqrt(n * (n + 1) * (2 * n + 1) / 24)
        return math.floor(mean + NormalDist().inv_cdf(tail) * deviation + 0.5)
    chances = np.ones(1)
    for rank in range(1, n + 1):
        longer = np.zeros(len(chances) + rank)
        longer[: len(chances)] = chances / 2
        longer[rank:] += chances / 2
        chances = longer
    return int(np.searchsorted(np.cumsum(chances), tail * (1 + 1e-12), side="right"))
