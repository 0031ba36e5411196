"""Fake-quantisers whose step is learned, and the layers whose weights go through one.

S. K. Esser, J. L. McKinstry, D. Bablani, R. Appuswamy, D. S. Modha, "Learned Step Size Quantization" (LSQ), ICLR 2020.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

MOST = 0.1  # of a step that its gradient asks for: under SGD with momentum 0.9, as much as Adam moves it
LEAST_RATIO = 2.0**-10  # of a step to what it began with: a step stays positive


class LearnedStep(nn.Module):
    """Rounds a tensor to the grid ``scale · (q − zero_point)`` of the integers from ``low`` to ``high``.

    The step is ``start · ratio``, and ``ratio`` is what is trained, from 1 on. Its gradient is the one that LSQ gives
    the step, over ``start``: under SGD the step moves as in LSQ, and under Adam, whose updates know no size, by a share
    of itself rather than by more than all of it. It is held within ±0.1, without which the smallest steps run away
    under SGD. The zero point stays as it was calibrated. Values keep NaN, so
    that a training that diverges is seen to.

    Args:
        start: The step to begin with, float32 ``[]``, or ``[channels]`` with an ``axis``.
        zero_point: int32, of the same shape.
        low: The least integer.
        high: The greatest.
        axis: Axis of the channels; None: one step for all.
        whole: Whether the values are one thing, as a layer's weights are with one step, rather than a batch.
        largest: What the step cannot exceed: of an activation that is clipped, the step that reaches its end.
    """

    start: Tensor
    zero_point: Tensor

    def __init__(
        self,
        start: Tensor,
        zero_point: Tensor,
        *,
        low: int,
        high: int,
        axis: int | None = None,
        whole: bool = False,
        largest: float = math.inf,
    ) -> None:
        super().__init__()
        self.low, self.high, self.axis, self.whole, self.largest = low, high, axis, whole, largest
        self.register_buffer("start", start)
        self.register_buffer("zero_point", zero_point)
        self.ratio = nn.Parameter(torch.ones_like(start))

    @property
    def scale(self) -> Tensor:
        """The step as it is now, without gradient."""
        return self._scale(self.ratio.detach())

    def _scale(self, ratio: Tensor) -> Tensor:
        return (self.start * ratio.clamp(min=LEAST_RATIO)).clamp(max=self.largest)

    def forward(self, values: Tensor) -> Tensor:
        """Values on the grid, float32, of the same shape."""
        rounded: Tensor = _Round.apply(values.float(), self.ratio, self)
        return rounded

    def extra_repr(self) -> str:
        """What ``print`` shows of it."""
        return f"{self.low}…{self.high}" + ("" if self.axis is None else f", axis {self.axis}")


class _Round(torch.autograd.Function):
    """Rounding on the way forward; on the way back straight through inside the range, and LSQ's gradient of the step.

    Forward it is bit for bit ``torch.fake_quantize_per_tensor_affine`` and ``…_per_channel_affine``.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, ratio: Tensor, step: LearnedStep) -> Tensor:
        scale, zero = _along(step._scale(ratio), values, step.axis), _along(step.zero_point, values, step.axis)
        ctx.save_for_backward(values, ratio)
        ctx.step = step
        return ((values * (1.0 / scale)).round() + zero).clamp(step.low, step.high).sub(zero).mul(scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        values, ratio = ctx.saved_tensors
        step: LearnedStep = ctx.step
        scale, zero = _along(step._scale(ratio), values, step.axis), _along(step.zero_point, values, step.axis)
        exact = values * (1.0 / scale)
        rounded = exact.round()
        clipped = (rounded + zero).clamp(step.low, step.high) - zero
        inside = clipped == rounded
        slope = torch.where(inside, rounded - exact, clipped) * gradient
        others = [axis for axis in range(values.ndim) if axis != step.axis]
        summed = slope.sum() if step.axis is None else slope.sum(dim=others)
        upward = (summed * _share(step, values) / step.start).clamp(-MOST, MOST)
        held = (step.start * ratio >= step.largest) & (upward < 0)  # at its end: it could only go beyond
        return gradient * inside, torch.where(held, torch.zeros_like(upward), upward), None


def _share(step: LearnedStep, values: Tensor) -> Tensor:
    """LSQ's factor ``1 / √(n · Qmax)``: of weights, n is those of a step; of activations, those of a sample."""
    most = torch.maximum(step.high - step.zero_point, step.zero_point - step.low).max()
    # Axis 0 is the channels of weights, and the samples of activations; one step for all weights counts all.
    one = values.numel() if step.whole else values.numel() // len(values)
    return (max(one, 1) * most.float()).rsqrt()


def _along(parameters: Tensor, values: Tensor, axis: int | None) -> Tensor:
    """One number a channel, shaped so that it broadcasts over the other axes."""
    if axis is None:
        return parameters
    return parameters.reshape([-1 if place == axis else 1 for place in range(values.ndim)])


class QuantisedLayer(nn.Module):
    """A convolution or a linear layer whose weights go through a fake-quantiser; its bias stays float in training.

    Args:
        layer: ``nn.Conv1d`` to ``nn.Conv3d``, or ``nn.Linear``.
        step: The grid of its weights.
        turned: Whether it is exported as a product with its weights turned round, as one of three axes or more is.
        whole_bias: Whether the engine adds its bias as an integer.
    """

    def __init__(self, layer: nn.Module, step: LearnedStep, *, turned: bool, whole_bias: bool) -> None:
        super().__init__()
        self.layer, self.step = layer, step
        self.turned, self.whole_bias = turned, whole_bias

    def forward(self, values: Tensor) -> Tensor:
        """As the layer's own."""
        weight = self.step(self.layer.weight)
        output: Tensor = torch.func.functional_call(self.layer, {"weight": weight}, (values,))
        return output
