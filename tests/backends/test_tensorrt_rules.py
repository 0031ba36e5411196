"""A small graph for every rule of TensorRT: broken it is told with that node and rule alone, mended it is clean."""

import numpy as np
import onnx
import pytest
from onnx.parser import parse_model

from edgekit.backends.tensorrt_rules import check_rules, violations
from edgekit.backends.tensorrt_rules.operators import OLDER_OPERATORS, OPERATORS
from edgekit.backends.tensorrt_rules.texts import RULES
from edgekit.errors import ModelError, UnknownName

HEAD = '<ir_version: 10, opset_import: ["" : 20]>'
# Conv and ReLU in int8: activations per tensor, weights per channel, a float bias.
CONV = (
    HEAD
    + """
net (float[1, 2, 4, 4] x) => (float[1, 2, 4, 4] y)
    <float s = {0.1}, int8 z = {0}, float[2] ws = {0.1, 0.2}, int8[2] wz = {0, 0},
     float[2, 2, 1, 1] w = {1, 2, 3, 4}, float[2] b = {0, 0}> {
    [q] xq = QuantizeLinear(x, s, z)
    [dq] xd = DequantizeLinear(xq, s, z)
    [wq] wi = QuantizeLinear<axis = 0>(w, ws, wz)
    [wdq] wd = DequantizeLinear<axis = 0>(wi, ws, wz)
    [conv] c = Conv(xd, wd, b)
    [relu] y = Relu(c)
}"""
)
# The same with weights that are int8 already, and a bias that goes through a DequantizeLinear.
STORED = (
    HEAD
    + """
net (float[1, 2, 4, 4] x) => (float[1, 2, 4, 4] y)
    <float s = {0.1}, int8 z = {0}, float[2] ws = {0.1, 0.2}, int8[2] wz = {0, 0},
     int8[2, 2, 1, 1] w = {1, 2, 3, 4}, int32[2] bi = {0, 0}, int32 bz = {0}, float[2] bf = {0, 0}> {
    [q] xq = QuantizeLinear(x, s, z)
    [dq] xd = DequantizeLinear(xq, s, z)
    [wdq] wd = DequantizeLinear<axis = 0>(w, ws, wz)
    [bias] b = Identity(bf)
    [conv] y = Conv(xd, wd, b)
}"""
)
# A residual block: the skip branch is quantised, the convolution's comes bare.
RESIDUAL = f"""{HEAD}
net (float[1, 2, 4, 4] x) => (float[1, 2, 4, 4] y)
    <float s = {{0.1}}, int8 z = {{0}}, float[2, 2, 1, 1] w = {{1, 2, 3, 4}}> {{
    [q] xq = QuantizeLinear(x, s, z)
    [dq] xd = DequantizeLinear(xq, s, z)
    [wq] wi = QuantizeLinear(w, s, z)
    [wdq] wd = DequantizeLinear(wi, s, z)
    [conv] c = Conv(xd, wd)
    [add] a = Add(c, xd)
    [relu] y = Relu(a)
}}"""
# Put behind its convolution.
PAIR = "[q2] cq = QuantizeLinear(c, s, z)\n    [dq2] cd = DequantizeLinear(cq, s, z)\n    "
CONCAT = (
    HEAD
    + """
net (float[1, 2] x, float[1, 2] x2) => (float[1, 4] y) <float s = {0.1}, float t = {0.2}, int8 z = {0}> {
    [q] a = QuantizeLinear(x, s, z)
    [dq] b = DequantizeLinear(a, s, z)
    [q2] c = QuantizeLinear(x2, s, z)
    [dq2] d = DequantizeLinear(c, s, z)
    [cat] y = Concat<axis = 1>(b, d)
}"""
)
# In float16 between float32 ends; its scale and weights are cast when the engine is built.
HALF = (
    HEAD
    + """
net (float[1, 2] x) => (float[1, 2] y)
    <float t = {0.1}, int8 z = {0}, float[2, 2] wf = {1, 2, 3, 4}> {
    [cs] s = Cast<to = 10>(t)
    [cw] w = Cast<to = 10>(wf)
    [cast] h = Cast<to = 10>(x)
    [q] a = QuantizeLinear(h, s, z)
    [dq] b = DequantizeLinear(a, s, z)
    [mul] c = MatMul(b, w)
    [back] y = Cast<to = 1>(c)
}"""
)


