"""Tiny networks to train in int8, and samples for them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgekit.backends import onnxruntime as backend
from edgekit.catalog import load_target
from edgekit.data import Samples

SCHEME = backend.scheme(load_target("x86-vnni"))


class Residual(nn.Module):
    """Convolutions with BatchNorms, a residual addition, pooling, dropout and a linear layer."""

    def __init__(self, width: int = 8, classes: int = 3) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.pool = nn.MaxPool2d(2)
        self.one = nn.Conv2d(width, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.two = nn.Sequential(nn.Conv2d(width, width, 1), nn.BatchNorm2d(width))
        self.three = nn.Sequential(nn.Conv2d(width, width, 3, groups=width), nn.ReLU6())
        self.drop = nn.Dropout(0.1)
        self.head = nn.Linear(width, classes)

    def forward(self, image: Tensor) -> Tensor:
        x = self.pool(self.stem(image))
        x = functional.relu(x + self.two(functional.relu(self.norm(self.one(x)))))
        x = self.three(x)
        return self.head(self.drop(torch.flatten(x.mean((2, 3)), 1)))


class Tokens(nn.Module):
    """Linear layers on three axes, a SiLU, a gate and LayerNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(6, 16), nn.Linear(16, 6)
        self.act, self.norm, self.head = nn.SiLU(), nn.LayerNorm(6), nn.Linear(6, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = self.norm(tokens + self.out(self.act(self.into(tokens))))
        return self.head(tokens.mean(1))


def made(net: type[nn.Module], seed: int = 0) -> nn.Module:
    """A network with weights by seed, and BatchNorms that have seen something."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = net()
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.running_mean.normal_(0, 0.3)
                part.running_var.uniform_(0.5, 2.0)
                nn.init.uniform_(part.weight, 0.5, 1.5)
                nn.init.normal_(part.bias, 0, 0.2)
    return module.eval()


def pictures(count: int, seed: int = 0) -> Samples:
    """Three classes of noisy 12×12 pictures: stripes across, stripes down, and a chessboard."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    row, column = np.mgrid[:12, :12] // 2 % 2
    shapes = np.stack([row, column, (row + column) % 2]).astype(np.float32)
    x = np.stack([shapes[labels], 1 - shapes[labels]], axis=1) + rng.normal(0, 1.5, (count, 2, 12, 12))
    x = x.astype(np.float32)
    return Samples(name="pictures", count=count, fetch=lambda i: {"image": x[i]}, targets=labels.astype(np.int64))


def sequences(count: int, seed: int = 0) -> Samples:
    """Sequences of five tokens."""
    x = np.random.default_rng(seed).normal(size=(count, 5, 6)).astype(np.float32)
    return Samples(name="sequences", count=count, fetch=lambda i: {"tokens": x[i]}, targets=np.arange(count) % 3)
