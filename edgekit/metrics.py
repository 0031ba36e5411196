"""Task scores, and the one interval of the drop between a reference and an artifact.

A metric is a callable ``(outputs, targets)``; higher is better. ``outputs`` is the model's output ``[n, …]``, or a
dict of them by name when there are several. It returns one score a sample (``[n]``, compared in pairs) or a single
number for the whole set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from edgekit._lookup import resolve
from edgekit.artifact import Array
from edgekit.errors import DataError, EdgeKitError, ParityError, SpecError

Outputs = Array | Mapping[str, Array]
Metric = Callable[[Any, Array], Any]

POINT = 0.01  # of score
RESAMPLES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """How much worse an artifact is than its reference, in points (0.01 of score); below zero: better.

    Attributes:
        points: The drop found.
        low: Lower end of its interval.
        high: Upper end of its interval.
        n: Samples.
        disagreements: Samples on which the scores differ; None where the metric has no score a sample.
        confidence: Coverage of the interval, e.g. 0.95.
    """

    points: float
    low: float
    high: float
    n: int
    disagreements: int | None
    confidence: float


def accuracy(outputs: Outputs, targets: Array) -> Array:
    """1 where the largest output is the label's, else 0; outputs ``[n, classes]``, targets ``[n]``."""
    return top(outputs, targets, 1)


def top5(outputs: Outputs, targets: Array) -> Array:
    """1 where the label is among the five largest outputs, else 0; outputs ``[n, classes]``, targets ``[n]``."""
    return top(outputs, targets, 5)


def top(outputs: Outputs, targets: Array, k: int) -> Array:
    """1 where fewer than ``k`` classes come before the label, else 0; among equal scores the lower class is first.

    Raises:
        DataError: The outputs are not class scores, or the targets are not labels of these classes.
    """
    if not isinstance(outputs, np.ndarray) or outputs.ndim != 2 or outputs.shape[1] < 2:
        raise DataError(
            "accuracy needs class scores",
            found=_describe(outputs),
            allowed="one output [n, classes] with two classes or more",
            fix='name a metric of your own in the recipe: metric = "package.module:function"',
        )
    if targets.ndim != 1 or targets.dtype.kind not in "iu":
        raise DataError(
            "accuracy needs class labels", found=f"{targets.dtype}{list(targets.shape)}", allowed="integers [n]"
        )
    classes = outputs.shape[1]
    if targets.size and (targets.min() < 0 or targets.max() >= classes):
        wrong = int(np.flatnonzero((targets < 0) | (targets >= classes))[0])
        raise DataError(
            "a label is not one of the model's classes",
            found=f"{int(targets[wrong])} at sample {wrong}",
            allowed=f"0 to {classes - 1} (the model has {classes} outputs)",
            fix="check that the model and the data count the same classes",
        )
    own = np.take_along_axis(outputs, targets[:, None], axis=1)
    before = (outputs > own) | ((outputs == own) & (np.arange(classes) < targets[:, None]))
    scores: Array = (before.sum(axis=1) < k).astype(np.float64)
    return scores


METRICS: dict[str, Metric] = {"accuracy": accuracy, "top5": top5}


def of_first(metric: Metric) -> Metric:
    """The same metric of a model's first output, where it has several."""

    @wraps(metric)
    def scored(outputs: Outputs, targets: Array) -> Any:
        return metric(next(iter(outputs.values())) if isinstance(outputs, Mapping) else outputs, targets)

    return scored


def load_metric(name: str, base: Path | None = None, where: str | None = None) -> Metric:
    """Finds a metric by name or as ``module:attr`` of the user's own.

    Raises:
        UnknownName: There is no metric of this name.
        SpecError: The module or attribute is missing, or is not callable.
    """
    metric: Any = resolve(name, METRICS, kind="metric", base=base, where=where)
    if not callable(metric):
        prefix = f"{where}: " if where else ""
        raise SpecError(
            f"{prefix}metric {name!r} cannot be called",
            found=type(metric).__name__,
            allowed="a function (outputs, targets) -> scores",
        )
    found: Metric = metric
    return found


