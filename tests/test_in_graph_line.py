"""A recipe whose graph does the pre- and postprocessing, from deploy to compare, beside the same in numpy."""

import json
from pathlib import Path

import numpy as np
import pytest
from fake_line import make_samples
from jsonschema import Draft202012Validator
from tiny_models import HEAD
from tiny_recipe import PROFILE, edgekit, stripes

from edgekit.artifact import TensorSpec, read_json
from edgekit.errors import EdgeKitError, SpecError
from edgekit.pipeline import Choices, make_jobs
from edgekit.processing import check_processing, in_graph_of, postprocessing_of
from edgekit.processing_specs import Postprocessing, Preprocessing
from edgekit.recipe import load_recipe
from edgekit.runtime import open_bundle, open_stream
from edgekit.runtime.golden import load_golden
from edgekit.runtime.manifest import read_manifest
from edgekit.schemas import published

# Looks for rows and for columns: two Sobel filters and a blur, squared and averaged.
SOBEL = [1, 2, 1, 0, 0, 0, -1, -2, -1, 1, 0, -1, 2, 0, -2, 1, 0, -1, *[0.1] * 9]
MODEL = f"""stripes (float["batch", 1, 12, 12] input) => (float["batch", 3] logits)
    <float[3, 1, 3, 3] w = {{{", ".join(map(str, SOBEL))}}}, float[3, 3] mixed = {{0, 1, 0, 0, 0, 1, 1, 0, 0}}> {{
        c = Conv<pads=[1, 1, 1, 1]>(input, w)
        r = Relu(c)
        g = GlobalAveragePool(r)
        f = Flatten(g)
        logits = MatMul(f, mixed)
    }}"""

RECIPE = """
name = "stripes"
targets = ["local"]
profile = "quick.toml"
[teacher]
model = "model.onnx"
[data]
train = "train.npz"
test = "test.npz"
calibration = 32
labels = ["flat", "rows", "columns"]
[input]
layout = "NHWC"
resize = [12, 12]
scale = 0.00392156862745098
mean = [0.5]
std = [0.5]
{input}
[output]
activation = "softmax"
top = 2
{output}
[quantization]
precision = "{precision}"
"""


def write(folder: Path, *, in_graph: bool, precision: str = "fp32") -> Path:
    import onnx
    from onnx.parser import parse_model

    folder.mkdir(parents=True)
    onnx.save(parse_model(HEAD.format(domain="") + MODEL), folder / "model.onnx")
    said = "in_graph = true" if in_graph else ""
    (folder / "edgekit.toml").write_text(RECIPE.format(input=said, output=said, precision=precision))
    (folder / "quick.toml").write_text(PROFILE.format(p50_ms=1000.0))
    for name, count, seed in (("train", 60, 0), ("test", 48, 1)):
        images, labels = stripes(count, seed)
        wide = np.repeat(np.repeat(images, 2, axis=1), 2, axis=2)  # 24 x 24, resized by the bundle
        np.savez(folder / f"{name}.npz", x=wide, y=labels)
    return folder


@pytest.fixture(scope="module", params=["onnxruntime", "openvino"])
def bundles(request, tmp_path_factory):
    """The same recipe in numpy and in the graph, deployed for one engine."""
    root = tmp_path_factory.mktemp("in_graph")
    for name in ("numpy", "graph"):
        folder = write(root / name, in_graph=name == "graph")
        done = edgekit("deploy", folder, "--engine", request.param, "--out", folder / "out")
        assert done.exit_code in (0, 4), done.output  # 4: a busy machine spoiled the latencies
    return root


def bundle(root: Path, name: str) -> Path:
    return root / name / "out" / "local"


def frames(root: Path):
    with np.load(root / "numpy" / "test.npz") as archive:
        return archive["x"][:20]


def test_the_manifest_says_what_the_graph_does_and_what_is_left_to_numpy(bundles):
    plain, graph = read_manifest(bundle(bundles, "numpy")), read_manifest(bundle(bundles, "graph"))
    settings = Preprocessing(
        input="input", layout="NHWC", scale=0.00392156862745098, mean=(0.5,), std=(0.5,), resize=(12, 12)
    )
    assert (plain.preprocessing, plain.in_graph) == (settings, None)
    assert plain.postprocessing == Postprocessing(output="logits", activation="softmax", top=2)
    assert graph.preprocessing is None
    assert graph.in_graph.preprocessing == settings
    assert graph.in_graph.postprocessing == Postprocessing(output="logits", activation="softmax")
    assert graph.postprocessing == Postprocessing(output="logits", top=2)
    assert str(graph.inputs[0]) == "input: uint8[1, 24, 24, 1]"
    assert str(plain.inputs[0]) == "input: float32[1, 1, 12, 12]"
    assert graph.accuracy["artifact"] == plain.accuracy["artifact"]
    assert graph.golden.reference_db > 90
    assert graph.id != plain.id
    for name in ("numpy", "graph"):
        Draft202012Validator(published("manifest")).validate(read_json(bundle(bundles, name) / "manifest.json"))


def test_both_give_the_same_answers_from_raw_frames(bundles):
    raw, answers = frames(bundles), []
    for name in ("numpy", "graph"):
        with open_bundle(bundle(bundles, name)) as opened:
            each = [opened.postprocess(opened.run(opened.preprocess(frame[None]))) for frame in raw]
        answers.append({key: np.concatenate([one[key] for one in each]) for key in each[0]})
    plain, graph = answers
    assert plain["logits"].shape == (20, 2)
    assert np.abs(plain["logits"] - graph["logits"]).max() < 1 / 255
    np.testing.assert_allclose(plain["logits"], graph["logits"], atol=1e-5)
    np.testing.assert_array_equal(plain["logits_labels"], graph["logits_labels"])


