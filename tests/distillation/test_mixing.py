"""Mixup and CutMix against their definitions."""

import numpy as np
import pytest
import torch

from edgekit.distillation.mixing import as_shares, cutmix, draw_box, mix, mixup
from edgekit.distillation.sample_draws import Draws
from edgekit.errors import TrainingError
from edgekit.recipe_augmentation import Augmentation

LABELS = torch.tensor([0, 1, 2, 1, 0, 2])


def draws(view=0, count=6):
    return Draws(seed=0, view=view, indices=np.arange(count))


def images(count=6, size=8):
    return torch.arange(count, dtype=torch.float32)[:, None, None, None].expand(count, 2, size, size)


def test_mixup_is_the_convex_combination():
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    found = mixup({"a": x, "b": 2 * x}, np.array([2, 0, 3, 1]), 0.3)
    torch.testing.assert_close(found["a"], 0.3 * x + 0.7 * x[[2, 0, 3, 1]])
    torch.testing.assert_close(found["b"], 2 * found["a"])


def test_mixup_blends_labels_like_inputs():
    """With inputs that are the labels' own rows, blended inputs and blended labels are equal."""
    rows = torch.eye(3)[LABELS]
    for view in range(10):
        inputs, shares = mix({"x": rows}, LABELS, Augmentation(mixup=0.8), 3, draws(view))
        torch.testing.assert_close(inputs["x"], shares)
        torch.testing.assert_close(shares.sum(1), torch.ones(6))
    assert shares.dtype == torch.float32
    assert not torch.equal(shares, rows)


def test_the_share_follows_beta():
    """Of Beta(α, α) the mean is 1/2 and the variance 1 / (4 (2α + 1))."""
    rows = torch.eye(2)
    found = []
    for view in range(2000):
        shares = mix({"x": rows}, torch.tensor([0, 1]), Augmentation(mixup=2.0), 2, draws(view, 2))[1]
        if shares[0, 0] != 1:  # else each was paired with itself
            found.append(float(shares[0, 0]))
    assert 850 < len(found) < 1150
    assert np.mean(found) == pytest.approx(0.5, abs=0.03)
    assert np.var(found) == pytest.approx(1 / 20, abs=0.01)


def test_cutmix_swaps_a_rectangle_of_the_labels_share():
    for view in range(30):
        inputs, shares = mix({"x": images()}, torch.arange(6), Augmentation(cutmix=1.0), 6, draws(view))
        for row in range(6):
            areas = torch.bincount(inputs["x"][row, 0].flatten().long(), minlength=6) / 64
            torch.testing.assert_close(shares[row], areas)
        torch.testing.assert_close(inputs["x"][:, 0], inputs["x"][:, 1])


def test_a_rectangle_lies_where_it_is_drawn():
    found = cutmix({"x": images(2)}, np.array([1, 0]), (1, 4, 2, 8))["x"]
    expected = torch.zeros(8, 8)
    expected[1:4, 2:8] = 1
    torch.testing.assert_close(found[0, 0], expected)
    torch.testing.assert_close(found[1, 0], 1 - expected)


def test_boxes_have_the_share_left_over_and_are_cut_at_the_border():
    rng = np.random.default_rng(0)
    boxes = [draw_box(64, 32, 0.75, rng) for _ in range(500)]
    areas = [(bottom - top) * (right - left) for top, bottom, left, right in boxes]
    assert max(areas) == 64 * 32 // 4
    assert min(areas) < 64 * 32 // 8
    assert all(0 <= top <= bottom <= 64 and 0 <= left <= right <= 32 for top, bottom, left, right in boxes)
    top, bottom, left, right = draw_box(64, 32, 1.0, rng)
    assert (bottom - top) * (right - left) == 0


def test_with_both_each_batch_takes_one():
    settings = Augmentation(mixup=1.0, cutmix=1.0)
    x = images(2)
    cut = 0
    for view in range(200):
        found = mix({"x": x}, None, settings, 2, draws(view, 2))[0]["x"]
        cut += bool(((found == 0) | (found == 1)).all())  # or paired with itself
    # Half are cut, and of the others half are paired with themselves.
    assert 120 < cut < 180


def test_unlabelled_samples_give_no_share():
    labels = torch.tensor([0, -1, -1, 1])
    rows = torch.eye(4)
    inputs, shares = mix({"x": rows}, labels, Augmentation(mixup=1.0), 2, draws(1, 4))
    of_labelled = inputs["x"][:, [0, 3]]
    torch.testing.assert_close(shares, of_labelled)
    assert shares.sum(1).min() < 1


def test_without_labels_there_are_none_after():
    assert mix({"x": images()}, None, Augmentation(mixup=1.0), 3, draws())[1] is None


def test_shares_of_numbers_and_of_shares():
    torch.testing.assert_close(as_shares(torch.tensor([1, -1]), 3), torch.tensor([[0.0, 1, 0], [0, 0, 0]]))
    given = torch.rand(2, 3, generator=torch.Generator().manual_seed(0))
    assert as_shares(given, 3) is given


def test_the_batch_given_stays():
    x, labels = images().clone(), LABELS.clone()
    for settings in (Augmentation(mixup=1.0), Augmentation(cutmix=1.0)):
        mix({"x": x}, labels, settings, 3, draws())
    assert torch.equal(x, images())
    assert torch.equal(labels, LABELS)


@pytest.mark.parametrize(
    ("settings", "inputs", "match"),
    [
        (
            {"mixup": 1.0},
            {"x": torch.ones(6, 3), "ids": torch.ones(6, 4, dtype=torch.int64)},
            r"input 'ids' cannot be blended\n\s+found:\s+ids: int64\[n, 4\]",
        ),
        ({"mixup": 1.0}, {"mask": torch.ones(6, 3, dtype=torch.bool)}, r"input 'mask' cannot be blended"),
        ({"cutmix": 1.0}, {"x": torch.ones(6, 3)}, r"only images of one size(.|\n)*x: float32\[n, 3\]"),
        ({"cutmix": 1.0}, {"x": torch.ones(6, 3, 4, 4), "y": torch.ones(6, 3, 8, 8)}, "only images of one size"),
    ],
)
def test_what_cannot_be_blended(settings, inputs, match):
    with pytest.raises(TrainingError, match=match):
        mix(inputs, LABELS, Augmentation(**settings), 3, draws())
