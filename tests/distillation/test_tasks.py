"""Several tasks: each loss by its equation, and weights that are learnt."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from edgekit.data import Samples
from edgekit.distillation.batch import Batch, cross_entropy
from edgekit.distillation.forward import forward
from edgekit.distillation.losses import soft_targets
from edgekit.distillation.schedules import Course
from edgekit.distillation.students import distill
from edgekit.distillation.tasks import Tasks, learning
from edgekit.distillation.trainer import train
from edgekit.errors import DataError, TrainingError
from edgekit.recipe_augmentation import Augmentation
from edgekit.recipe_training import Distillation, TaskSpec, Training

VALUES = TaskSpec(output="height", target="height", kind="values")
CLASSES = TaskSpec(output="side", target="side")


class Two(nn.Module):
    """Logits of three classes, a value and a side."""

    def __init__(self, seed: int = 0, width: int = 16) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.body = nn.Sequential(nn.Linear(4, width), nn.ReLU())
        self.head, self.height, self.side = nn.Linear(width, 3), nn.Linear(width, 1), nn.Linear(width, 2)

    def forward(self, x):
        x = self.body(x)
        return {"class": self.head(x), "height": self.height(x), "side": self.side(x)}


def points(count: int, seed: int = 0) -> Samples:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((count, 4)).astype(np.float32)
    further = {"height": (x[:, :1] * 2 - x[:, 1:2]).astype(np.float32), "side": (x[:, 2] > 0).astype(np.int64)}
    labels = np.digitize(x[:, 3], [-0.4, 0.4])
    return Samples(name="points", count=count, fetch=lambda i: {"x": x[i]}, targets=labels, further=further)


def a_batch(count: int = 5) -> tuple[Batch, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    torch.manual_seed(1)
    ours, theirs = ({"height": torch.randn(count, 1), "side": torch.randn(count, 2)} for _ in range(2))
    further = {"height": torch.randn(count, 1), "side": torch.tensor([0, 1, 1, 0, 1])}
    labels = torch.tensor([0, 1, 2, 0, 1])
    batch = Batch(inputs={}, labels=labels, indices=np.arange(count), view=0, share=0.0, further=further)
    return batch, ours, theirs


def test_learnt_weights_are_those_of_kendall():
    """Equation 7 for values, equation 10 for classes, at log-variances that are not zero."""
    batch, ours, theirs = a_batch()
    logits = torch.randn(5, 3)
    tasks = Tasks(cross_entropy, [VALUES, CLASSES], ours, theirs, None)
    s = torch.tensor([0.3, -0.7, 1.1])
    tasks.log_variances.data.copy_(s)
    mse = functional.mse_loss(ours["height"], batch.further["height"])
    losses = [
        functional.cross_entropy(logits, batch.labels),
        mse / 2,
        functional.cross_entropy(ours["side"], batch.further["side"]),
    ]
    sigma = torch.exp(s / 2)
    expected = sum(loss / scale**2 + torch.log(scale) for loss, scale in zip(losses, sigma, strict=True))
    assert tasks(batch, logits).item() == pytest.approx(expected.item(), rel=1e-6)


def test_a_learnt_variance_settles_at_what_the_loss_is():
    """The minimum over s of c exp(-s) L + s/2 is at log(2 c L): for values the mean square error itself."""
    batch, ours, theirs = a_batch()
    tasks = Tasks(cross_entropy, [VALUES], ours, theirs, None)
    logits = torch.randn(5, 3)
    optimizer = torch.optim.SGD(tasks.parameters(), lr=0.2)
    for _ in range(500):
        optimizer.zero_grad()
        tasks(batch, logits).backward()
        optimizer.step()
    first, second = tasks.log_variances.tolist()
    assert first == pytest.approx(math.log(2 * float(functional.cross_entropy(logits, batch.labels))), abs=1e-3)
    mse = float(functional.mse_loss(ours["height"], batch.further["height"]))
    assert second == pytest.approx(math.log(mse), abs=1e-3)


def test_given_weights_are_factors_and_nothing_is_learnt():
    batch, ours, theirs = a_batch()
    logits = torch.randn(5, 3)
    tasks = Tasks(cross_entropy, [CLASSES.model_copy(update={"weight": 0.25})], ours, theirs, None)
    expected = functional.cross_entropy(logits, batch.labels) + 0.25 * functional.cross_entropy(
        ours["side"], batch.further["side"]
    )
    assert tasks(batch, logits).item() == pytest.approx(expected.item(), rel=1e-6)
    assert not list(tasks.parameters())


def test_the_teacher_teaches_further_tasks_too():
    batch, ours, theirs = a_batch()
    course = Course(Distillation(temperature=3.0, soft_weight=0.6))
    specs = [task.model_copy(update={"weight": 1.0}) for task in (VALUES, CLASSES)]
    logits = torch.randn(5, 3)
    found = Tasks(cross_entropy, specs, ours, theirs, course)(batch, logits)
    further = batch.further
    expected = functional.cross_entropy(logits, batch.labels)
    expected += 0.6 * functional.mse_loss(ours["height"], theirs["height"])
    expected += 0.4 * functional.mse_loss(ours["height"], further["height"])
    expected += 0.6 * soft_targets(ours["side"], theirs["side"], 3.0)
    expected += 0.4 * functional.cross_entropy(ours["side"], further["side"])
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    alone = [task.model_copy(update={"taught": False}) for task in specs]
    hard = Tasks(cross_entropy, alone, ours, {}, course)(batch, logits)
    assert hard.item() != pytest.approx(found.item())


def test_all_tasks_are_learnt_and_passed_on():
    data, settings = points(400), {"batch_size": 32, "learning_rate": 0.02}
    teacher, student = Two(7, width=32), Two(3)
    with learning(cross_entropy, [VALUES, CLASSES], data, teacher, Training(epochs=8, **settings)) as loss:
        train(teacher, data, points(60, 1), Training(epochs=8, **settings), seed=0, loss=loss)
    distill(teacher, student, data, points(60, 1), Distillation(epochs=8, **settings), seed=0, tasks=[VALUES, CLASSES])
    test = points(200, 2)
    for model in (teacher, student):
        found = forward(model, test)
        assert np.sqrt(np.square(found["height"] - test.further["height"]).mean()) < 0.5
        assert (found["side"].argmax(1) == test.further["side"]).mean() > 0.9
        assert (found["class"].argmax(1) == test.targets).mean() > 0.8


@pytest.mark.parametrize(
    ("task", "error", "message"),
    [
        (
            VALUES.model_copy(update={"output": "heigth"}),
            TrainingError,
            "(?s)no output .heigth..*did you mean",
        ),
        (VALUES.model_copy(update={"output": "side"}), TrainingError, "not shaped like its target"),
        (CLASSES.model_copy(update={"target": "many"}), DataError, "holds a class that output 'side' does not have"),
    ],
)
def test_what_does_not_fit_is_told_before_training(task, error, message):
    data = points(20)
    data = dataclasses.replace(data, further={**data.further, "many": np.arange(20)})
    with pytest.raises(error, match=message), learning(cross_entropy, [task], data, Two(), Training()):
        raise AssertionError("training began")


def test_augmentation_that_would_part_samples_from_targets_is_refused():
    data = points(20)
    data = dataclasses.replace(data, further={"map": np.zeros((20, 1, 6, 6), np.float32), **data.further})
    spread = TaskSpec(output="map", target="map", kind="values")
    for task, augmentation in ((VALUES, Augmentation(mixup=0.2)), (spread, Augmentation(flip=True))):
        begun = learning(cross_entropy, [task], data, Two(), Training(augmentation=augmentation))
        with pytest.raises(TrainingError, match="not the targets"), begun:
            raise AssertionError("training began")
