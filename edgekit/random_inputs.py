"""Random inputs for a model without data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgekit.artifact import Array, TensorSpec
from edgekit.data import RANDOM, Samples, as_taken
from edgekit.errors import DataError


def random_samples(specs: Sequence[TensorSpec], *, count: int = 32, seed: int = 0) -> Samples:
    """Random inputs for a model without data: N(0, 1) for floats, 0 or 1 for integers and booleans.

    Args:
        specs: The model's inputs; axis 0 is the batch.
        count: How many samples.
        seed: With the index of a sample, decides its values.

    Raises:
        DataError: A dimension other than the batch is dynamic, or an input has no batch axis.
    """
    for spec in specs:
        if not spec.shape or any(isinstance(dim, str) for dim in spec.shape[1:]):
            raise DataError(
                f"input {spec.name!r} has no fixed shape to draw random samples in",
                found=str(spec),
                allowed="sizes for every axis but the batch",
                fix=f"give data, or the sizes: --input {spec.name}={_example(spec)}",
            )

    def fetch(indices: Array) -> dict[str, Array]:
        rows = [np.random.default_rng([seed, int(index)]) for index in indices]
        return {spec.name: np.stack([_random(spec, rng) for rng in rows]) for spec in specs}

    return as_taken(Samples(name=RANDOM, count=count, fetch=fetch), specs)


def _example(spec: TensorSpec) -> str:
    """What could be given as a shape, e.g. ``i64[1,128]``."""
    sizes = [str(dim) if isinstance(dim, int) else "128" for dim in spec.shape[1:]]
    kind = spec.dtype[0] + spec.dtype.lstrip("abcdefghijklmnopqrstuvwxyz") if spec.dtype != "bool" else "bool"
    return f"{kind}[{','.join(['1', *sizes])}]"


def _random(spec: TensorSpec, rng: np.random.Generator) -> Array:
    shape = tuple(int(dim) for dim in spec.shape[1:])
    dtype = np.dtype(spec.dtype)
    values = rng.standard_normal(shape) if dtype.kind == "f" else rng.integers(0, 2, shape)
    return np.asarray(values, dtype=dtype)
