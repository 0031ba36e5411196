"""Traced networks: BatchNorms folded or frozen, what is written another way, and what cannot be traced."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from qat_nets import Residual, made, pictures
from torch import Tensor, nn
from torch.nn import functional

from edgekit.distillation.forward import call, take_inputs
from edgekit.errors import TrainingError
from edgekit.qat.folding import FrozenNorm, folded
from edgekit.runtime.numbers import snr_db


class Simple(nn.Module):
    """A network around one forward function."""

    def __init__(self, forward, **layers: nn.Module) -> None:
        super().__init__()
        self.function = forward
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def example(*shape: int) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(0).normal(size=(4, *shape)).astype("float32")}


def norm(kind: type[nn.Module], channels: int, **settings) -> nn.Module:
    part = kind(channels, **settings).eval()
    part.running_mean.copy_(torch.linspace(-1, 1, channels))
    part.running_var.copy_(torch.linspace(0.5, 2, channels))
    return part


def near(module: nn.Module, traced: nn.Module, feeds: dict[str, np.ndarray]) -> bool:
    x = torch.tensor(feeds["x"])
    with torch.no_grad():
        return snr_db(module.eval()(x).numpy(), traced.eval()(x).numpy()) > 100.0


def test_batch_norms_are_folded_and_the_module_stays():
    module = made(Residual)
    before = copy.deepcopy(module.state_dict())
    traced = folded(module, pictures(4).tensors(range(4)))
    assert not any(isinstance(part, (nn.BatchNorm2d, FrozenNorm)) for part in traced.modules())
    assert {"stem.0.weight", "stem.0.bias", "one.weight", "head.bias"} <= set(traced.state_dict())
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert any(isinstance(part, nn.BatchNorm2d) for part in module.modules())
    images = torch.tensor(pictures(4)._tensor("image", pictures(4).raw(range(4))["image"]))
    with torch.no_grad():
        assert snr_db(module(images).numpy(), traced.eval()(images).numpy()) > 100.0


@pytest.mark.parametrize("settings", [{}, {"affine": False}])
def test_linear_layers_take_a_batch_norm_too(settings):
    module = Simple(lambda s, x: s.b(s.a(x)), a=nn.Linear(5, 6, bias=False), b=norm(nn.BatchNorm1d, 6, **settings))
    traced = folded(module, example(5))
    assert [type(part) for part in traced.children()] == [nn.Linear]
    assert near(module, traced, example(5))


@pytest.mark.parametrize(
    "forward",
    [
        lambda s, x: s.a(s.b(x)),  # the norm is first
        lambda s, x: (lambda y: s.b(y) + y)(s.a(x)),  # another reads the convolution
        lambda s, x: s.b(s.a(s.a(x))),  # the convolution is used twice
        lambda s, x: s.b(s.a(x)) + s.b(x),  # the norm is
    ],
)
def test_a_norm_that_cannot_be_folded_keeps_its_statistics_in_training(forward):
    module = Simple(forward, a=nn.Conv2d(3, 3, 1), b=norm(nn.BatchNorm2d, 3))
    traced = folded(module, example(3, 6, 6))
    assert isinstance(traced.b, FrozenNorm)
    assert near(module, traced, example(3, 6, 6))
    before = copy.deepcopy(dict(traced.named_buffers()))
    traced.train()
    output = traced(torch.tensor(example(3, 6, 6)["x"]))
    output.square().sum().backward()
    assert all(torch.equal(before[name], value) for name, value in traced.named_buffers())
    assert traced.b.weight.grad.abs().sum() > 0
    assert torch.equal(output, traced.eval()(torch.tensor(example(3, 6, 6)["x"])))


def test_a_norm_over_the_second_of_three_axes_is_no_linear_layers():
    module = Simple(lambda s, x: s.b(s.a(x)), a=nn.Linear(6, 6), b=norm(nn.BatchNorm1d, 6))
    assert isinstance(folded(module, example(6, 6)).b, FrozenNorm)


class OwnNorm(nn.BatchNorm2d):
    """As timm's BatchNormAct2d: checks, then the function with an activation behind."""

    __module__ = "elsewhere"

    def forward(self, x: Tensor) -> Tensor:
        torch._assert(x.ndim == 4, "four axes")
        x = functional.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, training=self.training, eps=self.eps
        )
        return functional.relu(x)


