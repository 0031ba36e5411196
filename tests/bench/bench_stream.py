"""What a stream costs over ``bundle.run`` in a loop, and what it does with frames that come too fast.

By hand: ``python tests/bench/bench_stream.py [FRAMES]``. The loop and the stream (one worker, ``block``) take turns
over the same frames; shown are medians of microseconds a frame, by the wall clock and of the process's own CPU time.
Then a camera gives frames twice as fast as the engine takes them: ``newest`` keeps results young and drops, ``block``
makes the camera wait.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from bench_first_inference import model_of, write_bundle

from edgekit.runtime import open_bundle, open_stream

TURNS = 7


def frames(count: int, shape: tuple[int, ...]) -> list[np.ndarray]:
    """Model tensors of one frame each."""
    return list(np.random.default_rng(0).normal(size=(count, *shape)).astype(np.float32))


def camera(given: list[np.ndarray], period_s: float) -> Iterator[tuple[float, np.ndarray]]:
    """Frames at their times, which are their keys."""
    start = time.perf_counter()
    for index, frame in enumerate(given):
        time.sleep(max(0.0, start + index * period_s - time.perf_counter()))
        yield time.perf_counter(), frame


def cost(folder: Path, given: list[np.ndarray]) -> list[float]:
    """Microseconds a frame: wall clock of the loop and of the stream, then CPU time of both."""
    rows = []
    with open_bundle(folder) as bundle, open_stream(folder, when_full="block", capacity=8) as stream:
        for _ in range(TURNS):
            wall, cpu = [time.perf_counter()], [time.process_time()]
            for frame in given:
                bundle.run({"input": frame[np.newaxis]})
            wall.append(time.perf_counter())
            cpu.append(time.process_time())
            for _ in stream.over(enumerate(given)):
                pass
            wall.append(time.perf_counter())
            cpu.append(time.process_time())
            rows.append([*np.diff(wall), *np.diff(cpu)])
    return [statistics.median(column) * 1e6 / len(given) for column in zip(*rows[1:], strict=True)]


def ages(folder: Path, given: list[np.ndarray], period_s: float, when_full: str) -> str:
    """How old results are when they come, in ms, and what became of the frames."""
    with open_stream(folder, when_full=when_full, capacity=1) as stream:
        found = [time.perf_counter() - result.key for result in stream.over(camera(given, period_s))]
        counted = stream.counters
    median, worst = statistics.median(found) * 1e3, max(found) * 1e3
    return f"{median:>9.2f} {worst:>9.2f} {counted.done:>6} {counted.dropped:>8} {counted.unread:>7}"


def main(count: int) -> None:
    """Prints both tables."""
    names = ("loop µs", "stream µs", "adds µs", "loop CPU", "stream CPU", "adds CPU")
    print(f"{'engine':<12} {'model':<7}", *(f"{name:>10}" for name in names))
    for engine in ("onnxruntime", "openvino"):
        for name in ("small", "medium", "large"):
            with tempfile.TemporaryDirectory() as root:
                model = model_of(name)
                folder = write_bundle(Path(root) / "bundle", engine, model)
                given = frames(count, tuple(d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim)[1:])
                loop, stream, loop_cpu, stream_cpu = cost(folder, given)
            row = (loop, stream, stream - loop, loop_cpu, stream_cpu, stream_cpu - loop_cpu)
            print(f"{engine:<12} {name:<7}", *(f"{figure:>10.1f}" for figure in row))
    with tempfile.TemporaryDirectory() as root:
        model = model_of("large")
        folder = write_bundle(Path(root) / "bundle", "onnxruntime", model)
        given = frames(count, (3, 28, 28))
        with open_bundle(folder) as bundle:
            start = time.perf_counter()
            for frame in given:
                bundle.run({"input": frame[np.newaxis]})
            query_s = (time.perf_counter() - start) / count
        print(f"\na camera twice as fast as the engine ({query_s * 1e3:.2f} ms a query); ages of results in ms")
        print(f"{'when full':<10} {'median':>9} {'worst':>9} {'done':>6} {'dropped':>8} {'unread':>7}")
        for rule in ("newest", "block"):
            print(f"{rule:<10} {ages(folder, given, query_s / 2, rule)}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 300)
