"""A small network, what it is trained on, and what tests of its masks ask."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from edgekit.data import Samples


class Killed(BaseException):
    """Ends a training as a signal would."""


class Net(nn.Module):
    """Convolutions, a BatchNorm, linear layers."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.stem = nn.Conv2d(3, 8, 3, padding=1)  # three inputs: no multiple of 4
            self.body = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
            self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(self.stem(x)).mean((2, 3)))


def images(count: int, seed: int = 0) -> Samples:
    """Three classes: the brightest channel."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    x = rng.standard_normal((count, 3, 5, 5)).astype(np.float32)
    x[np.arange(count), labels] += 1
    return Samples(name="images", count=count, fetch=lambda indices: {"input": x[indices]}, targets=labels)


def of_four(weight: torch.Tensor, dim: int = 1) -> torch.Tensor:
    """Weights that are not zero in every four along a dimension."""
    return (weight.detach().movedim(dim, -1).unflatten(-1, (-1, 4)) != 0).sum(-1)


def state_of(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return list(first) == list(second) and all(torch.equal(first[name], second[name]) for name in first)
