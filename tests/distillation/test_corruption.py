"""What is done to samples, and what is left of a model's accuracy."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.data import Samples
from edgekit.distillation.corruption import (
    CONTRAST,
    DROPPED,
    IMAGES,
    MOST_SAMPLES,
    NOISE,
    OCCLUSION,
    OTHERS,
    _trial,
    corrupted,
    under_corruption,
)
from edgekit.errors import DataError, TrainingError
from edgekit.processing_specs import Preprocessing


def samples_of(x, targets=None, **fields):
    targets = np.arange(len(x)) % 3 if targets is None else targets
    return Samples(name="made up", count=len(x), fetch=lambda i: {"x": x[i]}, targets=targets, **fields)


def pictures(count=48, size=16, seed=0):
    """Red, green or blue on top of noise."""
    x = np.random.default_rng(seed).standard_normal((count, 3, size, size))
    x[np.arange(count), np.arange(count) % 3] += 1.5
    return x.astype(np.float32)


class Brightest(nn.Module):
    """The channel with the largest mean; ``weight`` blurs it to chance at 0."""

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.weight * x.flatten(2).mean(dim=2)


class Largest(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def rows(trial, kind, severity, chosen=None):
    return corrupted(trial, kind, severity, np.arange(len(trial.samples)) if chosen is None else chosen)["x"]


@pytest.fixture(scope="module")
def trial():
    return _trial(samples_of(pictures()), 7)


# ---- what is done ----


@pytest.mark.parametrize("kind", IMAGES)
def test_every_kind_changes_pictures_more_with_its_severity_within_their_range(trial, kind):
    clean = rows(trial, None, 1)
    changes = []
    for severity in (1, 2, 3):
        made = rows(trial, kind, severity)
        assert (made.shape, made.dtype) == (clean.shape, clean.dtype)
        low, high = clean.min(axis=(0, 2, 3)), clean.max(axis=(0, 2, 3))
        assert (made.min(axis=(0, 2, 3)) >= low - 1e-5).all()
        assert (made.max(axis=(0, 2, 3)) <= high + 1e-5).all()
        changes.append(float(np.abs(made - clean).mean()))
    assert 0.01 < changes[0] < changes[1] < changes[2]


@pytest.mark.parametrize("kind", IMAGES)
def test_a_sample_is_corrupted_alike_in_any_batch_and_otherwise_by_another_seed(trial, kind):
    whole = rows(trial, kind, 2)
    alone = rows(trial, kind, 2, np.array([5]))
    assert np.allclose(whole[5], alone[0], atol=1e-6)
    other = rows(_trial(samples_of(pictures()), 8), kind, 2)
    assert np.allclose(whole, other) == (kind not in ("noise", "occlusion"))


def test_noise_is_in_units_of_the_datas_own_deviation():
    base = np.random.default_rng(0).standard_normal((64, 2, 16, 16)).astype(np.float32)
    scaled = base * np.array([10.0, 0.1], np.float32)[:, None, None]
    scaled[0, :, 0, 0], scaled[1, :, 0, 0] = [1000.0, 10.0], [-1000.0, -10.0]  # nothing is cut off
    trial = _trial(samples_of(scaled, np.zeros(64, np.int64)), 0)
    deviations = scaled.std(axis=(0, 2, 3))
    for severity in (1, 2, 3):
        noise = rows(trial, "noise", severity) - rows(trial, None, severity)
        assert noise.std(axis=(0, 2, 3)) / deviations == pytest.approx([NOISE[severity - 1]] * 2, rel=0.05)


def test_contrast_keeps_the_mean_and_takes_from_the_deviation(trial):
    clean, made = rows(trial, None, 1), rows(trial, "contrast", 3)
    assert made.mean(axis=(2, 3)) == pytest.approx(clean.mean(axis=(2, 3)), abs=1e-5)
    assert made.std(axis=(2, 3)) == pytest.approx(CONTRAST[2] * clean.std(axis=(2, 3)), rel=1e-4)


def test_a_blur_keeps_what_is_even_and_spreads_a_point_as_a_gaussian():
    x = np.zeros((2, 1, 32, 32), np.float32)
    x[0, 0, 16, 16] = 1.0
    trial = _trial(samples_of(x, np.zeros(2, np.int64)), 0)
    made = rows(trial, "blur", 2)
    assert np.allclose(made[1], 0.0)
    assert made[0].sum() == pytest.approx(1.0, rel=1e-5)
    # The standard deviation is one pixel.
    assert made[0, 0, 16, 17] / made[0, 0, 16, 16] == pytest.approx(np.exp(-0.5), rel=1e-4)
    assert made[0, 0, 18, 16] / made[0, 0, 16, 16] == pytest.approx(np.exp(-2.0), rel=1e-4)


def test_a_square_is_hidden_behind_the_mean_colour(trial):
    clean, made = rows(trial, None, 1), rows(trial, "occlusion", 2)
    mean = clean.mean(axis=(0, 2, 3))
    side = round(OCCLUSION[1] * 16)
    for before, after in zip(clean, made, strict=True):
        hidden = (before != after).any(axis=0)
        assert hidden.sum() == side * side
        assert np.allclose(after[:, hidden], mean[:, None], atol=1e-4)


def test_pictures_with_their_channels_last_are_corrupted_alike():
    x = pictures()
    first = _trial(samples_of(x), 3)
    how = Preprocessing(input="x", layout="NCHW", model_layout="NHWC")
    last = _trial(samples_of(x, preprocessing=how), 3)
    for kind in IMAGES:
        assert np.allclose(rows(last, kind, 2).transpose(0, 3, 1, 2), rows(first, kind, 2), atol=1e-5)


def test_other_inputs_get_noise_and_lose_values():
    x = np.random.default_rng(0).standard_normal((200, 50)).astype(np.float32) * np.linspace(0.1, 10, 50, dtype="f4")
    trial = _trial(samples_of(x), 0)
    assert list(trial.kinds) == list(OTHERS)
    for severity in (1, 2, 3):
        lost = np.isclose(rows(trial, "dropped values", severity), x.mean(axis=0), atol=1e-5)
        assert lost.mean() == pytest.approx(DROPPED[severity - 1], abs=0.02)
    noise = rows(trial, "noise", 1) - x
    assert noise.std(axis=0) / x.std(axis=0) == pytest.approx([NOISE[0]] * 50, rel=0.3)


# ---- what is left ----


def test_accuracies_are_those_of_the_corrupted_samples(trial):
    data = samples_of(pictures())
    found = under_corruption(Brightest(), Brightest(-1.0), data, seed=7)
    assert found.samples == 48
    assert (found.teacher_clean, found.student_clean) == (1.0, 0.0)
    assert [one.kind for one in found.kinds] == list(IMAGES)
    labels = np.arange(48) % 3
    for one in found.kinds:
        expected = [(rows(trial, one.kind, s).mean(axis=(2, 3)).argmax(axis=1) == labels).mean() for s in (1, 2, 3)]
        assert one.teacher == pytest.approx(expected, abs=1e-6)
        assert one.teacher_mean == pytest.approx(np.mean(expected), abs=1e-6)
    assert found.teacher_mean == pytest.approx(np.mean([one.teacher_mean for one in found.kinds]), abs=1e-6)
    assert found == under_corruption(Brightest(), Brightest(-1.0), data, seed=7)
    assert found.kinds[0].student[0] < 1.0


def test_one_severity_is_enough_and_modes_stay():
    models = [nn.Sequential(nn.Dropout(0.5), Brightest()) for _ in range(2)]
    found = under_corruption(*models, samples_of(pictures(12)), severities=(2,))
    assert [len(one.teacher) for one in found.kinds] == [1] * 5
    assert all(model.training and model[0].training for model in models)


def test_no_more_than_a_thousand_samples_are_drawn_by_class_and_progress_is_told():
    x = np.eye(3, dtype=np.float32)[np.arange(2500) % 3]
    told = []
    found = under_corruption(Largest(), Largest(), samples_of(x), severities=(1,), progress=lambda *a: told.append(a))
    assert found.samples == MOST_SAMPLES
    assert found.teacher_clean == 1.0
    assert [step[1:3] for step in told] == [(0, 3), (1, 3), (2, 3), (3, 3)]


def test_numbers_of_tokens_are_left_alone():
    tokens = np.arange(12).reshape(6, 2)
    assert under_corruption(Largest(), Largest(), samples_of(tokens)) is None


def test_samples_without_labels_and_models_without_logits_are_told():
    data = samples_of(pictures(6))
    with pytest.raises(DataError, match="needs class labels"):
        under_corruption(Brightest(), Brightest(), dataclasses.replace(data, targets=None))
    with pytest.raises(TrainingError, match="does not return logits"):
        under_corruption(Brightest(), Largest(), data)
