"""Learned steps: forward as torch's own functions, backward as LSQ has it."""

from __future__ import annotations

import copy
import math

import pytest
import torch

from edgekit.qat.learned import LEAST_RATIO, MOST, LearnedStep


def tensor_step(scale: float = 0.1, zero: int = 0, low: int = 0, high: int = 255, **more) -> LearnedStep:
    return LearnedStep(torch.tensor(scale), torch.tensor(zero, dtype=torch.int32), low=low, high=high, **more)


def channel_step(scales: list[float], low: int = -127, high: int = 127, axis: int = 0) -> LearnedStep:
    scale = torch.tensor(scales)
    return LearnedStep(scale, torch.zeros(len(scales), dtype=torch.int32), low=low, high=high, axis=axis)


def normal(*shape: int, seed: int = 0, spread: float = 8.0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * spread


@pytest.mark.parametrize(("zero", "low", "high"), [(0, 0, 255), (97, 0, 255), (-128, -128, 127), (3, -128, 127)])
def test_forward_is_bit_for_bit_torchs_function(zero, low, high):
    values, step = normal(4, 500), tensor_step(0.0371, zero, low, high)
    expected = torch.fake_quantize_per_tensor_affine(values, step.scale, step.zero_point, low, high)
    assert torch.equal(step(values), expected)
    assert len(expected.unique()) > 50


@pytest.mark.parametrize("axis", [0, 1])
def test_forward_with_a_step_a_channel_is_torchs_too(axis):
    values, step = normal(3, 3, 40), channel_step([0.05, 0.1, 0.02], axis=axis)
    expected = torch.fake_quantize_per_channel_affine(values, step.scale, step.zero_point, axis, -127, 127)
    assert torch.equal(step(values), expected)


@pytest.mark.parametrize("zero", [0, 97])
def test_the_gradient_is_that_of_torchs_own_learnable_function(zero):
    """An oracle of another hand, for one step; by LSQ, times its factor, over the step begun with."""
    values, gradient = normal(4, 300).requires_grad_(), normal(4, 300, seed=1, spread=1e-4)
    step = tensor_step(0.0371, zero)
    step(values).backward(gradient)
    own, share = values.grad.clone(), 1 / math.sqrt(300 * max(255 - zero, zero))
    values.grad = None
    scale = torch.tensor([0.0371], requires_grad=True)
    oracle = torch._fake_quantize_learnable_per_tensor_affine(
        values, scale, torch.tensor([float(zero)], requires_grad=True), 0, 255, 1.0
    )
    oracle.backward(gradient)
    assert torch.equal(own, values.grad)
    assert step.ratio.grad.item() == pytest.approx(scale.grad.item() * share / 0.0371, rel=1e-4)


def test_the_gradient_of_a_step_below_inside_and_above():
    step = tensor_step(1.0, 0, -2, 3)
    for value, slope in ((-5.0, -2.0), (0.75, 0.25), (1.25, -0.25), (9.0, 3.0)):
        step.ratio.grad = None
        values = torch.tensor([[value]], requires_grad=True)
        step(values).mul(0.01).sum().backward()
        assert step.ratio.grad.item() == pytest.approx(0.01 * slope / math.sqrt(1 * 3))
        assert values.grad.item() == pytest.approx(0.01 if -2.5 < value < 3.5 else 0.0)


def test_a_step_a_channel_counts_the_weights_of_its_channel():
    step, values = channel_step([1.0, 1.0], -2, 3), torch.full((2, 4), 9.0)
    values[1] = 0.25
    step(values).mul(0.01).sum().backward()
    assert step.ratio.grad.tolist() == pytest.approx([0.04 * 3 / math.sqrt(4 * 3), 0.04 * -0.25 / math.sqrt(4 * 3)])


def test_one_step_for_all_weights_counts_all():
    step, values = tensor_step(1.0, 0, -2, 3, whole=True), torch.full((2, 4), 9.0)
    step(values).mul(0.01).sum().backward()
    assert step.ratio.grad.item() == pytest.approx(0.08 * 3 / math.sqrt(8 * 3))


def test_under_sgd_the_step_moves_as_in_lsq():
    step = tensor_step(0.5, 0, -2, 3)
    step(torch.tensor([[9.0, 9.0]])).mul(0.01).sum().backward()
    torch.optim.SGD(step.parameters(), lr=1.0).step()
    assert step.scale.item() == pytest.approx(0.5 - 0.01 * 6 / math.sqrt(2 * 3), rel=1e-5)


def test_no_gradient_moves_a_step_by_more_than_a_tenth_of_it():
    step = channel_step([1e-6, 1e-6])
    step(torch.tensor([[9.0], [-9.0]])).mul(torch.tensor([[1e3], [1e3]])).sum().backward()
    assert step.ratio.grad.tolist() == pytest.approx([MOST, -MOST])


def test_learning_lessens_the_error_of_a_bad_step():
    values, step = normal(64, 20, spread=1.0), tensor_step(0.012, 128)
    optimizer = torch.optim.Adam(step.parameters(), lr=0.05)

    def error() -> torch.Tensor:
        return (step(values) - values).square().mean()

    before = error().item()
    for _ in range(60):
        optimizer.zero_grad()
        error().backward()
        optimizer.step()
    assert error().item() < before / 20


def test_what_is_no_number_stays_so_and_the_infinite_is_clipped():
    step = tensor_step(0.1)
    assert step(torch.tensor([[math.nan]])).isnan().all()
    assert step(torch.tensor([[math.inf, -math.inf]])).tolist() == [[pytest.approx(25.5), 0.0]]


def test_a_step_stays_positive_and_within_its_end():
    step = tensor_step(0.1, largest=0.12)
    with torch.no_grad():
        step.ratio.fill_(-3.0)
    assert step.scale.item() == pytest.approx(0.1 * LEAST_RATIO)
    with torch.no_grad():
        step.ratio.fill_(2.0)
    assert step.scale.item() == pytest.approx(0.12)
    step(torch.tensor([[99.0]])).mul(-1).sum().backward()
    assert step.ratio.grad.item() == 0.0  # more would be less loss, and there is no more
    step.ratio.grad = None
    step(torch.tensor([[99.0]])).sum().backward()
    assert step.ratio.grad.item() > 0.0


def test_half_precision_is_rounded_in_float32():
    values = normal(2, 50).bfloat16()
    assert torch.equal(tensor_step()(values), tensor_step()(values.float()))


def test_a_copy_and_a_state_hold_all_of_a_step():
    step = tensor_step(0.3, 5)
    with torch.no_grad():
        step.ratio.fill_(1.5)
    other = tensor_step(0.9, 0)
    other.load_state_dict(step.state_dict())
    values = normal(2, 50)
    assert torch.equal(other(values), step(values))
    assert torch.equal(copy.deepcopy(step)(values), step(values))
    assert str(step) == "LearnedStep(0…255)"
