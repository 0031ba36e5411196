"""What calibration will take, told before it starts: one batch is run, the rest is arithmetic."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.artifact import Array, Artifact
from edgekit.data import Batches
from edgekit.errors import DataError
from edgekit.quantization.collect import collect, open_probe
from edgekit.quantization.ranges import NEEDS_HISTOGRAM
from edgekit.quantization.schemes import STATIC_METHODS, Plan

if TYPE_CHECKING:
    import onnx

_MB = 1e6
# Copies of the weights that are held at once: the float model, the engine's, the quantiser's, what is written.
_COPIES = 4
_SECONDS_PER_WEIGHT = 6e-8  # reading, quantising and writing weights
_FIXED_SECONDS = 1.0
_FIXED_MB = 250.0
# Walks through the samples beside the one for ranges, and what each costs of it.
_WALKS = {"smooth-quant": 0.7, "bias-correction": 2.0, "equalize": 0.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What quantising is likely to take; within a factor of two on a machine that does nothing else.

    Attributes:
        samples: Calibration samples that are walked through; 0 where the plan needs none.
        seconds: Of the whole.
        peak_mb: Most memory held at once.
    """

    samples: int
    seconds: float
    peak_mb: float

    def __str__(self) -> str:
        if not self.samples:
            return f"no samples needed, about {self.seconds:.0f} s and {self.peak_mb:.0f} MB"
        return f"{self.samples} samples, about {self.seconds:.0f} s and {self.peak_mb:.0f} MB"


def forecast(fp32: Artifact, batches: Batches | None, plan: Plan) -> Forecast:
    """Foretells time and memory of quantising a model, by running one batch of it on ONNX Runtime.

    Memory does not depend on the number of samples: one batch's activations are held at a time.

    Args:
        fp32: The float ONNX model.
        batches: Calibration samples; None where the plan needs none.
        plan: What is to be made.

    Raises:
        DataError: The plan needs samples and there are none.
    """
    import onnx

    proto = onnx.load(str(fp32.path), load_external_data=False)
    weights = _weight_bytes(fp32)
    seconds, peak_mb = _FIXED_SECONDS + weights * _SECONDS_PER_WEIGHT, _FIXED_MB + _COPIES * weights / _MB
    if not plan.needs_samples:
        return Forecast(samples=0, seconds=seconds, peak_mb=peak_mb)
    feeds = next(iter(batches), None) if batches is not None else None
    if batches is None or feeds is None:
        raise DataError(f"{plan}: no calibration samples", found="0 samples", allowed="at least 1")
    batch_seconds, held = _one_batch(fp32, proto, feeds, histograms=plan.method in NEEDS_HISTOGRAM)
    walks = (plan.method in STATIC_METHODS) + sum(_WALKS.get(name, 1.0) for name in plan.corrections)
    return Forecast(
        samples=len(batches.samples),
        seconds=seconds + walks * len(batches) * batch_seconds,
        peak_mb=peak_mb + held / _MB,
    )


def _one_batch(
    fp32: Artifact, proto: onnx.ModelProto, feeds: Mapping[str, Array], *, histograms: bool
) -> tuple[float, float]:
    """Seconds that a batch takes with all it is looked at for, and bytes of activations held."""
    from edgekit.runtime.onnxruntime import engine_errors
    from edgekit.runtime.quiet import silence_telemetry

    silence_telemetry()
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)  # errors; they are raised as well
    names = [name for node in proto.graph.node for name in node.output if name and node.op_type != "Constant"]
    with tempfile.TemporaryDirectory() as folder, engine_errors("run a calibration batch"):
        model = _beside(fp32, Path(folder))
        probe = open_probe(model, names)
        held = sum(values.nbytes for values in probe.run(feeds).values())  # the first run warms up, too
        start = time.perf_counter()
        collect(probe, [feeds], histograms=histograms)
        return time.perf_counter() - start, float(held)


def _beside(fp32: Artifact, folder: Path) -> Path:
    """The model's files in a folder of our own, as inner tensors are asked for beside the model.

    Links to them, which cost nothing, where both lie on one disk; ONNX Runtime refuses symbolic ones.
    """
    for name in fp32.files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(fp32.folder / name, folder / name)
        except OSError:
            shutil.copyfile(fp32.folder / name, folder / name)
    return folder / fp32.model


def _weight_bytes(fp32: Artifact) -> int:
    return sum((fp32.folder / name).stat().st_size for name in fp32.files)
