"""The method × engine table, and plans that an engine does not make."""

import pytest

from edgekit.backends import load_backend
from edgekit.backends.methods import ENGINES, check_plan, method_table
from edgekit.catalog import load_target
from edgekit.errors import EngineError
from edgekit.quantization.schemes import CORRECTIONS, STATIC_METHODS, USUAL, Plan, plan_of


def test_the_table_is_what_the_backends_say():
    rows = method_table()
    assert rows[0] == ("fp32", "", "yes", "yes", "yes")
    for precision, method, *marks in rows[1:]:
        for engine, mark in zip(ENGINES, marks, strict=True):
            backend = load_backend(engine)
            if method.startswith("+ "):
                assert bool(mark) == (method[2:] in backend.CORRECTIONS)
            else:
                has = precision in backend.METHODS and method in (*backend.METHODS[precision], "")
                assert bool(mark) == has


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_what_is_usual_is_there(engine):
    check_plan(plan_of(engine, "int8"), load_target("x86-vnni"))
    assert USUAL[engine].method in STATIC_METHODS
    assert set(USUAL[engine].corrections) <= set(CORRECTIONS)


def test_a_precision_that_an_engine_lacks_names_what_it_has():
    with pytest.raises(
        EngineError, match=r"(?s)engine 'tensorrt' has no bf16.*allowed: fp32, fp16, fp8, int8, w8, w4.*openvino has it"
    ):
        check_plan(Plan(engine="tensorrt", precision="bf16"), load_target("nvidia-l4"))


def test_a_method_that_an_engine_lacks_names_the_nearest():
    plan = Plan(engine="openvino", precision="int8", method="avrage")
    with pytest.raises(
        EngineError, match=r"(?s)'openvino' has no method 'avrage' for int8.*average.*did you mean 'average'"
    ):
        check_plan(plan, load_target("x86-vnni"))


def test_a_correction_that_an_engine_lacks_is_refused():
    plan = Plan(engine="onnxruntime", precision="int8", method="minmax", corrections=("magic",))
    with pytest.raises(EngineError, match="'onnxruntime' has no correction 'magic'"):
        check_plan(plan, load_target("x86-vnni"))


def test_a_plan_is_called_by_what_is_unusual_in_it():
    assert str(plan_of("openvino", "int8")) == "openvino int8"
    assert str(plan_of("onnxruntime", "w4")) == "onnxruntime w4"
    plan = Plan(
        engine="onnxruntime", precision="int8", method="mse", corrections=("equalize",), float_groups=("a", "b")
    )
    assert str(plan) == "onnxruntime int8 mse +equalize (2 nodes in float)"
    assert str(Plan(engine="openvino", precision="int8", method="average")) == "openvino int8 plain"
