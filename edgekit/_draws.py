"""Drawing some of many samples, by class where they are labelled."""

from __future__ import annotations

import numpy as np

from edgekit.artifact import Array


def drawn(targets: Array | None, count: int, wanted: int, seed: int, *, keep: int) -> Array:
    """Which samples are drawn, by class in proportion where there are labels.

    Args:
        targets: Class labels ``[count]``, or what else the targets are; None: unlabelled.
        count: How many samples there are.
        wanted: How many are drawn, ``count`` at most.
        seed: Decides which.
        keep: How many of every class are left where that is possible.

    Returns:
        Sorted indices.
    """
    rng = np.random.default_rng(seed)
    if targets is None or targets.ndim != 1 or targets.dtype.kind != "i":
        return np.sort(rng.permutation(count)[:wanted])
    groups = [rng.permutation(np.flatnonzero(targets == label)) for label in np.unique(targets)]
    sizes = np.array([len(group) for group in groups])
    quota = _quota(sizes, wanted, np.maximum(sizes - keep, 0))
    found: Array = np.concatenate([group[:take] for group, take in zip(groups, quota, strict=True)])
    found.sort()
    return found


def _quota(sizes: Array, wanted: int, room: Array) -> Array:
    """How many of each class: in proportion, by largest remainder, within ``room`` where the total allows."""
    room = room if room.sum() >= wanted else sizes
    exact = wanted * sizes / sizes.sum()
    quota: Array = np.minimum(np.floor(exact).astype(np.int64), room)
    if wanted >= len(sizes):
        quota = np.maximum(quota, np.minimum(1, room))
    while quota.sum() != wanted:
        step = 1 if quota.sum() < wanted else -1
        free = quota < room if step > 0 else quota > 1
        gap = np.where(free, (exact - quota) * step, -np.inf)
        quota[int(np.argmax(gap))] += step
    return quota
