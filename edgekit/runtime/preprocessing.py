"""From raw samples to model tensors, in numpy: what the manifest says, the device does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgekit.artifact import Array
from edgekit.errors import FeedError

if TYPE_CHECKING:
    from edgekit.processing_specs import Preprocessing

LAYOUTS = ("NHWC", "NCHW", "NHW", "any")


def preprocess(raw: Array, settings: Preprocessing) -> Array:
    """Turns a raw batch into a model tensor.

    Args:
        raw: A batch of numbers laid out as ``settings.layout`` says.
        settings: Resize, scale, mean and standard deviation, layout; applied in that order.

    Returns:
        float32, contiguous, laid out as ``settings.model_layout`` says (``any``: as it came). It may share memory with
        ``raw`` where there is nothing to do.

    Raises:
        FeedError: The rank, the channel count or the element type does not fit the settings.
    """
    _check(raw, settings)
    if settings.layout == "any":
        return _scaled(raw, settings, channel_axis=None)
    batch = raw[..., np.newaxis] if settings.layout == "NHW" else raw
    layout = "NHWC" if settings.layout == "NHW" else settings.layout
    if settings.resize is not None:
        batch = resize_bilinear(batch, settings.resize, axes=(layout.index("H"), layout.index("W")))
    model_layout = settings.model_layout
    channels = batch.shape[layout.index("C")]
    for name, values in (("mean", settings.mean), ("std", settings.std)):
        if len(values) not in (1, channels):
            raise FeedError(
                f"input {settings.input!r}: {name} does not fit the number of channels",
                found=f"{len(values)} values of {name}, {channels} channels in shape {list(raw.shape)}",
                allowed=f"1 or {len(values)} channels, layout {settings.layout}",
            )
    moved = batch.transpose([layout.index(axis) for axis in model_layout])
    return _scaled(moved, settings, channel_axis=model_layout.index("C"))


def resize_bilinear(batch: Array, size: tuple[int, int], *, axes: tuple[int, int]) -> Array:
    """Bilinear resize with half-pixel centres and no antialiasing.

    The same numbers as ``torch.nn.functional.interpolate(mode="bilinear", align_corners=False)``.

    Args:
        batch: Any numeric array.
        size: New height and width in pixels.
        axes: Which axes are height and width.

    Returns:
        float32; the batch itself where it has that size already.
    """
    for axis, new in zip(axes, size, strict=True):
        old = batch.shape[axis]
        if new == old:
            continue
        place = np.clip((np.arange(new) + 0.5) * (old / new) - 0.5, 0, None)
        below = np.minimum(place.astype(np.intp), old - 1)
        above = np.minimum(below + 1, old - 1)
        weight = (place - below).astype(np.float32).reshape([new if a == axis else 1 for a in range(batch.ndim)])
        low = batch.take(below, axis=axis).astype(np.float32)
        batch = low + (batch.take(above, axis=axis).astype(np.float32) - low) * weight
    return batch


def factor_and_offset(settings: Preprocessing) -> tuple[Array, Array]:
    """What ``(x · scale - mean) / std`` multiplies by and then adds, float32, one or one a channel."""
    std = np.asarray(settings.std, np.float64)
    factor = (settings.scale / std).astype(np.float32)
    offset = (-np.asarray(settings.mean, np.float64) / std).astype(np.float32)
    return factor, offset


def _scaled(batch: Array, settings: Preprocessing, *, channel_axis: int | None) -> Array:
    """``(x · scale - mean) / std`` as one multiplication and one addition, into a new contiguous array."""
    factor, offset = factor_and_offset(settings)
    if (factor == 1).all() and (offset == 0).all():
        return np.ascontiguousarray(batch, np.float32)
    shape = [1] * batch.ndim
    if channel_axis is not None:
        shape[channel_axis] = -1
    result = np.empty(batch.shape, np.float32)
    np.multiply(batch, _along(factor, shape), out=result, casting="same_kind")
    result += _along(offset, shape)
    return result


def _along(values: Array, shape: list[int]) -> Array:
    return values.reshape(shape) if values.size > 1 else values.reshape(())


def _check(raw: Array, settings: Preprocessing) -> None:
    where = f"input {settings.input!r}"
    if not isinstance(raw, np.ndarray) or raw.dtype.kind not in "biuf":
        found = str(raw.dtype) if isinstance(raw, np.ndarray) else type(raw).__name__
        raise FeedError(f"{where} must be an array of numbers", found=found)
    if settings.layout not in LAYOUTS:
        raise FeedError(f"{where}: unknown layout", found=repr(settings.layout), allowed=", ".join(LAYOUTS))
    if settings.model_layout not in ("NCHW", "NHWC"):
        raise FeedError(f"{where}: unknown model layout", found=repr(settings.model_layout), allowed="NCHW, NHWC")
    if not raw.size:
        raise FeedError(f"{where} is empty", found=f"shape {list(raw.shape)}")
    if settings.layout == "any":
        if settings.resize is not None or len(settings.mean) > 1 or len(settings.std) > 1:
            raise FeedError(
                f"{where}: resize and per-channel mean or std need to know the axes",
                found="layout 'any'",
                allowed="NHWC, NCHW, NHW",
            )
    elif raw.ndim != len(settings.layout):
        raise FeedError(
            f"{where} has the wrong number of axes",
            found=f"shape {list(raw.shape)}",
            allowed=f"{len(settings.layout)} axes: {settings.layout}",
            fix="give a batch: add a first axis to a single sample",
        )
