"""One trainer for teachers, for fine-tuning and for students, on one process or many."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.optim.lr_scheduler import LambdaLR

from edgekit.artifact import Array
from edgekit.data import Samples
from edgekit.distillation.adversarial import partly_perturbed
from edgekit.distillation.averages import Average
from edgekit.distillation.batch import Answers, Batch, Loss, cross_entropy, module_of, needs_labels
from edgekit.distillation.checkpoints import (
    Clock,
    Place,
    load_checkpoint,
    random_state,
    save_checkpoint,
    set_random_state,
)
from edgekit.distillation.forward import forward, logits_of, to_torch
from edgekit.distillation.inspection import count_batches, inspect_samples, not_finite
from edgekit.distillation.parameters import frozen, optimizer_for
from edgekit.distillation.sampling import epoch_order
from edgekit.distillation.schedules import rate_factor
from edgekit.distillation.seeding import seeded
from edgekit.distillation.selection import Score, better
from edgekit.distillation.workers import (
    PROJECT,
    average_statistics,
    make_accelerator,
    of_all,
    own_slice,
    placed,
    shared,
    sum_gradients,
    total,
)
from edgekit.errors import Diverged, TrainingError
from edgekit.models import replace_head
from edgekit.progress import Progress, silent
from edgekit.pruning.criteria import sparsity_loss
from edgekit.pruning.rising import Rising, early_epochs, sparsely
from edgekit.recipe_training import Training

if TYPE_CHECKING:
    from accelerate import Accelerator

    from edgekit.distillation.augmentation import View


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """What a training run was like.

    Attributes:
        epochs: Passes over the training data that were made.
        best_epoch: The epoch, from 1, whose weights were kept; 0: those that it began with.
        scores: Validation accuracy after each epoch, 0 to 1.
        losses: Mean training loss of each epoch, without what ``bn_sparsity`` adds to it.
        seconds: Wall-clock time, that of a run that was killed included as far as its last checkpoint.
        stopped_early: Whether patience ended it before the last epoch.
        first_score: Validation accuracy of the weights that it began with; None where they were not to be kept.
    """

    epochs: int
    best_epoch: int
    scores: tuple[float, ...]
    losses: tuple[float, ...]
    seconds: float
    stopped_early: bool
    first_score: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Keeping:
    """Where a training leaves what outlasts its process.

    Attributes:
        checkpoint: File that a killed training goes on from; None: it begins anew.
        logs: Folder of the trackers' files; None: none is started.
    """

    checkpoint: Path | None = None
    logs: Path | None = None


NOWHERE = Keeping()
"""A training that leaves nothing but its model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """What every step of one run needs."""

    module: nn.Module
    average: Average | None
    frozen_parts: Sequence[nn.Module]
    data: Samples
    validation: Samples
    settings: Training
    seed: int
    loss: Loss
    ask: Answers | None
    view: View | None
    keeping: Keeping
    progress: Progress
    name: str
    accelerator: Accelerator
    optimizer: Any
    schedule: LambdaLR
    batches: int
    learned: Sequence[nn.Parameter]
    score_first: bool
    rising: Rising | None

    @property
    def total(self) -> int:
        """Batches of the whole run."""
        return self.batches * self.settings.epochs

    @property
    def scored(self) -> nn.Module:
        """What is scored and kept: the model, or the running mean of its weights."""
        return self.module if self.average is None else self.average.module


