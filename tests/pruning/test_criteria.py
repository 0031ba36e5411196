"""Importance of channels by weights, scales and chance."""

import pytest
import torch
from nets_to_cut import INPUTS, make_net
from nets_to_prune import ROWS, Slim, evidence, perceptron
from torch import nn

from edgekit.errors import ModelError, UnknownName
from edgekit.pruning.criteria import CRITERIA, Evidence, sparsity_loss
from edgekit.pruning.scores import score_channels
from edgekit.pruning.structured import prune_channels


def importance(net, inputs, criterion, **further):
    """Importance by the path of the first layer, of channels that may be dropped."""
    found = score_channels(net, {"input": inputs}, criterion=criterion, **further)
    return {each.name: torch.tensor(each.importance) for each in found if each.importance is not None}


@pytest.mark.parametrize(("criterion", "norm"), [("l1", torch.abs), ("l2", torch.square)])
def test_norms_are_those_of_all_weights_that_go_with_a_channel(criterion, norm):
    net = perceptron()
    expected = norm(net[0].weight).sum(1) + norm(net[2].weight).sum(0)
    assert torch.allclose(importance(net, ROWS, criterion)["0"], expected)


def test_a_flattened_channel_counts_for_all_its_columns():
    net = nn.Sequential(nn.Conv2d(3, 2, 4, 4), nn.Flatten(), nn.Linear(8, 3))
    expected = net[0].weight.abs().sum((1, 2, 3)) + net[2].weight.abs().sum(0).view(2, 4).sum(1)
    assert torch.allclose(importance(net, INPUTS["images"], "l1")["0"], expected)


def test_a_layer_of_one_channel_takes_many():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 1, 1), nn.Flatten(), nn.Linear(64, 3))
    expected = net[0].weight.abs().sum((1, 2, 3)) + net[1].weight.abs().sum((0, 2, 3))
    assert torch.allclose(importance(net, INPUTS["images"], "l1")["0"], expected)


def test_attention_counts_in_the_stream_it_is_in():
    net, inputs = make_net("encoder", seed=1)
    before = importance(net, inputs["input"], "l1")["tokens"]
    with torch.no_grad():
        net.encoder.layers[0].self_attn.in_proj_weight[16 + 5] += 1000.0  # the row of key 5, so columns of all
    after = importance(net, inputs["input"], "l1")["tokens"]
    assert (after - before).argmax() == 5
    assert torch.all(after - before > 900)


def test_scales_of_batchnorms_are_summed_and_channels_without_one_stay():
    net, inputs = make_net("resnet")
    with torch.no_grad():
        for part in net.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.weight.copy_(torch.linspace(-1, 1, len(part.weight)))
    found = importance(net, inputs["input"], "batchnorm")
    assert torch.allclose(found["layer1.0.conv1"], torch.linspace(-1, 1, 8).abs().double().float())
    assert torch.allclose(found["stem.0"], 5 * torch.linspace(-1, 1, 8).abs()), "one in the stem, one a block"
    found = score_channels(Slim().eval(), inputs, criterion="batchnorm")
    assert {each.name: each.whole for each in found if each.importance is None} == {
        "conv3": "the criterion says nothing of them",
        "fc": "fc gives the model's output",
    }


@pytest.mark.parametrize("without", [nn.Identity(), nn.GroupNorm(2, 6), nn.BatchNorm1d(6, affine=False)])
def test_a_network_without_scales_is_refused_and_told_what_to_use(without):
    net = nn.Sequential(nn.Linear(4, 6), without, nn.Linear(6, 3)).eval()
    with pytest.raises(ModelError, match=r"criterion 'batchnorm' needs BatchNorm(.|\n)*Sequential has none(.|\n)*'l2'"):
        prune_channels(net, {"input": ROWS}, 0.5, criterion="batchnorm")
    with pytest.raises(
        ModelError, match=r"bn_sparsity\) needs BatchNorm scales that learn.*Sequential has none(.|\n)*no BatchNorm"
    ):
        sparsity_loss(net)


