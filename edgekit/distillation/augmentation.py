"""Views of training samples, one for teacher and student alike.

Beyer et al., "Knowledge distillation: A good teacher is patient and consistent", CVPR 2022: a student matches its
teacher's function best where both see the very same view, over many views.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from edgekit._lookup import resolve
from edgekit.artifact import Array
from edgekit.distillation.mixing import describe, is_image, mix
from edgekit.distillation.sample_draws import Draws
from edgekit.errors import EdgeKitError, TrainingError
from edgekit.recipe_augmentation import Augmentation

View = Callable[[Mapping[str, Tensor], "Tensor | None", Array, int], tuple[dict[str, Tensor], "Tensor | None"]]
"""From a batch's inputs ``[n, …]`` by name, its labels int64 ``[n]`` (-1: unlabelled) or None, its samples' indices
``[n]`` and the number of the view, to the varied inputs and labels: shares float ``[n, classes]`` where the batch was
mixed, else as they were. What it is given stays as it is."""

Own = Callable[[dict[str, Tensor], "Tensor | None", torch.Generator], Any]
ERASED_AREA = (0.02, 0.4)
ERASED_ASPECT = (0.3, 1 / 0.3)


def make_view(settings: Augmentation, *, seed: int, classes: int, base: Path | None) -> View:
    """What varies samples as the settings say.

    The user's own callable comes first, then flip, crop, erase, noise, and at last mixup or CutMix. How a sample is
    flipped, cropped, erased and made noisy is decided by seed, view and its index alone, so that neither the batches,
    their order nor the number of processes change it; how a batch is mixed, and what the user's own callable draws,
    by seed, view and the batch's indices. No global random state is read or changed.

    Flip, crop and erase change every input of floats ``[n, channels, height, width]``, all alike; noise and mixup
    every input of floats; CutMix needs images alone.

    Args:
        settings: What is done.
        seed: Of the run.
        classes: How many classes there are.
        base: The recipe's folder.

    Raises:
        EdgeKitError: The user's own callable cannot be found.

    The view itself raises :class:`edgekit.errors.TrainingError` for inputs that cannot be varied so, and for what the
    user's own callable does wrong.
    """
    own: Own | None = None
    if settings.own is not None:
        own = resolve(settings.own, {}, kind="augmentation", base=base, where="augmentation.own")

    def view(
        inputs: Mapping[str, Tensor], labels: Tensor | None, indices: Array, number: int
    ) -> tuple[dict[str, Tensor], Tensor | None]:
        draws = Draws(seed=seed, view=number, indices=np.asarray(indices, dtype=np.int64))
        varied = dict(inputs)
        if own is not None:
            varied, labels = _owned(own, varied, labels, classes, draws, f"augmentation.own = {settings.own!r}")
        if settings.flip:
            varied = _each(varied, "flip", lambda image: flip(image, draws))
        if settings.crop:
            varied = _each(varied, "crop", lambda image: crop(image, settings.crop, draws))
        if settings.erase:
            varied = _each(varied, "erase", lambda image: erase(image, settings.erase, draws))
        if settings.noise:
            varied = _noisy(varied, settings.noise, draws)
        if settings.mixup or settings.cutmix:
            varied, labels = mix(varied, labels, settings, classes, draws)
        return varied, labels

    return view


def flip(images: Tensor, draws: Draws) -> Tensor:
    """Mirrors half of the images ``[n, channels, height, width]``, left to right."""
    mirrored = _on(draws.uniforms("flip", 1)[:, 0] < 0.5, images)
    return torch.where(mirrored[:, None, None, None], images.flip(-1), images)


def crop(images: Tensor, pixels: int, draws: Draws) -> Tensor:
    """Moves images ``[n, channels, height, width]`` by up to ``pixels`` each way; what comes in is zeros.

    Raises:
        TrainingError: An image could be moved out of sight.
    """
    height, width = images.shape[2:]
    if pixels >= min(height, width):
        raise TrainingError(
            "augmentation.crop: an image could be moved out of sight",
            found=f"crop = {pixels} pixels for images of {height} x {width}",
            allowed=f"at most {min(height, width) - 1}",
            fix="lower augmentation.crop; an eighth of the image is usual",
        )
    tops, lefts = (draws.uniforms("crop", 2) * (2 * pixels + 1)).astype(np.int64).T
    windows = functional.pad(images, (pixels,) * 4).unfold(2, height, 1).unfold(3, width, 1)
    samples = torch.arange(len(images), device=images.device)
    return windows[samples, :, _on(tops, images), _on(lefts, images)]


def erase(images: Tensor, share: float, draws: Draws) -> Tensor:
    """Blanks one rectangle in some images: Zhong et al., "Random Erasing Data Augmentation", AAAI 2020.

    Its area is 2% to 40% of the image's and its height 0.3 to 3.3 of its width, as the paper has them. A shape that
    does not fit the image is made as long as fits, where the paper draws again; the ratio is drawn evenly by its
    logarithm, so that lying and standing rectangles are as frequent. Erased is zero, one of the fillings that the paper
    compares: it is the mean colour where inputs are standardised.

    Args:
        images: ``[n, channels, height, width]``.
        share: Of the images that lose one.
        draws: Decide which, and where.
    """
    height, width = images.shape[2:]
    chance, area, aspect, row, column = draws.uniforms("erase", 5).T
    area = ERASED_AREA[0] + area * (ERASED_AREA[1] - ERASED_AREA[0])
    low, high = np.log(ERASED_ASPECT)
    aspect = np.clip(np.exp(low + aspect * (high - low)), area * width / height, height / (area * width))
    tall = np.clip(np.rint(np.sqrt(area * height * width * aspect)), 1, height)
    wide = np.clip(np.rint(np.sqrt(area * height * width / aspect)), 1, width)
    top, left = np.floor(row * (height - tall + 1)), np.floor(column * (width - wide + 1))
    rows, columns = np.arange(height), np.arange(width)
    across = (rows >= top[:, None]) & (rows < (top + tall)[:, None]) & (chance < share)[:, None]
    along = (columns >= left[:, None]) & (columns < (left + wide)[:, None])
    blank = _on(across, images)[:, None, :, None] & _on(along, images)[:, None, None, :]
    return images.masked_fill(blank, 0)


def _each(inputs: dict[str, Tensor], key: str, change: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    """Changes every input that is images, of which there must be one."""
    if not any(map(is_image, inputs.values())):
        raise _nothing_to(key, inputs, "an input of floats [n, channels, height, width]")
    return {name: change(tensor) if is_image(tensor) else tensor for name, tensor in inputs.items()}


def _noisy(inputs: dict[str, Tensor], deviation: float, draws: Draws) -> dict[str, Tensor]:
    floats = [name for name, tensor in inputs.items() if tensor.is_floating_point()]
    if not floats:
        raise _nothing_to("noise", inputs, "an input of floats")
    noisy = dict(inputs)
    for name in floats:
        noise = draws.normals(f"noise {name}", tuple(inputs[name].shape[1:]))
        noisy[name] = inputs[name] + deviation * torch.from_numpy(noise).to(inputs[name])
    return noisy


def _nothing_to(key: str, inputs: Mapping[str, Tensor], allowed: str) -> TrainingError:
    return TrainingError(
        f"augmentation.{key}: the samples have no input that it applies to",
        found=", ".join(describe(name, tensor) for name, tensor in inputs.items()),
        allowed=allowed,
        fix=f"remove augmentation.{key}, or vary the samples in a callable named by augmentation.own",
    )


def _owned(
    own: Own, inputs: dict[str, Tensor], labels: Tensor | None, classes: int, draws: Draws, where: str
) -> tuple[dict[str, Tensor], Tensor | None]:
    """What the user's own callable makes of a batch, checked."""
    generator = torch.Generator().manual_seed(draws.batch_seed("own"))
    try:
        found = own(dict(inputs), labels, generator)
    except EdgeKitError:
        raise
    except Exception as exc:
        raise TrainingError(f"{where} failed on a batch", found=f"{type(exc).__name__}: {exc}") from exc
    if isinstance(found, tuple) and len(found) == 2:
        found, labels = found[0], _checked_labels(found[1], labels, classes, len(draws.indices), where)
    if not isinstance(found, Mapping) or not all(isinstance(tensor, Tensor) for tensor in found.values()):
        raise TrainingError(
            f"{where} does not return inputs",
            found=type(found).__name__,
            allowed="the inputs, a mapping of names to tensors, or a tuple (inputs, labels)",
        )
    expected = {name: (len(draws.indices), tensor.dtype) for name, tensor in inputs.items()}
    returned = {name: (len(tensor) if tensor.ndim else 0, tensor.dtype) for name, tensor in found.items()}
    if returned != expected:
        raise TrainingError(
            f"{where} returns other inputs than it was given",
            found=_list_inputs(returned) or "no inputs",
            allowed=_list_inputs(expected),
            fix="return a tensor of the same dtype for every input, with one row for every sample",
        )
    return {name: found[name] for name in inputs}, labels


def _checked_labels(found: Any, labels: Tensor | None, classes: int, count: int, where: str) -> Tensor | None:
    if labels is None and found is None:
        return None
    if labels is not None and isinstance(found, Tensor):
        numbers = found.dtype == torch.int64 and found.shape == (count,)
        if numbers or (found.is_floating_point() and found.shape == (count, classes)):
            return found
    given = describe("labels", found) if isinstance(found, Tensor) else type(found).__name__
    raise TrainingError(
        f"{where} does not return labels",
        found=f"{given} for {count} samples",
        allowed="None for samples without labels"
        if labels is None
        else f"class numbers int64[{count}], or shares of classes float32[{count}, {classes}]",
    )


def _list_inputs(inputs: Mapping[str, tuple[int, torch.dtype]]) -> str:
    parts = (f"{name}: {count} of {str(dtype).removeprefix('torch.')}" for name, (count, dtype) in inputs.items())
    return ", ".join(parts)


def _on(array: Array, tensor: Tensor) -> Tensor:
    return torch.from_numpy(array).to(tensor.device)
