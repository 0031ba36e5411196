"""One suite for every engine that executes here: whoever adds an engine adds it to ENGINES."""

from __future__ import annotations

import platform
from dataclasses import replace

import numpy as np
import pytest
from tiny_models import _initialiser

from edgekit import runtime
from edgekit.errors import BundleError, EngineError, FeedError, UnknownName

COMPUTING = ["onnxruntime", "openvino"]
ENGINES = [*COMPUTING, "null"]


@pytest.fixture(params=ENGINES)
def engine(request):
    assert runtime.missing(request.param) is None, "an engine is never skipped: install it"
    return request.param


@pytest.fixture
def opened(tiny_artifact):
    """Opens a tiny model on an engine and closes it after the test."""
    sessions = []

    def open_(model, engine, **options):
        sessions.append(runtime.open_artifact(tiny_artifact(model, engine, **options)))
        return sessions[-1]

    yield open_
    for session in sessions:
        session.close()


def image(batch=2, seed=0):
    return np.random.default_rng(seed).normal(size=(batch, 3, 8, 8)).astype(np.float32)


def expected_conv(images):
    """The conv model's output, by numpy."""
    from onnx import numpy_helper
    from onnx.parser import parse_model
    from tiny_models import HEAD, MODELS

    model = parse_model(HEAD.format(domain="") + MODELS["conv"])
    kernel = numpy_helper.to_array(model.graph.initializer[0])
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    return np.maximum(np.einsum("nchwij,ocij->nohw", windows, kernel), 0)


def test_tells_its_inputs_outputs_and_version(engine, opened):
    session = opened("conv", engine)
    assert [str(spec) for spec in session.inputs] == ["input: float32[batch, 3, 8, 8]"]
    assert [str(spec) for spec in session.outputs] == ["output: float32[batch, 4, 8, 8]"]
    assert runtime.engine_version(engine)[0].isdigit()


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_a_dynamic_batch_takes_any_size(engine, opened, batch):
    session = opened("conv", engine)
    output = session.run({"input": image(batch)})["output"]
    assert output.shape == (batch, 4, 8, 8)
    assert output.dtype == np.float32


@pytest.mark.parametrize("computing", COMPUTING)
@pytest.mark.parametrize("model", ["conv", "conv_batch2"])
def test_computes_what_numpy_computes(computing, opened, model):
    output = opened(model, computing).run({"input": image()})["output"]
    np.testing.assert_allclose(output, expected_conv(image()), atol=1e-5)


@pytest.mark.parametrize("computing", COMPUTING)
def test_two_inputs_go_by_name_not_by_order(computing, opened):
    session = opened("two_inputs", computing)
    left, right = np.full((3, 4), 2, np.float32), np.full((3, 4), 5, np.float32)
    for feeds in ({"left": left, "right": right}, {"right": right, "left": left}):
        outputs = session.run(feeds)
        assert list(outputs) == ["sum", "product"]
        assert (outputs["sum"] == 7).all()
        assert (outputs["product"] == 10).all()


@pytest.mark.parametrize("computing", COMPUTING)
def test_integers_and_booleans_keep_their_dtype(computing, opened):
    session = opened("integers", computing)
    ids = np.arange(8, dtype=np.int64).reshape(2, 4) + 2**20
    kept = session.run({"ids": ids, "mask": ids % 2 == 0})["kept"]
    assert kept.dtype == np.int64
    np.testing.assert_array_equal(kept, np.where(ids % 2 == 0, ids, 0))


@pytest.mark.parametrize("computing", COMPUTING)
@pytest.mark.parametrize("make", [lambda x: x[::-1], lambda x: np.asfortranarray(x)], ids=["reversed", "fortran"])
def test_arrays_that_are_not_contiguous_are_read_right(computing, opened, make):
    session = opened("conv", computing)
    output = session.run({"input": make(image())})["output"]
    np.testing.assert_allclose(output, expected_conv(np.ascontiguousarray(make(image()))), atol=1e-5)


@pytest.mark.parametrize("computing", COMPUTING)
def test_read_only_arrays_are_taken(computing, opened):
    images = image()
    images.flags.writeable = False
    output = opened("conv", computing).run({"input": images})["output"]
    np.testing.assert_allclose(output, expected_conv(images), atol=1e-5)


def test_an_unknown_input_name_is_an_error(engine, opened):
    with pytest.raises(FeedError, match="unknown input 'inptu'") as caught:
        opened("conv", engine).run({"inptu": image()})
    assert caught.value.fix == "did you mean 'input'?"