def linear(kind: str, axis: int, count: int = 3, before: str = "", weights: str = "[2, 3]") -> str:
    """A MatMul or Gemm whose constant weights have ``count`` scales along ``axis``."""
    scales = ", ".join(["0.1"] * count)
    zeros = ", ".join(["0"] * count)
    reads = "t" if before else "wd"
    return (
        HEAD
        + f"""
net (float[1, 2] x) => (float[1, 3] y)
    <float[{count}] ws = {{{scales}}}, int8[{count}] wz = {{{zeros}}}, int8{weights} w = {{1, 2, 3, 4, 5, 6}}> {{
    [wdq] wd = DequantizeLinear<axis = {axis}>(w, ws, wz)
    {before}
    [mul] y = {kind}(x, {reads})
}}"""
    )


def put(text: str, *changes: tuple[str, str]) -> str:
    """A graph with parts of its text replaced, each of which must be there."""
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    return text


def one(body: str, inputs: str = "float[1, 4, 8, 8] x", outputs: str = "y", constants: str = "") -> str:
    """A graph of a few nodes whose outputs state no type."""
    given = ", ".join(f"float[] {name}" if " " not in name else name for name in outputs.split(", "))
    return f"{HEAD}\nnet ({inputs}) => ({given}) {f'<{constants}>' if constants else ''} {{\n{body}\n}}"


