"""Random numbers that belong to samples."""

import numpy as np
import pytest

from edgekit.distillation.sample_draws import Draws


def draws(indices, seed=0, view=0):
    return Draws(seed=seed, view=view, indices=np.asarray(indices, dtype=np.int64))


@pytest.mark.parametrize(
    "draw", [lambda d: d.uniforms("flip", 3), lambda d: d.normals("noise", (3,))], ids=["uniforms", "normals"]
)
def test_a_sample_draws_alike_in_every_batch(draw):
    whole = draw(draws(range(50)))
    np.testing.assert_array_equal(draw(draws([7, 41, 3])), whole[[7, 41, 3]])
    assert len(np.unique(whole)) == whole.size


@pytest.mark.parametrize("count", [1, 4])
def test_columns_stay_when_more_are_drawn(count):
    np.testing.assert_array_equal(draws(range(9)).uniforms("x", 5)[:, :count], draws(range(9)).uniforms("x", count))


def test_seed_view_and_purpose_each_change_every_number():
    base = draws(range(100)).uniforms("flip", 2)
    others = [draws(range(100), seed=1).uniforms("flip", 2), draws(range(100), view=1).uniforms("flip", 2)]
    for other in (*others, draws(range(100)).uniforms("crop", 2)):
        assert not (other == base).any()
    noise = draws(range(5)).normals("a", (4,))
    assert not (draws(range(5), view=1).normals("a", (4,)) == noise).any()
    assert not (draws(range(5)).normals("b", (4,)) == noise).any()


def test_uniforms_are_even_and_independent():
    """Chi-square over 100 bins (99 degrees of freedom: mean 99, deviation 14), correlations of about 1/sqrt(n)."""
    values = draws(range(40_000)).uniforms("crop", 3)
    assert values.min() >= 0
    assert values.max() < 1
    for column in values.T:
        counts = np.histogram(column, bins=100, range=(0, 1))[0]
        assert 50 < ((counts - 400) ** 2 / 400).sum() < 160
    between = np.corrcoef(values.T)[np.triu_indices(3, 1)]
    along = [np.corrcoef(column[:-1], column[1:])[0, 1] for column in values.T]
    views = np.corrcoef(values[:, 0], draws(range(40_000), view=1).uniforms("crop", 3)[:, 0])[0, 1]
    assert max(map(abs, [*between, *along, views])) < 4 / np.sqrt(40_000)


def test_normals_are_normal():
    values = draws(range(2000)).normals("noise", (5, 2))
    assert values.dtype == np.float32
    assert abs(values.mean()) < 4 / np.sqrt(values.size)
    assert abs(values.std() - 1) < 4 / np.sqrt(2 * values.size)


def test_a_batch_draws_by_its_indices_in_their_order():
    first = draws([1, 2, 3]).batch("mix").random()
    assert draws([1, 2, 3]).batch("mix").random() == first
    for other in (draws([1, 3, 2]), draws([1, 2]), draws([1, 2, 3], seed=1), draws([1, 2, 3], view=1)):
        assert other.batch("mix").random() != first


def test_numbers_of_numpy_are_the_same_numbers():
    typed = draws([4], seed=np.int64(3), view=np.int32(2))
    np.testing.assert_array_equal(typed.uniforms("a", 2), draws([4], seed=3, view=2).uniforms("a", 2))
