"""Preprocessing in numpy and in the engine's graph: a query from a raw camera frame to the outputs, in turns.

By hand: ``python tests/bench/bench_in_graph.py [TURNS]``. Frames are uint8 NHWC; the model takes 224 × 224 pixels.
Shown are medians of milliseconds of a query, of its CPU time, and the largest difference of what the model is given,
as a share of its range (1/255 is what is promised).
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from bench_session import convolutions
from onnx.parser import parse_model

from edgekit.artifact import Artifact, TensorSpec
from edgekit.backends import load_backend
from edgekit.backends.in_graph import put_in_graph
from edgekit.catalog import load_target
from edgekit.conversion.clean import describe_onnx
from edgekit.processing_specs import InGraph, Preprocessing
from edgekit.runtime import open_artifact
from edgekit.runtime.preprocessing import preprocess

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
ECHO = """<ir_version: 9, opset_import: ["" : 20]>
echo (float[1, 3, 224, 224] input) => (float[1, 3, 224, 224] output) <float zero = {0}> { output = Add(input, zero) }"""
FRAMES = {"224 x 224, no resize": (224, 224), "640 x 480": (480, 640), "1920 x 1080": (1080, 1920)}


def built(engine: str, text: str, folder: Path) -> Artifact:
    """A model compiled for one thread."""
    folder.mkdir()
    onnx.save(parse_model(text), folder / "model.onnx")
    target = load_target("cpu-generic").model_copy(update={"threads": 1})
    return load_backend(engine).compile(describe_onnx(folder / "model.onnx", precision="fp32"), target, 1, folder / "b")


def pair(engine: str, text: str, size: tuple[int, int], folder: Path) -> tuple[Callable[..., object], ...]:
    """A query with preprocessing in numpy, and one with it in the graph."""
    folder.mkdir()
    settings = Preprocessing(layout="NHWC", scale=1 / 255, mean=MEAN, std=STD, resize=(224, 224))
    plain = built(engine, text, folder / "plain")
    spec = TensorSpec(name="input", dtype="uint8", shape=(1, *size, 3))
    inside = put_in_graph(plain, InGraph(preprocessing=settings), spec, folder / "inside")
    own, whole = open_artifact(plain), open_artifact(inside)
    return lambda raw: own.run({"input": preprocess(raw, settings)}), lambda raw: whole.run({"input": raw})


def timed_ms(call: Callable[..., object], raw: np.ndarray) -> tuple[float, float]:
    """Wall and CPU milliseconds of one query, the median of five."""
    rows = []
    for _ in range(5):
        wall, cpu = time.perf_counter(), time.process_time()
        call(raw)
        rows.append((time.perf_counter() - wall, time.process_time() - cpu))
    wall, cpu = (statistics.median(column) * 1e3 for column in zip(*rows, strict=True))
    return wall, cpu


def main(turns: int) -> None:
    """Prints the table."""
    names = ("numpy ms", "graph ms", "numpy CPU", "graph CPU", "ratio", "difference")
    print(f"{'engine':<12} {'frame':<21}", *(f"{name:>10}" for name in names))
    rng = np.random.default_rng(0)
    for engine in ("onnxruntime", "openvino"):
        for name, size in FRAMES.items():
            raw = rng.integers(0, 256, (1, *size, 3), dtype=np.uint8)
            with tempfile.TemporaryDirectory() as root:
                calls = pair(engine, convolutions(16, 224, 2)[0], size, Path(root) / "model")
                rows = [[timed_ms(call, raw) for call in calls] for _ in range(turns + 1)][1:]
                given, echoed = (call(raw)["output"] for call in pair(engine, ECHO, size, Path(root) / "echo"))
            wall, cpu = np.median(np.array(rows), axis=0).T
            share = float(np.abs(given - echoed).max() / (given.max() - given.min()))
            figures = (*wall, *cpu, cpu[1] / cpu[0])
            print(f"{engine:<12} {name:<21}", *(f"{figure:>10.2f}" for figure in figures), f"{share:>10.1e}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 9)
