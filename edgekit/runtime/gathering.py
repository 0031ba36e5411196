"""Frames of a stream as one query: each is checked by itself, then they are stacked and padded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgekit.artifact import Array
from edgekit.errors import EngineError, FeedError, StreamError
from edgekit.runtime.bundle import Bundle
from edgekit.runtime.numbers import padded
from edgekit.runtime.session import feed_checker


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Gathering:
    """How frames become queries of a bundle.

    Attributes:
        most: Frames that one query takes.
        fixed: Whether it takes no fewer, so that it is padded.
        by_frame: Outputs whose first axis is the batch; others belong to the only frame there is.
        check: Refuses one frame's feeds that do not fit.
    """

    most: int
    fixed: bool
    by_frame: frozenset[str]
    check: Callable[[Mapping[str, Array]], None]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Query:
    """What one query took and gave, without padding, and each frame's own answers without the batch's axis."""

    feeds: Mapping[str, Array]
    outputs: Mapping[str, Array]
    answers: Sequence[Mapping[str, Array]]


def gathering_of(bundles: Sequence[Bundle]) -> Gathering:
    """How frames become queries of bundles of one model.

    Raises:
        StreamError: There are no bundles, they differ, or inputs or outputs cannot be told apart by frame.
    """
    if not bundles:
        raise StreamError("a stream needs a bundle", found="none")
    first = bundles[0]
    for other in bundles[1:]:
        if other.manifest.id != first.manifest.id:
            raise StreamError(
                "the bundles of a stream differ",
                found=f"{first.manifest.name} and {other.manifest.name}",
                allowed="one bundle, opened once for every worker",
            )
    most = first.manifest.batch
    heads = {spec.shape[0] if spec.shape else "none" for spec in first.inputs}
    head = next(iter(heads), "none")
    if len(heads) != 1 or not all(spec.shape for spec in first.inputs) or (head != most and isinstance(head, int)):
        raise StreamError(
            "the model's inputs have no axis of frames",
            found="; ".join(map(str, first.inputs)),
            allowed=f"a first axis of {most}, or one open first axis in all",
        )
    by_frame = frozenset(spec.name for spec in first.outputs if spec.shape and spec.shape[0] == head)
    whole = [str(spec) for spec in first.outputs if spec.name not in by_frame]
    if whole and most > 1:
        raise StreamError(
            "an output cannot be told apart by frame",
            found="; ".join(whole),
            allowed=f"outputs whose first axis is the batch of {most}",
            fix="deploy with a profile of batch 1",
        )
    one = [replace(spec, shape=(1, *spec.shape[1:])) for spec in first.inputs]
    return Gathering(most=most, fixed=isinstance(head, int), by_frame=by_frame, check=feed_checker(one))


def prepared(
    bundle: Bundle, frame: Array | Mapping[str, Array], gathering: Gathering, *, raw: bool
) -> dict[str, Array]:
    """One frame as feeds of a batch of one.

    Raises:
        FeedError: It does not fit.
    """
    named = bundle.named(frame)
    for name, array in named.items():
        if not isinstance(array, np.ndarray):
            raise FeedError(f"input {name!r} is not an array", found=type(array).__name__, allowed="a numpy array")
    feeds = {name: array[np.newaxis] for name, array in named.items()}
    feeds = bundle.preprocess(feeds) if raw else feeds
    gathering.check(feeds)
    return feeds


def run_frames(bundle: Bundle, frames: Sequence[Mapping[str, Array]], gathering: Gathering) -> Query:
    """Runs prepared frames as one query.

    Raises:
        EngineError: The engine failed, or an output has another size than the batch.
    """
    count = len(frames)
    feeds = frames[0] if count == 1 else {name: np.concatenate([f[name] for f in frames]) for name in frames[0]}
    short = gathering.fixed and count < gathering.most
    outputs = bundle.run({name: padded(array, gathering.most) for name, array in feeds.items()} if short else feeds)
    ran = gathering.most if short else count
    cut = {name: _cut(name, array, ran, count, gathering) for name, array in outputs.items()}
    whole = outputs.keys() - gathering.by_frame
    post = bundle.postprocess(cut)
    answers = [{name: array if name in whole else array[i, ...] for name, array in post.items()} for i in range(count)]
    return Query(feeds=feeds, outputs=cut, answers=answers)


def _cut(name: str, array: Array, ran: int, count: int, gathering: Gathering) -> Array:
    if name not in gathering.by_frame:
        return array
    if not array.ndim or len(array) != ran:
        raise EngineError(
            f"output {name!r} does not have a row a frame", found=list(array.shape), allowed=f"{ran} rows"
        )
    return array[:count]
