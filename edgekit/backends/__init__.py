"""Engines as they prepare a model on the workstation: one module an engine."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, cast

from edgekit.artifact import Artifact
from edgekit.data import Batches
from edgekit.errors import UnknownName
from edgekit.quantization.schemes import Plan, Scheme
from edgekit.specs import Target

BACKENDS = {
    "onnxruntime": "edgekit.backends.onnxruntime",
    "openvino": "edgekit.backends.openvino",
    "tensorrt": "edgekit.backends.tensorrt",
    "null": "edgekit.backends.null",
}


class Backend(Protocol):
    """What every engine's module offers to prepare a model; modules satisfy it, no classes needed."""

    METHODS: Mapping[str, tuple[str, ...]]
    """Precisions it makes beside fp32, each with its methods; none where there is but one way."""
    SCHEMED: tuple[str, ...]
    """Of those, the ones that are made by the engine's scheme."""
    CORRECTIONS: tuple[str, ...]
    """Corrections of static int8 that it knows."""

    TRAINED: tuple[str, ...]
    """Methods of int8 that end a training (:data:`edgekit.quantization.schemes.TRAINED_METHODS`) and that it takes."""

    def missing(self, target: Target) -> str | None:
        """Why it cannot *prepare* for ``target`` here, with the command that mends it; None when it can."""
        ...

    def scheme(self, target: Target) -> Scheme:
        """The engine's int8 dialect on ``target``.

        Raises:
            EngineError: The engine has no int8 on this target.
        """
        ...

    def refuses(self, plan: Plan, target: Target) -> str | None:
        """Why it cannot make a plan of its methods for ``target``; None when it can."""
        ...

    def quantize(
        self, fp32: Artifact, data: Batches | None, plan: Plan, out: Path, cache: Path | None = None
    ) -> Artifact:
        """Turns an fp32 ONNX artifact into a plan's precision in the engine's own dialect, into ``out``.

        Args:
            fp32: The model.
            data: Calibration samples; only static int8 and what corrects by samples need them.
            plan: What is made; its method is one of :attr:`METHODS`.
            out: Folder of what is made.
            cache: Folder for what depends on model and samples alone and serves the next plan too.

        Returns:
            The artifact; its notes name compute nodes that stayed in float, and why.

        Raises:
            DataError: There are no calibration samples, or they do not fit the model or are not finite.
            ModelError: The model is quantised already, or too old to be.
            EngineError: The engine refuses the model, or has no int8; names an engine that takes it.
            UnknownName: The plan names a node that there is not.
        """
        ...

    def compile(self, model: Artifact, target: Target, batch: int, out: Path) -> Artifact:
        """Turns a model into what the engine loads: fixed batch, engine options of the target, into ``out``.

        The engine opens it once, so that a refusal is told here.

        Raises:
            ModelError: The model's batch is fixed to something else.
            EngineError: The engine refuses the model; names an engine that takes it.
        """
        ...


def load_backend(engine: str) -> Backend:
    """The backend module of an engine.

    Raises:
        UnknownName: There is no such engine.
    """
    if engine not in BACKENDS:
        raise UnknownName("engine", engine, [name for name in BACKENDS if name != "null"])
    return cast(Backend, importlib.import_module(BACKENDS[engine]))