def test_a_missing_input_is_an_error(engine, opened):
    with pytest.raises(FeedError, match="input 'right' is missing"):
        opened("two_inputs", engine).run({"left": np.zeros((2, 4), np.float32)})


def test_one_input_too_many_is_an_error(engine, opened):
    with pytest.raises(FeedError, match="unknown input 'more'"):
        opened("conv", engine).run({"input": image(), "more": image()})


@pytest.mark.parametrize("dtype", ["float64", "float16", "int32", ">f4"])
def test_a_wrong_dtype_is_an_error(engine, opened, dtype):
    with pytest.raises(FeedError, match="wrong dtype") as caught:
        opened("conv", engine).run({"input": image().astype(dtype)})
    assert caught.value.allowed == "float32"


@pytest.mark.parametrize("shape", [(2, 3, 8, 9), (2, 3, 8), (3, 8, 8), (0, 3, 8, 8), (1, 2, 3, 8, 8), ()])
def test_a_wrong_shape_is_an_error(engine, opened, shape):
    with pytest.raises(FeedError, match="wrong shape") as caught:
        opened("conv", engine).run({"input": np.zeros(shape, np.float32)})
    assert caught.value.found == list(shape)


@pytest.mark.parametrize("batch", [1, 3])
def test_another_batch_than_the_compiled_one_is_an_error(engine, opened, batch):
    with pytest.raises(FeedError, match="wrong shape"):
        opened("conv_batch2", engine).run({"input": image(batch)})


def test_inputs_that_disagree_on_the_batch_are_an_error(engine, opened):
    feeds = {"left": np.zeros((1, 4), np.float32), "right": np.zeros((3, 4), np.float32)}
    with pytest.raises(FeedError, match="disagree on the size of 'batch'"):
        opened("two_inputs", engine).run(feeds)


@pytest.mark.parametrize("value", [[[1.0]], 3.0, None, "text"])
def test_what_is_not_an_array_is_an_error(engine, opened, value):
    with pytest.raises(FeedError, match="not an array"):
        opened("conv", engine).run({"input": value})


def test_a_refused_feed_leaves_the_session_usable(engine, opened):
    session = opened("conv", engine)
    with pytest.raises(FeedError):
        session.run({})
    assert session.run({"input": image()})["output"].shape == (2, 4, 8, 8)


def test_outputs_belong_to_the_caller(engine, opened):
    session = opened("conv", engine)
    first = session.run({"input": image(seed=1)})["output"]
    kept = first.copy()
    second = session.run({"input": image(seed=2)})["output"]
    np.testing.assert_array_equal(first, kept)
    second[...] = 7.0
    assert not np.shares_memory(first, second)
    np.testing.assert_array_equal(session.run({"input": image(seed=1)})["output"], kept)


@pytest.mark.parametrize("computing", COMPUTING)
def test_outputs_that_are_inputs_or_constants_belong_to_the_caller(computing, opened):
    session = opened("passthrough", computing)
    given = np.ones((2, 4), np.float32)
    outputs = session.run({"input": given})
    given[...] = 5.0
    assert (outputs["same"] == 1).all()
    outputs["fixed"][...] = 9.0
    np.testing.assert_array_equal(session.run({"input": given})["fixed"], [[1, 2], [3, 4]])


def test_inputs_are_left_as_they_are(engine, opened):
    given = image()
    session = opened("conv", engine)
    session.run({"input": given})
    np.testing.assert_array_equal(given, image())


def test_the_same_feeds_give_the_same_outputs(engine, opened):
    session = opened("five_convs", engine)
    feeds = {"input": np.random.default_rng(0).normal(size=(1, 3, 16, 16)).astype(np.float32)}
    first = session.run(feeds)["output"]
    for _ in range(3):
        np.testing.assert_array_equal(session.run(feeds)["output"], first)


def test_a_closed_session_says_so(engine, opened):
    session = opened("conv", engine)
    session.close()
    session.close()
    with pytest.raises(EngineError, match=f"this {engine} session is closed"):
        session.run({"input": image()})
    with pytest.raises(EngineError, match="session is closed"):
        session.placement()


def test_an_unknown_option_gets_the_nearest_name(engine, opened):
    near = {"onnxruntime": "intra_op_num_threads", "openvino": "NUM_STREAMS", "null": "latency_us"}[engine]
    with pytest.raises(UnknownName, match=f"unknown {engine} option") as caught:
        opened("conv", engine, **{near[:-1]: 1})
    assert caught.value.fix == f"did you mean {near!r}?"


