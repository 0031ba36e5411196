from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.distillation import taught
from edgekit.distillation.forward import forward
from edgekit.distillation.students import distill
from edgekit.distillation.trainer import train
from edgekit.errors import DataError, TrainingError
from edgekit.recipe_training import Distillation, Head, Schedule, Schedules, Training

SETTINGS = Distillation(epochs=8, batch_size=16, learning_rate=0.05)


@pytest.fixture
def teacher(net, blobs):
    module = net(width=32, seed=7)
    train(module, blobs(90), blobs(30, seed=1), Training(epochs=6, batch_size=16, learning_rate=0.02), seed=0)
    return module


def agreement(one: nn.Module, other: nn.Module, samples) -> float:
    return float((forward(one, samples)["output"].argmax(1) == forward(other, samples)["output"].argmax(1)).mean())


def test_what_changes_with_the_steps_is_seen_by_the_loss(teacher, blobs, net, monkeypatch):
    """A soft weight that goes from 1 to 0 needs labels, and ends at the labels' own loss."""
    seen = []
    original = taught.mixed

    def mixed(soft, logits, labels, soft_weight):
        seen.append(soft_weight)
        return original(soft, logits, labels, soft_weight)

    monkeypatch.setattr(taught, "mixed", mixed)
    data = blobs(64)
    settings = SETTINGS.model_copy(update={"soft_weight": 1.0, "schedules": Schedules(soft_weight=Schedule(end=0.0))})
    distill(teacher, net(8, seed=2), data, data, settings, seed=0)
    assert seen[0] == 1.0
    assert 0.0 < seen[-1] < 0.1
    assert sorted(seen, reverse=True) == seen
    with pytest.raises(DataError, match="the hard loss needs labels"):
        distill(teacher, net(8, seed=2), blobs(64, labelled=False), data, settings, seed=0)


def test_a_student_learns_from_teacher_and_labels(teacher, net, blobs):
    student, history = distill(teacher, net(width=6), blobs(90), blobs(30, seed=1), SETTINGS, seed=0)
    assert agreement(student, teacher, blobs(60, seed=2)) > 0.95
    assert max(history.scores) > 0.95
    assert not student.training


def test_without_labels_it_learns_from_the_teacher_alone(teacher, net, blobs):
    settings = SETTINGS.model_copy(update={"soft_weight": 1.0})
    data, validation = blobs(90, labelled=False), blobs(30, seed=1, labelled=False)
    student, history = distill(teacher, net(width=6), data, validation, settings, seed=0)
    assert agreement(student, teacher, blobs(60, seed=2)) > 0.95
    assert history.scores[history.best_epoch - 1] == pytest.approx(agreement(student, teacher, validation))


def test_soft_targets_carry_what_labels_cannot(net, blobs):
    """A teacher that calls every class by another number is followed at soft_weight 1, and not at 0."""

    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(5.0))

        def forward(self, x):
            return self.scale * x[:, [1, 2, 0]]

    validation = blobs(30, seed=1)
    follow = dataclasses.replace(validation, targets=None)
    soft, hard = (SETTINGS.model_copy(update={"soft_weight": weight}) for weight in (1.0, 0.0))
    student, _ = distill(Shifted(), net(), blobs(90), follow, soft, seed=0)
    assert agreement(student, Shifted(), validation) > 0.95
    student, _ = distill(Shifted(), net(), blobs(90), follow, hard, seed=0)
    assert agreement(student, Shifted(), validation) < 0.5


def test_the_teacher_stays_as_it_is(teacher, net, blobs):
    teacher.train()
    teacher.zero_grad()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    distill(teacher, net(), blobs(60), blobs(12), SETTINGS, seed=0)
    assert teacher.training
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in teacher.parameters())


def test_one_seed_one_student(teacher, net, blobs):
    first, _ = distill(teacher, net(), blobs(60), blobs(12), SETTINGS, seed=2)
    again, _ = distill(teacher, net(), blobs(60), blobs(12), SETTINGS, seed=2)
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True))


def test_a_student_may_get_a_new_head(teacher, net, blobs):
    settings = SETTINGS.model_copy(update={"head": Head(module="head", classes=3)})
    student, _ = distill(teacher, net(classes=5), blobs(60), blobs(12), settings, seed=0)
    assert student.head.out_features == 3


def test_labels_missing_for_the_hard_loss(teacher, net, blobs):
    with pytest.raises(DataError, match=r"(?s)soft_weight = 0\.7.*set distillation\.soft_weight = 1\.0"):
        distill(teacher, net(), blobs(20, labelled=False), blobs(6, labelled=False), SETTINGS, seed=0)


def test_different_numbers_of_classes(teacher, net, blobs):
    with pytest.raises(TrainingError, match=r"(?s)teacher 3, student 4.*build the student with 3 classes"):
        distill(teacher, net(classes=4), blobs(20), blobs(6), SETTINGS, seed=0)


def test_a_teacher_worse_than_guessing(teacher, net, blobs):
    validation = blobs(30)
    wrong = dataclasses.replace(validation, targets=(validation.targets + 1) % 3)
    with pytest.raises(TrainingError, match=r"(?s)worse than guessing.*at least 33\.3% \(3 classes\)"):
        distill(teacher, net(), blobs(20), wrong, SETTINGS, seed=0)


def test_a_teacher_with_nan(teacher, net, blobs):
    with torch.no_grad():
        teacher.head.bias[0] = float("nan")
    with pytest.raises(TrainingError, match=r"(?s)teacher's outputs have NaN or infinity.*6 of 6"):
        distill(teacher, net(), blobs(20), blobs(6), SETTINGS, seed=0)


def test_teacher_and_student_are_one(teacher, blobs):
    with pytest.raises(TrainingError, match="the same module"):
        distill(teacher, teacher, blobs(20), blobs(6), SETTINGS, seed=0)


@pytest.mark.parametrize("counts", [(0, 6), (6, 0)])
def test_empty_sets(teacher, net, blobs, counts):
    with pytest.raises(DataError, match=f"{counts[0]} for training, {counts[1]} for validation"):
        distill(teacher, net(), blobs(counts[0]), blobs(counts[1]), SETTINGS, seed=0)


def test_a_label_no_class_of_the_student(teacher, net, blobs):
    data = blobs(20)
    with pytest.raises(DataError, match="label 9 at sample 0"):
        distill(teacher, net(), dataclasses.replace(data, targets=np.full(20, 9)), blobs(6), SETTINGS, seed=0)