class OwnLinear(nn.Linear):
    __module__ = "elsewhere"

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight, self.bias)


def test_layers_with_a_forward_of_their_own_are_written_as_layers():
    module = Simple(
        lambda s, x: s.c(s.b(s.a(x)).mean((2, 3))),
        a=nn.Conv2d(3, 4, 3, bias=False),
        b=norm(OwnNorm, 4),
        c=OwnLinear(4, 2),
    )
    traced = folded(module, example(3, 6, 6))
    assert [type(part) for part in traced.children()] == [nn.Conv2d, nn.Linear]
    assert near(module, traced, example(3, 6, 6))


@pytest.mark.parametrize(
    ("layer", "names"), [(nn.SiLU(), {"sigmoid", "mul"}), (nn.Hardswish(), {"hardsigmoid", "mul"})]
)
def test_gates_are_spelled_out(layer, names):
    traced = folded(Simple(lambda s, x: s.a(x), a=layer), example(5))
    assert names == {node.name for node in traced.graph.nodes} - {"x", "output"}


def test_dropout_layers_go_on_dropping_in_training():
    traced = folded(Simple(lambda s, x: s.a(x), a=nn.Dropout(0.5)).train(), example(50))
    assert traced.training
    assert traced.a.training
    x = torch.ones(1, 50)
    assert 5 < (traced(x) == 0).sum() < 45
    assert (traced.eval()(x) == 1).all()


class Optional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 2)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return self.a(x if mask is None else x * mask)


def test_arguments_that_the_data_does_not_give_have_their_defaults():
    module, both = Optional(), example(4) | {"mask": np.zeros((4, 4), np.float32)}
    assert near(module, folded(module, example(4)), example(4))
    with_mask = folded(module, both)
    assert torch.equal(
        with_mask(**{name: torch.tensor(array) for name, array in both.items()}), module.a.bias.expand(4, 2)
    )


def test_a_copy_takes_the_same_inputs_of_a_sample():
    module, batch = Optional(), example(4) | {"other": np.ones((4, 9), np.float32)}
    take_inputs(module, ["x"])
    traced = copy.deepcopy(folded(module, batch))
    tensors = {name: torch.tensor(array) for name, array in batch.items()}
    assert torch.equal(call(traced, tensors)["output"], call(module, tensors)["output"])


def test_a_module_that_cannot_be_traced_is_told():
    module = Simple(lambda s, x: s.a(x) if x.sum() > 0 else x, a=nn.Linear(4, 4))
    with pytest.raises(TrainingError, match=r"(?s)Simple cannot be traced.*TraceError.*fx.wrap; post-training int8"):
        folded(module, example(4))


def test_a_trace_that_holds_for_one_mode_or_draw_alone_is_told():
    module = Simple(lambda s, x: s.a(x) + torch.rand(()), a=nn.Linear(4, 4))
    with pytest.raises(TrainingError, match=r"(?s)traced graph computes something else at output 'output'.*80 dB"):
        folded(module, example(4))


def test_a_norm_without_statistics_is_told():
    module = Simple(lambda s, x: s.b(s.a(x)), a=nn.Conv2d(3, 3, 1), b=nn.BatchNorm2d(3, track_running_stats=False))
    with pytest.raises(TrainingError, match=r"(?s)BatchNorm 'b' has no running statistics.*track_running_stats=True"):
        folded(module, example(3, 6, 6))


def test_a_batch_that_does_not_fit_is_told_before():
    with pytest.raises(TrainingError, match="failed on a batch of the data"):
        folded(Simple(lambda s, x: s.a(x), a=nn.Linear(4, 4)), example(5))
