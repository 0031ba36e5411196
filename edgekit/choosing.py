"""Which of several measured candidates ships, and whether one is shown to be faster than another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgekit.profiling.comparison import Ratio, compare_in_turns, split_turns
from edgekit.profiling.measured import Measured
from edgekit.profiling.statistics import bounds_of, percentile

if TYPE_CHECKING:
    from edgekit.candidate import Candidate

COLLAPSE_DB = 15.0  # where no score is known, what has less against the fp32 model is taken to be of no use
ORDER = {"pass": 0, "inconclusive": 1, "not measured": 2, "fail": 3}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Settled:
    """Which of two int8 candidates of one engine ships rather than the other; see :func:`edgekit.rivals.settle`.

    Attributes:
        stays: The one.
        goes: The other.
        why: In words, of the other.
    """

    stays: Candidate
    goes: Candidate
    why: str


def best(candidates: Sequence[Candidate], settled: Sequence[Settled] = ()) -> Candidate | None:
    """The candidate that ships; None when none may.

    Of those with the best verdict it is the one with the lowest p50 bound (the lowest median, where one of them has no
    bound). Where fp32 is among them, another precision ships only when it is shown to be faster than fp32 on the same
    engine and than the fastest fp32 of all: else what was lost was lost for nothing.

    A candidate whose accuracy interval lies wholly beyond the limit never ships, nor, where fp32 was tried, one that
    has collapsed.

    Args:
        candidates: As :func:`edgekit.candidate.measure_all` gives them, measured in the same turns.
        settled: Pairs of them of which time does not decide.
    """
    left = eligible(candidates)
    if not left:
        return None
    top = min(ORDER[c.verdict.status] for c in left if c.verdict is not None)
    left = [c for c in left if c.verdict is not None and ORDER[c.verdict.status] == top]
    ranked = _by_time(left)
    floats = [c for c in ranked if c.plan.precision == "fp32"]
    if floats and floats[0].measured is not None:
        sides = sum(c.measured is not None for c in candidates)
        ranked = [c for c in ranked if c in floats or not _in_vain(c, floats, sides)]
    standing = {id(c) for c in ranked}
    gone = {id(pair.goes) for pair in settled if id(pair.stays) in standing}
    return next(c for c in ranked if id(c) not in gone)


def eligible(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Those that may ship at all."""
    left = [c for c in candidates if c.verdict is not None and not c.verdict.accuracy_failed and not c.failure]
    asked_for = all(c.plan.precision != "fp32" for c in candidates)
    return left if asked_for else [c for c in left if not collapsed(c)]


def collapsed(candidate: Candidate) -> bool:
    """Whether no score is known of it, and its outputs have less than 15 dB against the fp32 model's."""
    proof = candidate.proof
    if candidate.failure or proof is None or proof.broken:
        return False
    return proof.drop is None and proof.reference_db < COLLAPSE_DB


def _by_time(candidates: list[Candidate]) -> list[Candidate]:
    # Measured in the same turns, medians are fair to all where one of them has no bound.
    bounds = [p50_bound_ms(c) for c in candidates]
    times = bounds if None not in bounds else [p50_ms(c) for c in candidates]
    ranked = [
        (ms if ms is not None else float("inf"), c.plan.precision != "fp32", i)
        for i, (c, ms) in enumerate(zip(candidates, times, strict=True))
    ]
    return [candidates[i] for _, _, i in sorted(ranked)]


def _in_vain(candidate: Candidate, floats: Sequence[Candidate], sides: int) -> bool:
    """Whether it is not shown to be faster than the fastest fp32, and than fp32 on its own engine."""
    rivals = [floats[0], *(c for c in floats[1:] if c.plan.engine == candidate.plan.engine)]
    return any(
        candidate.measured is not None
        and rival.measured is not None
        and not shown_faster(rival.measured, candidate.measured, sides)
        for rival in rivals
    )


def shown_faster(base: Measured, other: Measured, sides: int = 2) -> bool:
    """Whether ``other`` is shown to have the lower median, on a 99.5% interval of their ratio in turns.

    Where there are too few turns for an interval, its 99% upper bound must lie below the other's lower bound.

    Args:
        base: What it is compared with.
        other: Measured in the same turns.
        sides: How many took turns.
    """
    ratio = ratio_in_turns(base, other, sides)
    if ratio is not None:
        return ratio.high < 1
    ours, theirs = bounds_of(other.application_ms, 50.0), bounds_of(base.application_ms, 50.0)
    return ours.upper_ms is not None and theirs.lower_ms is not None and ours.upper_ms < theirs.lower_ms


def ratio_in_turns(base: Measured, other: Measured, sides: int = 2) -> Ratio | None:
    """The ratio of medians of two that were measured in the same turns; None with too few turns for an interval.

    Where half a dozen sides took too few turns for groups of whole rotations, each round is a value of its own, and
    rounds are joined until they are not correlated.
    """
    if base.status != "ok" or other.status != "ok" or min(base.turns, other.turns) == 0:
        return None
    turns = [split_turns(m.application_ms, m.turn_sizes) for m in (base, other)]
    rounds = min(map(len, turns))
    pair = (turns[0][:rounds], turns[1][:rounds])
    return compare_in_turns(*pair, 50.0, sides=sides) or compare_in_turns(*pair, 50.0)


def p50_bound_ms(candidate: Candidate) -> float | None:
    """Upper 99% bound of the median application latency, None where it has none or was not measured."""
    if candidate.measured is None or candidate.measured.status != "ok":
        return None
    return bounds_of(candidate.measured.application_ms, 50.0).upper_ms


def p50_ms(candidate: Candidate) -> float | None:
    """Median application latency, None where it was not measured."""
    if candidate.measured is None or candidate.measured.status != "ok":
        return None
    return percentile(candidate.measured.application_ms, 50.0)
