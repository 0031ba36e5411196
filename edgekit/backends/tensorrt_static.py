"""Static int8 and fp8 for TensorRT: symmetric Q/DQ pairs where TensorRT wants them, on ranges that other engines share.

What a pair may be (NvInfer.h, ``IQuantizeLayer``; onnx-tensorrt, ``importerUtils``): int8 or fp8 with a zero point
that is written and zero, a positive scale, one a tensor for activations and one a channel for constant weights, and a
float bias.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx

from edgekit.artifact import Array, Artifact
from edgekit.backends.calibration import (
    CalibrationBatches,
    calibration_batches,
    check_float_groups,
    require_float,
    scheme_of,
)
from edgekit.backends.refusals import refusals
from edgekit.backends.static import OPTIMISED, move_ranges, opset_of, optimised, statistics_of, unfit_of, with_opset
from edgekit.backends.tensorrt_fp16 import overflowing, to_fp16
from edgekit.backends.tensorrt_pairs import quantise_activation, quantise_weights, scale_of
from edgekit.backends.tensorrt_placing import Placing, activations, place
from edgekit.conversion.clean import describe_onnx, load_onnx, save_onnx, strip_metadata
from edgekit.conversion.quiet import quiet
from edgekit.data import Batches
from edgekit.errors import ModelError
from edgekit.quantization.bias_correction import correct_biases
from edgekit.quantization.collect import open_probe
from edgekit.quantization.groups import name_nodes
from edgekit.quantization.ranges import range_of, symmetric
from edgekit.quantization.schemes import Plan, Scheme
from edgekit.runtime.onnxruntime import engine_errors
from edgekit.runtime.quiet import silence_telemetry

NAME = "tensorrt"
# QuantizeLinear takes fp16 from 19 on; TensorRT 10.0 reads up to 20, and 11 up to 25.
LEAST_OPSET, MOST_OPSET = 19, 20
_LEAST_IR = 9  # of opset 19


def quantize(fp32: Artifact, data: Batches | None, plan: Plan, out: Path, cache: Path | None = None) -> Artifact:
    """Post-training static quantisation; arguments as of the backend's own ``quantize``.

    Returns:
        An ONNX artifact with Q/DQ; its notes name the compute nodes that stayed in float, and why.

    Raises:
        ModelError: The model's opset does not fit TensorRT, or nothing in it is worth the precision.
    """
    silence_telemetry()
    scheme, batches = scheme_of(plan), calibration_batches(data, fp32)
    proto = prepared(fp32, plan)
    with (
        tempfile.TemporaryDirectory() as name,
        refusals(NAME, fp32),
        engine_errors("quantise the model"),
        quiet(),
    ):
        folder = Path(name)
        # A product and the addition behind it stay two nodes: TensorRT fuses them, and reads products of many axes.
        graph = optimised(proto, folder, off=["MatMulAddFusion"], apart=True)
        onnx.save(graph, str(folder / OPTIMISED))
        del proto, graph
        made, placing = _quantised(folder / OPTIMISED, scheme, plan, batches, cache)
        if not placing.nodes and not plan.float_groups:
            raise _nothing(fp32, placing, plan.precision)
        notes = _notes(placing)
        if scheme.float_type == "fp16":
            in_float = overflowing(folder / OPTIMISED, batches)
            notes = (*notes, *to_fp16(made, folder, in_float))
        return written(made, folder, fp32, plan.precision, out, notes)


def prepared(fp32: Artifact, plan: Plan, least: int = LEAST_OPSET, most: int = MOST_OPSET) -> onnx.ModelProto:
    """A float model in an opset of TensorRT's, with every node named.

    Raises:
        ModelError: It is quantised already, older and cannot be moved up, or newer than TensorRT reads.
        UnknownName: The plan names a node that there is not.
    """
    proto = load_onnx(fp32.path)
    require_float(proto, fp32.model)
    check_float_groups(plan, proto)
    name_nodes(proto)
    proto = with_opset(proto, least, fp32.model, "scales in fp16")
    if opset_of(proto) > most:
        raise ModelError(
            f"{fp32.model}: opset {opset_of(proto)} is newer than every TensorRT 10 reads",
            found=f"opset {opset_of(proto)}",
            allowed=f"opset {most} or older",
            fix=f"export the model at opset {most}",
        )
    return proto


def _quantised(
    model: Path, scheme: Scheme, plan: Plan, batches: CalibrationBatches, cache: Path | None
) -> tuple[onnx.ModelProto, Placing]:
    in_float = dict.fromkeys(plan.float_groups, "as the plan says") | move_ranges(model, plan, batches)
    given = onnx.load(model, load_external_data=bool(plan.corrections))
    names = activations(given, scheme.operators)
    statistics, dtypes = statistics_of(model, plan.method, batches, names, cache, light=True)
    half = scheme.float_type == "fp16"
    unfit = unfit_of(statistics)
    shapes = {name: shape for name, shape in _shapes(model, names, batches).items() if dtypes.get(name) == "float32"}
    placing = place(given, scheme.operators, in_float, unfit, shapes, plan.precision, per_channel=scheme.per_channel)
    ranges = {name: range_of(symmetric(one), str(plan.method)) for name, one in statistics.items()}
    scales = {
        name: scale_of(np.float32(max(-low, high)), plan.precision, half=half) for name, (low, high) in ranges.items()
    }
    if "bias-correction" in plan.corrections:
        trial = onnx.ModelProto()
        trial.CopyFrom(given)
        with_pairs(trial, placing, scales, model.parent, plan.precision, half=half)
        correct_biases(given, trial, batches, model.parent)
    with_pairs(given, placing, scales, model.parent, plan.precision, half=half)
    return given, placing


def _shapes(model: Path, names: list[str], batches: CalibrationBatches) -> dict[str, tuple[int, ...]]:
    """Shapes of activations of one sample, as they come; a batch that is fixed counts as it is."""
    first = next(iter(batches))
    open_ = {spec.name for spec in batches.inputs if spec.shape and not isinstance(spec.shape[0], int)}
    one = {name: array[:1] if name in open_ else array for name, array in first.items()}
    return {name: values.shape for name, values in open_probe(model, names, light=True).run(one).items()}


def with_pairs(
    proto: onnx.ModelProto, placing: Placing, scales: Mapping[str, Array], folder: Path, kind: str, *, half: bool
) -> None:
    """Puts Q/DQ pairs before the activations, and DQ before the weights, in place; nodes stay in order.

    Args:
        proto: The float model.
        placing: What is quantised.
        scales: Of activations.
        folder: Where the model's external data lies.
        kind: ``int8`` or ``fp8``.
        half: Scales of weights are numbers of fp16.
    """
    weights = quantise_weights(proto, placing.nodes, folder, kind=kind, half=half)
    pairs: dict[str, str] = {}
    nodes: list[onnx.NodeProto] = []
    for node in proto.graph.node:
        nodes += weights.pop(node.name, [])
        at = 0 if node.name in placing.nodes else placing.skips.get(node.name)
        if at is not None:
            name = node.input[at]
            if name not in pairs:
                made = quantise_activation(proto, name, scales[name], kind)
                pairs[name] = made[-1].output[0]
                nodes += made
            node.input[at] = pairs[name]
        nodes.append(node)
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)


def written(
    proto: onnx.ModelProto, folder: Path, fp32: Artifact, precision: str, out: Path, notes: Sequence[str]
) -> Artifact:
    """Writes what was made of a float model, without metadata and operator sets that nothing is of.

    Args:
        proto: What was made; weights that it does not hold lie in the folder.
        folder: See there.
        fp32: The float model.
        precision: What was made.
        out: Folder of the file.
        notes: What was decided on the way.
    """
    onnx.load_external_data_for_model(proto, str(folder))
    strip_metadata(proto)
    used = {node.domain for node in proto.graph.node}
    kept = [entry for entry in proto.opset_import if not entry.domain or entry.domain in used]
    del proto.opset_import[:]
    proto.opset_import.extend(kept)
    proto.ir_version = max(proto.ir_version, _LEAST_IR)
    del proto.graph.value_info[:]
    out.mkdir(parents=True, exist_ok=True)
    save_onnx(proto, out / "model.onnx")
    described = describe_onnx(out / "model.onnx", precision=precision, parent=fp32.sha256)
    return replace(described, inputs=fp32.inputs, outputs=fp32.outputs, notes=(*fp32.notes, *notes))


def _notes(placing: Placing) -> tuple[str, ...]:
    """One line a reason: which compute nodes stayed in float for it."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in placing.reasons.items():
        by_reason.setdefault(reason, []).append(name)
    return tuple(f"left in float: {', '.join(names)} ({reason})" for reason, names in by_reason.items())


def _nothing(fp32: Artifact, placing: Placing, precision: str) -> ModelError:
    return ModelError(
        f"{fp32.model}: nothing in it is worth {precision} on TensorRT",
        found="; ".join(_notes(placing)) or "no convolution and no matrix product",
        allowed="a convolution of 16 channels or more in and out, or a product of matrices by constant weights",
        fix="use --precision fp16 for this target",
    )
