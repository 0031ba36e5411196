"""How two sides compare: the ratio of a percentile of their latencies, with an interval that assumes no shape.

**In turns** (:func:`compare_in_turns`) both sides ran in the same rounds, so that what disturbs the machine for longer
than a round disturbs both. Each group of rounds gives one log ratio of the percentile of the two sides, in which such
disturbances cancel. The centre of the log ratios is the Hodges–Lehmann estimate and its interval is that of Wilcoxon's
signed-rank test, exact for any symmetric distribution (Hodges & Lehmann 1963, *Estimates of location based on rank
tests*; Hollander, Wolfe & Chicken, *Nonparametric statistical methods*, 3.2-3.4). A log ratio of two like sides is
symmetric about zero by construction. Log ratios must be independent: groups are widened, as the batches of batch means
are (Law & Kelton, *Simulation modeling and analysis*, 9.5.3), until successive ones are not correlated; where they stay
correlated however wide groups are, the interval is widened as the mean of a first-order autoregressive series asks for.

**Apart** (:func:`compare_apart`) the sides were measured at different times: from the percentiles of slices of each
run, by the interval of the rank-sum test (Hodges & Lehmann 1963), and never narrower than the bounds of the percentile
itself allow. What changed on the machine in between is in the ratio and not in the interval.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edgekit.artifact import Array
from edgekit.errors import MeasurementError
from edgekit.profiling.ranks import CONFIDENCE, Floats, groups_needed, rank_sum_interval, signed_rank_interval
from edgekit.profiling.statistics import percentile

MOST_GROUPS = 256  # more sharpen nothing and take time with the square of their number
_BEYOND = 2  # queries expected beyond a percentile in every group
# Standard errors of lag-1 autocorrelation (one in ten by chance) from which groups are widened; where they cannot be
# widened any further, intervals are.
_CORRELATED = 1.28
_MOST_CORRELATED = 0.95
_SLICES = 120

Finding = Literal["slower", "faster", "no difference shown", "unsettled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """The other side's percentile over the base's.

    Attributes:
        percentile: Which, e.g. 50.0.
        base_ms: The base's, over its whole run.
        other_ms: The other's.
        ratio: The centre of the groups' ratios; 1.12 is 12% slower.
        low: Lower end of the interval.
        high: Upper end.
        confidence: Two-sided confidence of the interval.
        in_turns: Whether both sides ran in the same rounds.
        groups: How many log ratios (in turns), or slices of the smaller side (apart).
        rounds_per_group: Rounds that make one log ratio; 0 apart.
        autocorrelation: Of successive log ratios, lag 1.
        settled: False where the log ratios stay correlated however wide the groups are: the sides drift apart. The
            interval is then as much wider as the mean of values that hang together so is less certain.
    """

    percentile: float
    base_ms: float
    other_ms: float
    ratio: float
    low: float
    high: float
    confidence: float
    in_turns: bool
    groups: int
    rounds_per_group: int
    autocorrelation: float
    settled: bool

    @property
    def finding(self) -> Finding:
        """What the interval says of the other side."""
        if self.low > 1:
            return "slower"
        if self.high < 1:
            return "faster"
        return "no difference shown" if self.settled else "unsettled"


def split_turns(latencies_ms: Array, turn_sizes: Sequence[int]) -> list[Floats]:
    """Cuts kept latencies into turns.

    Args:
        latencies_ms: In order, shape [n].
        turn_sizes: Kept queries of each turn; their sum is n.

    Raises:
        MeasurementError: The sizes do not fit, or a latency is not a finite time above zero.
    """
    samples = np.asarray(latencies_ms, dtype=np.float64)
    if samples.ndim != 1 or samples.size != sum(turn_sizes) or not turn_sizes:
        raise MeasurementError(
            "the latencies do not fit the turns", found=f"shape {list(samples.shape)}", allowed=f"[{sum(turn_sizes)}]"
        )
    if not np.isfinite(samples).all() or samples.min() <= 0:
        raise MeasurementError(
            "latencies are not finite times above zero", found=f"from {samples.min()} to {samples.max()} ms"
        )
    return np.split(samples, np.cumsum(turn_sizes)[:-1])


def compare_in_turns(
    base: Sequence[Floats], other: Sequence[Floats], q: float, *, sides: int = 2, confidence: float = CONFIDENCE
) -> Ratio | None:
    """Compares one percentile of two sides that ran in the same rounds.

    Args:
        base: Latencies in ms of each of the base's turns, in order.
        other: The same of the other side; turns of the same index are of the same round.
        q: Percentile, between 0 and 100.
        sides: How many sides took turns. With two, rounds go AB, BA, …, and what an order does to a log ratio comes
            with either sign; with more, every group holds whole rotations.
        confidence: Two-sided confidence of the interval.

    Returns:
        The ratio, or None where the rounds give fewer groups than an interval needs (:func:`rounds_needed`).

    Raises:
        MeasurementError: ``q`` or ``confidence`` is out of range, or a side has no turns.
    """
    values, rounds = _log_ratios(base, other, q, 1 if sides == 2 else sides)
    return ratio_of(
        values,
        q,
        base_ms=percentile(np.concatenate(base), q),
        other_ms=percentile(np.concatenate(other), q),
        rounds_per_value=rounds,
        confidence=confidence,
    )


def ratio_of(
    log_ratios: Floats,
    q: float,
    *,
    base_ms: float,
    other_ms: float,
    rounds_per_value: float = 1,
    confidence: float = CONFIDENCE,
) -> Ratio | None:
    """The ratio from log ratios of successive groups of rounds, which are widened until they are not correlated.

    Returns:
        The ratio, or None with fewer log ratios than an interval needs.
    """
    inner = _with_choice(confidence)
    fewest = groups_needed(inner)
    values, width = log_ratios[: len(log_ratios) // 2 * 2], 1
    while len(values) > MOST_GROUPS or (len(values) // 2 >= fewest and _correlation(values)[1] > _CORRELATED):
        width *= 2
        values = _grouped(log_ratios, width)
    found = signed_rank_interval(values, inner)
    if found is None:
        return None
    low, centre, high = found
    correlation, deviations = _correlation(values)
    settled = deviations <= _CORRELATED
    if not settled:
        wider = _wider(correlation, len(values))
        low, high = centre - wider * (centre - low), centre + wider * (high - centre)
    return Ratio(
        percentile=q,
        base_ms=base_ms,
        other_ms=other_ms,
        ratio=math.exp(centre),
        low=math.exp(low),
        high=math.exp(high),
        confidence=confidence,
        in_turns=True,
        groups=len(values),
        rounds_per_group=round(width * rounds_per_value),
        autocorrelation=correlation,
        settled=settled,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """One percentile of one side that was measured on its own.

    Attributes:
        ms: The percentile over the whole run.
        low_ms: Its lower bound, or None where the queries are too few for one.
        high_ms: Its upper bound.
        slices_ms: The percentile of successive slices of the run; empty where they are not known.
    """

    ms: float
    low_ms: float | None
    high_ms: float | None
    slices_ms: tuple[float, ...] = ()


def slices_of(turns: Sequence[Floats], q: float) -> tuple[float, ...]:
    """One percentile of successive slices of a run, 120 at most, each large enough; empty with fewer than two."""
    latencies = np.concatenate(turns)
    count = min(_SLICES, len(latencies) // queries_a_group(q))
    return tuple(float(np.percentile(part, q)) for part in np.array_split(latencies, count)) if count > 1 else ()


def compare_apart(base: Stretch, other: Stretch, q: float, confidence: float = CONFIDENCE) -> Ratio | None:
    """Compares one percentile of two sides that were not measured in the same rounds.

    The interval holds what the percentile's own bounds allow, and where both sides have slices also the interval of
    the rank-sum test of their logarithms, slices being joined until successive ones are not correlated; where they
    stay correlated, it is widened as in turns.

    Returns:
        The ratio, or None where a side has no bounds for the percentile.

    Raises:
        MeasurementError: A time is not above zero.
    """
    ends = (base.low_ms, base.high_ms, other.low_ms, other.high_ms)
    low_ms, high_ms, other_low_ms, other_high_ms = ends
    if low_ms is None or high_ms is None or other_low_ms is None or other_high_ms is None:
        return None
    if min(low_ms, base.ms, other.ms, other_low_ms, *base.slices_ms, *other.slices_ms) <= 0:
        raise MeasurementError("a time to compare is not above zero", found=f"{min(low_ms, other_low_ms)} ms")
    low, high = math.log(other_low_ms / high_ms), math.log(other_high_ms / low_ms)
    correlation, groups, settled = 0.0, 0, True
    if base.slices_ms and other.slices_ms:
        first, second = (_uncorrelated(np.log(side.slices_ms)) for side in (base, other))
        correlation, deviations = max(_correlation(first), _correlation(second), key=lambda found: found[1])
        groups, settled = min(len(first), len(second)), deviations <= _CORRELATED
        found = rank_sum_interval(first, second, confidence)
        low, high = (low, high) if found is None else (min(low, found[0]), max(high, found[2]))
        if not settled:
            wider, centre = _wider(correlation, groups), math.log(other.ms / base.ms)
            low, high = centre - wider * (centre - low), centre + wider * (high - centre)
    return Ratio(
        percentile=q,
        base_ms=base.ms,
        other_ms=other.ms,
        ratio=other.ms / base.ms,
        low=math.exp(low),
        high=math.exp(high),
        confidence=confidence,
        in_turns=False,
        groups=groups,
        rounds_per_group=0,
        autocorrelation=correlation,
        settled=settled,
    )


def _wider(correlation: float, count: int) -> float:
    """How many times as wide the interval of a mean is where successive values are correlated so, as in AR(1).

    The correlation of a few independent values is seen 1 / count too low.
    """
    rho = min(correlation + 1 / count, _MOST_CORRELATED)
    return math.sqrt((1 + rho) / (1 - rho))


def _uncorrelated(values: Floats) -> Floats:
    """Medians of so many successive values that they are not correlated, as far as there are enough of them."""
    width, found = 1, values
    while len(found) // 2 >= groups_needed() and _correlation(found)[1] > _CORRELATED:
        width *= 2
        found = _grouped(values, width)
    return found


def _log_ratios(base: Sequence[Floats], other: Sequence[Floats], q: float, rotation: int) -> tuple[Floats, float]:
    """Log ratios of groups that hold enough queries for the percentile, and the rounds of one, on average."""
    enough, values, rounds, start = queries_a_group(q), [], 0, 0
    count = min(len(base), len(other))
    for end in range(rotation, count + 1, rotation):
        sides = [np.concatenate(side[start:end]) for side in (base, other)]
        if min(map(len, sides)) >= enough:
            ends = [float(np.percentile(side, q)) for side in sides]
            values.append(math.log(ends[1] / ends[0]))
            rounds, start = end, end
    return np.array(values, dtype=np.float64), rounds / max(1, len(values))


def _with_choice(confidence: float) -> float:
    """Confidence of the rank test inside an interval: half of its errors are left to the choice of the groups' width.

    The width is chosen by the same log ratios, and correlation too small to be noticed remains.
    """
    return 1 - (1 - confidence) / 2


def queries_a_group(q: float) -> int:
    """Fewest queries of a side in a group: two are expected beyond the percentile; 4 for p50, 200 for p99.

    Raises:
        MeasurementError: ``q`` is out of range.
    """
    if not 0 < q < 100:
        raise MeasurementError("a percentile is out of range", found=q, allowed="above 0, below 100")
    return math.ceil(_BEYOND / min(q / 100, 1 - q / 100) - 1e-9)


def queries_needed(q: float, confidence: float = CONFIDENCE) -> int:
    """Fewest queries of a side from which a percentile can be compared in turns: 2,000 for p99.

    Raises:
        MeasurementError: ``q`` or ``confidence`` is out of range.
    """
    return queries_a_group(q) * groups_needed(_with_choice(confidence))


def rounds_needed(confidence: float = CONFIDENCE) -> int:
    """Fewest groups of rounds from which anything can be compared in turns: 10.

    Raises:
        MeasurementError: ``confidence`` is out of range.
    """
    return groups_needed(_with_choice(confidence))


def _grouped(values: Floats, width: int) -> Floats:
    """Medians of ``width`` successive values."""
    count = len(values) // width
    medians: Floats = np.median(values[: count * width].reshape(count, width), axis=1)
    return medians


def _correlation(values: Floats) -> tuple[float, float]:
    """Lag-1 autocorrelation, and how many standard errors it is above that of independent values.

    Values far out are drawn in, so that one hiccup does not hide the correlation of the rest.
    """
    centred = values - np.median(values)
    reach = 4.5 * float(np.median(np.abs(centred)))  # three deviations of a normal distribution
    if reach > 0:
        centred = np.clip(centred, -reach, reach)
    total = float(centred @ centred)
    if len(values) < 3 or total == 0:
        return 0.0, 0.0
    correlation = float(centred[1:] @ centred[:-1]) / total
    return correlation, (correlation + 1 / len(values)) * math.sqrt(len(values))
