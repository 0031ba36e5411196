import numpy as np
import pytest
from fake_line import CLASSES, make_recipe, make_samples, write_npz, write_project

from edgekit.artifact import TensorSpec
from edgekit.data import Samples
from edgekit.errors import DataError, SpecError, UnknownName
from edgekit.ingredients import load_data, parse_shapes, shaped, sized_by
from edgekit.metrics import accuracy

SPECS = (TensorSpec(name="input", dtype="float32", shape=("batch", 4)),)


@pytest.fixture
def project(tmp_path):
    return write_project(tmp_path / "project")


def rows(samples):
    return {row.tobytes() for row in samples.tensors(np.arange(len(samples)))["input"]}


# ---- data ----


def test_training_data_are_split_and_calibration_is_drawn_from_them(project):
    recipe = make_recipe(data={"train": "train.npz", "test": "test.npz", "validation": 0.25, "calibration": 30})
    data = load_data(recipe, project, SPECS)
    assert (len(data.train), len(data.validation), len(data.calibration), len(data.test)) == (60, 20, 30, 64)
    assert not rows(data.train) & rows(data.validation)
    assert rows(data.calibration) <= rows(data.train) | rows(data.validation)
    assert not rows(data.test) & (rows(data.train) | rows(data.validation))
    assert (data.metric, data.metric_name, data.held_out) == (accuracy, "accuracy", True)
    assert [(p.kind, p.name) for p in data.parents] == [("data", "train"), ("data", "test")]
    assert data.parents[1].sha256 == data.test_sha256 == data.test.fingerprint()
    assert data.parents[0].sha256 != data.test_sha256


def test_validation_samples_may_be_a_set_of_their_own(project):
    write_npz(project / "val.npz", make_samples(24, seed=7))
    recipe = make_recipe(data={"train": "train.npz", "test": "test.npz", "validation": "val.npz"})
    data = load_data(recipe, project, SPECS)
    assert (len(data.train), len(data.validation)) == (80, 24)
    assert rows(data.validation) == rows(make_samples(24, seed=7))
    assert [parent.name for parent in data.parents] == ["train", "validation", "test"]


def test_validation_samples_of_their_own_must_not_be_in_the_test_set(project):
    recipe = make_recipe(data={"train": "train.npz", "test": "test.npz", "validation": "test.npz"})
    with pytest.raises(DataError, match="validation samples are in the test set"):
        load_data(recipe, project, SPECS)


@pytest.mark.parametrize("share", [0, 1, 1.5])
def test_a_share_for_validation_leaves_some_of_both(project, share):
    with pytest.raises(SpecError, match="validation"):
        make_recipe(data={"train": "train.npz", "validation": share})


def test_one_seed_one_split(project):
    first, again, other = (load_data(make_recipe(seed=seed), project, SPECS) for seed in (0, 0, 1))
    assert rows(first.validation) == rows(again.validation) != rows(other.validation)
    assert rows(first.calibration) == rows(again.calibration)


def test_more_calibration_samples_than_there_are_take_all(project):
    assert len(load_data(make_recipe(), project, SPECS).calibration) == 80  # 300 are asked for


def test_a_sample_in_both_sets_is_an_error(project):
    train, test = (dict(np.load(project / f"{name}.npz")) for name in ("train", "test"))
    test["input"][5] = train["input"][7]
    np.savez(project / "test.npz", **test)
    with pytest.raises(DataError, match="training samples are in the test set") as caught:
        load_data(make_recipe(), project, SPECS)
    assert "training sample 7 = test sample 5" in caught.value.found


def test_without_a_test_set_numbers_come_from_validation_and_nothing_is_claimed(project):
    recipe = make_recipe(data={"train": "train.npz", "validation": 0.25})
    data = load_data(recipe, project, SPECS)
    assert rows(data.test) == rows(data.validation)
    assert (data.test.targets, data.metric, data.metric_name, data.held_out) == (None, None, None, False)
    assert data.validation.targets is not None
    assert [p.name for p in data.parents] == ["train"]


