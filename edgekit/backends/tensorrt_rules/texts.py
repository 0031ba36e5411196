"""TensorRT's rules in words: what is allowed, what mends a breach, and where the rule is written."""

from __future__ import annotations

from dataclasses import dataclass

_PARSER = "onnx-tensorrt, onnxOpImporters.cpp, QuantDequantLinearHelper"
_TABLE = "onnx-tensorrt, docs/operators.md"
_HEADER = "NvInfer.h, IQuantizeLayer and IDequantizeLayer"
_GUIDE = "TensorRT documentation, Working with Quantized Types"
_STANDARD = "ONNX, docs/IR.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule.

    Attributes:
        allowed: What TensorRT takes.
        fix: What mends a breach.
        source: Where the rule is written.
    """

    allowed: str
    fix: str
    source: str


RULES = {
    # The graph as a whole
    "opset": Rule(
        allowed="opset 9 to 25 with TensorRT 11, 9 to 20 with the first of TensorRT 10",
        fix="export with opset 19 or 20, or convert with onnx.version_converter",
        source="TensorRT documentation, ONNX Opset Guide; onnx-tensorrt 10.0 GA, docs/operators.md",
    ),
    "external-data": Rule(
        allowed="files beside the model, whole",
        fix="copy the model together with the files its weights lie in",
        source="ONNX, docs/ExternalData.md",
    ),
    "duplicate-name": Rule(
        allowed="every tensor is given once (single assignment)",
        fix="rename one of them",
        source=_STANDARD,
    ),
    "no-name": Rule(
        allowed="tensors with names",
        fix="name them; TensorRT binds and reports tensors by name",
        source=_STANDARD,
    ),
    "order": Rule(
        allowed="nodes behind those whose outputs they read",
        fix="sort the nodes topologically",
        source=_STANDARD,
    ),
    "missing-tensor": Rule(
        allowed="inputs, constants and outputs of nodes",
        fix="add what makes it, or export the model again",
        source=_STANDARD,
    ),
    # Operators
    "operator": Rule(
        allowed="the operators that onnx-tensorrt parses",
        fix="write it with parsed operators, or bring a TensorRT plugin of that name",
        source=_TABLE,
    ),
    "operator-type": Rule(
        allowed="the element types listed for the operator",
        fix="cast its input to float32 or float16 before, and back behind",
        source=_TABLE,
    ),
    "operator-limit": Rule(
        allowed="the operator within its listed restrictions",
        fix="write it without, or with other operators",
        source=_TABLE,
    ),
    # Element types
    "type": Rule(
        allowed="float32, float16, bfloat16, int32, int64, bool, and uint8 as input or output",
        fix="cast it to float32 or int32 and export again; float64 is only cut down to float32",
        source=_TABLE,
    ),
    "uint8-inside": Rule(
        allowed="uint8 only as an input that is cast at once, or as an output",
        fix="put a Cast to float32 behind the input",
        source=_TABLE,
    ),
    "unscaled": Rule(
        allowed="int8, fp8, int4 and fp4 only between QuantizeLinear and DequantizeLinear",
        fix="quantise and dequantise with a scale instead of a cast, next to the operator",
        source=_TABLE,
    ),
    "mixed-types": Rule(
        allowed="inputs of one type: types are never converted on the way",
        fix="put a Cast before one of them, or give the scale of its DequantizeLinear the other's type",
        source="TensorRT documentation, Strongly Typed Networks; DequantizeLinear gives its scale's type",
    ),
    "hardware": Rule(
        allowed="bfloat16 from compute capability 8.0, fp8 from 8.9, fp4 from 10.0",
        fix="use int8 or float16 on this GPU",
        source="TensorRT documentation, Support Matrix, Hardware and Precision",
    ),
    # Single Q/DQ nodes
    "uint8": Rule(
        allowed="int8 (fp8, int4 and fp4 where the GPU has them)",
        fix="quantise to int8 symmetrically; a uint8 scale with zero point 0 becomes scale * 255 / 127",
        source=_PARSER,
    ),
    "quantised-type": Rule(
        allowed="int8, float8e4m3fn, int4 and, since TensorRT 10.8, fp4",
        fix="quantise to int8",
        source=_PARSER,
    ),
    "int32-bias": Rule(
        allowed="a bias in float",
        fix="leave the bias in float (ONNX Runtime: extra option QuantizeBias=False)",
        source="microsoft/onnxruntime#14229, onnx/onnx-tensorrt#850: only activation types allowed",
    ),
    "zero-point-missing": Rule(
        allowed="a zero point of type int8 and value 0, written",
        fix="write an int8 zero point of 0, with a scale that is meant for it",
        source=_PARSER,
    ),
    "zero-point-constant": Rule(
        allowed="a zero point that is constant",
        fix="make it an initialiser of zeros",
        source=_HEADER,
    ),
    "zero-point": Rule(
        allowed="zero points of 0: quantisation is symmetric only",
        fix="quantise symmetrically (ONNX Runtime: ActivationSymmetric and WeightSymmetric)",
        source=_PARSER,
    ),
    "zero-point-count": Rule(
        allowed="as many zero points as scales",
        fix="write one zero point a scale, all 0",
        source=_PARSER,
    ),
    "scale-constant": Rule(
        allowed="a scale that is constant when the engine is built",
        fix="calibrate, and make the scale an initialiser",
        source=_HEADER,
    ),
    "scale": Rule(
        allowed="finite scales over 0",
        fix="calibrate again; a tensor or channel that is all zero needs a small scale all the same",
        source=_PARSER,
    ),
    "per-channel-activation": Rule(
        allowed="one scale for what is computed; one a channel for constant weights only",
        fix="quantise activations per tensor",
        source=_GUIDE,
    ),
    "weight-axis": Rule(
        allowed="one scale an output channel: Conv axis 0, ConvTranspose 1, Gemm and MatMul their output axis",
        fix="set axis on both nodes of the pair, with as many scales as that axis is long",
        source=_GUIDE,
    ),
    "block": Rule(
        allowed="scales in blocks for int4, fp4 (and fp8 by TRT_MXFP8 operators) only",
        fix="one scale a tensor, or one an output channel",
        source=_HEADER,
    ),
    "int4-activation": Rule(
        allowed="int4 for constant weights only",
        fix="quantise activations to int8, or leave them in float",
        source=_GUIDE,
    ),
    "odd-4-bit": Rule(
        allowed="an even number of values on the last axis, two to a byte",
        fix="pad the axis, or leave this tensor in int8",
        source=_PARSER,
    ),
    "q-without-dq": Rule(
        allowed="every QuantizeLinear is read by DequantizeLinear alone",
        fix="put a DequantizeLinear with the same scale behind it",
        source=_GUIDE,
    ),
    "dq-without-q": Rule(
        allowed="a DequantizeLinear of a constant, an input, or what a QuantizeLinear gives",
        fix="put the pair together, with nothing in between",
        source=_GUIDE,
    ),
    # Where pairs stand
    "residual-add": Rule(
        allowed="Q/DQ on the skip branch alone, so that Conv, Add and ReLU run as one int8 kernel",
        fix="drop the pair on the convolution's branch and quantise the other one",
        source="NVIDIA/TensorRT#1992; modelopt.onnx places so",
    ),
    "split-fusion": Rule(
        allowed="nothing between a convolution and its BatchNormalization and ReLU, which are fused into it",
        fix="move the pair behind the activation",
        source=_GUIDE,
    ),
    "concat-scales": Rule(
        allowed="inputs of Concat in float, or quantised with one scale",
        fix="give them the largest of their scales, or drop the pairs",
        source="NVIDIA/TensorRT#4366; modelopt.onnx shares the scale",
    ),
}
