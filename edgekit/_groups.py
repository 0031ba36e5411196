"""Which group, such as a language or a domain, every sample is of."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from edgekit.artifact import Array
from edgekit.errors import DataError, did_you_mean


def numbered(found: Any, count: int, at: str) -> tuple[Array, tuple[str, ...]]:
    """Groups as numbers and names.

    Args:
        found: One text or whole number a sample: an array, a list or a tensor.
        count: Samples.
        at: Where they come from, for the message.

    Returns:
        int64 ``[count]``, the indices into the names, and the names, sorted (whole numbers by their size).

    Raises:
        DataError: They are neither text nor whole numbers, or too many or few.
    """
    try:
        values = np.asarray(found.detach().cpu() if hasattr(found, "detach") else found)
    except (TypeError, ValueError):  # ragged lists
        values = np.empty(0, dtype=object)
    if values.dtype.kind not in "iuU":
        raise DataError(
            f"{at} are neither text nor whole numbers",
            found=f"{type(found).__name__} of {values.dtype}",
            allowed="one text or whole number a sample, such as a language",
        )
    if values.shape != (count,):
        raise DataError(
            f"{at}: samples and groups differ in number",
            found=f"{count} samples, groups of shape {list(values.shape)}",
            allowed=f"[{count}]",
        )
    names, numbers = np.unique(values, return_inverse=True)
    return numbers.astype(np.int64), tuple(str(name) for name in names)


def no_groups(name: str, kind: str, known: Iterable[str], at: str) -> DataError:
    """What is told where ``data.groups`` names nothing.

    Args:
        name: As the recipe has it.
        kind: What it should be the name of: an array or an attribute.
        known: What there is.
        at: Where it was looked for.
    """
    known = list(known)
    return DataError(
        f"{at}: no {kind} {name!r} that says which group each sample is of",
        found=", ".join(known[:20]) or "nothing",
        allowed=f"the {kind} that data.groups names, in the training and in the test set",
        fix=did_you_mean(name, known) or f"add the {kind}, or remove data.groups",
    )
