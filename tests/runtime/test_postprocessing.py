import numpy as np
import pytest

from edgekit.artifact import read_json, write_json
from edgekit.cli.main import cli
from edgekit.errors import BundleError, FeedError
from edgekit.processing_specs import InGraph, Postprocessing, Preprocessing
from edgekit.runtime import open_stream
from edgekit.runtime.bundle import open_bundle
from edgekit.runtime.manifest import read_manifest
from edgekit.runtime.postprocessing import activated, postprocess

RNG = np.random.default_rng(0)
LOGITS = (RNG.normal(size=(5, 4)) * 4).astype(np.float32)
NAMES = ("ant", "bee", "cat", "dog")


def settings(**fields):
    return Postprocessing(output="logits", **fields)


@pytest.mark.parametrize("scale", [1.0, 100.0, 1e30])
@pytest.mark.parametrize(("activation", "axis"), [("softmax", 1), ("softmax", 2), ("sigmoid", 1)])
def test_activations_are_torchs_however_large_the_scores(activation, axis, scale):
    import torch

    scores = (RNG.normal(size=(2, 3, 4)) * scale).astype(np.float32)
    tensor = torch.from_numpy(scores)
    expected = tensor.softmax(axis) if activation == "softmax" else tensor.sigmoid()
    found = activated(scores, activation, axis)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5, atol=1e-7)


def test_what_came_in_stays_as_it_was():
    outputs = {"logits": LOGITS.copy(), "other": LOGITS}
    found = postprocess(outputs, settings(activation="softmax"), NAMES)
    np.testing.assert_array_equal(outputs["logits"], LOGITS)
    np.testing.assert_allclose(found["logits"].sum(axis=1), 1, rtol=1e-6)
    assert found["other"] is LOGITS
    assert postprocess(outputs, None, NAMES) == outputs


@pytest.mark.parametrize("top", [1, 3, 9])
def test_the_best_come_first_with_their_classes_and_names(top):
    found = postprocess({"logits": LOGITS}, settings(top=top), NAMES)
    kept = min(top, 4)
    order = np.argsort(-LOGITS, axis=1)[:, :kept]
    np.testing.assert_array_equal(found["logits_classes"], order)
    np.testing.assert_array_equal(found["logits"], np.take_along_axis(LOGITS, order, axis=1))
    assert found["logits_labels"].tolist() == [[NAMES[i] for i in row] for row in order]
    assert found["logits_classes"].dtype == np.int64


def test_among_equals_the_lower_class_is_first_and_too_few_names_name_nothing():
    found = postprocess({"logits": np.ones((1, 4), np.float16)}, settings(top=2), NAMES[:3])
    assert found["logits_classes"].tolist() == [[0, 1]]
    assert "logits_labels" not in found


def test_the_best_of_every_pixel():
    scores = RNG.normal(size=(2, 4, 3, 3)).astype(np.float32)
    found = postprocess({"logits": scores}, settings(top=1), NAMES)
    assert found["logits_labels"].shape == found["logits"].shape == (2, 1, 3, 3)
    np.testing.assert_array_equal(found["logits_classes"][:, 0], scores.argmax(axis=1))


def test_an_output_or_axis_that_is_not_there_is_an_error():
    with pytest.raises(FeedError, match="output 'logits' is missing"):
        postprocess({"other": LOGITS}, settings())
    with pytest.raises(FeedError, match="has no axis 2"):
        postprocess({"logits": LOGITS}, settings(axis=2))


@pytest.fixture
def classifier(make_bundle):
    def make(**fields):
        known = {"batch": 1, "labels": NAMES, "postprocessing": settings(activation="softmax", top=2)}
        return make_bundle(model="classifier", **known | fields)

    return make


def test_a_bundle_postprocesses_and_a_stream_does_so_for_every_frame(classifier):
    frames = RNG.normal(size=(3, 3, 8, 8)).astype(np.float32)
    with open_bundle(classifier()) as bundle:
        expected = bundle.postprocess(bundle.run({"input": frames}))
        path = bundle.path
    assert expected["logits_labels"].shape == (3, 2)
    seen = []
    with open_stream(path, when_full="block", on_result=lambda _, __, outputs: seen.append(outputs)) as stream:
        found = [result.outputs for result in stream.over(enumerate(frames))]
    assert [each["logits_labels"].tolist() for each in found] == expected["logits_labels"].tolist()
    np.testing.assert_allclose([each["logits"] for each in found], expected["logits"], rtol=1e-5)
    assert [set(outputs) for outputs in seen] == [{"logits"}] * 3  # the hook sees the model's own
    assert all(outputs["logits"].shape == (1, 4) for outputs in seen)


def test_run_writes_answers_and_with_raw_the_models_own_outputs(classifier, tmp_path):
    from click.testing import CliRunner

    np.savez(tmp_path / "x.npz", x=RNG.normal(size=(3, 3, 8, 8)).astype(np.float32))
    folder = classifier()
    arguments = ["run", str(folder), "--input", str(tmp_path / "x.npz"), "--output", str(tmp_path / "y.npz")]
    assert CliRunner().invoke(cli, arguments).exit_code == 0
    with np.load(tmp_path / "y.npz", allow_pickle=False) as found:
        assert {name: found[name].shape for name in found.files} == {
            "logits": (3, 2),
            "logits_classes": (3, 2),
            "logits_labels": (3, 2),
        }
    assert CliRunner().invoke(cli, [*arguments, "--raw"]).exit_code == 0
    with np.load(tmp_path / "y.npz") as found:
        assert found.files == ["logits"]
        assert found["logits"].shape == (3, 4)


def test_a_manifest_comes_back_as_it_was_written(classifier):
    graph = InGraph(preprocessing=Preprocessing(input="input", layout="NHWC", resize=(8, 8)), postprocessing=settings())
    manifest = read_manifest(classifier(in_graph=graph))
    assert manifest.postprocessing == settings(activation="softmax", top=2)
    assert manifest.in_graph == graph


def test_a_manifest_of_an_earlier_build_has_the_id_it_had(make_bundle):
    folder = make_bundle()
    raw = read_json(folder / "manifest.json")
    for name in ("postprocessing", "in_graph"):
        del raw[name]
    write_json(folder / "manifest.json", raw)
    assert read_manifest(folder).postprocessing is None


@pytest.mark.parametrize(
    "wrong",
    [{"activation": "relu"}, {"activation": ["softmax"]}, {"axis": 0}, {"axis": True}, {"top": 0}, {"top": "two"}],
)
def test_a_manifest_whose_postprocessing_cannot_be_done_is_refused(classifier, wrong):
    changed = {"output": "logits", "activation": "none", "axis": 1} | wrong
    by_hand, by_graph = classifier(postprocessing=changed), classifier(in_graph=_graph(changed))
    for folder in (by_hand, by_graph):
        with pytest.raises(BundleError, match="values of a wrong type"):
            read_manifest(folder)


def _graph(postprocessing):
    return {"preprocessing": None, "postprocessing": postprocessing}
