"""A budget below what an engine takes for a model of nothing."""

from __future__ import annotations

from contextlib import closing
from functools import partial

import numpy as np
import pytest
from fake_line import elsewhere, fp32_artifact, make_task

from edgekit.artifact import Artifact, TensorSpec
from edgekit.errors import SpecError
from edgekit.making import compile_step
from edgekit.runtime import open_artifact
from edgekit.shrinking import floor
from edgekit.shrinking.floor import _empty, check_floor


@pytest.fixture
def fp32(tmp_path) -> Artifact:
    return fp32_artifact(tmp_path / "fp32")


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_an_empty_model_takes_and_gives_what_the_student_does(fp32, tmp_path, engine):
    batch = fp32.inputs[0].shape[0]
    mask = TensorSpec(name="mask", dtype="int64", shape=(batch, 5))
    places = TensorSpec(name="places", dtype="float32", shape=(batch, 3, 4))
    inputs, outputs = (*fp32.inputs, mask), (*fp32.outputs, places)
    made = compile_step(_empty(inputs, outputs, tmp_path), engine, make_task(), tmp_path)
    with closing(open_artifact(made)) as session:
        feeds = {spec.name: np.ones((1, *spec.shape[1:]), spec.dtype) for spec in inputs}
        given = session.run(feeds)
    assert {name: (array.shape, array.any()) for name, array in given.items()} == {
        spec.name: ((1, *spec.shape[1:]), False) for spec in outputs
    }


def test_a_budget_below_what_an_empty_model_takes_is_refused(fp32, tmp_path):
    with pytest.raises(SpecError, match=r"below what an empty model takes\n.*1e-05 ms\n.*more than .* ms"):
        check_floor(1e-5, fp32.inputs, fp32.outputs, ["onnxruntime"], make_task(), tmp_path)
    check_floor(1000.0, fp32.inputs, fp32.outputs, ["onnxruntime"], make_task(), tmp_path)


def test_it_is_refused_only_where_no_engine_is_below_it(fp32, tmp_path, monkeypatch):
    least: dict[str, float | None] = {"openvino": 3.0, "onnxruntime": 2.0}
    monkeypatch.setattr(floor, "_floor_ms", lambda empty, engine, task, steps: least[engine])
    check = partial(check_floor, inputs=fp32.inputs, outputs=fp32.outputs, task=make_task(), steps=tmp_path)
    with pytest.raises(SpecError, match="more than 2 ms, in which onnxruntime"):
        check(1.0, engines=list(least))
    check(2.5, engines=list(least))
    least["openvino"] = None  # it could not be measured
    check(1.0, engines=list(least))
    check(1.0, engines=[])


def test_where_nothing_is_measured_nothing_is_refused(fp32, tmp_path):
    check_floor(1e-5, fp32.inputs, fp32.outputs, ["onnxruntime"], make_task(target=elsewhere()), tmp_path)
    assert list(tmp_path.glob("empty-*")) == []
