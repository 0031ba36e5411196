"""What calibration takes: peak memory of entropy ranges on 500 samples, and time of int8 against NNCF's own.

By hand: ``python tests/bench/bench_calibration.py``. ResNet-18 of torchvision at 224×224 with random weights. Every
variant runs in a fresh process, in turns; memory is its VmHWM, the samples made as they are asked for. The figures are
met when entropy on 500 samples peaks at most 1.3 × as high as min-max on 10, and when int8 with 300 samples takes at
most 1.2 × as long as ``nncf.quantize`` of the OpenVINO model with the same samples. Exits 1 when one is not.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MEMORY, TIME = 1.3, 1.2
SIZE = 224
VARIANTS = {
    "min-max, 10 samples": ("minmax", 10),
    "entropy, 500 samples": ("entropy", 500),
    "min-max, 300 samples": ("minmax", 300),
    "entropy, 300 samples": ("entropy", 300),
    "NNCF, 300 samples": ("nncf", 300),
}


def export(folder: Path) -> None:
    """Writes ``model.onnx``."""
    import torch
    import torchvision

    from edgekit.conversion.onnx_export import to_onnx

    torch.manual_seed(0)
    example = {"input": torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)).numpy()}
    to_onnx(torchvision.models.resnet18().eval(), example, folder)


def samples(count: int):  # edgekit is imported by the child alone
    """Samples that are made when asked for, so that they take no memory of their own."""
    import numpy as np

    from edgekit.data import Samples

    def fetch(indices):
        shape = (3, SIZE, SIZE)
        return {"input": np.stack([np.random.default_rng(int(i)).standard_normal(shape, np.float32) for i in indices])}

    return Samples(name="normal", count=count, fetch=fetch)


def child(method: str, count: int, folder: Path) -> None:
    """Quantises once; prints seconds and the peak of memory in MB."""
    from edgekit.backends import load_backend
    from edgekit.catalog import load_target
    from edgekit.conversion.clean import describe_onnx
    from edgekit.quantization.schemes import Plan

    data = samples(count)
    if method == "nncf":
        os.environ["NNCF_CI"] = "1"
        import nncf
        import openvino

        start = time.perf_counter()
        graph = openvino.Core().read_model(folder / "model.onnx")
        nncf.quantize(graph, nncf.Dataset(data.batches(1)), subset_size=count)
    else:
        import onnxruntime.quantization  # noqa: F401  # NNCF's import is not counted either

        backend = load_backend("onnxruntime")
        scheme = backend.scheme(load_target("x86-vnni"))
        plan = Plan(engine="onnxruntime", precision="int8", method=method, scheme=scheme)
        fp32 = describe_onnx(folder / "model.onnx", precision="fp32")
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as out:
            backend.quantize(fp32, data.batches(1), plan, Path(out))
    seconds = time.perf_counter() - start
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peak_kb = int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])
    print(f"{seconds:.2f} {peak_kb / 1024:.1f}")


def main() -> int:
    """Runs every variant in turns and prints the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--child", nargs=3)
    given = parser.parse_args()
    if given.child:
        child(given.child[0], int(given.child[1]), Path(given.child[2]))
        return 0
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in VARIANTS}
    with tempfile.TemporaryDirectory() as folder:
        export(Path(folder))
        for _ in range(given.turns):
            for name, (method, count) in VARIANTS.items():
                command = [sys.executable, __file__, "--child", method, str(count), folder]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                seconds, peak_mb = map(float, done.stdout.split()[-2:])
                found[name].append((seconds, peak_mb))
    seconds_of = {name: statistics.median(s for s, _ in rows) for name, rows in found.items()}
    peak_of = {name: max(mb for _, mb in rows) for name, rows in found.items()}
    print(f"{'variant':<24}{'seconds':>9}{'peak MB':>9}")
    for name in VARIANTS:
        print(f"{name:<24}{seconds_of[name]:>9.1f}{peak_of[name]:>9.0f}")
    memory = peak_of["entropy, 500 samples"] / peak_of["min-max, 10 samples"]
    spent = seconds_of["min-max, 300 samples"] / seconds_of["NNCF, 300 samples"]
    print(f"memory, entropy on 500 over min-max on 10: {memory:.2f} (at most {MEMORY})")
    print(f"time, min-max over NNCF on 300: {spent:.2f} (at most {TIME})")
    return 0 if memory <= MEMORY and spent <= TIME else 1


if __name__ == "__main__":
    sys.exit(main())
