"""Running a module on samples: the same call for training, for scoring and for a teacher."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgekit.artifact import Array
from edgekit.data import Samples
from edgekit.errors import DataError, EdgeKitError, TrainingError

TAKEN = "_edgekit_inputs"  # attribute of a module that takes some inputs alone


def forward(module: nn.Module, samples: Samples, batch_size: int = 256) -> dict[str, Array]:
    """Runs a module over all samples, in evaluation mode and without gradients.

    The module is left in the mode it was in.

    Args:
        module: Takes the samples' tensors (see :func:`call`).
        samples: At least one.
        batch_size: Samples a call.

    Returns:
        Every output by name, ``[n, …]``: ``output`` for a single one, ``output_0`` … for a tuple, a mapping's own keys.

    Raises:
        DataError: There are no samples.
        TrainingError: The module does not take the samples' tensors, or returns something else than tensors.
    """
    count = len(samples)
    if not count:
        raise DataError(f"{samples.name}: no samples", found="0 samples", allowed="at least 1")
    device = device_of(module)
    parts: dict[str, list[Array]] = {}
    # Not inference_mode: a module that caches a tensor on its first call could not be trained with it afterwards.
    with evaluating(module), torch.no_grad():
        for start in range(0, count, batch_size):
            inputs = to_torch(samples.tensors(np.arange(start, min(start + batch_size, count))), device)
            for name, output in call(module, inputs).items():
                parts.setdefault(name, []).append(output.detach().cpu().numpy())
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}


def call(module: nn.Module, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Calls a module on one batch and names its outputs.

    Args:
        module: A single input is given by position, several by keyword; of several those it was told to take.
        inputs: Model tensors by name, ``[n, …]``.

    Returns:
        Outputs by name, as of :func:`forward`.

    Raises:
        TrainingError: The call fails, or returns something else than tensors.
    """
    inputs = taken(module, inputs)
    try:
        raw = module(*inputs.values()) if len(inputs) == 1 else module(**inputs)
    except EdgeKitError:
        raise
    except Exception as exc:
        shapes = ", ".join(f"{name} {_describe(tensor)}" for name, tensor in inputs.items())
        raise TrainingError(
            f"{type(module).__name__} failed on a batch of the data: {type(exc).__name__}: {exc}",
            found=shapes or "no inputs",
            allowed="the shapes and dtypes the module's forward takes",
            fix="match the model's arguments to the data, or shape the data with [input] in the recipe",
        ) from exc
    return name_outputs(module, raw)


def take_inputs(module: nn.Module, names: Sequence[str]) -> None:
    """Has a module, and every copy of it, take these inputs of a sample alone.

    So teacher and student may see different views of it: S. Gupta, J. Hoffman, J. Malik, "Cross Modal Distillation for
    Supervision Transfer", CVPR 2016.
    """
    setattr(module, TAKEN, tuple(names))


def taken(module: nn.Module, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Those of a batch's inputs that a module takes; a single one it takes whatever its name."""
    names = getattr(module, TAKEN, ())
    return {name: inputs[name] for name in names} if names and len(inputs) > 1 else inputs


def logits_of(module: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    """The first output of a module on one batch, which must be logits ``[n, classes]``.

    Raises:
        TrainingError: The call fails, or its first output has another shape.
    """
    logits = next(iter(call(module, inputs).values()))
    samples = len(next(iter(inputs.values())))
    if logits.ndim != 2 or len(logits) != samples or logits.shape[1] < 2:
        raise TrainingError(
            f"{type(module).__name__} does not return logits",
            found=f"its first output is {_describe(logits)} for {samples} samples",
            allowed=f"[{samples}, classes] with at least 2 classes",
            fix="return one row of class scores for each sample",
        )
    return logits


def to_torch(arrays: Mapping[str, Array], device: torch.device) -> dict[str, Tensor]:
    """Model tensors as torch tensors on a device."""
    # torch.tensor copies: from_numpy would share memory with the samples, and warns where they are read-only.
    return {name: torch.tensor(array, device=device) for name, array in arrays.items()}


def device_of(module: nn.Module) -> torch.device:
    """Where a module's first parameter or buffer lies; the CPU for a module that has none."""
    for tensor in (*module.parameters(), *module.buffers()):
        return tensor.device
    return torch.device("cpu")


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode while the block runs; every submodule then has its own mode back."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training


def name_outputs(module: nn.Module, raw: Any) -> dict[str, Tensor]:
    """What a module returned, by name, as of :func:`forward`.

    Raises:
        TrainingError: It is something else than tensors.
    """
    if isinstance(raw, Mapping):
        outputs = {str(name): value for name, value in raw.items()}
    elif isinstance(raw, (tuple, list)):
        outputs = {f"output_{i}": value for i, value in enumerate(raw)}
    else:
        outputs = {"output": raw}
    wrong = {name: type(value).__name__ for name, value in outputs.items() if not isinstance(value, Tensor)}
    if wrong or not outputs:
        raise TrainingError(
            f"{type(module).__name__} does not return tensors",
            found=", ".join(f"{name}: {kind}" for name, kind in wrong.items()) or "no outputs",
            allowed="a tensor, a tuple or list of tensors, or a mapping to tensors",
        )
    return outputs


def _describe(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"