def test_golden_samples_are_what_each_takes_and_gives(bundles):
    found = {}
    for name in ("numpy", "graph"):
        folder = bundle(bundles, name)
        found[name] = load_golden(folder / "golden.npz", read_manifest(folder), raw=True)
    np.testing.assert_array_equal(found["numpy"]["raw/input"], found["graph"]["input/input"])
    assert "raw/input" not in found["graph"]
    np.testing.assert_allclose(found["graph"]["reference/logits"].sum(axis=1), 1, rtol=1e-5)
    assert edgekit("verify", bundle(bundles, "graph")).exit_code == 0


def test_it_is_profiled_run_and_compared(bundles, tmp_path):
    folder = bundle(bundles, "graph")
    done = edgekit(
        "profile", folder, "--json", tmp_path / "profile.json", "--profile", bundles / "graph" / "quick.toml"
    )
    assert done.exit_code in (0, 4), done.output
    assert json.loads((tmp_path / "profile.json").read_text())["measured"]["status"] == "ok"
    outputs = {}
    for name in ("numpy", "graph"):
        np.savez(tmp_path / "x.npz", input=frames(bundles))
        done = edgekit("run", bundle(bundles, name), "--input", tmp_path / "x.npz", "--output", tmp_path / "y.npz")
        assert done.exit_code == 0, done.output
        with np.load(tmp_path / "y.npz") as archive:
            outputs[name] = dict(archive)
    assert set(outputs["graph"]) == {"logits", "logits_classes", "logits_labels"}
    np.testing.assert_allclose(outputs["numpy"]["logits"], outputs["graph"]["logits"], atol=1e-5)
    done = edgekit("compare", folder, folder, "--seconds", "0.2", "--json", tmp_path / "compared.json")
    assert done.exit_code in (0, 4), done.output
    compared = json.loads((tmp_path / "compared.json").read_text())
    assert [side["status"] for side in compared["sides"]] == ["ok", "ok"]
    assert "in the graph, before" in edgekit("inspect", folder).output


def test_a_graph_and_numpy_are_not_compared_for_they_take_other_inputs(bundles):
    done = edgekit("compare", bundle(bundles, "numpy"), bundle(bundles, "graph"))
    assert done.exit_code == 1
    assert "do not take the same inputs" in done.output


def test_a_stream_takes_raw_frames(bundles):
    with open_stream(bundle(bundles, "graph"), when_full="block") as stream:
        found = [str(result.outputs["logits_labels"][0]) for result in stream.over(enumerate(frames(bundles)))]
    assert set(found) <= {"flat", "rows", "columns"}
    assert len(found) == 20


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_an_int8_model_has_it_in_its_graph_too(engine, tmp_path):
    folder = write(tmp_path / "int8", in_graph=True, precision="int8")
    done = edgekit("deploy", folder, "--engine", engine, "--out", folder / "out")
    assert done.exit_code in (0, 3, 4), done.output
    manifest = read_manifest(folder / "out" / "local")
    assert manifest.precision == "int8"
    assert manifest.accuracy["int8_share"] > 0
    assert edgekit("verify", folder / "out" / "local").exit_code == 0


def test_what_a_graph_cannot_do_is_told_before_any_work(tmp_path):
    folder = write(tmp_path / "bad", in_graph=True)
    for override, message in (
        ("output.activation=none", "nothing to put into the graph"),
        ("metric=own:metric", "a metric of your own"),
    ):
        with pytest.raises(SpecError, match=message):
            check_processing(load_recipe(folder, [override]))
    with pytest.raises(SpecError, match="nothing to put into the graph"):
        make_jobs(load_recipe(folder, ["output.activation=none"]), folder, Choices())


def test_samples_that_are_model_tensors_already_are_told(tmp_path):
    recipe = load_recipe(write(tmp_path / "bad", in_graph=True))
    with pytest.raises(SpecError, match="there are no raw samples"):
        check_processing(recipe.model_copy(update={"data": None}))
    logits = TensorSpec(name="logits", dtype="float32", shape=("batch", 3))
    with pytest.raises(SpecError, match="there are no raw samples"):
        in_graph_of(recipe, make_samples(), [logits])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("output.name=scores", "unknown output 'scores'"),
        ("output.axis=2", "has no such axis"),
        ("output.axis=0", "wrong value for key 'output.axis'"),
        ("output.activation=relu", "wrong value for key 'output.activation'"),
        ("output.top=0", "wrong value for key 'output.top'"),
    ],
)
def test_an_output_that_is_not_there_is_told(tmp_path, override, message):
    folder = write(tmp_path / "bad", in_graph=False)
    logits = TensorSpec(name="logits", dtype="float32", shape=("batch", 3))
    with pytest.raises(EdgeKitError, match=message):
        postprocessing_of(load_recipe(folder, [override]), [logits])


def test_of_several_outputs_one_is_named_and_no_name_is_taken_twice(tmp_path):
    recipe = load_recipe(write(tmp_path / "bad", in_graph=False))
    specs = [TensorSpec(name=name, dtype="float32", shape=("batch", 3)) for name in ("logits", "logits_classes")]
    with pytest.raises(SpecError, match="does not say which"):
        postprocessing_of(recipe, specs)
    named = recipe.model_copy(update={"output": recipe.output.model_copy(update={"name": "logits"})})
    with pytest.raises(SpecError, match="called as the best classes would be"):
        postprocessing_of(named, specs)
