"""Import, open and first inference of a bundle, against the bare engine's, each in a fresh process.

By hand: ``python tests/bench/bench_first_inference.py [TURNS]``. The clock starts before the first import (numpy's
among them) and ends with the first outputs; the bare engine opens the same file with the same options. Both take
turns; a ratio is of one turn. The figure is met when the median ratio of the processes' own CPU time, or of the
wall clock, is at most 1.15. Exits 1 when it is not.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from bench_session import MODELS
from onnx import helper, numpy_helper
from onnx.parser import parse_model

sys.path.insert(0, str(Path(__file__).parents[1]))
from tiny_models import onnx_specs

from edgekit import runtime
from edgekit.artifact import (
    GOLDEN_FILE,
    MANIFEST_FILE,
    Artifact,
    Golden,
    Manifest,
    TensorSpec,
    bundle_id,
    hash_files,
    write_json,
)

LIMIT = 1.15
HEAD = """
import sys, time, json
start, cpu = time.perf_counter(), time.process_time()
folder, shape = sys.argv[1], json.loads(sys.argv[2])
"""
TAIL = "print(time.perf_counter() - start, time.process_time() - cpu)\n"
BARE = {
    "onnxruntime": """
import numpy, onnxruntime
onnxruntime.disable_telemetry_events()
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = onnxruntime.InferenceSession(folder + "/artifact/model.onnx", options, providers=["CPUExecutionProvider"])
session.run(None, {"input": numpy.zeros(shape, numpy.float32)})
""",
    "openvino": """
import numpy, openvino
options = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
compiled = openvino.Core().compile_model(folder + "/artifact/model.onnx", "CPU", options)
compiled.create_infer_request().infer({"input": numpy.zeros(shape, numpy.float32)})
""",
}
OURS = """
import numpy
from edgekit.runtime import open_bundle
bundle = open_bundle(folder)
bundle.run({"input": numpy.zeros(shape, numpy.float32)})
"""
OPTIONS: dict[str, dict[str, int]] = {
    "onnxruntime": {"intra_op_num_threads": 1, "inter_op_num_threads": 1},
    "openvino": {"INFERENCE_NUM_THREADS": 1},
}


def wide(channels: int, size: int, layers: int) -> onnx.ModelProto:
    """A chain of 3×3 convolutions whose weights weigh what a ResNet-18's do."""
    rng, nodes, weights = np.random.default_rng(0), [], []
    shape = [1, channels, size, size]
    for i in range(layers):
        values = rng.normal(0, 0.01, (channels, channels, 3, 3)).astype(np.float32)
        weights.append(numpy_helper.from_array(values, f"w{i}"))
        names = ("input" if i == 0 else f"c{i - 1}", f"w{i}"), ("output" if i == layers - 1 else f"c{i}",)
        nodes.append(helper.make_node("Conv", *names, pads=[1, 1, 1, 1]))
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in ("input", "output")]
    graph = helper.make_graph(nodes, "wide", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def model_of(name: str) -> onnx.ModelProto:
    """A model by the name of its row."""
    return wide(512, 7, 5) if name == "47 MB" else parse_model(MODELS[name][0])


def write_bundle(folder: Path, engine: str, model: onnx.ModelProto) -> Path:
    """A bundle of a model, with 16 golden samples whose file is hashed as any is."""
    (folder / "artifact").mkdir(parents=True)
    onnx.save(model, folder / "artifact" / "model.onnx")
    shape, outputs = (onnx_specs(values)[0].shape for values in (model.graph.input, model.graph.output))
    samples = np.zeros((16, *shape[1:]), np.float32)
    np.savez(folder / GOLDEN_FILE, **{"input/input": samples})
    artifact = Artifact(
        folder=folder,
        model="artifact/model.onnx",
        files=hash_files(folder, ["artifact/model.onnx", GOLDEN_FILE]),
        engine=engine,
        precision="fp32",
        inputs=(TensorSpec(name="input", dtype="float32", shape=shape),),
        outputs=(TensorSpec(name="output", dtype="float32", shape=outputs),),
        options=OPTIONS[engine],
    )
    golden = Golden(samples=16, random=True, reference_db=90, floor_db=87, engine_version="", cpu_model="")
    manifest = Manifest(
        **{key: getattr(artifact, key) for key in ("engine", "precision", "model", "inputs", "outputs", "options")},
        name="bench",
        target="local",
        engine_version="",
        plan={},
        batch=1,
        preprocessing=None,
        labels=(),
        parents=(),
        files=artifact.files,
        golden=golden,
        accuracy={},
        edgekit_version=runtime.__name__,
    )
    write_json(folder / MANIFEST_FILE, manifest)
    raw = json.loads((folder / MANIFEST_FILE).read_text())
    write_json(folder / MANIFEST_FILE, raw | {"id": bundle_id(manifest)})
    return folder


def time_s(script: str, folder: Path, shape: tuple[int | str, ...]) -> tuple[float, float]:
    """Wall and CPU seconds of a script in a fresh process, as it tells them itself.

    Compiled sources are kept, as an installation keeps them: the first turn fills the folder.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(folder.parent / "compiled")
    arguments = [sys.executable, "-c", HEAD + script + TAIL, str(folder), json.dumps(shape)]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True, env=environment)
    wall, cpu = map(float, done.stdout.split()[-2:])
    return wall, cpu


def main(turns: int) -> int:
    """Prints the table; 0 when every row is within the limit."""
    names = ("bare ms", "ours ms", "ratio", "bare CPU", "ours CPU", "ratio")
    print(f"{'engine':<12} {'model':<8}", *(f"{name:>8}" for name in names))
    missed = 0
    for engine, bare in BARE.items():
        for name in ("small", "large", "47 MB"):
            model = model_of(name)
            shape = onnx_specs(model.graph.input)[0].shape
            with tempfile.TemporaryDirectory() as root:
                folder = write_bundle(Path(root) / "bundle", engine, model)
                scripts = (bare, OURS)
                times = [[time_s(script, folder, shape) for script in scripts] for _ in range(turns + 1)][1:]
            walls, cpus = np.array(times)[:, :, 0] * 1e3, np.array(times)[:, :, 1] * 1e3
            ratios = [statistics.median(column[:, 1] / column[:, 0]) for column in (walls, cpus)]
            met = min(ratios) <= LIMIT
            missed += not met
            row = f"{engine:<12} {name:<8}"
            for column, ratio in zip((walls, cpus), ratios, strict=True):
                row += f" {np.median(column[:, 0]):>8.1f} {np.median(column[:, 1]):>8.1f} {ratio:>8.3f}"
            print(row, "" if met else "MISSED")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 20))
