"""The ONNX operators that TensorRT parses, and with which element types.

Published in onnx-tensorrt, ``docs/operators.md``: the table of TensorRT 10.15 (opset 9 to 24), and what that of 10.1
(opset 9 to 20) lacks.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from edgekit.backends.tensorrt_rules.wiring import DOMAINS, Breach, View, name_of, type_name
from edgekit.errors import did_you_mean

# One letter a kind of element: float32 and float16, bfloat16, int32 and int64, bool, uint8; '*': told by other rules.
KINDS: dict[str, tuple[int, ...]] = {
    "H": (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16),
    "F": (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16),
    "I": (onnx.TensorProto.INT32, onnx.TensorProto.INT64),
    "B": (onnx.TensorProto.BOOL,),
    "U": (onnx.TensorProto.UINT8,),
}
_PARSED = {
    "F": "Acos Acosh Asin Asinh Atan Atanh AveragePool BatchNormalization Ceil Celu Conv ConvTranspose Cos Cosh "
    "Dropout Einsum Elu Erf Exp Floor Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool GroupNormalization GRU "
    "HardSigmoid HardSwish Hardmax ImageScaler InstanceNormalization IsInf LayerNormalization LeakyRelu Log "
    "LogSoftmax LRN LSTM LpNormalization LpPool MatMul MaxPool MeanVarianceNormalization ParametricSoftplus PRelu "
    "Reciprocal Resize RNN Round ScaledTanh Selu Sigmoid Sin Sinh Softmax Softplus Softsign Sqrt Tan Tanh "
    "ThresholdedRelu Upsample",
    "H": "DeformConv GridSample Mish NonMaxSuppression NonZero RoiAlign",
    "FI": "Abs Add ArgMax ArgMin DepthToSpace Div Equal Gelu Greater GreaterOrEqual IsNaN Less LessOrEqual Max Mean "
    "Min Mod Mul Neg Pad Pow Range ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin "
    "ReduceProd ReduceSum ReduceSumSquare Relu Scatter ScatterElements ScatterND Shrink Sign SpaceToDepth Sub Sum TopK",
    "FIB": "Concat Expand Flatten Gather GatherElements GatherND Identity Reshape ReverseSequence Shape Size Slice "
    "Split Squeeze Tile Transpose Trilu Unsqueeze",
    "FIBU": "Cast CastLike",
    "B": "And Not Or Xor",
    # The first input says nothing of the type; and the importer of Clip and CumSum takes integers, whatever the table
    # says (onnxOpImporters.cpp).
    "*": "Clip CumSum Constant ConstantOfShape DequantizeLinear EyeLike If Loop OneHot QuantizeLinear RandomNormal "
    "RandomNormalLike RandomUniform RandomUniformLike Scan Where",
}
# In the table of TensorRT 10.15, not in that of 10.1.
_NEWER = {
    "F": "RMSNormalization RotaryEmbedding",
    "*": "Attention BlackmanWindow HammingWindow HannWindow STFT TensorScatter",
}
# TensorRT's own quantisers for fp8, fp4 and int4: importers that onnx-tensorrt has besides ONNX's operators.
OWN = (
    *("TRT_FP8QuantizeLinear", "TRT_FP8DequantizeLinear", "TRT_INT4QuantizeLinear", "TRT_INT4DequantizeLinear"),
    *("TRT_MXFP8QuantizeLinear", "TRT_MXFP8DequantizeLinear", "TRT_MXFP8DynamicQuantize", "TRT_FP4DynamicQuantize"),
    *("TRT_DynamicQuantize", "TRT_BlockQuantize", "TRT_BlockDequantize"),
)
_OWN_DOMAINS = ("trt", *DOMAINS)

_INSTEAD = {
    "DynamicQuantizeLinear": "quantise statically, with calibrated scales: Q/DQ in ONNX's own operators",
    "ConvInteger": "use QuantizeLinear and DequantizeLinear around Conv",
    "MatMulInteger": "use QuantizeLinear and DequantizeLinear around MatMul",
    "QLinearConv": "use QuantizeLinear and DequantizeLinear around Conv (quant_format QDQ)",
    "QLinearMatMul": "use QuantizeLinear and DequantizeLinear around MatMul (quant_format QDQ)",
    "FusedConv": "save the model before an engine optimises it",
    "FusedMatMul": "save the model before an engine optimises it",
}
_GENERAL = "write it with parsed operators, take it out of the model, or bring a TensorRT plugin of that name"


def _spread(table: dict[str, str]) -> dict[str, str]:
    return {name: kinds for kinds, names in table.items() for name in names.split()}


OLDER_OPERATORS = _spread(_PARSED)
OPERATORS = OLDER_OPERATORS | _spread(_NEWER)


def is_known(node: onnx.NodeProto) -> bool:
    """Whether a node is one that TensorRT parses, so that other rules have something to say of it."""
    return (node.domain in DOMAINS and node.op_type in OPERATORS) or _is_own(node)


def _is_own(node: onnx.NodeProto) -> bool:
    return node.op_type in OWN and node.domain in _OWN_DOMAINS


def check_operators(view: View, *, older: bool) -> Iterator[Breach]:
    """Operators that are not parsed, and those whose first input has a type they are not parsed with.

    Args:
        view: The model.
        older: By the table of TensorRT 10.1 rather than that of 10.15.

    Yields:
        Breaches of ``operator`` and ``operator-type``.
    """
    table = OLDER_OPERATORS if older else OPERATORS
    own = {(function.domain, function.name) for function in view.proto.functions}
    for node in view.nodes:
        if (node.domain, node.op_type) in own or _is_own(node):
            continue
        if node.domain not in DOMAINS or node.op_type not in table:
            shown = node.op_type if node.domain in DOMAINS else f"{node.domain}.{node.op_type}"
            yield Breach("operator", name_of(node), shown, _instead(node))
        elif (kind := _wrong_type(view, node, table[node.op_type])) is not None:
            yield Breach("operator-type", name_of(node), f"{node.op_type} of {type_name(kind)}")
    for function in view.proto.functions:
        for node in function.node:
            if (node.domain, node.op_type) not in own and (node.domain not in DOMAINS or node.op_type not in table):
                yield Breach("operator", f"{function.name}: {name_of(node)}", node.op_type, _instead(node))


def _instead(node: onnx.NodeProto) -> str:
    """What mends a node whose operator is not parsed."""
    if node.op_type in _INSTEAD:
        return _INSTEAD[node.op_type]
    if node.domain not in DOMAINS:
        own = node.op_type in OPERATORS
        return f"write it as ONNX's own {node.op_type}, without domain {node.domain!r}" if own else _GENERAL
    if node.op_type in OPERATORS:
        return "TensorRT 10.15 parses it, 10.1 does not: take a later release, or write it with other operators"
    misspelt = None if onnx.defs.has(node.op_type) else did_you_mean(node.op_type, OPERATORS)
    return misspelt or _GENERAL


def _wrong_type(view: View, node: onnx.NodeProto, kinds: str) -> int | None:
    """The element type of the first input, where TensorRT has that type but not for this operator."""
    found = view.types.get(next(iter(node.input), ""))
    if kinds == "*" or found not in _ALL:
        return None
    return None if any(found in KINDS[kind] for kind in kinds) else found


_ALL = {element for kind in "FIB" for element in KINDS[kind]}
