import os
from dataclasses import replace

import numpy as np
import pytest

from edgekit import runtime
from edgekit.artifact import hash_files
from edgekit.errors import BundleError, EngineError
from edgekit.runtime import openvino as module

FEEDS = {"input": np.ones((2, 3, 8, 8), np.float32)}


@pytest.fixture
def tiny_ir(tiny_artifact):
    """An artifact in OpenVINO's own format."""

    def make(model, **options):
        import openvino

        artifact = tiny_artifact(model, "openvino", **options)
        openvino.save_model(openvino.Core().read_model(artifact.path), artifact.folder / "model.xml")
        artifact.path.unlink()
        return replace(artifact, model="model.xml", files=hash_files(artifact.folder, ["model.xml", "model.bin"]))

    return make


def test_an_ir_runs(tiny_ir, tiny_artifact):
    expected = runtime.open_artifact(tiny_artifact("conv", "openvino")).run(FEEDS)["output"]
    found = runtime.open_artifact(tiny_ir("conv")).run(FEEDS)["output"]
    np.testing.assert_allclose(found, expected, atol=5e-3)  # save_model keeps weights in fp16


def test_a_tensor_of_several_names_goes_by_the_declared_one(tiny_artifact):
    import openvino

    artifact = tiny_artifact("two_inputs", "openvino")
    model = openvino.Core().read_model(artifact.path)
    for port in (*model.inputs, *model.outputs):
        port.get_tensor().add_names({"a_" + port.any_name, "z_" + port.any_name})
    openvino.save_model(model, artifact.folder / "model.xml")
    session = runtime.open_artifact(replace(artifact, model="model.xml"))
    outputs = session.run({"left": np.full((1, 4), 2, np.float32), "right": np.full((1, 4), 3, np.float32)})
    assert {name: float(array[0, 0]) for name, array in outputs.items()} == {"sum": 5.0, "product": 6.0}


def test_an_ir_without_its_weights_says_so(tiny_ir):
    artifact = tiny_ir("conv")
    (artifact.folder / "model.bin").unlink()
    with pytest.raises(BundleError, match=r"the file 'model.bin' is missing"):
        runtime.open_artifact(artifact)


def test_an_ir_whose_weights_are_a_link_out_is_refused(tiny_ir, tmp_path):
    artifact = tiny_ir("conv")
    (artifact.folder / "model.bin").rename(tmp_path / "elsewhere.bin")
    (artifact.folder / "model.bin").symlink_to(tmp_path / "elsewhere.bin")
    with pytest.raises(BundleError, match="through a link"):
        runtime.open_artifact(artifact)


@pytest.mark.parametrize("content", ["", "<net", "<net></net>"])
def test_a_damaged_ir_is_an_error(tiny_ir, content):
    artifact = tiny_ir("conv")
    artifact.path.write_text(content)
    with pytest.raises(EngineError, match=r"openvino could not open model\.xml"):
        runtime.open_artifact(artifact)


def test_another_format_is_refused(tiny_artifact):
    artifact = tiny_artifact("conv", "openvino")
    artifact.path.rename(artifact.folder / "model.pdmodel")
    with pytest.raises(EngineError, match="cannot open") as caught:
        runtime.open_artifact(replace(artifact, model="model.pdmodel"))
    assert caught.value.allowed == ".xml, .onnx"


def test_precision_is_f32_unless_asked(tiny_artifact):
    session = runtime.open_artifact(tiny_artifact("five_convs", "openvino"))
    assert session.placement().share("fp32") == 1.0


def test_weights_stored_in_fp16_are_not_taken_for_computing_in_fp16(tiny_ir):
    placement = runtime.open_artifact(tiny_ir("five_convs")).placement()
    assert placement.share("fp32") == 1.0


def test_weights_stored_in_int8_are_not_taken_for_computing_in_int8(tiny_artifact):
    values = ", ".join(str(v) for v in np.random.default_rng(0).integers(-100, 100, 64 * 64))
    text = f"""weights_only (float["batch", 64] input) => (float["batch", 64] output)
        <int8[64, 64] w = {{{values}}}, float s = {{0.01}}, int8 z = {{0}}> {{
            d = DequantizeLinear(w, s, z)
            output = MatMul(input, d)
        }}"""
    placement = runtime.open_artifact(tiny_artifact(text, "openvino", precision="int8")).placement()
    assert placement.share("fp32") == 1.0


