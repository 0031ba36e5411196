"""From model outputs to answers, in numpy: softmax or sigmoid, the best classes and their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from edgekit.artifact import Array
from edgekit.errors import FeedError

if TYPE_CHECKING:
    from edgekit.processing_specs import Postprocessing

CLASSES, LABELS = "_classes", "_labels"


def postprocess(
    outputs: Mapping[str, Array], settings: Postprocessing | None, labels: Sequence[str] = ()
) -> dict[str, Array]:
    """Turns a model's outputs into answers.

    Args:
        outputs: Every output by name, the batch first.
        settings: What is done to which output; None: nothing.
        labels: Class names, in order.

    Returns:
        The outputs, of which the named one holds float32 scores. With ``top`` these are the best alone, the highest
        first (among equals the lower class), int64 ``NAME_classes`` says which they are, and ``NAME_labels`` what they
        are called where that is known.

    Raises:
        FeedError: There is no such output, or it has no such axis.
    """
    if settings is None:
        return dict(outputs)
    name, axis = settings.output, settings.axis
    if name not in outputs:
        raise FeedError(f"output {name!r} is missing", found=", ".join(outputs) or "no outputs")
    if outputs[name].ndim <= axis:
        raise FeedError(f"output {name!r} has no axis {axis}", found=f"shape {list(outputs[name].shape)}")
    scores = activated(outputs[name], settings.activation, axis)
    if settings.top is None:
        return {**outputs, name: scores}
    order = np.argsort(-scores, axis=axis, kind="stable")
    best = np.take(order, range(min(settings.top, order.shape[axis])), axis=axis)
    found = {**outputs, name: np.take_along_axis(scores, best, axis=axis), name + CLASSES: best.astype(np.int64)}
    if len(labels) == scores.shape[axis]:
        found[name + LABELS] = np.asarray(labels)[best]
    return found


def activated(scores: Array, activation: str, axis: int) -> Array:
    """An activation of scores, as float32.

    Args:
        scores: Numbers of any shape.
        activation: ``none``, ``softmax`` (along ``axis``) or ``sigmoid``.
        axis: The axis of classes.
    """
    found = scores.astype(np.float32)
    if activation == "softmax":
        found -= found.max(axis=axis, keepdims=True)
        np.exp(found, out=found)
        found /= found.sum(axis=axis, keepdims=True)
    elif activation == "sigmoid":
        # exp of what is not positive never overflows.
        small = np.exp(-np.abs(found))
        found = np.where(found >= 0, 1.0, small).astype(np.float32) / (1 + small)
    return found
