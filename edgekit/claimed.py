"""What an artifact's precision claims, set against what the engine's own record says that it ran."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from edgekit.artifact import Artifact
from edgekit.backends.onnxruntime import COMPUTE
from edgekit.errors import EngineError
from edgekit.quantization.codebooks import codebooks_in
from edgekit.runtime.placement import PlacedNode, Placement

if TYPE_CHECKING:
    import onnx

_COMPUTED = ("int8", "fp8", "fp16", "bf16")
_WEIGHTS = {"w8": "int8", "w4": "int4"}
_FIXES = {
    "int8": "choose another engine or [quantization.scheme], or another precision: this one gains nothing here",
    "fp16": "this engine runs fp16 models in another type here: use --precision fp32 or int8",
    "bf16": "this engine has no bf16 kernels on this machine: use --precision fp32 or int8",
    "fp8": "this GPU or this TensorRT has no fp8 kernels for the model: use --precision int8 or fp16",
    "w8": "this engine unpacks the weights when it opens the model: use another precision, or another engine",
    "w4": "this engine unpacks the weights when it opens the model: use another precision, or another engine",
}
_ACTIVATIONS = frozenset({"Relu", "Clip", "LeakyRelu", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "PRelu"})
_SHOWN = 5
_MOVING = frozenset({"Reshape", "Transpose", "Squeeze", "Unsqueeze", "MaxPool", "Gather"})  # Gather decodes 4 bits
_SCALING = frozenset({"Convert", "Subtract", "Multiply"})
_OPENVINO_COMPUTE = frozenset(
    {"Convolution", "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData", "MatMul"}
)


def require_precision(artifact: Artifact, placement: Placement) -> None:
    """Refuses an artifact that the engine did not run in the precision that its plan says.

    Raises:
        EngineError: No convolution or matrix product ran in it; of the nodes that are int8 in the file, those that ran
            in float do more multiply-accumulates than those that did not; for w8 and w4, no weights are held that
            small, nor stored in codebooks.
    """
    wanted = artifact.precision
    if wanted in _COMPUTED:
        if placement.share(wanted):
            _require_most(artifact, placement)
            return
        problem, allowed = f"ran no convolution or matrix product in {wanted}", f"one at least in {wanted}"
    elif wanted in _WEIGHTS:
        if any(node.weights == _WEIGHTS[wanted] for node in placement.nodes) or codebooks_in(artifact):
            return  # codebooks claim a small file, and are decoded when it is opened
        problem, allowed = f"holds no weights in {_WEIGHTS[wanted]}", f"{_WEIGHTS[wanted]} weights of a matrix product"
    else:
        return
    ran = Counter((node.op, node.precision) for node in placement.nodes if node.compute)
    found = ", ".join(f"{count} {op} in {precision}" for (op, precision), count in ran.most_common())
    raise EngineError(
        f"{artifact.engine} {problem}, although the model is {wanted}",
        found=found or "a model without convolutions and matrix products",
        allowed=allowed,
        fix=_FIXES[wanted],
    )


def _require_most(artifact: Artifact, placement: Placement) -> None:
    fallen = _fallen(artifact, placement)
    float_work = sum(node.macs or 1 for node, _ in fallen)
    int8_work = sum(node.macs or 1 for node in placement.nodes if node.compute and node.precision == "int8")
    if float_work <= int8_work:
        return
    names = list(dict.fromkeys(name for _, name in fallen))
    raise EngineError(
        f"{artifact.engine} ran most of what is int8 in the model in float",
        found=f"{float_work / (float_work + int8_work):.1%} of its multiply-accumulates: {', '.join(names[:_SHOWN])}"
        + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""),
        allowed="at most half, which the report names",
        fix="leave these nodes in float (--float NODE), or choose another method or engine",
    )


def ran_in_float(artifact: Artifact, placement: Placement) -> tuple[str, ...]:
    """Names of nodes that are quantised in an int8 artifact and that the engine computed in float, in order.

    As far as names tell: an engine that fuses nodes or has none of its own in the file is not found out.
    """
    return tuple(dict.fromkeys(name for _, name in _fallen(artifact, placement)))


def _fallen(artifact: Artifact, placement: Placement) -> list[tuple[PlacedNode, str]]:
    """Nodes that ran in float, each with the one in the file that is quantised."""
    if artifact.precision != "int8":
        return []
    if artifact.path.suffix == ".onnx":
        claimed = _claimed_in_onnx(artifact)
    elif artifact.path.suffix == ".xml":
        claimed = _claimed_in_ir(artifact)
    else:
        return []
    floats = [node for node in placement.nodes if node.compute and node.precision != "int8"]
    named = ((node, next((name for name in _names(node) if name in claimed), None)) for node in floats)
    return [(node, claimed[name]) for node, name in named if name is not None]


def _names(node: PlacedNode) -> tuple[str, ...]:
    return node.origins or (node.name,)


def _claimed_in_onnx(artifact: Artifact) -> dict[str, str]:
    """The names that a node of which both operands are dequantised may go by in the engine, to its own name."""
    import onnx

    graph = onnx.load(str(artifact.path), load_external_data=False).graph
    dequantised = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    claimed: dict[str, str] = {}
    for node in graph.node:
        if node.op_type in COMPUTE and dequantised.issuperset(node.input[:2]):
            name = node.name or node.output[0]
            after = users.get(node.output[0], [])
            fused = [user.output[0] for user in after if len(after) == 1 and user.op_type in _ACTIVATIONS]
            claimed |= dict.fromkeys([name, node.output[0], *fused], name)
    return claimed


def _claimed_in_ir(artifact: Artifact) -> dict[str, str]:
    from edgekit.runtime.openvino import engine_errors

    with engine_errors(f"read {artifact.model}"):
        import openvino

        graph = openvino.Core().read_model(str(artifact.path))
        return {
            node.get_friendly_name(): node.get_friendly_name()
            for node in graph.get_ordered_ops()
            if node.get_type_name() in _OPENVINO_COMPUTE
            and all(_quantised(port.get_source_output().get_node()) for port in node.inputs()[:2])
        }


def _quantised(node: Any) -> bool:
    """Whether a value is quantised activations or weights stored small, behind what only moves or scales it."""
    kind = node.get_type_name()
    if kind == "Constant":
        return str(node.get_element_type().to_string()) in ("i8", "u8")
    if kind in _SCALING and any(not _is_constant(port.get_source_output().get_node()) for port in node.inputs()[1:]):
        return False  # a product of the model's own
    if kind in _MOVING or kind in _SCALING:
        return _quantised(node.input(0).get_source_output().get_node())
    return bool(kind == "FakeQuantize")


def _is_constant(node: Any) -> bool:
    while node.get_type_name() in ("Convert", "Reshape"):  # a scale of each channel, as ONNX has it, is reshaped
        node = node.input(0).get_source_output().get_node()
    return bool(node.get_type_name() == "Constant")
