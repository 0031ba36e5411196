"""What a recipe may say of training in int8, and for which models and targets."""

from __future__ import annotations

import pytest
from fake_line import fake_target, make_recipe, quick_profile

from edgekit.errors import SpecError, TrainingError, UnknownName
from edgekit.recipe import Quantization
from edgekit.recipe_qat import Qat
from edgekit.roles import check_roles
from edgekit.shipping import Job
from edgekit.specs import parse
from edgekit.trained_int8 import check_qat

GIVEN = {"model": "nets:teacher", "weights": "w.safetensors"}
STUDENT = {"model": "nets:student"}


def job(target=None, **settings):
    target = target or fake_target(engines=("onnxruntime", "openvino"), arch="x86_64", isa="avx512-vnni")
    return Job(
        target=target, profile=quick_profile(), engines=tuple(target.engines), quantization=Quantization(**settings)
    )


def test_a_recipe_without_the_table_trains_nothing_in_int8():
    assert make_recipe().qat is None


def test_its_defaults_are_those_of_a_fine_tune():
    settings = make_recipe(qat={}).qat
    assert (settings.learning_rate, settings.weight_bits, settings.method) == (1e-4, 8, "minmax")
    assert (settings.teacher, settings.soft_weight) == ("student", 0.7)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("features", [{"loss": "hints", "student": "a", "teacher": "b"}]),
        ("teachers", [GIVEN]),
        ("teacher_share", 0.5),
        ("combine", "confidence"),
        ("assistants", [STUDENT]),
        ("generations", 2),
        ("stages", [{"epochs": 2}]),
        ("peers", [STUDENT]),
        ("peer_weight", 0.5),
        ("head", {"module": "fc", "classes": 3}),
        ("sparse", {"share": 0.5}),
    ],
)
def test_keys_that_the_traced_copy_cannot_have_are_refused(key, value):
    assert key in Qat.REFUSED
    with pytest.raises(SpecError, match=f"no {key}: {Qat.REFUSED[key]}"):
        make_recipe(qat={key: value})


def test_every_refused_key_is_one_that_there_would_be():
    assert set(Qat.REFUSED) <= set(Qat.model_fields)


@pytest.mark.parametrize(("key", "value"), [("weight_bits", 2), ("weight_bits", 16), ("teacher", "peers")])
def test_values_that_there_are_not_are_refused(key, value):
    with pytest.raises(SpecError, match=f"qat.{key}"):
        make_recipe(qat={key: value})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"qat": {}}, "an .onnx file cannot be trained in int8"),
        ({"teacher": GIVEN, "qat": {}, "data": None}, r"\[qat\] is a training, which needs data"),
        ({"teacher": GIVEN, "qat": {}, "quantization": {"precision": "w8"}}, "ships another precision"),
        ({"teacher": GIVEN, "qat": {}, "quantization": {"float_nodes": ["conv"]}}, "names nodes of the float model"),
        ({"teacher": GIVEN, "qat": {"group_temperature": 5.0}}, "qat.group_temperature draws samples by their group"),
    ],
)
def test_models_and_settings_that_cannot_be_trained_in_int8_are_refused(fields, message):
    with pytest.raises(SpecError, match=message):
        check_roles(make_recipe(**fields))


def test_a_range_method_that_there_is_not_is_refused():
    with pytest.raises(UnknownName, match=r"qat.method: unknown range method 'minmx'"):
        check_roles(make_recipe(teacher=GIVEN, qat={"method": "minmx"}))


def test_stored_outputs_teach_no_varied_samples(tmp_path):
    (tmp_path / "answers").mkdir()
    (tmp_path / "answers" / "outputs.json").write_text("{}")
    recipe = make_recipe(teacher={"model": "answers/"}, student=STUDENT)
    varied = {"teacher": "teacher", "augmentation": {"flip": True}}
    check_roles(recipe)
    with pytest.raises(SpecError, match="answers for samples as they are"):
        check_roles(recipe.model_copy(update={"qat": parse(Qat, varied, "recipe")}))
    check_roles(recipe.model_copy(update={"qat": parse(Qat, varied | {"teacher": "student"}, "recipe")}))


@pytest.mark.parametrize(
    "target",
    [fake_target(engines=("tensorrt",)), fake_target(engines=("onnxruntime",), precisions=("fp32",))],
    ids=["engine", "precision"],
)
def test_a_target_that_takes_no_trained_int8_is_refused(target):
    with pytest.raises(SpecError, match="nothing can be trained in int8 for target 'fake'"):
        check_qat(make_recipe(teacher=GIVEN, qat={}), [job(target)])
    check_qat(make_recipe(teacher=GIVEN), [job(target)])


def test_a_dialect_that_the_engines_own_tool_places_is_refused():
    recipe = make_recipe(teacher=GIVEN, qat={})
    check_qat(recipe, [job(precision="int8")])
    with pytest.raises(TrainingError, match="its operators cannot be trained for"):
        check_qat(recipe, [job(precision="int8", scheme={"preset": "performance"})])
    with pytest.raises(TrainingError, match="its weight_symmetric cannot be trained for"):
        check_qat(recipe, [job(precision="int8", scheme={"weight_symmetric": False})])
