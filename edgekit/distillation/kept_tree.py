"""What is known of a student beside its teacher, as plain numbers: rates are 0 to 1, None where there is none."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """One model on all test samples.

    Attributes:
        accuracy: Share of samples whose largest output is their label's.
        precision: Mean precision of the classes that have samples; 0 for one that the model never names.
        recall: Mean recall of those classes.
        f1: Mean F1 of those classes.
        auc: Mean area under the ROC curve of those classes, each against the rest; None where all are one class.
        average_precision: Mean area under the precision-recall curve of those classes, likewise.
        calibration_error: Expected calibration error of the answers given, in 15 bins.
    """

    accuracy: float
    precision: float
    recall: float
    f1: float
    auc: float | None
    average_precision: float | None
    calibration_error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassScores:
    """One model on one class against the rest; all None for a class without samples.

    Attributes:
        precision: Share of the samples it calls so that are so; None where it calls none so.
        recall: Share of the class's samples that it calls so.
        f1: Harmonic mean of both.
        auc: Area under the ROC curve; None where every sample is of this class.
        average_precision: Area under the precision-recall curve, likewise.
        calibration_error: Calibration error of the class's own probability over all samples, in 15 bins.
    """

    precision: float | None
    recall: float | None
    f1: float | None
    auc: float | None
    average_precision: float | None
    calibration_error: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptClass:
    """One class.

    Attributes:
        name: Its name.
        samples: Test samples of it.
        teacher: The teacher's scores.
        student: The student's.
        agreement: Share of its samples that both give the same answer to; None without samples.
    """

    name: str
    samples: int
    teacher: ClassScores
    student: ClassScores
    agreement: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptGroup:
    """One group of samples, such as a language or a domain.

    Attributes:
        name: Its name.
        samples: Test samples of it.
        teacher: The teacher's accuracy; None without samples.
        student: The student's.
        agreement: Share of its samples that both give the same answer to.
    """

    name: str
    samples: int
    teacher: float | None
    student: float | None
    agreement: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Confusion:
    """How often each class (row, the label) is given each answer (column).

    Attributes:
        teacher: Samples, ``[classes][classes]``.
        student: Likewise.
    """

    teacher: tuple[tuple[int, ...], ...]
    student: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Confused:
    """A wrong answer that the student gives more often than the teacher.

    Attributes:
        label: The class.
        answer: The class it is taken for.
        teacher: Samples that the teacher takes so.
        student: Samples that the student takes so.
    """

    label: int
    answer: int
    teacher: int
    student: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """The answers of about one confidence.

    Attributes:
        samples: How many.
        confidence: Their mean confidence: the probability given to the answer.
        accuracy: Share of them that are right.
    """

    samples: int
    confidence: float
    accuracy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Reliability:
    """The bins that have samples, of equal width, lowest confidence first."""

    teacher: tuple[Bin, ...]
    student: tuple[Bin, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassCurve:
    """The precision of one class at every recall of the curves; None for a class without samples or without others."""

    name: str
    teacher: tuple[float, ...] | None
    student: tuple[float, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """Precision over recall: the best precision at this recall or a higher one.

    Attributes:
        recall: The recalls that all curves are given at.
        teacher: Mean precision of the classes, ``[recalls]``; None where all samples are of one class.
        student: Likewise.
        classes: Every class; empty where there are more than 30.
    """

    recall: tuple[float, ...]
    teacher: tuple[float, ...] | None
    student: tuple[float, ...] | None
    classes: tuple[ClassCurve, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LostSample:
    """A sample that the teacher had right, with more than half of its probability, and the student wrong.

    Attributes:
        index: Its place in the test samples, from 0.
        label: Its class.
        answer: The class that the student takes it for.
        teacher: Probability that the teacher gives to its class.
        student: Probability that the student gives to its class.
    """

    index: int
    label: int
    answer: int
    teacher: float
    student: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Corrupted:
    """Accuracy under one corruption.

    Attributes:
        kind: Which.
        teacher: The teacher's accuracy at every severity, the mildest first.
        student: The student's.
        teacher_mean: Its mean over the severities.
        student_mean: Likewise.
    """

    kind: str
    teacher: tuple[float, ...]
    student: tuple[float, ...]
    teacher_mean: float
    student_mean: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Corruption:
    """What both models keep under noise and corruption.

    Attributes:
        samples: Test samples that were drawn for it.
        teacher_clean: The teacher's accuracy on them as they are.
        student_clean: The student's.
        teacher_mean: Its mean accuracy over all kinds.
        student_mean: Likewise.
        kinds: Every kind.
    """

    samples: int
    teacher_clean: float
    student_clean: float
    teacher_mean: float
    student_mean: float
    kinds: tuple[Corrupted, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptTask:
    """A further task of both models on the test samples.

    Attributes:
        name: Its output.
        kind: ``classes`` or ``values``.
        teacher: Accuracy of classes, 0 to 1; root mean square error of values; None where the teacher lacks the output.
        student: The student's.
    """

    name: str
    kind: str
    teacher: float | None
    student: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What a student kept of its teacher on the test samples.

    Attributes:
        samples: Test samples.
        teacher: The teacher's scores.
        student: The student's.
        agreement: Share of samples that both give the same answer to.
        classes: Every class, in the order of the outputs.
        groups: Every group; empty where the samples have none.
        confusion: Counts of every answer; None where there are more than 100 classes.
        confused: Wrong answers that the student gives more often than the teacher, the most so first.
        reliability: How right the answers of each confidence are.
        curves: Precision over recall.
        lost_classes: Classes whose recall fell, the most so first.
        lost_groups: Groups whose accuracy fell, likewise.
        lost_samples: Samples that the teacher was surest of among those that the student has wrong.
        corruption: Both models under noise and corruption; None where it was not tried.
        tasks: Further tasks.
    """

    samples: int
    teacher: Scores
    student: Scores
    agreement: float
    classes: tuple[KeptClass, ...]
    groups: tuple[KeptGroup, ...]
    confusion: Confusion | None
    confused: tuple[Confused, ...]
    reliability: Reliability
    curves: Curves
    lost_classes: tuple[int, ...]
    lost_groups: tuple[int, ...]
    lost_samples: tuple[LostSample, ...]
    corruption: Corruption | None = None
    tasks: tuple[KeptTask, ...] = ()
