"""Handwritten digits: scikit-learn's 8×8 images enlarged to 32×32, and two residual networks of different size."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

SIZE = 32
TEST_SHARE = 0.5
CLASSES = 10


@cache
def images_and_labels() -> tuple[np.ndarray, np.ndarray]:
    """All distinct digits: float32 ``[n, 1, 32, 32]`` in -1 … 1 and int64 ``[n]``, in a fixed shuffled order."""
    from sklearn.datasets import load_digits

    raw = load_digits()
    # No digit may be in both halves, so each distinct image is kept once.
    _, first = np.unique(raw.data, axis=0, return_index=True)
    order = np.random.default_rng(0).permutation(np.sort(first))
    return enlarge(raw.images[order] / 8.0 - 1.0)[:, None].astype(np.float32), raw.target[order].astype(np.int64)


def enlarge(images: np.ndarray) -> np.ndarray:
    """Bilinear enlargement of square images ``[n, s, s]`` to ``[n, 32, 32]``, pixel centres aligned."""
    small = images.shape[1]
    position = np.clip((np.arange(SIZE) + 0.5) * small / SIZE - 0.5, 0, small - 1)
    left = np.minimum(position.astype(int), small - 2)
    weights = np.zeros((SIZE, small))
    weights[np.arange(SIZE), left] = 1 - (position - left)
    weights[np.arange(SIZE), left + 1] = position - left
    return weights @ images @ weights.T


class Digits(Dataset[tuple[Tensor, int]]):
    """One half of the digits: a model tensor float32 ``[1, 32, 32]`` and its label."""

    classes = tuple(str(digit) for digit in range(CLASSES))

    def __init__(self, half: str) -> None:
        self.half = half

    def __len__(self) -> int:
        return len(self._rows()[1])

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        images, labels = self._rows()
        return torch.from_numpy(images[index]), int(labels[index])

    def _rows(self) -> tuple[np.ndarray, np.ndarray]:
        images, labels = images_and_labels()
        split = int(len(labels) * TEST_SHARE)
        rows = slice(None, split) if self.half == "test" else slice(split, None)
        return images[rows], labels[rows]


train = Digits("train")
test = Digits("test")


class Residual(nn.Module):
    """Two 3×3 convolutions with a shortcut (He et al. 2016)."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, 1, 1, bias=False),
            nn.BatchNorm2d(channels),
        )
        same = channels_in == channels and stride == 1
        self.shortcut = (
            nn.Identity()
            if same
            else nn.Sequential(nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels))
        )
        self.activation = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """``[n, channels_in, h, w]`` to ``[n, channels, h / stride, w / stride]``."""
        return self.activation(self.body(x) + self.shortcut(x))


class ResidualNet(nn.Module):
    """A strided stem, stages of residual blocks, average pooling and a linear head.

    Args:
        widths: Channels of each stage; every stage after the first halves the image.
        blocks: Residual blocks a stage.
    """

    def __init__(self, widths: Sequence[int], blocks: int) -> None:
        super().__init__()
        channels = widths[0]
        self.stem = nn.Sequential(nn.Conv2d(1, channels, 3, 2, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU())
        stages: list[nn.Module] = []
        for stage, width in enumerate(widths):
            for block in range(blocks):
                stages.append(Residual(channels, width, stride=2 if stage and not block else 1))
                channels = width
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(channels, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """``[n, 1, 32, 32]`` to logits ``[n, 10]``."""
        return self.head(self.stages(self.stem(x)).mean(dim=(2, 3)))


class Teacher(ResidualNet):
    """The large model: 0.41 million parameters as it is."""

    def __init__(self, widths: Sequence[int] = (32, 64, 160), blocks: int = 1) -> None:
        super().__init__(widths, blocks)


class Student(ResidualNet):
    """The small model: 56 thousand parameters as it is."""

    def __init__(self, widths: Sequence[int] = (32, 48), blocks: int = 1) -> None:
        super().__init__(widths, blocks)