def test_an_option_of_the_wrong_type_is_an_error(engine, opened):
    name = {"onnxruntime": "intra_op_num_threads", "openvino": "NUM_STREAMS", "null": "crash_at"}[engine]
    with pytest.raises(EngineError, match=f"option '{name}' has the wrong type"):
        opened("conv", engine, **{name: "two"})


@pytest.mark.parametrize("computing", COMPUTING)
def test_an_operator_it_cannot_run_is_named(computing, opened):
    with pytest.raises(EngineError, match=f"{computing} cannot run operator Frobnicate") as caught:
        opened("unsupported", computing)
    assert caught.value.__cause__ is not None


def test_every_operator_openvino_cannot_convert_is_named(opened):
    text = """two (float["batch", 4, 4] input) => (float["batch"] output) {
        d = Det(input)
        output = Frobnicate(d)
    }"""
    with pytest.raises(EngineError, match="openvino cannot run operator Det, Frobnicate\n"):
        opened(text, "openvino")


def test_an_operator_onnxruntime_has_no_kernel_for_is_named(opened):
    text = """double (double["batch", 1, 4, 4] input) => (double["batch", 1, 4, 4] output)
        <double[1, 1, 1, 1] w = {1}> { output = Conv(input, w) }"""
    with pytest.raises(EngineError, match="onnxruntime cannot run operator Conv\n"):
        opened(text, "onnxruntime")


@pytest.mark.parametrize("computing", COMPUTING)
def test_a_missing_model_file_is_an_error(computing, tiny_artifact):
    artifact = tiny_artifact("conv", computing)
    artifact.path.unlink()
    with pytest.raises(BundleError, match="no such file"):
        runtime.open_artifact(artifact)


@pytest.mark.parametrize("computing", COMPUTING)
@pytest.mark.parametrize("content", [b"", b"not a model at all", b"\x3a\x05ab"], ids=["empty", "text", "cut off"])
def test_a_file_that_is_no_model_is_an_error(computing, tiny_artifact, content):
    artifact = tiny_artifact("conv", computing)
    artifact.path.write_bytes(content)
    with pytest.raises(BundleError, match="not an ONNX file"):
        runtime.open_artifact(artifact)


@pytest.mark.parametrize("computing", COMPUTING)
@pytest.mark.parametrize("change", [{"name": "other"}, {"dtype": "float64"}, {"shape": (1, 3, 9, 9)}, {"shape": (1,)}])
def test_specs_that_are_not_the_models_are_an_error(computing, tiny_artifact, change):
    artifact = tiny_artifact("conv_batch2", computing)
    with pytest.raises(EngineError, match="its inputs are not the ones the artifact declares"):
        runtime.open_artifact(replace(artifact, inputs=(replace(artifact.inputs[0], **change),)))
    with pytest.raises(EngineError, match="its outputs are not the ones the artifact declares"):
        runtime.open_artifact(replace(artifact, outputs=(replace(artifact.outputs[0], **change),)))


def test_placement_has_the_compute_nodes(engine, opened):
    placement = opened("five_convs", engine).placement()
    assert len([node for node in placement.nodes if node.compute]) == (1 if engine == "null" else 5)
    assert placement.share("fp32") == 1.0
    assert placement.share("int8") == 0.0


@pytest.mark.parametrize("computing", COMPUTING)
def test_placement_of_a_model_without_compute_has_no_share(computing, opened):
    assert opened("two_inputs", computing).placement().share("fp32") is None


@pytest.mark.parametrize("computing", COMPUTING)
def test_placement_leaves_the_session_as_it_was(computing, opened):
    session = opened("conv", computing)
    before = session.run({"input": image()})["output"]
    session.placement()
    np.testing.assert_array_equal(session.run({"input": image()})["output"], before)


@pytest.mark.parametrize(
    ("computing", "model", "share"),
    [
        ("onnxruntime", "chain_uint8", 1.0),
        # On x86 it falls back to float, though every convolution stands between Q and DQ.
        ("onnxruntime", "chain_int8", 1.0 if platform.machine() in ("aarch64", "arm64") else 0.0),
        ("openvino", "chain_uint8", 1.0),
        ("openvino", "chain_int8", 1.0),
    ],
)
def test_placement_tells_what_truly_runs_in_int8(computing, opened, model, share):
    placement = opened(model, computing, precision="int8").placement()
    compute = [node for node in placement.nodes if node.compute]
    assert len(compute) == 3
    assert placement.share("int8") == share
    assert placement.share("fp32") == 1.0 - share