SPLIT = one("[r] a, b, c = Split<num_outputs = 3>(x)", outputs="a, b, c", inputs="float[3] x")
FLOAT = one("[r] y = Relu(x)")
TWO = one("[e] a = Exp(x)\n[r] y = Relu(a)")
CAST = one("[c] a = Cast<to = 1>(x)\n[r] y = Cast<to = 1>(a)", inputs="float[2] x")
ADD = one("[c] h = Cast<to = 1>(x)\n[a] y = Add(h, x)", inputs="float[2] x")
POOL = one("[p] y, i = MaxPool<kernel_shape = [2, 2]>(x)")
RESIZE = one('[p] y = Resize<mode = "linear">(x, , s)', constants="float[4] s = {1, 1, 2, 2}")
TOP = one("[p] y, i = TopK(x, k)", inputs="float[1, 9000] x", constants="int64[1] k = {10}")
SUM = one("[p] y = ReduceSum(x, a)", inputs="float[2, 2] x, int64[1] g", constants="int64[1] a = {0}")
SCATTER = one('[p] y = ScatterND<reduction = "none">(x, i, u)', inputs="float[2, 2] x, int64[1, 1] i, float[1, 2] u")
GATHER = one("[r] y = Gather(x, i)", inputs="float[2] x", constants="int64 i = {0}, int32 k = {0}")
BYTES = one("[c] a = Cast<to = 1>(x)\n[r] y = Transpose(a)", inputs="uint8[2, 2] x")
BRANCH = one(
    "[if] y = If(f) <then_branch = a () => (float[] t) { [r] t = Relu(x) },"
    " else_branch = b () => (float[] e) { [n] e = Neg(x) }>",
    inputs="float[1, 4, 8, 8] x, bool f",
)
TRANSPOSE = "[t] t = Transpose<perm = [1, 0]>(wd)"
FED = put(CONV, ("(float[1, 2, 4, 4] x)", "(float[1, 2, 4, 4] x, float si, int8 zi)"))
UPWARDS = put(STORED, ("= Conv(", "= ConvTranspose("), ("<axis = 0>(w", "<axis = 1>(w"))
BEHIND = put(RESIDUAL, ("Add(c, xd)", "Neg(c)"))
CASES = {  # rule and case: the graph mended, broken, and the nodes that break the rule
    "opset: too new": (CONV, put(CONV, ('"" : 20', '"" : 26')), ["net"]),
    "opset: too old": (FLOAT, put(FLOAT, ('"" : 20', '"" : 8')), ["net"]),
    "duplicate-name": (SPLIT, put(SPLIT, ("a, b, c = S", "a, a, c = S"), ("[] b", "[] a")), ["r"]),
    "no-name": (SPLIT, put(SPLIT, ("a, b, c = S", '"", "", "" = S'), ("[] a, float[] b, float[] c", "[3] x")), ["r"]),
    "order": (TWO, one("[r] y = Relu(a)\n[e] a = Exp(x)"), ["r"]),
    "missing-tensor: an input": (TWO, put(TWO, ("Relu(a)", "Relu(b)")), ["r"]),
    "missing-tensor: an output": (FLOAT, put(FLOAT, ("y = Relu", "b = Relu")), ["y"]),
    "operator: not in the table": (FLOAT, put(FLOAT, ("Relu", "Det")), ["r"]),
    "operator: of another domain": (FLOAT, put(FLOAT, ("Relu", "com.microsoft.Gelu")), ["r"]),
    "operator: dynamic": (SPLIT, put(SPLIT, ("Split<num_outputs = 3>", "DynamicQuantizeLinear")), ["r"]),
    "operator: on integers": (FLOAT, put(FLOAT, ("Relu(x)", "ConvInteger(x, x)")), ["r"]),
    "operator: in a branch": (BRANCH, put(BRANCH, ("Relu", "Det")), ["r"]),
    "operator-type: integers": (FLOAT, put(FLOAT, ("float[1", "int32[1"), ("Relu(x)", "MatMul(x, x)")), ["r"]),
    "operator-type: bools": (FLOAT, put(FLOAT, ("float[1", "bool[1")), ["r"]),
    "operator-limit: dilations": (POOL, put(POOL, ("2]>", "2], dilations = [2, 2]>")), ["p"]),
    "operator-limit: indices": (POOL, put(POOL, ("[] y)", "[] y, int64[] i)")), ["p"]),
    "operator-limit: cubic": (RESIZE, put(RESIZE, ("linear", "cubic")), ["p"]),
    "operator-limit: top k": (TOP, put(TOP, ("{10}", "{4000}")), ["p"]),
    "operator-limit: axes": (SUM, put(SUM, ("(x, a)", "(x, g)")), ["p"]),
    "operator-limit: scattering": (SCATTER, put(SCATTER, ("none", "add")), ["p"]),
    "type: an input": (FLOAT, put(FLOAT, ("(float[1", "(double[1"), ("Relu(x)", "Cast<to = 1>(x)")), ["x"]),
    "type: a cast": (CAST, put(CAST, ("a = Cast<to = 1>", "a = Cast<to = 11>")), ["c"]),
    "type: a constant": (GATHER, put(GATHER, ("int32 k", "uint16 k")), ["k"]),
    "uint8-inside": (BYTES, put(BYTES, ("Transpose(a)", "Transpose(x)")), ["r"]),
    "unscaled: int8": (CAST, put(CAST, ("a = Cast<to = 1>", "a = Cast<to = 3>")), ["c", "r"]),
    "unscaled: fp8": (CAST, put(CAST, ("a = Cast<to = 1>", "a = Cast<to = 17>")), ["c", "r"]),
    "unscaled: weights": (STORED, put(STORED, ("xd, wd, b", "xd, w, b")), ["conv"]),
    "mixed-types: integers": (
        put(ADD, ("float[2] x", "int32[2] x"), ("to = 1>", "to = 6>")),
        put(ADD, ("float[2] x", "int32[2] x"), ("to = 1>", "to = 7>")),
        ["a"],
    ),
    "mixed-types: an addition": (ADD, put(ADD, ("to = 1>", "to = 10>")), ["a"]),
    "mixed-types: a scale's": (HALF, put(HALF, ("DequantizeLinear(a, s", "DequantizeLinear(a, t")), ["mul"]),
    "mixed-types: data and scale": (HALF, put(HALF, ("QuantizeLinear(h, s", "QuantizeLinear(h, t")), ["q"]),
    "uint8": (CONV, put(CONV, ("int8 z", "uint8 z")), ["q", "dq"]),
    "quantised-type": (CONV, put(CONV, ("int8 z", "uint16 z")), ["q", "dq"]),
    "int32-bias": (STORED, put(STORED, ("Identity(bf)", "DequantizeLinear(bi, s, bz)")), ["bias"]),
    "zero-point-missing": (CONV, put(CONV, ("QuantizeLinear(x, s, z)", "QuantizeLinear(x, s)")), ["q"]),
    "zero-point-count": (STORED, put(STORED, ("ws, wz)", "ws, z)")), ["wdq"]),
    "zero-point-constant": (FED, put(FED, ("QuantizeLinear(x, s, z)", "QuantizeLinear(x, s, zi)")), ["q"]),
    "zero-point": (CONV, put(CONV, ("int8 z = {0}", "int8 z = {3}")), ["q", "dq"]),
    "zero-point: of one channel": (CONV, put(CONV, ("wz = {0, 0}", "wz = {0, 1}")), ["wq", "wdq"]),
    "scale-constant": (FED, put(FED, ("QuantizeLinear(x, s, z)", "QuantizeLinear(x, si, z)")), ["q"]),
    "scale: zero": (CONV, put(CONV, ("float s = {0.1}", "float s = {0}")), ["q", "dq"]),
    "scale: negative": (CONV, put(CONV, ("ws = {0.1, 0.2}", "ws = {0.1, -0.2}")), ["wq", "wdq"]),
    "per-channel-activation": (CONV, put(CONV, ("QuantizeLinear(x, s, z)", "QuantizeLinear(x, ws, wz)")), ["q"]),
    "weight-axis: Conv": (STORED, put(STORED, ("<axis = 0>(w", "<axis = 1>(w")), ["wdq"]),
    "weight-axis: ConvTranspose": (UPWARDS, put(UPWARDS, ("<axis = 1>(w", "<axis = 0>(w")), ["wdq"]),
    "weight-axis: of a pair": (CONV, put(CONV, (" QuantizeLinear<axis = 0>", " QuantizeLinear<axis = 1>")), ["wq"]),
    "weight-axis: MatMul": (linear("MatMul", 1), linear("MatMul", 0, 2), ["wdq"]),
    "weight-axis: Gemm": (linear("Gemm", 1), linear("Gemm", 0, 2), ["wdq"]),
    "weight-axis: Gemm, transposed": (
        linear("Gemm<transB = 1>", 0, weights="[3, 2]"),
        linear("Gemm<transB = 1>", 1, 2, weights="[3, 2]"),
        ["wdq"],
    ),
    "weight-axis: behind a Transpose": (
        linear("MatMul", 0, before=TRANSPOSE, weights="[3, 2]"),
        linear("MatMul", 1, 2, before=TRANSPOSE, weights="[3, 2]"),
        ["wdq"],
    ),
    "weight-axis: too many scales": (linear("MatMul", 1), linear("MatMul", 1, 4), ["wdq"]),
    "q-without-dq": (CONV, put(CONV, ("Conv(xd, wd", "Conv(xd, wi"), ("[wdq] wd", "[wdq] lost")), ["wq"]),
    "q-without-dq: read by nothing": (CONV, put(CONV, ("[conv]", "[q2] no = QuantizeLinear(x, s, z)\n[conv]")), ["q2"]),
    "dq-without-q": (
        CONV,
        put(CONV, ("[dq] xd = DequantizeLinear(xq", "[t] xt = Transpose(xq)\n[dq] xd = DequantizeLinear(xt")),
        ["q", "dq"],
    ),
    "residual-add: both branches": (RESIDUAL, put(RESIDUAL, ("[add] a = Add(c", PAIR + "[add] a = Add(cd")), ["add"]),
    "residual-add: the wrong one": (
        RESIDUAL,
        put(RESIDUAL, ("[add] a = Add(c, xd)", PAIR + "[add] a = Add(x, cd)")),
        ["add"],
    ),
    "split-fusion": (BEHIND, put(BEHIND, ("[add] a = Neg(c)", PAIR), ("Relu(a)", "Relu(cd)")), ["relu"]),
    "concat-scales": (CONCAT, put(CONCAT, ("(x2, s, z)", "(x2, t, z)"), ("(c, s, z)", "(c, t, z)")), ["cat"]),
}
ALSO = {"dq-without-q": {"q-without-dq"}}  # rules that the same mistake breaks from the other side


