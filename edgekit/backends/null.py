"""The fake engine's backend: copies the model, so that everything above it can be tested without an engine."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from edgekit.artifact import Artifact, TensorSpec
from edgekit.data import Batches
from edgekit.quantization.schemes import STATIC_METHODS, TRAINED_METHODS, Plan, Scheme
from edgekit.specs import Target


def missing(target: Target) -> str | None:
    """Nothing is ever missing."""
    return None


METHODS: Mapping[str, tuple[str, ...]] = {"int8": STATIC_METHODS}
CORRECTIONS: tuple[str, ...] = ()
SCHEMED: tuple[str, ...] = ("int8",)
TRAINED: tuple[str, ...] = TRAINED_METHODS


def scheme(target: Target) -> Scheme:
    """A scheme by name only."""
    return Scheme(name="null", activation_signed=True, activation_symmetric=True)


def refuses(plan: Plan, target: Target) -> str | None:
    """Nothing."""
    return None


def quantize(fp32: Artifact, data: Batches | None, plan: Plan, out: Path, cache: Path | None = None) -> Artifact:
    """Reads every batch, then copies the model."""
    for _ in data or ():
        pass
    return replace(_copy(fp32, out), precision=plan.precision, parent=fp32.sha256)


def compile(model: Artifact, target: Target, batch: int, out: Path) -> Artifact:
    """Copies the model and fixes the batch of its specs."""
    from edgekit.conversion.clean import check_batch

    check_batch(model.inputs, batch)
    copied = _copy(model, out)
    options = dict(target.options.get("null", {})) | {"precision": model.precision}  # type: ignore[call-overload]
    return replace(
        copied,
        engine="null",
        options=options,
        inputs=_fixed(model.inputs, batch),
        outputs=_fixed(model.outputs, batch),
        parent=model.sha256,
    )


def _copy(model: Artifact, out: Path) -> Artifact:
    out.mkdir(parents=True, exist_ok=True)
    for name in model.files:
        shutil.copyfile(model.folder / name, out / name)
    return replace(model, folder=out)


def _fixed(specs: tuple[TensorSpec, ...], batch: int) -> tuple[TensorSpec, ...]:
    return tuple(
        replace(spec, shape=(batch, *spec.shape[1:])) if spec.shape and isinstance(spec.shape[0], str) else spec
        for spec in specs
    )
