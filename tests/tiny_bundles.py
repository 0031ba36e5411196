"""Bundles of the null engine, and measurements made of arrays, for what compares them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from fake_line import fake_target, make_samples, null_artifact, quick_profile, references_of, write_model

from edgekit.artifact import MANIFEST_FILE, Artifact, hash_files, hash_json, read_json, to_json, write_json
from edgekit.bundle import BundleFacts, make_golden, write_bundle
from edgekit.candidate import Plan
from edgekit.checking import check
from edgekit.processing_specs import Preprocessing
from edgekit.profiling.host import this_host
from edgekit.profiling.measured import Measured


def null_bundle(
    folder: Path,
    *,
    name: str = "zeros",
    target: str = "fake",
    batch: int = 1,
    preprocessing: Preprocessing | None = None,
    model: str | None = None,
    **options: Any,
) -> Path:
    """A bundle of the null engine with 16 golden samples; ``options`` are the engine's, ``model`` is ONNX text."""
    samples = dataclasses.replace(make_samples(40), preprocessing=preprocessing)
    references = references_of(samples)
    artifact = null_artifact(folder.with_name(f"{folder.name}-artifact"), batch=batch)
    if model is not None:
        artifact = dataclasses.replace(artifact, model="model.onnx")
        write_model(artifact.path, model)
        artifact = dataclasses.replace(artifact, files=hash_files(artifact.folder, ["model.onnx"]))
    facts = BundleFacts(
        name=name,
        target=target,
        plan=Plan(engine="null", precision="fp32"),
        batch=batch,
        preprocessing=preprocessing,
        labels=(),
        parents=(),
        accuracy=to_json(check(references, artifact, samples, None)),
        timings={"profile": quick_profile(batch=batch).model_dump(), "target": to_json(dict(fake_target(target)))},
    )
    golden = make_golden(artifact, references, samples, batch)
    # An engine told to misbehave would do so while its golden samples are made.
    scripted = dataclasses.replace(artifact, options={**artifact.options, **options})
    write_bundle(scripted, golden, facts, folder)
    return folder


def measured_of(
    artifact: Artifact, median_ms: float, *, seed: int = 0, turns: int = 200, kept: int = 40, **fields: Any
) -> Measured:
    """A measurement of independent lognormal latencies, as :func:`edgekit.profiling.measure` gives."""
    latencies = median_ms * np.random.default_rng(seed).lognormal(0, 0.05, turns * kept)
    known: dict[str, Any] = {
        "status": "ok",
        "artifact_sha256": artifact.sha256,
        "application_ms": latencies,
        "engine_ms": latencies * 0.9,
        "turn_sizes": (kept,) * turns,
        "turns": turns,
        "size_mb": 0.1,
        "host": this_host(),
        "started_at": "2026-11-21T00:00:00+00:00",
    }
    return Measured(**known | fields)


class ScriptedMeasure:
    """Stands for ``measure_in_turns``: gives each artifact the median it was told, and keeps its arguments."""

    def __init__(self, medians_ms: Sequence[float], **fields: Any) -> None:
        self.medians_ms = medians_ms
        self.fields = fields
        self.called: dict[str, Any] = {}

    def __call__(self, artifacts: Sequence[Artifact], load: Any, feeds: Any, **kwargs: Any) -> list[Measured]:
        """One measurement an artifact."""
        self.called = {"artifacts": artifacts, "load": load, "feeds": feeds, **kwargs}
        return [
            measured_of(artifact, median, seed=i, **self.fields)
            for i, (artifact, median) in enumerate(zip(artifacts, self.medians_ms, strict=True))
        ]


def rewrite(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes a manifest as an attacker would: its id is right again."""
    raw = read_json(bundle / MANIFEST_FILE)
    change(raw)
    beside = ("timings", "timings_sha256", "id")
    later = ("postprocessing", "in_graph", "statistics", "watch")  # not part of the id where there are none
    told = {key: value for key, value in raw.items() if not (key in later and value is None)}
    raw["id"] = hash_json({key: value for key, value in told.items() if key not in beside})
    write_json(bundle / MANIFEST_FILE, raw)
