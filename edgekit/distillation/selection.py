"""Which epoch's weights are kept."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How a module did on the validation samples after an epoch.

    Attributes:
        epoch: From 1.
        accuracy: 0 to 1.
        cross_entropy: Mean, in nats.
    """

    epoch: int
    accuracy: float
    cross_entropy: float


NOTHING = Score(epoch=0, accuracy=0.0, cross_entropy=math.inf)
"""Before the first epoch: any epoch is better."""


def better(new: Score, kept: Score, top: float, samples: int) -> Score:
    """The score whose weights are worth keeping.

    Few validation samples cannot tell accuracies apart that lie close together, and the highest of many is then the
    luckiest. As in the one-standard-error rule (Breiman, Friedman, Olshen and Stone, "Classification and Regression
    Trees", 1984), accuracies within one standard error of the highest count as equal; the lower cross-entropy decides
    among them.

    Args:
        new: Of the last epoch.
        kept: Of the weights kept so far.
        top: The highest accuracy until now, ``new`` included.
        samples: How many validation samples there are.
    """
    enough = top - standard_error(top, samples)
    if new.accuracy < enough:
        return kept
    if kept.accuracy < enough or new.cross_entropy < kept.cross_entropy:
        return new
    return kept


def standard_error(accuracy: float, samples: int) -> float:
    """Standard error of an accuracy, never zero: two successes and two failures are added (Agresti and Coull, 1998)."""
    share = (accuracy * samples + 2) / (samples + 4)
    return math.sqrt(share * (1 - share) / (samples + 4))
