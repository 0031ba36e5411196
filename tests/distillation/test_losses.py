from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from edgekit.distillation.logit_losses import decoupled, dist, standardised
from edgekit.distillation.losses import mixed, soft_loss, soft_targets
from edgekit.errors import TrainingError, UnknownName
from edgekit.recipe_training import Distillation


def logits(seed: int, n: int = 6, classes: int = 5) -> torch.Tensor:
    return torch.randn(n, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
def test_soft_loss_is_zero_for_equal_distributions_and_positive_otherwise(temperature):
    teacher = logits(0)
    assert soft_targets(teacher + 3.0, teacher, temperature).abs() < 1e-12  # softmax ignores a shift
    assert soft_targets(logits(1), teacher, temperature) > 1e-3


def test_soft_loss_of_two_classes_in_closed_form():
    temperature = 2.0
    student, teacher = torch.tensor([[2.0, 0.0]]).double(), torch.tensor([[0.0, 4.0]]).double()
    p, q = torch.sigmoid(torch.tensor(-2.0)).double(), torch.sigmoid(torch.tensor(1.0)).double()
    divergence = p * torch.log(p / q) + (1 - p) * torch.log((1 - p) / (1 - q))
    assert soft_targets(student, teacher, temperature).item() == pytest.approx(4 * divergence.item(), rel=1e-6)


def test_soft_loss_runs_from_teacher_to_student_not_back():
    student, teacher = logits(0, n=1), logits(1, n=1)
    p, q = teacher.softmax(1), student.softmax(1)
    assert soft_targets(student, teacher, 1.0).item() == pytest.approx((p * (p / q).log()).sum().item())


def test_soft_loss_is_a_mean_over_the_batch():
    student, teacher = logits(0), logits(1)
    twice = soft_targets(student.repeat(2, 1), teacher.repeat(2, 1), 3.0)
    assert twice.item() == pytest.approx(soft_targets(student, teacher, 3.0).item())


def test_gradient_tends_to_matching_centred_logits_at_high_temperature():
    student, teacher = logits(0).requires_grad_(), logits(1)
    soft_targets(student, teacher, 1e4).backward()
    n, classes = student.shape
    gap = (student - student.mean(1, keepdim=True)) - (teacher - teacher.mean(1, keepdim=True))
    assert student.grad is not None
    torch.testing.assert_close(student.grad, gap.detach() / (n * classes), rtol=1e-3, atol=1e-6)


def test_squared_temperature_keeps_the_size_of_the_gradient():
    def size(temperature: float) -> float:
        student = logits(0).requires_grad_()
        soft_targets(student, logits(1), temperature).backward()
        assert student.grad is not None
        return student.grad.norm().item()

    assert size(40.0) == pytest.approx(size(20.0), rel=0.1)


@pytest.mark.parametrize("soft_weight", [0.0, 0.3, 1.0])
def test_mix_of_soft_and_hard(soft_weight):
    student, teacher, labels = logits(0), logits(1), torch.tensor([0, 1, 2, 3, 4, 0])
    expected = soft_weight * soft_targets(student, teacher, 4.0) + (1 - soft_weight) * functional.cross_entropy(
        student, labels
    )
    found = mixed(lambda: soft_targets(student, teacher, 4.0), student, labels, soft_weight)
    assert found.item() == pytest.approx(expected.item())


def test_labels_are_needed_only_for_the_hard_part():
    student, teacher = logits(0), logits(1)
    soft = soft_targets(student, teacher, 4.0)
    assert mixed(lambda: soft, student, None, 1.0) == soft
    with pytest.raises(TrainingError, match="hard loss needs labels") as caught:
        mixed(lambda: soft, student, None, 0.7)
    assert caught.value.found == "soft_weight = 0.7"


@pytest.mark.parametrize("name", ["soft_targets", "decoupled", "dist"])
@pytest.mark.parametrize("standardise", [False, True])
def test_a_recipe_names_the_loss_between_logits(name, standardise):
    student, teacher, labels = logits(0), logits(1), torch.tensor([0, 1, 2, 3, 4, 0])
    loss = soft_loss(Distillation(soft=name, standardise=standardise), None)
    pair = (standardised(student), standardised(teacher)) if standardise else (student, teacher)
    direct = {"soft_targets": soft_targets, "dist": dist, "decoupled": lambda s, t, T: decoupled(s, t, labels, T)}
    assert loss(student, teacher, labels, 2.0).item() == pytest.approx(direct[name](*pair, 2.0).item())


def test_arguments_of_a_loss_are_the_recipes():
    student, teacher, labels = logits(0), logits(1), torch.tensor([0, 1, 2, 3, 4, 0])
    loss = soft_loss(Distillation(soft="decoupled", soft_args={"beta": 0.5}), None)
    assert loss(student, teacher, labels, 2.0).item() == pytest.approx(
        decoupled(student, teacher, labels, 2.0, beta=0.5).item()
    )
    with pytest.raises(TrainingError, match="has no argument 'gama'") as caught:
        soft_loss(Distillation(soft="dist", soft_args={"gama": 1.0}), None)
    assert caught.value.fix == "did you mean 'gamma'?"


def test_a_loss_that_needs_labels_says_so():
    loss = soft_loss(Distillation(soft="decoupled"), None)
    with pytest.raises(TrainingError, match="this loss needs labels"):
        loss(logits(0), logits(1), None, 1.0)


def test_a_loss_of_the_users_own_lies_beside_the_recipe(tmp_path):
    (tmp_path / "own_soft.py").write_text("def gap(ours, theirs):\n    return (ours - theirs).square().mean()\n")
    loss = soft_loss(Distillation(soft="own_soft:gap"), tmp_path)
    assert loss(logits(0), logits(1), None, 1.0).item() == pytest.approx((logits(0) - logits(1)).square().mean().item())
    with pytest.raises(UnknownName, match="unknown soft loss 'soft_target'"):
        soft_loss(Distillation(soft="soft_target"), None)


@pytest.mark.parametrize("teacher_shape", [(6, 4), (1, 5), (6, 5, 1)])
def test_shapes_that_would_broadcast_are_refused(teacher_shape):
    with pytest.raises(TrainingError, match=r"student \[6, 5\], teacher"):
        soft_targets(logits(0), torch.zeros(teacher_shape), 1.0)
