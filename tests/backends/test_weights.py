"""Weights of 8 and 4 bits on both engines: what is stored how, what runs, and how near the float model it stays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from product_nets import perceptron, run_on, with_weights
from small_nets import HEAD, conv_net, save

from edgekit.backends import load_backend
from edgekit.backends.onnxruntime_products import gemm_to_matmul
from edgekit.catalog import load_target
from edgekit.errors import ModelError, UnknownName
from edgekit.quantization.schemes import plan_of
from edgekit.runtime.numbers import snr_db

ENGINES = ("onnxruntime", "openvino")


def small(engine, precision, fp32, out, *, symmetric=True, **changes):
    backend = load_backend(engine)
    scheme = replace(backend.scheme(load_target("x86-vnni")), weight_symmetric=symmetric)
    return backend.quantize(fp32, None, replace(plan_of(engine, precision), scheme=scheme, **changes), out)


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    return save(perceptron(), tmp_path_factory.mktemp("perceptron"))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("precision", "least", "most"), [("w8", 30.0, 60.0), ("w4", 12.0, 30.0)])
def test_small_weights_are_near_the_float_ones(engine, precision, least, most, net, tmp_path):
    artifact = small(engine, precision, net, tmp_path / "small")
    assert (artifact.precision, artifact.parent) == (precision, net.sha256)
    assert [spec.name for spec in (*artifact.inputs, *artifact.outputs)] == ["x", "y"]
    reference, _ = run_on(engine, net, tmp_path / "float")
    actual, _ = run_on(engine, artifact, tmp_path / "built")
    assert least < snr_db(reference, actual) < most


@pytest.mark.parametrize("engine", ENGINES)
def test_the_file_is_smaller_by_the_weights(engine, net, tmp_path):
    name = {"openvino": "model.bin", "onnxruntime": "model.onnx"}[engine]
    folders = {p: small(engine, p, net, tmp_path / p).folder for p in ("w8", "w4")}
    sizes = {p: (folder / name).stat().st_size for p, folder in folders.items()}
    weights = 64 * 96 + 96 * 64 + 10 * 64
    assert sizes["w8"] - sizes["w4"] == pytest.approx(weights / 2, rel=0.25)


@pytest.mark.parametrize("engine", ENGINES)
def test_asymmetric_weights_are_nearer_where_they_lean(engine, tmp_path):
    """Weights around one, of which a symmetric range wastes half."""
    text = 'g (float["batch", 64] x) => (float["batch", 32] y) { [only] y = MatMul(x, w) }'
    proto = with_weights(text, {})
    weights = np.random.default_rng(3).uniform(0.5, 1.5, (64, 32)).astype(np.float32)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
    fp32 = save(proto, tmp_path / "float")
    reference, _ = run_on(engine, fp32, tmp_path / "built")
    db = {}
    for symmetric in (True, False):
        artifact = small(engine, "w4", fp32, tmp_path / str(symmetric), symmetric=symmetric)
        db[symmetric] = snr_db(reference, run_on(engine, artifact, tmp_path / f"built-{symmetric}")[0])
    assert db[False] > db[True] + 3.0


def test_onnx_runtime_ran_the_products_from_small_weights(net, tmp_path):
    _, compute = run_on("onnxruntime", small("onnxruntime", "w4", net, tmp_path / "w4"), tmp_path / "built")
    assert [node.op for node in compute] == ["MatMulNBits"] * 3


@pytest.mark.parametrize(("precision", "bits"), [("w8", "8"), ("w4", "4")])
def test_notes_count_the_products(precision, bits, net, tmp_path):
    assert small("onnxruntime", precision, net, tmp_path / "o").notes == (
        f"weights of 3 matrix products in {bits} bits; activations are rounded to 8 bits as they come",
    )
    (note,) = small("openvino", precision, net, tmp_path / "v").notes
    assert note.startswith(f"weights of matrix products: 3 in {bits} bits")


@pytest.mark.parametrize("engine", ENGINES)
def test_nodes_left_in_float_are_named_with_the_reason(engine, net, tmp_path):
    artifact = small(engine, "w8", net, tmp_path / "small", float_groups=("second",))
    assert any("second (as the plan says)" in note for note in artifact.notes)
    reference, _ = run_on(engine, net, tmp_path / "float")
    actual, compute = run_on(engine, artifact, tmp_path / "built")
    assert snr_db(reference, actual) > 30.0
    if engine == "onnxruntime":
        assert sorted(node.op for node in compute) == ["Gemm", "MatMulNBits", "MatMulNBits"]


@pytest.mark.parametrize("engine", ENGINES)
def test_convolutions_stay_and_are_told(engine, tmp_path):
    artifact = small(engine, "w8", save(conv_net(), tmp_path / "float"), tmp_path / "small")
    assert any("conv0" in note or "3 convolutions" in note for note in artifact.notes)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("precision", ["w8", "w4"])
def test_a_model_without_products_is_refused(engine, precision, tmp_path):
    text = 'g (float["batch", 4] x) => (float["batch", 4] y) { [relu] y = Relu(x) }'
    fp32 = save(onnx.parser.parse_model(HEAD + text), tmp_path / "float")
    with pytest.raises(ModelError, match=r"no matrix product with constant weights\n(.|\n)*choose .*int8"):
        small(engine, precision, fp32, tmp_path / "small")


@pytest.mark.parametrize("engine", ENGINES)
def test_a_plan_that_leaves_all_in_float_is_refused(engine, net, tmp_path):
    with pytest.raises(ModelError, match="leave fewer nodes in float"):
        small(engine, "w8", net, tmp_path / "small", float_groups=("first", "second", "third"))


@pytest.mark.parametrize("engine", ENGINES)
def test_an_unknown_node_is_told_with_the_nearest(engine, net, tmp_path):
    with pytest.raises(UnknownName, match="did you mean 'second'"):
        small(engine, "w8", net, tmp_path / "small", float_groups=("secon",))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_matrix_that_no_group_fits_is_stored_all_the_same(engine, tmp_path):
    """7 inputs: ONNX Runtime pads the block, NNCF falls back to 8 bits."""
    text = 'g (float["batch", 7] x) => (float["batch", 33] y) { [odd] y = MatMul(x, w) }'
    fp32 = save(with_weights(text, {"w": (7, 33)}), tmp_path / "float")
    artifact = small(engine, "w4", fp32, tmp_path / "small")
    reference, _ = run_on(engine, fp32, tmp_path / "built")
    assert snr_db(reference, run_on(engine, artifact, tmp_path / "built-small")[0]) > 12.0
    if engine == "openvino":
        assert artifact.notes[0].startswith("weights of matrix products: 1 in 8 bits")


def test_a_gemm_becomes_a_product_of_the_same_name_and_value(tmp_path):
    """Weights that two of them share, one of them transposed."""
    text = """g (float["batch", 16] x) => (float["batch", 16] y) {
        [one] a = Gemm<transB=1, alpha=3.0>(x, w, b)
        [two] c = Gemm(a, w)
        [three] y = Gemm<transB=1>(c, w, b)
    }"""
    proto = with_weights(text, {"w": (16, 16), "b": (16,)})
    before = save(proto, tmp_path / "before")
    gemm_to_matmul(proto)
    assert [(n.op_type, n.name) for n in proto.graph.node if n.op_type != "Add"] == [
        ("MatMul", name) for name in ("one", "two", "three")
    ]
    onnx.checker.check_model(proto)
    after = save(proto, tmp_path / "after")
    outputs = [run_on("onnxruntime", model, tmp_path / model.folder.name / "built")[0] for model in (before, after)]
    assert snr_db(*outputs) > 110.0


@pytest.mark.parametrize("engine", ENGINES)
def test_two_runs_give_the_same_bytes(engine, net, tmp_path):
    assert small(engine, "w4", net, tmp_path / "one").files == small(engine, "w4", net, tmp_path / "two").files


@pytest.mark.parametrize("engine", ENGINES)
def test_a_model_stored_small_already_is_refused(engine, net, tmp_path):
    once = small("onnxruntime", "w8", net, tmp_path / "once")
    with pytest.raises(ModelError, match="quantised already"):
        small(engine, "w8", once, tmp_path / "twice")
