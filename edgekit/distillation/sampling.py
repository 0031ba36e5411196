"""Which samples an epoch goes through, in which order; and a score for every group of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgekit.artifact import Array
from edgekit.errors import DataError


def epoch_order(count: int, *, seed: int, epoch: int, groups: Array | None = None, temperature: float = 1.0) -> Array:
    """The samples of one pass over the training data, in order; seed and epoch decide it.

    With a temperature other than 1 a pass is ``count`` draws, where a group of n samples is drawn with a probability
    in proportion to ``n ** (1 / temperature)``: small groups come more often than they lie there, and all equally
    often as the temperature grows. Conneau and Lample, "Cross-lingual Language Model Pretraining", NeurIPS 2019,
    section 3.1 (there as the exponent), and multilingual BERT. Within a group nothing comes again before all has come.

    Args:
        count: Training samples.
        seed: Of the run.
        epoch: Number of the pass.
        groups: Group of each sample, ``[count]``; None: no groups.
        temperature: Above 0; 1: every sample once.

    Returns:
        Indices int64 ``[count]``.

    Raises:
        DataError: There are not as many groups' numbers as samples.
    """
    rng = np.random.default_rng([seed, epoch])
    if groups is None or temperature == 1:
        return rng.permutation(count)
    _check_length(groups, count)
    _, group_of, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    drawn = rng.choice(len(sizes), size=count, p=group_probabilities(sizes, temperature))
    order: Array = np.empty(count, dtype=np.int64)
    for group, size in enumerate(sizes):
        members, places = np.flatnonzero(group_of == group), np.flatnonzero(drawn == group)
        rounds = [rng.permutation(members) for _ in range(-(-len(places) // size))]
        if rounds:
            order[places] = np.concatenate(rounds)[: len(places)]
    return order


def group_probabilities(sizes: Array, temperature: float) -> Array:
    """In proportion to ``sizes ** (1 / temperature)``, summing to 1."""
    logs = np.log(sizes) / temperature
    weights: Array = np.exp(logs - logs.max())
    weights /= weights.sum()
    return weights


def accuracy_by_group(answers: Array, labels: Array, groups: Array, names: Sequence[str]) -> dict[str, float]:
    """The share of right answers in every group.

    Args:
        answers: Class numbers ``[n]``, or scores ``[n, classes]``, of which the highest counts.
        labels: Class numbers ``[n]``; samples of -1 are left out.
        groups: Indices into ``names``, ``[n]``.
        names: Of the groups.

    Returns:
        By name, 0 to 1, in the order of ``names``; without groups that have no labelled sample here.

    Raises:
        DataError: Answers, labels and groups differ in number.
    """
    for found in (labels, groups):
        _check_length(found, len(answers))
    right = (answers.argmax(axis=1) if answers.ndim == 2 else answers) == labels
    known = labels >= 0
    members = ((name, known & (groups == number)) for number, name in enumerate(names))
    return {name: float(right[chosen].mean()) for name, chosen in members if chosen.any()}


def _check_length(found: Array, count: int) -> None:
    if found.shape != (count,):
        raise DataError(
            "not one label and one group a sample", found=f"an array of {list(found.shape)}", allowed=f"[{count}]"
        )
