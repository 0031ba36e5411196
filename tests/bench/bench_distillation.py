"""What the trainer costs: a distilled step over a hand-written loop, and a cached teacher over no teacher.

By hand: ``python tests/bench/bench_distillation.py``. Sides take turns, an epoch each; the ratio is the median over
rounds of what one epoch takes, with its lowest and highest. Limits: 1.05 over the hand-written loop, 1.15 with a cached
teacher over training without one. CIFAR-sized random images, residual networks of 0.27 and 0.08 M parameters.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgekit.data import Samples
from edgekit.distillation.outputs import read_outputs, write_outputs
from edgekit.distillation.students import distill
from edgekit.distillation.trainer import train
from edgekit.recipe_training import Distillation, Training

COUNT, BATCH, ROUNDS = 4096, 64, 25
SETTINGS = {"epochs": 1, "batch_size": BATCH, "learning_rate": 1e-3}


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.body(x))


def net(width: int, blocks: int) -> nn.Module:
    torch.manual_seed(width)
    parts: list[nn.Module] = [nn.Conv2d(3, width, 3, stride=2, padding=1), nn.ReLU()]
    for stage in range(3):
        here = width * 2**stage
        parts += [Block(here) for _ in range(blocks)]
        if stage < 2:
            parts += [nn.Conv2d(here, 2 * here, 3, stride=2, padding=1), nn.ReLU()]
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * width, 10))


def by_hand(teacher: nn.Module, student: nn.Module, x: np.ndarray, y: np.ndarray) -> None:
    """An epoch as an engineer would write it for this one purpose."""
    teacher.eval()
    student.train()
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-3)
    images, labels = torch.from_numpy(x), torch.from_numpy(y)
    for indices in torch.randperm(len(images)).split(BATCH):
        batch = images[indices]
        with torch.no_grad():
            answers = teacher(batch)
        logits = student(batch)
        soft = functional.kl_div(
            (logits / 4).log_softmax(1), (answers / 4).log_softmax(1), reduction="batchmean", log_target=True
        )
        loss = 0.7 * 16 * soft + 0.3 * functional.cross_entropy(logits, labels[indices])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def taking_turns(sides: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
    """Seconds of every side in every round, the first of which is left out."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(ROUNDS + 1):
        for name, run in sides.items() if number % 2 else reversed(sides.items()):
            began = time.perf_counter()
            run()
            if number:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def main() -> int:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((COUNT, 3, 32, 32)).astype(np.float32)
    teacher, y = net(32, 2), rng.integers(0, 10, COUNT)
    data = Samples(name="random", count=COUNT, fetch=lambda indices: {"x": x[indices]}, targets=y)
    few = data.subset(range(8))
    learnt = Samples(name="few", count=8, fetch=few.fetch)  # without labels no teacher is worse than guessing
    with tempfile.TemporaryDirectory() as folder:
        write_outputs(Path(folder), teacher.eval(), data, teacher_id="t", view=None, views=1)
        cached = read_outputs(Path(folder), data, teacher_id="t")
        settings, plain = Distillation(**SETTINGS), Training(**SETTINGS)
        seconds = taking_turns(
            {
                "by hand": lambda: by_hand(teacher, net(16, 1), x, y),
                "distilled": lambda: distill(teacher, net(16, 1), data, learnt, settings, seed=0),
                "no teacher": lambda: train(net(16, 1), data, few, plain, seed=0),
                "cached teacher": lambda: distill(teacher, net(16, 1), data, learnt, settings, seed=0, answers=cached),
            }
        )
    failed = 0
    for name, base, limit in (("distilled", "by hand", 1.05), ("cached teacher", "no teacher", 1.15)):
        ratios = np.array(seconds[name]) / np.array(seconds[base])
        centre, low, high = np.median(ratios), ratios.min(), ratios.max()
        met = "met" if centre <= limit else "MISSED"
        failed += centre > limit
        print(f"{name} over {base}: {centre:.3f} [{low:.3f}, {high:.3f}] of {ROUNDS} rounds, limit {limit}: {met}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
