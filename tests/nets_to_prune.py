"""Small networks of which the importance of channels is known, and batches for them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from edgekit.distillation.batch import Batch
from edgekit.pruning.criteria import Evidence

ROWS = torch.rand(4, 4, generator=torch.Generator().manual_seed(5))


def batch(inputs: Tensor, labels: Sequence[int] | None = None) -> Batch:
    """A batch of one input; without labels where none are given."""
    return Batch(
        inputs={"input": inputs},
        labels=None if labels is None else torch.tensor(labels),
        indices=np.arange(len(inputs)),
        view=0,
        share=0.0,
    )


def evidence(inputs: Tensor, classes: int = 3, *, seed: int = 0) -> Evidence:
    """One batch with labels 0, 1, … in turn."""
    return Evidence(batches=[batch(inputs, [i % classes for i in range(len(inputs))])], seed=seed)


def perceptron(hidden: int = 6, *, bias: bool = True, seed: int = 0) -> nn.Sequential:
    """Two layers. Input ``[n, 4]``, 3 classes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(4, hidden, bias=bias), nn.ReLU(), nn.Linear(hidden, 3, bias=bias)).eval()


class Slim(nn.Module):
    """Two convolutions with BatchNorms, one without. Input ``[n, 3, 8, 8]``."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, width, 1)
        self.fc = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.bn2(self.conv2(x)))
        return self.fc(torch.relu(self.conv3(x)).mean((2, 3)))
