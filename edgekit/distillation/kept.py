"""What a student kept of its teacher on the test samples, and where it lost."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from edgekit.artifact import Array
from edgekit.distillation.kept_tree import (
    ClassCurve,
    Confused,
    Confusion,
    Curves,
    Kept,
    KeptClass,
    KeptGroup,
    LostSample,
    Reliability,
)
from edgekit.distillation.scoring import (
    RECALLS,
    Answers,
    answers_of,
    confusion_of,
    curves_of,
    mean_curve,
    reliability_of,
    rounded,
    score_all,
    score_classes,
)
from edgekit.errors import DataError

# A matrix of more classes is more than a report holds, and than anyone reads.
MOST_MATRIX = 100
MOST_CURVES = 30
MOST_CONFUSED = 30
MOST_LOST = 12
# What the teacher is sure of: more than half of its probability.
SURE = 0.5


def measure_kept(
    teacher: Array,
    student: Array,
    labels: Array,
    classes: Sequence[str] = (),
    *,
    groups: Array | None = None,
    group_names: Sequence[str] = (),
) -> Kept:
    """Compares a student with its teacher on labelled samples: all in all, by class, by group, sample by sample.

    Args:
        teacher: The teacher's logits on the samples, ``[n, classes]``.
        student: The student's.
        labels: Class numbers, integers ``[n]``.
        classes: Names of the classes; those without one are numbered.
        groups: Group numbers, integers ``[n]``; None: the samples have no groups.
        group_names: Names of the groups, likewise.

    Raises:
        DataError: The shapes do not fit, a logit is NaN or infinite, or a label or group is out of range.
    """
    _check_logits(teacher, student)
    count, width = teacher.shape
    _check_numbers(labels, count, width, "label")
    truth = torch.tensor(np.asarray(labels, np.int64))
    taught, learned = answers_of(teacher), answers_of(student)
    known = [score_classes(seen, truth) for seen in (taught, learned)]
    same = (taught.answers == learned.answers).numpy()
    names = _names(classes, width, "class")
    per_class = tuple(
        KeptClass(
            name=names[i],
            samples=int((labels == i).sum()),
            teacher=known[0][i],
            student=known[1][i],
            agreement=_share(same[labels == i]),
        )
        for i in range(width)
    )
    per_group = _per_group(taught, learned, labels, groups, group_names)
    matrices = [confusion_of(seen, truth) for seen in (taught, learned)]
    whole = Confusion(teacher=_rows(matrices[0]), student=_rows(matrices[1])) if width <= MOST_MATRIX else None
    return Kept(
        samples=count,
        teacher=score_all(taught, truth, known[0]),
        student=score_all(learned, truth, known[1]),
        agreement=rounded(same.mean()),
        classes=per_class,
        groups=per_group,
        confusion=whole,
        confused=_confused(*matrices),
        reliability=Reliability(teacher=reliability_of(taught, truth), student=reliability_of(learned, truth)),
        curves=_curves(taught, learned, labels, names),
        lost_classes=_lost([(kept.teacher.recall, kept.student.recall) for kept in per_class]),
        lost_groups=_lost([(kept.teacher, kept.student) for kept in per_group]),
        lost_samples=_lost_samples(taught, learned, np.asarray(labels, np.int64)),
    )


def _check_logits(teacher: Array, student: Array) -> None:
    if teacher.ndim != 2 or teacher.shape != student.shape or not len(teacher) or teacher.shape[1] < 2:
        raise DataError(
            "a student is compared with its teacher by their logits on the same samples",
            found=f"teacher {list(teacher.shape)}, student {list(student.shape)}",
            allowed="[n, classes] of both, with one sample and two classes at least",
        )
    for role, logits in (("teacher", teacher), ("student", student)):
        # A class that a model rules out has a logit of minus infinity.
        wrong = np.isnan(logits).any(axis=1) | np.isposinf(logits).any(axis=1) | np.isneginf(logits).all(axis=1)
        if wrong.any():
            at = int(np.flatnonzero(wrong)[0])
            raise DataError(
                f"the {role}'s logits are not numbers",
                found=f"{logits[at].tolist()[:8]} at sample {at} ({int(wrong.sum())} such samples)",
                allowed="numbers",
                fix="check the model's outputs on this sample",
            )


def _check_numbers(numbers: Array, count: int, most: int | None, what: str) -> None:
    """Labels and groups are integers ``[n]``, from 0 to below ``most``."""
    numbers = np.asarray(numbers)
    if numbers.shape != (count,) or numbers.dtype.kind not in "iu":
        raise DataError(
            f"{what}s are one number a sample",
            found=f"{numbers.dtype}{list(numbers.shape)}",
            allowed=f"integers [{count}]",
        )
    wrong = np.flatnonzero((numbers < 0) | (False if most is None else numbers >= most))
    if len(wrong):
        raise DataError(
            f"a {what} is out of range",
            found=f"{int(numbers[wrong[0]])} at sample {int(wrong[0])} ({len(wrong)} such samples)",
            allowed="0 or more" if most is None else f"0 to {most - 1}",
        )


def _names(given: Sequence[str], count: int, kind: str) -> list[str]:
    return [given[i] if i < len(given) else f"{kind} {i}" for i in range(count)]


def _share(flags: Array) -> float | None:
    return rounded(flags.mean()) if len(flags) else None


def _rows(matrix: Array) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(int(value) for value in row) for row in matrix)


def _per_group(
    taught: Answers, learned: Answers, labels: Array, groups: Array | None, group_names: Sequence[str]
) -> tuple[KeptGroup, ...]:
    if groups is None:
        return ()
    _check_numbers(groups, len(labels), len(group_names) or None, "group")
    answers = [seen.answers.numpy() for seen in (taught, learned)]
    names = _names(group_names, len(group_names) or int(groups.max()) + 1, "group")
    found = []
    for i, name in enumerate(names):
        own = groups == i
        found.append(
            KeptGroup(
                name=name,
                samples=int(own.sum()),
                teacher=_share(answers[0][own] == labels[own]),
                student=_share(answers[1][own] == labels[own]),
                agreement=_share(answers[0][own] == answers[1][own]),
            )
        )
    return tuple(found)


def _confused(teacher: Array, student: Array) -> tuple[Confused, ...]:
    more = student - teacher
    np.fill_diagonal(more, 0)
    labels, answers = np.nonzero(more > 0)
    order = np.lexsort((-student[labels, answers], -more[labels, answers]))[:MOST_CONFUSED]
    return tuple(
        Confused(
            label=int(label),
            answer=int(answer),
            teacher=int(teacher[label, answer]),
            student=int(student[label, answer]),
        )
        for label, answer in zip(labels[order], answers[order], strict=True)
    )


def _curves(taught: Answers, learned: Answers, labels: Array, names: Sequence[str]) -> Curves:
    truth = torch.tensor(np.asarray(labels, np.int64))
    teacher, student = (curves_of(seen, truth) for seen in (taught, learned))
    every = zip(names, teacher, student, strict=True)
    return Curves(
        recall=tuple(rounded(value) for value in RECALLS),
        teacher=mean_curve(teacher),
        student=mean_curve(student),
        classes=tuple(ClassCurve(name=name, teacher=one, student=other) for name, one, other in every)
        if len(names) <= MOST_CURVES
        else (),
    )


def _lost(rates: Sequence[tuple[float | None, float | None]]) -> tuple[int, ...]:
    """Where the second rate is below the first, the furthest first."""
    losses = [(i, one - other) for i, (one, other) in enumerate(rates) if one is not None and other is not None]
    return tuple(i for i, loss in sorted(losses, key=lambda found: -found[1])[:MOST_LOST] if loss > 0)


def _lost_samples(taught: Answers, learned: Answers, labels: Array) -> tuple[LostSample, ...]:
    rows = np.arange(len(labels))
    sure, left = (seen.probabilities.numpy()[rows, labels] for seen in (taught, learned))
    answers = learned.answers.numpy()
    lost = np.flatnonzero((taught.answers.numpy() == labels) & (answers != labels) & (sure > SURE))
    order = lost[np.argsort(left[lost] - sure[lost], kind="stable")][:MOST_LOST]
    return tuple(
        LostSample(
            index=int(i),
            label=int(labels[i]),
            answer=int(answers[i]),
            teacher=rounded(sure[i]),
            student=rounded(left[i]),
        )
        for i in order
    )
