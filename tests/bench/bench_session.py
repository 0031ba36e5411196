"""What ``Session.run`` costs over the engine's own call, on the very same opened model.

By hand: ``python tests/bench/bench_session.py``. Each engine's own call and ours take turns of 50 queries on one
engine session, the first of each turn dropped; the figure is met when ours takes at most 1.02 × the engine's + 3 µs.
Exits 1 when it is not.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from edgekit import runtime
from edgekit.artifact import Artifact, TensorSpec
from edgekit.runtime.session import Session

TURN = 50
TURNS = 40
RATIO, EXTRA_US = 1.02, 3.0


def convolutions(channels: int, size: int, layers: int, batch: str = "1") -> tuple[str, tuple[int | str, ...]]:
    """A chain of 3×3 convolutions as ONNX text, and the shape it takes."""
    rng = np.random.default_rng(0)
    width = [3, *[channels] * layers]
    weights = []
    for i in range(layers):
        shape = (width[i + 1], width[i], 3, 3)
        values = ", ".join(map(str, rng.normal(0, 0.05, int(np.prod(shape))).round(3)))
        weights.append(f"float[{', '.join(map(str, shape))}] w{i} = {{{values}}}")
    names = ["input", *[f"r{i}" for i in range(layers - 1)], "output"]
    body = "\n".join(
        f"c{i} = Conv<pads=[1, 1, 1, 1]>({names[i]}, w{i})\n{names[i + 1]} = Relu(c{i})" for i in range(layers)
    )
    text = (
        f'<ir_version: 9, opset_import: ["" : 20]>\nchain (float[{batch}, 3, {size}, {size}] input) => '
        f"(float[{batch}, {channels}, {size}, {size}] output) <{', '.join(weights)}> {{ {body} }}"
    )
    return text, (1 if batch == "1" else "batch", 3, size, size)


MODELS = {
    "small": convolutions(4, 8, 1),
    "small, dynamic batch": convolutions(4, 8, 1, batch='"batch"'),
    "medium": convolutions(16, 32, 4),
    "large": convolutions(64, 28, 4),
}


def own_call(engine: str, session: Session, feeds: dict[str, np.ndarray]) -> Callable[[], object]:
    """The engine's own call on the session's own engine object."""
    inside = vars(session)
    if engine == "onnxruntime":
        return lambda: inside["_session"].run(None, feeds)
    return lambda: inside["_request"].infer(feeds, share_inputs=True, share_outputs=False)


def turn_us(call: Callable[[], object]) -> float:
    """Median microseconds of a query in one turn."""
    times = []
    for _ in range(TURN):
        start_ns = time.perf_counter_ns()
        call()
        times.append(time.perf_counter_ns() - start_ns)
    return statistics.median(times[1:]) / 1000


def measure(engine: str, folder: Path, text: str, shape: tuple[int | str, ...]) -> tuple[float, float, float]:
    """Median µs of the engine's own call, of ours, and of their difference within a pair of turns."""
    import onnx
    from onnx.parser import parse_model

    onnx.save(parse_model(text), folder / "model.onnx")
    out = (shape[0], int(text.partition("=> (float[")[2].split(",")[1]), *shape[2:])
    artifact = Artifact(
        folder=folder,
        model="model.onnx",
        files={},
        engine=engine,
        precision="fp32",
        inputs=(TensorSpec(name="input", dtype="float32", shape=shape),),
        outputs=(TensorSpec(name="output", dtype="float32", shape=out),),
    )
    session = runtime.open_artifact(artifact)
    feeds = {"input": np.random.default_rng(0).normal(size=(1, *shape[1:])).astype(np.float32)}
    own, ours = own_call(engine, session, feeds), lambda: session.run(feeds)
    turn_us(own)
    turn_us(ours)
    pairs = []
    for turn in range(TURNS):
        if turn % 2:
            pairs.append((turn_us(own), turn_us(ours)))
        else:
            second = turn_us(ours)
            pairs.append((turn_us(own), second))
    session.close()
    medians = [statistics.median(column) for column in zip(*pairs, strict=True)]
    return medians[0], medians[1], statistics.median(b - a for a, b in pairs)


def main() -> int:
    """Prints the table; 0 when every row is within the limit."""
    print(f"{'engine':<12} {'model':<21} {'own µs':>9} {'ours µs':>9} {'ratio':>7} {'extra µs':>9} {'limit µs':>9}")
    missed = 0
    for engine in ("onnxruntime", "openvino"):
        for name, (text, shape) in MODELS.items():
            with tempfile.TemporaryDirectory() as folder:
                own, ours, extra = measure(engine, Path(folder), text, shape)
            limit = RATIO * own + EXTRA_US
            met = own + extra <= limit
            missed += not met
            row = f"{engine:<12} {name:<21} {own:>9.1f} {ours:>9.1f} {ours / own:>7.3f} {extra:>9.2f} {limit:>9.1f}"
            print(row, "" if met else "MISSED")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
