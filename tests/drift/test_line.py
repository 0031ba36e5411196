"""Whole lines with a fault planted in one stage: its tensor is the first that is named."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgekit.artifact import save_artifact
from edgekit.conversion.clean import describe_onnx
from edgekit.drift import line
from edgekit.drift.line import find_drift
from edgekit.errors import DataError, EdgeKitError, EngineError, SpecError
from edgekit.recipe import recipe_for_model

NETS = '''
import torch
from torch import nn


class Net(nn.Module):
    """Its first layer makes much of a channel that is silent in the calibration samples."""

    def __init__(self, gain=1.0):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 4)
        with torch.no_grad():
            self.first.weight[:, 2] = gain

    def forward(self, input):
        x = torch.relu(self.first(input))
        x = torch.relu(self.second(x))
        return self.head(x.mean((2, 3)))
'''


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with networks and samples."""
    (tmp_path / "driftnets.py").write_text(NETS)
    rng = np.random.default_rng(0)
    for name, loud in (("quiet", 0.0), ("loud", 1.0)):
        x = rng.standard_normal((24, 3, 12, 12)).astype(np.float32)
        x[:, 2] = np.abs(x[:, 2]) * loud
        np.savez(tmp_path / f"{name}.npz", x=x)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def recipe(model="driftnets:Net", *, calibration="quiet.npz", test=None, gain=1.0, inputs=()):
    settings = [] if model.endswith(".onnx") else [f"teacher.args.gain={gain}"]
    return recipe_for_model(
        model,
        weights=None if model.endswith(".onnx") or calibration is None else "factory",
        calibration=calibration,
        test=test,
        inputs=inputs,
        overrides=settings,
    )


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_sound_line_keeps_together(here, engine):
    (drift,) = find_drift(recipe(), here, "local", engine=engine)
    assert (drift.engine, drift.precision, drift.failure) == (engine, "int8", None)
    assert drift.stages == ("torch", "onnx", "quantised", "compiled")
    assert drift.floors_db == {"onnx": 80.0, "quantised": 30.0, "compiled": 30.0}
    assert {"input", "relu", "relu_1", "output"} <= {step.tensor for step in drift.steps}
    assert drift.first == {}
    last = {step.stage: step for step in drift.steps if step.tensor == "output"}
    assert last["onnx"].db > 100
    assert 30 < last["quantised"].db < 100
    assert last["compiled"].reference_db > 25


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_layer_that_saturates_is_the_first_to_part(here, engine):
    (drift,) = find_drift(recipe(test="loud.npz", gain=40.0), here, "local", engine=engine)
    assert list(drift.first) == ["quantised"]
    first = drift.first["quantised"]
    assert (first.tensor, first.before) == ("relu" if engine == "onnxruntime" else first.tensor, "onnx")
    assert first.op in ("Conv", "Relu")
    assert not [s for s in drift.steps if s.tensor == "input" and s.parts], "the input itself is in its range"
    assert first.before_range[1] > 100 > 20 > first.range[1], "cut off far under what it should reach"


@pytest.mark.parametrize("stage", ["onnx", "quantised", "compiled"])
def test_a_weight_changed_between_two_stages_is_named_by_what_it_makes(here, monkeypatch, stage):
    """One weight of the second convolution is another from one stage on."""
    step = {"onnx": "export", "quantised": "quantize_step", "compiled": "compile_step"}[stage]
    real = getattr(line, step)

    def faulty(*args):
        artifact = real(*args)
        proto = onnx.load(artifact.path)
        weight = next(t for t in proto.graph.initializer if t.name.startswith("second.weight") and len(t.dims) == 4)
        values = numpy_helper.to_array(weight).copy()
        values[0] = 0 if values.dtype.kind == "i" else -values[0] * 3
        weight.CopyFrom(numpy_helper.from_array(values, weight.name))
        folder = here / f"faulty-{stage}"
        folder.mkdir()
        onnx.save(proto, folder / "model.onnx")
        other = describe_onnx(folder / "model.onnx", precision=artifact.precision)
        return save_artifact(replace(other, engine=artifact.engine, options=artifact.options))

    monkeypatch.setattr(line, step, faulty)
    (drift,) = find_drift(recipe(), here, "local", engine="onnxruntime")
    assert list(drift.first) == [stage]
    assert drift.first[stage].tensor in ("conv2d_1", "relu_1")
    assert drift.first[stage].db < 30


def test_a_file_from_elsewhere_begins_at_onnx(here, tiny_onnx):
    onnx.save(tiny_onnx("five_convs"), here / "model.onnx")
    found = find_drift(recipe("model.onnx", calibration=None), here, "local", precision="fp32")
    assert [drift.engine for drift in found] == ["openvino", "onnxruntime"]
    for drift in found:
        assert drift.stages == ("onnx", "compiled")
        assert drift.first == {}
        assert min(step.db for step in drift.steps) > 100


def test_an_engine_that_fails_is_told_beside_the_other(here, monkeypatch):
    real = line.quantize_step

    def failing(fp32, plan, task, steps):
        if plan.engine == "openvino":
            raise EngineError("openvino is out of sorts")
        return real(fp32, plan, task, steps)

    monkeypatch.setattr(line, "quantize_step", failing)
    found = {drift.engine: drift for drift in find_drift(recipe(), here, "local")}
    assert found["openvino"].failure == "openvino is out of sorts"
    assert found["openvino"].steps == ()
    assert found["onnxruntime"].failure is None
    with pytest.raises(EngineError, match="out of sorts"):
        find_drift(recipe(), here, "local", engine="openvino")


def test_where_every_engine_fails_it_is_an_error(here, monkeypatch):
    def failing(*args):
        raise EngineError("out of sorts")

    monkeypatch.setattr(line, "compile_step", failing)
    with pytest.raises(EdgeKitError, match="no engine came through") as caught:
        find_drift(recipe(), here, "local", precision="fp32")
    assert caught.value.found == "openvino fp32: out of sorts\nonnxruntime fp32: out of sorts"


def test_what_cannot_be_walked_is_refused(here):
    with pytest.raises(SpecError, match="engine 'tflite' is no candidate of target 'local'"):
        find_drift(recipe(), here, "local", engine="tflite")
    with pytest.raises(SpecError, match="does not run w2"):
        find_drift(recipe(), here, "local", precision="w2")
    with pytest.raises(DataError, match="int8 needs calibration samples"):
        find_drift(recipe(calibration=None, inputs=["input=f32[1,3,12,12]"]), here, "local", engine="openvino")


def test_steps_of_a_run_are_taken_again(here):
    find_drift(recipe(), here, "local", engine="onnxruntime", out=here / "run")
    before = sorted(path.name for path in (here / "run" / ".steps").iterdir())
    assert any(name.startswith("quantize-") for name in before)
    find_drift(recipe(), here, "local", engine="onnxruntime", out=here / "run")
    assert sorted(path.name for path in (here / "run" / ".steps").iterdir()) == before
