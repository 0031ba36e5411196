"""Codebooks on both engines: small files, the float model's kernels, nothing of ours at load."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from product_nets import perceptron, recurrent, run_on, with_weights
from small_nets import save

from edgekit.backends import load_backend
from edgekit.backends.methods import check_plan
from edgekit.catalog import load_target
from edgekit.claimed import require_precision
from edgekit.errors import EngineError, ModelError
from edgekit.quantization.codebooks import codebooks_in
from edgekit.quantization.schemes import plan_of
from edgekit.runtime import open_artifact
from edgekit.runtime.numbers import snr_db

ENGINES = ("onnxruntime", "openvino")
CONVOLUTIONS = """net (float["batch", 16, 9, 9] x) => (float["batch", 10] y) {
    [first] a = Conv<pads=[1, 1, 1, 1]>(x, w1)
    [relu] r = Relu(a)
    [second] b = Conv<pads=[1, 1, 1, 1], strides=[2, 2]>(r, w2, b2)
    [pool] p = GlobalAveragePool(b)
    [flat] f = Flatten(p)
    [head] y = Gemm<transB=1>(f, w3)
}"""
SIZES = {"w1": (64, 16, 3, 3), "w2": (64, 64, 3, 3), "b2": (64,), "w3": (10, 64)}


def coded(engine, precision, fp32, out, **changes):
    plan = replace(plan_of(engine, precision), method="codebook", **changes)
    check_plan(plan, load_target("x86-vnni"))
    return load_backend(engine).quantize(fp32, None, plan, out)


def built(engine, artifact, out):
    return load_backend(engine).compile(artifact, load_target("x86-vnni"), 1, out)


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    return save(with_weights(CONVOLUTIONS, SIZES), tmp_path_factory.mktemp("convolutions"))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("precision", "least", "share"), [("w8", 35.0, 0.31), ("w4", 14.0, 0.19)])
def test_the_file_is_small_and_the_engine_computes_as_in_float(engine, precision, least, share, net, tmp_path):
    artifact = coded(engine, precision, net, tmp_path / "coded")
    assert (artifact.precision, artifact.parent) == (precision, net.sha256)
    small, large = built(engine, artifact, tmp_path / "small"), built(engine, net, tmp_path / "large")
    weights = {"openvino": "model.bin", "onnxruntime": "model.onnx"}[engine]
    sizes = [(model.folder / weights).stat().st_size for model in (small, large)]
    assert sizes[0] < share * sizes[1]
    assert codebooks_in(small) == 2
    assert codebooks_in(large) == 0
    reference, float_nodes = run_on(engine, net, tmp_path / "a")
    actual, coded_nodes = run_on(engine, artifact, tmp_path / "b")
    assert least < snr_db(reference, actual) < 60.0
    assert [(n.op, n.precision) for n in coded_nodes] == [(n.op, n.precision) for n in float_nodes]


@pytest.mark.parametrize("engine", ENGINES)
def test_nothing_is_decoded_while_it_runs(engine, net, tmp_path):
    small = built(engine, coded(engine, "w4", net, tmp_path / "coded"), tmp_path / "small")
    large = built(engine, net, tmp_path / "large")
    kinds = []
    for artifact in (small, large):
        session = open_artifact(artifact)
        placement = session.placement()
        session.close()
        require_precision(artifact, placement)
        kinds.append([node.op for node in placement.nodes])
    assert kinds[0] == kinds[1]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_recurrent_layers_are_decoded_as_well(engine, kind, tmp_path):
    fp32 = save(recurrent(kind), tmp_path / "float")
    artifact = coded(engine, "w8", fp32, tmp_path / "coded")
    reference, _ = run_on(engine, fp32, tmp_path / "a")
    actual, _ = run_on(engine, artifact, tmp_path / "b")
    assert snr_db(reference, actual) > 30.0


def test_both_engines_decode_to_the_same_values(net, tmp_path):
    results = [run_on(e, coded(e, "w4", net, tmp_path / e), tmp_path / f"{e}-built")[0] for e in ENGINES]
    assert snr_db(*results) > 90.0


def test_notes_tell_what_was_stored_and_what_was_left(net, tmp_path):
    (note,) = coded("onnxruntime", "w8", net, tmp_path / "all").notes
    assert note == (
        "2 weights in codebooks of 256 values: 0.18 MB became 0.05 MB; decoded when the model is opened, computed in"
        " float"
    )
    *_, left = coded("openvino", "w8", net, tmp_path / "some", float_groups=("second",)).notes
    assert left == "left in float: second (as the plan says)"


@pytest.mark.parametrize("engine", ENGINES)
def test_a_model_without_large_weights_is_refused(engine, tmp_path):
    tiny = with_weights('g (float["batch", 8] x) => (float["batch", 4] y) { [only] y = MatMul(x, w) }', {"w": (8, 4)})
    with pytest.raises(ModelError, match="no weights to put into codebooks") as caught:
        coded(engine, "w4", save(tiny, tmp_path / "float"), tmp_path / "coded")
    assert caught.value.fix
    assert not (tmp_path / "coded").exists()


def test_weights_quantised_already_are_refused(net, tmp_path):
    fp32 = save(perceptron(), tmp_path / "float")
    plan = replace(plan_of("onnxruntime", "w8"), scheme=load_backend("onnxruntime").scheme(load_target("x86-vnni")))
    once = load_backend("onnxruntime").quantize(fp32, None, plan, tmp_path / "once")
    with pytest.raises(ModelError, match="quantised"):
        coded("onnxruntime", "w8", once, tmp_path / "twice")


def test_int8_by_codebooks_is_refused_and_says_what_there_is():
    plan = replace(plan_of("openvino", "int8"), method="codebook", corrections=())
    with pytest.raises(EngineError, match="no method 'codebook' for int8") as caught:
        check_plan(plan, load_target("x86-vnni"))
    assert "minmax" in (caught.value.allowed or "")


def test_damaged_indices_cannot_reach_beyond_the_codebook(net, tmp_path):
    """Every byte is an index: a codebook has 256 rows whatever the number of bits."""
    artifact = coded("onnxruntime", "w4", net, tmp_path / "coded")
    proto = onnx.load(artifact.path)
    rows = [t.dims[0] for t in proto.graph.initializer if t.name.endswith("/codebook")]
    assert rows == [256, 256]
    assert all(np.isfinite(onnx.numpy_helper.to_array(t)).all() for t in proto.graph.initializer)