def test_the_sparsity_loss_is_the_l1_norm_of_all_scales():
    net = Slim(4)
    with torch.no_grad():
        net.bn1.weight.copy_(torch.tensor([0.5, -2.0, 1.0, -0.25]))
        net.bn2.weight.copy_(torch.tensor([3.0, 0.0, 1.0, 1.0]))
    loss = sparsity_loss(net)
    assert loss.item() == 8.75
    loss.backward()
    assert net.bn1.weight.grad.tolist() == [1, -1, 1, -1]
    assert net.bn1.bias.grad is None


def test_random_importance_follows_the_seed_alone():
    net, inputs = make_net("resnet")
    first, second = (importance(net, inputs["input"], "random", evidence=Evidence(seed=3)) for _ in range(2))
    other = importance(net, inputs["input"], "random", evidence=Evidence(seed=4))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not any(torch.equal(first[name], other[name]) for name in first)
    assert not torch.equal(first["layer1.0.conv1"], first["layer1.1.conv1"])


@pytest.mark.parametrize("criterion", sorted(set(CRITERIA) - {"random"}))
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_channels_that_do_nothing_are_dropped_first(criterion, scope):
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = Slim().eval()
    dead = [1, 2, 4, 7]
    with torch.no_grad():
        for conv, norm in ((net.conv1, net.bn1), (net.conv2, net.bn2)):
            norm.bias.fill_(0.5)  # so that the others fire
            conv.weight[dead], norm.weight[dead], norm.bias[dead] = 0, 0, 0
        for layer in (net.conv2, net.conv3):
            layer.weight[:, dead] = 0
        net.conv3.bias.fill_(1.0)
        net.conv3.weight[dead], net.conv3.bias[dead] = 0, 0
        net.fc.weight[:, dead] = 0
        expected = net(INPUTS["images"])
    kept = net.conv1.weight.detach()[[0, 3, 5, 6]]
    prune_channels(
        net, {"input": INPUTS["images"]}, 0.5, criterion=criterion, scope=scope, evidence=evidence(INPUTS["images"])
    )
    assert torch.equal(net.conv1.weight, kept)
    assert net.conv2.weight.shape[:2] == (4, 4)
    assert torch.allclose(net(INPUTS["images"]), expected, atol=1e-6)


def last_first(module, groups, given):
    """A user's criterion."""
    return [torch.arange(group.count, dtype=torch.float32).flip(0) for group in groups]


def test_a_criterion_may_be_a_users_own(tmp_path):
    (tmp_path / "own_criterion.py").write_text(
        "import torch\n\ndef falling(module, groups, evidence):\n"
        "    return [torch.arange(group.count).flip(0) for group in groups]\n"
    )
    for criterion in (last_first, "own_criterion:falling"):
        net = perceptron()
        first = net[0].weight[:3].detach()
        notes = prune_channels(net, {"input": ROWS}, 0.5, criterion=criterion, base=tmp_path)
        assert torch.equal(net[0].weight, first)
        assert notes[0].startswith("50% of the channels of each layer dropped by ")


@pytest.mark.parametrize(
    ("criterion", "message"),
    [
        (lambda *_: [], r"does not score every group(.|\n)*0 scores(.|\n)*a list of 1"),
        (lambda *_: [torch.ones(5)], r"does not score the channels of 0(.|\n)*a tensor \[5\](.|\n)*\[6\] finite"),
        (lambda *_: [-torch.ones(6)], r"numbers that are negative or not finite"),
        (lambda *_: [torch.full((6,), float("nan"))], r"numbers that are negative or not finite"),
    ],
)
def test_what_is_no_importance_is_told(criterion, message):
    with pytest.raises(ModelError, match=message):
        prune_channels(perceptron(), {"input": ROWS}, 0.5, criterion=criterion)


def test_an_unknown_criterion_is_told_with_the_nearest():
    with pytest.raises(UnknownName, match=r"unknown criterion 'tailor'(.|\n)*did you mean 'taylor'"):
        prune_channels(perceptron(), {"input": ROWS}, 0.5, criterion="tailor")
