from __future__ import annotations

import dataclasses
import io
from itertools import pairwise

import pytest
import torch
from sparse_nets import Killed, Net, images, same, state_of
from torch import nn
from torch.optim.optimizer import _global_optimizer_post_hooks

from edgekit.distillation import checkpoints
from edgekit.distillation.trainer import Keeping, train
from edgekit.errors import ModelError
from edgekit.pruning.masks import sparse, sparsity_of
from edgekit.pruning.rising import early_epochs, share_after, sparsely
from edgekit.recipe_training import Sparse, Training

GRADUAL = Sparse(share=0.8, over=0.5)
SETTINGS = Training(epochs=4, batch_size=16, learning_rate=0.02, weight_decay=0.1, sparse=GRADUAL)
BATCHES = 3  # of an epoch


def zeros_in(net: nn.Module) -> dict[str, torch.Tensor]:
    return {layer.name: net.get_parameter(layer.name).detach() == 0 for layer in sparsity_of(net).layers}


def test_the_share_rises_as_the_paper_has_it():
    assert [share_after(GRADUAL, risen) for risen in (0, 0.5, 1)] == pytest.approx([0, 0.8 * 0.875, 0.8])


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_zeros_become_more_until_their_share_is_reached_and_stay(scope):
    net, found = Net(), []

    def look(step, done, total, note=""):
        found.append((done / total, sparsity_of(net), zeros_in(net)))

    settings = SETTINGS.model_copy(update={"sparse": GRADUAL.model_copy(update={"scope": scope})})
    train(net, images(48), images(12, seed=1), settings, seed=0, progress=look)
    steps = found[: BATCHES * settings.epochs]
    assert 0 < steps[0][1].share < 0.5 < steps[2][1].share < 0.75 < steps[5][1].share
    for done, sparsity, _ in steps:
        expected = 0.8 * (1 - (1 - min(1.0, done / 0.5)) ** 3)
        parts = sparsity.layers if scope == "layer" else [sparsity]
        for part in parts:
            assert part.share == pytest.approx(expected, abs=0.024 + 0.5 / part.weights)  # a rise is a hundredth
    for (_, _, before), (_, _, after) in pairwise(steps):
        assert all(bool(after[name][zero].all()) for name, zero in before.items())
    assert sparsity_of(net).share == pytest.approx(0.8, abs=0.003)


def test_the_running_mean_has_the_zeros_too(tmp_path):
    net, keeping = Net(), Keeping(checkpoint=tmp_path / "run.checkpoint")
    train(net, images(48), images(12, seed=1), SETTINGS.model_copy(update={"ema": 0.99}), seed=0, keeping=keeping)
    assert sparsity_of(net).share == pytest.approx(0.8, abs=0.003)
    state = torch.load(tmp_path / "run.checkpoint", weights_only=True)
    means = {name: state["average"][f"module.{name}"] for name in state["zeros"]["kept"]}
    assert all(torch.equal(means[name] != 0, kept) for name, kept in state["zeros"]["kept"].items())
    net, average, seen = Net(), Net(), []
    with sparsely(net, GRADUAL) as rising:
        nn.init.ones_(average.head.weight)
        for done in (0.1, 0.3, 0.5):
            rising.advance(done, [average])
            seen.append(torch.equal(average.head.weight == 0, net.head.weight == 0))
    assert seen == [True, True, True]


