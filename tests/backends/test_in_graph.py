"""Pre- and postprocessing in a model's graph computes what numpy computes, on both engines."""

import numpy as np
import pytest

from edgekit.artifact import Array, TensorSpec
from edgekit.backends import load_backend
from edgekit.backends.in_graph import put_in_graph
from edgekit.catalog import load_target
from edgekit.conversion.clean import describe_onnx
from edgekit.errors import EngineError
from edgekit.processing_specs import InGraph, Postprocessing, Preprocessing
from edgekit.runtime import open_artifact
from edgekit.runtime.postprocessing import activated
from edgekit.runtime.preprocessing import preprocess

ENGINES = ["onnxruntime", "openvino"]
RNG = np.random.default_rng(0)
SIZES = {"N": 2, "H": 6, "W": 5, "C": 3}
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
# A model that gives what it takes, so that its output shows the tensor that it was given.
ECHO = (
    "echo (float[2, {sizes}] input) => (float[2, {sizes}] output) <float zero = {{0}}> {{ output = Add(input, zero) }}"
)
SCORES = """scores (float[2, 4, 3] input, float[2, 4, 3] other) => (float[2, 4, 3] logits, float[2, 4, 3] sum) {
    logits = Add(input, other)
    sum = Add(logits, other)
}"""


@pytest.fixture
def built(tiny_onnx, tmp_path):
    """A model compiled for an engine."""
    import onnx

    def make(text, engine):
        folder = tmp_path / f"plain-{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        onnx.save(tiny_onnx(text), folder / "model.onnx")
        fp32 = describe_onnx(folder / "model.onnx", precision="fp32")
        return load_backend(engine).compile(fp32, load_target("cpu-generic"), 2, folder / "built")

    return make


def raw_samples(layout: str, dtype: str) -> Array:
    shape = [2, 7] if layout == "any" else [SIZES[axis] for axis in layout]
    if dtype == "bool":
        return RNG.integers(0, 2, shape).astype(bool)
    return RNG.normal(100, 60, shape).clip(0, 255).astype(dtype)


def echoed(settings: Preprocessing, raw: Array, engine: str, built, out) -> Array:
    """What the graph makes of raw samples."""
    expected = preprocess(raw, settings)
    model = built(ECHO.format(sizes=", ".join(map(str, expected.shape[1:]))), engine)
    spec = TensorSpec(name="input", dtype=str(raw.dtype), shape=raw.shape)
    made = put_in_graph(model, InGraph(preprocessing=settings), spec, out)
    assert made.inputs == (spec,)
    assert (made.outputs, made.parent, made.options) == (model.outputs, model.parent, model.options)
    session = open_artifact(made)
    found = session.run({"input": raw})["output"]
    session.close()
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    return found


def assert_same(found: Array, expected: Array) -> None:
    """Within 1/255 of the range is what is promised; what is seen is within a few bits of float32."""
    span = float(expected.max() - expected.min()) or 1.0
    assert np.abs(found - expected).max() <= span / 255
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5 * span)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("layout", ["NHWC", "NCHW", "NHW", "any"])
@pytest.mark.parametrize("model_layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_every_layout_is_scaled_and_laid_out_as_numpy_does_it(engine, layout, model_layout, dtype, built, tmp_path):
    channels = (0.5,) if layout in ("NHW", "any") else MEAN
    settings = Preprocessing(
        layout=layout, model_layout=model_layout, scale=1 / 255, mean=channels, std=STD[: len(channels)]
    )
    raw = raw_samples(layout, dtype)
    assert_same(echoed(settings, raw, engine, built, tmp_path / "made"), preprocess(raw, settings))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("size", [(6, 5), (12, 10), (3, 2), (7, 11), (1, 1), (4, 9)])
@pytest.mark.parametrize(("layout", "model_layout"), [("NHWC", "NCHW"), ("NHW", "NHWC"), ("NCHW", "NCHW")])
def test_resizing_is_numpys(engine, size, layout, model_layout, built, tmp_path):
    settings = Preprocessing(layout=layout, model_layout=model_layout, scale=1 / 255, resize=size)
    raw = raw_samples(layout, "uint8")
    assert_same(echoed(settings, raw, engine, built, tmp_path / "made"), preprocess(raw, settings))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("dtype", ["int8", "uint16", "int32", "int64", "float64", "bool"])
def test_samples_of_any_type_are_taken(engine, dtype, built, tmp_path):
    settings = Preprocessing(layout="NHWC", scale=0.5, mean=(0.1,), std=STD)
    raw = raw_samples("NHWC", dtype)
    assert_same(echoed(settings, raw, engine, built, tmp_path / "made"), preprocess(raw, settings))


@pytest.mark.parametrize("engine", ENGINES)
def test_what_changes_nothing_puts_nothing_in(engine, built, tmp_path):
    raw = raw_samples("NCHW", "float32")
    settings = Preprocessing(layout="NCHW", resize=(6, 5))
    np.testing.assert_array_equal(echoed(settings, raw, engine, built, tmp_path / "made"), raw)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("activation", "axis"), [("softmax", 1), ("softmax", 2), ("sigmoid", 1)])
