"""A running mean of a model's weights, which is smoother than the weights themselves."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel


class Average:
    """Exponential moving average of parameters and running statistics.

    B. Polyak, A. Juditsky, "Acceleration of stochastic approximation by averaging", 1992; with the decay of
    A. Tarvainen, H. Valpola, "Mean teachers are better role models", 2017: at step ``t`` at most
    ``(1 + t) / (10 + t)``, so that a short run is not held back by where it began.

    Args:
        module: What is averaged, as it begins.
        decay: What stays of the average at a step.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        def mean(averaged: Any, current: Any, steps: Any) -> None:
            keep = min(decay, (1 + int(steps)) / (10 + int(steps)))
            if averaged[0].is_floating_point():
                torch._foreach_lerp_(averaged, current, 1 - keep)
            else:  # counters
                torch._foreach_copy_(averaged, current)

        self._averaged = AveragedModel(module, multi_avg_fn=mean, use_buffers=True)

    @property
    def module(self) -> nn.Module:
        """The model with the averaged weights."""
        found: nn.Module = self._averaged.module
        return found

    def update(self, module: nn.Module) -> None:
        """Takes in the weights after a step."""
        self._averaged.update_parameters(module)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        state: dict[str, Any] = self._averaged.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes back what :meth:`state_dict` gave."""
        self._averaged.load_state_dict(state)