def rules_of(text: str, **how) -> set[tuple[str, str]]:
    return {(one.rule, one.node) for one in violations(parse_model(text), **how)}


@pytest.mark.parametrize("case", CASES)
def test_a_broken_rule_is_told_with_its_node_alone_and_the_mended_graph_is_clean(case):
    mended, broken, nodes = CASES[case]
    rule = case.partition(":")[0]
    assert rules_of(mended) == set()
    found = violations(parse_model(broken))
    assert {one.rule for one in found} == {rule} | ALSO.get(rule, set())
    assert sorted(one.node for one in found) == sorted(nodes)
    assert all((one.allowed, one.source) == (RULES[one.rule].allowed, RULES[one.rule].source) for one in found)
    assert all(one.found and one.fix for one in found)


@pytest.mark.parametrize("value", [np.inf, np.nan, -1.0, 0.0])
def test_scales_are_finite_and_over_zero(value):
    proto = parse_model(CONV)
    proto.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(np.float32(value), "s"))
    found = violations(proto)
    assert {(one.rule, one.node, one.found) for one in found} == {("scale", n, f"scale {value:g}") for n in ("q", "dq")}


def test_every_rule_has_a_graph_that_breaks_it():
    elsewhere = {"external-data", "hardware", "block", "int4-activation", "odd-4-bit"}  # not to be written as text
    assert {case.partition(":")[0] for case in CASES} | elsewhere == set(RULES)


