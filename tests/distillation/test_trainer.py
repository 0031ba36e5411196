from __future__ import annotations

import dataclasses
import random

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.data import Samples
from edgekit.distillation.forward import forward
from edgekit.distillation.trainer import train
from edgekit.errors import DataError, TrainingError
from edgekit.recipe_training import Head, Training

FAST = Training(epochs=6, batch_size=16, learning_rate=0.02)


def accuracy(module: nn.Module, samples: Samples) -> float:
    return float((forward(module, samples)["output"].argmax(1) == samples.targets).mean())


def with_labels(samples: Samples, labels: np.ndarray) -> Samples:
    return dataclasses.replace(samples, targets=labels)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_learns_separable_classes(net, blobs, optimizer):
    module = net()
    settings = FAST.model_copy(update={"optimizer": optimizer, "learning_rate": 0.05})
    history = train(module, blobs(120), blobs(30, seed=1), settings, seed=0)
    assert accuracy(module, blobs(60, seed=2)) > 0.95
    assert history.losses[-1] < history.losses[0]
    assert history.epochs == len(history.scores) == len(history.losses) == 6
    assert not history.stopped_early
    assert not any(part.training for part in module.modules())


def test_one_seed_one_student_and_another_seed_another(net, blobs):
    def weights(seed: int) -> list[torch.Tensor]:
        module = net()
        train(module, blobs(50), blobs(12, seed=1), FAST, seed=seed)
        return list(module.state_dict().values())

    first, again, other = weights(3), weights(3), weights(4)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_random_augmentation_follows_the_seed(net):
    x, labels = np.eye(3, 4, dtype=np.float32).repeat(10, 0), np.arange(3).repeat(10)

    def fetch(indices: np.ndarray) -> dict[str, np.ndarray]:
        noise = np.random.randn(len(indices), 4) * random.random() + torch.randn(1).item()
        return {"input": (x[indices] + 0.1 * noise).astype(np.float32)}

    samples = Samples(name="noisy", count=30, fetch=fetch, targets=labels)
    first, again = net(), net()
    train(first, samples, samples, FAST, seed=1)
    train(again, samples, samples, FAST, seed=1)
    assert torch.equal(first.head.weight, again.head.weight)


def test_the_callers_random_state_stays(net, blobs):
    def draw() -> tuple[float, float, float]:
        return torch.rand(1).item(), float(np.random.rand()), random.random()

    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    expected = draw()
    torch.manual_seed(5), np.random.seed(5), random.seed(5)
    train(net(), blobs(20), blobs(6), FAST, seed=9)
    assert draw() == expected


def test_the_best_epoch_is_kept(net, blobs):
    """After two epochs other labels are taught, so later weights are worse."""
    module, steps = net(), []

    def loss(batch, logits):
        steps.append(1)
        return torch.nn.functional.cross_entropy(logits, batch.labels if len(steps) <= 16 else (batch.labels + 1) % 3)

    validation = blobs(60, seed=1)
    settings = FAST.model_copy(update={"epochs": 8, "learning_rate": 0.05})
    history = train(module, blobs(128), validation, settings, seed=0, loss=loss)
    assert history.scores[-1] < 0.5
    assert history.best_epoch <= 2
    assert accuracy(module, validation) == pytest.approx(history.scores[history.best_epoch - 1])
    assert accuracy(module, validation) > 0.95


def test_patience_ends_a_run_that_gets_no_better(net, blobs):
    settings = FAST.model_copy(update={"epochs": 50, "patience": 3})

    def loss(batch, logits):
        return logits.sum() * 0.0  # nothing is learnt

    module = nn.Sequential(nn.Linear(4, 3))
    history = train(module, blobs(20), blobs(6), settings.model_copy(update={"weight_decay": 0.0}), seed=0, loss=loss)
    assert history.stopped_early
    assert history.epochs == history.best_epoch + 3


def test_frozen_parts_keep_weights_and_statistics(net, blobs):
    module = net()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    train(module, blobs(60), blobs(12), FAST.model_copy(update={"freeze": ("body",)}), seed=0)
    changed = {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"head.weight", "head.bias"}
    assert all(p.requires_grad for p in module.parameters())


def test_a_rate_of_zero_keeps_weights(net, blobs):
    module = net()
    before = module.body[0].weight.clone()
    train(module, blobs(60), blobs(12), FAST.model_copy(update={"rates": {"body.0": 0.0}}), seed=0)
    assert torch.equal(module.body[0].weight, before)


def test_a_new_head_is_put_on_before_training(net, blobs):
    module = net(classes=7)
    settings = FAST.model_copy(update={"head": Head(module="head", classes=3)})
    train(module, blobs(90), blobs(12, seed=1), settings, seed=0)
    assert module.head.out_features == 3
    assert accuracy(module, blobs(30, seed=2)) > 0.9


