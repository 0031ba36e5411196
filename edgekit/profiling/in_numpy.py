"""What is done in numpy around a run: from a raw sample to model tensors, and from outputs to answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgekit.artifact import Array
from edgekit.processing_specs import Postprocessing, Preprocessing, parse_preprocessing
from edgekit.profiling.clock import Step
from edgekit.runtime.postprocessing import postprocess
from edgekit.runtime.preprocessing import preprocess


@dataclass(frozen=True, slots=True, kw_only=True)
class InNumpy:
    """What of an artifact's work is done in numpy; the application clock has it in.

    Attributes:
        preprocessing: From raw samples to model tensors; None: the samples are model tensors.
        postprocessing: From outputs to answers; None: outputs are the answers.
        labels: Class names, in order, by which the best are told.
    """

    preprocessing: Preprocessing | None = None
    postprocessing: Postprocessing | None = None
    labels: tuple[str, ...] = ()


NOTHING = InNumpy()


def parse_in_numpy(raw: Mapping[str, Any]) -> InNumpy:
    """Builds it from its JSON form."""
    pre, post = raw["preprocessing"], raw["postprocessing"]
    return InNumpy(
        preprocessing=None if pre is None else parse_preprocessing(pre),
        postprocessing=None if post is None else Postprocessing(**post),
        labels=tuple(raw["labels"]),
    )


def before(steps: InNumpy) -> Step | None:
    """What turns a raw query into feeds, as :meth:`edgekit.runtime.bundle.Bundle.preprocess`; None: nothing to do."""
    settings = steps.preprocessing
    if settings is None:
        return None

    def prepare(raw: Mapping[str, Array]) -> Mapping[str, Array]:
        return {**raw, settings.input: preprocess(raw[settings.input], settings)}

    return prepare


def after(steps: InNumpy) -> Step | None:
    """What turns outputs into answers, as :meth:`edgekit.runtime.bundle.Bundle.postprocess`; None: nothing to do."""
    settings = steps.postprocessing
    if settings is None:
        return None

    def answer(outputs: Mapping[str, Array]) -> Mapping[str, Array]:
        return postprocess(outputs, settings, steps.labels)

    return answer