def quantised(kind: int, shape: tuple[int, ...], scales: tuple[int, ...], axis: int = 0, *, stored: bool = True):
    """A MatMul with weights (or its input) of a type, and scales of a shape, in opset 23."""
    make, info = onnx.helper.make_tensor, onnx.helper.make_tensor_value_info
    count, scale_count = int(np.prod(shape)), int(np.prod(scales))
    weights = make("w", kind if stored else onnx.TensorProto.FLOAT, shape, np.ones(count))
    scale = make("s", onnx.TensorProto.FLOAT, scales, np.ones(scale_count))
    zero = make("z", kind, scales, np.zeros(scale_count))
    block = {"block_size": shape[axis] // scales[axis]} if len(scales) > 1 else {}
    node = onnx.helper.make_node
    dq = node("DequantizeLinear", ["w" if stored else "xq", "s", "z"], ["d"], name="dq", axis=axis, **block)
    q = node("QuantizeLinear", ["x", "s", "z"], ["xq"], name="q", axis=axis, **block)
    inputs = ["x", "d"] if stored else ["d", "w"]
    nodes = [*([] if stored else [q]), dq, node("MatMul", inputs, ["y"], name="mul")]
    x = info("x", onnx.TensorProto.FLOAT, [4, shape[0]])
    graph = onnx.helper.make_graph(nodes, "net", [x], [info("y", 1, None)], [weights, scale, zero])
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 23)], ir_version=11)


INT8, INT4, FP4, FP8 = (getattr(onnx.TensorProto, n) for n in ("INT8", "INT4", "FLOAT4E2M1", "FLOAT8E4M3FN"))


@pytest.mark.parametrize("kind", [INT4, FP4])
def test_blocks_are_for_four_bits(kind):
    assert violations(quantised(kind, (8, 4), (2, 4))) == []
    found = violations(quantised(INT8, (8, 4), (2, 4)))
    assert [(one.rule, one.node, one.found) for one in found] == [("block", "dq", "int8 with 8 scales in blocks")]


def test_four_bits_lie_two_to_a_byte():
    found = violations(quantised(INT4, (8, 3), (3,), axis=1))
    assert [(one.rule, one.node, one.found) for one in found] == [("odd-4-bit", "dq", "3 values on the last axis")]
    assert violations(quantised(INT4, (8, 4), (4,), axis=1)) == []


def test_four_bits_are_for_weights():
    found = violations(quantised(INT4, (4, 4), (), stored=False))
    assert [(one.rule, one.node) for one in found] == [("int4-activation", "q")]
    assert violations(quantised(FP8, (4, 4), (), stored=False)) == []


def test_fp8_and_fp4_need_a_gpu_that_has_them():
    eight, four = quantised(FP8, (8, 4), (4,), axis=1), quantised(FP4, (8, 4), (2, 4))
    assert violations(eight, sm="8.9") == []
    assert violations(four, sm="10.0") == []
    for proto, sm, kind in ((eight, "8.7", "float8e4m3fn"), (four, "9.0", "float4e2m1")):
        found = violations(proto, sm=sm)
        assert {one.rule for one in found} == {"hardware"}
        assert f"{kind} on compute capability {sm}" in found[0].found
    assert violations(parse_model(CONV), sm="7.5") == []


