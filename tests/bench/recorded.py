"""Latencies of real sessions, for the simulations.

``recorded.npz`` was recorded with the profiler on two cores of a virtual AMD EPYC (Zen 5) shared with others, whose
speed changes by tens of percent within seconds: kept queries of one session a model, in the order of time, as float16
microseconds, and under ``<name>.turns`` how many of them each turn has.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

RECORDED = Path(__file__).with_suffix(".npz")


def recordings() -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Name, kept latencies in ms and kept queries a turn of every recording."""
    with np.load(RECORDED) as found:
        for name in found.files:
            if not name.endswith(".turns"):
                yield name, found[name].astype(np.float64) / 1e3, found[f"{name}.turns"]
