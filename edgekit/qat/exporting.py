"""From a trained fake-quantised network to an ONNX file with Q/DQ, of the dialect that post-training int8 writes."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import onnx
import torch
from torch import Tensor, fx, nn

from edgekit.artifact import Array, Artifact
from edgekit.backends.onnxruntime import COMPUTE
from edgekit.conversion.clean import describe_onnx, load_onnx, save_onnx
from edgekit.conversion.onnx_export import to_onnx
from edgekit.errors import TrainingError
from edgekit.qat.folding import layer_of
from edgekit.qat.learned import LearnedStep, QuantisedLayer
from edgekit.qat.skeleton import ends_of
from edgekit.quantization.packing import LOW, pack_weights

QAT_PARITY_DB = 40.0  # the engine's integers against torch's fake-quantised floats: a tie may round another way
_SINCE = 20  # opset whose operators are written here; see conversion.onnx_export.OPSET
_BIAS_ROOM = 2.0**30  # of int32, so that products may be added to a bias


class FixedPair(nn.Module):
    """A step that is learned no more: ``torch.fake_quantize_per_tensor_affine``, exported as a Q/DQ pair.

    torch has no fake-tensor kernel of that function, so a graph of any batch size cannot hold it: there the two
    operators are written as such.
    """

    scale: Tensor
    zero_point: Tensor

    def __init__(self, step: LearnedStep) -> None:
        super().__init__()
        self.low, self.high = step.low, step.high
        self.register_buffer("scale", step.scale.clone())
        self.register_buffer("zero_point", step.zero_point.to(torch.uint8 if step.low == 0 else torch.int8))

    def forward(self, values: Tensor) -> Tensor:
        """Values on the grid."""
        if not torch.compiler.is_exporting():
            zero = self.zero_point.to(torch.int32)
            return torch.fake_quantize_per_tensor_affine(values, self.scale, zero, self.low, self.high)
        whole = torch.onnx.ops.symbolic(
            "QuantizeLinear",
            (values, self.scale, self.zero_point),
            dtype=self.zero_point.dtype,
            shape=values.shape,
            version=_SINCE,
        )
        return _dequantised(whole, self.scale, self.zero_point, None)


class FixedLayer(nn.Module):
    """A layer whose weights are stored as int8, and its bias as int32 where the engine adds integers.

    Args:
        trained: The layer and the grid of its weights.
        input_scale: Of what the layer reads; None: it has none of its own, and the bias stays float.
    """

    weight: Tensor
    scale: Tensor
    zero_point: Tensor

    def __init__(self, trained: QuantisedLayer, input_scale: Tensor | None) -> None:
        super().__init__()
        layer, step = copy.deepcopy(trained.layer), trained.step
        self.turned, self.axis = trained.turned, step.axis
        self.whole_bias = trained.whole_bias and input_scale is not None and layer.bias is not None
        scale = step.scale
        if self.whole_bias and input_scale is not None:
            # A channel of next to no weights must not have a scale by which its bias is more than int32 holds.
            needed = layer.bias.detach().abs() / (input_scale * _BIAS_ROOM)
            scale = torch.maximum(scale, needed if scale.ndim else needed.max())
        along = scale.reshape([-1] + [1] * (layer.weight.ndim - 1)) if scale.ndim else scale
        whole = (layer.weight.detach() * (1.0 / along)).round().clamp(step.low, step.high).to(torch.int8)
        del layer.weight  # what it was rounded from
        layer.register_buffer("weight", None)
        if self.turned:
            whole, self.axis = whole.t().contiguous(), None if step.axis is None else 1
        self.layer = layer
        self.register_buffer("weight", whole)
        self.register_buffer("scale", scale)
        self.register_buffer("zero_point", torch.zeros_like(scale, dtype=torch.int8))
        if self.whole_bias and input_scale is not None:
            bias_scale = scale * input_scale
            self.register_buffer("bias_scale", bias_scale)
            self.register_buffer("bias_zero", torch.zeros_like(bias_scale, dtype=torch.int32))
            self.register_buffer("bias", (layer.bias.detach() / bias_scale).round().to(torch.int32))

    def forward(self, values: Tensor) -> Tensor:
        """As the layer's own, with what it is stored as."""
        weight = _dequantised(self.weight, self.scale, self.zero_point, self.axis)
        bias = self.layer.bias
        if self.turned:
            output = torch.matmul(values, weight)
            # With as many axes as the product, so that ONNX Runtime makes no float Gemm of both.
            return output if bias is None else output + bias.reshape((1,) * (values.ndim - 1) + bias.shape)
        if self.whole_bias:
            bias = _dequantised(self.bias, self.bias_scale, self.bias_zero, self.axis)
        changed = {"weight": weight} | ({} if bias is None else {"bias": bias})
        result: Tensor = torch.func.functional_call(self.layer, changed, (values,))
        return result