def test_properties_reach_the_engine(tiny_artifact):
    options = {
        "device": "CPU",
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": 1,
        "ENABLE_CPU_PINNING": False,
        "ENABLE_HYPER_THREADING": False,
        "INFERENCE_PRECISION_HINT": "f32",
    }
    session = runtime.open_artifact(tiny_artifact("conv", "openvino", **options))
    found = {key: module._plain(session._compiled.get_property(key)) for key in options if key != "device"}
    assert found == {key: value for key, value in options.items() if key != "device"}


@pytest.mark.parametrize(
    ("asked", "actual", "good"),
    [
        ({"INFERENCE_PRECISION_HINT": "f32"}, {"INFERENCE_PRECISION_HINT": "f32"}, True),
        ({"INFERENCE_PRECISION_HINT": "f16"}, {"INFERENCE_PRECISION_HINT": "bf16"}, False),
        ({"PERFORMANCE_HINT": "LATENCY"}, {"PERFORMANCE_HINT": "THROUGHPUT"}, False),
        ({"INFERENCE_NUM_THREADS": 4}, {"INFERENCE_NUM_THREADS": 3}, True),  # three cores here
        ({"INFERENCE_NUM_THREADS": 2}, {"INFERENCE_NUM_THREADS": 3}, False),
        ({"INFERENCE_NUM_THREADS": 4}, {"INFERENCE_NUM_THREADS": 2}, False),
        ({"NUM_STREAMS": 8}, {"NUM_STREAMS": 3}, True),
        ({"ENABLE_HYPER_THREADING": True}, {"ENABLE_HYPER_THREADING": False}, True),
        ({"ENABLE_HYPER_THREADING": False}, {"ENABLE_HYPER_THREADING": True}, False),
        ({"ENABLE_CPU_PINNING": True}, {"ENABLE_CPU_PINNING": False}, False),
    ],
)
def test_what_the_engine_changed_is_an_error_unless_the_machine_is_small(monkeypatch, asked, actual, good):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2})
    if good:
        module._check_properties(asked, actual)
        return
    key = next(iter(asked))
    with pytest.raises(EngineError, match=f"openvino did not take {key}={asked[key]}") as caught:
        module._check_properties(asked, actual)
    assert caught.value.found == f"{key}={actual[key]}"


@pytest.mark.parametrize(("hint", "precision", "capability"), [("f16", "fp16", "FP16"), ("bf16", "bf16", "BF16")])
def test_a_precision_hint_is_kept_or_refused_never_changed(tiny_artifact, hint, precision, capability):
    import openvino

    artifact = tiny_artifact("five_convs", "openvino", INFERENCE_PRECISION_HINT=hint)
    if capability in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        assert runtime.open_artifact(artifact).placement().share(precision) == 1.0
    else:
        with pytest.raises(EngineError, match=f"did not take INFERENCE_PRECISION_HINT={hint}"):
            runtime.open_artifact(artifact)


@pytest.mark.parametrize(
    "option",
    [{"PERFORMANCE_HINT": "FAST"}, {"INFERENCE_PRECISION_HINT": "f33"}, {"device": "NOPE"}, {"NUM_STREAMS": -7}],
)
def test_a_value_the_engine_refuses_is_an_engine_error(tiny_artifact, option):
    with pytest.raises(EngineError, match=r"openvino could not open model\.onnx"):
        runtime.open_artifact(tiny_artifact("conv", "openvino", **option))


def test_the_cache_lies_beside_the_model_and_is_used(tiny_ir):
    artifact = tiny_ir("five_convs", CACHE_DIR="cache")
    runtime.open_artifact(artifact).close()
    assert list((artifact.folder / "cache").glob("*.blob"))
    session = runtime.open_artifact(artifact)
    assert session._compiled.get_property("LOADED_FROM_CACHE") is True
    assert session.placement().share("fp32") == 1.0


@pytest.mark.parametrize("folder", ["/var/cache/models", "../cache"])
def test_a_cache_elsewhere_is_refused(tiny_artifact, folder):
    with pytest.raises(BundleError, match="points outside its folder"):
        runtime.open_artifact(tiny_artifact("conv", "openvino", CACHE_DIR=folder))


def test_what_fails_while_running_is_an_engine_error(tiny_artifact):
    text = """reshape (float["batch", 4] input) => (float["rows", 4] output)
        <int64[2] shape = {3, 4}> { output = Reshape(input, shape) }"""
    artifact = tiny_artifact(text, "openvino")
    artifact = replace(artifact, outputs=(replace(artifact.outputs[0], shape=(3, 4)),))
    session = runtime.open_artifact(artifact)
    with pytest.raises(EngineError, match=r"openvino could not run model\.onnx") as caught:
        session.run({"input": np.ones((2, 4), np.float32)})
    assert caught.value.__cause__ is not None
