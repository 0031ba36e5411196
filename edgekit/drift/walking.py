"""One input through several stages of a model: which tensors part, and where first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgekit.artifact import Array
from edgekit.progress import Progress, silent
from edgekit.runtime.numbers import snr_db

# Tensors held at a time, of two stages each.
AT_ONCE = 64
# Under these two stages have parted, in dB: float arithmetic in another order keeps 110 and more; 8 bits of uniform
# noise keep 40 to 50 in one tensor, and lose some 10 on the way through a network.
FLOAT_DB, SMALL_DB = 80.0, 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """A tensor of the ONNX model.

    Attributes:
        name: Its name.
        op: The operator that makes it; ``input`` for an input.
        users: Names of the tensors made from it.
    """

    name: str
    op: str
    users: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stage:
    """One form of a model.

    Attributes:
        name: ``torch``, ``onnx``, ``quantised`` or ``compiled``.
        read: Runs the input and gives those of the named tensors that this form has, in float.
        floor_db: Under this it has parted from the stage before it.
    """

    name: str
    read: Callable[[Sequence[str]], Mapping[str, Array]]
    floor_db: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One tensor on its way into one stage.

    Attributes:
        tensor: Its name in the ONNX model.
        op: The operator that makes it.
        stage: The stage it came into.
        before: The stage it is compared with: the nearest before that has it.
        db: Signal-to-noise ratio against that stage, in dB.
        reference_db: The same against the first stage that has it.
        range: Smallest and largest value in this stage.
        before_range: In the stage before.
        parts: Whether it lies under the stage's floor and so do tensors made from it: where all that is made from it
            agrees again, a scale was moved from one layer to the next, or the loss does not reach the outputs.
    """

    tensor: str
    op: str
    stage: str
    before: str
    db: float
    reference_db: float
    range: tuple[float, float]
    before_range: tuple[float, float]
    parts: bool = False


def walk(
    tensors: Sequence[Tensor], stages: Sequence[Stage], progress: Progress = silent, doing: str = "compare"
) -> list[Step]:
    """Compares every tensor of every stage with the stage before it.

    Args:
        tensors: In topological order.
        stages: In the order of the line; the first is the reference.
        progress: Told of every group of tensors.
        doing: What it is called there.

    Returns:
        One step for every stage but the first that has the tensor in its shape; in the order of the tensors, stages
        inside.
    """
    steps: list[Step] = []
    progress(doing, 0, len(tensors))
    for start in range(0, len(tensors), AT_ONCE):
        some = tensors[start : start + AT_ONCE]
        names = [tensor.name for tensor in some]
        last: dict[str, tuple[str, Array]] = {}
        first: dict[str, Array] = {}
        found: dict[tuple[str, str], Step] = {}
        for stage in stages:
            arrays = stage.read(names)
            for tensor in some:
                array = arrays.get(tensor.name)
                if array is None or not array.size or array.dtype.kind != "f":
                    continue
                known = last.get(tensor.name)
                if known is not None and known[1].shape == array.shape:
                    reference = first[tensor.name]
                    found[tensor.name, stage.name] = _step(tensor, stage.name, known, reference, array)
                if known is None or known[1].shape == array.shape:
                    last[tensor.name] = (stage.name, array)
                    first.setdefault(tensor.name, array)
        steps += [
            found[tensor.name, stage.name] for tensor in some for stage in stages if (tensor.name, stage.name) in found
        ]
        progress(doing, min(start + AT_ONCE, len(tensors)), len(tensors), "tensors")
    return _marked(steps, tensors, {stage.name: stage.floor_db for stage in stages})


def first_parting(steps: Sequence[Step]) -> dict[str, Step]:
    """By stage, the first tensor that parts there; stages that keep to the one before are absent."""
    found: dict[str, Step] = {}
    for step in steps:
        if step.parts:
            found.setdefault(step.stage, step)
    return found


def _step(tensor: Tensor, stage: str, before: tuple[str, Array], reference: Array, array: Array) -> Step:
    return Step(
        tensor=tensor.name,
        op=tensor.op,
        stage=stage,
        before=before[0],
        db=snr_db(before[1], array),
        reference_db=snr_db(reference, array),
        range=_range(array),
        before_range=_range(before[1]),
    )


def _range(array: Array) -> tuple[float, float]:
    """Of the finite values."""
    finite = array[np.isfinite(array)]
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)


def _marked(steps: Sequence[Step], tensors: Sequence[Tensor], floors: Mapping[str, float]) -> list[Step]:
    users = {tensor.name: tensor.users for tensor in tensors}
    db = {(step.tensor, step.stage): step.db for step in steps}

    def stays(tensor: str, stage: str, seen: set[str]) -> bool:
        """Whether something made from a tensor is under the floor, too; true of one from which nothing is made."""
        nearest = [user for user in users.get(tensor, ()) if user not in seen]
        seen.update(nearest)
        if not users.get(tensor):
            return True
        return any(
            db[user, stage] < floors[stage] if (user, stage) in db else stays(user, stage, seen) for user in nearest
        )

    return [
        replace(step, parts=step.db < floors[step.stage] and stays(step.tensor, step.stage, {step.tensor}))
        for step in steps
    ]
