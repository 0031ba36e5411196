"""Training samples of which only some have a label; -1 stands for none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edgekit._draws import drawn
from edgekit.artifact import Array
from edgekit.data import READ_AT_ONCE, Samples
from edgekit.errors import DataError, did_you_mean
from edgekit.recipe_training import TaskSpec

UNLABELLED = -1


def keep_labels(samples: Samples, share: float, seed: int) -> Samples:
    """The same samples, with the labels of a share of them alone, drawn by class and at least one of each.

    Args:
        samples: Labelled with class numbers.
        share: Between 0 and 1.
        seed: Decides which.

    Raises:
        DataError: They have no labels.
    """
    if samples.targets is None:
        raise DataError(
            f"{samples.name}: data.labelled keeps a share of the labels, and there are none",
            found=f"labelled = {share:g}",
            fix="remove data.labelled, or give labels",
        )
    kept = drawn(samples.targets, len(samples), max(1, round(share * len(samples))), seed, keep=0)
    targets = np.full(len(samples), UNLABELLED, dtype=np.int64)
    targets[kept] = samples.targets[kept]
    return replace(samples, targets=targets)


def further_apart(samples: Samples, tasks: Sequence[TaskSpec], where: str) -> Samples:
    """The same samples with the targets of further tasks read, and no longer among the inputs.

    Args:
        samples: They have them as arrays.
        tasks: The recipe's.
        where: What the samples are, for messages.

    Raises:
        DataError: One is missing or is no such target, or nothing is left to be an input.
    """
    if not tasks:
        return samples
    arrays, names = list(samples.raw([0])), [task.target for task in tasks]
    for name in names:
        if name not in arrays:
            raise DataError(
                f"{where}: {samples.name}: no array {name!r} for the targets of a task",
                found=repr(name),
                allowed=", ".join(arrays),
                fix=did_you_mean(name, arrays),
            )
    inputs = [name for name in arrays if name not in names]
    if not inputs:
        raise DataError(f"{where}: {samples.name}: all arrays are targets, none is an input", found=", ".join(arrays))
    parts = [
        samples.raw(range(start, min(start + READ_AT_ONCE, len(samples))))
        for start in range(0, len(samples), READ_AT_ONCE)
    ]
    further = {task.target: _target(task, np.concatenate([part[task.target] for part in parts])) for task in tasks}
    return replace(samples.only(inputs), further=further)


def _target(task: TaskSpec, found: Array) -> Array:
    if task.kind == "values":
        return found.astype(np.float32)
    if found.dtype.kind not in "iu" or found.ndim != 1 or found.min() < 0:
        raise DataError(
            f"tasks: {task.target!r} holds no class numbers",
            found=f"{found.dtype}{list(found.shape)}, the first {found.ravel()[:4].tolist()}",
            allowed="integers [n] from 0",
            fix='where they are values, say kind = "values"',
        )
    return found.astype(np.int64)


def joined(samples: Samples, more: Samples) -> Samples:
    """Samples, and more of them whose labels are not used.

    Args:
        samples: The first, with labels or without.
        more: Of the same inputs; what they are labelled with is left aside.

    Raises:
        DataError: Their raw samples cannot be stacked.
    """
    count = len(samples)
    for name, array in samples.raw([0]).items():
        other = more.raw([0]).get(name)
        if other is None or other.shape != array.shape or other.dtype != array.dtype:
            raise DataError(
                f"data.unlabelled: the samples are not like those of {samples.name}",
                found="no input of that name" if other is None else f"{name}: {other.dtype}{list(other.shape[1:])}",
                allowed=f"{name}: {array.dtype}{list(array.shape[1:])}",
                fix="store both alike",
            )

    def fetch(indices: Array) -> dict[str, Array]:
        first = indices < count
        parts = [samples.fetch(indices[first]), more.fetch(indices[~first] - count)]
        place = np.argsort(np.concatenate([np.flatnonzero(first), np.flatnonzero(~first)]))
        present = [part for part, chosen in zip(parts, (first, ~first), strict=True) if chosen.any()]
        return {name: np.concatenate([part[name] for part in present])[place] for name in present[0]}

    targets = None
    if samples.targets is not None:
        targets = np.concatenate([samples.targets, np.full(len(more), UNLABELLED, dtype=np.int64)])
    return replace(samples, count=count + len(more), fetch=fetch, targets=targets, groups=_joined_groups(samples, more))


def only_labelled(samples: Samples) -> Samples:
    """Those that have a label."""
    if samples.targets is None or (samples.targets >= 0).all():
        return samples
    return samples.subset(np.flatnonzero(samples.targets >= 0))


def _joined_groups(samples: Samples, more: Samples) -> Array | None:
    if samples.groups is None:
        return None
    if more.groups is None or more.group_names != samples.group_names:
        raise DataError(
            "data.unlabelled: the samples are not of the same groups",
            found=", ".join(more.group_names) or "no groups",
            allowed=", ".join(samples.group_names),
            fix="give both the same groups, or remove data.groups",
        )
    found: Array = np.concatenate([samples.groups, more.groups])
    return found
