"""Importance of channels by what a loss would lose."""

import pytest
import torch
from nets_to_cut import INPUTS, make_net
from nets_to_prune import ROWS, batch, evidence, perceptron
from torch import nn

from edgekit.errors import DataError, TrainingError
from edgekit.pruning.criteria import Evidence
from edgekit.pruning.scores import score_channels

WEIGHTS = torch.tensor([1.0, -2.0, 0.5])


def linear_loss(given, logits):
    """A loss whose gradient is known: it does not depend on the logits."""
    return (logits * WEIGHTS).sum()


def linear():
    """Two linear layers without biases, as one product of matrices."""
    net = perceptron(5, bias=False)
    net[1] = nn.Identity()
    return net


def scored(net, criterion, batches, loss=linear_loss):
    found = score_channels(net, {"input": ROWS}, criterion=criterion, evidence=Evidence(batches=batches, loss=loss))
    return torch.tensor(found[0].importance, dtype=torch.float64)


def known(net):
    """Values of the hidden channels ``[n, 5]``, and the gradient of the loss by each, ``[5]``."""
    first, second = (net[i].weight.detach().double() for i in (0, 2))
    return ROWS.double() @ first.T, WEIGHTS.double() @ second


def test_taylor_is_the_squared_product_of_gradient_and_weight():
    net = linear()
    hidden, gradient = known(net)
    change = (hidden * gradient).sum(0)  # of the loss without the channel: the sum over weights of gradient · weight
    assert torch.allclose(scored(net, "taylor", [batch(ROWS)]), 2 * change.square()), "of the layer before and after"


def test_taylor_averages_batches_after_squaring():
    net = linear()
    hidden, gradient = known(net)
    change = (hidden * gradient).view(2, 2, 5).sum(1)
    found = scored(net, "taylor", [batch(ROWS[:2]), batch(ROWS[2:])])
    assert torch.allclose(found, 2 * change.square().mean(0))


def test_hessian_is_half_the_mean_over_samples_of_the_squared_products():
    net = linear()
    hidden, gradient = known(net)
    first, second = (net[i].weight.detach().double() for i in (0, 2))
    before = (first * ROWS.double()[:, None] * gradient[:, None]).square().sum(2).mean(0)  # [n, 5, 4]
    after = (second * WEIGHTS.double()[:, None] * hidden[:, None]).square().sum(1).mean(0)  # [n, 3, 5]
    expected = (before + after) / 2
    assert torch.allclose(scored(net, "hessian", [batch(ROWS)]), expected)
    halves = [batch(ROWS[:2]), batch(ROWS[2:])]
    assert torch.allclose(scored(net, "hessian", halves), expected), "however samples are batched"


def test_biases_count_where_a_channel_is_given():
    net = nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 3, bias=False))
    with torch.no_grad():
        net[0].weight.zero_()
        net[0].bias.copy_(torch.tensor([0.5, 0.0]))
    found = scored(net, "taylor", [batch(ROWS)])
    gradient = WEIGHTS.double() @ net[1].weight.detach().double()
    assert torch.allclose(found, torch.tensor([2 * (4 * 0.5 * gradient[0]) ** 2, 0.0], dtype=torch.float64))


def test_a_gate_counts_in_every_layer_of_a_group():
    net, inputs = make_net("resnet")
    found = {
        each.name: each for each in score_channels(net, inputs, criterion="taylor", evidence=evidence(**inputs_of()))
    }
    assert len(found["layer1.0.conv1"].importance) == 8
    assert min(found["stem.0"].importance) > 0
    assert found["fc"].importance is None


def inputs_of():
    return {"inputs": INPUTS["images"]}


@pytest.mark.parametrize("criterion", ["taylor", "hessian"])
def test_scoring_leaves_the_module_as_it_was(criterion):
    net, inputs = make_net("resnet")
    net.train()
    net.fc.weight.requires_grad_(False)
    net.fc.bias.grad = torch.ones(3)
    state = {name: value.clone() for name, value in net.state_dict().items()}
    score_channels(net, inputs, criterion=criterion, evidence=evidence(inputs["input"]))
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert net.training
    assert not net.fc.weight.requires_grad
    assert net.fc.bias.grad.tolist() == [1, 1, 1]
    assert net.stem[0].weight.grad is None


def test_frozen_weights_count():
    free, frozen = linear(), linear()
    frozen[0].weight.requires_grad_(False)
    assert torch.equal(scored(free, "taylor", [batch(ROWS)]), scored(frozen, "taylor", [batch(ROWS)]))


@pytest.mark.parametrize("criterion", ["taylor", "hessian", "activation"])
def test_a_criterion_that_needs_data_is_refused_without(criterion):
    with pytest.raises(DataError, match=rf"criterion '{criterion}' needs data(.|\n)*l1, l2, batchnorm and random"):
        score_channels(perceptron(), {"input": ROWS}, criterion=criterion)


@pytest.mark.parametrize("criterion", ["taylor", "hessian"])
@pytest.mark.parametrize("labels", [None, [0, 1, -1, 2]])
def test_a_loss_of_labels_is_refused_without(criterion, labels):
    given = Evidence(batches=[batch(ROWS, [0, 1, 2, 0]), batch(ROWS, labels)])
    with pytest.raises(DataError, match=rf"criterion '{criterion}' needs labels(.|\n)*batch 2 of 2"):
        score_channels(perceptron(), {"input": ROWS}, criterion=criterion, evidence=given)


def test_a_loss_that_is_not_finite_is_told():
    with pytest.raises(TrainingError, match=r"channels of Sequential are scored by is not finite(.|\n)*loss of nan"):
        score_channels(perceptron(), {"input": ROWS}, criterion="taylor", evidence=evidence(ROWS * float("nan")))


@pytest.mark.parametrize("criterion", ["taylor", "activation"])
def test_batches_that_do_not_fit_the_module_are_told(criterion):
    with pytest.raises(TrainingError, match=r"Sequential failed on a batch(.|\n)*input float32\[4, 3\]"):
        score_channels(perceptron(), {"input": ROWS}, criterion=criterion, evidence=evidence(ROWS[:, :3]))
