"""Which plans are tried."""

import pytest
from fake_line import elsewhere, fake_target
from onnx.parser import parse_model

from edgekit.catalog import load_target
from edgekit.errors import SpecError, UnknownName
from edgekit.planning import (
    Traits,
    asked_for,
    first_plans,
    more_corrections,
    other_methods,
    plans_for,
    traits_of,
)
from edgekit.quantization.schemes import plan_of
from edgekit.recipe import Quantization

AUTO, INT8, FP32 = (Quantization(precision=p) for p in ("auto", "int8", "fp32"))
NET = Traits(convolutions=5, products=1, recurrent=0)
ENCODER = Traits(convolutions=0, products=9, recurrent=0)


def names(plans):
    return [f"{plan}" for plan in plans]


def test_auto_begins_with_both_precisions_of_every_engine():
    assert names(plans_for(fake_target(engines=("null", "openvino")), ["null", "openvino"], AUTO)) == [
        "null fp32",
        "null int8",
        "openvino fp32",
        "openvino int8",
    ]


def test_auto_is_fp32_alone_where_nothing_can_be_measured_or_there_is_no_int8():
    assert names(plans_for(elsewhere(), ["null"], AUTO)) == ["null fp32"]
    assert names(plans_for(fake_target(precisions=("fp32",)), ["null"], AUTO)) == ["null fp32"]


def test_auto_asks_tensorrt_for_int8_where_it_can_be_measured():
    found = names(plans_for(fake_target(), ["tensorrt", "null"], AUTO))
    assert found == ["tensorrt fp32", "tensorrt int8", "null fp32", "null int8"]
    assert names(plans_for(elsewhere(), ["tensorrt"], AUTO)) == ["tensorrt fp32"]


def test_a_named_precision_is_tried_everywhere():
    assert names(plans_for(elsewhere(), ["null", "tensorrt"], INT8)) == ["null int8", "tensorrt int8"]
    assert names(plans_for(fake_target(), ["null"], FP32)) == ["null fp32"]


def test_a_precision_the_target_does_not_run_is_an_error():
    with pytest.raises(SpecError, match="target 'fake' does not run int8") as caught:
        plans_for(fake_target(precisions=("fp32",)), ["null"], INT8)
    assert caught.value.allowed == "auto, fp32"


def test_what_was_named_is_in_every_plan():
    settings = Quantization(precision="int8", method="entropy", corrections=("equalize",), float_nodes=("conv1",))
    plan = asked_for("onnxruntime", "int8", load_target("x86-vnni"), settings)
    assert (plan.method, plan.corrections, plan.float_groups, plan.scheme) == (
        "entropy",
        ("equalize",),
        ("conv1",),
        None,
    )


def test_fields_set_by_hand_change_the_engines_own_dialect():
    settings = Quantization.model_validate({"scheme": {"per_channel": False, "operators": {"Conv": [0, 1]}}})
    target = load_target("x86-avx2")
    scheme = asked_for("onnxruntime", "int8", target, settings).scheme
    assert (scheme.per_channel, scheme.operators, scheme.reduce_range) == (False, {"Conv": (0, 1)}, True)
    assert scheme.name == "u8s8-per-channel-7bit, set by hand"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "entrpy"}, "unknown method 'entrpy'(.|\\n)*did you mean 'entropy'"),
        ({"corrections": ("equalise",)}, "unknown correction 'equalise'(.|\\n)*did you mean 'equalize'"),
    ],
)
def test_a_wrong_name_is_told_before_anything_is_made(settings, message):
    with pytest.raises(UnknownName, match=message):
        plans_for(fake_target(), ["null"], Quantization(precision="int8", **settings))


def test_dynamic_int8_is_tried_where_matrix_products_prevail():
    target = load_target("x86-vnni")
    assert "onnxruntime int8 dynamic" in names(first_plans("onnxruntime", target, AUTO, ENCODER))
    assert "onnxruntime int8 dynamic" not in names(first_plans("onnxruntime", target, AUTO, NET))
    assert names(first_plans("openvino", target, AUTO, ENCODER))[0] == "openvino fp32"


def test_where_the_usual_plan_loses_too_much_others_follow():
    plan = plan_of("onnxruntime", "int8")
    methods = [other.method for other in other_methods(plan, AUTO)]
    assert methods[0] == "mse"
    assert plan.method not in methods
    assert "dynamic" not in methods
    assert other_methods(plan, Quantization(method="minmax")) == []
    assert "equalize" in more_corrections(plan, AUTO, NET)
    assert "equalize" not in more_corrections(plan, AUTO, ENCODER)
    assert list(more_corrections(plan, Quantization(corrections=()), NET)) == []


def test_traits_are_counted():
    text = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[N, 4] x) => (float[N, 4] y) <float[4, 4] w = {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1}>
    { a = MatMul(x, w) b = Relu(a) y = Gemm(b, w) }"""
    assert traits_of(parse_model(text)) == Traits(convolutions=0, products=2, recurrent=0)
