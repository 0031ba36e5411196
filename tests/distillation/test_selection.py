from __future__ import annotations

import pytest

from edgekit.distillation.selection import NOTHING, Score, better, standard_error


def choose(accuracies: list[float], crosses: list[float], samples: int) -> int:
    kept, top = NOTHING, 0.0
    for epoch, (accuracy, cross) in enumerate(zip(accuracies, crosses, strict=True), start=1):
        top = max(top, accuracy)
        kept = better(Score(epoch=epoch, accuracy=accuracy, cross_entropy=cross), kept, top, samples)
    return kept.epoch


def test_the_first_epoch_is_kept_whatever_it_scores():
    assert choose([0.0], [50.0], samples=10) == 1


def test_accuracies_that_samples_tell_apart_decide_alone():
    assert choose([0.70, 0.90, 0.80], [0.1, 0.9, 0.1], samples=100_000) == 2


def test_cross_entropy_decides_among_accuracies_that_few_samples_cannot_tell_apart():
    assert choose([1.00, 0.99, 0.99], [0.3, 0.2, 0.1], samples=100) == 3
    assert choose([1.00, 0.99, 0.99], [0.1, 0.2, 0.3], samples=100) == 1


def test_many_small_steps_do_not_lead_away_from_the_top():
    accuracies = [0.90 - 0.02 * step for step in range(10)]
    crosses = [1.0 - 0.05 * step for step in range(10)]
    assert accuracies[choose(accuracies, crosses, samples=100) - 1] >= 0.90 - standard_error(0.90, 100)


def test_a_new_top_leaves_behind_what_it_beats():
    assert choose([0.50, 0.90], [0.1, 0.5], samples=100) == 2


@pytest.mark.parametrize("accuracy", [0.0, 0.5, 1.0])
def test_the_standard_error_is_never_zero_and_shrinks(accuracy):
    assert standard_error(accuracy, 100) > standard_error(accuracy, 10_000) > 0


def test_the_standard_error_of_a_half():
    assert standard_error(0.5, 96) == pytest.approx(0.05)