def test_a_few_validation_samples_are_too_few_for_golden_ones(project):
    data = load_data(make_recipe(data={"train": "train.npz", "validation": 0.01}), project, SPECS)
    assert (len(data.validation), len(data.test)) == (1, 16)


@pytest.mark.parametrize(("key", "data"), [("test", {"test": "few.npz"}), ("train", {"train": "few.npz"})])
def test_fewer_samples_than_golden_ones_are_refused(project, key, data):
    write_npz(project / "few.npz", make_samples(15, seed=5))
    with pytest.raises(DataError, match=f"data.{key}: few.npz: too few samples") as caught:
        load_data(make_recipe(data={"train": "train.npz"} | data), project, SPECS)
    assert caught.value.found == "15 samples"
    assert "at least 16" in caught.value.allowed


def test_unlabelled_test_samples_have_no_metric_and_are_held_out(project):
    write_npz(project / "test.npz", make_samples(64, seed=2, labelled=False))
    data = load_data(make_recipe(), project, SPECS)
    assert (data.metric, data.metric_name, data.held_out) == (None, None, True)


def test_a_metric_of_the_users_own(project):
    (project / "metric_of_ingredients.py").write_text(
        "def score(outputs, targets):\n    return (outputs[:, 0] > targets) * 1.0\n"
    )
    data = load_data(make_recipe(metric="metric_of_ingredients:score"), project, SPECS)
    assert data.metric_name == "metric_of_ingredients:score"
    assert list(data.metric(np.ones((2, 3)), np.array([0, 1]))) == [1.0, 0.0]


def test_an_unknmetric_of_ingredients_is_told_with_the_nearest(project):
    with pytest.raises(UnknownName, match="unknown metric 'acuracy'") as caught:
        load_data(make_recipe(metric="acuracy"), project, SPECS)
    assert caught.value.fix == "did you mean 'accuracy'?"


def test_labels_are_the_recipes_or_the_datas(project):
    assert load_data(make_recipe(), project, SPECS).labels == ()
    named = make_recipe(data={"train": "train.npz", "test": "test.npz", "labels": ["a", "b", "c"]})
    data = load_data(named, project, SPECS)
    assert data.labels == ("a", "b", "c")
    assert len(data.labels) == CLASSES


def test_a_single_input_is_called_as_the_model_calls_it(project):
    specs = (TensorSpec(name="pixels", dtype="float32", shape=("batch", 4)),)
    data = load_data(make_recipe(), project, specs)
    for samples in (data.train, data.validation, data.calibration, data.test):
        assert list(samples.tensors([0])) == ["pixels"]


def test_preprocessing_is_the_recipes(project):
    data = load_data(make_recipe(input={"scale": 0.5}), project, SPECS)
    raw, tensor = data.test.raw([0])["input"], data.test.tensors([0])["input"]
    assert np.array_equal(raw * np.float32(0.5), tensor)
    assert data.test.preprocessing.scale == 0.5


@pytest.mark.parametrize("shape", [("batch", 5), ("batch", 4, 1)])
def test_data_that_do_not_fit_the_model_are_told_before_any_work(project, shape):
    with pytest.raises(DataError, match="has the wrong shape"):
        load_data(make_recipe(), project, (TensorSpec(name="input", dtype="float32", shape=shape),))


def test_without_data_samples_are_random_and_nothing_is_claimed():
    recipe = make_recipe(data=None)
    data = load_data(recipe, None, SPECS)
    assert (data.train, data.validation, data.calibration, data.metric) == (None, None, None, None)
    assert (data.test.name, len(data.test) >= 16, data.held_out, data.parents) == ("random", True, False, ())
    assert data.test_sha256 == load_data(recipe, None, SPECS).test_sha256


def test_without_data_and_shape_nothing_can_be_run():
    with pytest.raises(SpecError, match="there is no data and no input shape") as caught:
        load_data(make_recipe(data=None), None, None)
    assert "--input NAME=" in caught.value.fix


# ---- shapes ----


def test_shapes_name_their_batch():
    assert parse_shapes({}) is None
    assert parse_shapes({"a": "f32[1,3,8,8]", "b": " i64[ 4, 128 ] ", "c": "bool[1]"}) == (
        TensorSpec(name="a", dtype="float32", shape=("batch", 3, 8, 8)),
        TensorSpec(name="b", dtype="int64", shape=("batch", 128)),
        TensorSpec(name="c", dtype="bool", shape=("batch",)),
    )


