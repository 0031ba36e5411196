"""What a watch costs a query: counting it, and looking at its values in one query of eight.

By hand: ``python tests/bench/bench_watch.py``. Each row times :meth:`edgekit.runtime.watch.Watch.record` alone, for a
model of the null engine whose calibration statistics were made of normal values; the least of 20 rounds counts. The
share is of a query of 1 ms. Then one line, with its page for Prometheus, as a thread of its own writes it every 10 s.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from edgekit.artifact import Artifact, Golden, Manifest, TensorSpec, hash_files
from edgekit.data import Samples
from edgekit.recipe_watch import WatchSpec
from edgekit.runtime import open_artifact
from edgekit.runtime.bundle import Bundle
from edgekit.runtime.watch import Watch, start_watch
from edgekit.watch_facts import reference_statistics

ROUNDS, TURN = 20, 400
MODELS = {
    "digits 1x28x28 -> 10": ((1, 28, 28), (10,)),
    "camera 3x224x224 -> 1000": ((3, 224, 224), (1000,)),
    "detector 3x640x640 -> 84x8400": ((3, 640, 640), (84, 8400)),
    "sensors 64 -> 2": ((64,), (2,)),
}


def bundle(folder: Path, shapes: tuple[tuple[int, ...], ...], every: int) -> Bundle:
    """An opened artifact of the null engine with a manifest that has statistics."""
    folder.mkdir()
    (folder / "model.null").write_bytes(b"\0")
    inputs, outputs = (
        (TensorSpec(name=name, dtype="float32", shape=(1, *shape)),)
        for name, shape in zip(("x", "y"), shapes, strict=True)
    )
    artifact = Artifact(
        folder=folder,
        model="model.null",
        files=hash_files(folder, ["model.null"]),
        engine="null",
        precision="fp32",
        inputs=inputs,
        outputs=outputs,
    )
    x = np.random.default_rng(0).standard_normal((8, *shapes[0])).astype(np.float32)
    samples = Samples(name="normal", count=len(x), fetch=lambda indices: {"x": x[indices]})
    manifest = Manifest(
        **dict.fromkeys(("name", "target", "engine_version", "edgekit_version"), ""),
        engine="null",
        precision="fp32",
        model="model.null",
        inputs=inputs,
        outputs=outputs,
        options={},
        plan={},
        batch=1,
        preprocessing=None,
        labels=(),
        parents=(),
        files=artifact.files,
        golden=Golden(samples=0, random=False, reference_db=0.0, floor_db=0.0, engine_version="", cpu_model=""),
        accuracy={},
        statistics=reference_statistics(artifact, None, samples, WatchSpec()),
        watch={"every": every, "period_s": 1e6, "window_s": 300.0, "limits": {"p99_ms": 30.0, "drift": 0.25}},
    )
    return Bundle(folder=str(folder), manifest=manifest, session=open_artifact(artifact))


def record_us(watch: Watch, feeds: dict[str, np.ndarray], outputs: dict[str, np.ndarray]) -> float:
    """Mean microseconds of a record in the best round."""
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(TURN):
            watch.record(0.001, feeds, outputs)
        best = min(best, time.perf_counter() - start)
    return best / TURN * 1e6


def main() -> int:
    """Prints the table."""
    print(f"{'model':<30} {'counted µs':>10} {'looked at µs':>12} {'1 of 8, µs':>10} {'of 1 ms':>8} {'line ms':>8}")
    for name, shapes in MODELS.items():
        found = []
        for every in (1_000_000_000, 1, 8):
            with tempfile.TemporaryDirectory() as root:
                opened = bundle(Path(root) / "bundle", shapes, every)
                feeds = {"x": np.random.default_rng(1).standard_normal((1, *shapes[0])).astype(np.float32)}
                with opened, start_watch(opened, Path(root) / "watch") as watch:
                    outputs = opened.run(feeds)
                    found.append(record_us(watch, feeds, outputs))
                    start = time.perf_counter()
                    for _ in range(10):
                        watch.write()
                    line_ms = (time.perf_counter() - start) * 100
        print(
            f"{name:<30} {found[0]:>10.2f} {found[1]:>12.1f} {found[2]:>10.1f} {found[2] / 10:>7.2f}% {line_ms:>8.2f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
