"""Samples of a batch blended with one another: mixup and CutMix."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from edgekit.artifact import Array
from edgekit.distillation.sample_draws import Draws
from edgekit.errors import TrainingError
from edgekit.recipe_augmentation import Augmentation

Box = tuple[int, int, int, int]
"""Top, bottom, left and right of a rectangle of pixels; bottom and right are outside."""


def mix(
    inputs: Mapping[str, Tensor], labels: Tensor | None, settings: Augmentation, classes: int, draws: Draws
) -> tuple[dict[str, Tensor], Tensor | None]:
    """Blends every sample of a batch with another one of it, by mixup or CutMix.

    One share a batch, as in both papers' code, drawn from Beta(α, α). Where the recipe has both, each batch takes one
    of them at even odds.

    Args:
        inputs: ``[n, …]`` by name.
        labels: Class numbers int64 ``[n]``, where -1 is unlabelled; shares ``[n, classes]``; or None.
        settings: ``mixup`` or ``cutmix`` is above 0.
        classes: How many there are.
        draws: Decide the share, the pairs and the rectangle, from the batch's indices.

    Returns:
        The blended inputs, and the labels as shares float32 ``[n, classes]``. A row sums to the part of the sample
        that is labelled: to 1 where both of its pair are, to 0 where neither is. None stays None.

    Raises:
        TrainingError: An input cannot be blended.
    """
    rng = draws.batch("mix")
    cuts = settings.cutmix > 0 and (settings.mixup == 0 or rng.random() < 0.5)
    alpha = settings.cutmix if cuts else settings.mixup
    share, partners = float(rng.beta(alpha, alpha)), rng.permutation(len(draws.indices))
    if cuts:
        height, width = _size(inputs)
        box = draw_box(height, width, share, rng)
        share = 1 - (box[1] - box[0]) * (box[3] - box[2]) / (height * width)
        blended = cutmix(inputs, partners, box)
    else:
        blended = mixup(inputs, partners, share)
    if labels is None:
        return blended, None
    rows = as_shares(labels, classes)
    return blended, share * rows + (1 - share) * rows[_on(partners, rows)]


def mixup(inputs: Mapping[str, Tensor], partners: Array, share: float) -> dict[str, Tensor]:
    """``share · x + (1 - share) · x[partners]``: Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018.

    Args:
        inputs: Floats ``[n, …]`` by name.
        partners: Which sample each is blended with, ``[n]``.
        share: What is kept of each, 0 to 1.

    Raises:
        TrainingError: An input is not floats.
    """
    for name, tensor in inputs.items():
        if not tensor.is_floating_point():
            raise TrainingError(
                f"augmentation.mixup: input {name!r} cannot be blended",
                found=describe(name, tensor),
                allowed="inputs of floats; there is nothing half-way between two whole numbers, such as two words",
                fix="set augmentation.mixup = 0",
            )
    return {name: share * tensor + (1 - share) * tensor[_on(partners, tensor)] for name, tensor in inputs.items()}


def cutmix(inputs: Mapping[str, Tensor], partners: Array, box: Box) -> dict[str, Tensor]:
    """``x`` with a rectangle of ``x[partners]``: Yun et al., "CutMix", ICCV 2019.

    Args:
        inputs: Images ``[n, channels, height, width]`` by name, of one size.
        partners: Whose rectangle each gets, ``[n]``.
        box: The rectangle.
    """
    top, bottom, left, right = box
    pasted = {}
    for name, tensor in inputs.items():
        pasted[name] = tensor.clone()
        others = tensor[_on(partners, tensor), :, top:bottom, left:right]
        pasted[name][:, :, top:bottom, left:right] = others
    return pasted


def draw_box(height: int, width: int, share: float, rng: np.random.Generator) -> Box:
    """A rectangle with sides of ``sqrt(1 - share)`` of the image's about a random middle, cut off at the borders."""
    high, wide = (int(size * np.sqrt(1 - share)) // 2 for size in (height, width))
    row, column = int(rng.integers(height)), int(rng.integers(width))
    return max(row - high, 0), min(row + high, height), max(column - wide, 0), min(column + wide, width)


def as_shares(labels: Tensor, classes: int) -> Tensor:
    """Labels as float32 ``[n, classes]``: a one for a class number, nothing for -1; shares stay what they are."""
    if labels.is_floating_point():
        return labels
    return functional.one_hot(labels.clamp(min=0), classes).float() * (labels >= 0)[:, None]


def describe(name: str, tensor: Tensor) -> str:
    """An input for a message, e.g. ``pixels: float32[n, 3, 32, 32]``."""
    sizes = ", ".join(["n", *map(str, tensor.shape[1:])])
    return f"{name}: {str(tensor.dtype).removeprefix('torch.')}[{sizes}]"


def is_image(tensor: Tensor) -> bool:
    """Whether it can be one: floats ``[n, channels, height, width]``."""
    return bool(tensor.is_floating_point() and tensor.ndim == 4)


def _size(inputs: Mapping[str, Tensor]) -> tuple[int, int]:
    """Height and width that all inputs share."""
    sizes = {tuple(tensor.shape[2:]) for tensor in inputs.values()}
    if len(sizes) > 1 or not all(map(is_image, inputs.values())):
        raise TrainingError(
            "augmentation.cutmix: only images of one size can swap a rectangle",
            found=", ".join(describe(name, tensor) for name, tensor in inputs.items()),
            allowed="inputs of floats [n, channels, height, width]",
            fix="set augmentation.cutmix = 0",
        )
    height, width = sizes.pop()
    return int(height), int(width)


def _on(indices: Array, tensor: Tensor) -> Tensor:
    return torch.as_tensor(indices, device=tensor.device)
