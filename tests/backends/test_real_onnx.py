"""Real exported models of opset 9 and 11 through import, both engines and both quantisers."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from small_nets import quantise, samples_for

from edgekit.backends import load_backend
from edgekit.catalog import load_target
from edgekit.checking import runnable
from edgekit.conversion.clean import describe_onnx, load_onnx
from edgekit.runtime import open_artifact
from edgekit.runtime.numbers import run_batched, snr_db

pytestmark = pytest.mark.skipif("EDGEKIT_DATA" not in os.environ, reason="needs EDGEKIT_DATA: real exported models")
MODELS = ["dtln-1", "dtln-2", "fastestdet", "version-RFB-320", "version-slim-320"]
ENGINES = ["onnxruntime", "openvino"]


@pytest.fixture(scope="module")
def real():
    """A real model as an fp32 artifact, by name."""

    def take(name):
        path = Path(os.environ["EDGEKIT_DATA"]) / "onnx" / f"{name}.onnx"
        load_onnx(path)
        return describe_onnx(path, precision="fp32")

    return take


@pytest.fixture(scope="module")
def outputs(real, tmp_path_factory):
    """Outputs of a compiled model on an engine; made once."""
    done = {}

    def run(name, engine):
        if (name, engine) not in done:
            fp32 = real(name)
            done[name, engine] = compiled_outputs(engine, fp32, fp32, tmp_path_factory.mktemp(f"{name}-{engine}"))
        return done[name, engine]

    return run


def compiled_outputs(engine, model, fp32, out):
    session = open_artifact(load_backend(engine).compile(model, load_target("x86-vnni"), 1, out))
    try:
        return run_batched(session, samples_for(fp32.inputs, 4).tensors(range(4)))
    finally:
        session.close()


@pytest.mark.parametrize("name", MODELS)
def test_both_engines_compute_the_same_in_float(name, outputs):
    ours, other = (outputs(name, engine) for engine in ENGINES)
    assert ours.keys() == other.keys()
    assert min(snr_db(ours[key], other[key]) for key in ours) >= 90.0


@pytest.mark.parametrize("name", MODELS)
def test_the_file_itself_runs_as_the_reference(name, real, outputs):
    """As a whole it is opened before anything is fixed, and it declares sizes an engine knows better."""
    from dataclasses import replace

    fp32 = real(name)
    session = open_artifact(replace(fp32, engine="onnxruntime"))
    found = run_batched(session, samples_for(fp32.inputs, 4).tensors(range(4)))
    session.close()
    assert min(snr_db(found[key], value) for key, value in outputs(name, "onnxruntime").items()) >= 90.0


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", ["dtln-2", "version-slim-320"])
def test_an_old_model_is_quantised(name, engine, real, outputs, tmp_path):
    fp32 = real(name)
    model = quantise(engine, "x86-vnni", fp32, tmp_path / "int8")
    found = compiled_outputs(engine, model, fp32, tmp_path / "built")
    decibels = [snr_db(value, found[key]) for key, value in outputs(name, engine).items()]
    assert min(decibels) > 10.0
    assert max(decibels) < 90.0
    assert all(np.isfinite(value).all() for value in found.values())


@pytest.mark.parametrize(("precision", "least_db"), [("fp16", 35.0), ("int8", 10.0)])
@pytest.mark.parametrize("name", ["dtln-2", "fastestdet", "version-RFB-320"])
def test_an_old_model_in_the_dialect_of_tensorrt_breaks_none_of_its_rules(
    name, precision, least_db, real, outputs, tmp_path
):
    fp32 = real(name)
    backend, target = load_backend("tensorrt"), load_target("jetson-orin-nano")
    changes = {} if precision == "int8" else {"precision": precision, "method": None, "scheme": None}
    built = backend.compile(quantise("tensorrt", target.name, fp32, tmp_path / "made", **changes), target, 1, tmp_path)
    session = open_artifact(runnable(built))  # compile refuses what breaks a rule; ONNX Runtime's CPU computes the rest
    found = run_batched(session, samples_for(fp32.inputs, 4).tensors(range(4)))
    session.close()
    assert min(snr_db(value, found[key]) for key, value in outputs(name, "onnxruntime").items()) > least_db
