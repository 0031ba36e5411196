"""TensorRT: bundles for it are made here, running them is not part of this version."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgekit.artifact import Option, TensorSpec
from edgekit.errors import EngineMissing
from edgekit.runtime.session import Session

NAME = "tensorrt"
_GPUS = (Path("/proc/driver/nvidia/gpus"), Path("/dev/nvhost-gpu"), Path("/dev/nvgpu"))


def missing() -> str | None:
    """Says why TensorRT plans cannot execute here."""
    if importlib.util.find_spec("tensorrt") is None:
        return (
            "the package tensorrt is not installed: pip install 'edgekit[tensorrt]' with NVIDIA's package index "
            "(on a Jetson it comes with JetPack)"
        )
    if not any(path.exists() for path in _GPUS):
        return "this machine has no NVIDIA GPU: copy the bundle to one that has"
    return (
        "this version of edgekit does not run TensorRT plans: build the bundle's ONNX with trtexec, or upgrade edgekit"
    )


def version() -> str:
    """The installed build."""
    return importlib.metadata.version("tensorrt")


def load(
    model: Path, options: Mapping[str, Option], inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> Session:
    """Says what is missing.

    Raises:
        EngineMissing: Always.
    """
    raise EngineMissing(f"engine {NAME!r} cannot run {model.name} here", found=missing())
