"""Static int8 on ONNX Runtime: range methods, corrections, ranges kept for the next plan, what int8 cannot hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx.numpy_helper import to_array
from small_nets import HEAD, quantise, samples_for, save

from edgekit.backends import onnxruntime as backend
from edgekit.catalog import load_target
from edgekit.data import Samples
from edgekit.quantization.schemes import Plan
from edgekit.runtime import open_artifact
from edgekit.runtime.numbers import run_batched, snr_db

ENGINE = "onnxruntime"


def outputs_of(artifact, inputs, tmp_path, count=8):
    session = open_artifact(backend.compile(artifact, load_target("x86-vnni"), 1, tmp_path))
    try:
        return run_batched(session, samples_for(inputs, count).tensors(range(count)))
    finally:
        session.close()


@pytest.mark.parametrize("method", backend.STATIC_METHODS)
def test_every_range_method_is_near_the_float_model(method, float_net, tmp_path):
    artifact = quantise(ENGINE, "x86-vnni", float_net, tmp_path / "int8", method=method)
    reference = outputs_of(float_net, float_net.inputs, tmp_path / "a")["logits"]
    assert snr_db(reference, outputs_of(artifact, float_net.inputs, tmp_path / "b")["logits"]) > 15.0
    again = quantise(ENGINE, "x86-vnni", float_net, tmp_path / "again", method=method)
    assert again.sha256 == artifact.sha256


def test_the_ranges_are_the_methods(float_net, tmp_path):
    made = {m: quantise(ENGINE, "x86-vnni", float_net, tmp_path / m, method=m) for m in backend.STATIC_METHODS}
    assert len({artifact.sha256 for artifact in made.values()}) == len(made)


@pytest.mark.parametrize("correction", backend.CORRECTIONS)
def test_every_correction_changes_the_model_and_keeps_it_near(correction, float_net, made, tmp_path):
    text = """mixed (float["n", 3, 16, 16] image) => (float["n", 5] logits) {
        [one] a = Conv<pads=[1, 1, 1, 1]>(image, w0, b0) [act] b = Relu(a) [two] c = Conv(b, w1)
        [pool] p = GlobalAveragePool(c) [flat] f = Flatten(p) [gain] g = Mul(f, s) [product] logits = MatMul(g, w2) }"""
    proto = onnx.parser.parse_model(HEAD + text)
    rng = np.random.default_rng(0)
    shapes = {"w0": (8, 3, 3, 3), "b0": (8,), "w1": (8, 8, 1, 1), "s": (8,), "w2": (8, 5)}
    for name, shape in shapes.items():
        values = rng.normal(0, 0.4, shape).astype("float32")
        proto.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    fp32 = save(proto, tmp_path / "float")
    plain = quantise(ENGINE, "x86-vnni", fp32, tmp_path / "plain")
    artifact = quantise(ENGINE, "x86-vnni", fp32, tmp_path / "int8", corrections=(correction,))
    assert artifact.sha256 != plain.sha256
    assert artifact.notes == ()
    reference = outputs_of(fp32, fp32.inputs, tmp_path / "a")["logits"]
    assert snr_db(reference, outputs_of(artifact, fp32.inputs, tmp_path / "b")["logits"]) > 15.0
    again = quantise(ENGINE, "x86-vnni", fp32, tmp_path / "again", corrections=(correction,))
    assert again.sha256 == artifact.sha256


def test_corrections_of_what_is_not_static_are_refused():
    plan = Plan(engine=ENGINE, precision="int8", method="dynamic", corrections=("equalize",))
    assert (
        backend.refuses(plan, load_target("x86-vnni"))
        == "dynamic int8 takes no correction but smooth-quant, and this has equalize"
    )


def test_ranges_serve_the_next_plan(float_net, tmp_path):
    read = []
    samples = samples_for(float_net.inputs)

    def fetch(indices):
        read.extend(indices.tolist())
        return samples.fetch(indices)

    counted = Samples(name="counted", count=len(samples), fetch=fetch)
    scheme = backend.scheme(load_target("x86-vnni"))

    def make(name, **changes):
        read.clear()
        plan = Plan(engine=ENGINE, precision="int8", scheme=scheme, **changes)
        artifact = backend.quantize(float_net, counted.batches(1), plan, tmp_path / name, cache=tmp_path / "cache")
        return artifact, len(read)

    first, walked = make("first", method="mse")
    _, fewer = make("other", method="entropy", float_groups=("conv1",))
    assert walked == 2 * fewer  # they are hashed once more, not run
    again, _ = make("again", method="mse")
    assert again.sha256 == first.sha256


# What int8 cannot hold, and what must not crash


def build(text, tmp_path, **values):
    proto = onnx.parser.parse_model(HEAD + text)
    for name, value in values.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value, np.float32), name))
    return save(proto, tmp_path / "float")


@pytest.mark.parametrize(
    ("mask", "why"), [(-np.inf, "its values are not finite"), (-1e9, "its values reach 1e+09, a mask")]
)
def test_a_masked_product_stays_in_float(mask, why, tmp_path):
    text = """masked (float["n", 4] image) => (float["n", 3] y) { m = Add(image, mask) [product] y = MatMul(m, w) }"""
    fp32 = build(text, tmp_path, mask=[0.0, 0.0, mask, 0.0], w=np.eye(4, 3))
    assert quantise(ENGINE, "x86-vnni", fp32, tmp_path / "int8").notes == (f"left in float: product ({why})",)


def test_a_dead_channels_bias_keeps_its_digits(tmp_path):
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(8, 3, 3, 3))
    weights[2] = 0.0
    text = """dead (float["n", 3, 8, 8] image) => (float["n", 8, 6, 6] y) { [one] y = Conv(image, w, b) }"""
    fp32 = build(text, tmp_path, w=weights, b=np.full(8, 0.0137))
    artifact = quantise(ENGINE, "x86-vnni", fp32, tmp_path / "int8")
    values = {tensor.name: to_array(tensor) for tensor in onnx.load(artifact.path).graph.initializer}
    assert values["w_scale"][2] < 1e-3
    assert values["b_quantized"][2] * values["b_quantized_scale"][2] == pytest.approx(0.0137, rel=1e-3)


@pytest.mark.parametrize("method", backend.STATIC_METHODS)
def test_constant_and_zero_activations_are_quantised(method, tmp_path):
    text = """flat (float["n", 3, 8, 8] image) => (float["n", 4, 8, 8] y) {
        [none] z = Mul(image, zero) [one] a = Conv(z, w, b) [two] c = Conv(a, v)
        [act] d = Relu(c) [three] y = Conv(d, v) }"""
    fp32 = build(text, tmp_path, zero=0.0, w=np.ones((4, 3, 1, 1)), b=np.full(4, 3.0), v=-np.ones((4, 4, 1, 1)))
    artifact = quantise(ENGINE, "x86-vnni", fp32, tmp_path / "int8", method=method)
    np.testing.assert_allclose(outputs_of(artifact, fp32.inputs, tmp_path / "b")["y"], 0.0, atol=1e-6)


def test_branches_are_left_as_they_are(tmp_path):
    text = """branches (float["n", 3, 8, 8] image) => (float["n", 4, 8, 8] y) {
        [one] a = Conv(image, w) [act] r = Relu(a) s = ReduceMax<keepdims=0>(image) flag = Greater(s, limit)
        [either] e = If(flag) <then_branch = t () => (float["n", 4, 8, 8] u) { u = Neg(r) },
                               else_branch = f () => (float["n", 4, 8, 8] v) { v = Abs(r) }>
        [two] y = Conv(e, x) }"""
    rng = np.random.default_rng(0)
    fp32 = build(text, tmp_path, w=rng.normal(size=(4, 3, 1, 1)), x=rng.normal(size=(4, 4, 1, 1)), limit=0.0)
    for corrections in ((), backend.CORRECTIONS):
        artifact = quantise(ENGINE, "x86-vnni", fp32, tmp_path / "int8", corrections=corrections)
        reference = outputs_of(fp32, fp32.inputs, tmp_path / "a")["y"]
        assert snr_db(reference, outputs_of(artifact, fp32.inputs, tmp_path / "b")["y"]) > 25.0
        assert artifact.notes == ()


def test_the_tools_own_choice_of_operators_is_still_there(float_net, tmp_path):
    scheme = replace(backend.scheme(load_target("x86-vnni")), operators={})
    artifact = quantise(ENGINE, "x86-vnni", float_net, tmp_path / "int8", scheme=scheme)
    proto = onnx.load(artifact.path)
    assert proto.graph.node[-1].op_type == "DequantizeLinear"  # it quantises the model's output, too
    reference = outputs_of(float_net, float_net.inputs, tmp_path / "a")["logits"]
    assert snr_db(reference, outputs_of(artifact, float_net.inputs, tmp_path / "b")["logits"]) > 20.0


@pytest.mark.parametrize("target", ["x86-vnni", "local"])
def test_a_product_with_a_bias_runs_in_int8_also_where_shapes_are_known(target, tmp_path):
    text = """encoder (float["n", 6, 16] tokens) => (float["n", 6, 16] hidden) {
        [first] a = MatMul(tokens, w0) [plus] b = Add(a, b0) [act] c = Relu(b)
        [second] d = MatMul(c, w1) [more] hidden = Add(b1, d) }"""
    proto = onnx.parser.parse_model(HEAD + text)
    rng = np.random.default_rng(0)
    for name, shape in {"w0": (16, 16), "b0": (16,), "w1": (16, 16), "b1": (16,)}.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(rng.normal(0, 0.4, shape).astype("float32"), name))
    fp32 = save(proto, tmp_path / "float")
    built = backend.compile(quantise(ENGINE, target, fp32, tmp_path / "int8"), load_target(target), 1, tmp_path / "out")
    session = open_artifact(built)
    assert session.placement().share("int8") == 1.0
    session.close()
    reference = outputs_of(fp32, fp32.inputs, tmp_path / "a")["hidden"]
    artifact = quantise(ENGINE, target, fp32, tmp_path / "again")
    assert snr_db(reference, outputs_of(artifact, fp32.inputs, tmp_path / "b")["hidden"]) > 20.0
