from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.data import Samples
from edgekit.distillation.forward import call, evaluating, forward, logits_of
from edgekit.errors import DataError, TrainingError


class Returns(nn.Module):
    """Gives its input to a function."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@pytest.mark.parametrize(
    ("function", "names"),
    [
        (lambda x: x, ["output"]),
        (lambda x: (x, x + 1), ["output_0", "output_1"]),
        (lambda x: [x], ["output_0"]),
        (lambda x: {"logits": x, "features": x}, ["logits", "features"]),
    ],
)
def test_outputs_have_names(blobs, function, names):
    assert list(forward(Returns(function), blobs(5))) == names


def test_batches_are_joined_in_order(blobs):
    data = blobs(10)
    np.testing.assert_array_equal(
        forward(Returns(lambda x: x), data, batch_size=3)["output"], data.raw(range(10))["input"]
    )


def test_evaluation_mode_while_running_and_the_old_modes_after(net, blobs):
    module = net().train()
    module.body[1].eval()
    statistics = module.body[1].running_mean.clone()
    first, second = forward(module, blobs(9))["output"], forward(module, blobs(9))["output"]
    np.testing.assert_array_equal(first, second)  # dropout is off
    assert torch.equal(module.body[1].running_mean, statistics)
    assert module.training
    assert module.body[3].training
    assert not module.body[1].training


def test_modes_come_back_after_a_failure(net):
    module = net().train()
    with pytest.raises(RuntimeError, match="boom"), evaluating(module):
        raise RuntimeError("boom")
    assert module.body[3].training


def test_a_module_that_keeps_a_tensor_of_its_first_call_can_still_be_trained(blobs):
    class Caching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 3)
            self.scale = None

        def forward(self, x):
            if self.scale is None:
                self.scale = torch.ones_like(x)
            return self.linear(x * self.scale[:1])

    module = Caching()
    forward(module, blobs(4))
    x = torch.ones(2, 4, requires_grad=True)
    module(x).sum().backward()
    assert x.grad is not None


def test_several_inputs_are_given_by_name():
    class Subtract(nn.Module):
        def forward(self, left, right):
            return left - right

    arrays = {"right": np.ones((4, 2), np.float32), "left": np.full((4, 2), 3, np.float32)}
    samples = Samples(name="pairs", count=4, fetch=lambda i: {name: a[i] for name, a in arrays.items()})
    assert (forward(Subtract(), samples)["output"] == 2).all()


def test_read_only_arrays_are_fine():
    x = np.zeros((2, 4), np.float32)
    x.setflags(write=False)
    samples = Samples(name="frozen", count=2, fetch=lambda i: {"input": x[: len(i)]})
    assert forward(Returns(lambda x: x), samples)["output"].shape == (2, 4)


def test_a_failing_call_names_the_module_and_the_shapes(net, blobs):
    module = net()
    module.body[0] = nn.Linear(7, 16)
    with pytest.raises(
        TrainingError, match=r"(?s)Net failed on a batch of the data: RuntimeError.*input float32\[2, 4\]"
    ):
        forward(module, blobs(2))


@pytest.mark.parametrize(
    ("function", "found"),
    [
        (lambda x: x.numpy(), "output: ndarray"),
        (lambda x: (x, None), "output_1: NoneType"),
        (lambda x: {}, "no outputs"),
    ],
)
def test_outputs_that_are_not_tensors_are_refused(blobs, function, found):
    with pytest.raises(TrainingError, match=found):
        forward(Returns(function), blobs(2))


@pytest.mark.parametrize(
    "function", [lambda x: x[:, :1], lambda x: x[:, :, None], lambda x: x.sum(), lambda x: x[:1], lambda x: x[:, 0]]
)
def test_outputs_that_are_not_logits_are_refused(function):
    with pytest.raises(TrainingError, match=r"(?s)does not return logits.*\[3, classes\]"):
        logits_of(Returns(function), {"input": torch.zeros(3, 4)})


def test_no_samples(net, blobs):
    with pytest.raises(DataError, match="blobs: no samples"):
        forward(net(), blobs(0))


def test_errors_of_our_own_pass_through():
    def fail(x):
        raise DataError("said already")

    with pytest.raises(DataError, match="said already"):
        call(Returns(fail), {"input": torch.zeros(1)})
