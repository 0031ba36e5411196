"""Overhead of the clock loop: the null engine at no latency, timed by it and by a bare loop, in turns.

By hand: ``python tests/bench/bench_clock.py``
"""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from time import perf_counter_ns

import numpy as np

from edgekit.artifact import Artifact, TensorSpec, hash_files
from edgekit.profiling.clock import run_turn, split_queries
from edgekit.runtime import open_artifact

ROUNDS = 40
QUERIES = 5000


def measure_loops() -> dict[str, np.ndarray]:
    """Nanoseconds a query of each loop, shape [rounds], and of the engine clock itself."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "model.null").touch()
        spec = TensorSpec(name="x", dtype="float32", shape=("batch", 4))
        session = open_artifact(
            Artifact(
                folder=Path(folder),
                model="model.null",
                files=hash_files(Path(folder), ["model.null"]),
                engine="null",
                precision="fp32",
                inputs=(spec,),
                outputs=(spec,),
            )
        )
    queries = split_queries({"x": np.ones((16, 4), dtype=np.float32)}, 1)
    rotating = itertools.cycle(queries)

    def bare() -> None:
        run = session.run
        for _, feeds in zip(range(QUERIES), rotating, strict=False):
            run(feeds)

    engine_ns = []

    def clocked() -> None:
        engine_ns.append(np.median(run_turn(session, rotating, QUERIES).latencies_ns[:, 1]))

    def with_preprocessing() -> None:
        run_turn(session, rotating, QUERIES, lambda raw: raw)

    loops = {"bare loop": bare, "clock loop": clocked, "clock loop, preprocessing": with_preprocessing}
    taken: dict[str, list[float]] = {name: [] for name in loops}
    for turn in range(ROUNDS):
        names = list(loops)[turn % len(loops) :] + list(loops)[: turn % len(loops)]
        for name in names:
            began = perf_counter_ns()
            loops[name]()
            taken[name].append((perf_counter_ns() - began) / QUERIES)

    return {name: np.array(ns) for name, ns in taken.items()} | {"engine clock": np.array(engine_ns)}


def main() -> None:
    """Prints the table."""
    taken = measure_loops()
    engine_ns, base = taken.pop("engine clock"), taken["bare loop"]
    print(f"{ROUNDS} rounds of {QUERIES} queries, null engine at 0 µs, median of rounds")
    print(f"{'loop':<28}{'µs a query':>12}{'over bare, µs':>15}{'ratio':>8}")
    for name, ns in taken.items():
        over, ratio = np.median(ns - base), np.median(ns / base)
        print(f"{name:<28}{np.median(ns) / 1e3:>12.3f}{over / 1e3:>15.3f}{ratio:>8.3f}")
    print(f"the engine clock itself reads {np.median(engine_ns) / 1e3:.3f} µs a query")


if __name__ == "__main__":
    main()
