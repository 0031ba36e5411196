import dataclasses

import numpy as np
import pytest
from fake_line import null_artifact

from edgekit.artifact import TensorSpec
from edgekit.checking import check, make_references
from edgekit.claimed import ran_in_float, require_precision
from edgekit.errors import EngineError
from edgekit.random_inputs import random_samples
from edgekit.runtime import open_artifact
from edgekit.runtime.placement import PlacedNode, Placement
from edgekit.runtime.session import one_query

WEIGHTS = ", ".join(str(v) for v in np.random.default_rng(0).integers(-100, 100, 64 * 64))
SMALL = f"""small (float["batch", 64] input) => (float["batch", 64] output)
    <int8[64, 64] w = {{{WEIGHTS}}}, float s = {{0.01}}, int8 z = {{0}}> {{
        d = DequantizeLinear(w, s, z)
        output = MatMul(input, d)
    }}"""


def node(name, precision, *, op="Conv", compute=True, weights=None, macs=None, time_us=None, origins=()):
    return PlacedNode(
        name=name,
        op=op,
        precision=precision,
        compute=compute,
        weights=weights,
        macs=macs,
        time_us=time_us,
        origins=origins,
    )


def placed(*nodes):
    return Placement(device="CPU", nodes=nodes)


# ---- shares ----


def test_shares_by_nodes_arithmetic_and_time():
    placement = placed(
        node("a", "int8", macs=900, time_us=30.0),
        node("b", "fp32", macs=100, time_us=10.0),
        node("q", "int8", op="Pool", compute=False, time_us=40.0),
        node("r", "fp32", op="Softmax", compute=False, time_us=20.0),
    )
    shares = [placement.share("int8", by=by) for by in ("nodes", "macs", "time")]
    assert shares == [0.5, 0.9, pytest.approx(0.7)]


def test_a_share_is_not_known_where_a_part_of_it_is_not():
    placement = placed(node("a", "int8", macs=900), node("b", "fp32", time_us=1.0))
    assert placement.share("int8") == 0.5
    assert placement.share("int8", by="macs") is None
    assert placement.share("int8", by="time") is None
    assert placed(node("q", "int8", compute=False, time_us=1.0)).share("int8", by="time") is None


# ---- a plan that the engine did not follow ----


@pytest.mark.parametrize("precision", ["int8", "fp16", "bf16"])
def test_nothing_run_in_the_precision_of_the_plan_is_an_error(tmp_path, precision):
    artifact = null_artifact(tmp_path / "a", precision=precision)
    ran = placed(
        node("a", "fp32"), node("b", "fp32"), node("c", "fp32", op="Gemm"), node("q", precision, compute=False)
    )
    with pytest.raises(EngineError, match=f"null ran no convolution or matrix product in {precision}") as caught:
        require_precision(artifact, ran)
    assert caught.value.found == "2 Conv in fp32, 1 Gemm in fp32"
    assert caught.value.allowed == f"one at least in {precision}"
    assert caught.value.fix
    require_precision(artifact, placed(node("a", "fp32"), node("b", precision)))


def test_a_quantised_model_with_nothing_to_compute_is_an_error(tmp_path):
    with pytest.raises(EngineError) as caught:
        require_precision(null_artifact(tmp_path / "a", precision="int8"), placed(node("q", "int8", compute=False)))
    assert caught.value.found == "a model without convolutions and matrix products"


def test_fp32_claims_nothing(tmp_path):
    require_precision(null_artifact(tmp_path / "a"), placed(node("a", "bf16")))


@pytest.mark.parametrize(("precision", "small", "other"), [("w8", "int8", "int4"), ("w4", "int4", "int8")])
def test_small_weights_are_held_or_it_is_an_error(tmp_path, precision, small, other):
    artifact = null_artifact(tmp_path / "a", precision=precision)
    require_precision(artifact, placed(node("a", "fp32", op="MatMul"), node("b", "fp32", op="MatMul", weights=small)))
    with pytest.raises(EngineError, match=f"null holds no weights in {small}, although the model is {precision}"):
        require_precision(artifact, placed(node("a", "fp32", op="MatMul", weights=other)))


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_weights_alone_in_int8_are_w8_and_not_int8(tiny_artifact, engine):
    artifact = tiny_artifact(SMALL, engine, precision="w8")
    session = open_artifact(artifact)
    placement = session.placement()
    session.close()
    require_precision(artifact, placement)
    with pytest.raises(EngineError, match=f"{engine} ran no convolution or matrix product in int8"):
        require_precision(dataclasses.replace(artifact, precision="int8"), placement)
    with pytest.raises(EngineError, match=f"{engine} holds no weights in int4"):
        require_precision(dataclasses.replace(artifact, precision="w4"), placement)


def checked(artifact, **options):
    samples = random_samples(artifact.inputs)
    session = open_artifact(artifact)
    rows = [session.run(samples.tensors(np.array([i])))["output"] for i in range(len(samples))]
    session.close()
    outputs = {"output": np.concatenate(rows)}
    return check(make_references(outputs, outputs, samples, None, None), artifact, samples, None, **options)