def train(
    module: nn.Module,
    data: Samples,
    validation: Samples,
    settings: Training,
    *,
    seed: int,
    loss: Loss = cross_entropy,
    ask: Answers | None = None,
    view: View | None = None,
    keeping: Keeping = NOWHERE,
    progress: Progress = silent,
    name: str = "teacher",
    score_first: bool = False,
) -> History:
    """Trains a module in place and leaves its best weights loaded, in evaluation mode.

    The best are those of the highest validation accuracy; among those that the samples cannot tell apart, of the lowest
    cross-entropy (see :func:`edgekit.distillation.selection.better`). On a CPU the same seed, number of threads and
    machine give bit-identical weights, also from a checkpoint; the caller's random state stays.

    Args:
        module: Its first output must be logits ``[n, classes]``.
        data: Training samples, shuffled anew each epoch.
        validation: Labelled samples that choose the best epoch.
        settings: See :class:`edgekit.recipe_training.Training`; ``batch_size`` is that of all processes together.
        seed: Decides the shuffling, dropout, a new head and random augmentation.
        loss: What is minimised; it must not need labels where the data has none.
        ask: What teaches, asked before the model is run: its memory is free by then, a tenth of a step on a CPU.
        view: Varies each batch; see :func:`edgekit.distillation.augmentation.make_view`.
        keeping: Checkpoint and trackers.
        progress: Told of every batch, with the last loss and validation accuracy.
        name: What the module is called in messages.
        score_first: Whether the weights given count as those of an epoch 0, and are kept where no other does better.

    Raises:
        DataError: Samples are missing, or a label is missing or no class of the module.
        ModelError: There are no BatchNorm scales for ``bn_sparsity``, or no weights for ``sparse``.
        TrainingError: Settings or data do not fit; Diverged where the loss is not finite: the best weights are loaded.
    """
    if settings.head is not None:
        replace_head(module, settings.head.module, settings.head.classes, seed)
    inspect_samples(module, data, validation, labelled=needs_labels(loss))
    accelerator, beside = make_accelerator(settings, keeping.logs), module_of(loss)
    with (
        seeded(seed + accelerator.process_index),
        placed(accelerator.device, module, beside),
        frozen(module, settings.freeze) as frozen_parts,
        sparsely(module, settings.sparse) as rising,
    ):
        _learn(module, beside, frozen_parts)
        batches = count_batches(module, len(data), settings.batch_size, accelerator.num_processes)
        optimizer, schedule, learned = _stepping(module, beside, settings, batches, accelerator)
        average = None if settings.ema is None else Average(module, settings.ema)
        return _fit(_Run(
            module=module, average=average, frozen_parts=frozen_parts, rising=rising, data=data, name=name, seed=seed,
            validation=validation, settings=settings, loss=loss, ask=ask, view=view, keeping=keeping, progress=progress,
            score_first=score_first, accelerator=accelerator, optimizer=optimizer, schedule=schedule, batches=batches,
            learned=learned,
        ))  # fmt: skip


def _stepping(
    module: nn.Module, beside: nn.Module | None, settings: Training, batches: int, accelerator: Accelerator
) -> tuple[Any, LambdaLR, list[nn.Parameter]]:
    """The optimizer, the schedule of its rate, and all parameters whose gradients it may take."""
    steps = math.ceil(batches / settings.accumulate) * settings.epochs
    optimizer = optimizer_for(module, settings, beside)
    schedule = LambdaLR(optimizer, lambda step: rate_factor(step, steps, settings))
    learned = [*module.parameters(), *(beside.parameters() if beside is not None else ())]
    # Only fp16's scaling needs Accelerate's wrapper, which searches for packages in every step.
    return optimizer if accelerator.scaler is None else accelerator.prepare_optimizer(optimizer), schedule, learned


