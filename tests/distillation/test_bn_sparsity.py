"""Sparsity training: the L1 norm of the BatchNorm scales beside the loss."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgekit.distillation.trainer import train
from edgekit.errors import ModelError
from edgekit.recipe_training import Training

SLIM = Training(epochs=6, batch_size=16, learning_rate=0.05, optimizer="sgd", weight_decay=0.0)


def no_loss(batch, logits):
    return logits.sum() * 0.0  # so that the penalty alone moves anything


def test_scales_shrink_where_it_is_asked_for_and_classes_are_learnt_all_the_same(net, blobs):
    found = []
    for factor in (None, 0.1):
        module = net(width=32)
        settings = SLIM.model_copy(update={"bn_sparsity": factor, "learning_rate": 0.1, "epochs": 6})
        history = train(module, blobs(120), blobs(60, seed=1), settings, seed=0)
        assert history.scores[history.best_epoch - 1] > 0.95
        found.append(module.body[1].weight.detach().abs())
    plain, slim = found
    assert slim.sum() < 0.6 * plain.sum()
    assert slim.std() / slim.mean() > 2 * plain.std() / plain.mean()  # which is what tells channels apart


@pytest.mark.parametrize("accumulate", [1, 2, 3])
def test_one_step_has_the_penalty_once_however_many_batches_make_it(net, blobs, accumulate):
    fields = {"epochs": 1, "warmup": 0.0, "schedule": "constant", "bn_sparsity": 0.5, "accumulate": accumulate}
    module, data = net(), blobs(16 * accumulate)
    train(module, data, blobs(12), SLIM.model_copy(update=fields), seed=0, loss=no_loss)
    assert module.body[1].weight.tolist() == pytest.approx([1 - 0.05 * 0.5] * 16)
    assert torch.equal(module.head.weight, net().head.weight)


def test_losses_are_told_without_it(net, blobs):
    fields = {"learning_rate": 1e-12, "epochs": 2}  # nothing moves, so that the losses are those of the same weights
    losses, told = [], []
    for factor in (None, 10.0):
        settings = SLIM.model_copy(update=fields | {"bn_sparsity": factor})
        seen: list[str] = []
        history = train(
            net(), blobs(48), blobs(12), settings, seed=0, progress=lambda *step, seen=seen: seen.append(step[3])
        )
        losses.append(history.losses)
        told.append([text for text in seen if text.startswith("loss")])
    assert losses[0] == pytest.approx(losses[1])
    assert told[0] == told[1] != []


def test_scales_that_do_not_learn_are_refused_before_a_first_step(net, blobs):
    settings, seen = SLIM.model_copy(update={"bn_sparsity": 1e-4}), []
    frozen = settings.model_copy(update={"freeze": ("body",)})
    for module, chosen, why in (
        (nn.Sequential(nn.Linear(4, 3)), settings, "needs BatchNorm scales that learn, and Sequential has none"),
        (nn.Sequential(nn.BatchNorm1d(4, affine=False), nn.Linear(4, 3)), settings, "Sequential has none"),
        (net(), frozen, r"(?s)Net has none.*1 BatchNorms with scales, all frozen.*freeze fewer modules"),
    ):
        with pytest.raises(ModelError, match=why):
            train(module, blobs(48), blobs(12), chosen, seed=0, progress=lambda *step: seen.append(step))
    assert not seen


def test_frozen_scales_stay_and_the_others_shrink(blobs):
    module = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    settings = SLIM.model_copy(update={"bn_sparsity": 0.5, "freeze": ("0",)})
    train(module, blobs(48), blobs(12), settings, seed=0, loss=no_loss)
    assert (module[0].weight == 1).all()
    assert (module[2].weight < 1).all()
