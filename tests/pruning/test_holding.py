from __future__ import annotations

import copy
import io

import pytest
import torch
from sparse_nets import Killed, Net, images, of_four, same, state_of
from torch import nn
from torch.optim.optimizer import _global_optimizer_post_hooks

from edgekit.distillation.averages import Average
from edgekit.distillation.trainer import Keeping, train
from edgekit.errors import ModelError
from edgekit.pruning.holding import held
from edgekit.pruning.masks import Masks, sparse, sparsity_of
from edgekit.recipe_training import Head, Training

SETTINGS = Training(epochs=3, batch_size=16, learning_rate=0.02, weight_decay=0.1)


def zeros_of(module: nn.Module, masks: Masks) -> bool:
    """Whether exactly 0 is at every masked place, and something is at most others."""
    weights = dict(module.named_parameters())
    return all(
        bool((weights[name][~kept] == 0).all()) and float((weights[name][kept] != 0).double().mean()) > 0.9
        for name, kept in masks.kept.items()
    )


def test_masks_of_another_module_are_told_and_change_nothing():
    net, masks = Net(), sparse(nn.Sequential(nn.Linear(8, 4)), share=0.5)
    before = state_of(net)
    with pytest.raises(ModelError, match=r"(?s)not of this Net: 0.weight.*no such parameter"), held(net, masks):
        pass
    masks = Masks(kept={"head.weight": torch.ones(3, 4, dtype=torch.bool)}, dense={})
    with pytest.raises(ModelError, match=r"(?s)shape \[3, 8\].*shape \[3, 4\]"), held(net, masks):
        pass
    assert same(before, state_of(net))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"optimizer": "sgd", "accumulate": 2, "clip_norm": 0.1},
        {"ema": 0.9},
        {"mixed_precision": "bf16", "freeze": ("body",)},
    ],
    ids=["adamw", "momentum", "average", "bf16 and frozen"],
)
@pytest.mark.parametrize("how", [{"pattern": (2, 4)}, {"share": 0.5}], ids=["2:4", "share"])
def test_masks_hold_through_a_fine_tuning(fields, how):
    net = Net()
    masks = sparse(net, **how)
    before, seen = state_of(net), []
    with held(net, masks):
        train(
            net, images(48), images(12, seed=1), SETTINGS.model_copy(update=fields), seed=0,
            progress=lambda *_: seen.append(zeros_of(net, masks)),
        )  # fmt: skip
    assert len(seen) >= SETTINGS.epochs
    assert all(seen)
    assert zeros_of(net, masks)
    assert not torch.equal(net.head.weight, before["head.weight"] * masks.kept["head.weight"])  # it has learned
    if "pattern" in how:
        assert (of_four(net.body[0].weight) == 2).all()


@pytest.mark.parametrize("fields", [{}, {"optimizer": "sgd", "ema": 0.9}], ids=["adamw", "momentum and average"])
def test_a_killed_fine_tuning_ends_at_the_very_same_weights_and_zeros(tmp_path, fields):
    settings, checkpoint = SETTINGS.model_copy(update=fields), tmp_path / "run.checkpoint"

    def tuned(net: nn.Module, **options) -> Masks:
        masks = sparse(net, pattern=(2, 4))
        with held(net, masks):
            train(net, images(48), images(12, seed=1), settings, seed=3, **options)
        return masks

    def kill(step, done, total, note=""):
        if done == 4:  # the first batch of the second epoch
            raise Killed

    whole, killed, again = Net(), Net(), Net()
    tuned(whole)
    with pytest.raises(Killed):
        tuned(killed, keeping=Keeping(checkpoint=checkpoint), progress=kill)
    assert list(torch.load(checkpoint, weights_only=True)["module"]) == list(Net().state_dict())
    seen: list[int] = []
    masks = tuned(
        again, keeping=Keeping(checkpoint=checkpoint), progress=lambda step, done, total, note="": seen.append(done)
    )
    assert seen[0] == 4
    assert same(state_of(whole), state_of(again))
    assert zeros_of(again, masks)


def test_a_checkpoint_of_a_dense_run_is_taken_up_sparse(tmp_path):
    """Its weights have no zeros, its momentum points away from them."""
    keeping, data = Keeping(checkpoint=tmp_path / "run.checkpoint"), (images(48), images(12, seed=1))
    settings = SETTINGS.model_copy(update={"optimizer": "sgd", "ema": 0.9})
    train(Net(), *data, settings.model_copy(update={"epochs": 1}), seed=0, keeping=keeping)
    net, seen = Net(), []
    masks = sparse(net, pattern=(2, 4))
    with held(net, masks):
        train(net, *data, settings, seed=0, keeping=keeping, progress=lambda *_: seen.append(zeros_of(net, masks)))
    assert seen
    assert all(seen)
    assert zeros_of(net, masks)


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda parameters: torch.optim.AdamW(parameters, lr=0.1, weight_decay=0.5),
        lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9, nesterov=True),
        lambda parameters: torch.optim.RMSprop(parameters, lr=0.1, momentum=0.9),
    ],
    ids=["adamw", "nesterov", "rmsprop"],
)
def test_momentum_from_before_moves_no_masked_weight(optimizer):
    net, x = Net(), torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    steps = optimizer(net.parameters())

    def step() -> None:
        steps.zero_grad()
        net(x).square().sum().backward()
        steps.step()

    step()
    masks = sparse(net, share=0.4)
    with held(net, masks):
        assert zeros_of(net, masks)
        for _ in range(3):
            step()
            assert zeros_of(net, masks)
            assert all((net.get_parameter(name).grad[~kept] == 0).all() for name, kept in masks.kept.items())
            assert not any(torch.signbit(net.get_parameter(name)[~kept]).any() for name, kept in masks.kept.items())
    step()
    assert not zeros_of(net, masks)  # let go: trained on, they come back


