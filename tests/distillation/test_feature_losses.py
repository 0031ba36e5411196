"""Losses between features, each against a property or a closed form of its paper."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from edgekit.distillation.feature_losses import (
    attention_transfer,
    contrastive,
    hierarchical_context,
    hints,
    relational,
    similarity,
)
from edgekit.errors import TrainingError


def feature(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


MAPS = feature(6, 4, 8, 8), feature(6, 4, 8, 8, seed=1)
VECTORS = feature(6, 7), feature(6, 7, seed=1)
LOSSES = {
    "hints": (hints, MAPS),
    "attention_transfer": (attention_transfer, MAPS),
    "similarity": (similarity, MAPS),
    "relational": (relational, VECTORS),
    "contrastive": (contrastive, VECTORS),
    "hierarchical_context": (hierarchical_context, MAPS),
}


@pytest.mark.parametrize("name", LOSSES)
def test_equal_features_cost_least_and_gradients_are_those_of_finite_differences(name):
    loss, (student, teacher) = LOSSES[name]
    least = loss(teacher, teacher)
    assert least < loss(student, teacher)
    if name != "contrastive":  # whose least value hangs on how alike the samples are
        assert least.item() == pytest.approx(0.0, abs=1e-9)
    given = student[:3].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda s: loss(s, teacher[:3]), given)


def test_hints_are_the_mean_squared_error():
    assert hints(torch.zeros(2, 3), torch.full((2, 3), 2.0)).item() == 4.0


def test_attention_forgets_the_number_of_channels_their_order_and_sign_and_the_scale():
    student = MAPS[0]
    same = torch.cat([-student.flip(1), student], dim=1) * 3.0
    assert attention_transfer(student, same).item() == pytest.approx(0.0, abs=1e-12)


def test_attention_in_closed_form():
    """One channel looks at the first place, the other at the second: unit maps (1, 0) and (0, 1)."""
    student, teacher = torch.tensor([[[[2.0, 0.0]]]]), torch.tensor([[[[0.0, 5.0]]]])
    assert attention_transfer(student, teacher).item() == pytest.approx(1.0)


def test_attention_of_maps_of_two_sizes_is_taken_at_the_smaller():
    large = MAPS[0].repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert attention_transfer(MAPS[0], large).item() == pytest.approx(0.0, abs=1e-12)


def test_attention_of_vectors_is_refused():
    with pytest.raises(TrainingError, match="maps of where layers look") as caught:
        attention_transfer(VECTORS[0], VECTORS[1])
    assert caught.value.found == "the student's layer gives [6, 7]"


def test_similarity_is_free_of_rotations_and_widths():
    student = VECTORS[0]
    turn, _ = torch.linalg.qr(feature(7, 7, seed=3))
    assert similarity(student, student @ turn).item() == pytest.approx(0.0, abs=1e-12)
    assert similarity(student, torch.cat([student, student], 1)).item() == pytest.approx(0.0, abs=1e-12)


def test_similarity_is_the_squared_frobenius_norm_over_the_square_of_the_batch():
    tables = [functional.normalize(f @ f.T, dim=1) for f in VECTORS]
    assert similarity(*VECTORS).item() == pytest.approx((torch.linalg.norm(tables[0] - tables[1]) ** 2 / 36).item())


def test_relations_are_free_of_rotations_shifts_and_sizes():
    student = VECTORS[0]
    turn, _ = torch.linalg.qr(feature(7, 7, seed=3))
    assert relational(student, 5 * (student @ turn) + 2).item() == pytest.approx(0.0, abs=1e-9)


def test_relations_of_a_triangle_in_closed_form():
    """A 3-4-5 triangle against an equilateral one, distances alone: mean 4, so (3, 4, 5)/4 against (1, 1, 1)."""
    right = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]]).double()
    even = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, 0.75**0.5]]).double()
    assert relational(right, even, distance=1.0, angle=0.0).item() == pytest.approx((0.25**2 / 2) * 2 / 3)
    # Angles: cosines 0, 3/5, 4/5 against 1/2 each; two of nine entries each are that angle, the others are 0 or 1.
    gaps = [(0.5 - c) ** 2 / 2 for c in (0.0, 0.6, 0.8)]
    assert relational(right, even, distance=0.0, angle=1.0).item() == pytest.approx(2 * sum(gaps) / 27)


def test_equal_samples_do_not_break_the_relations():
    student = torch.ones(4, 3, requires_grad=True)
    loss = relational(student, torch.randn(4, 3))
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(student.grad).all()


def test_contrastive_of_one_hot_embeddings_in_closed_form():
    n, temperature = 4, 0.5
    eye = torch.eye(n).double()
    expected = torch.log(torch.exp(torch.tensor(1 / temperature)) + n - 1) - 1 / temperature
    assert contrastive(eye, 3 * eye, temperature=temperature).item() == pytest.approx(expected.item(), rel=1e-6)
    # Of two classes, a sample of one's own class is no negative.
    labels = torch.tensor([0, 0, 1, 1])
    expected = torch.log(torch.exp(torch.tensor(1 / temperature)) + n - 2) - 1 / temperature
    assert contrastive(eye, eye, labels, temperature).item() == pytest.approx(expected.item(), rel=1e-6)


def test_the_hierarchy_of_a_constant_gap_is_the_gap_at_every_level():
    ones = torch.ones(2, 3, 8, 8)
    assert hierarchical_context(ones * 3, ones).item() == pytest.approx(4.0)


def test_the_hierarchy_weighs_coarse_levels_half_as_much_each():
    """A checkerboard of ±1 is 0 at every coarser level: 1 / (1 + 1/2 + 1/4 + 1/8)."""
    board = (torch.arange(8)[:, None] + torch.arange(8)) % 2 * 2.0 - 1
    board = board.expand(2, 3, 8, 8)
    assert hierarchical_context(board, torch.zeros_like(board)).item() == pytest.approx(1 / 1.875)


@pytest.mark.parametrize("loss", [hints, contrastive, hierarchical_context])
def test_features_of_two_shapes_are_refused(loss):
    with pytest.raises(TrainingError, match="features of one shape"):
        loss(feature(2, 3, 4, 4), feature(2, 5, 4, 4))