def _fit(run: _Run) -> History:
    """All epochs; whatever happens, the best weights until then are loaded at the end."""
    settings, early = run.settings, early_epochs(run.settings)
    if settings.bn_sparsity is not None:
        sparsity_loss(run.module)  # refuses a module without scales before a first step
    place = _resumed(run) or Place(best=copy.deepcopy(run.module.state_dict()))
    if settings.trackers and run.keeping.logs is not None:
        run.accelerator.init_trackers(PROJECT, {"name": run.name, "seed": run.seed, "epochs": settings.epochs})
    began = time.perf_counter() - place.seconds
    try:
        if run.score_first and place.first is None:
            place.kept = shared(_score(run, 0), run.accelerator)
            place.first = place.kept.accuracy
        while place.epoch <= settings.epochs:
            _epoch(run, place, began)
            score = shared(_score(run, place.epoch), run.accelerator)
            place.scores.append(score.accuracy)
            run.accelerator.log({f"{run.name}/validation": score.accuracy}, step=place.epoch * run.batches)
            if place.epoch > early:
                known = place.scores[early:] if early else place.known
                place.kept = better(score, place.kept, max(known), len(run.validation))
            if place.kept is score:
                place.best = copy.deepcopy(run.scored.state_dict())
            elif settings.patience is not None and place.epoch - max(place.kept.epoch, early) >= settings.patience:
                break
            place.epoch, place.batch, place.loss, place.seen = place.epoch + 1, 0, 0.0, 0
            _save(run, place, began)
    finally:
        run.module.load_state_dict(place.best)
        run.module.eval()
    if run.accelerator.trackers:
        run.accelerator.end_training()
    run.progress(f"train {run.name}", run.total, run.total, f"validation {place.kept.accuracy:.1%}")
    return History(
        epochs=len(place.scores),
        best_epoch=place.kept.epoch,
        scores=tuple(place.scores),
        losses=tuple(place.losses),
        seconds=time.perf_counter() - began,
        stopped_early=len(place.scores) < settings.epochs,
        first_score=place.first,
    )


def _learn(module: nn.Module, beside: nn.Module | None, frozen_parts: Sequence[nn.Module]) -> None:
    """Training mode, but for what is frozen: its BatchNorms keep their statistics."""
    module.train()
    if beside is not None:
        beside.train()
    for part in frozen_parts:
        part.eval()


def _epoch(run: _Run, place: Place, began: float) -> None:
    """One pass over the training data, or what is left of it; notes the mean loss of a sample."""
    _learn(run.module, module_of(run.loss), run.frozen_parts)
    settings, clock = run.settings, Clock()
    order = epoch_order(
        len(run.data),
        seed=run.seed,
        epoch=place.epoch,
        groups=run.data.groups,
        temperature=settings.group_temperature,
    )
    validation = f", validation {place.scores[-1]:.1%}" if place.scores else ""
    while place.batch < run.batches:
        until = min(place.batch + settings.accumulate, run.batches)
        parts = [order[b * settings.batch_size : (b + 1) * settings.batch_size] for b in range(place.batch, until)]
        loss, count = _step(run, place, parts)
        place.batch, place.loss, place.seen = until, place.loss + loss * count, place.seen + count
        done = (place.epoch - 1) * run.batches + until
        if run.rising is not None:
            run.rising.advance(done / run.total, () if run.average is None else (run.average.module,))
        run.accelerator.log({f"{run.name}/loss": loss, f"{run.name}/rate": run.schedule.get_last_lr()[0]}, step=done)
        run.progress(f"train {run.name}", done, run.total, f"loss {loss:.3f}{validation}")
        if place.batch < run.batches and shared(clock.due(), run.accelerator):
            _save(run, place, began)
    average_statistics(run.module, run.accelerator)
    place.losses.append(place.loss / place.seen)


def _step(run: _Run, place: Place, parts: Sequence[Array]) -> tuple[float, int]:
    """One update from one batch, or from several whose gradients are summed; gives the mean loss and the samples."""
    accelerator, summed, count = run.accelerator, 0.0, sum(map(len, parts))
    run.optimizer.zero_grad()
    for number, whole in enumerate(parts):
        own = own_slice(whole, accelerator)
        batch = _batch(run, place, own, ((place.epoch - 1) * run.batches + place.batch + number) / run.total)
        with accelerator.autocast():
            batch = batch if run.ask is None else replace(batch, answers=run.ask(batch))
            logits = logits_of(run.module, batch.inputs)
            value = run.loss(batch, logits) * (len(own) / count)
        loss = float(value.detach())  # without the penalty: it stays comparable, and what it tells is of the data
        if not math.isfinite(loss):
            where = f"{run.name}: epoch {place.epoch}, batch {place.batch + number + 1}"
            raise not_finite(where, loss, batch.inputs, logits, run.keeping.checkpoint)
        if run.settings.bn_sparsity is not None:
            value = value + run.settings.bn_sparsity * (len(own) / count) * sparsity_loss(run.module)
        accelerator.backward(value)
        summed += loss
    sum_gradients(run.learned, accelerator)
    if run.settings.clip_norm is not None:
        accelerator.clip_grad_norm_(run.learned, run.settings.clip_norm)
    run.optimizer.step()
    if not accelerator.optimizer_step_was_skipped:  # fp16 skips a step whose gradients overflowed
        run.schedule.step()
        if run.average is not None:
            run.average.update(run.module)
    return total([summed], accelerator)[0], count


