from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional

from edgekit.distillation.batch import Batch
from edgekit.distillation.forward import forward
from edgekit.distillation.losses import mixed, soft_targets
from edgekit.distillation.matching import Matches
from edgekit.distillation.students import distill
from edgekit.distillation.taught import Cohort, Teaching
from edgekit.distillation.trainer import train
from edgekit.errors import DataError, TrainingError
from edgekit.recipe_training import Distillation, Training

RNG = np.random.default_rng(4)


def tensor(*shape: int) -> torch.Tensor:
    return torch.from_numpy(RNG.standard_normal(shape).astype(np.float32))


def a_batch(labels: torch.Tensor | None, answers: torch.Tensor, count: int = 4) -> Batch:
    inputs = {"input": tensor(count, 4)}
    return Batch(inputs=inputs, labels=labels, indices=np.arange(count), view=0, share=0.0, answers=answers)


def test_samples_without_a_label_count_for_the_soft_loss_alone():
    logits, labels = tensor(4, 3), torch.tensor([0, -1, 2, -1])
    value = mixed(lambda: torch.tensor(5.0), logits, labels, 0.25)
    hard = functional.cross_entropy(logits[[0, 2]], labels[[0, 2]])
    assert value == pytest.approx(float(0.25 * 5 + 0.75 * hard), rel=1e-6)
    nothing = mixed(lambda: torch.tensor(5.0), logits, torch.full((4,), -1), 0.25)
    assert float(nothing) == pytest.approx(1.25)


def test_shares_of_classes_are_learned_as_they_are():
    logits, shares = tensor(2, 3), torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.2, 0.8]])
    expected = -(shares * logits.log_softmax(1)).sum(1).mean()
    assert float(mixed(lambda: torch.zeros(()), logits, shares, 0.0)) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("labels", [torch.tensor([0, -1, 1, 2]), torch.eye(4, 3)], ids=["unlabelled", "mixed"])
def test_a_loss_that_needs_classes_says_so(labels):
    settings = Distillation(soft="decoupled")
    teaching = Teaching(settings, Matches(()), None)
    with pytest.raises(TrainingError, match="this loss needs one class of every sample"):
        teaching(a_batch(labels, tensor(4, 3)), tensor(4, 3))


def test_labels_on_some_samples_help_beyond_the_teacher(net, blobs):
    """A teacher that knows two classes of three, and a label on every fourth sample of the third."""
    data = blobs(120)
    teacher = net(width=32, seed=7)
    known = data.subset(np.flatnonzero(data.targets < 2))
    train(teacher, known, known, Training(epochs=6, batch_size=16, learning_rate=0.02), seed=0)
    few = np.where((data.targets == 2) & (np.arange(120) % 4 == 2), 2, -1)
    settings = Distillation(epochs=12, batch_size=16, learning_rate=0.05, soft_weight=0.3)
    partly = dataclasses.replace(data, targets=few)
    student, _ = distill(teacher, net(seed=3), partly, blobs(60, seed=1), settings, seed=0)
    test = blobs(60, seed=2)
    found = forward(student, test)["output"].argmax(1)
    blind = forward(teacher, test)["output"].argmax(1)
    third = test.targets == 2
    assert not (blind == test.targets)[third].any()
    assert (found == test.targets)[third].mean() > 0.75


def test_peers_teach_each_other_as_in_deep_mutual_learning(net):
    """With no soft loss of the teacher: the sum of every one's cross-entropy and divergence from the others."""
    answers, labels = tensor(4, 3), torch.tensor([0, 1, 2, 0])
    teaching = Teaching(Distillation(soft_weight=0.0), Matches(()), None)
    peers = [net(seed=1).eval(), net(seed=2).eval()]
    cohort = Cohort(teaching, peers, weight=0.5)
    batch = a_batch(labels, answers)
    logits = [tensor(4, 3), *(peer(batch.inputs["input"]) for peer in peers)]
    expected = sum(functional.cross_entropy(each, labels) for each in logits)
    for i, each in enumerate(logits):
        expected = expected + 0.5 * sum(soft_targets(each, o, 1.0) for j, o in enumerate(logits) if j != i) / 2
    found = cohort(batch, logits[0]).item()
    assert found == pytest.approx(expected.item(), rel=1e-5)


def test_a_cohort_learns_together(net, blobs):
    teacher, peer = net(width=32, seed=7), net(width=6, seed=8)
    train(teacher, blobs(90), blobs(30, seed=1), Training(epochs=6, batch_size=16, learning_rate=0.02), seed=0)
    before = peer.head.weight.clone()
    settings = Distillation(epochs=12, batch_size=16, learning_rate=0.05)
    _, history = distill(teacher, net(6), blobs(90), blobs(30, seed=1), settings, seed=0, peers=[peer])
    assert history.scores[-1] > 0.95
    assert not torch.equal(peer.head.weight, before)
    assert float((forward(peer, blobs(60, seed=2))["output"].argmax(1) == blobs(60, seed=2).targets).mean()) > 0.9


def test_a_label_below_minus_one_is_still_wrong(net, blobs):
    data = dataclasses.replace(blobs(20), targets=np.full(20, -2))
    teacher = net(width=32, seed=7)
    with pytest.raises(DataError, match=r"(?s)label -2 at sample 0.*-1 for no label"):
        distill(teacher, net(), data, dataclasses.replace(blobs(6), targets=None), Distillation(), seed=0)
