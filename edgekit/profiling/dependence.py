"""How far successive latencies hang together: correlation time, effective sample size, and drift.

Order statistics assume independent samples. Successive queries on one machine are not: a busy neighbour, a change of
clock or a warm cache lasts for many of them. What counts is then the **effective size**: n over the correlation time
of the events the bound is made of, "slower than this percentile" (Geyer 1992, Statistical Science 7(4); Sokal 1997,
Monte Carlo Methods in Statistical Mechanics, section 3).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgekit.artifact import Array

FEWEST_EFFECTIVE = 30  # below this the median itself is decided by a handful of stretches
DRIFT_RATIO = 1.05  # a smaller change of the level matters to no budget that is worth having

_WINDOW = 5.0  # Sokal's c: the sum ends at the first lag of c correlation times
_SEGMENT = 1 << 16  # bounds time and memory of a long run
_BATCHES = 20
# 99% points of chi-square over its degrees of freedom: for 19, batch means of independent samples vary more in 1% of
# runs.
_BATCHES_VARY = 1.905
# The estimate is itself uncertain, most where slow stretches are few: so many standard errors are added to it.
# tests/bench/bench_statistics.py shows what the bounds then cover.
_ERRORS = 2.0
_KENDALL_Z = 3.29  # two-sided 0.1%

Floats = npt.NDArray[np.float64]


def autocorrelation(samples: Array) -> float:
    """Correlation of each sample with the next one; 0 where they do not vary."""
    if samples.size < 3:
        return 0.0
    centred = np.asarray(samples, dtype=np.float64) - float(samples.mean())
    power = float(centred @ centred)
    return float(centred[:-1] @ centred[1:]) / power if power > 0 else 0.0


def correlation_time(series: Array, errors: float = 0.0) -> float:
    """How many successive samples are worth one independent sample; at least 1.

    The larger of the integrated autocorrelation time up to a self-consistent window (Sokal 1997) and, where batch
    means vary more than those of independent samples would in 1% of runs, what they say: the first sees what lasts
    for a few queries, the second what lasts for a good part of the run.

    Args:
        series: Samples in the order of time, shape [n].
        errors: Standard errors to add to the first of the two.
    """
    n = int(series.size)
    centred = np.asarray(series, dtype=np.float64) - float(series.mean())
    variance = float(centred @ centred) / n if n else 0.0
    if n < 2 * _BATCHES or variance == 0:
        return 1.0
    time, error = _integrated(centred)
    size = n // _BATCHES
    means = centred[: size * _BATCHES].reshape(_BATCHES, size).mean(axis=1)
    batches = float(means.var(ddof=1)) * size / variance
    return max(1.0, time + errors * error, batches if batches > _BATCHES_VARY else 1.0)


def effective_size(samples: Array, share: float) -> float:
    """How many independent samples the samples are worth for telling that a share of them is slower than a level.

    Correlation is that of "slower than the level that this share exceeds", and of levels half and one and a half
    times as far from the end of the tail, since at the level itself there may be too few slow stretches to tell.

    Args:
        samples: Latencies in the order of time, shape [n].
        share: Share of the samples beyond the level, 0 to 1.
    """
    n = int(samples.size)
    if n < 2 * _BATCHES:
        return float(n)
    tail = min(share, 1 - share)
    ends = (50 * tail, 100 * tail, min(150 * tail, 50.0))
    levels = set(np.percentile(samples, [100 - end if share <= 0.5 else end for end in ends]))
    return n / max(correlation_time(samples > level, _ERRORS) for level in levels)


def drift(samples: Array) -> str | None:
    """Why latencies are not those of one steady process, or None.

    Either the medians of 20 successive parts rise or fall (Mann 1945, Kendall 1975, at 0.1%) by 5% or more between
    the first third and the last, or the level changes so slowly that the run saw only a few of its stretches.

    Args:
        samples: Latencies in the order of time, shape [n].
    """
    n = int(samples.size)
    if n < 2 * _BATCHES:
        return None
    parts = np.array([np.median(part) for part in np.array_split(samples, _BATCHES)])
    first, last = (float(np.median(third)) for third in (samples[: n // 3], samples[-(n // 3) :]))
    moved = max(first, last) / max(min(first, last), 1e-12)
    if abs(_kendall_z(parts)) > _KENDALL_Z and moved >= DRIFT_RATIO:
        return f"latencies drifted: their median went from {first:.4g} to {last:.4g} ms during the run"
    effective, (low, high) = effective_size(samples, 0.5), np.percentile(parts, [10, 90])
    if effective < FEWEST_EFFECTIVE and high >= DRIFT_RATIO * low:
        return (
            f"latencies kept changing their level, between medians of {low:.4g} and {high:.4g} ms: "
            f"{n} queries are worth {effective:.0f} independent ones"
        )
    return None


def _integrated(centred: Floats) -> tuple[float, float]:
    """Integrated autocorrelation time, summed to the first lag of at least 5 times itself, and its standard error."""
    n = int(centred.size)
    length = min(n, _SEGMENT)
    segments = centred[: n // length * length].reshape(-1, length)
    padded = 1 << (2 * length - 1).bit_length()
    covariance = np.zeros(length // 4)
    for segment in segments:
        spectrum = np.fft.rfft(segment, padded)
        covariance += np.fft.irfft(spectrum.real**2 + spectrum.imag**2, padded)[: length // 4]
    times = 2 * np.cumsum(covariance / covariance[0]) - 1
    enough = np.nonzero(np.arange(times.size) >= _WINDOW * times)[0]
    window = int(enough[0]) if enough.size else times.size - 1
    # Taking off the sample's own mean makes every lag look 1/n less correlated than it is.
    time = float(times[window]) * (1 + (2 * window + 1) / length)
    return time, abs(time) * (2 * (2 * window + 1) / n) ** 0.5


def _kendall_z(values: Floats) -> float:
    """Standardised Mann–Kendall statistic: positive for rising values."""
    n = values.size
    signs = np.sign(values[None, :] - values[:, None])[np.triu_indices(n, 1)]
    score, spread = float(signs.sum()), (n * (n - 1) * (2 * n + 5) / 18) ** 0.5
    return (score - np.sign(score)) / spread if score else 0.0
