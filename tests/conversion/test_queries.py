"""What one query of a model is: a batch of samples, or one whole sample."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx.parser import parse_model

from edgekit.artifact import TensorSpec
from edgekit.conversion.clean import input_specs
from edgekit.conversion.queries import fit_to_samples, has_batch
from edgekit.errors import DataError, ModelError


def model(text: str, opset: int = 17) -> onnx.ModelProto:
    return parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]>\n{text}')


def sample(**shapes: tuple[int, ...]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name=name, dtype="float32", shape=shape) for name, shape in shapes.items())


def dims(values) -> dict[str, list[int | str]]:
    return {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}


def run(proto: onnx.ModelProto, **feeds: np.ndarray) -> list[np.ndarray]:
    import onnxruntime

    onnx.checker.check_model(proto, full_check=True)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return list(session.run(None, feeds))


BATCHED = {
    "open in all": "g (float[n, 4] x) => (float[n, 4] y) { y = Relu(x) }",
    "open under other names": "g (float[n, 4] x, float[m, 4] z) => (float[k, 4] y) { y = Add(x, z) }",
    "fixed and kept": "g (float[3, 4] x) => (float[3, 4] y) { y = Relu(x) }",
    "said wrongly in the file": "g (float[n, 4] x) => (float[k, 4] y) { y = Relu(x) }",
    "an operator nobody knows": """g (float[n, 4] x) => (float[k, 4] y) { y = Mystery(x) }""",
}
WHOLE = {
    "a fixed state beside an open batch": """g (float[n, 4] x, float[2, 4] h) => (float[n, 4] y) {
        s = ReduceSum<keepdims=0>(h)
        y = Add(x, s)
    }""",
    "an output of one size": "g (float[n, 4] x) => (float[4] y) <int64[1] a = {0}> { y = ReduceSum<keepdims=0>(x, a) }",
    "an output without axes": "g (float[n, 4] x) => (float y) { y = ReduceSum<keepdims=0>(x) }",
    "a batch that goes into the boxes": """g (float[n, 6, 4] x) => (float[k, 4] y) <int64[2] s = {-1, 4}> {
        y = Reshape(x, s)
    }""",
    "a scalar input": "g (float[n, 4] x, float s) => (float[n, 4] y) { y = Mul(x, s) }",
    "fixed and not kept": """g (float[3, 4] x) => (float[4, 3] y) { y = Transpose(x) }""",
}


@pytest.mark.parametrize("case", BATCHED)
def test_axis_0_is_a_batch(case):
    assert has_batch(model(BATCHED[case]))


@pytest.mark.parametrize("case", WHOLE)
def test_axis_0_is_no_batch(case):
    assert not has_batch(model(WHOLE[case]))


def test_a_batch_keeps_its_name_and_the_rest_gets_its_sizes():
    proto = model("g (float[n, t] x) => (float[n, t] y) { y = Relu(x) }")
    assert fit_to_samples(proto, sample(x=(1, 7))) is False
    assert dims((*proto.graph.input, *proto.graph.output)) == {"x": ["n", 7], "y": ["n", 7]}


@pytest.mark.parametrize("opset", [11, 17])
def test_inputs_and_outputs_get_an_axis_in_front_and_compute_the_same(opset):
    text = """g (float[n, 4] x, float[2, n, 4] h, float gain) => (float[n, 4] y, float[2, n, 4] hn, float up) {
        hn = Mul(h, gain)
        s = ReduceMean<axes=[0], keepdims=0>(hn)
        y = Add(x, s)
        up = Neg(gain)
    }"""
    plain, proto = model(text, opset), model(text, opset)
    assert fit_to_samples(proto, sample(x=(1, 4), h=(1, 2, 1, 4), gain=(1,))) is True
    assert dims(proto.graph.input) == {"x": [1, 4], "h": [1, 2, 1, 4], "gain": [1]}
    assert dims(proto.graph.output) == {"y": [1, 4], "hn": [1, 2, 1, 4], "up": [1]}
    rng = np.random.default_rng(0)
    feeds = {
        name: rng.normal(size=s).astype(np.float32) for name, s in {"x": (1, 4), "h": (2, 1, 4), "gain": ()}.items()
    }
    feeds = {name: np.asarray(value) for name, value in feeds.items()}
    whole = {"x": feeds["x"], "h": feeds["h"][None], "gain": feeds["gain"][None]}
    for before, after in zip(run(plain, **feeds), run(proto, **whole), strict=True):
        assert np.array_equal(np.ravel(before), np.ravel(after))


def test_what_a_branch_sees_from_outside_and_what_passes_through_are_renamed_too():
    proto = model("""g (float[4] x, bool flag) => (float[4] y, float[4] x_of_sample, float[2] c) <float[2] c = {1, 2}> {
        y = If (flag) <then_branch = a () => (float[4] t) { t = Neg(x) },
                       else_branch = b () => (float[4] e) { e = Abs(x) }>
        x_of_sample = Identity(x)
    }""")
    fit_to_samples(proto, sample(x=(1, 4), flag=(1,)))
    x = np.array([[-1.0, 2, -3, 4]], np.float32)
    y, same, c = run(proto, x=x, flag=np.array([False]))
    assert (y.tolist(), same.tolist(), c.tolist()) == ([[1, 2, 3, 4]], x.tolist(), [[1, 2]])


def test_samples_with_every_axis_make_any_model_one_of_whole_queries():
    proto = model("g (float[t, 4] x) => (float[t, 4] y) { y = Softmax<axis=0>(x) }")
    assert fit_to_samples(proto, sample(x=(1, 9, 4))) is True
    assert dims((*proto.graph.input, *proto.graph.output)) == {"x": [1, 9, 4], "y": [1, 9, 4]}


def test_initialisers_are_no_inputs_of_a_query():
    proto = model("g (float[n, 4] x, float[4] w) => (float[n, 4] y) <float[4] w = {1, 2, 3, 4}> { y = Mul(x, w) }")
    fit_to_samples(proto, sample(x=(1, 4)))
    assert [spec.name for spec in input_specs(proto)] == ["x"]
    assert list(dims(proto.graph.input)) == ["x"]


def test_sizes_that_disagree_are_told():
    text = "g (float[1, n] x, float[2, n] h) => (float[2, n] y) { y = Add(x, h) }"
    with pytest.raises(DataError, match="the samples disagree on the size of 'n'") as caught:
        fit_to_samples(model(text), sample(x=(1, 5), h=(1, 2, 6)))
    assert (caught.value.found, caught.value.allowed) == ("h: [2, 6]", "n = 5, as in input 'x'")


def test_sizes_that_hang_on_values_name_the_operator():
    text = "g (float[n, 4] x) => (int64[2, k] y) { u = Relu(x)\n y = NonZero(u) }"
    with pytest.raises(ModelError, match="output 'y' has another size for every sample: NonZero decides it") as caught:
        fit_to_samples(model(text), sample(x=(1, 4)))
    assert "at u;" in str(caught.value.fix)
    said = "g (float[n, 4] x) => (int64[2, 3] y) { u = Relu(x)\n y = NonZero(u) }"
    fit_to_samples(model(said), sample(x=(1, 4)))  # the file says that it is always three
