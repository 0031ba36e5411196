from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from edgekit.distillation.schedules import Course, rate_factor, scheduled
from edgekit.recipe_training import Distillation, Schedule, Schedules, Training

COSINE = Training()


@pytest.mark.parametrize("steps", [1, 2, 7, 100, 1000])
def test_rises_to_the_peak_once_then_falls_and_never_reaches_zero_before_the_end(steps):
    factors = [rate_factor(step, steps, COSINE) for step in range(steps)]
    top = factors.index(max(factors))
    assert max(factors) == 1.0
    assert factors[: top + 1] == sorted(factors[: top + 1])
    assert factors[top:] == sorted(factors[top:], reverse=True)
    assert min(factors) > 0
    assert rate_factor(steps, steps, COSINE) == 0


def test_warm_up_takes_a_twentieth_and_is_linear():
    assert [rate_factor(step, 100, COSINE) for step in range(5)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rate_factor(5, 100, COSINE) < 1.0


def test_cosine_is_half_way_down_in_the_middle_of_the_decay():
    assert rate_factor(5 + 95 // 2, 100, COSINE) == pytest.approx(0.5, abs=0.01)
    assert rate_factor(99, 100, COSINE) == pytest.approx(0.0, abs=0.001)


def test_a_constant_rate_rises_and_stays():
    settings = Training(schedule="constant", warmup=0.1)
    assert [rate_factor(step, 40, settings) for step in (0, 1, 3, 4, 39)] == [0.25, 0.5, 1.0, 1.0, 1.0]


def test_a_value_without_a_schedule_stays():
    assert scheduled(4.0, None, 0.7, 0.2) == 4.0


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_a_schedule_begins_at_the_value_and_ends_at_its_end(kind):
    values = [scheduled(4.0, Schedule(end=1.0, kind=kind), share, 0.5) for share in np.linspace(0, 1, 21)]
    assert (values[0], values[-1]) == (4.0, pytest.approx(1.0))
    assert np.all(np.diff(values) < 0)
    assert values[10] == pytest.approx(2.5)  # half way


def test_cosine_is_slow_at_both_ends():
    linear, cosine = (
        [scheduled(0.0, Schedule(end=1.0, kind=k), s, 1.0) for s in (0.1, 0.9)] for k in ("linear", "cosine")
    )
    assert cosine[0] < linear[0]
    assert cosine[1] > linear[1]


def test_a_steered_value_goes_as_far_as_student_and_teacher_agree():
    course = Course(
        settings=Distillation(temperature=4.0, schedules=Schedules(temperature=Schedule(end=2.0, kind="gap")))
    )
    assert course.steered
    assert course.temperature(0.9) == 4.0
    ours, theirs = torch.eye(4), torch.eye(4)
    for _ in range(500):
        course.see(ours, theirs)
    assert course.temperature(0.1) == pytest.approx(2.0, abs=1e-6)
    for _ in range(500):
        course.see(ours, theirs[[0, 1, 3, 2]])  # half of them differ
    assert course.gap == pytest.approx(0.5)
    assert course.temperature(0.1) == pytest.approx(3.0)


def test_each_schedule_is_of_its_own_value():
    settings = Distillation(
        temperature=4.0,
        soft_weight=1.0,
        schedules=Schedules(soft_weight=Schedule(end=0.5), features=Schedule(end=0.0)),
    )
    course = Course(settings)
    assert not course.steered
    assert (course.temperature(0.5), course.soft_weight(0.5), course.features(0.5)) == (4.0, 0.75, 0.5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"temperature": {"end": 0.0}}, "above 0"), ({"soft_weight": {"end": 1.5}}, "at most 1")],
)
def test_ends_out_of_range_are_refused(wrong, message):
    with pytest.raises(ValidationError, match=message):
        Schedules.model_validate(wrong)
