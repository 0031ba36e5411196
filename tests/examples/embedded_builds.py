"""The C++ program of examples/embedded_cpp, built once a session, and bundles for it."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.parser import parse_model
from tiny_models import HEAD, MODELS, onnx_specs
from tiny_recipe import edgekit

from edgekit.artifact import (
    GOLDEN_FILE,
    MANIFEST_FILE,
    Artifact,
    Golden,
    hash_file,
    hash_files,
    hash_json,
    read_json,
    write_json,
)
from edgekit.bundle import BundleFacts, GoldenSet, write_bundle
from edgekit.processing_specs import Preprocessing
from edgekit.quantization.schemes import Plan
from edgekit.runtime import engine_version, open_artifact
from edgekit.runtime.cpu import cpu_model
from edgekit.runtime.numbers import run_batched

SOURCE = Path(__file__).parents[2] / "examples" / "embedded_cpp"
SANITIZERS = "-fsanitize=address,undefined -fno-sanitize-recover=all"
ENGINES = ("onnxruntime", "openvino")


@dataclass(frozen=True, slots=True)
class Program:
    """A built program."""

    path: Path

    def __call__(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Runs it with the wheel's ONNX Runtime."""
        command = [str(self.path), *map(str, arguments)]
        environment = {**os.environ, "EDGEKIT_ONNXRUNTIME": str(onnxruntime_library())}
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=120)

    def verified(self, bundle: Path) -> dict[str, Any]:
        """What it finds of a bundle's golden samples."""
        ended = self("verify", bundle, "--json")
        assert ended.returncode in (0, 3), ended.stderr
        found: dict[str, Any] = json.loads(ended.stdout)
        return found


def build(folder: Path, *options: str) -> Path:
    """Builds the program with CMake; its sources are left as they are."""
    for command in (["cmake", "-S", str(SOURCE), "-B", str(folder), *options], ["cmake", "--build", str(folder)]):
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stdout + ended.stderr
    return folder / "edgekit_embedded"


def need(*tools: str) -> None:
    """Skips a test where a program is not installed."""
    for tool in tools:
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool}: apt-get install cmake g++ (g++-aarch64-linux-gnu for the cross build)")


def onnxruntime_library() -> Path:
    """The shared library in the wheel."""
    found = importlib.util.find_spec("onnxruntime")
    assert found is not None
    assert found.origin is not None
    return next((Path(found.origin).parent / "capi").glob("libonnxruntime.so.*"))


def openvino_cmake() -> str:
    """The wheel's own cmake files, as an option of CMake."""
    from openvino.utils import get_cmake_path

    return f"-DOpenVINO_DIR={get_cmake_path()}"


def exported(folder: Path, engine: str, precision: str) -> Path:
    """A bundle that ``edgekit export`` makes of five convolutions."""
    rng = np.random.default_rng(0)
    onnx.save(parse_model(HEAD.format(domain="") + MODELS["five_convs"]), folder / "five.onnx")
    for name in ("calibration", "test"):
        np.savez(folder / f"{name}.npz", input=rng.normal(size=(32, 3, 16, 16)).astype(np.float32))
    out = folder / f"{engine}-{precision}"
    data = ("--calibration", folder / "calibration.npz", "--test", folder / "test.npz")
    for_it = ("--target", "raspberry-pi-4", "--engine", engine, "--precision", precision)
    made = edgekit("export", folder / "five.onnx", *for_it, *data, "--out", out)
    assert made.exit_code == 4, made.output  # nothing is measured: this host is no Raspberry Pi
    return out


def written(
    folder: Path,
    model: str = "conv",
    engine: str = "onnxruntime",
    preprocessing: Preprocessing | None = None,
    **options: Any,
) -> Path:
    """A bundle of a tiny model, or of ONNX text, with golden samples of random numbers."""
    proto = parse_model(HEAD.format(domain="") + MODELS.get(model, model))
    made = folder.with_name(f"{folder.name}-artifact")
    made.mkdir(parents=True)
    onnx.save(proto, made / "model.onnx")
    artifact = Artifact(
        folder=made,
        model="model.onnx",
        files=hash_files(made, ["model.onnx"]),
        engine=engine,
        precision="fp32",
        inputs=onnx_specs(proto.graph.input),
        outputs=onnx_specs(proto.graph.output),
        options=options,
    )
    rng = np.random.default_rng(0)
    inputs = {s.name: (rng.normal(size=(6, *s.shape[1:])) * 3).astype(s.dtype) for s in artifact.inputs}
    session = open_artifact(artifact)
    outputs = run_batched(session, inputs)
    session.close()
    arrays = {f"input/{name}": array for name, array in inputs.items()}
    for name, array in outputs.items():
        arrays |= {f"reference/{name}": array, f"artifact/{name}": array}
    golden = Golden(
        samples=6,
        random=True,
        reference_db=300.0,
        floor_db=90.0,
        engine_version=engine_version(engine),
        cpu_model=cpu_model(),
    )
    write_bundle(artifact, GoldenSet(arrays=arrays, golden=golden), facts(engine, preprocessing), folder)
    return folder


def facts(engine: str, preprocessing: Preprocessing | None) -> BundleFacts:
    """What a manifest says beside the artifact; numbers and words that JSON writes in more than one way."""
    numbers = [0.1, -0.0, 1e16, 9999999999999998.0, 1e-4, 1e-5, 5e-324, 1.7976931348623157e308, 1 / 3, 123456.0]
    return BundleFacts(
        name='Zoë\'s "net" \u2192 \U0001f600\x7f\t',
        target="local",
        plan=Plan(engine=engine, precision="fp32"),
        batch=1,
        preprocessing=preprocessing,
        labels=("größer", "b/c"),
        parents=(),
        accuracy={"numbers": numbers, "none": None, "flag": True, "Ünder": {}},
        timings={"p50_ms": numbers, "deep": [[[]]]},
    )


def change(bundle: Path, **changes: Any) -> None:
    """Rewrites a manifest as if it had been made so: its id fits, whatever it holds."""
    raw = read_json(bundle / MANIFEST_FILE) | changes
    ours = {key: value for key, value in raw.items() if key not in ("timings", "timings_sha256", "id")}
    ours = {key: value for key, value in ours.items() if value is not None or key == "preprocessing"}
    write_json(bundle / MANIFEST_FILE, raw | {"id": hash_json(ours)})


def change_golden(bundle: Path, save: Any, **changed: Any) -> None:
    """Rewrites golden.npz with ``np.savez`` or ``np.savez_compressed``, and the manifest so that it fits."""
    with np.load(bundle / GOLDEN_FILE) as arrays:
        kept = dict(arrays)
    save(bundle / GOLDEN_FILE, **kept | changed)
    rehash(bundle, GOLDEN_FILE)


def rehash(bundle: Path, name: str) -> None:
    """Makes the manifest fit a file that was changed."""
    files = read_json(bundle / MANIFEST_FILE)["files"]
    change(bundle, files=files | {name: hash_file(bundle / name)})