def test_int8_that_runs_in_float_does_not_pass_the_check(tiny_artifact):
    # Symmetric signed activations: ONNX Runtime on x86 has no kernels for them and dequantises.
    artifact = tiny_artifact("chain_int8", precision="int8", provider="CPUExecutionProvider")
    session = open_artifact(artifact)
    floats = session.placement().share("fp32") == 1.0
    session.close()
    if floats:
        with pytest.raises(EngineError, match="onnxruntime ran no convolution or matrix product in int8") as caught:
            checked(artifact)
        assert caught.value.found == "3 FusedConv in fp32"
        # On another host than the target it proves nothing: there the kernels are others.
        proof = checked(artifact, on_target=False)
        assert (proof.int8_share, proof.ran_in_float) == (0.0, ())
    else:  # ARM
        assert checked(artifact).int8_share == 1.0


def test_int8_that_runs_in_int8_passes_with_its_shares(tiny_artifact):
    proof = checked(tiny_artifact("chain_uint8", precision="int8"))
    assert (proof.int8_share, proof.int8_share_macs, proof.ran_in_float) == (1.0, 1.0, ())
    assert 0.0 < proof.int8_share_time <= 1.0
    (convs,) = (o for o in proof.placement if o.compute)
    assert (convs.count, convs.macs) == (3, 3 * 64 * 8 * 8 * 9)
    assert convs.time_us > 0


# ---- what fell out ----


def test_quantised_nodes_that_ran_in_float_are_named(tiny_artifact, tiny_onnx):
    proto = tiny_onnx("chain_int8")
    for i, found in enumerate(proto.graph.node):
        found.name = f"{found.op_type}_{i}"
    artifact = tiny_artifact(proto, precision="int8")
    ran = placed(node("x", "fp32", origins=("Conv_3",)), node("Conv_8", "int8"), node("r2", "fp32"), node("y", "fp32"))
    assert ran_in_float(artifact, ran) == ("Conv_3", "Conv_13")  # the last goes by its activation's output
    assert ran_in_float(dataclasses.replace(artifact, precision="fp32"), ran) == ()


def test_int8_of_which_most_ran_in_float_is_an_error_that_names_it(tiny_artifact, tiny_onnx):
    proto = tiny_onnx("chain_int8")
    for i, found in enumerate(proto.graph.node):
        found.name = f"{found.op_type}_{i}"
    artifact = tiny_artifact(proto, precision="int8")
    half = placed(node("Conv_3", "fp32", macs=500), node("Conv_8", "int8", macs=500))
    require_precision(artifact, half)
    most = placed(node("Conv_3", "fp32", macs=981), node("Conv_8", "int8", macs=19), node("own", "fp32", macs=9000))
    with pytest.raises(EngineError, match="onnxruntime ran most of what is int8 in the model in float") as caught:
        require_precision(artifact, most)
    assert caught.value.found == "98.1% of its multiply-accumulates: Conv_3"
    assert "--float" in caught.value.fix


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_float_convolution_among_quantised_ones_is_not_said_to_have_fallen_out(tiny_artifact, tiny_onnx, engine):
    proto = tiny_onnx("five_convs")
    artifact = tiny_artifact(proto, engine, precision="int8")
    session = open_artifact(artifact)
    placement = session.placement()
    session.close()
    assert ran_in_float(artifact, placement) == ()


def test_quantised_nodes_of_an_ir_that_ran_in_float_are_named(tiny_artifact, tiny_onnx, tmp_path):
    import openvino

    proto = tiny_onnx("chain_uint8")
    for i, found in enumerate(proto.graph.node):
        found.name = f"{found.op_type}_{i}"
    source = tiny_artifact(proto, "openvino", precision="int8")
    openvino.save_model(openvino.Core().read_model(str(source.path)), str(source.folder / "model.xml"))
    artifact = dataclasses.replace(source, model="model.xml")
    assert ran_in_float(artifact, placed(node("Conv_3", "fp32"), node("Conv_8", "int8"))) == ("Conv_3",)


def test_an_artifact_of_no_format_that_names_its_nodes(tmp_path):
    assert ran_in_float(null_artifact(tmp_path / "a", precision="int8"), placed(node("null", "fp32"))) == ()


# ---- the query that is recorded ----


@pytest.mark.parametrize(
    ("shape", "count", "taken"),
    [((1, 4), 5, 1), ((3, 4), 5, 3), ((8, 4), 5, 8), (("batch", 4), 5, 1), ((1, 5), 5, None), ((1, 4), 0, None)],
)
def test_the_first_samples_make_a_query(shape, count, taken):
    specs = [TensorSpec(name="x", dtype="float32", shape=shape)]
    found = one_query({"x": np.ones((count, 4), np.float32)}, specs)
    assert (None if found is None else len(found["x"])) == taken


def test_samples_that_are_of_another_model_make_no_query():
    specs = [TensorSpec(name="x", dtype="float32", shape=(1, 4))]
    assert one_query({}, specs) is None
    assert one_query({"x": np.ones((2, 4))}, specs) is None
