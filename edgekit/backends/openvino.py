"""OpenVINO: NNCF quantises the OpenVINO model (best placement, FakeQuantize), and the IR ships."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgekit.artifact import Artifact, Option, TensorSpec, hash_files
from edgekit.backends.onnxruntime import VNNI_TIERS
from edgekit.data import Batches
from edgekit.quantization.schemes import Plan, Scheme
from edgekit.specs import Target


def missing(target: Target) -> str | None:
    """Why it cannot prepare here."""
    for module in ("openvino", "nncf", "onnx"):
        if importlib.util.find_spec(module) is None:
            return f"{module} is not installed: pip install 'edgekit[compress]'"
    return None


def scheme(target: Target) -> Scheme:
    """NNCF's PERFORMANCE preset (symmetric); half the weight range on x86 without VNNI (overflow fix)."""
    reduce = target.arch != "aarch64" and target.isa not in VNNI_TIERS
    return Scheme(
        name="nncf-performance" + ("-7bit" if reduce else ""),
        activation_signed=False,
        activation_symmetric=True,
        quantize_bias=False,
        reduce_range=reduce,
        preset="performance",
    )


def quantize(fp32: Artifact, data: Batches, plan: Plan, out: Path) -> Artifact:
    """Post-training quantisation with ``nncf.quantize`` on the OpenVINO model."""
    from edgekit.runtime.openvino import engine_errors
    from edgekit.runtime.quiet import silence_telemetry

    silence_telemetry()
    # NNCF imports torch's extension builder, which warns of a CUDA compiler without a GPU.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    import nncf
    import openvino as ov
    from nncf.quantization.advanced_parameters import OverflowFix

    nncf.set_log_level(logging.ERROR)
    scheme = plan.scheme
    overflow = OverflowFix.ENABLE if scheme and scheme.reduce_range else OverflowFix.DISABLE
    out.mkdir(parents=True, exist_ok=True)
    # NNCF draws its progress bars on stdout; ours is shown by the caller.
    with engine_errors("quantise the model"), contextlib.redirect_stdout(io.StringIO()):
        model = ov.Core().read_model(str(fp32.path))
        quantised = nncf.quantize(
            model,
            nncf.Dataset(data),
            preset=nncf.QuantizationPreset((scheme.preset if scheme else None) or "performance"),
            target_device=nncf.TargetDevice.CPU,
            subset_size=len(data),
            ignored_scope=nncf.IgnoredScope(names=list(plan.float_groups), validate=False),
            advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=overflow),
        )
        return _save(quantised, out, "openvino", "int8", {}, fp32)


def compile(model: Artifact, target: Target, batch: int, out: Path) -> Artifact:
    """Fixes the batch and writes the IR (``model.xml`` and ``model.bin``)."""
    from edgekit.runtime.openvino import engine_errors
    from edgekit.runtime.quiet import silence_telemetry

    silence_telemetry()
    import openvino as ov

    options: dict[str, Option] = {
        "device": "CPU",
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        # OpenVINO's own default is bf16 where the CPU has it: never silently.
        "INFERENCE_PRECISION_HINT": "f32",
    }
    if target.threads:
        options["INFERENCE_NUM_THREADS"] = target.threads
    out.mkdir(parents=True, exist_ok=True)
    with engine_errors("compile the model"):
        graph = ov.Core().read_model(str(model.path))
        shapes = {}
        for port in graph.inputs:
            shape = port.get_partial_shape()
            if shape.rank.is_static and len(shape) and shape[0].is_dynamic:
                shape[0] = ov.Dimension(batch)
            shapes[port] = shape
        graph.reshape(shapes)
        return _save(graph, out, "openvino", model.precision, options | target.options.get("openvino", {}), model)


def _save(
    graph: Any, out: Path, engine: str, precision: str, options: Mapping[str, Option], parent: Artifact
) -> Artifact:
    import openvino as ov

    ov.save_model(graph, str(out / "model.xml"), compress_to_fp16=False)
    return Artifact(
        folder=out,
        model="model.xml",
        files=hash_files(out, ["model.xml", "model.bin"]),
        engine=engine,
        precision=precision,
        inputs=_named(graph.inputs, parent.inputs),
        outputs=_named(graph.outputs, parent.outputs),
        options=options,
        parent=parent.sha256,
        notes=parent.notes,
    )


def _named(ports: Any, parents: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
    """Specs of a graph's ports under the parent's tensor names, in the graph's order."""
    specs = []
    for port, parent in zip(ports, parents, strict=True):
        dims = [int(d.get_length()) if d.is_static else f"d{i}" for i, d in enumerate(port.get_partial_shape())]
        names = port.get_names()
        name = parent.name if parent.name in names or not names else sorted(names)[0]
        specs.append(TensorSpec(name=name, dtype=parent.dtype, shape=tuple(dims)))
    return tuple(specs)
