from __future__ import annotations

import pytest

from edgekit.distillation.schedules import warmup_cosine


@pytest.mark.parametrize("steps", [1, 2, 7, 100, 1000])
def test_rises_to_the_peak_once_then_falls_and_never_reaches_zero_before_the_end(steps):
    factors = [warmup_cosine(step, steps) for step in range(steps)]
    top = factors.index(max(factors))
    assert max(factors) == 1.0
    assert factors[: top + 1] == sorted(factors[: top + 1])
    assert factors[top:] == sorted(factors[top:], reverse=True)
    assert min(factors) > 0
    assert warmup_cosine(steps, steps) == 0


def test_warm_up_takes_a_twentieth_and_is_linear():
    assert [warmup_cosine(step, 100) for step in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert warmup_cosine(5, 100) < 1.0


def test_cosine_is_half_way_down_in_the_middle_of_the_decay():
    assert warmup_cosine(5 + 95 // 2, 100) == pytest.approx(0.5, abs=0.01)
    assert warmup_cosine(99, 100) == pytest.approx(0.0, abs=0.001)
