"""What several teachers answer together."""

from __future__ import annotations

import pytest
import torch
from conftest import Net

from edgekit.distillation.panels import COMBINE, Panel, confidence, mean, normalised
from edgekit.errors import TrainingError


def logits(seed: int) -> torch.Tensor:
    return torch.randn(6, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2


@pytest.mark.parametrize("name", COMBINE)
def test_teachers_that_agree_answer_as_one(name):
    one = logits(0)
    together = COMBINE[name]([one, one + 3.0], (0.3, 0.7))
    torch.testing.assert_close(together.softmax(1), one.softmax(1))


def test_the_mean_is_the_geometric_mean_of_the_distributions():
    a, b = logits(0), logits(1)
    product = a.softmax(1) ** 0.25 * b.softmax(1) ** 0.75
    torch.testing.assert_close(mean([a, b], (0.25, 0.75)).softmax(1), product / product.sum(1, keepdim=True))


def test_a_teacher_that_knows_nothing_counts_for_little():
    """Its entropy is log 5, that of the other nearly 0: shares of 1/6 and 5/6."""
    sure = torch.nn.functional.one_hot(torch.arange(5), 5).double() * 50
    unsure = torch.zeros(5, 5).double()
    found = confidence([sure, unsure], (0.5, 0.5))
    expected = (5 * sure.log_softmax(1) + unsure.log_softmax(1)) / 6
    torch.testing.assert_close(found, expected)


def test_shares_are_normalised():
    assert normalised([1.0, 3.0]) == (0.25, 0.75)
    with pytest.raises(TrainingError, match="no teacher has a share") as caught:
        normalised([0.0, 0.0])
    assert caught.value.found == "shares 0, 0"


def test_a_panel_is_a_module_of_its_teachers():
    teachers = [Net(seed=1).eval(), Net(seed=2).eval()]
    x = torch.randn(3, 4)
    panel = Panel(teachers, [1.0, 1.0], "mean").eval()
    expected = sum(teacher(x).log_softmax(1) for teacher in teachers) / 2
    torch.testing.assert_close(panel(x), expected)
    assert len(list(panel.parameters())) == 2 * len(list(teachers[0].parameters()))
