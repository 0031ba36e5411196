"""Where a training stands, written now and then, so that a killed one goes on to the very same weights."""

from __future__ import annotations

import dataclasses
import pickle
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from edgekit.disk import whole
from edgekit.distillation.selection import NOTHING, Score
from edgekit.errors import TrainingError

EVERY_SECONDS = 60.0  # besides one after each epoch


@dataclass(slots=True, kw_only=True)
class Place:
    """How far a run has come.

    Attributes:
        best: The weights that are kept.
        epoch: Under way, from 1.
        batch: Batches of it that are done.
        loss: Sum of the losses of its samples.
        seen: Those samples.
        kept: Score of ``best``.
        scores: Validation accuracy after each epoch.
        losses: Mean training loss of each epoch.
        seconds: Wall-clock time.
        first: Validation accuracy before the first epoch; None where it was not asked for.
    """

    best: dict[str, Any]
    epoch: int = 1
    batch: int = 0
    loss: float = 0.0
    seen: int = 0
    kept: Score = NOTHING
    scores: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0
    first: float | None = None

    @property
    def known(self) -> list[float]:
        """Every validation accuracy of weights that may be kept."""
        return self.scores if self.first is None else [self.first, *self.scores]


class Clock:
    """Says when the next checkpoint within an epoch is due."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def due(self) -> bool:
        """Whether it is time; if so, the clock starts anew."""
        if time.monotonic() - self._last < EVERY_SECONDS:
            return False
        self._last = time.monotonic()
        return True


def random_state() -> dict[str, Any]:
    """The state of every generator that training may draw from, as tensors and plain numbers."""
    drawn: Any = np.random.get_state(legacy=True)
    kind, keys, place, has_gauss, cached = drawn
    return {
        "torch": torch.get_rng_state(),
        "devices": [torch.cuda.get_rng_state(i) for i in range(torch.cuda.device_count())],
        "numpy": [kind, keys.tolist(), int(place), int(has_gauss), float(cached)],
        "python": [random.getstate()[0], list(random.getstate()[1]), random.getstate()[2]],
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """Takes back what :func:`random_state` gave."""
    torch.set_rng_state(state["torch"])
    for device, known in enumerate(state["devices"]):
        torch.cuda.set_rng_state(known, device)
    kind, keys, place, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), place, has_gauss, cached))
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))


def save_checkpoint(
    path: Path, place: Place, generators: Sequence[Mapping[str, Any]], parts: Mapping[str, Any]
) -> None:
    """Writes a checkpoint whole, or leaves the one before.

    Args:
        path: The file.
        place: How far the run has come.
        generators: :func:`random_state` of every process.
        parts: What has a state of its own (``state_dict``), by name.

    Raises:
        DiskFull: There is no room for it.
    """
    state = {
        "place": dataclasses.asdict(place),
        "random": list(generators),
        **{name: part.state_dict() for name, part in parts.items()},
    }
    with whole(path, "a checkpoint of the training") as partial:
        torch.save(state, partial)


def load_checkpoint(path: Path, parts: Mapping[str, Any]) -> tuple[Place, list[dict[str, Any]]]:
    """Reads a checkpoint into ``parts``; nothing in the file is run.

    Returns:
        How far the run had come, and the state of every process's generators.

    Raises:
        TrainingError: The file is damaged.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(state[name])
        known = state["place"]
        return Place(**known | {"kept": Score(**known["kept"])}), state["random"]
    except (pickle.UnpicklingError, RuntimeError, OSError, EOFError, ValueError, KeyError, TypeError) as exc:
        raise TrainingError(
            f"{path}: the checkpoint of an earlier run is damaged",
            found=f"{type(exc).__name__}: {exc}".splitlines()[0][:200],
            fix="remove the file; that training then starts again",
        ) from exc