def test_the_first_of_tensorrt_10_takes_less():
    assert rules_of(put(CONV, ('"" : 20', '"" : 21'))) == set()
    assert rules_of(put(CONV, ('"" : 20', '"" : 21')), rules="tensorrt-10") == {("opset", "net")}
    assert rules_of(CONV, rules="tensorrt-10") == set()
    power = put(ADD, ("Add", "Pow"), ("to = 1>", "to = 7>"))
    assert rules_of(power) == set()  # later parsers cast both to float32
    assert rules_of(power, rules="tensorrt-10") == {("mixed-types", "a")}
    assert {one.rule for one in violations(quantised(FP4, (8, 4), (2, 4)), rules="tensorrt-10")} == {
        "opset",
        "quantised-type",
    }
    assert set(OPERATORS) - set(OLDER_OPERATORS) >= {"RMSNormalization", "Attention", "STFT"}
    newer = put(FLOAT, ("Relu(x)", "HannWindow(n)"), ("] x)", "] x, int64 n)"))
    assert rules_of(newer) == set()
    assert "TensorRT 10.15 parses it" in violations(parse_model(newer), rules="tensorrt-10")[0].fix


def test_rules_that_there_are_not():
    with pytest.raises(UnknownName, match="unknown rules 'tensort'") as caught:
        violations(parse_model(CONV), rules="tensort")
    assert caught.value.fix == "did you mean 'tensorrt'?"


def test_a_graph_that_breaks_rules_is_refused_with_the_first_and_the_number():
    check_rules(parse_model(CONV), "model.onnx")
    broken = put(CONV, ("int8 z = {0}", "int8 z = {3}"), ("wz = {0, 0}", "wz = {1, 0}"))
    with pytest.raises(ModelError, match=r"model\.onnx: it breaks TensorRT's rules at 4 places") as caught:
        check_rules(parse_model(broken), "model.onnx")
    assert caught.value.found.startswith("q: zero point 3 (zero-point); dq: zero point 3 (zero-point); wq: ")
    assert caught.value.found.endswith("; and 1 more")
    assert caught.value.allowed == RULES["zero-point"].allowed
    assert caught.value.fix.endswith("edgekit inspect MODEL.onnx --rules tensorrt lists all")


def test_a_misspelt_operator_and_one_with_another_way():
    def fix(operator: str) -> str:
        return violations(parse_model(put(FLOAT, ("Relu", operator))))[0].fix

    assert fix("Softmx") == "did you mean 'Softmax'?"
    assert fix("com.microsoft.Gelu") == "write it as ONNX's own Gelu, without domain 'com.microsoft'"
    assert "Q/DQ in ONNX's own operators" in fix("DynamicQuantizeLinear")
    assert "TensorRT plugin" in fix("Det")


def test_functions_of_the_model_are_looked_into():
    text = put(FLOAT, ("Relu(x)", "own.act(x)"), ('"" : 20', '"" : 20, "own" : 1'))
    function = """
<domain: "own", opset_import: ["" : 20]>
act (x) => (y) {
    y = Relu(x)
}"""
    assert rules_of(text + function) == set()
    found = violations(parse_model(text + put(function, ("Relu", "Det"))))
    assert [(one.rule, one.node, one.found) for one in found] == [("operator", "act: Det -> y", "Det")]


def test_states_of_a_loop_are_each_of_their_own_type():
    text = put(
        FLOAT,
        ("float[1, 4, 8, 8] x", "float[2] x, float16[2] h, int64 n, bool f"),
        (
            "[r] y = Relu(x)",
            "[l] y, o = Loop(n, f, x, h) <body = b (int64 i, bool c, float[2] p, float16[2] q) =>"
            " (bool d, float[2] r, float16[2] t) { d = Identity(c)\n r = Relu(p)\n t = Relu(q) }>",
        ),
    )
    assert rules_of(text) == set()


def test_tensorrts_own_quantiser_gives_its_scales_as_it_runs():
    text = put(
        FLOAT,
        ("[r] y = Relu(x)", "[q] a, s = trt.TRT_FP4DynamicQuantize(x, t)\n[dq] y = DequantizeLinear(a, s)"),
        ("(float[] y) ", "(float[] y) <float t = {0.1}>"),
    )
    assert rules_of(text) == set()
    assert rules_of(put(text, ("TRT_FP4DynamicQuantize", "TRT_FP4Quantise"))) >= {("operator", "q")}


def test_a_quantiser_of_fp16_below_opset_19_may_have_a_float_scale():
    older = put(HALF, ('"" : 20', '"" : 17'), ("QuantizeLinear(h, s", "QuantizeLinear(h, t"), ("MatMul(b", "MatMul(bh"))
    older = put(older, ("DequantizeLinear(a, s, z)", "DequantizeLinear(a, t, z)\n[half] bh = Cast<to = 10>(b)"))
    assert rules_of(older) == set()
