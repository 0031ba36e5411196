"""Learning-rate schedules: from a step to a factor of the peak rate."""

from __future__ import annotations

import math

WARMUP_SHARE = 0.05


def warmup_cosine(step: int, steps: int) -> float:
    """Linear warm-up over the first twentieth of the steps, then half a cosine to zero.

    The cosine is that of Loshchilov and Hutter, "SGDR", 2017, without restarts.

    Args:
        step: The step about to be taken, from 0.
        steps: Steps of the whole run.

    Returns:
        A factor above 0 and at most 1; 0 once all steps are taken.
    """
    if step >= steps:
        return 0.0
    warmup = math.ceil(WARMUP_SHARE * steps)
    if step < warmup:
        return (step + 1) / warmup
    return (1 + math.cos(math.pi * (step - warmup + 1) / (steps - warmup + 1))) / 2
