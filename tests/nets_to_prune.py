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


class Branch(nn.Module):
    """Scales of a branch, whose shape is remembered."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scales, self.shape = nn.Parameter(torch.rand(width) + 0.5), (width, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scales.view(self.shape)


class Talking(nn.Module):
    """Attention whose heads are mixed, and take their size from the stream's. Input ``[n, length, width]``."""

    def __init__(self, width: int = 12, heads: int = 2) -> None:
        super().__init__()
        self.num_heads = heads
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.before, self.after = nn.Linear(heads, heads), nn.Linear(heads, heads)

    def forward(self, x: Tensor) -> Tensor:
        n, length, width = x.shape
        shape = (n, length, 3, self.num_heads, width // self.num_heads)
        qkv = self.qkv(x).reshape(shape).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0], qkv[1], qkv[2]
        scores = self.before((q @ k.transpose(-2, -1)).permute(0, 2, 3, 1))
        shares = self.after(scores.softmax(2)).permute(0, 3, 1, 2)
        return self.out((shares @ v).transpose(1, 2).reshape(n, length, width))


class TalkingNet(nn.Module):
    """A block with such attention between linear layers. Input ``[n, 5, 4]``."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.stem, self.attention = nn.Linear(4, width), Talking(width)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.attention(x)
        return self.head((x + self.mlp(x)).mean(1))


class Gate(nn.Module):
    """A gate over positions between linear layers. Input ``[n, 5, 4]``."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.stem, self.fc1, self.fc2 = nn.Linear(4, width), nn.Linear(width, 16), nn.Linear(8, width)
        self.norm, self.places, self.head = nn.LayerNorm(8), nn.Linear(5, 5), nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        u, v = self.fc1(x).chunk(2, dim=-1)
        v = self.places(self.norm(v).transpose(1, 2)).transpose(1, 2)
        return self.head((x + self.fc2(u * v)).mean(1))
