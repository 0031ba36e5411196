"""ResNets for 32×32 colour pictures, as the paper that brought them has them for CIFAR-10."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

CLASSES = 10


class Block(nn.Module):
    """Two 3×3 convolutions and a shortcut without weights.

    Where the shape changes, the shortcut takes every second pixel and fills the new channels, half of them on either
    side, with zeros (option A of He et al.).
    """

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.stride = stride
        self.missing = channels - channels_in

    def forward(self, x: Tensor) -> Tensor:
        """``[n, channels_in, h, w]`` to ``[n, channels, h / stride, w / stride]``."""
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        return functional.relu(y + self._shortcut(x))

    def _shortcut(self, x: Tensor) -> Tensor:
        if self.stride > 1:
            x = x[:, :, :: self.stride, :: self.stride]
        if self.missing:
            before = self.missing // 2
            x = functional.pad(x, (0, 0, 0, 0, before, self.missing - before))
        return x


class ResNet(nn.Module):
    """He, Zhang, Ren and Sun, "Deep residual learning for image recognition", 2016, section 4.2.

    A network of ``n`` blocks in each of the three stages has ``6 n + 2`` layers: nine make ResNet-56, two ResNet-14.

    Args:
        blocks: Blocks of each stage; every stage but the first halves the picture.
        widths: Channels of each stage.
    """

    def __init__(self, blocks: Sequence[int] = (9, 9, 9), widths: Sequence[int] = (16, 32, 64)) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        channels = [widths[0], *widths]
        self.layer1, self.layer2, self.layer3 = (
            nn.Sequential(
                *(
                    Block(channels[i] if number == 0 else width, width, 2 if number == 0 and i > 0 else 1)
                    for number in range(count)
                )
            )
            for i, (width, count) in enumerate(zip(widths, blocks, strict=True))
        )
        self.linear = nn.Linear(widths[-1], CLASSES)
        self.to(memory_format=torch.channels_last)  # less time to train on a CPU

    def forward(self, x: Tensor) -> Tensor:
        """``[n, 3, 32, 32]`` to logits ``[n, 10]``."""
        x = functional.relu(self.bn1(self.conv1(x)))
        return self.linear(self.layer3(self.layer2(self.layer1(x))).mean(dim=(2, 3)))