# Multiply-accumulates of one query, worked out by hand: convolutions plain, grouped, depthwise, transposed; products.
COUNTED = {
    "five_convs": (5, 16 * 16 * 9 * 8 * (3 + 4 * 8)),
    f"""grouped (float["batch", 16, 9, 9] input) => (float["batch", 16, 9, 9] output)
        <{_initialiser("w", (32, 4, 3, 3))}, {_initialiser("d", (32, 1, 3, 3))}, {_initialiser("p", (16, 32, 1, 1))}> {{
            g = Conv<pads=[1, 1, 1, 1], group=4>(input, w)
            h = Conv<pads=[1, 1, 1, 1], group=32>(g, d)
            output = Conv(h, p)
        }}""": (3, 81 * (32 * 4 * 9 + 32 * 9 + 16 * 32)),
    f"""transposed (float["batch", 6, 5] input) => (float["batch", 4, 11] output)
        <{_initialiser("w", (6, 4, 3))}> {{ output = ConvTranspose<strides=[2]>(input, w) }}""": (1, 5 * 6 * 4 * 3),
    f"""products (float["batch", 3, 8] input) => (float["batch", 3, 3] output)
        <{_initialiser("w", (8, 5))}> {{
            a = MatMul(input, w)
            t = Transpose<perm=[0, 2, 1]>(a)
            output = MatMul(a, t)
        }}""": (2, 3 * 8 * 5 + 3 * 5 * 3),
    # OpenVINO makes one node of all of it.
    """attention (float["batch", 2, 9, 8] input) => (float["batch", 2, 9, 8] output)
        <float[1] root = {0.35}> {
            t = Transpose<perm=[0, 1, 3, 2]>(input)
            a = MatMul(input, t)
            b = Mul(a, root)
            s = Softmax<axis=-1>(b)
            output = MatMul(s, input)
        }""": ((1, 2), 2 * 2 * 9 * 9 * 8),
    f"""dense (float["batch", 8] input) => (float["batch", 5] output)
        <{_initialiser("w", (5, 8))}, {_initialiser("b", (5,))}> {{
            output = Gemm<transB=1>(input, w, b)
        }}""": (1, 8 * 5),
}


@pytest.mark.parametrize("computing", COMPUTING)
@pytest.mark.parametrize("model", COUNTED, ids=lambda text: text.split()[0])
def test_placement_counts_multiply_accumulates(computing, opened, model):
    nodes, macs = COUNTED[model]
    placement = opened(model, computing).placement()
    compute = [node for node in placement.nodes if node.compute]
    assert len(compute) in (nodes if isinstance(nodes, tuple) else (nodes,))
    assert sum(node.macs for node in compute) == macs
    assert all(node.macs is None for node in placement.nodes if not node.compute)
    assert placement.share("fp32", by="macs") == 1.0


@pytest.mark.parametrize("computing", COMPUTING)
def test_placement_counts_the_query_it_is_given(computing, opened):
    session = opened("conv", computing)
    one, three = (
        sum(node.macs or 0 for node in session.placement(feeds).nodes) for feeds in (None, {"input": image(3)})
    )
    assert three == 3 * one == 3 * 64 * 4 * 27
    with pytest.raises(FeedError, match="wrong shape"):
        session.placement({"input": image(3)[:, :2]})


@pytest.mark.parametrize(("computing", "bidirectional"), [(engine, both) for engine in COMPUTING for both in (1, 2)])
def test_placement_counts_every_step_of_a_recurrent_network(computing, opened, bidirectional):
    kind = "bidirectional" if bidirectional == 2 else "forward"
    text = f"""recurrent (float[7, 1, 6] input) => (float[7, {bidirectional}, 1, 4] output)
        <{_initialiser("w", (bidirectional, 16, 6))}, {_initialiser("r", (bidirectional, 16, 4))}> {{
            output = LSTM<hidden_size=4, direction="{kind}">(input, w, r)
        }}"""
    placement = opened(text, computing).placement()
    assert sum(node.macs or 0 for node in placement.nodes) == 7 * bidirectional * 16 * (6 + 4)


@pytest.mark.parametrize("computing", COMPUTING)
def test_placement_has_times_and_small_weights(computing, opened):
    placement = opened("chain_uint8", computing, precision="int8").placement()
    assert all(node.time_us is not None and node.time_us >= 0 for node in placement.nodes)
    assert sum(node.time_us for node in placement.nodes) > 0
    assert {node.weights for node in placement.nodes if node.compute} == {"int8"}
    assert 0.0 < placement.share("int8", by="time") <= 1.0


def test_an_engine_without_a_module_is_unknown(tiny_artifact):
    with pytest.raises(UnknownName, match="unknown engine 'onnx'"):
        runtime.open_artifact(replace(tiny_artifact("conv"), engine="onnx"))
