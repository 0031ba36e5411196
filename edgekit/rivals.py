"""Of int8 that was trained and int8 that was calibrated, on one engine: which of the two ships."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from edgekit.candidate import Candidate
from edgekit.choosing import ORDER, Settled, eligible, shown_faster
from edgekit.metrics import Drop, paired_drop
from edgekit.searching import Trial


def settle(candidates: Sequence[Candidate], trials: Sequence[Trial]) -> list[Settled]:
    """Decides between int8 that was trained and int8 that was calibrated, where the lower median should not.

    Both run in the same kernels, so that time seldom tells them apart, and the test samples must not: what is chosen by
    its score there is judged too well there. In this order:

    1. One that is shown to score worse on the test samples (its paired interval lies wholly below the other's) goes,
       where the other has as good a verdict. This only keeps out what would do harm.
    2. One that is shown to be faster stays.
    3. Weights of 4 bits were asked for because of their size: they stay where their file is the smaller one.
    4. The higher score on the samples that plans are chosen on stays; where none is known, or they are equal, the
       trained one, whose weights were chosen on such samples.

    Args:
        candidates: As :func:`edgekit.candidate.measure_all` gives them.
        trials: What ``auto`` saw of their plans on samples of its own.
    """
    left = [c for c in eligible(candidates) if c.plan.precision == "int8"]
    sides = sum(c.measured is not None for c in candidates)
    pairs = [
        (trained, other)
        for trained in left
        for other in left
        if trained.plan.trained and not other.plan.trained and trained.plan.engine == other.plan.engine
    ]
    found = [_settled(trained, other, trials, sides) for trained, other in pairs]
    return [pair for pair in found if pair is not None]


def _settled(trained: Candidate, other: Candidate, trials: Sequence[Trial], sides: int) -> Settled | None:
    for worse, better in ((trained, other), (other, trained)):
        lost = _lost(better, worse)
        if lost is not None and lost.low > 0 and _rank(better) <= _rank(worse):
            said = f"is shown to score worse, by {lost.points:.2f} [{lost.low:.2f}, {lost.high:.2f}] points"
            return Settled(stays=better, goes=worse, why=said)
    if _rank(trained) != _rank(other):
        return None  # the better verdict ships
    for slow, fast in ((trained, other), (other, trained)):
        both = slow.measured, fast.measured
        if both[0] is not None and both[1] is not None and shown_faster(both[0], both[1], sides):
            return Settled(stays=fast, goes=slow, why="is shown to be slower")
    alike = "is not shown to be faster or better"
    sizes = [c.artifact.size_bytes for c in (trained, other) if c.artifact is not None]
    if trained.plan.method == "qat-w4" and len(sizes) == 2 and sizes[0] < sizes[1]:
        return Settled(stays=trained, goes=other, why=f"{alike}, and its file is larger")
    ours, theirs = _trial_score(trained, trials), _trial_score(other, trials)
    if ours is None or theirs is None or ours == theirs:
        return Settled(stays=trained, goes=other, why=f"{alike}, and was not trained")
    stays, goes = (trained, other) if ours > theirs else (other, trained)
    scores = f"{min(ours, theirs):.1%} where this one has {max(ours, theirs):.1%}"
    return Settled(stays=stays, goes=goes, why=f"{alike}, and has {scores} on the samples that plans are chosen on")


def _rank(candidate: Candidate) -> int:
    assert candidate.verdict is not None, "it may ship"
    return ORDER[candidate.verdict.status]


def _lost(better: Candidate, worse: Candidate) -> Drop | None:
    """How much one scores below another, sample by sample; None where that is not known."""
    if better.scores is None or worse.scores is None:
        return None
    return paired_drop(better.scores, worse.scores)


def _trial_score(candidate: Candidate, trials: Sequence[Trial]) -> float | None:
    """What a candidate's plan scored on the search's own samples."""
    plain = replace(candidate.plan, scheme=None)
    found = (trial.proof for trial in trials if replace(trial.plan, scheme=None) == plain)
    return next((proof.artifact for proof in found if proof is not None), None)
