"""Every number of what was kept, against scikit-learn or a closed form."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from sklearn import metrics
from sklearn.preprocessing import label_binarize

from edgekit.artifact import to_json
from edgekit.distillation.kept import measure_kept
from edgekit.distillation.scoring import BINS, RECALLS
from edgekit.errors import DataError

CLASSES = 5


def made(count=400, classes=CLASSES, seed=0, edge=1.5):
    """Labels, and logits that favour them a little."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(classes, count, p=np.arange(1, classes + 1) / sum(range(1, classes + 1)))
    logits = rng.standard_normal((count, classes)) + edge * np.eye(classes)[labels]
    return labels, logits.astype(np.float32)


def softmax(logits):
    powers = np.exp(np.float64(logits) - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


@pytest.fixture(scope="module")
def found():
    labels, teacher = made(seed=1, edge=2.5)
    student = np.random.default_rng(2).standard_normal(teacher.shape).astype(np.float32) * 1.2 + teacher
    return labels, teacher, student, measure_kept(teacher, student, labels, ("a", "b", "c"))


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_all_scores_are_those_of_scikit_learn(found, role):
    labels, teacher, student, kept = found
    logits = teacher if role == "teacher" else student
    answers, scores = logits.argmax(axis=1), getattr(kept, role)
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(
        labels, answers, average="macro", zero_division=0
    )
    assert scores.accuracy == pytest.approx(metrics.accuracy_score(labels, answers), abs=1e-6)
    assert (scores.precision, scores.recall, scores.f1) == pytest.approx((precision, recall, f1), abs=2e-6)
    probabilities, one_hot = softmax(logits), label_binarize(labels, classes=range(CLASSES))
    assert scores.auc == pytest.approx(metrics.roc_auc_score(labels, probabilities, multi_class="ovr"), abs=1e-5)
    mean = metrics.average_precision_score(one_hot, probabilities, average="macro")
    assert scores.average_precision == pytest.approx(mean, abs=1e-5)


def test_classes_are_those_of_scikit_learn(found):
    labels, _, student, kept = found
    answers, probabilities = student.argmax(axis=1), softmax(student)
    rates = metrics.precision_recall_fscore_support(labels, answers, zero_division=0)
    for i, one in enumerate(kept.classes):
        mine = (one.student.precision, one.student.recall, one.student.f1)
        assert mine == pytest.approx([rate[i] for rate in rates[:3]], abs=1e-6)
        assert one.samples == rates[3][i]
        own = labels == i
        assert one.student.auc == pytest.approx(metrics.roc_auc_score(own, probabilities[:, i]), abs=1e-5)
        area = metrics.average_precision_score(own, probabilities[:, i])
        assert one.student.average_precision == pytest.approx(area, abs=1e-5)
    assert [one.name for one in kept.classes] == ["a", "b", "c", "class 3", "class 4"]


def calibration(probability, right):
    """Guo et al. 2017, equation 3, word for word."""
    error = 0.0
    for m in range(BINS):
        own = (probability >= m / BINS) & ((probability < (m + 1) / BINS) | (m == BINS - 1))
        if own.any():
            error += own.mean() * abs(right[own].mean() - probability[own].mean())
    return error


def test_calibration_errors_are_those_of_the_paper(found):
    labels, teacher, _, kept = found
    probabilities = softmax(teacher)
    right = (teacher.argmax(axis=1) == labels).astype(float)
    assert kept.teacher.calibration_error == pytest.approx(calibration(probabilities.max(axis=1), right), abs=1e-5)
    for i, one in enumerate(kept.classes):
        own = calibration(probabilities[:, i], (labels == i).astype(float))
        assert one.teacher.calibration_error == pytest.approx(own, abs=1e-5)


def test_the_bins_make_up_the_calibration_error(found):
    kept = found[3]
    for role in ("teacher", "student"):
        bins = getattr(kept.reliability, role)
        assert sum(one.samples for one in bins) == kept.samples
        error = sum(one.samples * abs(one.confidence - one.accuracy) for one in bins) / kept.samples
        assert error == pytest.approx(getattr(kept, role).calibration_error, abs=1e-5)


def test_one_who_is_always_sure_is_off_by_what_it_has_wrong():
    labels = np.array([0, 0, 0, 1])
    sure = np.tile([200.0, -200.0], (4, 1))
    kept = measure_kept(sure, sure, labels)
    assert kept.teacher.calibration_error == pytest.approx(0.25, abs=1e-6)
    (only,) = kept.reliability.teacher
    assert (only.samples, only.accuracy) == (4, 0.75)


def test_confusion_and_agreement(found):
    labels, teacher, student, kept = found
    assert np.array_equal(kept.confusion.student, metrics.confusion_matrix(labels, student.argmax(axis=1)))
    assert np.array_equal(kept.confusion.teacher, metrics.confusion_matrix(labels, teacher.argmax(axis=1)))
    same = teacher.argmax(axis=1) == student.argmax(axis=1)
    assert kept.agreement == pytest.approx(same.mean(), abs=1e-6)
    assert [one.agreement for one in kept.classes] == pytest.approx(
        [same[labels == i].mean() for i in range(CLASSES)], abs=1e-6
    )
    more = np.array(kept.confusion.student) - np.array(kept.confusion.teacher)
    np.fill_diagonal(more, 0)
    assert [one.student - one.teacher for one in kept.confused] == sorted(more[more > 0].tolist(), reverse=True)
    assert all(more[one.label, one.answer] == one.student - one.teacher for one in kept.confused)


def test_curves_are_the_best_precision_at_a_recall_or_above(found):
    labels, teacher, _, kept = found
    probabilities = softmax(teacher)
    assert len(RECALLS) <= 64
    for i, curve in enumerate(kept.curves.classes):
        precision, recall, _ = metrics.precision_recall_curve(labels == i, probabilities[:, i])
        best = [precision[:-1][recall[:-1] >= r - 1e-9].max() for r in RECALLS]
        assert curve.teacher == pytest.approx(best, abs=1e-5)
    assert kept.curves.teacher == pytest.approx(np.mean([c.teacher for c in kept.curves.classes], axis=0), abs=1e-5)


def test_what_lost_most_comes_first(found):
    labels, teacher, student, kept = found
    losses = [one.teacher.recall - one.student.recall for one in kept.classes]
    assert list(kept.lost_classes) == [i for i in np.argsort(losses)[::-1] if losses[i] > 0]
    assert kept.lost_samples
    sure, left = softmax(teacher), softmax(student)
    gaps = []
    for one in kept.lost_samples:
        assert teacher[one.index].argmax() == labels[one.index] == one.label
        assert student[one.index].argmax() == one.answer != one.label
        assert one.teacher == pytest.approx(sure[one.index, one.label], abs=1e-6)
        assert one.teacher > 0.5
        assert one.student == pytest.approx(left[one.index, one.label], abs=1e-6)
        gaps.append(one.student - one.teacher)
    assert gaps == sorted(gaps)
    assert len(kept.lost_samples) <= 12


def test_groups_have_their_own_accuracy():
    labels, teacher = made(seed=5)
    student = teacher.copy()
    groups = np.arange(len(labels)) % 3
    student[groups == 1] = -student[groups == 1]
    kept = measure_kept(teacher, student, labels, groups=groups, group_names=("x", "y", "z", "nobody"))
    right = teacher.argmax(axis=1) == labels
    assert [one.name for one in kept.groups] == ["x", "y", "z", "nobody"]
    assert [one.teacher for one in kept.groups[:3]] == pytest.approx(
        [right[groups == i].mean() for i in range(3)], abs=1e-6
    )
    assert kept.groups[0].student == kept.groups[0].teacher
    assert kept.groups[1].student < kept.groups[1].teacher
    assert (kept.groups[3].samples, kept.groups[3].teacher, kept.groups[3].agreement) == (0, None, None)
    assert kept.lost_groups == (1,)


# ---- what has no value ----


def test_a_constant_output_has_an_area_of_one_half_and_the_lowest_class():
    labels, teacher = made(count=100, seed=3)
    kept = measure_kept(teacher, np.zeros_like(teacher), labels)
    assert kept.student.auc == pytest.approx(0.5)
    assert kept.student.accuracy == pytest.approx((labels == 0).mean())
    assert kept.student.recall == pytest.approx(1 / CLASSES, abs=1e-6)
    assert kept.classes[0].student.precision == pytest.approx((labels == 0).mean(), abs=1e-6)
    assert kept.classes[1].student.precision is None
    assert kept.classes[1].student.f1 == 0.0
    assert kept.student.calibration_error == pytest.approx(abs((labels == 0).mean() - 0.2), abs=1e-6)


def test_a_class_without_samples_has_no_scores_and_is_in_no_mean():
    labels, teacher = made(count=200, seed=4)
    labels[labels == 2] = 3
    kept = measure_kept(teacher, teacher, labels)
    empty = kept.classes[2]
    assert empty.samples == 0
    assert empty.agreement is None
    assert set(to_json(empty.teacher).values()) == {None}
    assert kept.curves.classes[2].teacher is None
    present = [0, 1, 3, 4]
    answers = teacher.argmax(axis=1)
    expected = metrics.recall_score(labels, answers, labels=present, average="macro")
    assert kept.teacher.recall == pytest.approx(expected, abs=1e-6)
    areas = [metrics.roc_auc_score(labels == i, softmax(teacher)[:, i]) for i in present]
    assert kept.teacher.auc == pytest.approx(np.mean(areas), abs=1e-5)
    assert np.array(kept.confusion.teacher)[2].sum() == 0
    json.dumps(to_json(kept), allow_nan=False)


def test_where_all_are_one_class_there_is_no_area_and_no_curve():
    labels = np.zeros(6, np.int64)
    logits = np.random.default_rng(0).standard_normal((6, 3))
    kept = measure_kept(logits, logits, labels)
    assert kept.teacher.auc is kept.teacher.average_precision is kept.curves.teacher is None
    assert kept.classes[0].teacher.auc is None
    json.dumps(to_json(kept), allow_nan=False)


def test_many_classes_leave_out_what_no_one_reads():
    labels, logits = made(count=300, classes=120, seed=6, edge=9.0)
    kept = measure_kept(logits, logits[::-1].copy(), labels)
    assert kept.confusion is None
    assert kept.curves.classes == ()
    assert len(kept.curves.student) == len(RECALLS)
    assert len(kept.confused) == 30
    assert len(kept.lost_classes) == len(kept.lost_samples) == 12


def test_a_class_that_is_ruled_out_is_a_number_still():
    labels = np.array([0, 1, 0, 1])
    logits = np.array([[1.0, 0.0, -np.inf]] * 4)
    kept = measure_kept(logits, logits, labels)
    assert kept.teacher.accuracy == 0.5
    json.dumps(to_json(kept), allow_nan=False)


# ---- bad input ----

RIGHT = np.zeros((4, 3))
LABELS = np.array([0, 1, 2, 0])
NOT_NUMBERS = RIGHT.copy()
NOT_NUMBERS[2, 1] = np.nan


@pytest.mark.parametrize(
    ("arguments", "options", "message", "said"),
    [
        ((RIGHT, RIGHT[:3], LABELS), {}, "by their logits on the same samples", r"teacher \[4, 3\], student \[3, 3\]"),
        ((RIGHT[:, :1], RIGHT[:, :1], LABELS), {}, "by their logits", "two classes at least"),
        ((RIGHT[:0], RIGHT[:0], LABELS[:0]), {}, "by their logits", "one sample"),
        ((RIGHT, NOT_NUMBERS, LABELS), {}, "the student's logits are not numbers", "at sample 2"),
        ((RIGHT, np.full_like(RIGHT, -np.inf), LABELS), {}, "the student's logits are not numbers", "4 such"),
        ((RIGHT, RIGHT, LABELS + 1), {}, "a label is out of range", "3 at sample 2"),
        ((RIGHT, RIGHT, LABELS - 1), {}, "a label is out of range", "-1 at sample 0"),
        ((RIGHT, RIGHT, LABELS * 1.0), {}, "labels are one number a sample", "float64"),
        ((RIGHT, RIGHT, LABELS), {"groups": LABELS[:2]}, "groups are one number a sample", r"int64\[2\]"),
        ((RIGHT, RIGHT, LABELS), {"groups": LABELS, "group_names": ("a", "b")}, "a group is out of range", "0 to 1"),
        ((RIGHT, RIGHT, LABELS), {"groups": LABELS - 1}, "a group is out of range", "0 or more"),
    ],
)
def test_what_does_not_fit_is_told(arguments, options, message, said):
    with pytest.raises(DataError, match=message) as caught:
        measure_kept(*arguments, **options)
    assert re.search(said, str(caught.value))
