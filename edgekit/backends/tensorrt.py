"""TensorRT: fp32 ONNX and build settings; the device builds its own plan from them.

A TensorRT plan is tied to one TensorRT version, GPU architecture and operating system, so it is never
made on the workstation.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from edgekit.artifact import Artifact, Option
from edgekit.data import Batches
from edgekit.errors import EngineError
from edgekit.quantization.schemes import Plan, Scheme
from edgekit.specs import Target


def missing(target: Target) -> str | None:
    """Why it cannot prepare here: writing ONNX needs no NVIDIA software."""
    if importlib.util.find_spec("onnx") is None:
        return "onnx is not installed: pip install 'edgekit[compress]'"
    return None


METHODS: Mapping[str, tuple[str, ...]] = {}
CORRECTIONS: tuple[str, ...] = ()
TRAINED: tuple[str, ...] = ()


def scheme(target: Target) -> Scheme:
    """There is no int8 dialect for TensorRT in this version."""
    raise _no_int8()


def refuses(plan: Plan, target: Target) -> str | None:
    """Nothing: it has no methods yet."""
    return None


def quantize(fp32: Artifact, data: Batches | None, plan: Plan, out: Path, cache: Path | None = None) -> Artifact:
    """Refuses: there is no int8 dialect for TensorRT in this version."""
    raise _no_int8()


def compile(model: Artifact, target: Target, batch: int, out: Path) -> Artifact:
    """Writes the ONNX with a fixed batch, and the build settings as options.

    Raises:
        EngineError: The model is not in fp32.
        ModelError: Its batch is fixed to something else.
    """
    from edgekit.conversion.clean import with_fixed_batch

    if model.precision != "fp32":
        raise _no_int8()
    written = with_fixed_batch(model, batch, out)
    # A quarter of a shared memory is what NVIDIA's own tools leave to the workspace on Jetson.
    options: dict[str, Option] = {"precision": model.precision, "optimization_level": 3}
    if target.memory_mb:
        options["workspace_mb"] = target.memory_mb // 4
    return replace(written, engine="tensorrt", options=options | target.options.get("tensorrt", {}))


def _no_int8() -> EngineError:
    return EngineError(
        "int8 for TensorRT is not part of this version",
        found="precision int8 on engine tensorrt",
        allowed="fp32 (TensorRT picks its own kernels from the fp32 ONNX)",
        fix="use --precision fp32 for this target",
    )
