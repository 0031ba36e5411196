"""What a model keeps under noise and corruption: accuracy on test samples that are made worse on purpose.

As in Hendrycks & Dietterich 2019, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations",
the accuracy under a kind of corruption is the mean over its severities. The kinds are our own, five for images and two
for other inputs, at three severities each; they are not ImageNet-C, and figures are not to be compared with its.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from edgekit._draws import drawn
from edgekit.artifact import Array
from edgekit.data import Samples
from edgekit.distillation.forward import device_of, evaluating, logits_of, to_torch
from edgekit.distillation.kept_tree import Corrupted, Corruption
from edgekit.distillation.scoring import rounded
from edgekit.errors import DataError
from edgekit.progress import Progress, silent

MOST_SAMPLES = 1000
SEVERITIES = (1, 2, 3)
BATCH = 64
STEP = "run under corruption"

# By severity, 1 to 3. Of the data's standard deviation:
NOISE = (0.25, 0.5, 1.0)
BRIGHTNESS = (0.5, 1.0, 1.5)
# Of what a picture differs from its own mean by:
CONTRAST = (0.6, 0.4, 0.2)
# Standard deviation of the blur, in pixels of a picture of 32 by 32:
BLUR = (0.5, 1.0, 2.0)
# Side of what is hidden, of the picture's shorter side:
OCCLUSION = (0.25, 0.4, 0.55)
# Share of the values that are lost:
DROPPED = (0.1, 0.25, 0.5)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Spread:
    """How the values of one input are spread over the samples: a channel of images, a place of other inputs.

    Attributes:
        mean: Broadcasts over a batch.
        std: Standard deviation, likewise.
        low: The lowest value.
        high: The highest: what is corrupted stays between the two.
    """

    mean: Array
    std: Array
    low: Array
    high: Array


# Takes float64 ``[n, …]`` (images NCHW), their spread, the severity and one random generator a sample.
Kind = Callable[[Array, Spread, int, Sequence[np.random.Generator]], Array]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Trial:
    """The samples drawn, and what is done to them.

    Attributes:
        samples: Those drawn.
        places: Where each was among all, which with the seed decides its noise.
        seed: Of the noise.
        kinds: Every kind of corruption that suits them.
        spreads: Spread of every input that is corrupted.
        last: Those inputs that are pictures with their channels last.
    """

    samples: Samples
    places: Array
    seed: int
    kinds: Mapping[str, Kind]
    spreads: Mapping[str, Spread]
    last: frozenset[str]


def under_corruption(
    teacher: nn.Module,
    student: nn.Module,
    samples: Samples,
    severities: Sequence[int] = SEVERITIES,
    *,
    seed: int = 0,
    progress: Progress = silent,
) -> Corruption | None:
    """Accuracy of teacher and student on the same samples, corrupted in every way and severity.

    What is done to a sample hangs on the seed, the kind and the sample's place alone.

    Args:
        teacher: Takes the samples' tensors, returns logits ``[n, classes]``.
        student: Likewise.
        samples: Labelled with class numbers; at most 1,000 of them are drawn, by class.
        severities: Which of 1 (mild), 2 and 3.
        seed: Decides which samples are drawn, and the noise.
        progress: Told of every kind.

    Returns:
        None where no input is in floats, as token numbers are not.

    Raises:
        DataError: The samples have no labels.
        TrainingError: A model does not take them, or does not return logits.
    """
    trial = _trial(samples, seed)
    if not trial.spreads:
        return None
    steps = 1 + len(trial.kinds) * len(severities)
    progress(STEP, 0, steps, f"{len(trial.samples)} samples")
    clean = _accuracies(teacher, student, trial, None, 0)
    found: list[Corrupted] = []
    for kind in trial.kinds:
        both: list[tuple[float, float]] = []
        for severity in severities:
            progress(STEP, 1 + len(found) * len(severities) + len(both), steps, kind)
            both.append(_accuracies(teacher, student, trial, kind, severity))
        taught, learned = (tuple(pair[i] for pair in both) for i in range(2))
        found.append(
            Corrupted(
                kind=kind,
                teacher=taught,
                student=learned,
                teacher_mean=rounded(np.mean(taught)),
                student_mean=rounded(np.mean(learned)),
            )
        )
    progress(STEP, steps, steps)
    return Corruption(
        samples=len(trial.samples),
        teacher_clean=clean[0],
        student_clean=clean[1],
        teacher_mean=rounded(np.mean([one.teacher_mean for one in found])),
        student_mean=rounded(np.mean([one.student_mean for one in found])),
        kinds=tuple(found),
    )


def _trial(samples: Samples, seed: int) -> _Trial:
    if samples.targets is None or samples.targets.ndim != 1 or samples.targets.dtype.kind not in "iu":
        raise DataError(
            f"{samples.name}: accuracy under corruption needs class labels",
            found="none, or something else",
            allowed="integers [n]",
        )
    places = drawn(samples.targets, len(samples), min(MOST_SAMPLES, len(samples)), seed, keep=0)
    few = samples.subset(places)
    images, names = _corruptible(few)
    last = frozenset(name for name in names if _channels_last(few, name))
    return _Trial(
        samples=few,
        places=places,
        seed=seed,
        kinds=IMAGES if images else OTHERS,
        spreads={name: _spread(few, name, images=images, last=name in last) for name in names},
        last=last,
    )


def corrupted(trial: _Trial, kind: str | None, severity: int, rows: Array) -> dict[str, Array]:
    """The samples at ``rows`` as model tensors, corrupted; None: as they are."""
    tensors = trial.samples.tensors(rows)
    if kind is None:
        return tensors
    number = list(trial.kinds).index(kind)
    made: dict[str, Array] = {}
    for i, (name, spread) in enumerate(trial.spreads.items()):
        rngs = [np.random.default_rng([trial.seed, number, i, int(trial.places[row])]) for row in rows]
        made[name] = _applied(trial.kinds[kind], tensors[name], spread, severity, rngs, last=name in trial.last)
    return tensors | made


def _accuracies(
    teacher: nn.Module, student: nn.Module, trial: _Trial, kind: str | None, severity: int
) -> tuple[float, float]:
    """Shares of samples that each model has right; both see the same tensors."""
    targets = trial.samples.targets
    assert targets is not None  # checked before
    right = [0, 0]
    with evaluating(teacher), evaluating(student), torch.no_grad():
        for start in range(0, len(targets), BATCH):
            rows = np.arange(start, min(start + BATCH, len(targets)))
            batch = corrupted(trial, kind, severity, rows)
            for i, module in enumerate((teacher, student)):
                logits = logits_of(module, to_torch(batch, device_of(module))).cpu().numpy()
                right[i] += int((logits.argmax(axis=1) == targets[rows]).sum())
    return rounded(right[0] / len(targets)), rounded(right[1] / len(targets))


def _corruptible(samples: Samples) -> tuple[bool, list[str]]:
    """Whether there are images among the inputs, and the names of what is corrupted: these, else all floats."""
    floats = {name: array for name, array in samples.tensors([0]).items() if array.dtype.kind == "f"}
    images = [name for name, array in floats.items() if array.ndim == 4 and min(_sides(samples, name, array)) > 1]
    return bool(images), images or list(floats)


def _sides(samples: Samples, name: str, array: Array) -> tuple[int, int]:
    return (array.shape[1], array.shape[2]) if _channels_last(samples, name) else (array.shape[2], array.shape[3])


def _channels_last(samples: Samples, name: str) -> bool:
    how = samples.preprocessing
    return how is not None and how.input == name and how.layout != "any" and how.model_layout == "NHWC"


def _spread(samples: Samples, name: str, *, images: bool, last: bool) -> Spread:
    """Mean, standard deviation and range, batch by batch; sums are about the first batch's mean, not about 0."""
    axes = (0, 2, 3) if images else (0,)
    arrays = (_channels_first(np.asarray(batch[name], np.float64), last=last) for batch in samples.batches(BATCH))
    first = next(arrays)
    shift = first.mean(axis=axes, keepdims=True)
    low, high = first.min(axis=axes, keepdims=True), first.max(axis=axes, keepdims=True)
    count, total, squares = 0, np.zeros_like(shift), np.zeros_like(shift)
    for array in chain([first], arrays):
        count += array.size // shift.size
        total += (array - shift).sum(axis=axes, keepdims=True)
        squares += ((array - shift) ** 2).sum(axis=axes, keepdims=True)
        low = np.minimum(low, array.min(axis=axes, keepdims=True))
        high = np.maximum(high, array.max(axis=axes, keepdims=True))
    variance = np.maximum(squares / count - (total / count) ** 2, 0.0)
    return Spread(mean=shift + total / count, std=np.sqrt(variance), low=low, high=high)


