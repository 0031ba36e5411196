from dataclasses import replace

import numpy as np
import pytest

from edgekit import runtime
from edgekit.errors import EngineError, EngineMissing
from edgekit.runtime.onnxruntime import engine_errors, lacks_provider

FEEDS = {"input": np.ones((2, 3, 8, 8), np.float32)}


def test_options_reach_the_engine(tiny_artifact):
    options = {
        "provider": "CPUExecutionProvider",
        "intra_op_num_threads": 1,
        "inter_op_num_threads": 1,
        "enable_cpu_mem_arena": False,
        "enable_mem_pattern": False,
        "session.intra_op.allow_spinning": False,
        "session.dynamic_block_base": 4,
    }
    session = runtime.open_artifact(tiny_artifact("conv", **options))
    found = session._session.get_session_options()
    assert (found.intra_op_num_threads, found.inter_op_num_threads) == (1, 1)
    assert (found.enable_cpu_mem_arena, found.enable_mem_pattern) == (False, False)
    assert found.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert found.get_session_config_entry("session.dynamic_block_base") == "4"
    assert session.run(FEEDS)["output"].shape == (2, 4, 8, 8)


@pytest.mark.parametrize("provider", ["CUDAExecutionProvider", "TensorrtExecutionProvider", "NoSuchProvider"])
def test_a_missing_provider_is_an_error_and_no_fallback(tiny_artifact, provider):
    with pytest.raises(EngineMissing, match=f"no working {provider}") as caught:
        runtime.open_artifact(tiny_artifact("conv", provider=provider))
    assert "CPUExecutionProvider" in str(caught.value.found)


def test_a_provider_that_does_not_start_is_an_error_and_no_fallback(tiny_artifact, monkeypatch):
    import onnxruntime

    listed = [*onnxruntime.get_available_providers(), "CUDAExecutionProvider"]
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: listed)
    real = onnxruntime.InferenceSession
    monkeypatch.setattr(
        "onnxruntime.InferenceSession",
        lambda path, settings, providers, **options: real(path, providers=["CPUExecutionProvider"], **options),
    )
    with pytest.raises(EngineMissing, match="no working CUDAExecutionProvider"):
        runtime.open_artifact(tiny_artifact("conv", provider="CUDAExecutionProvider"))


def test_a_provider_that_does_not_take_the_whole_model_is_an_error_and_no_fallback(tiny_artifact, capfd):
    """The Azure provider is in every build of ONNX Runtime, and takes no operator of these."""
    with pytest.raises(EngineError, match=r"AzureExecutionProvider does not take all of model\.onnx") as caught:
        runtime.open_artifact(tiny_artifact("conv", provider="AzureExecutionProvider"))
    assert '"session.disable_cpu_ep_fallback" = false' in caught.value.fix
    assert caught.value.__cause__ is not None
    asked = {"provider": "AzureExecutionProvider", "session.disable_cpu_ep_fallback": False}
    session = runtime.open_artifact(tiny_artifact("conv", **asked))
    assert session.run(FEEDS)["output"].shape == (2, 4, 8, 8)
    assert "Falling back" not in capfd.readouterr().out


def test_cudas_fp32_is_fp32(tiny_artifact, monkeypatch):
    import onnxruntime

    asked = []

    def open_(path, settings, providers, enable_fallback):
        asked.append((providers, enable_fallback, settings.get_session_config_entry("session.disable_cpu_ep_fallback")))
        raise RuntimeError("no driver")

    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", open_)
    with pytest.raises(EngineError, match="no driver"):
        runtime.open_artifact(tiny_artifact("conv", provider="CUDAExecutionProvider"))
    assert asked == [([("CUDAExecutionProvider", {"use_tf32": "0"})], 0, "1")]


def test_whether_the_provider_is_there_is_asked_of_the_build():
    assert lacks_provider({"provider": "CUDAExecutionProvider"})
    assert not lacks_provider({"provider": "AzureExecutionProvider"})
    assert not lacks_provider({})


@pytest.mark.parametrize(
    "entry",
    [
        "session.model_external_initializers_file_folder_path",
        "session.optimized_model_external_initializers_file_name",
        "session.load_model_format",
        "ep.context_file_path",
        "session.collect_node_memory_stats_to_file",
        "session.debug_layout_transformation",
    ],
)
def test_an_entry_that_makes_it_use_other_files_is_not_taken(tiny_artifact, entry):
    with pytest.raises(EngineError, match=f"option '{entry}' is not taken"):
        runtime.open_artifact(tiny_artifact("conv", **{entry: "/tmp"}))


def test_placement_has_names_operators_and_times(tiny_artifact, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    placement = runtime.open_artifact(tiny_artifact("five_convs")).placement()
    assert placement.device == "CPUExecutionProvider"
    compute = [node for node in placement.nodes if node.compute]
    assert all(node.time_us is not None and node.time_us >= 0 for node in placement.nodes)
    assert all("Conv" in node.op for node in compute)
    assert not list(tmp_path.glob("*.json")), "the profile is left behind"


def test_placement_of_weights_alone_in_int8_is_float(tiny_artifact):
    values = ", ".join(["1"] * 16)
    text = f"""weights_only (float["batch", 4] input) => (float["batch", 4] output)
        <int8[4, 4] w = {{{values}}}, float s = {{0.1}}, int8 z = {{0}}> {{
            d = DequantizeLinear(w, s, z)
            output = MatMul(input, d)
        }}"""
    placement = runtime.open_artifact(tiny_artifact(text, precision="int8")).placement()
    assert placement.share("fp32") == 1.0


def test_placement_of_integer_matmul_is_int8(tiny_artifact):
    values = ", ".join(["1"] * 16)
    text = f"""integer (float["batch", 4] input) => (float["batch", 4] output)
        <int8[4, 4] w = {{{values}}}, float s = {{0.1}}, int8 z = {{0}}> {{
            q, qs, qz = DynamicQuantizeLinear(input)
            i = MatMulInteger(q, w, qz, z)
            f = Cast<to=1>(i)
            output = Mul(f, s)
        }}"""
    placement = runtime.open_artifact(tiny_artifact(text, precision="int8")).placement()
    assert placement.share("int8") == 1.0


def test_what_fails_while_running_is_an_engine_error(tiny_artifact):
    text = """reshape (float["batch", 4] input) => (float["rows", 4] output)
        <int64[2] shape = {3, 4}> { output = Reshape(input, shape) }"""
    artifact = tiny_artifact(text)
    session = runtime.open_artifact(replace(artifact, outputs=(replace(artifact.outputs[0], shape=(3, 4)),)))
    with pytest.raises(EngineError, match=r"onnxruntime could not run model\.onnx") as caught:
        session.run({"input": np.ones((2, 4), np.float32)})
    assert "Reshape" in str(caught.value.found)
    assert caught.value.__cause__ is not None


def test_the_boundary_lets_our_own_errors_and_interrupts_through():
    original = EngineMissing("ours")
    with pytest.raises(EngineMissing) as caught, engine_errors("work"):
        raise original
    assert caught.value is original
    with pytest.raises(KeyboardInterrupt), engine_errors("work"):
        raise KeyboardInterrupt


def test_the_boundary_keeps_the_cause():
    with pytest.raises(EngineError, match="onnxruntime could not work") as caught, engine_errors("work"):
        raise ValueError("why")
    assert isinstance(caught.value.__cause__, ValueError)
    assert caught.value.found == "ValueError: why"
