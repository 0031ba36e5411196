"""How close two arrays are, and running many samples through a session of a fixed batch."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgekit.artifact import Array
from edgekit.errors import EngineError, FeedError, ParityError
from edgekit.runtime.session import Session

BEST_DB = 300.0  # stands for identical, where the ratio is infinite; JSON has no infinity
WORST_DB = -300.0  # stands for NaN or infinity in the output
WORST_ERROR = 1e300  # likewise


def snr_db(reference: Array, actual: Array) -> float:
    """Signal-to-noise ratio in dB: 10·log10(Σ reference² / Σ (reference - actual)²).

    Args:
        reference: The signal, any shape and numeric dtype; integers and booleans count as numbers.
        actual: The same shape.

    Returns:
        dB between -300.0 (NaN or infinity where the reference has none) and 300.0 (identical).

    Raises:
        ParityError: The shapes differ.
    """
    _same_shape(reference, actual)
    if np.array_equal(reference, actual):
        return BEST_DB
    signal, other = reference.astype(np.float64), actual.astype(np.float64)
    if not (np.isfinite(signal).all() and np.isfinite(other).all()):
        return WORST_DB
    # Scaled by the largest value, so that squares neither overflow nor vanish.
    top = max(np.abs(signal).max(), np.abs(other).max())
    signal_power = float(np.square(signal / top).sum())
    noise_power = float(np.square(signal / top - other / top).sum())
    if signal_power == 0.0:
        return WORST_DB
    if noise_power == 0.0:
        return BEST_DB
    return float(np.clip(10.0 * np.log10(signal_power / noise_power), WORST_DB, BEST_DB))


def max_error(reference: Array, actual: Array) -> float:
    """Largest absolute difference, 1e300 where one is NaN or infinite.

    Raises:
        ParityError: The shapes differ.
    """
    _same_shape(reference, actual)
    if np.array_equal(reference, actual):
        return 0.0
    signal, other = reference.astype(np.float64), actual.astype(np.float64)
    if not (np.isfinite(signal).all() and np.isfinite(other).all()):
        return WORST_ERROR
    return float(np.abs(signal - other).max())


def run_batched(session: Session, feeds: Mapping[str, Array], *, chunk: int = 64) -> dict[str, Array]:
    """Runs any number of samples through a session, in batches of the size it takes.

    The last batch is padded by repeating its last sample, and the padding's outputs are cut off.

    Args:
        session: A session whose inputs and outputs all have the batch as their first axis.
        feeds: N samples for every input.
        chunk: Samples a query where the session's batch is dynamic.

    Returns:
        N results for every output.

    Raises:
        FeedError: There are no samples, the inputs disagree on N, or a name, dtype or shape is wrong.
        EngineError: The engine failed, or an output has no batch axis or another size for other samples.
    """
    count, batch = _count(feeds), _fixed_batch(session)
    step = batch or min(chunk, count)
    pieces: list[dict[str, Array]] = []
    for start in range(0, count, step):
        part = {name: array[start : start + step] for name, array in feeds.items()}
        size = min(step, count - start)
        fed = {name: padded(array, batch) for name, array in part.items()} if batch else part
        outputs = session.run(fed)
        for name, array in outputs.items():
            if array.ndim == 0 or len(array) != (batch or size):
                raise EngineError(
                    f"output {name!r} has no batch axis, so samples cannot be run in batches",
                    found=f"shape {list(array.shape)} from a batch of {batch or size}",
                )
        pieces.append({name: array[:size] for name, array in outputs.items()})
    return {name: _joined(name, [piece[name] for piece in pieces]) for name in pieces[0]}


def padded(array: Array, batch: int) -> Array:
    """At most a batch of samples filled up to a whole one with the last of them."""
    lack = batch - len(array)
    return np.concatenate([array, np.repeat(array[-1:], lack, axis=0)]) if lack else array


def _same_shape(reference: Array, actual: Array) -> None:
    if reference.shape != actual.shape:
        raise ParityError(
            "the output has another shape than the reference", found=actual.shape, allowed=reference.shape
        )


def _joined(name: str, pieces: list[Array]) -> Array:
    shapes = {piece.shape[1:] for piece in pieces}
    if len(shapes) > 1:
        raise EngineError(
            f"output {name!r} has another size for other samples",
            found=", ".join(str(list(shape)) for shape in sorted(shapes)[:3]),
            allowed="one size for all samples",
            fix="end the model before the operator that decides how many results there are",
        )
    return np.concatenate(pieces)


def _count(feeds: Mapping[str, Array]) -> int:
    sizes = {name: len(array) if array.ndim else 0 for name, array in feeds.items()}
    if len(set(sizes.values())) != 1 or 0 in sizes.values():
        raise FeedError(
            "every input needs the same number of samples, and at least one",
            found=", ".join(f"{name}: {size}" for name, size in sizes.items()) or "no inputs",
        )
    return next(iter(sizes.values()))


def _fixed_batch(session: Session) -> int | None:
    """The batch the session takes, or None when any will do."""
    sizes = {spec.shape[0] for spec in session.inputs if spec.shape and isinstance(spec.shape[0], int)}
    if len(sizes) > 1:
        raise FeedError("the session's inputs have different batches", found="; ".join(map(str, session.inputs)))
    return int(sizes.pop()) if sizes else None
