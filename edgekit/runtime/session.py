"""What every engine's session looks like, and the checks they share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Protocol

import numpy as np

from edgekit.artifact import Array, TensorSpec
from edgekit.errors import FeedError, did_you_mean

if TYPE_CHECKING:
    from edgekit.runtime.placement import Placement


class Session(Protocol):
    """An opened artifact on an engine.

    Outputs of :meth:`run` belong to the caller: a later run never overwrites them. A session is used by one thread
    at a time; open one a thread to run in parallel.
    """

    inputs: Sequence[TensorSpec]
    outputs: Sequence[TensorSpec]

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Runs one batch.

        Args:
            feeds: A model tensor for every input, by name.

        Returns:
            Every output by name.

        Raises:
            FeedError: A name, dtype or shape is wrong.
            EngineError: The engine failed.
        """
        ...

    def placement(self, feeds: Mapping[str, Array] | None = None) -> Placement:
        """Says how the engine really runs the model, from its own record of a few runs.

        Args:
            feeds: What is run; None: zeros, and one of every open dimension.

        Raises:
            FeedError: A name, dtype or shape is wrong.
            EngineError: The engine failed.
        """
        ...

    def close(self) -> None:
        """Frees the engine's resources; the session cannot run afterwards."""
        ...


def zeros(inputs: Sequence[TensorSpec]) -> dict[str, Array]:
    """Zeros for every input; open dimensions are 1."""
    return {s.name: np.zeros([1 if isinstance(d, str) else d for d in s.shape], s.dtype) for s in inputs}


def one_query(samples: Mapping[str, Array], inputs: Sequence[TensorSpec]) -> dict[str, Array] | None:
    """The first samples as one query of the batch that a session takes; None where they do not fit its inputs.

    Args:
        samples: Stacked samples by input name; one where the batch is open.
        inputs: The session's input specs.
    """
    found = {}
    for spec in inputs:
        array = samples.get(spec.name)
        if array is None or not array.ndim or not len(array) or str(array.dtype) != spec.dtype:
            return None
        if not fits(array.shape, spec.shape) or isinstance(spec.shape[0], str):
            size = spec.shape[0] if spec.shape and isinstance(spec.shape[0], int) else 1
            array = array[np.arange(size) % len(array)]
        if not fits(array.shape, spec.shape):
            return None
        found[spec.name] = array
    return found


def explain_feeds(feeds: Mapping[str, Array], inputs: Sequence[TensorSpec]) -> FeedError | None:
    """Says what is wrong with a feed, or returns None when all is well.

    Sessions test cheaply on every run and call this only to word the error.
    """
    known = [spec.name for spec in inputs]
    for name in feeds:
        if name not in known:
            return FeedError(
                f"unknown input {name!r}", found=repr(name), allowed=", ".join(known), fix=did_you_mean(name, known)
            )
    for spec in inputs:
        if spec.name not in feeds:
            return FeedError(
                f"input {spec.name!r} is missing",
                found=", ".join(feeds) or "no inputs",
                allowed=", ".join(str(s) for s in inputs),
            )
        array = feeds[spec.name]
        if not hasattr(array, "dtype"):
            return FeedError(f"input {spec.name!r} is not an array", found=type(array).__name__, allowed=str(spec))
        if str(array.dtype) != spec.dtype:
            return FeedError(
                f"input {spec.name!r} has the wrong dtype",
                found=str(array.dtype),
                allowed=spec.dtype,
                fix=f"convert it: feeds[{spec.name!r}].astype({spec.dtype!r})",
            )
        if not fits(array.shape, spec.shape):
            return FeedError(
                f"input {spec.name!r} has the wrong shape",
                found=list(array.shape),
                allowed=str(spec),
                fix="reshape it, or split it into batches of the size the model was compiled for",
            )
    return None


def fits(shape: Sequence[int], spec: Sequence[int | str]) -> bool:
    """Whether a shape matches a spec; a named dimension takes any size above zero."""
    return len(shape) == len(spec) and all(
        (size > 0) if isinstance(dim, str) else size == dim for size, dim in zip(shape, spec, strict=True)
    )


def feed_checker(inputs: Sequence[TensorSpec]) -> Callable[[Mapping[str, Array]], None]:
    """Makes the check a session runs before every query: about a microsecond, worded only when it fails.

    Dimensions of the same name must have the same size in all inputs.

    Args:
        inputs: The session's input specs.

    Returns:
        A function of the feeds that returns nothing, or raises :class:`FeedError`.
    """
    count = len(inputs)
    static = [(spec.name, np.dtype(spec.dtype), spec.shape) for spec in inputs if not _is_dynamic(spec)]
    dynamic = [spec for spec in inputs if _is_dynamic(spec)]
    ranged = [(spec.name, np.dtype(spec.dtype), len(spec.shape), *_fixed(spec.shape)) for spec in dynamic]

    def check(feeds: Mapping[str, Array]) -> None:
        try:
            good = len(feeds) == count
            for name, dtype, shape in static:
                array = feeds[name]
                good = good and array.dtype == dtype and array.shape == shape
            for name, dtype, rank, pick, sizes in ranged:
                array = feeds[name]
                found = array.shape
                good = good and array.dtype == dtype and len(found) == rank and pick(found) == sizes and 0 not in found
        except (KeyError, AttributeError):
            good = False
        if not good or (len(ranged) > 1 and _mixed(feeds, dynamic)):
            raise explain_feeds(feeds, inputs) or _explain_mixed(feeds, dynamic)

    return check


def _is_dynamic(spec: TensorSpec) -> bool:
    return any(isinstance(dim, str) for dim in spec.shape)


def _fixed(shape: Sequence[int | str]) -> tuple[Callable[[Sequence[int]], object], object]:
    """A function that picks the fixed dimensions out of a shape of this rank, and what it must give."""
    axes = [axis for axis, dim in enumerate(shape) if not isinstance(dim, str)]
    pick = itemgetter(*axes) if axes else len
    return pick, pick(shape)


def _sizes(feeds: Mapping[str, Array], inputs: Sequence[TensorSpec]) -> dict[str, set[int]]:
    """The sizes that every named dimension has in the feeds."""
    sizes: dict[str, set[int]] = {}
    for spec in inputs:
        for dim, size in zip(spec.shape, feeds[spec.name].shape, strict=True):
            if isinstance(dim, str):
                sizes.setdefault(dim, set()).add(size)
    return sizes


def _mixed(feeds: Mapping[str, Array], inputs: Sequence[TensorSpec]) -> bool:
    return any(len(found) > 1 for found in _sizes(feeds, inputs).values())


def _explain_mixed(feeds: Mapping[str, Array], inputs: Sequence[TensorSpec]) -> FeedError:
    mixed = {dim: sorted(found) for dim, found in _sizes(feeds, inputs).items() if len(found) > 1}
    return FeedError(
        f"the inputs disagree on the size of {', '.join(map(repr, mixed))}",
        found=", ".join(f"{spec.name}: {list(feeds[spec.name].shape)}" for spec in inputs),
        allowed="; ".join(map(str, inputs)),
    )