@pytest.mark.parametrize(
    "text", ["", "f32", "f32[]", "f32[1,]", "f99[1,3]", "f32[1,-3]", "f32[1,0]", "f32[batch,3]", "f32(1,3)"]
)
def test_what_is_no_shape_is_told(text):
    with pytest.raises(SpecError, match="input 'x': not a shape") as caught:
        parse_shapes({"x": text})
    assert caught.value.found == repr(text)
    assert "f32[1,3,224,224]" in caught.value.allowed


def test_shapes_fill_in_what_a_model_leaves_open():
    model = (
        TensorSpec(name="ids", dtype="int64", shape=("batch", "length")),
        TensorSpec(name="mask", dtype="float32", shape=("batch", 8)),
    )
    assert shaped(model, {}) == model
    assert shaped(model, {"ids": "i64[1,32]"}) == (TensorSpec(name="ids", dtype="int64", shape=("batch", 32)), model[1])


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"idz": "i64[1,32]"}, "a shape is given for 'idz', which is no input of the model"),
        ({"ids": "f32[1,32]"}, "contradicts the model"),
        ({"ids": "i64[1]"}, "contradicts the model"),
        ({"mask": "f32[1,9]"}, "contradicts the model"),
    ],
)
def test_shapes_that_are_not_the_models_are_refused(shapes, message):
    model = (
        TensorSpec(name="ids", dtype="int64", shape=("batch", "length")),
        TensorSpec(name="mask", dtype="float32", shape=("batch", 8)),
    )
    with pytest.raises(SpecError, match=message):
        shaped(model, shapes)


def test_without_a_batch_shapes_are_those_of_a_whole_query():
    model = (
        TensorSpec(name="x", dtype="float32", shape=("time", "batch", 4)),
        TensorSpec(name="h", dtype="float32", shape=(2, "batch", 8)),
        TensorSpec(name="gain", dtype="float32", shape=()),
    )
    found = shaped(model, {"x": "f32[9,1,4]", "gain": "f32[]"}, batched=False)
    assert [spec.shape for spec in found] == [(1, 9, 1, 4), (1, 2, 1, 8), (1,)]
    with pytest.raises(SpecError, match="input 'gain': not a shape"):
        shaped(model, {"gain": "f32[]"})


def test_samples_give_open_sizes_and_may_be_whole_queries():
    specs = (
        TensorSpec(name="x", dtype="float32", shape=("batch", "time")),
        TensorSpec(name="h", dtype="float32", shape=(3, 4)),
        TensorSpec(name="odd", dtype="float32", shape=("batch", 5)),
    )
    shapes = {"x": (6, 7), "h": (6, 3, 4), "odd": (6, 2)}
    arrays = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    samples = Samples(name="s", count=6, fetch=lambda rows: {name: array[rows] for name, array in arrays.items()})
    assert [spec.shape for spec in sized_by(samples, specs)] == [("batch", 7), (1, 3, 4), ("batch", 5)]


def test_too_few_samples_to_calibrate_are_told(project):
    write_npz(project / "few.npz", make_samples(15, seed=5))
    recipe = make_recipe(data={"train": "few.npz", "test": "test.npz"})
    with pytest.raises(DataError, match=r"data.train: few.npz: too few samples to calibrate") as caught:
        load_data(recipe, project, SPECS)
    assert caught.value.found == "15 samples"
    recipe = make_recipe(data={"train": "train.npz", "test": "test.npz", "calibration": 9})
    with pytest.raises(DataError, match=r"data.calibration: train.npz: too few samples to calibrate"):
        load_data(recipe, project, SPECS)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_floats_are_of_the_models_type(project, dtype):
    specs = (TensorSpec(name="input", dtype=dtype, shape=("batch", 4)),)
    for data in (load_data(make_recipe(), project, specs), load_data(make_recipe(data=None), project, specs)):
        assert data.test.subset([0, 1]).tensors([0])["input"].dtype == dtype