def score(metric: Metric, outputs: Outputs, targets: Array) -> Array | float:
    """Scores outputs, and checks what the metric returns.

    Args:
        metric: The metric.
        outputs: One output ``[n, …]``, or outputs by name (a single one is handed over bare).
        targets: One row a sample.

    Returns:
        float64 ``[n]``, or a float for a metric of the whole set.

    Raises:
        ParityError: An output holds NaN.
        DataError: Outputs and targets differ in number, or do not suit the metric.
        SpecError: The metric fails, or returns something else than finite scores.
    """
    bare = _bare(outputs)
    n = _count(bare)
    name_of_metric = getattr(metric, "__name__", "metric")
    if len(targets) != n:
        raise DataError("outputs and targets differ in number", found=f"{n} outputs, {len(targets)} targets")
    for name, array in (bare if isinstance(bare, Mapping) else {"output": bare}).items():
        if array.dtype.kind == "f" and np.isnan(array).any():
            raise ParityError(f"the model's {name!r} holds NaN", fix="check the model's numbers before its accuracy")
    try:
        found = metric(bare, targets)
    except EdgeKitError:
        raise
    except Exception as exc:  # whatever the user's own code raises
        raise SpecError(
            f"the metric {name_of_metric!r} failed",
            found=f"{type(exc).__name__}: {exc}",
            fix="--debug shows where in your code",
        ) from exc
    return _checked(found, n, name_of_metric)


def _checked(found: Any, n: int, name: str) -> Array | float:
    problem = f"the metric {name!r} returned something else than scores"
    fix = "return one score a sample, as an array [n], or one number"
    try:
        scores = np.asarray(found.detach().cpu() if hasattr(found, "detach") else found, dtype=np.float64)
    except (TypeError, ValueError) as exc:
        raise SpecError(problem, found=type(found).__name__, allowed=f"numbers [{n}], or one number", fix=fix) from exc
    if scores.shape not in {(n,), ()}:
        raise SpecError(problem, found=f"shape {list(scores.shape)}", allowed=f"shape [{n}], or one number", fix=fix)
    if not np.isfinite(scores).all():
        raise SpecError(f"the metric {name!r} returned NaN or infinity", found=str(scores), allowed="finite scores")
    return scores if scores.ndim else float(scores)


def agreement(outputs: Outputs, reference: Outputs) -> Array | None:
    """1 where the largest output is the reference's too, else 0; None when they are not class scores.

    Args:
        outputs: ``[n, classes]``, two classes or more.
        reference: The same from the reference.

    Raises:
        DataError: Both are class scores, of different shapes.
    """
    mine, theirs = _bare(outputs), _bare(reference)
    if isinstance(mine, Mapping) or isinstance(theirs, Mapping):
        return None
    if mine.ndim != 2 or theirs.ndim != 2 or mine.shape[1] < 2:
        return None
    if mine.shape != theirs.shape:
        raise DataError("outputs and reference differ in shape", found=list(mine.shape), allowed=list(theirs.shape))
    same: Array = (mine.argmax(axis=1) == theirs.argmax(axis=1)).astype(np.float64)
    return same


def paired_drop(reference_scores: Array, artifact_scores: Array, confidence: float = 0.95) -> Drop:
    """The drop of a mean score and its two-sided interval, from scores of the same samples.

    Scores of 0 and 1 get Tango's asymptotic score interval for the paired difference of proportions (Tango 1998,
    "Equivalence test and confidence interval for the difference in proportions for the paired-sample design",
    Statistics in Medicine 17:891-908). It is valid where nothing disagrees: its ends are then ±z²/(n + z²).

    Other scores get Student's interval of the differences after two pseudo-samples are added at each end of the
    range that a difference can have, as two successes and two failures are added in Agresti & Coull 1998,
    "Approximate is better than 'exact'", The American Statistician 52:119-126. The range is that of the scores, and
    at least 1.

    Args:
        reference_scores: ``[n]``.
        artifact_scores: ``[n]``, of the same samples in the same order.
        confidence: Coverage, e.g. 0.95.

    Raises:
        DataError: There are no scores, or not the same number of them.
    """
    reference = np.asarray(reference_scores, dtype=np.float64)
    artifact = np.asarray(artifact_scores, dtype=np.float64)
    if reference.ndim != 1 or reference.shape != artifact.shape or not len(reference):
        raise DataError(
            "a drop needs scores of the same samples",
            found=f"reference {list(reference.shape)}, artifact {list(artifact.shape)}",
            allowed="two arrays [n], n at least 1",
        )
    worse = reference - artifact
    n = len(worse)
    both = np.concatenate([reference, artifact])
    if np.isin(both, (0.0, 1.0)).all():
        low, high = _tango(int((worse > 0).sum()), int((worse < 0).sum()), n, confidence)
    else:
        span = max(1.0, float(both.max() - both.min()))
        padded = np.concatenate([worse, [span, span, -span, -span]])
        half = _student(confidence, len(padded) - 1) * padded.std(ddof=1) / np.sqrt(len(padded))
        low, high = padded.mean() - half, padded.mean() + half
        low, high = min(low, worse.mean()), max(high, worse.mean())
    return Drop(
        points=float(worse.mean()) / POINT,
        low=float(low) / POINT,
        high=float(high) / POINT,
        n=n,
        disagreements=int(np.count_nonzero(worse)),
        confidence=confidence,
    )