def test_an_output_is_activated_and_what_else_uses_it_is_not(engine, activation, axis, built, tmp_path):
    model = built(SCORES, engine)
    settings = Postprocessing(output="logits", activation=activation, axis=axis)
    made = put_in_graph(model, InGraph(postprocessing=settings), None, tmp_path / "made")
    assert (made.inputs, made.outputs) == (model.inputs, model.outputs)
    feeds = {name: RNG.normal(size=(2, 4, 3)).astype(np.float32) for name in ("input", "other")}
    session = open_artifact(made)
    found = session.run(feeds)
    session.close()
    logits = feeds["input"] + feeds["other"]
    np.testing.assert_allclose(found["logits"], activated(logits, activation, axis), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["sum"], logits + feeds["other"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("engine", ENGINES)
def test_other_inputs_stay_as_they_are(engine, built, tmp_path):
    model = built(SCORES, engine)
    settings = InGraph(
        preprocessing=Preprocessing(input="other", scale=0.25),
        postprocessing=Postprocessing(output="sum", activation="sigmoid"),
    )
    spec = TensorSpec(name="other", dtype="uint8", shape=(2, 4, 3))
    made = put_in_graph(model, settings, spec, tmp_path / "made")
    assert made.inputs == (model.inputs[0], spec)
    given = RNG.normal(size=(2, 4, 3)).astype(np.float32)
    other = RNG.integers(0, 255, (2, 4, 3), dtype=np.uint8)
    session = open_artifact(made)
    found = session.run({"input": given, "other": other})
    session.close()
    np.testing.assert_allclose(found["logits"], given + other * 0.25, rtol=1e-5)
    np.testing.assert_allclose(found["sum"], activated(given + other * 0.5, "sigmoid", 1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("engine", ENGINES)
def test_the_files_are_the_same_however_often_they_are_made(engine, built, tmp_path):
    settings = InGraph(
        preprocessing=Preprocessing(input="input", scale=0.5),
        postprocessing=Postprocessing(output="sum", activation="softmax"),
    )
    spec = TensorSpec(name="input", dtype="uint8", shape=(2, 4, 3))
    made = [put_in_graph(built(SCORES, engine), settings, spec, tmp_path / name) for name in ("one", "two")]
    assert made[0].files == made[1].files


def test_what_cannot_be_put_in_is_told(built, tmp_path, tiny_onnx):
    from dataclasses import replace

    model = built(SCORES, "onnxruntime")
    spec = TensorSpec(name="input", dtype="uint8", shape=(2, 4, 3))
    with pytest.raises(EngineError, match="engine 'tensorrt' does no pre- or postprocessing") as caught:
        put_in_graph(replace(model, engine="tensorrt"), InGraph(), None, tmp_path / "made")
    assert "onnxruntime, openvino" in str(caught.value.allowed)
    with pytest.raises(EngineError, match="no input 'pixels' to preprocess"):
        put_in_graph(model, InGraph(preprocessing=Preprocessing(input="pixels")), spec, tmp_path / "made")
    with pytest.raises(EngineError, match="no output 'scores' to postprocess"):
        put_in_graph(model, InGraph(postprocessing=Postprocessing(output="scores")), None, tmp_path / "made")
    with pytest.raises(EngineError, match="has no axis 3"):
        put_in_graph(model, InGraph(postprocessing=Postprocessing(output="sum", axis=3)), None, tmp_path / "made")
