"""Losses between logits, each against a property or a closed form of its paper."""

from __future__ import annotations

import pytest
import torch

from edgekit.distillation.logit_losses import decoupled, dist, standardised
from edgekit.distillation.losses import soft_targets
from edgekit.errors import TrainingError


def logits(seed: int, n: int = 6, classes: int = 5) -> torch.Tensor:
    return torch.randn(n, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2


LABELS = torch.tensor([0, 1, 2, 3, 4, 0])


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_soft_targets_fall_apart_into_the_two_parts_of_dkd(temperature):
    """KD = TCKD + (1 - p_label of the teacher) · NCKD, sample by sample (Zhao et al., eq. 5)."""
    student, teacher = logits(0), logits(1)
    whole = 0.0
    for i in range(len(student)):
        row = (student[i : i + 1], teacher[i : i + 1], LABELS[i : i + 1], temperature)
        unsure = 1 - (teacher[i] / temperature).softmax(0)[LABELS[i]]
        whole += decoupled(*row, alpha=1.0, beta=0.0) + unsure * decoupled(*row, alpha=0.0, beta=1.0)
    assert (whole / len(student)).item() == pytest.approx(soft_targets(student, teacher, temperature).item(), rel=1e-9)


def test_the_part_among_other_classes_does_not_see_the_label():
    student, teacher = logits(0), logits(1)
    moved = student.clone()
    moved[torch.arange(6), LABELS] += 7.0
    parts = [decoupled(s, teacher, LABELS, 2.0, alpha=0.0, beta=1.0) for s in (student, moved)]
    assert parts[0].item() == pytest.approx(parts[1].item())
    assert decoupled(student, teacher, LABELS, 2.0) != pytest.approx(decoupled(moved, teacher, LABELS, 2.0))


def test_dkd_of_a_sure_teacher_is_finite_and_learns():
    student = logits(0).float().requires_grad_()
    teacher = torch.nn.functional.one_hot(LABELS, 5).float() * 200
    loss = decoupled(student, teacher, LABELS, 1.0)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(student.grad).all()


def test_dist_is_zero_where_rows_and_columns_are_linear_maps_of_each_other():
    teacher = logits(1)
    assert dist(teacher + 3.0, teacher, 1.0).item() == pytest.approx(0.0, abs=1e-9)
    assert dist(logits(0), teacher, 1.0) > 0.1


def test_dist_is_one_minus_numpys_correlation():
    import numpy as np

    student, teacher = logits(0), logits(1)
    p, q = (x.softmax(1).numpy() for x in (student, teacher))
    rows = np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(p, q, strict=True)])
    columns = np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(p.T, q.T, strict=True)])
    assert dist(student, teacher, 1.0, beta=2.0, gamma=3.0).item() == pytest.approx(2 * (1 - rows) + 3 * (1 - columns))


def test_standardised_logits_forget_size_and_shift():
    given = logits(0)
    found = standardised(given)
    torch.testing.assert_close(found.mean(1), torch.zeros(6).double(), atol=1e-9, rtol=0)
    torch.testing.assert_close(found.square().mean(1), torch.ones(6).double())
    torch.testing.assert_close(standardised(5 * given + 3), found)
    assert torch.isfinite(standardised(torch.zeros(2, 5))).all()


@pytest.mark.parametrize("loss", [lambda s, t: decoupled(s, t, LABELS, 1.0), lambda s, t: dist(s, t, 1.0)])
def test_shapes_that_differ_are_refused(loss):
    with pytest.raises(TrainingError, match="logits of one shape"):
        loss(logits(0), logits(1, classes=4))


@pytest.mark.parametrize("loss", [lambda s, t: decoupled(s, t, LABELS, 4.0), lambda s, t: dist(s, t, 4.0)])
def test_gradients_are_those_of_finite_differences(loss):
    teacher = logits(1)
    assert torch.autograd.gradcheck(lambda s: loss(s, teacher), logits(0).requires_grad_())