def _dequantised(whole: Tensor, scale: Tensor, zero_point: Tensor, axis: int | None) -> Tensor:
    """``DequantizeLinear`` of integers."""
    if not torch.compiler.is_exporting():
        along = [-1 if place == axis else 1 for place in range(whole.ndim)] if axis is not None else []
        return (whole.to(torch.int32) - zero_point.to(torch.int32).reshape(along)) * scale.reshape(along)
    return torch.onnx.ops.symbolic(
        "DequantizeLinear",
        (whole, scale, zero_point),
        attrs={} if axis is None else {"axis": axis},
        dtype=torch.float32,
        shape=whole.shape,
        version=_SINCE,
    )


def for_export(module: fx.GraphModule) -> fx.GraphModule:
    """A copy of a trained fake-quantised network that learns no more: scales, int8 weights and int32 biases as buffers.

    It computes what the network computes in evaluation, but for the rounding of biases to integers. A ReLU or another
    clip before a fake-quantiser that clips there too is dropped, as in post-training int8, so that the engine finds the
    pair beside the operator it belongs to.

    Args:
        module: As of :func:`edgekit.qat.preparing.prepare_qat`, trained or not.

    Raises:
        TrainingError: It has no fake-quantisers.
    """
    if not any(isinstance(part, QuantisedLayer) for part in module.modules()):
        raise TrainingError(
            f"{type(module).__name__} has no fake-quantisers",
            allowed="a network as prepare_qat gives it",
            fix="export a float network with to_onnx",
        )
    exported = copy.deepcopy(module).eval()
    _drop_clips(exported)
    scales = _input_scales(exported)
    for path, part in list(exported.named_modules()):
        if isinstance(part, QuantisedLayer):
            exported.set_submodule(path, FixedLayer(part, scales[path]))
        elif isinstance(part, LearnedStep) and not isinstance(
            exported.get_submodule(path.rpartition(".")[0]), FixedLayer
        ):
            exported.set_submodule(path, FixedPair(part))
    exported.recompile()
    return exported


def _drop_clips(exported: fx.GraphModule) -> None:
    for node in list(exported.graph.nodes):
        ends = ends_of(exported, node)
        pairs = [layer_of(exported, user) for user in node.users]
        if ends is None or ends[0] != 0.0 or not pairs:
            continue
        if all(isinstance(p, LearnedStep) and int(p.zero_point) == p.low and _reach(p) <= ends[1] for p in pairs):
            node.replace_all_uses_with(node.all_input_nodes[0])
            exported.graph.erase_node(node)


def _reach(step: LearnedStep) -> float:
    """The greatest value on an activation's grid, a rounding error less."""
    return float(step.scale) * (step.high - int(step.zero_point)) * (1.0 - 1e-6)


def _input_scales(exported: fx.GraphModule) -> dict[str, Tensor | None]:
    """The scale of what each layer reads, by its path; None where its uses read several."""
    found: dict[str, Tensor | None] = {}
    for node in exported.graph.nodes:
        if isinstance(layer_of(exported, node), QuantisedLayer):
            path, step = str(node.target), layer_of(exported, node.all_input_nodes[0])
            scale = step.scale if isinstance(step, LearnedStep) else None
            other = found.get(path, scale)
            found[path] = scale if scale is not None and other is not None and torch.equal(scale, other) else None
    return found


def export_qat(module: fx.GraphModule, example: Mapping[str, Array], out: Path) -> Artifact:
    """Exports a trained fake-quantised network as int8 ONNX with Q/DQ; weights of 4 bits are stored two a byte.

    Args:
        module: As for :func:`for_export`.
        example: At least two real samples per input, stacked.
        out: Folder to write ``model.onnx`` into.

    Returns:
        The artifact, of precision ``int8``; its numbers are those of torch's fake-quantised network, at least 40 dB,
        and its notes name the compute nodes that are in float.

    Raises:
        TrainingError: The network has no fake-quantisers.
        ExportError: torch cannot trace or translate it.
        ParityError: The file computes something else.
    """
    artifact = to_onnx(for_export(module), example, out, precision="int8", parity_db=QAT_PARITY_DB)
    proto = load_onnx(artifact.path)
    nodes = proto.graph.node
    quantised = {node.output[0] for node in nodes if node.op_type == "DequantizeLinear"}
    left = [node.name for node in nodes if node.op_type in COMPUTE and not quantised.issuperset(node.input[:2])]
    notes = (f"left in float: {', '.join(left)} (no layer in int8 when it was prepared)",) if left else ()
    if any(isinstance(part, QuantisedLayer) and part.step.low == LOW for part in module.modules()):
        artifact, packed = _packed(artifact, proto)
        notes = (*notes, packed)
    return replace(artifact, notes=notes)


def _packed(artifact: Artifact, proto: onnx.ModelProto) -> tuple[Artifact, str]:
    """The artifact with its weights two a byte, written in place, and what to say of it."""
    stored = pack_weights(proto)
    if not stored.tensors:
        return artifact, "weights of 4 bits, a byte each: no tensor is large enough to gain by packing"
    save_onnx(proto, artifact.path)
    written = describe_onnx(artifact.path, precision=artifact.precision)
    before, after = stored.bytes_before / 1e6, stored.bytes_after / 1e6
    said = f"{len(stored.tensors)} weights of 4 bits, two a byte: {before:.3f} MB became {after:.3f} MB"
    return replace(written, inputs=artifact.inputs, outputs=artifact.outputs), f"{said}; int8 when the model is opened"