def test_loaded_weights_are_masked_until_the_masks_are_let_go():
    net, other = Net(), Net(seed=1)
    masks = sparse(net, pattern=(2, 4))
    with held(net, masks):
        assert list(net.state_dict()) == list(other.state_dict())
        for options in ({}, {"assign": True}):
            net.load_state_dict(copy.deepcopy(other.state_dict()), **options)
            assert zeros_of(net, masks)
            assert torch.equal(net.head.weight[masks.kept["head.weight"]], other.head.weight[masks.kept["head.weight"]])
        net.head.load_state_dict(other.head.state_dict())
        assert zeros_of(net, masks)
    net.load_state_dict(other.state_dict())
    assert same(state_of(net), state_of(other))


def test_nothing_of_the_masks_is_left():
    net = Net()
    plain = copy.deepcopy(net)
    with pytest.raises(ZeroDivisionError), held(net, sparse(net, share=0.5)):
        raise ZeroDivisionError  # an end by an exception is one too
    assert list(net.state_dict()) == list(plain.state_dict())
    for part, other in zip(net.modules(), plain.modules(), strict=True):
        assert vars(part).keys() == vars(other).keys()
        assert not part._load_state_dict_post_hooks
    assert not any(parameter._post_accumulate_grad_hooks for parameter in net.parameters())
    assert not _global_optimizer_post_hooks
    assert sparsity_of(net).share == 0.5


def test_copies_and_running_means_have_the_zeros_and_are_free_afterwards():
    net, other = Net(), Net(seed=1)
    masks = sparse(net, pattern=(2, 4))
    steps = torch.optim.SGD(net.parameters(), lr=0.1)
    with held(net, masks):
        average, twin = Average(net, 0.9), copy.deepcopy(net)
        net(torch.ones(2, 3, 5, 5)).sum().backward()
        steps.step()
        average.update(net)
        assert zeros_of(average.module, masks)
        assert zeros_of(twin, masks)
        twin.load_state_dict(other.state_dict())
        assert zeros_of(twin, masks)
        with held(twin, masks):
            torch.optim.SGD(twin.parameters(), lr=0.1).step()
    assert zeros_of(net, masks)
    twin.load_state_dict(other.state_dict())
    assert same(state_of(twin), state_of(other))
    torch.save(twin, io.BytesIO())  # what is left of a hook in a copy is inert and can be written


def test_a_layer_replaced_meanwhile_is_told_in_the_first_step():
    net, settings = Net(), SETTINGS.model_copy(update={"head": Head(module="head", classes=3)})
    with (
        pytest.raises(ModelError, match=r"(?s)head.weight: the layer was replaced.*before the masks"),
        held(net, sparse(net, share=0.5)),
    ):
        train(net, images(48), images(12), settings, seed=0)
    masks = sparse(net, share=0.5, dense=["head"])
    with held(net, masks):
        train(net, images(48), images(12), settings, seed=0)
    assert zeros_of(net, masks)


def test_the_permanent_module_exports_as_a_plain_one():
    net = Net().eval()
    masks = sparse(net, pattern=(2, 4))
    x = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    plain = torch.export.export(copy.deepcopy(net), (x,))
    with held(net, masks):
        within = torch.export.export(net, (x,))
    after = torch.export.export(net, (x,))
    for program in (within, after):
        assert list(program.state_dict) == list(plain.state_dict)
        assert [str(n.target) for n in program.graph.nodes] == [str(n.target) for n in plain.graph.nodes]
        torch.testing.assert_close(program.module()(x), net(x))
        assert (of_four(program.state_dict["head.weight"]) == 2).all()


def test_weights_are_held_on_the_device_they_moved_to():
    net = nn.Linear(8, 4)
    masks = sparse(net, pattern=(2, 4))
    with held(net, masks):
        net.to("meta")
        net.weight.grad = torch.ones_like(net.weight)
        torch.optim.SGD(net.parameters(), lr=0.1).step()
        assert net.weight.device.type == "meta"
        net.to_empty(device="cpu")
        nn.init.ones_(net.weight)
    assert zeros_of(net, masks)
