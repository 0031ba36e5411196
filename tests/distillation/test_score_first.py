"""A training that may keep the weights that it began with."""

from __future__ import annotations

import pytest
import torch

from edgekit.distillation.trainer import Keeping, train
from edgekit.recipe_training import Training

FAST = Training(epochs=3, batch_size=16, learning_rate=0.02)


def states(module: torch.nn.Module) -> list[torch.Tensor]:
    return [value.clone() for value in module.state_dict().values()]


def same(first: list[torch.Tensor], second: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.fixture
def trained(net, blobs):
    module = net()
    train(module, blobs(90), blobs(30, seed=1), FAST, seed=0)
    return module


WILD = Training(epochs=3, batch_size=16, learning_rate=50.0, optimizer="sgd", weight_decay=0.0, warmup=0.0)


def test_what_it_began_with_is_kept_where_every_epoch_is_worse(trained, blobs):
    before = states(trained)
    history = train(trained, blobs(90), blobs(30, seed=1), WILD, seed=0, score_first=True)
    assert (history.best_epoch, history.first_score) == (0, 1.0)
    assert max(history.scores) < 1.0
    assert same(states(trained), before)


def test_without_the_keyword_the_best_epoch_is_kept_however_bad(trained, blobs):
    before = states(trained)
    history = train(trained, blobs(90), blobs(30, seed=1), WILD, seed=0)
    assert history.best_epoch > 0
    assert history.first_score is None
    assert not same(states(trained), before)


def test_an_epoch_that_does_better_is_kept_and_the_training_is_the_same(net, blobs):
    plain, scored = net(), net()
    usual = train(plain, blobs(90), blobs(30, seed=1), FAST, seed=0)
    history = train(scored, blobs(90), blobs(30, seed=1), FAST, seed=0, score_first=True)
    assert history.best_epoch == usual.best_epoch > 0
    assert history.first_score < max(history.scores)
    assert history.losses == usual.losses
    assert same(states(plain), states(scored))


def test_patience_counts_from_the_start(trained, blobs):
    patient = WILD.model_copy(update={"patience": 1})
    history = train(trained, blobs(90), blobs(30, seed=1), patient, seed=0, score_first=True)
    assert (history.epochs, history.best_epoch, history.stopped_early) == (1, 0, True)


def test_one_that_was_killed_still_keeps_what_it_began_with(trained, blobs, tmp_path):
    before, keeping = states(trained), Keeping(checkpoint=tmp_path / "kept")

    def kill(step: str, done: int, total: int, note: str = "") -> None:
        if done == 13:  # in the third epoch: the checkpoint is of the end of the second
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(
            trained, blobs(90), blobs(30, seed=1), WILD, seed=0, score_first=True, keeping=keeping, progress=kill
        )  # fmt: skip
    assert keeping.checkpoint.exists()
    for value in trained.state_dict().values():
        value.fill_(0)  # a new process has the weights from the checkpoint alone
    history = train(trained, blobs(90), blobs(30, seed=1), WILD, seed=0, score_first=True, keeping=keeping)
    assert (history.best_epoch, history.first_score, len(history.scores)) == (0, 1.0, 3)
    assert same(states(trained), before)
