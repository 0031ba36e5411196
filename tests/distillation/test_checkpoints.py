from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.distillation import checkpoints
from edgekit.distillation.checkpoints import random_state, set_random_state
from edgekit.distillation.students import distill
from edgekit.distillation.trainer import Keeping, train
from edgekit.errors import TrainingError
from edgekit.recipe_augmentation import Augmentation
from edgekit.recipe_training import Distillation, FeatureMatch, Schedule, Schedules, Training

SETTINGS = Training(epochs=4, batch_size=16, learning_rate=0.02)


class Killed(BaseException):
    """Ends a training as a signal would: nothing catches it."""


def killed_at(batch: int):
    def progress(step, done, total, note=""):
        if done == batch:
            raise Killed

    return progress


def state_of(module: nn.Module) -> list[torch.Tensor]:
    return [value.clone() for value in module.state_dict().values()]


def same(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("every", [0.0, 1e9], ids=["within an epoch", "after epochs"])
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"optimizer": "sgd", "accumulate": 2},
        {"ema": 0.9, "clip_norm": 0.5},
        {"augmentation": Augmentation(noise=0.1, mixup=0.4)},
        {"mixed_precision": "bf16"},
    ],
    ids=["plain", "accumulating", "averaging", "augmenting", "bf16"],
)
def test_a_killed_training_ends_at_the_very_same_weights(net, blobs, tmp_path, monkeypatch, every, fields):
    monkeypatch.setattr(checkpoints, "EVERY_SECONDS", every)
    settings = SETTINGS.model_copy(update=fields)
    data, keeping = blobs(100), Keeping(checkpoint=tmp_path / "run.checkpoint")

    def run(module: nn.Module, **options):
        from edgekit.distillation.students import view_of

        view = view_of(settings, module, data, seed=3, base=None)
        return train(module, data, blobs(30, seed=1), settings, seed=3, view=view, **options)

    whole, killed, again = net(), net(), net(seed=5)
    history = run(whole)
    with pytest.raises(Killed):
        run(killed, keeping=keeping, progress=killed_at(18))
    seen = []
    resumed = run(again, keeping=keeping, progress=lambda step, done, total, note="": seen.append(done))
    assert seen[0] > (17 if every == 0 else 14)
    assert same(state_of(whole), state_of(again))
    assert dataclasses.replace(resumed, seconds=0) == dataclasses.replace(history, seconds=0)


def test_what_the_loss_has_learned_is_taken_up_too(net, blobs, tmp_path):
    """Projectors and a schedule that follows the gap have a state of their own."""
    teacher = net(width=32, seed=7)
    train(teacher, blobs(90), blobs(30, seed=1), SETTINGS, seed=0)
    settings = Distillation(
        epochs=4,
        batch_size=16,
        learning_rate=0.02,
        features=(FeatureMatch(loss="hints", student=("body",), teacher=("body",)),),
        schedules=Schedules(soft_weight=Schedule(end=0.1, kind="gap")),
    )
    keeping = Keeping(checkpoint=tmp_path / "run.checkpoint")
    pair = (blobs(90), blobs(30, seed=1), settings)
    whole, _ = distill(teacher, net(6), *pair, seed=1)
    with pytest.raises(Killed):
        distill(teacher, net(6), *pair, seed=1, keeping=keeping, progress=killed_at(15))
    again, _ = distill(teacher, net(6, seed=9), *pair, seed=1, keeping=keeping)
    assert same(state_of(whole), state_of(again))


@pytest.mark.parametrize("damage", [b"", b"no archive", None])
def test_a_damaged_checkpoint_is_told(net, blobs, tmp_path, damage):
    path = tmp_path / "run.checkpoint"
    with pytest.raises(Killed):
        train(net(), blobs(64), blobs(6), SETTINGS, seed=0, keeping=Keeping(checkpoint=path), progress=killed_at(6))
    path.write_bytes(path.read_bytes()[:-200] if damage is None else damage)
    with pytest.raises(TrainingError, match=r"(?s)run.checkpoint: the checkpoint of an earlier run is damaged.*remove"):
        train(net(), blobs(64), blobs(6), SETTINGS, seed=0, keeping=Keeping(checkpoint=path))


def test_a_checkpoint_that_would_run_code_is_refused(net, blobs, tmp_path):
    path = tmp_path / "run.checkpoint"

    class Evil:
        def __reduce__(self):
            return (path.with_name("ran").touch, ())

    torch.save({"place": Evil()}, path)
    with pytest.raises(TrainingError, match="is damaged"):
        train(net(), blobs(64), blobs(6), SETTINGS, seed=0, keeping=Keeping(checkpoint=path))
    assert not path.with_name("ran").exists()


def test_the_last_good_checkpoint_is_named_and_kept_where_the_loss_is_nan(net, blobs, tmp_path):
    clean, path = blobs(64), tmp_path / "run.checkpoint"
    calls = []

    def fetch(indices):
        calls.append(1)
        batch = clean.fetch(indices)
        return {"input": batch["input"] * (np.nan if len(calls) > 12 else 1)}

    dirty = dataclasses.replace(clean, fetch=fetch)
    with pytest.raises(TrainingError, match=r"(?s)epoch 3, batch \d: the loss is nan.*kept in run.checkpoint"):
        train(net(), dirty, blobs(6), SETTINGS, seed=0, keeping=Keeping(checkpoint=path))
    kept = torch.load(path, weights_only=True)
    assert kept["place"]["epoch"] == 3
    assert all(torch.isfinite(value).all() for value in kept["module"].values())


def test_generators_go_on_where_they_were():
    def draw():
        import random

        return torch.rand(3).tolist(), np.random.rand(3).tolist(), random.random(), np.random.randn()

    np.random.randn()
    state = random_state()
    first = draw()
    assert draw() != first
    set_random_state(state)
    assert draw() == first
