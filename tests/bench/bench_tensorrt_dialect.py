"""TensorRT's dialect in numbers: accuracy of int8, cost of converting, and where NVIDIA's own tool places its pairs.

By hand, with EDGEKIT_DATA set: ``python tests/bench/bench_tensorrt_dialect.py [--out DIR] [--pictures N]``. No GPU is
asked for: ONNX Runtime's CPU computes the graphs as they are written. Figures: int8 of ResNet-56 on CIFAR-10 loses no
more than 0.5 points, paired; an ONNX file of 100 MB is converted in under 10 s, and in no more memory than three times
its size (the whole process counted, 4 samples of calibration included). The loss beside ONNX Runtime's own dialect for
x86, and which convolutions modelopt quantises and we do not (``pip install --target DIR --no-deps nvidia-modelopt``,
with DIR on PYTHONPATH), are listed. Exits 1 when a figure is missed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "backends"), str(HERE.parent)]

from small_nets import HEAD, samples_for  # noqa: E402

from edgekit.artifact import Artifact  # noqa: E402
from edgekit.backends import load_backend  # noqa: E402
from edgekit.catalog import load_target  # noqa: E402
from edgekit.checking import run_samples, runnable  # noqa: E402
from edgekit.conversion.clean import describe_onnx  # noqa: E402
from edgekit.data import Samples  # noqa: E402
from edgekit.metrics import paired_drop  # noqa: E402
from edgekit.quantization.schemes import plan_of  # noqa: E402
from edgekit.runtime import open_artifact  # noqa: E402
from edgekit.runtime.numbers import run_batched, snr_db  # noqa: E402

TARGETS = {"tensorrt": "jetson-orin-nano", "onnxruntime": "x86-vnni"}
BATCH = 100
MOST_POINTS, MOST_SECONDS, MOST_MEMORY = 0.5, 10.0, 3.0
LAYERS, CHANNELS = 11, 512  # 104 MB


def int8_of(fp32: Artifact, engine: str, data: Samples, out: Path) -> Artifact:
    """The usual int8 of an engine."""
    backend, target = load_backend(engine), load_target(TARGETS[engine])
    plan = replace(plan_of(engine, "int8"), scheme=backend.scheme(target))
    return backend.quantize(fp32, data.batches(1), plan, out)


def outputs_of(artifact: Artifact, engine: str, samples: Samples, out: Path) -> np.ndarray:
    """What an artifact gives on this CPU."""
    built = load_backend(engine).compile(artifact, load_target(TARGETS[engine]), BATCH, out)
    session = open_artifact(replace(runnable(built), engine="onnxruntime"))
    try:
        (output,) = run_samples(lambda feeds: run_batched(session, feeds), samples).values()
    finally:
        session.close()
    return output


def accuracy(out: Path, pictures: int) -> tuple[bool, Artifact, Samples]:
    """ResNet-56 in fp32, in TensorRT's int8 and in ONNX Runtime's own, on the same pictures."""
    from bench_models import recipe_of  # with torch, which the process that converts must not hold

    from edgekit.ingredients import load_data
    from edgekit.making import export
    from edgekit.models import load_module

    recipe = recipe_of("resnet56", out / "data")
    data = load_data(recipe, HERE, None)
    assert data.test.targets is not None
    assert data.calibration is not None
    chosen = np.linspace(0, len(data.test) - 1, min(pictures, len(data.test))).astype(int)
    test = replace(data.test, count=len(chosen), fetch=lambda at: data.test.fetch(chosen[at]))
    right = data.test.targets[chosen]
    module = load_module(recipe.teacher, base=HERE, seed=0, where="teacher").eval()
    fp32 = export(module, data.test, out / "steps")
    reference = outputs_of(fp32, "tensorrt", test, out / "fp32")
    hits = {"fp32": reference.argmax(axis=1) == right}
    print(f"ResNet-56, CIFAR-10 (JPEG), {len(chosen)} pictures: fp32 {hits['fp32'].mean():.2%}", flush=True)
    met = True
    for engine in ("tensorrt", "onnxruntime"):
        began = time.monotonic()
        made = int8_of(fp32, engine, data.calibration, out / f"int8-{engine}")
        output = outputs_of(made, engine, test, out / f"built-{engine}")
        right_too = output.argmax(axis=1) == right
        drop = paired_drop(hits["fp32"].astype(float), right_too.astype(float))
        print(
            f"  {engine} int8 for {TARGETS[engine]}: {right_too.mean():.2%}, drop {drop.points:+.2f} points "
            f"[{drop.low:+.2f}, {drop.high:+.2f}], {snr_db(reference, output):.1f} dB, "
            f"{time.monotonic() - began:.0f} s",
            flush=True,
        )
        for note in made.notes:
            print(f"    {note}")
        if engine == "tensorrt":
            met = drop.points <= MOST_POINTS
    print(f"  within {MOST_POINTS} points: {'met' if met else 'MISSED'}", flush=True)
    return met, fp32, data.calibration


def losses(out: Path) -> None:
    """dB that TensorRT's dialect and ONNX Runtime's U8S8 keep on the small networks of the tests."""
    from tensorrt_nets import ZOO, net

    print("\ndB against fp32        TensorRT   U8S8 per channel")
    for name, text in ZOO.items():
        (out / name).mkdir(parents=True, exist_ok=True)
        onnx.save(net(text), out / name / "model.onnx")
        fp32 = describe_onnx(out / name / "model.onnx", precision="fp32")
        size = fp32.inputs[0].shape[0] if isinstance(fp32.inputs[0].shape[0], int) else 1
        samples = samples_for(fp32.inputs, 32)
        told = []
        reference: Any = None
        for engine in ("tensorrt", "onnxruntime"):
            backend, target = load_backend(engine), load_target(TARGETS[engine])
            plan = replace(plan_of(engine, "int8"), scheme=backend.scheme(target))
            made = backend.quantize(fp32, samples.batches(size), plan, out / name / engine)
            values = []
            for i, one in enumerate((fp32, made)):
                built = backend.compile(one, target, size, out / name / f"{engine}-{i}")
                session = open_artifact(replace(runnable(built), engine="onnxruntime"))
                (output,) = run_batched(session, samples.tensors(np.arange(32))).values()
                values.append(output)
                session.close()
            reference = values[0]
            told.append(snr_db(reference, values[1]))
        print(f"  {name:<20}{told[0]:>9.1f}{told[1]:>19.1f}", flush=True)


def large_model(path: Path) -> None:
    """An ONNX file of a little more than 100 MB: convolutions of 512 channels."""
    rng = np.random.default_rng(0)
    body = "\n".join(
        f"[conv{i}] c{i} = Conv<pads=[1, 1, 1, 1]>({'image' if i == 0 else f'r{i - 1}'}, w{i}, b{i})"
        f" [relu{i}] r{i} = Relu(c{i})"
        for i in range(LAYERS)
    )
    shape = f'["batch", {CHANNELS}, 8, 8]'
    proto = onnx.parser.parse_model(f"{HEAD}large (float{shape} image) => (float{shape} r{LAYERS - 1}) {{ {body} }}")
    for i in range(LAYERS):
        weights = rng.normal(0, 1 / 70, (CHANNELS, CHANNELS, 3, 3)).astype("float32")
        proto.graph.initializer.append(onnx.numpy_helper.from_array(weights, f"w{i}"))
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(CHANNELS, "float32"), f"b{i}"))
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(proto, path)


def convert(path: Path) -> None:
    """Converts a file in this process and tells what it took, as JSON."""
    fp32 = describe_onnx(path, precision="fp32")
    samples = samples_for(fp32.inputs, 4)
    began, began_cpu = time.monotonic(), time.process_time()
    made = int8_of(fp32, "tensorrt", samples, path.parent / "int8")
    load_backend("tensorrt").compile(made, load_target(TARGETS["tensorrt"]), 1, path.parent / "built")
    seconds = time.monotonic() - began
    status = Path("/proc/self/status").read_text().splitlines()
    peak_mb = next(int(line.split()[1]) * 1024 / 1e6 for line in status if line.startswith("VmHWM"))
    print(json.dumps({"seconds": seconds, "cpu_seconds": time.process_time() - began_cpu, "peak_mb": peak_mb}))


def conversion(out: Path) -> bool:
    """Seconds and peak memory of converting, in a process of its own."""
    path = out / "large" / "model.onnx"
    large_model(path)
    size_mb = path.stat().st_size / 1e6
    done = subprocess.run(
        [sys.executable, __file__, "--convert", str(path)], check=True, capture_output=True, text=True
    )
    told = json.loads(done.stdout.splitlines()[-1])
    met = told["seconds"] < MOST_SECONDS and told["peak_mb"] <= MOST_MEMORY * size_mb
    print(
        f"\nconverting {size_mb:.0f} MB: {told['seconds']:.1f} s ({told['cpu_seconds']:.1f} s of CPU), "
        f"peak {told['peak_mb']:.0f} MB, "
        f"{told['peak_mb'] / size_mb:.2f} times its size: {'met' if met else 'MISSED'}",
        flush=True,
    )
    return met


def oracle(fp32: Artifact, calibration: Samples, out: Path) -> None:
    """Which convolutions modelopt quantises and we do not, and the other way round; skips become lines."""
    try:
        from modelopt.onnx.quantization import quantize  # type: ignore[import-not-found]
    except ImportError as exc:
        print(f"\nmodelopt: not compared ({exc})")
        return
    ours = quantised_in(int8_of(fp32, "tensorrt", calibration, out / "ours").path)
    name = fp32.inputs[0].name
    data = {name: calibration.tensors(np.arange(8))[name]}
    path = out / "modelopt.onnx"
    out.mkdir(parents=True, exist_ok=True)
    quantize(str(fp32.path), calibration_data=data, calibration_method="max", output_path=str(path),
             high_precision_dtype="fp32", calibration_eps=["cpu"])  # fmt: skip
    theirs = quantised_in(path)
    print(f"\nmodelopt quantises {len(theirs)} convolutions and products, we {len(ours)}")
    print(f"  modelopt alone: {', '.join(sorted(theirs - ours)) or 'none'}")
    print(f"  we alone: {', '.join(sorted(ours - theirs)) or 'none'}")
    print(f"  skip branches: modelopt {len(quantised_in(path, 'Add'))}, we "
          f"{len(quantised_in(out / 'ours' / 'model.onnx', 'Add'))}")  # fmt: skip


def quantised_in(path: Path, *kinds: str) -> set[str]:
    """Names of nodes that read a pair, of convolutions and products or of other types."""
    graph = onnx.load(path).graph
    pairs = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    kinds = kinds or ("Conv", "ConvTranspose", "Gemm", "MatMul")
    return {node.name for node in graph.node if node.op_type in kinds and not pairs.isdisjoint(node.input)}


def main() -> int:
    """Prints the figures; 0 when they are met."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/bench_tensorrt_dialect"))
    parser.add_argument("--pictures", type=int, default=10000)
    parser.add_argument("--convert", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.convert:
        convert(args.convert)
        return 0
    out = args.out.resolve()
    met, fp32, calibration = accuracy(out, args.pictures)
    losses(out / "small")
    converted = conversion(out)
    oracle(fp32, calibration, out / "oracle")
    return int(not (met and converted))


if __name__ == "__main__":
    sys.exit(main())
