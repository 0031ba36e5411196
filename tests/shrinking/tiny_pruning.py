"""A residual network for pictures of stripes, and the recipe that prunes it."""

from __future__ import annotations

from pathlib import Path

from tiny_recipe import DATA, write_project

NETS = '''
"""Residual networks for 12x12 pictures of stripes, whose blocks take most of their time."""

from torch import nn


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.relu = nn.ReLU()

    def forward(self, x):
        return self.relu(x + self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))))


class Net(nn.Module):
    def __init__(self, blocks=4, width=64):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.ReLU())
        self.blocks = nn.Sequential(*(Block(width) for _ in range(blocks)))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 3))

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)))
'''

RECIPE = f"""
name = "striped"
targets = ["local"]
profile = "quick.toml"
[teacher]
model = "stripednets:Net"
[teacher.train]
epochs = 2
batch_size = 8
learning_rate = 0.005
[pruning]
ratio = 0.7
multiple = 32
steps = 1
samples = 48
[pruning.train]
epochs = 2
batch_size = 8
learning_rate = 0.002
{DATA}[quantization]
precision = "fp32"
"""


BLOCKS_ALONE = RECIPE.replace("[pruning]\n", "[pruning]\nchannels = false\n")  # one move to measure instead of three


def write_striped(folder: Path) -> Path:
    """Writes the recipe, its network, its data and its profiles into ``folder``."""
    write_project(folder, train=192, test=48)
    (folder / "stripednets.py").write_text(NETS)
    (folder / "edgekit.toml").write_text(RECIPE)
    return folder