def paired_drop_aggregate(
    metric: Metric,
    reference_outputs: Outputs,
    artifact_outputs: Outputs,
    targets: Array,
    confidence: float = 0.95,
    seed: int = 0,
) -> Drop:
    """The drop of a metric of the whole set, with a percentile bootstrap interval.

    Samples are drawn with replacement, the same for both (Efron & Tibshirani 1993, "An Introduction to the Bootstrap",
    chapter 13). A bootstrap of agreeing outputs would prove a drop of exactly zero, so the interval is never narrower
    than that of a paired 0/1 score without disagreements: ±z²/(n + z²) around the drop found.

    Args:
        metric: Returns one number for the whole set.
        reference_outputs: The reference's, ``[n, …]``.
        artifact_outputs: The artifact's, of the same samples in the same order.
        targets: One row a sample.
        confidence: Coverage, e.g. 0.95.
        seed: Of the draws.

    Raises:
        SpecError: The metric returns scores a sample, or has no value on some draw.
    """
    reference, artifact = _bare(reference_outputs), _bare(artifact_outputs)
    n = _count(reference)

    def drop(rows: Array | slice) -> float:
        both = [score(metric, _rows(outputs, rows), targets[rows]) for outputs in (reference, artifact)]
        if not all(isinstance(value, float) for value in both):
            raise SpecError("the metric has a score a sample", fix="use paired_drop, which is narrower")
        return float(both[0]) - float(both[1])

    found = drop(slice(None))
    rng = np.random.default_rng(seed)
    drops = [drop(rng.integers(0, n, n)) for _ in range(RESAMPLES)]
    low, high = np.quantile(drops, [(1 - confidence) / 2, (1 + confidence) / 2])
    least = _tango(0, 0, n, confidence)[1]
    same = agreement(artifact, reference)
    return Drop(
        points=found / POINT,
        low=min(float(low), found - least) / POINT,
        high=max(float(high), found + least) / POINT,
        n=n,
        disagreements=None if same is None else int((same == 0).sum()),
        confidence=confidence,
    )


def _tango(worse: int, better: int, n: int, confidence: float) -> tuple[float, float]:
    """Ends of Tango's interval for ``(worse - better) / n``, by bisection of his score statistic."""
    z = _normal(confidence)

    def statistic(delta: float) -> float:
        # The nuisance probability is the maximum-likelihood estimate under the difference delta.
        b = -worse - better + (2 * n - worse + better) * delta
        c = -better * delta * (1 - delta)
        nuisance = (np.sqrt(max(b * b - 8 * n * c, 0.0)) - b) / (4 * n)
        variance = n * (2 * nuisance + delta * (1 - delta))
        gap = worse - better - n * delta
        return float(gap / np.sqrt(variance)) if variance > 0 else float(np.sign(gap)) * np.inf

    estimate = (worse - better) / n
    return _bisect(statistic, z, -1.0, estimate), _bisect(statistic, -z, estimate, 1.0)


def _bisect(falling: Callable[[float], float], level: float, low: float, high: float) -> float:
    """Where a falling function crosses ``level``."""
    for _ in range(60):
        middle = (low + high) / 2
        if falling(middle) > level:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _normal(confidence: float) -> float:
    return NormalDist().inv_cdf(0.5 + confidence / 2)


def _student(confidence: float, freedom: int) -> float:
    """Two-sided quantile of Student's t (Abramowitz & Stegun 1964, 26.7.5)."""
    z = _normal(confidence)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return z + sum((term / float(freedom) ** power for power, term in enumerate(terms, start=1)), start=0.0)


def _bare(outputs: Outputs) -> Outputs:
    return next(iter(outputs.values())) if isinstance(outputs, Mapping) and len(outputs) == 1 else outputs


def _rows(outputs: Outputs, rows: Array | slice) -> Outputs:
    if isinstance(outputs, Mapping):
        return {name: array[rows] for name, array in outputs.items()}
    return outputs[rows]


def _count(outputs: Outputs) -> int:
    return len(next(iter(outputs.values())) if isinstance(outputs, Mapping) else outputs)


def _describe(outputs: Outputs) -> str:
    if isinstance(outputs, np.ndarray):
        return f"{outputs.dtype}{list(outputs.shape)}"
    return ", ".join(f"{name}: {array.dtype}{list(array.shape)}" for name, array in outputs.items())