def _batch(run: _Run, place: Place, indices: Array, share: float) -> Batch:
    """The samples at ``indices`` as the augmentation and the attack leave them."""
    device = run.accelerator.device
    inputs = to_torch(run.data.tensors(indices), device)
    targets, view = run.data.targets, place.epoch - 1
    labels = None if targets is None else torch.tensor(targets[indices], dtype=torch.int64, device=device)
    if run.settings.augmentation.views is not None:
        view %= run.settings.augmentation.views
    if run.view is not None:
        inputs, labels = run.view(inputs, labels, indices, view)
    if run.settings.adversarial is not None:
        drawn = np.random.SeedSequence([run.seed, place.epoch, *indices.tolist()]).generate_state(1)
        generator = torch.Generator().manual_seed(int(drawn[0]))
        inputs = partly_perturbed(run.module, inputs, labels, run.settings.adversarial, generator=generator)
    further = {name: torch.tensor(array[indices], device=device) for name, array in run.data.further.items()}
    return Batch(inputs=inputs, labels=labels, indices=indices, view=view, share=share, further=further)


def _score(run: _Run, epoch: int) -> Score:
    logits = torch.from_numpy(next(iter(forward(run.scored, run.validation).values())))
    if not torch.isfinite(logits).all():
        raise Diverged(
            f"{run.name}: epoch {epoch}: the outputs on the validation samples have NaN or infinity",
            fix="lower learning_rate, and check the validation samples for NaN",
        )
    labels = torch.tensor(run.validation.targets, dtype=torch.int64)
    accuracy = float((logits.argmax(dim=1) == labels).double().mean())
    cross = float(functional.cross_entropy(logits.double(), labels))
    return Score(epoch=epoch, accuracy=accuracy, cross_entropy=cross)


def _save(run: _Run, place: Place, began: float) -> None:
    """Writes a checkpoint; every process hands in the state of its generators."""
    path = run.keeping.checkpoint
    if path is None:
        return
    place.seconds = time.perf_counter() - began
    generators = of_all(random_state(), run.accelerator)
    if run.accelerator.is_main_process:
        save_checkpoint(path, place, generators, _stateful(run))


def _resumed(run: _Run) -> Place | None:
    """Takes up a run where its checkpoint left it; None where there is none."""
    path = run.keeping.checkpoint
    if path is None or not path.exists():
        return None
    place, generators = load_checkpoint(path, _stateful(run))
    if len(generators) != run.accelerator.num_processes:
        raise TrainingError(
            f"{path}: the checkpoint is of a run on another number of processes",
            found=f"{len(generators)}, and now {run.accelerator.num_processes}",
            fix="start as many, or remove the file to begin anew",
        )
    set_random_state(generators[run.accelerator.process_index])
    return place


def _stateful(run: _Run) -> dict[str, Any]:
    """What of a run has a state of its own, by the name it has in a checkpoint."""
    parts = {
        "module": run.module,
        "loss": module_of(run.loss),
        "average": run.average,
        "zeros": run.rising,
        "optimizer": run.optimizer,
        "schedule": run.schedule,
        "scaler": run.accelerator.scaler,
    }
    return {name: part for name, part in parts.items() if part is not None}
