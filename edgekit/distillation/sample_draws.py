"""Random numbers that belong to a sample, whichever batch, process or run it is in."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from edgekit.artifact import Array

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Draws:
    """The random numbers of one batch of one view.

    Attributes:
        seed: Of the run.
        view: Number of the view; another one, other numbers.
        indices: Which samples of the whole set they are, int64 ``[n]``.
    """

    seed: int
    view: int
    indices: Array

    def uniforms(self, purpose: str, count: int) -> Array:
        """Uniform numbers in [0, 1), float64 ``[n, count]``; a row hangs on seed, view, purpose and its sample alone.

        Two rounds of the mixing function of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number
        generators", OOPSLA 2014), of the sample's index and then of the column.
        """
        first, second = _key(int(self.seed), int(self.view), purpose)
        rows = _mixed(first + self.indices.astype(np.uint64) * _GOLDEN) ^ second
        words = _mixed(rows[:, None] + np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN)
        found: Array = (words >> np.uint64(11)) * 2.0**-53
        return found

    def normals(self, purpose: str, shape: tuple[int, ...]) -> Array:
        """Standard normal numbers, float32 ``[n, *shape]``; a row hangs on seed, view, purpose and its sample alone.

        Philox (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011), keyed by the sample.
        """
        first = _key(int(self.seed), int(self.view), purpose)[0]
        found: Array = np.empty((len(self.indices), *shape), dtype=np.float32)
        for row, index in zip(found, self.indices, strict=True):
            key = np.array([first, index], dtype=np.uint64)
            row[...] = np.random.Generator(np.random.Philox(key=key)).standard_normal(shape, dtype=np.float32)
        return found

    def batch(self, purpose: str) -> np.random.Generator:
        """A generator for the batch as a whole: it hangs on seed, view, purpose and the indices in their order."""
        return np.random.default_rng(self.batch_seed(purpose))

    def batch_seed(self, purpose: str) -> int:
        """A number below 2**63 for the batch as a whole."""
        batch = np.ascontiguousarray(self.indices, dtype="<i8").tobytes()
        return int(_key(int(self.seed), int(self.view), purpose, batch)[0] >> np.uint64(1))


def _key(*parts: object) -> Array:
    """Two words uint64 that stand for ``parts``."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=16).digest()
    return np.frombuffer(digest, dtype="<u8").astype(np.uint64)


def _mixed(words: Array) -> Array:
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    words ^= words >> np.uint64(31)
    return words
