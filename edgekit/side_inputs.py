"""What sides that are compared are fed with, and what of each is on the clock: the same work, wherever it is done."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from edgekit.artifact import Array, TensorSpec
from edgekit.errors import FeedError
from edgekit.processing_specs import Postprocessing, Preprocessing
from edgekit.profiling.in_numpy import InNumpy
from edgekit.runtime.files import read_npz
from edgekit.sides import Side, bundle_around
from edgekit.timing import golden_feeds, in_numpy_of

RANDOM_SAMPLES = 16
_SettingsT = TypeVar("_SettingsT")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Inputs:
    """What every side is fed with.

    Attributes:
        feeds: Samples stacked, by input; raw where the sides preprocess.
        in_numpy: What each side does in numpy on the clock.
        source: Where the samples come from, in words.
    """

    feeds: Mapping[str, Array]
    in_numpy: tuple[InNumpy, ...]
    source: str


def check_same_inputs(sides: Sequence[Side]) -> None:
    """Refuses sides that do not take the same samples.

    Raises:
        FeedError: Names, element types or shapes of inputs differ; names both.
    """
    live = [side for side in sides if side.artifact is not None]
    shared = _shared(live, _preprocessing)
    for side in live[1:]:
        first, second = _specs(live[0]), _specs(side)
        # Both take the raw sample, one of them by way of numpy.
        if shared is not None and _in_graph(live[0]) != _in_graph(side):
            first.pop(shared.input, None), second.pop(shared.input, None)
        if first.keys() != second.keys() or not all(_alike(first[name], second[name]) for name in first):
            raise FeedError(
                f"{side.path} and {live[0].path} do not take the same inputs",
                found="; ".join(map(str, second.values())),
                allowed="; ".join(map(str, first.values())),
                fix="compare models of the same inputs",
            )


def _shared(sides: Sequence[Side], of: Callable[[Side], _SettingsT | None]) -> _SettingsT | None:
    """What all sides have alike, wherever it is done; None: nothing, or they differ."""
    settings = [of(side) for side in sides]
    return settings[0] if all(each == settings[0] for each in settings) else None


def _preprocessing(side: Side) -> Preprocessing | None:
    """From raw samples to model tensors, in numpy or in the graph."""
    manifest = side.manifest
    if manifest is None:
        return None
    return manifest.in_graph.preprocessing if manifest.in_graph and _in_graph(side) else manifest.preprocessing


def _postprocessing(side: Side) -> Postprocessing | None:
    """From outputs to answers, likewise; what a graph leaves to numpy is the choice of the best."""
    manifest = side.manifest
    if manifest is None:
        return None
    graph = manifest.in_graph.postprocessing if manifest.in_graph else None
    left = manifest.postprocessing
    return left if graph is None else replace(graph, top=left.top if left else None)


def _in_graph(side: Side) -> bool:
    """Whether a side's graph preprocesses."""
    graph = side.manifest.in_graph if side.manifest else None
    return graph is not None and graph.preprocessing is not None


def _specs(side: Side) -> dict[str, TensorSpec]:
    assert side.artifact is not None
    return {spec.name: spec for spec in side.artifact.inputs}


def _alike(first: TensorSpec, second: TensorSpec) -> bool:
    return (
        first.dtype == second.dtype
        and len(first.shape) == len(second.shape)
        and all(
            a == b or isinstance(a, str) or isinstance(b, str) for a, b in zip(first.shape, second.shape, strict=True)
        )
    )


def inputs_of(sides: Sequence[Side], given: Path | None, batch: int) -> Inputs:
    """The samples that all sides are fed with: those given, else a bundle's golden ones, else random ones.

    Pre- and postprocessing are timed where all sides are bundles of the same, in numpy or in their graphs; otherwise
    model tensors are fed, and outputs are left as they are.

    Args:
        sides: What is measured.
        given: An ``.npz`` file of samples: raw ones where preprocessing is timed, otherwise model tensors.
        batch: Samples a query.

    Raises:
        DataError: The file cannot be read.
        FeedError: Its samples do not fit, or an open size has no sample to tell it.
    """
    live = [side for side in sides if side.artifact is not None]
    shared = _shared(live, _preprocessing)
    steps, untimed = _in_numpy(live, pre=shared is not None, post=_shared(live, _postprocessing) is not None)
    if given is not None:
        feeds = read_npz(given)
        names = list(_specs(live[0]))
        if len(feeds) == len(names) == 1:
            feeds = {names[0]: next(iter(feeds.values()))}
        return Inputs(feeds=feeds, in_numpy=steps, source=f"{given}{untimed}")
    for side in [*live, *filter(None, map(bundle_around, live))]:
        if side.manifest is None:
            continue
        raw_or_not = side.manifest if shared else replace(side.manifest, preprocessing=None)
        feeds = golden_feeds(side.path, raw_or_not)
        if shared is not None or _fit(feeds, live):
            return Inputs(feeds=feeds, in_numpy=steps, source=f"golden samples of {side.path}{untimed}")
    return Inputs(feeds=_random_feeds(live, batch), in_numpy=steps, source="random samples: no bundle has any")


def _in_numpy(live: Sequence[Side], *, pre: bool, post: bool) -> tuple[tuple[InNumpy, ...], str]:
    """What each side does in numpy on the clock, and what is left out of it, in words."""
    found = [InNumpy() if side.manifest is None else in_numpy_of(side.manifest) for side in live]
    left_out = [
        name
        for name, timed, given in (
            ("preprocessing", pre, [steps.preprocessing for steps in found]),
            ("postprocessing", post, [steps.postprocessing for steps in found]),
        )
        if not timed and any(given)
    ]
    verb = "is" if len(left_out) == 1 else "are"
    said = f"; {' and '.join(left_out)} {verb} not timed, for the sides do not share it" if left_out else ""
    kept = tuple(
        replace(
            steps,
            preprocessing=steps.preprocessing if pre else None,
            postprocessing=steps.postprocessing if post else None,
        )
        for steps in found
    )
    return kept, said


def _fit(feeds: Mapping[str, Array], live: Sequence[Side]) -> bool:
    """Whether stacked samples fit all sides, the first axis aside."""
    specs = _specs(live[0])
    return feeds.keys() == specs.keys() and all(
        str(array.dtype) == specs[name].dtype
        and array.ndim == len(specs[name].shape)
        and all(
            isinstance(dim, str) or dim == size
            for dim, size in zip(specs[name].shape[1:], array.shape[1:], strict=True)
        )
        for name, array in feeds.items()
    )


def _random_feeds(live: Sequence[Side], batch: int) -> dict[str, Array]:
    rng = np.random.default_rng(0)
    feeds: dict[str, Array] = {}
    for spec in _specs(live[0]).values():
        alike = [_specs(side)[spec.name].shape for side in live]
        sizes = [next((dim for dim in dims if isinstance(dim, int)), None) for dims in zip(*alike, strict=True)]
        if not sizes or None in sizes[1:]:
            raise FeedError(
                f"{live[0].path}: random samples cannot be made for input {spec.name!r}",
                found=str(spec),
                allowed="inputs of known sizes, the first axis aside",
                fix="give samples with --input X.npz",
            )
        shape = [RANDOM_SAMPLES * batch, *(size for size in sizes[1:] if size is not None)]
        drawn = rng.standard_normal(shape) if spec.dtype.startswith("float") else rng.integers(0, 2, shape)
        feeds[spec.name] = drawn.astype(spec.dtype)
    return feeds
