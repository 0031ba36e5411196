"""What is done to samples before a model and to outputs after, as a manifest tells it: dataclasses and JSON only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ACTIVATIONS = ["none", "softmax", "sigmoid"]  # a list, because what is looked up may not be hashable


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocessing:
    """From a raw sample to a model tensor; travels in the manifest.

    A raw batch is resized, scaled (``x * scale``), normalised (``(x - mean) / std`` per channel) and
    laid out for the model, in that order.

    Attributes:
        input: The model input it feeds.
        layout: Axes of a raw batch: ``NHWC``, ``NCHW``, ``NHW`` (no channel axis) or ``any`` (kept as is).
        model_layout: Axes the model takes, ``NCHW`` or ``NHWC``.
        scale: Factor applied to raw values.
        mean: Per-channel mean after scaling (one value: all channels).
        std: Per-channel standard deviation after scaling.
        resize: Height and width in pixels, or None to keep the size.
    """

    input: str = "input"
    layout: str = "any"
    model_layout: str = "NCHW"
    scale: float = 1.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    resize: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Postprocessing:
    """From a model's output to scores; travels in the manifest.

    Attributes:
        output: The model output it reads.
        activation: ``none``, ``softmax`` or ``sigmoid``.
        axis: The axis of classes; 0 is the batch.
        top: How many of the best are kept; None: all, in order of classes.
    """

    output: str = "output"
    activation: str = "none"
    axis: int = 1
    top: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InGraph:
    """What the artifact's own graph does, so that nobody else may: it takes raw samples, or gives scores."""

    preprocessing: Preprocessing | None = None
    postprocessing: Postprocessing | None = None


def parse_preprocessing(raw: Mapping[str, Any]) -> Preprocessing:
    """Builds preprocessing from its JSON form."""
    resize = raw["resize"]
    return Preprocessing(
        **dict(raw)
        | {"mean": tuple(raw["mean"]), "std": tuple(raw["std"])}
        | {"resize": None if resize is None else (int(resize[0]), int(resize[1]))}
    )


def parse_processing(raw: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest's fields of preprocessing, postprocessing and what the graph does, from their JSON forms."""
    pre, post, graph = raw["preprocessing"], raw.get("postprocessing"), raw.get("in_graph")
    found: dict[str, Any] = {"preprocessing": None if pre is None else parse_preprocessing(pre)}
    if post is not None:
        found["postprocessing"] = Postprocessing(**post)
    if graph is not None:
        pre, post = graph["preprocessing"], graph["postprocessing"]
        found["in_graph"] = InGraph(
            preprocessing=None if pre is None else parse_preprocessing(pre),
            postprocessing=None if post is None else Postprocessing(**post),
        )
    return found
