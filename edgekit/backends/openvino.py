"""OpenVINO: NNCF quantises the OpenVINO model (best placement, FakeQuantize), and the IR ships."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgekit.artifact import Artifact, Option, TensorSpec, hash_files
from edgekit.backends.calibration import calibration_batches, check_float_groups, require_float, scheme_of
from edgekit.backends.onnxruntime import VNNI_TIERS
from edgekit.backends.refusals import refusals, require_opens
from edgekit.data import Batches
from edgekit.quantization.schemes import Plan, Scheme
from edgekit.specs import Target

NAME = "openvino"
METHODS: Mapping[str, tuple[str, ...]] = {"int8": ("average", "minmax")}
CORRECTIONS: tuple[str, ...] = ("bias-correction",)


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


def refuses(plan: Plan, target: Target) -> str | None:
    """Nothing: every plan of its methods runs on every target that has the precision."""
    return None


def quantize(fp32: Artifact, data: Batches | None, plan: Plan, out: Path, cache: Path | None = None) -> Artifact:
    """Post-training quantisation with ``nncf.quantize`` on the OpenVINO model."""
    from edgekit.conversion.clean import load_onnx
    from edgekit.conversion.quiet import quiet
    from edgekit.runtime.openvino import engine_errors
    from edgekit.runtime.quiet import silence_telemetry

    scheme, batches, proto = scheme_of(plan), calibration_batches(data, fp32), load_onnx(fp32.path)
    require_float(proto, fp32.model)
    check_float_groups(plan, proto)
    silence_telemetry()
    with refusals(NAME, fp32), engine_errors("quantise the model"), quiet():
        import nncf
        from nncf.quantization.advanced_parameters import OverflowFix

        overflow = OverflowFix.ENABLE if scheme.reduce_range else OverflowFix.DISABLE
        graph = _read(fp32)
        quantised = nncf.quantize(
            graph,
            nncf.Dataset(batches),
            preset=nncf.QuantizationPreset(scheme.preset),
            target_device=nncf.TargetDevice.CPU,
            subset_size=len(batches),
            ignored_scope=nncf.IgnoredScope(names=_nodes_of_groups(graph, plan), validate=False),
            advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=overflow),
        )
        return _save(quantised, out, "int8", {}, fp32)


def compile(model: Artifact, target: Target, batch: int, out: Path) -> Artifact:
    """Fixes the batch and writes the IR (``model.xml`` and ``model.bin``)."""
    from edgekit.conversion.clean import check_batch
    from edgekit.runtime.openvino import engine_errors

    options: dict[str, Option] = {
        "device": "CPU",
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        # OpenVINO's own default is bf16 where the CPU has it: never silently.
        "INFERENCE_PRECISION_HINT": "f32",
    }
    if target.threads:
        options["INFERENCE_NUM_THREADS"] = target.threads
    check_batch(model.inputs, batch)
    with refusals(NAME, model), engine_errors("compile the model"):
        graph = _read(model)
        _fix_batch(graph, batch)
        built = _save(graph, out, model.precision, options | target.options.get("openvino", {}), model)
        require_opens(built)
    return built


def _read(model: Artifact) -> Any:
    from edgekit.runtime.external_data import check_external_data
    from edgekit.runtime.quiet import silence_telemetry

    silence_telemetry()
    import openvino

    if model.path.suffix == ".onnx":
        check_external_data(model.path)
    return openvino.Core().read_model(str(model.path))


def _nodes_of_groups(graph: Any, plan: Plan) -> list[str]:
    """Names of the OpenVINO nodes that became of the ONNX nodes left in float, e.g. ``conv1/WithoutBiases``."""
    names = [node.get_friendly_name() for node in graph.get_ordered_ops() if node.get_type_name() != "Constant"]
    return [name for name in names if any(name == g or name.startswith(f"{g}/") for g in plan.float_groups)]


def _fix_batch(graph: Any, batch: int) -> None:
    shapes = {}
    for port in graph.inputs:
        shape = port.get_partial_shape()
        if shape.rank.is_static and len(shape) and shape[0].is_dynamic:
            shape[0] = batch
        shapes[port] = shape
    graph.reshape(shapes)


def _save(graph: Any, out: Path, precision: str, options: Mapping[str, Option], parent: Artifact) -> Artifact:
    import openvino

    _strip(graph)
    out.mkdir(parents=True, exist_ok=True)
    openvino.save_model(graph, str(out / "model.xml"), compress_to_fp16=False)
    return Artifact(
        folder=out,
        model="model.xml",
        files=hash_files(out, ["model.xml", "model.bin"]),
        engine=NAME,
        precision=precision,
        inputs=_specs(graph.inputs, parent.inputs),
        outputs=_specs(graph.outputs, parent.outputs),
        options=options,
        parent=parent.sha256,
        notes=parent.notes,
    )


def _strip(graph: Any) -> None:
    """Makes the IR the same on every run and machine.

    What an ONNX file noted of itself goes (it may hold paths), and nodes without a name of their own are counted
    anew: OpenVINO names them by a counter of the whole process.
    """
    notes = graph.get_rt_info()
    if "framework" in notes.keys():  # noqa: SIM118  (the binding has no __contains__)
        del notes["framework"]
    renamed: dict[str, str] = {}
    for node in _all_nodes(graph):
        name, slash, rest = node.get_friendly_name().partition("/")
        kind = re.fullmatch(r"([A-Z]\w*)_\d+", name)
        # A folded constant keeps the name of what it was, e.g. ShapeOf_12.
        if kind and node.get_type_name() in (kind.group(1), "Constant"):
            renamed.setdefault(name, f"{kind.group(1)}_{len(renamed)}")
        if name in renamed:
            node.set_friendly_name(renamed[name] + slash + rest)


def _all_nodes(graph: Any) -> Iterator[Any]:
    for node in graph.get_ordered_ops():
        yield node
        bodies = {"If": 2, "Loop": 1, "TensorIterator": 1}.get(node.get_type_name(), 0)
        for body in range(bodies):
            yield from _all_nodes(node.get_function(body) if bodies == 2 else node.get_function())


def _specs(ports: Any, parents: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
    """Specs of a graph's ports, which keep the parent's tensor names and order."""
    return tuple(replace(parent, shape=_dims(port, parent)) for port, parent in zip(ports, parents, strict=True))


def _dims(port: Any, parent: TensorSpec) -> tuple[int | str, ...]:
    shape = port.get_partial_shape()
    if shape.rank.is_dynamic:  # the CPU device refuses it, in better words, when it is opened
        return parent.shape
    return tuple(int(dim.get_length()) if dim.is_static else f"d{axis}" for axis, dim in enumerate(shape))
