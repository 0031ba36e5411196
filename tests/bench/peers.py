"""The peers of the quantisation bench, made by their own interfaces from the same ONNX file and calibration samples.

NNCF on OpenVINO: its defaults, and the best known settings: ``model_type=TRANSFORMER`` for a transformer, the mixed
preset for a network with other activations than ReLU. ONNX Runtime: ``quantize_static`` by its defaults, and by the
best known ones on x86 with VNNI (the model preprocessed as its documentation says, unsigned activations, signed
weights per channel); ``quantize_dynamic`` by its defaults, and per channel. What they give is compiled as ours is:
batch 1, the target's threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.artifact import Artifact, load_artifact, save_artifact
from edgekit.backends import load_backend
from edgekit.candidate import Task
from edgekit.disk import PARTIAL

Make = Callable[[Artifact, list[dict[str, np.ndarray]], Path], Artifact]


def peers_of(engine: str, transformer: bool) -> dict[str, Make]:
    """The peers on an engine, by name."""
    if engine == "openvino":
        best = {"model_type": "TRANSFORMER"} if transformer else {"preset": "MIXED"}
        return {"NNCF": _nncf({}), f"NNCF {next(iter(best.values())).lower()}": _nncf(best)}
    return {
        "ORT static": _static({}),
        "ORT static u8s8": _static({"per_channel": True}),
        "ORT dynamic": _dynamic({}),
        "ORT dynamic per channel": _dynamic({"per_channel": True}),
    }


def make_peer(name: str, make: Make, fp32: Artifact, task: Task, engine: str, folder: Path) -> Artifact:
    """A peer's artifact, compiled for the target; kept in the folder."""
    final = folder / engine / name.replace(" ", "-")
    if final.exists():
        return load_artifact(final)
    assert task.calibration is not None
    samples = list(task.calibration.batches(1))
    partial = final.with_name(PARTIAL + final.name)
    (partial / "raw").mkdir(parents=True, exist_ok=True)
    raw = make(fp32, samples, partial / "raw")
    built = load_backend(engine).compile(raw, task.target, 1, partial)
    # What we found out about the engine is ours.
    own = {name: value for name, value in built.options.items() if not name.startswith("optimization.")}
    save_artifact(replace(built, options=own))
    partial.rename(final)
    return load_artifact(final)


def _nncf(settings: dict[str, str]) -> Make:
    def make(fp32: Artifact, samples: list[dict[str, np.ndarray]], out: Path) -> Artifact:
        import nncf
        import openvino

        from edgekit.backends.openvino_ir import save_graph

        model = openvino.convert_model(str(fp32.path))
        chosen: dict[str, Any] = {}
        if "model_type" in settings:
            chosen["model_type"] = getattr(nncf.ModelType, settings["model_type"])
        if "preset" in settings:
            chosen["preset"] = getattr(nncf.QuantizationPreset, settings["preset"])
        found = nncf.quantize(model, nncf.Dataset(samples), **chosen)
        return save_graph(found, out, "int8", {}, fp32)

    return make


class _Reader:
    """What ONNX Runtime's quantiser draws samples from."""

    def __init__(self, samples: list[dict[str, np.ndarray]]) -> None:
        self.samples: Iterator[dict[str, np.ndarray]] = iter(samples)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.samples, None)


def _static(settings: dict[str, bool]) -> Make:
    def make(fp32: Artifact, samples: list[dict[str, np.ndarray]], out: Path) -> Artifact:
        from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process

        from edgekit.conversion.clean import describe_onnx

        CalibrationDataReader.register(_Reader)
        source = fp32.path
        best = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8, **settings} if settings else {}
        if settings:
            source = out / "prepared.onnx"
            quant_pre_process(str(fp32.path), str(source), skip_symbolic_shape=True)
        quantize_static(str(source), str(out / "model.onnx"), _Reader(samples), **best)
        return describe_onnx(out / "model.onnx", precision="int8")

    return make


def _dynamic(settings: dict[str, bool]) -> Make:
    def make(fp32: Artifact, samples: list[dict[str, np.ndarray]], out: Path) -> Artifact:
        from onnxruntime.quantization import quantize_dynamic

        from edgekit.conversion.clean import describe_onnx

        quantize_dynamic(str(fp32.path), str(out / "model.onnx"), **settings)
        return describe_onnx(out / "model.onnx", precision="int8")

    return make
