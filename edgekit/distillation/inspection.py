"""What must hold before a first step is taken, told early and in the user's words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from edgekit.data import Samples
from edgekit.distillation.forward import device_of, evaluating, logits_of, to_torch
from edgekit.errors import DataError, Diverged, TrainingError


def count_classes(module: nn.Module, data: Samples) -> int:
    """How many classes a module tells apart: the width of its logits on the first samples.

    Raises:
        TrainingError: It does not take the data's tensors or does not return logits ``[n, classes]``.
    """
    inputs = to_torch(data.tensors(np.arange(min(2, len(data)))), device_of(module))
    with evaluating(module), torch.no_grad():
        return int(logits_of(module, inputs).shape[1])


def inspect_samples(module: nn.Module, data: Samples, validation: Samples, *, labelled: bool) -> None:
    """Checks that a module can be trained on ``data`` and scored on ``validation``.

    Args:
        module: What is trained.
        data: Training samples.
        validation: Validation samples; always labelled.
        labelled: Whether the loss needs the training samples' labels too; where it does not, -1 stands for no label.

    Raises:
        DataError: One of them is empty, lacks labels, or has a label that is no class of the module.
        TrainingError: The module does not take the data's tensors or does not return logits.
    """
    if not len(data):
        raise DataError(f"{data.name}: no training samples", found="0 samples", allowed="at least 1")
    if not len(validation):
        raise DataError(
            f"{validation.name}: no validation samples, so no checkpoint can be called the best",
            found=f"0 samples (and {len(data)} for training)",
            allowed="at least 1",
            fix="give more training data or raise data.validation",
        )
    classes = count_classes(module, data)
    if labelled or data.targets is not None:
        _check_labels(data, classes, unlabelled=not labelled)
    _check_labels(validation, classes, unlabelled=False)


def _check_labels(samples: Samples, classes: int, *, unlabelled: bool) -> None:
    if samples.targets is None:
        raise DataError(
            f"{samples.name}: these samples have no labels",
            allowed=f"one class number a sample, 0 to {classes - 1}",
            fix="give labels, or distil from a teacher with distillation.soft_weight = 1.0",
        )
    labels = np.asarray(samples.targets)
    if labels.shape != (len(samples),) or not np.issubdtype(labels.dtype, np.integer):
        raise DataError(
            f"{samples.name}: the targets are not class numbers",
            found=f"{labels.dtype}{list(labels.shape)} for {len(samples)} samples",
            allowed=f"integers [{len(samples)}]",
        )
    wrong = np.flatnonzero((labels < (-1 if unlabelled else 0)) | (labels >= classes))
    if len(wrong):
        raise DataError(
            f"{samples.name}: a label is not one of the model's classes",
            found=f"label {labels[wrong[0]]} at sample {wrong[0]} ({len(wrong)} such labels)",
            allowed=f"0 to {classes - 1}, for {classes} outputs" + ("; -1 for no label" if unlabelled else ""),
            fix="mend the labels, or give the model a head with more classes",
        )


def count_batches(module: nn.Module, count: int, batch_size: int, processes: int = 1) -> int:
    """How many batches an epoch has.

    A last batch that leaves a process without a sample is left out, or with one sample where a BatchNorm in training
    mode would take its statistics from it; the shuffle leaves other samples out each epoch.

    Args:
        module: In the mode it is trained in.
        count: Training samples.
        batch_size: Samples a batch, of all processes together.
        processes: How many share each batch.

    Raises:
        TrainingError: No batch is large enough for every process, or a BatchNorm would see single samples.
    """
    norms = (part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm))
    normed = any(norm.training for norm in norms)
    fewest = processes * (2 if normed else 1)
    if min(count, batch_size) >= fewest:
        return count // batch_size + (count % batch_size >= fewest)
    if processes > 1:
        raise TrainingError(
            "there are too few samples in a batch for every process",
            found=f"{count} training samples in batches of {batch_size}, on {processes} processes",
            allowed=f"batches of at least {fewest}",
            fix="raise batch_size, which is that of all processes together, or start fewer",
        )
    if normed:
        raise TrainingError(
            f"{type(module).__name__} has BatchNorms, which cannot learn from batches of one sample",
            found=f"{count} training samples in batches of {batch_size}",
            allowed="at least 2 samples a batch",
            fix="raise batch_size, or freeze the modules with BatchNorms",
        )
    return math.ceil(count / batch_size)


def not_finite(
    where: str, loss: float, inputs: Mapping[str, Tensor], logits: Tensor, checkpoint: Path | None
) -> Diverged:
    """The error of a loss that is not finite, with what is to blame: the batch, the module or the loss.

    Args:
        where: Which run, epoch and batch.
        loss: Its value.
        inputs: The batch.
        logits: What the module gave.
        checkpoint: Where the last good state is kept, or None.
    """
    dirty = [name for name, tensor in inputs.items() if not torch.isfinite(tensor).all()]
    if dirty:
        found, fix = f"input {dirty[0]!r} has NaN or infinity in this batch", "mend the data"
    elif not torch.isfinite(logits).all():
        found, fix = "the module's outputs have NaN or infinity", "lower learning_rate, and check the weights"
    else:
        found, fix = "the outputs are finite, the loss is not", "lower learning_rate, and check the teacher's outputs"
    if checkpoint is not None and checkpoint.exists():
        found += f"; the last good state is kept in {checkpoint.name}"
    return Diverged(f"{where}: the loss is {loss}", found=found, allowed="a finite loss", fix=fix)
