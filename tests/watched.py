"""A bundle of the null engine with statistics and limits, and what its watch wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from fake_line import make_samples, null_artifact, quick_profile, references_of

from edgekit.bundle import BundleFacts, make_golden, write_bundle
from edgekit.candidate import Plan
from edgekit.recipe_watch import WatchLimits, WatchSpec
from edgekit.runtime.watch.files import read_lines
from edgekit.watch_facts import reference_statistics, watch_settings

EVERY = {"every": 1, "samples": 16}


def watched_bundle(folder: Path, limits: dict[str, Any] | None = None, **spec: Any) -> Path:
    """A bundle whose calibration samples were 256 of normal values; it answers noughts."""
    samples = make_samples(256)
    artifact = null_artifact(folder.with_name(f"{folder.name}-artifact"))
    told = WatchSpec(**EVERY | spec | {"limits": WatchLimits(**limits or {})})
    statistics = reference_statistics(artifact, samples, samples, told)
    facts = BundleFacts(
        name="zeros",
        target="fake",
        plan=Plan(engine="null", precision="fp32"),
        batch=1,
        preprocessing=None,
        labels=(),
        parents=(),
        accuracy={},
        timings={},
        statistics=statistics,
        watch=watch_settings(told, quick_profile(), statistics),
    )
    write_bundle(artifact, make_golden(artifact, references_of(samples), samples, 1), facts, folder)
    return folder


def feeds_of(count: int, *, seed: int = 5, shift: float = 0.0) -> list[dict[str, np.ndarray]]:
    """Samples of their own, like those of calibration but for the shift."""
    samples = make_samples(count, seed=seed)
    return [{"input": samples.tensors([i])["input"] + np.float32(shift)} for i in range(count)]


def states(folder: Path) -> list[dict[str, Any]]:
    """The lines but the heads."""
    return [line for line in read_lines(folder)[0] if line["kind"] != "start"]