def _channels_first(array: Array, *, last: bool) -> Array:
    moved: Array = np.moveaxis(array, -1, 1) if last else array
    return moved


def _applied(
    kind: Kind, array: Array, spread: Spread, severity: int, rngs: Sequence[np.random.Generator], *, last: bool
) -> Array:
    """The corrupted batch, of the type and layout it came in."""
    whole = np.asarray(_channels_first(array, last=last), np.float64)
    made = np.clip(kind(whole, spread, severity, rngs), spread.low, spread.high)
    return np.ascontiguousarray(np.moveaxis(made, 1, -1) if last else made, array.dtype)


def _noise(batch: Array, spread: Spread, severity: int, rngs: Sequence[np.random.Generator]) -> Array:
    """Gaussian noise."""
    return batch + NOISE[severity - 1] * spread.std * np.stack([rng.standard_normal(batch.shape[1:]) for rng in rngs])


def _blur(batch: Array, spread: Spread, severity: int, rngs: Sequence[np.random.Generator]) -> Array:
    """A Gaussian blur; edges are repeated."""
    height, width = batch.shape[2:]
    sigma = BLUR[severity - 1] * max(1.0, min(height, width) / 32)
    reach = math.ceil(3 * sigma)
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    weights /= weights.sum()
    planes = torch.tensor(batch, dtype=torch.float32).reshape(-1, 1, height, width)
    for shape, padding in (((1, 1, -1, 1), (0, 0, reach, reach)), ((1, 1, 1, -1), (reach, reach, 0, 0))):
        planes = functional.conv2d(functional.pad(planes, padding, mode="replicate"), weights.reshape(shape))
    blurred: Array = planes.reshape(batch.shape).numpy().astype(np.float64)
    return blurred


