"""Tiny models as ONNX text, by name, for any engine."""

from typing import Any

import numpy as np

from edgekit.artifact import TensorSpec

HEAD = '<ir_version: 9, opset_import: ["" : 20{domain}]>\n'


def _weights(shape: tuple[int, ...], seed: int = 0) -> str:
    """An initialiser's type and values in ONNX text."""
    values = np.random.default_rng(seed).normal(0, 0.3, int(np.prod(shape))).round(4)
    return f"float[{', '.join(map(str, shape))}] {{name}} = {{{{{', '.join(map(str, values))}}}}}"


def _initialiser(name: str, shape: tuple[int, ...], seed: int = 0) -> str:
    return _weights(shape, seed).format(name=name)


def _five_convs(batch: str = '"batch"') -> str:
    """Five convolutions with ReLU and one residual addition: what quantisers place nodes in."""
    weights = ", ".join(
        f"{_initialiser(f'w{i}', (8, 3 if i == 0 else 8, 3, 3), seed=i)}, {_initialiser(f'b{i}', (8,), seed=10 + i)}"
        for i in range(5)
    )
    body = "\n".join(
        f"c{i} = Conv<pads=[1, 1, 1, 1]>({'input' if i == 0 else f'r{i - 1}'}, w{i}, b{i})\n" + f"r{i} = Relu(c{i})"
        for i in range(4)
    )
    return f"""five_convs (float[{batch}, 3, 16, 16] input) => (float[{batch}, 8, 16, 16] output) <{weights}> {{
        {body}
        c4 = Conv<pads=[1, 1, 1, 1]>(r3, w4, b4)
        output = Add(c4, r2)
    }}"""


def _quantised_chain(activation: str) -> str:
    """Three int8 convolutions with nothing between Conv and ReLU, as TensorRT wants its Q/DQ."""
    values = np.random.default_rng(0).integers(-127, 128, 8 * 8 * 3 * 3)
    body = "\n".join(
        f"""x{i} = DequantizeLinear(q{i}, s, z)
        w{i} = DequantizeLinear(w, ws, wz)
        c{i} = Conv<pads=[1, 1, 1, 1]>(x{i}, w{i})
        r{i} = Relu(c{i})
        q{i + 1} = QuantizeLinear(r{i}, s, z)"""
        for i in range(3)
    )
    return f"""chain_{activation} (float[1, 8, 8, 8] input) => (float[1, 8, 8, 8] output)
        <int8[8, 8, 3, 3] w = {{{", ".join(map(str, values))}}}, float s = {{0.02}}, {activation} z = {{0}},
         float ws = {{0.01}}, int8 wz = {{0}}> {{
        q0 = QuantizeLinear(input, s, z)
        {body}
        output = DequantizeLinear(q3, s, z)
    }}"""


MODELS = {
    # One convolution, any batch; the smallest model that computes.
    "conv": f"""conv (float["batch", 3, 8, 8] input) => (float["batch", 4, 8, 8] output)
        <{_initialiser("w", (4, 3, 3, 3))}> {{
            c = Conv<pads=[1, 1, 1, 1]>(input, w)
            output = Relu(c)
        }}""",
    # The same, compiled for batches of two.
    "conv_batch2": f"""conv (float[2, 3, 8, 8] input) => (float[2, 4, 8, 8] output)
        <{_initialiser("w", (4, 3, 3, 3))}> {{
            c = Conv<pads=[1, 1, 1, 1]>(input, w)
            output = Relu(c)
        }}""",
    # The same, compiled for one.
    "conv_one": f"""conv (float[1, 3, 8, 8] input) => (float[1, 4, 8, 8] output)
        <{_initialiser("w", (4, 3, 3, 3))}> {{
            c = Conv<pads=[1, 1, 1, 1]>(input, w)
            output = Relu(c)
        }}""",
    # A classifier: logits of four classes.
    "classifier": f"""classifier (float["batch", 3, 8, 8] input) => (float["batch", 4] logits)
        <{_initialiser("w", (4, 3, 3, 3))}> {{
            c = Conv<pads=[1, 1, 1, 1]>(input, w)
            r = Relu(c)
            g = GlobalAveragePool(r)
            logits = Flatten(g)
        }}""",
    "two_inputs": """two_inputs (float["batch", 4] left, float["batch", 4] right)
        => (float["batch", 4] sum, float["batch", 4] product) {
            sum = Add(left, right)
            product = Mul(left, right)
        }""",
    "integers": """integers (int64["batch", 4] ids, bool["batch", 4] mask) => (int64["batch", 4] kept)
        <int64[1] zero = {0}> { kept = Where(mask, ids, zero) }""",
    # An output that is an input, and one that is a constant: what an engine may hand out of its own memory.
    "passthrough": """passthrough (float[2, 4] input) => (float[2, 4] same, float[2, 2] fixed)
        <float[2, 2] w = {1, 2, 3, 4}> {
            same = Identity(input)
            fixed = Identity(w)
        }""",
    "five_convs": _five_convs(),
    # ONNX Runtime on x86 runs the unsigned one in int8 and every convolution of the signed one in float.
    "chain_uint8": _quantised_chain("uint8"),
    "chain_int8": _quantised_chain("int8"),
    "unsupported": """unsupported (float[2, 4] input) => (float[2, 4] output) { output = Frobnicate(input) }""",
}

_ONNX_DTYPES = {11: "float64", 1: "float32", 7: "int64", 9: "bool", 10: "float16", 2: "uint8", 3: "int8"}


def onnx_specs(values: Any) -> tuple[TensorSpec, ...]:
    """Tensor specs of an ONNX graph's inputs or outputs."""
    return tuple(
        TensorSpec(
            name=value.name,
            dtype=_ONNX_DTYPES[value.type.tensor_type.elem_type],
            shape=tuple(d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim),
        )
        for value in values
    )
