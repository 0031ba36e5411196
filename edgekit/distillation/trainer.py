"""One trainer for teachers, for fine-tuning and for students."""

from __future__ import annotations

import copy
import math
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import LambdaLR

from edgekit.artifact import Array
from edgekit.data import Samples
from edgekit.distillation.forward import device_of, forward, logits_of, to_torch
from edgekit.distillation.inspection import check_batches, inspect_samples, normalises_batches
from edgekit.distillation.parameters import frozen, optimizer_for
from edgekit.distillation.schedules import warmup_cosine
from edgekit.errors import TrainingError
from edgekit.models import replace_head
from edgekit.progress import Progress, silent
from edgekit.recipe import Training

Loss = Callable[[Mapping[str, Tensor], Tensor, "Tensor | None"], Tensor]
"""From a batch's inputs by name, its logits ``[n, classes]`` and its labels ``[n]`` (or None) to a scalar."""


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What a training run was like.

    Attributes:
        epochs: Passes over the training data that were made.
        best_epoch: The epoch, from 1, whose weights were kept.
        scores: Validation accuracy after each epoch, 0 to 1.
        losses: Mean training loss of each epoch.
        seconds: Wall-clock time.
        stopped_early: Whether patience ended it before the last epoch.
    """

    epochs: int
    best_epoch: int
    scores: tuple[float, ...]
    losses: tuple[float, ...]
    seconds: float
    stopped_early: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """What every step of one run needs."""

    module: nn.Module
    data: Samples
    loss: Loss
    optimizer: torch.optim.Optimizer
    schedule: LambdaLR
    device: torch.device


def cross_entropy(inputs: Mapping[str, Tensor], logits: Tensor, labels: Tensor | None) -> Tensor:
    """The loss of hard labels; the trainer has checked that there are some."""
    assert labels is not None
    return functional.cross_entropy(logits, labels)


def train(
    module: nn.Module,
    data: Samples,
    validation: Samples,
    settings: Training,
    *,
    seed: int,
    loss: Loss = cross_entropy,
    progress: Progress = silent,
    name: str = "teacher",
) -> History:
    """Trains a module in place and leaves its best weights loaded, in evaluation mode.

    The best are those of the highest validation accuracy, at equal accuracy of the lowest validation cross-entropy.
    The same seed, number of threads and machine give bit-identical weights; the caller's random state stays.

    Args:
        module: Its first output must be logits ``[n, classes]``.
        data: Training samples, shuffled anew each epoch.
        validation: Labelled samples that choose the best epoch.
        settings: See :class:`edgekit.recipe.Training`.
        seed: Decides the shuffling, dropout, a new head and random augmentation.
        loss: What is minimised; it must not need labels where the data has none.
        progress: Told of every batch, with the last loss and validation accuracy.
        name: What the module is called in messages.

    Raises:
        DataError: Samples are missing, or a label is missing or no class of the module.
        TrainingError: Settings name no module, the module does not fit the data, or the loss is not finite; the best
            weights until then are loaded.
    """
    if settings.head is not None:
        replace_head(module, settings.head.module, settings.head.classes, seed)
    inspect_samples(module, data, validation, labelled=loss is cross_entropy)
    started = time.perf_counter()
    best = copy.deepcopy(module.state_dict())
    best_rank, best_epoch = (-math.inf, -math.inf), 0
    scores: list[float] = []
    losses: list[float] = []
    with _seeded(seed), frozen(module, settings.freeze) as frozen_parts:
        steps = settings.epochs * math.ceil(len(data) / settings.batch_size)
        run = _start(module, data, loss, settings, steps)
        shuffle = torch.Generator().manual_seed(seed)
        try:
            for epoch in range(1, settings.epochs + 1):
                module.train()
                for part in frozen_parts:
                    part.eval()
                note = f"validation {scores[-1]:.1%}" if scores else ""
                tell = _teller(progress, f"train {name}", steps, steps // settings.epochs * (epoch - 1), note)
                losses.append(_epoch(run, settings.batch_size, shuffle, f"{name}: epoch {epoch}", tell))
                accuracy, cross = _score(module, validation, f"{name}: epoch {epoch}")
                scores.append(accuracy)
                if (accuracy, -cross) > best_rank:
                    best, best_rank, best_epoch = copy.deepcopy(module.state_dict()), (accuracy, -cross), epoch
                if settings.patience is not None and epoch - best_epoch >= settings.patience:
                    break
        finally:
            module.load_state_dict(best)
            module.eval()
    progress(f"train {name}", steps, steps, f"validation {scores[best_epoch - 1]:.1%}")
    return History(
        epochs=len(scores),
        best_epoch=best_epoch,
        scores=tuple(scores),
        losses=tuple(losses),
        seconds=time.perf_counter() - started,
        stopped_early=len(scores) < settings.epochs,
    )


def _start(module: nn.Module, data: Samples, loss: Loss, settings: Training, steps: int) -> _Run:
    optimizer = optimizer_for(module, settings)
    schedule = LambdaLR(optimizer, lambda step: warmup_cosine(step, steps))
    return _Run(module=module, data=data, loss=loss, optimizer=optimizer, schedule=schedule, device=device_of(module))


def _epoch(
    run: _Run, batch_size: int, shuffle: torch.Generator, where: str, tell: Callable[[int, float], None]
) -> float:
    """One pass over the training data; returns the mean loss a sample."""
    count = len(run.data)
    check_batches(run.module, count, batch_size)
    order = torch.randperm(count, generator=shuffle).numpy()
    total, seen = 0.0, 0
    for batch, start in enumerate(range(0, count, batch_size), start=1):
        indices = order[start : start + batch_size]
        if len(indices) == 1 and normalises_batches(run.module):
            continue  # a BatchNorm has no statistics of one sample; the shuffle drops another one each epoch
        value = _step(run, indices, f"{where}, batch {batch}")
        total, seen = total + value * len(indices), seen + len(indices)
        tell(batch, value)
    return total / seen


def _step(run: _Run, indices: Array, where: str) -> float:
    """One batch: forward, backward, update; returns the loss."""
    inputs = to_torch(run.data.tensors(indices), run.device)
    targets = run.data.targets
    labels = None if targets is None else torch.tensor(targets[indices], dtype=torch.int64, device=run.device)
    logits = logits_of(run.module, inputs)
    value = run.loss(inputs, logits, labels)
    loss = float(value.detach())
    if not math.isfinite(loss):
        raise _not_finite(where, loss, inputs, logits)
    run.optimizer.zero_grad()
    value.backward()
    run.optimizer.step()
    run.schedule.step()
    return loss


def _not_finite(where: str, loss: float, inputs: Mapping[str, Tensor], logits: Tensor) -> TrainingError:
    dirty = [name for name, tensor in inputs.items() if not torch.isfinite(tensor).all()]
    if dirty:
        found, fix = f"input {dirty[0]!r} has NaN or infinity in this batch", "mend the data"
    elif not torch.isfinite(logits).all():
        found, fix = "the module's outputs have NaN or infinity", "lower learning_rate, and check the weights"
    else:
        found, fix = "the outputs are finite, the loss is not", "lower learning_rate, and check the teacher's outputs"
    return TrainingError(f"{where}: the loss is {loss}", found=found, allowed="a finite loss", fix=fix)


def _score(module: nn.Module, validation: Samples, where: str) -> tuple[float, float]:
    """Accuracy and cross-entropy on the validation samples."""
    logits = torch.from_numpy(next(iter(forward(module, validation).values())))
    if not torch.isfinite(logits).all():
        raise TrainingError(
            f"{where}: the outputs on the validation samples have NaN or infinity",
            fix="lower learning_rate, and check the validation samples for NaN",
        )
    labels = torch.tensor(validation.targets, dtype=torch.int64)
    accuracy = float((logits.argmax(dim=1) == labels).double().mean())
    return accuracy, float(functional.cross_entropy(logits.double(), labels))


def _teller(progress: Progress, step: str, steps: int, before: int, validation: str) -> Callable[[int, float], None]:
    """From a batch of an epoch and its loss to progress through the whole run."""

    def tell(batch: int, loss: float) -> None:
        progress(step, before + batch, steps, f"loss {loss:.3f}" + (f", {validation}" if validation else ""))

    return tell


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seeds torch, numpy and random (augmentation may use any of them) while the block runs."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=list(range(torch.cuda.device_count()))):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
