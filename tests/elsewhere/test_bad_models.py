"""Models and samples that cannot work: one message that names the input or operator and what would, exit code 1."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from models_elsewhere import ZOO, graph, suppressed_boxes, weights, write_samples
from tiny_recipe import edgekit

from edgekit.artifact import read_json

ENGINES = ["onnxruntime", "openvino"]
ELSEWHERE = ("--target", "intel-nuc-13")
INT8 = (*ELSEWHERE, "--precision", "int8")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def export(*args):
    return edgekit("export", "model.onnx", *args, "--out", "b")


def assert_told(done, *words):
    """One message without a traceback, exit code 1, and no bundle."""
    assert done.exit_code == 1, done.output
    assert [line[:7] for line in done.stderr.splitlines()].count("error: ") == 1, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr, f"{word!r} is not in:\n{done.stderr}"


@pytest.fixture(autouse=True)
def _nothing_half_written(tmp_path):
    yield
    assert not [path for path in tmp_path.rglob("*") if "partial" in path.name]
    assert not (tmp_path / "b").exists() or (tmp_path / "b" / "manifest.json").is_file()


def classifier(batch: str = "n") -> onnx.ModelProto:
    return graph(
        f"""g (float[{batch}, 8] x, int64[{batch}, 2] kind) => (float[{batch}, 3] y) {{
            k = Cast<to=1>(kind)
            j = Concat<axis=1>(x, k)
            h = MatMul(j, w0)
            r = Relu(h)
            y = MatMul(r, w1)
        }}""",
        17,
        w0=weights(0, 10, 16),
        w1=weights(1, 16, 3),
    )


def arrays(count: int = 40, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {"x": rng.normal(size=(count, 8)).astype(np.float32), "kind": rng.integers(0, 5, (count, 2))}


@pytest.fixture
def model(here):
    onnx.save(classifier(), "model.onnx")
    np.savez("train.npz", **arrays())


# --- samples --------------------------------------------------------------------------------------------------------


def test_unlabelled_samples_do_and_agreement_is_shown(model, here):
    np.savez("test.npz", **arrays(20, seed=1))
    done = export(*INT8, "--calibration", "train.npz", "--test", "test.npz", "--engine", "onnxruntime")
    assert done.exit_code in (3, 4), done.stderr
    (candidate,) = read_json(here / "b.report.json")["targets"][0]["candidates"]
    assert candidate["proof"]["metric"] == "agreement"


def test_too_few_samples_say_how_many_are_needed(model):
    np.savez("few.npz", **arrays(15))
    np.savez("test.npz", **arrays(20, seed=1))
    few = ("--calibration", "few.npz", "--test", "test.npz")
    assert_told(export(*INT8, *few), "data.train: few.npz: too few samples to calibrate", "15 samples", "at least 16")
    assert_told(export(*INT8, "--calibration", "few.npz"), "few.npz: too few samples", "15 samples", "at least 16")
    drawn = ("--calibration", "train.npz", "--set", "data.calibration=8")
    assert_told(export(*INT8, *drawn), "data.calibration: train.npz: too few samples to calibrate", "8 samples")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("value", [0.0, 0.5])
def test_a_constant_input_is_named(engine, value, model):
    np.savez("flat.npz", **arrays() | {"x": np.full((40, 8), value, np.float32)})
    done = export(*INT8, "--calibration", "flat.npz", "--engine", engine)
    assert_told(done, "calibration samples of input 'x' are constant", f"{value:g} everywhere, in all 40 samples")


def test_equal_samples_are_told_once_for_both_engines(model):
    same = {name: np.repeat(array[:1], 40, axis=0) for name, array in arrays().items()}
    np.savez("same.npz", **same)
    done = export(*INT8, "--calibration", "same.npz")
    assert_told(
        done, "openvino int8, onnxruntime int8: calibration samples of 'x', 'kind' are all the same", "40 equal"
    )


def test_a_setting_that_never_changes_is_no_constant_input(here):
    text = "g (float[n, 8] x, float[n, 1] gain) => (float[n, 4] y) { m = MatMul(x, w)\n y = Mul(m, gain) }"
    onnx.save(graph(text, 13, w=weights(0, 8, 4)), "model.onnx")
    np.savez("train.npz", x=arrays()["x"], gain=np.full((40, 1), 0.5, np.float32))
    done = export(*INT8, "--calibration", "train.npz", "--engine", "onnxruntime")
    assert done.exit_code in (3, 4), done.stderr


MISFITS = {
    "missing": ({"x": "x"}, ["'kind' has no samples", "kind: int64[n, 2]"]),
    "unknown": ({"x": "x", "kinds": "kind"}, ["'kind' has no samples", "did you mean 'kinds'?"]),
    "one too many": ({"x": "x", "kind": "kind", "more": "x"}, ["'more' is not an input of the model"]),
    "swapped": ({"x": "kind", "kind": "x"}, ["input 'x' has the wrong dtype", "int64[batch, 2]", "float32[n, 8]"]),
}


@pytest.mark.parametrize("case", MISFITS)
def test_inputs_that_do_not_match_are_named(case, model):
    names, words = MISFITS[case]
    given = arrays()
    np.savez("bad.npz", **{name: given[of] for name, of in names.items()})
    assert_told(export(*INT8, "--calibration", "bad.npz"), *words)


def test_samples_of_another_shape_are_told(model):
    given = arrays()
    np.savez("bad.npz", x=given["x"][:, :7], kind=given["kind"])
    words = ["input 'x' has the wrong shape", "float32[batch, 7]", "x: float32[n, 8]"]
    assert_told(export(*INT8, "--calibration", "bad.npz"), *words)
    np.savez("bad.npz", x=given["x"].astype(np.float32), kind=given["kind"].astype(np.int32))
    assert_told(export(*INT8, "--calibration", "bad.npz"), "input 'kind' has the wrong dtype", "int32[batch, 2]")


def test_samples_of_mixed_sizes_are_told(here):
    encoder = ZOO["opset 20, encoder"]
    onnx.save(encoder.make(), "model.onnx")
    write_samples(here / "train.npz", encoder.make(), encoder.samples, 40)
    write_samples(here / "test.npz", encoder.make(), {"ids": (9,), "mask": (9,)}, 20, seed=1)
    done = export(*INT8, "--calibration", "train.npz", "--test", "test.npz")
    assert_told(done, "test.npz: input 'ids' has the wrong shape", "int64[batch, 9]", "int64[batch, 12]")
    ids = [np.zeros(9, np.int64), np.zeros(12, np.int64)] * 10
    np.savez("ragged.npz", ids=np.array(ids, dtype=object), mask=np.array(ids, dtype=object))
    assert_told(export(*INT8, "--calibration", "ragged.npz"), "ragged.npz", "arrays of numbers of one shape")


def test_inputs_that_disagree_on_one_size_are_told(here):
    encoder = ZOO["opset 14, state by layer"]
    onnx.save(encoder.make(), "model.onnx")
    write_samples(here / "train.npz", encoder.make(), encoder.samples | {"h": (2, 3, 8)}, 40)
    done = export(*INT8, "--calibration", "train.npz")
    assert_told(done, "the samples disagree on the size of 'batch'", "h: [2, 3, 8]", "as in input 'x'")


def test_open_sizes_without_samples_are_asked_for(here):
    onnx.save(ZOO["opset 20, encoder"].make(), "model.onnx")
    assert_told(export(*ELSEWHERE), "input 'ids' has no fixed shape", "--input ids=i64[1,128]")
    assert_told(export(*ELSEWHERE, "--input", "ids=f32[1,9]"), "the shape given for input 'ids' contradicts the model")
    assert_told(export(*ELSEWHERE, "--input", "id=i64[1,9]"), "no input of the model", "did you mean 'ids'?")


# --- models ---------------------------------------------------------------------------------------------------------


def test_boxes_of_varying_number_name_the_operator_and_where_to_cut(here):
    onnx.save(suppressed_boxes(), "model.onnx")
    done = export(*ELSEWHERE)
    assert_told(done, "output 'chosen' has another size for every sample: NonMaxSuppression decides it")
    assert "end the model before it, with onnx.utils.extract_model, at boxes, scores" in " ".join(done.stderr.split())


def test_varying_numbers_are_found_behind_other_operators_and_in_branches(here):
    text = """g (float[n, 6] x, bool flag) => (float[k] y) {
        found = If (flag) <then_branch = a () => (float[k1] t) { i = NonZero(x)
                                                                 f = Cast<to=1>(i)
                                                                 t = Reshape(f, flat) },
                           else_branch = b () => (float[k2] e) { e = Reshape(x, flat) }>
        y = Neg(found)
    }"""
    onnx.save(graph(text, 16, flat=np.array([-1])), "model.onnx")
    assert_told(export(*ELSEWHERE), "output 'y' has another size for every sample: NonZero decides it")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("g (float[2] x) => (seq(float[2]) xs) { xs = SequenceConstruct(x) }", ["output 'xs' is not a tensor"]),
        ("g (optional(float[2]) x) => (bool y) { y = OptionalHasElement(x) }", ["input or output 'x' is not a tensor"]),
        ("g () => (float[2] y) <float[2] w = {1, 2}> { y = Neg(w) }", ["the model has no inputs"]),
    ],
)
def test_what_is_no_tensor_is_named(text, words, here):
    onnx.save(graph(text, 18), "model.onnx")
    assert_told(export(*ELSEWHERE), *[word.replace("output 'xs'", "input or output 'xs'") for word in words])


def foreign(domain: str, operator: str) -> onnx.ModelProto:
    text = f"""<ir_version: 8, opset_import: ["" : 17, "{domain}" : 1]>
    g (float[n, 8] x) => (float[n, 4] y) {{
        s = {domain}.{operator}(x)
        y = MatMul(s, w)
    }}"""
    proto = onnx.parser.parse_model(text)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weights(0, 8, 4), "w"))
    return proto


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize(
    ("engine", "domain", "operator", "other"),
    [
        ("onnxruntime", "org.openvinotoolkit", "Swish", "openvino"),
        ("openvino", "com.microsoft", "Inverse", "onnxruntime"),
    ],
)
def test_an_operator_one_engine_lacks_names_it_and_the_other_engine(engine, domain, operator, other, precision, here):
    proto = foreign(domain, operator)
    if operator == "Inverse":  # of square matrices
        proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 8
        proto.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 8
    onnx.save(proto, "model.onnx")
    square = operator == "Inverse"
    rng = np.random.default_rng(0)
    np.savez("train.npz", x=rng.normal(size=(40, 8, 8) if square else (40, 8)).astype(np.float32))
    asked = (*ELSEWHERE, "--calibration", "train.npz", "--precision", precision)
    done = export(*asked, "--engine", engine)
    assert_told(done, f"{engine} cannot run operator", operator, "engine")
    if precision == "fp32":
        assert f"choose --engine {other}" in done.stderr


def test_an_operator_no_engine_has_is_named(here):
    onnx.save(foreign("somebody", "Frobnicate"), "model.onnx")
    done = export(*ELSEWHERE)
    assert_told(done, "cannot run operator", "Frobnicate", "no engine here takes it")


# --- weights already quantised --------------------------------------------------------------------------------------


def _integers(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-90, 90, shape).astype(np.int8)


QUANTISED = {
    "QDQ": (
        """g (float[n, 8] x) => (float[n, 4] y) <float s = {0.02}, uint8 z = {128}, float ws = {0.01}, int8 wz = {0}> {
            q = QuantizeLinear(x, s, z)
            d = DequantizeLinear(q, s, z)
            wd = DequantizeLinear(w, ws, wz)
            y = MatMul(d, wd)
        }""",
        {"w": _integers(0, 8, 4)},
        ["2 DequantizeLinear", "1 QuantizeLinear"],
    ),
    "int8 weights alone": (
        """g (float[n, 8] x) => (float[n, 4] y) <float ws = {0.01}, int8 wz = {0}> {
            wd = DequantizeLinear(w, ws, wz)
            y = MatMul(x, wd)
        }""",
        {"w": _integers(0, 8, 4)},
        ["1 DequantizeLinear"],
    ),
    "dynamic": (
        """g (float[n, 8] x) => (float[n, 4] y) <float ws = {0.01}> {
            q, s, z = DynamicQuantizeLinear(x)
            i = MatMulInteger(q, w, z)
            f = Cast<to=1>(i)
            t = Mul(s, ws)
            y = Mul(f, t)
        }""",
        {"w": _integers(0, 8, 4)},
        ["1 DynamicQuantizeLinear", "1 MatMulInteger"],
    ),
    "QOperator": (
        """g (float[n, 8] x) => (float[n, 4] y)
        <float s = {0.02}, uint8 z = {128}, float ws = {0.01}, int8 wz = {0}, float ys = {0.05}, uint8 yz = {128}> {
            q = QuantizeLinear(x, s, z)
            p = QLinearMatMul(q, s, z, w, ws, wz, ys, yz)
            y = DequantizeLinear(p, ys, yz)
        }""",
        {"w": _integers(0, 8, 4)},
        ["1 QLinearMatMul"],
    ),
}


@pytest.mark.parametrize("kind", QUANTISED)
def test_weights_already_quantised_are_told_and_deployed_as_they_are(kind, here):
    text, constants, words = QUANTISED[kind]
    onnx.save(graph(text, 17, **constants), "model.onnx")
    np.savez("train.npz", x=arrays()["x"])
    done = export(*INT8, "--calibration", "train.npz")
    assert_told(done, "is quantised already", "allowed: a float model", "--precision fp32", *words)
    done = export(*ELSEWHERE, "--calibration", "train.npz", "--precision", "fp32", "--engine", "onnxruntime")
    assert done.exit_code in (3, 4), done.stderr


def test_four_bit_weights_are_told(here):
    blocks = np.random.default_rng(0).integers(0, 256, (4, 1, 16)).astype(np.uint8)
    node = onnx.helper.make_node(
        "MatMulNBits", ["x", "w", "s"], ["y"], domain="com.microsoft", K=32, N=4, bits=4, block_size=32
    )
    info = onnx.helper.make_tensor_value_info
    proto = onnx.helper.make_model(
        onnx.helper.make_graph(
            [node],
            "g",
            [info("x", onnx.TensorProto.FLOAT, ["n", 32])],
            [info("y", onnx.TensorProto.FLOAT, ["n", 4])],
            [
                onnx.numpy_helper.from_array(blocks, "w"),
                onnx.numpy_helper.from_array(np.full(4, 0.01, np.float32), "s"),
            ],
        ),
        opset_imports=[onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("com.microsoft", 1)],
        ir_version=8,
    )
    onnx.save(proto, "model.onnx")
    np.savez("train.npz", x=np.random.default_rng(0).normal(size=(40, 32)).astype(np.float32))
    assert_told(export(*INT8, "--calibration", "train.npz"), "is quantised already", "1 MatMulNBits")
