"""One trainer for teachers, for fine-tuning and for students."""

from __future__ import annotations

import copy
import math
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from edgekit.distillation.inspection import count_batches, inspect_samples
from edgekit.distillation.parameters import frozen, optimizer_for
from edgekit.distillation.schedules import warmup_cosine
from edgekit.distillation.selection import NOTHING, Score, better
from edgekit.errors import TrainingError
from edgekit.models import replace_head
from edgekit.progress import Progress, silent
from edgekit.recipe_training import Training

Loss = Callable[[Mapping[str, Tensor], Tensor, "Tensor | None", float], Tensor]
"""From a batch's inputs by name, its logits ``[n, classes]``, its labels ``[n]`` (or None) and the share of the steps
that are done, 0 to 1, to a scalar."""


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
    beside: nn.Module | None
    frozen_parts: Sequence[nn.Module]
    data: Samples
    validation: Samples
    settings: Training
    loss: Loss
    progress: Progress
    name: str
    device: torch.device
    optimizer: torch.optim.Optimizer
    schedule: LambdaLR
    shuffle: torch.Generator
    batches: int

    @property
    def steps(self) -> int:
        """Batches of the whole run."""
        return self.batches * self.settings.epochs


def cross_entropy(inputs: Mapping[str, Tensor], logits: Tensor, labels: Tensor | None, share: float) -> Tensor:
    """The loss of hard labels; the trainer has checked that there are some."""
    return functional.cross_entropy(logits, labels)


def train(
    module: nn.Module,
    data: Samples,
    validation: Samples,
    settings: Training,
    *,
    seed: int,
    loss: Loss = cross_entropy,
    beside: nn.Module | None = None,
    progress: Progress = silent,
    name: str = "teacher",
) -> History:
    """Trains a module in place and leaves its best weights loaded, in evaluation mode.

    The best are those of the highest validation accuracy; among accuracies that the validation samples cannot tell
    apart, those of the lowest cross-entropy (see :func:`edgekit.distillation.selection.better`).
    The same seed, number of threads and machine give bit-identical weights; the caller's random state stays.

    Args:
        module: Its first output must be logits ``[n, classes]``.
        data: Training samples, shuffled anew each epoch.
        validation: Labelled samples that choose the best epoch.
        settings: See :class:`edgekit.recipe_training.Training`.
        seed: Decides the shuffling, dropout, a new head and random augmentation.
        loss: What is minimised; it must not need labels where the data has none.
        beside: What the loss needs and learns with the module, e.g. projectors; trained in place too.
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
    with _seeded(seed), frozen(module, settings.freeze) as frozen_parts:
        _learn(module, beside, frozen_parts)
        batches = count_batches(module, len(data), settings.batch_size)
        steps = batches * settings.epochs
        optimizer = optimizer_for(module, settings, beside)
        run = _Run(
            module=module,
            beside=beside,
            frozen_parts=frozen_parts,
            data=data,
            validation=validation,
            settings=settings,
            loss=loss,
            progress=progress,
            name=name,
            device=device_of(module),
            optimizer=optimizer,
            schedule=LambdaLR(optimizer, lambda step: warmup_cosine(step, steps)),
            shuffle=torch.Generator().manual_seed(seed),
            batches=batches,
        )
        return _fit(run)


def _fit(run: _Run) -> History:
    """All epochs; whatever happens, the best weights until then are loaded at the end."""
    started = time.perf_counter()
    best, kept = copy.deepcopy(run.module.state_dict()), NOTHING
    scores: list[float] = []
    losses: list[float] = []
    try:
        for epoch in range(1, run.settings.epochs + 1):
            losses.append(_epoch(run, epoch, f"validation {scores[-1]:.1%}" if scores else ""))
            score = _score(run, epoch)
            scores.append(score.accuracy)
            kept = better(score, kept, max(scores), len(run.validation))
            if kept is score:
                best = copy.deepcopy(run.module.state_dict())
            elif run.settings.patience is not None and epoch - kept.epoch >= run.settings.patience:
                break
    finally:
        run.module.load_state_dict(best)
        run.module.eval()
    run.progress(f"train {run.name}", run.steps, run.steps, f"validation {kept.accuracy:.1%}")
    return History(
        epochs=len(scores),
        best_epoch=kept.epoch,
        scores=tuple(scores),
        losses=tuple(losses),
        seconds=time.perf_counter() - started,
        stopped_early=len(scores) < run.settings.epochs,
    )


def _learn(module: nn.Module, beside: nn.Module | None, frozen_parts: Sequence[nn.Module]) -> None:
    """Training mode, but for what is frozen: its BatchNorms keep their statistics."""
    module.train()
    if beside is not None:
        beside.train()
    for part in frozen_parts:
        part.eval()


def _epoch(run: _Run, epoch: int, validation: str) -> float:
    """One pass over the training data; returns the mean loss of a sample."""
    _learn(run.module, run.beside, run.frozen_parts)
    order = torch.randperm(len(run.data), generator=run.shuffle).numpy()
    size = run.settings.batch_size
    total, seen = 0.0, 0
    for batch in range(run.batches):
        indices = order[batch * size : (batch + 1) * size]
        done = ((epoch - 1) * run.batches + batch) / run.steps
        loss = _step(run, indices, done, f"{run.name}: epoch {epoch}, batch {batch + 1}")
        total, seen = total + loss * len(indices), seen + len(indices)
        note = f"loss {loss:.3f}" + (f", {validation}" if validation else "")
        run.progress(f"train {run.name}", (epoch - 1) * run.batches + batch + 1, run.steps, note)
    return total / seen


def _step(run: _Run, indices: Array, share: float, where: str) -> float:
    """One batch: forward, backward, update; returns the loss."""
    inputs = to_torch(run.data.tensors(indices), run.device)
    targets = run.data.targets
    labels = None if targets is None else torch.tensor(targets[indices], dtype=torch.int64, device=run.device)
    logits = logits_of(run.module, inputs)
    value = run.loss(inputs, logits, labels, share)
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


def _score(run: _Run, epoch: int) -> Score:
    logits = torch.from_numpy(next(iter(forward(run.module, run.validation).values())))
    if not torch.isfinite(logits).all():
        raise TrainingError(
            f"{run.name}: epoch {epoch}: the outputs on the validation samples have NaN or infinity",
            fix="lower learning_rate, and check the validation samples for NaN",
        )
    labels = torch.tensor(run.validation.targets, dtype=torch.int64)
    accuracy = float((logits.argmax(dim=1) == labels).double().mean())
    cross = float(functional.cross_entropy(logits.double(), labels))
    return Score(epoch=epoch, accuracy=accuracy, cross_entropy=cross)


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