@pytest.mark.parametrize("count", [17, 33])
def test_a_last_batch_of_one_sample_is_left_out_for_a_batch_norm(net, blobs, count):
    seen = []
    train(net(), blobs(count), blobs(6), FAST, seed=0, progress=lambda *told: seen.append(told[1:3]))
    steps = 6 * (count // 16)
    assert seen[:steps] == [(done + 1, steps) for done in range(steps)]


def test_without_batch_norms_every_sample_is_used(blobs):
    module = nn.Sequential(nn.Linear(4, 3))
    seen = []
    settings = FAST.model_copy(update={"epochs": 1})
    train(module, blobs(17), blobs(6), settings, seed=0, progress=lambda *told: seen.append(told))
    assert seen[-1][:3] == ("train teacher", 2, 2)


def test_fewer_samples_than_a_batch_are_fine(net, blobs):
    assert train(net(), blobs(5), blobs(3), FAST, seed=0).epochs == 6


def test_progress_tells_loss_and_validation(net, blobs):
    notes = []
    train(net(), blobs(32), blobs(6), FAST, seed=0, name="student", progress=lambda *told: notes.append(told))
    assert notes[0][0] == "train student"
    assert notes[0][3].startswith("loss ")
    assert "validation" not in notes[0][3]
    assert ", validation " in notes[-2][3]


def test_a_loss_that_is_not_finite_stops_at_its_batch_with_the_best_weights(net, blobs):
    module, steps = net(), []
    kept = {}

    def loss(batch, logits):
        steps.append(1)
        value = torch.nn.functional.cross_entropy(logits, batch.labels)
        return value * float("nan") if len(steps) == 6 else value

    def progress(step, done, total, note=""):
        if done == 4:  # the last batch of epoch 2: what it leaves is scored and, being better, kept
            kept.update({name: value.clone() for name, value in module.state_dict().items()})

    data = blobs(32)
    with pytest.raises(TrainingError, match=r"(?s)student: epoch 3, batch 2: the loss is nan.*the loss is not"):
        train(module, data, data, FAST, seed=0, loss=loss, progress=progress, name="student")
    assert all(torch.equal(value, kept[name]) for name, value in module.state_dict().items())
    assert not module.training


def test_nan_in_the_data_is_named(net, blobs):
    clean = blobs(32)
    x = clean.raw(range(32))["input"].copy()
    x[9, 1] = np.nan
    dirty = dataclasses.replace(clean, fetch=lambda indices: {"input": x[indices]})
    with pytest.raises(TrainingError, match=r"(?s)epoch 1, batch \d: the loss is nan.*input 'input' has NaN"):
        train(net(), dirty, blobs(6), FAST, seed=0)
    with pytest.raises(TrainingError, match=r"epoch 1: the outputs on the validation samples have NaN"):
        train(net(), clean, dirty, FAST, seed=0)


def test_diverging_outputs_are_told_from_bad_data(blobs):
    module = nn.Sequential(nn.Linear(4, 3))
    with torch.no_grad():
        module[0].weight.fill_(float("inf"))
    with pytest.raises(TrainingError, match="the module's outputs have NaN"):
        train(module, blobs(32), blobs(6), FAST, seed=0)


@pytest.mark.parametrize("label", [3, -1])
def test_a_label_outside_the_classes_is_named(net, blobs, label):
    data = blobs(20)
    labels = data.targets.copy()
    labels[7] = label
    for pair in [(with_labels(data, labels), blobs(6)), (blobs(6), with_labels(data, labels))]:
        with pytest.raises(DataError, match=rf"(?s)label {label} at sample 7.*0 to 2, for 3 outputs"):
            train(net(), *pair, FAST, seed=0)


@pytest.mark.parametrize("labels", [np.zeros(20), np.zeros((20, 1), int), np.zeros(19, int)])
def test_targets_that_are_not_class_numbers_are_refused(net, blobs, labels):
    with pytest.raises(DataError, match=r"the targets are not class numbers"):
        train(net(), with_labels(blobs(20), labels), blobs(6), FAST, seed=0)


def test_missing_labels_are_told(net, blobs):
    with pytest.raises(DataError, match=r"(?s)no labels.*soft_weight = 1\.0"):
        train(net(), blobs(20, labelled=False), blobs(6), FAST, seed=0)


def test_empty_sets_are_told_apart(net, blobs):
    with pytest.raises(DataError, match="blobs: no training samples"):
        train(net(), blobs(0), blobs(6), FAST, seed=0)
    with pytest.raises(DataError, match="no validation samples"):
        train(net(), blobs(6), blobs(0), FAST, seed=0)


@pytest.mark.parametrize(("count", "batch_size"), [(1, 16), (20, 1)])
def test_batches_of_one_sample_do_not_suit_a_batch_norm(net, blobs, count, batch_size):
    settings = FAST.model_copy(update={"batch_size": batch_size})
    with pytest.raises(TrainingError, match="cannot learn from batches of one sample"):
        train(net(), blobs(count), blobs(6), settings, seed=0)


def test_data_of_another_shape_is_told(blobs):
    with pytest.raises(TrainingError, match=r"input float32\[2, 4\]"):
        train(nn.Sequential(nn.Linear(5, 3)), blobs(20), blobs(6), FAST, seed=0)