def _contrast(batch: Array, spread: Spread, severity: int, rngs: Sequence[np.random.Generator]) -> Array:
    """Every channel of a picture is drawn towards its own mean."""
    mean: Array = batch.mean(axis=(2, 3), keepdims=True)
    return mean + CONTRAST[severity - 1] * (batch - mean)


def _brightness(batch: Array, spread: Spread, severity: int, rngs: Sequence[np.random.Generator]) -> Array:
    """Everything is brighter, and saturates."""
    return batch + BRIGHTNESS[severity - 1] * spread.std


def _occlusion(batch: Array, spread: Spread, severity: int, rngs: Sequence[np.random.Generator]) -> Array:
    """A square somewhere is hidden behind the mean colour."""
    height, width = batch.shape[2:]
    side = max(1, round(OCCLUSION[severity - 1] * min(height, width)))
    made: Array = batch.copy()
    for row, rng in enumerate(rngs):
        top, left = (int(share * (size - side + 1)) for share, size in zip(rng.random(2), (height, width), strict=True))
        made[row, :, top : top + side, left : left + side] = spread.mean[0]
    return made


def _dropped(batch: Array, spread: Spread, severity: int, rngs: Sequence[np.random.Generator]) -> Array:
    """Some values are replaced by the mean of their place."""
    lost = np.stack([rng.random(batch.shape[1:]) for rng in rngs]) < DROPPED[severity - 1]
    return np.where(lost, spread.mean, batch)


IMAGES: Mapping[str, Kind] = {
    "noise": _noise,
    "blur": _blur,
    "contrast": _contrast,
    "brightness": _brightness,
    "occlusion": _occlusion,
}
OTHERS: Mapping[str, Kind] = {"noise": _noise, "dropped values": _dropped}
