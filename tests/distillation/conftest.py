from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.data import Samples

CLASSES = 3
CENTRES = np.array([[2.0, 0.0, 0.0, 0.0], [0.0, 2.0, 0.0, 0.0], [0.0, 0.0, 2.0, 0.0]])


def make_blobs(count: int, seed: int = 0, *, labelled: bool = True, name: str = "blobs") -> Samples:
    """Three well separated Gaussian classes in four dimensions."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % CLASSES
    x = (CENTRES[labels] + 0.3 * rng.standard_normal((count, 4))).astype(np.float32)
    return Samples(
        name=name,
        count=count,
        fetch=lambda indices: {"input": x[indices]},
        targets=labels.astype(np.int64) if labelled else None,
    )


class Net(nn.Module):
    """A perceptron with a BatchNorm and dropout."""

    def __init__(self, width: int = 16, classes: int = CLASSES, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.body = nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.1))
            self.head = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x))


@pytest.fixture
def blobs():
    return make_blobs


@pytest.fixture
def net():
    return Net
