"""One classifier's scores on labelled samples; the arithmetic is that of torchmetrics.

Detlefsen et al. 2022, "TorchMetrics - Measuring Reproducibility in PyTorch", Journal of Open Source Software 7(70).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchmetrics.functional.classification import (
    binary_auroc,
    binary_average_precision,
    binary_calibration_error,
    binary_precision_recall_curve,
    multiclass_accuracy,
    multiclass_confusion_matrix,
    multiclass_f1_score,
    multiclass_precision,
    multiclass_recall,
)

from edgekit.artifact import Array
from edgekit.distillation.kept_tree import Bin, ClassScores, Scores

BINS = 15
# Where curves are given: 51 of the recalls from 0 to 1.
RECALLS = np.linspace(0.0, 1.0, 51)
# torchmetrics divides in float32: a recall may be this much below what it is.
_ROUNDING = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answers:
    """What a classifier says of samples.

    Attributes:
        answers: The class of the largest output, the lowest of equals; int64 ``[n]``.
        probabilities: Softmax of the logits, float64 ``[n, classes]``, a little below 1 at most.
    """

    answers: Tensor
    probabilities: Tensor

    @property
    def classes(self) -> int:
        """How many classes there are."""
        return int(self.probabilities.shape[1])

    @property
    def confidence(self) -> Tensor:
        """The probability given to each answer, ``[n]``."""
        return self.probabilities.gather(1, self.answers[:, None])[:, 0]


def answers_of(logits: Array) -> Answers:
    """What logits say.

    Args:
        logits: ``[n, classes]``, no NaN and no positive infinity.
    """
    probabilities = torch.softmax(torch.tensor(np.asarray(logits, np.float64)), dim=1)
    # torchmetrics gives a confidence of exactly 1 a bin of its own.
    below_one = float(np.nextafter(np.float32(1.0), np.float32(0.0)))
    # torch's argmax does not say which of equals it takes.
    return Answers(answers=torch.tensor(np.argmax(logits, axis=1)), probabilities=probabilities.clamp(0.0, below_one))


def accuracy_of(answers: Tensor, labels: Tensor, classes: int) -> float:
    """Share of answers that are the labels', both int64 ``[n]``, n at least 1."""
    return rounded(multiclass_accuracy(answers, labels, classes, average="micro", validate_args=False))


def confusion_of(seen: Answers, labels: Tensor) -> Array:
    """How often each class (row) is given each answer (column), int64 ``[classes, classes]``."""
    counts: Array = multiclass_confusion_matrix(seen.answers, labels, seen.classes, validate_args=False).numpy()
    return counts


def score_classes(seen: Answers, labels: Tensor) -> list[ClassScores]:
    """Every class against the rest.

    The calibration error of a class is that of its own probability over all samples (Nixon et al. 2019, "Measuring
    Calibration in Deep Learning", the static calibration error before its mean).

    Args:
        seen: What the classifier says.
        labels: int64 ``[n]``.
    """
    given, named = ((torch.bincount(each, minlength=seen.classes)) for each in (labels, seen.answers))
    options = {"average": None, "zero_division": 0.0, "validate_args": False}
    rates = [
        rate(seen.answers, labels, seen.classes, **options)
        for rate in (multiclass_precision, multiclass_recall, multiclass_f1_score)
    ]
    found = []
    for i in range(seen.classes):
        if not given[i]:
            found.append(
                ClassScores(
                    precision=None, recall=None, f1=None, auc=None, average_precision=None, calibration_error=None
                )
            )
            continue
        probability, own = seen.probabilities[:, i].contiguous(), (labels == i).long()
        others = int(given[i]) < len(labels)
        precision, recall, f1 = (rounded(rate[i]) for rate in rates)
        found.append(
            ClassScores(
                precision=precision if named[i] else None,
                recall=recall,
                f1=f1,
                auc=rounded(binary_auroc(probability, own, validate_args=False)) if others else None,
                average_precision=rounded(binary_average_precision(probability, own, validate_args=False))
                if others
                else None,
                calibration_error=_calibration_error(probability, own),
            )
        )
    return found


def score_all(seen: Answers, labels: Tensor, classes: Sequence[ClassScores]) -> Scores:
    """All samples together; means are over the classes that have samples.

    The calibration error is the expected one of Guo et al. 2017, "On Calibration of Modern Neural Networks".

    Args:
        seen: What the classifier says.
        labels: int64 ``[n]``.
        classes: Its scores class by class, of :func:`score_classes`.
    """
    present = [scores for scores in classes if scores.recall is not None]
    return Scores(
        accuracy=accuracy_of(seen.answers, labels, seen.classes),
        precision=rounded(np.mean([scores.precision or 0.0 for scores in present])),
        recall=rounded(np.mean([scores.recall or 0.0 for scores in present])),
        f1=rounded(np.mean([scores.f1 or 0.0 for scores in present])),
        auc=_mean([scores.auc for scores in present]),
        average_precision=_mean([scores.average_precision for scores in present]),
        calibration_error=_calibration_error(seen.confidence, (seen.answers == labels).long()),
    )


def reliability_of(seen: Answers, labels: Tensor) -> tuple[Bin, ...]:
    """How right the answers of each confidence are: bins of equal width, those that have samples.

    DeGroot & Fienberg 1983, "The Comparison and Evaluation of Forecasters", The Statistician 32:12-22.
    """
    confidence, right = seen.confidence.numpy(), (seen.answers == labels).numpy()
    places = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    return tuple(
        Bin(samples=int(own.sum()), confidence=rounded(confidence[own].mean()), accuracy=rounded(right[own].mean()))
        for own in (places == i for i in range(BINS))
        if own.any()
    )


def curves_of(seen: Answers, labels: Tensor) -> list[tuple[float, ...] | None]:
    """Precision at each of ``RECALLS``, class by class; None for a class without samples or without others.

    Interpolated as in Manning, Raghavan & Schütze 2008, "Introduction to Information Retrieval", 8.4: the highest
    precision at this recall or above.
    """
    found: list[tuple[float, ...] | None] = []
    for i in range(seen.classes):
        own = (labels == i).long()
        if not 0 < int(own.sum()) < len(labels):
            found.append(None)
            continue
        precision, recall, _ = binary_precision_recall_curve(
            seen.probabilities[:, i].contiguous(), own, validate_args=False
        )
        # Recall falls along the curve; its last point, a precision of 1 at a recall of 0, is no sample's.
        highest = np.maximum.accumulate(precision.numpy()[:-1])
        last = np.searchsorted(-recall.numpy()[:-1], -RECALLS + _ROUNDING, side="right") - 1
        found.append(tuple(rounded(value) for value in highest[last]))
    return found


def mean_curve(curves: Sequence[tuple[float, ...] | None]) -> tuple[float, ...] | None:
    """The mean of the curves that there are; None where there is none."""
    known = [curve for curve in curves if curve is not None]
    return tuple(rounded(value) for value in np.mean(known, axis=0)) if known else None


def rounded(value: object) -> float:
    """A number as JSON keeps it: torchmetrics' own are float32."""
    return round(float(value), 6)  # type: ignore[arg-type]  # a tensor or a numpy scalar


def _calibration_error(probability: Tensor, right: Tensor) -> float:
    return rounded(binary_calibration_error(probability, right, n_bins=BINS, validate_args=False))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return rounded(np.mean(known)) if known else None