@pytest.mark.parametrize("every", [0.0, 1e9], ids=["within an epoch", "after epochs"])
@pytest.mark.parametrize("batch", [5, 8], ids=["as they rise", "afterwards"])
@pytest.mark.parametrize("fields", [{}, {"optimizer": "sgd", "ema": 0.9}], ids=["adamw", "momentum and average"])
def test_a_killed_training_ends_at_the_very_same_weights_and_zeros(tmp_path, monkeypatch, every, batch, fields):
    monkeypatch.setattr(checkpoints, "EVERY_SECONDS", every)
    keeping, settings = Keeping(checkpoint=tmp_path / "run.checkpoint"), SETTINGS.model_copy(update=fields)
    data = images(48), images(12, seed=1)

    def kill(step, done, total, note=""):
        if done == batch:
            raise Killed

    whole, killed, again = Net(), Net(), Net()
    history = train(whole, *data, settings, seed=3)
    with pytest.raises(Killed):
        train(killed, *data, settings, seed=3, keeping=keeping, progress=kill)
    seen: list[int] = []
    resumed = train(
        again, *data, settings, seed=3, keeping=keeping, progress=lambda step, done, total, note="": seen.append(done)
    )
    assert seen[0] == (batch if every == 0 else batch // BATCHES * BATCHES + 1)
    assert same(state_of(whole), state_of(again))
    assert dataclasses.replace(resumed, seconds=0) == dataclasses.replace(history, seconds=0)


def test_masks_are_taken_up_as_they_were_whatever_the_weights_have_become():
    net, other = Net(), Net()
    with sparsely(net, GRADUAL) as rising:
        rising.advance(0.25)
        zeros = zeros_in(net)
        with torch.no_grad():
            for name, zero in zeros.items():
                net.get_parameter(name)[~zero] = 0  # now nothing but the state tells them apart
        state = io.BytesIO()
        torch.save(rising.state_dict(), state)
    state.seek(0)
    with sparsely(other, GRADUAL) as rising:
        rising.load_state_dict(torch.load(state, weights_only=True))
        assert all(torch.equal(zero, zeros[name]) for name, zero in zeros_in(other).items())
        before = state_of(other)
        rising.advance(0.25)
        assert same(before, state_of(other))  # that far it had come


@pytest.mark.parametrize(("over", "epochs", "early"), [(0.0, 4, 0), (0.7, 10, 6), (0.5, 3, 1), (1.0, 4, 3)])
def test_epochs_before_all_zeros_are_there_are_not_kept(over, epochs, early):
    settings = SETTINGS.model_copy(update={"epochs": epochs, "sparse": Sparse(share=0.5, over=over)})
    assert early_epochs(settings) == early
    history = train(Net(), images(48), images(12, seed=1), settings, seed=0)
    assert history.best_epoch > early
    assert len(history.scores) == epochs


def test_patience_begins_when_all_zeros_are_there():
    settings = SETTINGS.model_copy(update={"epochs": 8, "patience": 1, "weight_decay": 0.0, "freeze": ("body",)})
    data = images(48), images(12, seed=1)

    def nothing(batch, logits):
        return logits.sum() * 0.0

    plain = train(Net(), *data, settings.model_copy(update={"sparse": None}), seed=0, loss=nothing)
    assert (plain.epochs, plain.best_epoch) == (2, 1)
    gradual = train(Net(), *data, settings, seed=0, loss=nothing)
    assert (gradual.epochs, gradual.best_epoch) == (5, 4)


def test_a_share_that_leaves_nothing_of_a_layer_is_told_before_a_first_step():
    net, seen = Net(), []
    with torch.no_grad():
        net.head.weight.mul_(1e-6)
    before = state_of(net)
    with pytest.raises(ModelError, match=r"(?s)leaves nothing of head.weight.*scope = 'layer'"):
        train(net, images(48), images(12), SETTINGS, seed=0, progress=lambda *step: seen.append(step))
    assert not seen
    assert same(before, state_of(net))


def test_weights_that_are_not_finite_are_left_for_the_loss_to_tell():
    net = Net()
    with sparsely(net, GRADUAL) as rising:
        with torch.no_grad():
            net.head.weight[0, 0] = torch.nan
        rising.advance(0.5)
        assert net.head.weight.isnan().sum() == 1
        assert rising.state_dict()["rises"] == 0
        with torch.no_grad():
            net.head.weight[0, 0] = 1
        rising.advance(0.5)
        assert sparsity_of(net).share == pytest.approx(0.8, abs=0.003)


def test_nothing_of_it_is_left_and_without_a_rise_zeros_are_there_at_once():
    net = Net()
    with sparsely(net, None) as rising:
        assert rising is None
    with sparsely(net, GRADUAL) as rising:
        rising.advance(0.1)
    assert not any(part._load_state_dict_post_hooks for part in net.modules())
    assert not any(parameter._post_accumulate_grad_hooks for parameter in net.parameters())
    assert not _global_optimizer_post_hooks
    net, masks = Net(), sparse(Net(), share=0.8)
    with sparsely(net, GRADUAL.model_copy(update={"over": 0.0})) as rising:
        assert rising is None
        assert all(torch.equal(zero, ~masks.kept[name]) for name, zero in zeros_in(net).items())
