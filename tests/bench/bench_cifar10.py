"""What distillation gives a small student on CIFAR-10 (JPEG): against the same student taught by labels alone.

By hand, an hour or two: ``EDGEKIT_DATA=… python tests/bench/bench_cifar10.py OUT``. Both sides begin with the same
weights and take the same steps, with the same schedule, augmentation and order of samples; the teacher is the ResNet-56
of examples/cifar10. Rows are kept in OUT, so a run that was stopped goes on. Of the gain: the paired 95% interval over
the test pictures, of each seed (Tango's) and of the mean over seeds (Student's).

``all``: every label. ``tenth``: 4,500 pictures and their labels, nothing else. ``unlabelled``: the same 4,500 labels,
and the other training pictures for the distilled student alone, which the teacher labels; as many steps as ``tenth``.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgekit.data import Samples
from edgekit.distillation.forward import forward
from edgekit.distillation.outputs import read_outputs, write_outputs
from edgekit.distillation.students import distill, view_of
from edgekit.distillation.trainer import Keeping, train
from edgekit.ingredients import load_data
from edgekit.labelling import keep_labels, only_labelled
from edgekit.metrics import paired_drop
from edgekit.models import load_module
from edgekit.recipe import load_recipe
from edgekit.recipe_training import Distillation, ModelSpec, Training

EXAMPLE = Path(__file__).parents[2] / "examples" / "cifar10"
ARMS = ("all", "tenth", "unlabelled")
EPOCHS = {"all": 8, "tenth": 40, "unlabelled": 4}
VIEWS = {"all": 3, "tenth": 10, "unlabelled": 2}
COMMON = {"batch_size": 128, "optimizer": "sgd", "learning_rate": 0.1, "weight_decay": 5e-4}
STUDENT = ModelSpec(model="cifar10:ResNet", args={"blocks": [1, 1, 1]})


def held(samples: Samples) -> Samples:
    """The same samples, read once."""
    raw = samples.raw(range(len(samples)))
    return replace(samples, fetch=lambda indices: {name: array[indices] for name, array in raw.items()})


def settings_of(arm: str) -> dict[str, Any]:
    augmentation = {"flip": True, "crop": 4, "views": VIEWS[arm]}
    return {**COMMON, "epochs": EPOCHS[arm], "augmentation": augmentation}


def row(arm: str, side: str, seed: int, data: Any, teacher: torch.nn.Module, out: Path) -> np.ndarray:
    """1 where the trained student is right on a test picture, else 0; kept in a file."""
    path = out / f"{arm}-{side}-{seed}.npy"
    if path.exists():
        return np.load(path)
    began, student = time.monotonic(), load_module(STUDENT, base=EXAMPLE, seed=seed, where="student")
    samples = data.train if arm == "all" else keep_labels(data.train, 0.1, 0)
    if arm == "tenth":
        samples = only_labelled(samples)
    keeping = Keeping(checkpoint=out / f"{path.stem}.checkpoint")
    if side == "labels":
        settings = Training(**settings_of(arm))
        view = view_of(settings, student, samples, seed=seed, base=EXAMPLE)
        train(student, samples, data.validation, settings, seed=seed, view=view, keeping=keeping)
    else:
        settings = Distillation(**settings_of(arm), soft_weight=0.9)
        folder = out / f"answers-{arm}-{seed}"
        if not (folder / "outputs.json").exists():
            folder.mkdir(exist_ok=True)
            view = view_of(settings, student, samples, seed=seed, base=EXAMPLE)
            write_outputs(folder, teacher, samples, teacher_id="resnet56", view=view, views=VIEWS[arm])
        answers = read_outputs(folder, samples, teacher_id="resnet56")
        distill(teacher, student, samples, data.validation, settings, seed=seed, answers=answers, keeping=keeping)
    right = (forward(student, data.test)["output"].argmax(axis=1) == data.test.targets).astype(np.float64)
    np.save(path, right)
    print(f"{arm} {side} seed {seed}: {right.mean():.2%} after {time.monotonic() - began:.0f} s", flush=True)
    return right


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--arm", choices=ARMS, action="append")
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    recipe = load_recipe(EXAMPLE)
    data = load_data(recipe, EXAMPLE, None)
    data = replace(data, train=held(data.train), validation=held(data.validation), test=held(data.test))
    teacher = load_module(recipe.teacher, base=EXAMPLE, seed=0, where="teacher").eval()
    lines, missed = [], 0
    for arm in given.arm or ARMS:
        pairs = []
        for seed in range(given.seeds):
            # Beside fewer pictures there is nothing else to learn from labels, so both arms have the same other side.
            known = row("tenth" if arm == "unlabelled" else arm, "labels", seed, data, teacher, given.out)
            pairs.append((known, row(arm, "distilled", seed, data, teacher, given.out)))
            one = paired_drop(*reversed(pairs[-1]))
            lines.append(f"{arm:10} {seed:4} {known.mean():8.2%} {pairs[-1][1].mean():10.2%}  {gain(one)}")
        mean = paired_drop(*(np.mean(side, axis=0) for side in reversed(list(zip(*pairs, strict=True)))))
        known, taught = (float(np.mean(side)) for side in zip(*pairs, strict=True))
        lines.append(f"{arm:10} mean {known:8.2%} {taught:10.2%}  {gain(mean)}")
        missed += mean.low <= 0 or (arm != "all" and mean.points < 2)
    print("\nlabels     seed   labels  distilled  gain in points, 95%\n" + "\n".join(lines))
    return int(missed > 0)


def gain(drop: Any) -> str:
    return f"{drop.points:+.2f} [{drop.low:+.2f}, {drop.high:+.2f}]"


if __name__ == "__main__":
    sys.exit(main())
