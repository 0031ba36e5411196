"""Matrix products with constant weights, in the one form that ONNX Runtime's tools for them take."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import onnx
from onnx.numpy_helper import from_array, to_array

from edgekit.artifact import Artifact
from edgekit.backends.calibration import check_float_groups, require_float
from edgekit.backends.refusals import refusals
from edgekit.errors import ModelError
from edgekit.quantization.groups import name_nodes
from edgekit.quantization.schemes import Plan

NAME = "onnxruntime"
Notes = Iterable[str]


def rewrite(
    fp32: Artifact, plan: Plan, out: Path, doing: str, make: Callable[[onnx.ModelProto], tuple[onnx.ModelProto, Notes]]
) -> Artifact:
    """Prepares a float model, has it rewritten, and writes it with what was noted.

    Constants and BatchNorms are folded first, and a Gemm by constant weights becomes a MatMul of the same name.

    Args:
        fp32: The model.
        plan: What is made of it.
        out: Folder of the file.
        doing: What is being done, for an error of the engine's tools.
        make: From the prepared model to the rewritten one, and notes on what stayed in float.

    Raises:
        ModelError: The model is quantised already.
        EngineError: ONNX Runtime refuses the model.
        UnknownName: The plan names a node that there is not.
    """
    from edgekit.conversion.clean import describe_onnx, free_constants, load_onnx, save_onnx, strip_metadata
    from edgekit.conversion.quiet import quiet
    from edgekit.runtime.onnxruntime import engine_errors

    proto = load_onnx(fp32.path)
    require_float(proto, fp32.model)
    name_nodes(proto)
    check_float_groups(plan, proto)
    free_constants(proto)
    with refusals(NAME, fp32), engine_errors(doing), quiet():
        proto = _folded(proto)
        name_nodes(proto)
        gemm_to_matmul(proto)
        made, notes = make(proto)
    strip_metadata(made)
    used = {node.domain for node in made.graph.node}
    kept = [entry for entry in made.opset_import if not entry.domain or entry.domain in used]
    del made.opset_import[:]
    made.opset_import.extend(kept)
    del made.graph.value_info[:]  # the engine infers them from the inputs
    out.mkdir(parents=True, exist_ok=True)
    save_onnx(made, out / "model.onnx")
    written = describe_onnx(out / "model.onnx", precision=plan.precision, parent=fp32.sha256)
    return replace(written, inputs=fp32.inputs, outputs=fp32.outputs, notes=(*fp32.notes, *notes))


def gemm_to_matmul(proto: onnx.ModelProto) -> None:
    """Turns every Gemm by constant weights into a MatMul of the same name and an Add, in place.

    Its alpha, beta and transposition go into the constants. One whose first input is transposed stays as it is.
    """
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    nodes: list[onnx.NodeProto] = []
    made: dict[str, onnx.TensorProto] = {}
    for node in proto.graph.node:
        given = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        bias = node.input[2] if len(node.input) > 2 else ""
        scales_bias = bool(bias) and given.get("beta", 1.0) != 1.0
        fits = node.op_type == "Gemm" and not given.get("transA", 0) and node.input[1] in constants
        if not fits or (scales_bias and bias not in constants):
            nodes.append(node)
            continue
        weights = (node.input[1], given.get("transB", 0), given.get("alpha", 1.0))
        names = [_constant(made, constants, *weights)]
        if bias:
            names.append(_constant(made, constants, bias, 0, given.get("beta", 1.0)))
        nodes += _product(node, names)
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    used = {name for node in proto.graph.node for name in node.input} | {value.name for value in proto.graph.output}
    kept = [
        tensor for tensor in (*proto.graph.initializer, *made.values()) if tensor.name in used or _has_bodies(proto)
    ]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept)


def products(proto: onnx.ModelProto) -> list[onnx.NodeProto]:
    """The MatMul nodes of the main graph whose second input is a constant matrix."""
    shapes = {tensor.name: tensor.dims for tensor in proto.graph.initializer}
    return [
        node
        for node in proto.graph.node
        if node.op_type == "MatMul" and node.input[1] in shapes and len(shapes[node.input[1]]) >= 2
    ]


def left_note(names: Iterable[str], reason: str) -> list[str]:
    """A note on nodes that stayed in float; none without nodes."""
    told = ", ".join(names)
    return [f"left in float: {told} ({reason})"] if told else []


def no_products(model: str, what: str, *, kept: bool) -> ModelError:
    """The error of a model in which there is nothing to do."""
    return ModelError(
        f"{model}: no matrix product with constant weights",
        found="the plan leaves all of them in float" if kept else "no MatMul or Gemm of an activation by weights",
        allowed=what,
        fix="leave fewer nodes in float" if kept else "choose static int8, which quantises convolutions too",
    )


def _folded(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model after ONNX Runtime's own portable rewrites, but for the one that renames products."""
    from edgekit.conversion.clean import is_large, save_onnx
    from edgekit.runtime.quiet import silence_telemetry

    silence_telemetry()
    import onnxruntime as ort

    ort.set_default_logger_severity(3)  # errors; they are raised as well
    with tempfile.TemporaryDirectory() as folder:
        given, optimised = Path(folder) / "float.onnx", Path(folder) / "optimised.onnx"
        save_onnx(proto, given)
        settings = ort.SessionOptions()
        settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        settings.optimized_model_filepath = str(optimised)
        if is_large(proto):
            entry = "session.optimized_model_external_initializers_file_name"
            settings.add_session_config_entry(entry, f"{optimised.name}.data")
        off = ["MatMulAddFusion"]
        ort.InferenceSession(given, settings, providers=["CPUExecutionProvider"], disabled_optimizers=off)
        return onnx.load(optimised)


def _product(gemm: onnx.NodeProto, constants: list[str]) -> list[onnx.NodeProto]:
    output = gemm.output[0]
    inner = output if len(constants) == 1 else f"{output}/product"
    nodes = [onnx.helper.make_node("MatMul", [gemm.input[0], constants[0]], [inner], gemm.name)]
    if len(constants) == 2:
        nodes.append(onnx.helper.make_node("Add", [inner, constants[1]], [output], f"{gemm.name}/bias"))
    return nodes


def _constant(
    made: dict[str, onnx.TensorProto], constants: dict[str, onnx.TensorProto], name: str, transpose: int, factor: float
) -> str:
    """Name of a constant transposed and scaled: its own where nothing changes, or where it is no constant."""
    if not transpose and factor == 1.0:
        return name
    new = f"{name}/{'t' if transpose else ''}{'' if factor == 1.0 else factor}"
    if new not in made:
        array = to_array(constants[name])
        made[new] = from_array(((array.T if transpose else array) * array.dtype.type(factor)).copy(), new)
    return new


def _has_bodies(proto: onnx.ModelProto) -> bool:
    """Whether branches or loops may read the main graph's constants."""
    return any(attribute.HasField("g") for node in proto.graph.node for attribute in node.attribute)
