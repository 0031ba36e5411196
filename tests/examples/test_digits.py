from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from edgekit._lookup import importable
from edgekit.catalog import load_profile
from edgekit.data import check_disjoint, load_samples
from edgekit.models import load_module
from edgekit.recipe import load_recipe

FOLDER = Path(__file__).parents[2] / "examples" / "digits"


@pytest.fixture(scope="module")
def digits():
    pytest.importorskip("sklearn")
    with importable(FOLDER):
        import digits
    yield digits
    del sys.modules["digits"]


def load(spec: str):
    return load_samples(spec, base=FOLDER, preprocessing=None)


def test_the_recipe_and_its_profile_are_found_and_right():
    recipe = load_recipe(FOLDER)
    profile = load_profile(recipe.profile, [FOLDER])
    assert recipe.targets == ("local",)
    assert profile.limits.max_drop_points == 3.0
    assert profile.load.min_count >= 700


def test_train_and_test_are_model_tensors_of_all_classes_and_share_nothing(digits):
    recipe = load_recipe(FOLDER)
    assert recipe.data is not None
    train, test = load(recipe.data.train), load(recipe.data.test)
    check_disjoint(train, test, "training")
    assert len(test) >= 800
    assert len(train) + len(test) == 1797
    for samples in (train, test):
        (x,) = samples.tensors(range(8)).values()
        assert x.dtype == np.float32
        assert x.shape == (8, 1, 32, 32)
        assert np.abs(x).max() <= 1
        assert samples.classes == tuple("0123456789")
        assert np.bincount(samples.targets, minlength=10).min() >= 70


def test_the_halves_are_the_same_every_time(digits):
    first = [digits.images_and_labels()[part].copy() for part in (0, 1)]
    digits.images_and_labels.cache_clear()
    for before, after in zip(first, digits.images_and_labels(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_enlarging_keeps_flat_images_ramps_and_the_mean(digits):
    flat = np.full((1, 8, 8), 0.25)
    np.testing.assert_allclose(digits.enlarge(flat), np.full((1, 32, 32), 0.25))
    ramp = np.broadcast_to(np.arange(8.0), (1, 8, 8))
    large = digits.enlarge(ramp)[0]
    np.testing.assert_allclose(large[:, 2:-2], np.broadcast_to((np.arange(2, 30) + 0.5) / 4 - 0.5, (32, 28)))
    np.testing.assert_allclose(large.mean(), ramp.mean())


@pytest.mark.parametrize(("part", "fewest", "most"), [("teacher", 350_000, 500_000), ("student", 30_000, 60_000)])
def test_models_of_the_recipe_have_the_size_they_say(digits, part, fewest, most):
    spec = getattr(load_recipe(FOLDER), part)
    module = load_module(spec, base=FOLDER, seed=0, where=part)
    assert fewest <= sum(p.numel() for p in module.parameters()) <= most
    with torch.no_grad():
        assert module(torch.zeros(2, 1, 32, 32)).shape == (2, 10)
