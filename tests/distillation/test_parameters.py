from __future__ import annotations

import pytest
import torch
from torch import nn

from edgekit.distillation.parameters import frozen, optimizer_for
from edgekit.errors import TrainingError
from edgekit.recipe_training import Training


def group_of(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> dict:
    return next(group for group in optimizer.param_groups if any(p is parameter for p in group["params"]))


def test_biases_and_norms_are_not_decayed(net):
    module = net()
    optimizer = optimizer_for(module, Training(weight_decay=0.1))
    linear, norm = module.body[0], module.body[1]
    assert group_of(optimizer, linear.weight)["weight_decay"] == 0.1
    for parameter in (linear.bias, norm.weight, norm.bias, module.head.bias):
        assert group_of(optimizer, parameter)["weight_decay"] == 0.0


def test_a_norm_over_two_axes_is_not_decayed():
    module = nn.Sequential(nn.LayerNorm([4, 4]))
    assert [group["weight_decay"] for group in optimizer_for(module, Training()).param_groups] == [0.0]


def test_the_longest_matching_path_sets_the_rate(net):
    module = net()
    optimizer = optimizer_for(module, Training(learning_rate=0.1, rates={"body": 0.5, "body.0": 0.0}))
    assert group_of(optimizer, module.body[0].weight)["lr"] == 0.0
    assert group_of(optimizer, module.body[1].weight)["lr"] == pytest.approx(0.05)
    assert group_of(optimizer, module.head.weight)["lr"] == pytest.approx(0.1)


def test_a_path_is_not_a_mere_prefix():
    module = nn.ModuleDict({"block": nn.Linear(2, 2), "block2": nn.Linear(2, 2)})
    optimizer = optimizer_for(module, Training(learning_rate=0.1, rates={"block": 0.5}))
    assert group_of(optimizer, module["block2"].weight)["lr"] == pytest.approx(0.1)


def test_every_parameter_is_in_one_group_also_when_shared():
    module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    module[1].weight = module[0].weight
    grouped = [p for group in optimizer_for(module, Training()).param_groups for p in group["params"]]
    assert len(grouped) == 3
    assert {id(p) for p in grouped} == {id(p) for p in module.parameters()}


def test_sgd_has_momentum(net):
    optimizer = optimizer_for(net(), Training(optimizer="sgd", learning_rate=0.1))
    assert isinstance(optimizer, torch.optim.SGD)
    assert all(group["momentum"] == 0.9 for group in optimizer.param_groups)


def test_freezing_ends_with_the_block_and_respects_what_was_frozen_before(net):
    module = net()
    module.head.bias.requires_grad_(False)
    with frozen(module, ["body"]) as parts:
        assert parts == [module.body]
        assert [name for name, p in module.named_parameters() if p.requires_grad] == ["head.weight"]
        assert sum(len(g["params"]) for g in optimizer_for(module, Training()).param_groups) == 1
    assert [name for name, p in module.named_parameters() if not p.requires_grad] == ["head.bias"]


def test_a_frozen_path_that_matches_nothing_names_the_nearest(net):
    with (
        pytest.raises(TrainingError, match=r"(?s)freeze: Net has no module 'bodi'.*did you mean 'body'\?"),
        frozen(net(), ["bodi"]),
    ):
        pass


def test_a_rate_path_that_matches_nothing_names_the_nearest(net):
    with pytest.raises(TrainingError, match=r"(?s)rates: Net has no module 'haed'.*did you mean 'head'\?"):
        optimizer_for(net(), Training(rates={"haed": 0.1}))


def test_everything_frozen_is_refused_and_undone(net):
    module = net()
    with pytest.raises(TrainingError, match="nothing is left to train"), frozen(module, ["body", "head"]):
        pass
    assert all(p.requires_grad for p in module.parameters())
