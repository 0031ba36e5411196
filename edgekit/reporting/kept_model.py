"""What a student kept of its teacher, as types: a part of a run's report.

They are those of :mod:`edgekit.distillation.kept_tree`. Rates are 0 to 1; null: there is nothing to tell it by.
"""

from __future__ import annotations

from typing import Literal

from typing_extensions import NotRequired, TypedDict

from edgekit.reporting.evidence import record


@record
class Scores(TypedDict):
    """One model on all test samples; means are over the classes that have samples."""

    accuracy: float
    """Share of samples whose largest output is their label's, 0 to 1."""
    precision: float
    """Mean precision, 0 to 1; 0 for a class that the model never names."""
    recall: float
    """Mean recall, 0 to 1."""
    f1: float
    """Mean F1, 0 to 1."""
    auc: float | None
    """Mean area under the ROC curve, each class against the rest, 0 to 1; null where all samples are of one class."""
    average_precision: float | None
    """Mean area under the precision-recall curve, 0 to 1; null likewise."""
    calibration_error: float
    """Expected calibration error of the answers, 0 to 1, in 15 bins."""


@record
class ClassScores(TypedDict):
    """One model on one class against the rest; all null for a class without samples."""

    precision: float | None
    """0 to 1; null where the model never names the class."""
    recall: float | None
    """Share of the class's samples that it has right, 0 to 1."""
    f1: float | None
    """Harmonic mean of both, 0 to 1."""
    auc: float | None
    """Area under the ROC curve, 0 to 1; null where every sample is of this class."""
    average_precision: float | None
    """Area under the precision-recall curve, 0 to 1; null likewise."""
    calibration_error: float | None
    """Calibration error of the class's own probability over all samples, 0 to 1, in 15 bins."""


@record
class KeptClass(TypedDict):
    """One class."""

    name: str
    samples: int
    """Test samples of it."""
    teacher: ClassScores
    student: ClassScores
    agreement: float | None
    """Share of its samples that both give the same answer to, 0 to 1."""


@record
class KeptGroup(TypedDict):
    """One group of samples, such as a language or a domain."""

    name: str
    samples: int
    """Test samples of it."""
    teacher: float | None
    """The teacher's accuracy, 0 to 1."""
    student: float | None
    """The student's accuracy, 0 to 1."""
    agreement: float | None
    """Share of its samples that both give the same answer to, 0 to 1."""


@record
class Confusion(TypedDict):
    """How often each class (row, the label) is given each answer (column)."""

    teacher: list[list[int]]
    """Samples, by label and answer."""
    student: list[list[int]]
    """Samples, by label and answer."""


@record
class Confused(TypedDict):
    """A wrong answer that the student gives more often than the teacher."""

    label: int
    """Number of the class, from 0."""
    answer: int
    """Number of the class it is taken for."""
    teacher: int
    """Samples that the teacher takes so."""
    student: int
    """Samples that the student takes so."""


@record
class Bin(TypedDict):
    """The answers of about one confidence."""

    samples: int
    """How many."""
    confidence: float
    """Their mean confidence, 0 to 1."""
    accuracy: float
    """Share of them that are right, 0 to 1."""


@record
class Reliability(TypedDict):
    """How right the answers of each confidence are; bins without samples are left out."""

    teacher: list[Bin]
    student: list[Bin]


@record
class ClassCurve(TypedDict):
    """The precision of one class at every recall of the curves; null for a class without samples or without others."""

    name: str
    teacher: list[float] | None
    student: list[float] | None


@record
class Curves(TypedDict):
    """Precision over recall: the best precision at this recall or a higher one."""

    recall: list[float]
    """The recalls that all curves are given at."""
    teacher: list[float] | None
    """Mean precision of the classes, at every recall; null where all samples are of one class."""
    student: list[float] | None
    """Likewise."""
    classes: list[ClassCurve]
    """Every class; empty where there are more than 30."""


@record
class LostSample(TypedDict):
    """A sample that the teacher had right, with more than half of its probability, and the student wrong."""

    index: int
    """Its place in the test samples, from 0."""
    label: int
    """Number of its class, from 0."""
    answer: int
    """Number of the class that the student takes it for."""
    teacher: float
    """Probability that the teacher gives to its class, 0 to 1."""
    student: float
    """Probability that the student gives to its class, 0 to 1."""


@record
class Corrupted(TypedDict):
    """Accuracy under one corruption, 0 to 1."""

    kind: str
    """Which."""
    teacher: list[float]
    """The teacher's at every severity, the mildest first."""
    student: list[float]
    """The student's."""
    teacher_mean: float
    """Mean over the severities, 0 to 1."""
    student_mean: float
    """Mean over the severities, 0 to 1."""


@record
class Corruption(TypedDict):
    """Accuracy of both under noise and corruption: EdgeKit's own kinds, not those of ImageNet-C."""

    samples: int
    """Test samples that were drawn for it."""
    teacher_clean: float
    """The teacher's accuracy on them as they are, 0 to 1."""
    student_clean: float
    """The student's accuracy, likewise."""
    teacher_mean: float
    """The teacher's mean accuracy over all kinds, 0 to 1."""
    student_mean: float
    """The student's mean accuracy over all kinds, 0 to 1."""
    kinds: list[Corrupted]


@record
class KeptTask(TypedDict):
    """A further task of both models on the test samples."""

    name: str
    """Its output."""
    kind: Literal["classes", "values"]
    """What it is to give."""
    teacher: float | None
    """Accuracy of classes, 0 to 1; root mean square error of values; null where the teacher lacks the output."""
    student: float
    """Likewise."""


@record
class Kept(TypedDict):
    """What a student kept of its teacher on the test samples."""

    samples: int
    """Test samples."""
    teacher: Scores
    student: Scores
    agreement: float
    """Share of samples that both give the same answer to, 0 to 1."""
    classes: list[KeptClass]
    """Every class, in the order of the outputs."""
    groups: list[KeptGroup]
    """Every group; empty where the samples have none."""
    confusion: Confusion | None
    """Counts of every answer; null where there are more than 100 classes."""
    confused: list[Confused]
    """Wrong answers that the student gives more often than the teacher, the most so first; 30 at most."""
    reliability: Reliability
    curves: Curves
    lost_classes: list[int]
    """Numbers of the classes whose recall fell, the most so first; 12 at most."""
    lost_groups: list[int]
    """Numbers of the groups whose accuracy fell, likewise."""
    lost_samples: list[LostSample]
    """Those the teacher was surest of among those that the student has wrong; 12 at most."""
    corruption: Corruption | None
    """Null where no input is in floats."""
    tasks: NotRequired[list[KeptTask]]
    """Further tasks."""
