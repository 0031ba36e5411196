"""The build on the device, against a fake TensorRT whose every call is checked against the real bindings."""

import json
import sys
from dataclasses import replace

import onnx
import pytest
from tensorrt_fake import FakeDevice, fake_tensorrt
from tensorrt_fake_types import ErrorCode

from edgekit.errors import EngineError, EngineMissing, UnknownName
from edgekit.runtime import tensorrt_build
from edgekit.runtime.cuda import Gpu
from edgekit.runtime.tensorrt_build import build_plan
from edgekit.runtime.tensorrt_module import check_version, collect_log, import_tensorrt, open_plan

ORIN = Gpu(
    name="Orin", compute_capability="8.7", memory_mb=8000, free_mb=5000, driver="540.4, CUDA 12.6", runtime="12.6"
)
FP32 = {"precision": "fp32"}
FP16 = {"precision": "fp16"}


@pytest.fixture(params=["10.3.0", "11.4.0.106"])
def device(request, monkeypatch):
    world = FakeDevice(version=request.param)
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt(world))
    monkeypatch.setattr(tensorrt_build, "gpu", lambda: ORIN)
    return world


@pytest.fixture
def conv(tmp_path, tiny_onnx):
    onnx.save(tiny_onnx("conv_batch2"), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


@pytest.fixture
def dynamic(tmp_path, tiny_onnx):
    onnx.save(tiny_onnx("conv"), tmp_path / "open.onnx")
    return tmp_path / "open.onnx"


def test_a_plan_is_built_with_what_the_options_say(device, conv):
    built = build_plan(conv, FP32 | {"optimization_level": 5, "workspace_mb": 512}, None)
    config = device.configs[0]
    assert (config.builder_optimization_level, config.pools) == (5, {"WORKSPACE": 512_000_000})
    assert config.profiling_verbosity.name == "DETAILED"
    assert config.hardware_compatibility_level.name == "NONE"
    assert built.inspector is not None
    assert built.inspector["Layers"]
    trt = import_tensorrt()
    log = collect_log(trt)
    assert open_plan(trt, log, built.plan, "plan")[1].num_io_tensors == 2


def test_the_network_is_strongly_typed_by_name(device, conv, monkeypatch):
    flags = []
    module = sys.modules["tensorrt"]
    create = module.Builder.create_network
    monkeypatch.setattr(module.Builder, "create_network", lambda self, n: flags.append(n) or create(self, n))
    build_plan(conv, FP32, None)
    assert flags == [1 << int(module.NetworkDefinitionCreationFlag.STRONGLY_TYPED)]


@pytest.mark.parametrize(("asked", "given"), [({}, 5000), ({"workspace_mb": 9000}, 5000), ({"workspace_mb": 1}, 1)])
def test_the_workspace_is_clamped_to_what_is_free(device, conv, asked, given):
    build_plan(conv, FP32 | asked, None)
    assert device.configs[0].pools == {"WORKSPACE": given * 1_000_000}


def test_fp32_is_no_tf32(device, conv):
    build_plan(conv, FP32, None)
    build_plan(conv, FP16, None)
    assert ["TF32" in config.flags_set for config in device.configs] == [False, True]


def test_hardware_compatibility_needs_ampere(device, conv, monkeypatch):
    build_plan(conv, FP32 | {"hardware_compatible": True}, None)
    assert device.configs[0].hardware_compatibility_level.name == "AMPERE_PLUS"
    turing = replace(ORIN, name="Tesla T4", compute_capability="7.5")
    monkeypatch.setattr(tensorrt_build, "gpu", lambda: turing)
    with pytest.raises(EngineError, match=r"(?s)Ampere.*Tesla T4, compute capability 7\.5"):
        build_plan(conv, FP32 | {"hardware_compatible": True}, None)


def test_a_dla_is_used_in_fp16_where_there_is_one(device, conv):
    device.dla_cores = 2
    build_plan(conv, FP16 | {"dla_core": 1}, None)
    config = device.configs[0]
    assert (config.default_device_type.name, config.DLA_core) == ("DLA", 1)
    assert "GPU_FALLBACK" in config.flags_set
    device.dla_cores = 0
    with pytest.raises(EngineMissing, match=r"(?s)accelerator 0, which is not here.*0 of them on this Orin"):
        build_plan(conv, FP16 | {"dla_core": 0}, None)


@pytest.mark.parametrize(("precision", "why"), [("int8", "implicit quantisation"), ("fp32", "fp16 and int8 only")])
def test_a_dla_is_refused_in_other_precisions_before_any_work(conv, precision, why):
    with pytest.raises(EngineError, match=why):
        build_plan(conv, {"precision": precision, "dla_core": 0}, None)


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({"optimization_level": 6}, EngineError, "0 to 5"),
        ({"workspace_mb": 0}, EngineError, "workspace_mb"),
        ({"workspace": 5}, UnknownName, "workspace_mb"),
        ({"hardware_compatible": 1}, EngineError, "true or false"),
    ],
)
def test_a_wrong_option_is_told_before_any_work(conv, options, error, told):
    with pytest.raises(error, match=told):
        build_plan(conv, FP32 | options, None)


def test_timings_are_learnt_once(device, conv):
    first = build_plan(conv, FP32, None).timing_cache
    again = build_plan(conv, FP32, first).timing_cache
    assert len(again) > len(first)
    assert device.configs[1].cache is not None


@pytest.mark.parametrize("broken", [b"nonsense", b"fake-timings\n9.9 Other GPU\nabc"])
def test_timings_of_another_version_or_broken_ones_are_begun_anew(device, conv, broken):
    assert build_plan(conv, FP32, broken).timing_cache == build_plan(conv, FP32, None).timing_cache


def test_open_dimensions_are_built_for_their_profile(device, dynamic):
    name = onnx.load(dynamic).graph.input[0].name
    rest = "x".join(str(d.dim_value) for d in onnx.load(dynamic).graph.input[0].type.tensor_type.shape.dim[1:])
    shapes = {f"profile_{step}": f"{name}:{batch}x{rest}" for step, batch in (("min", 1), ("opt", 4), ("max", 8))}
    build_plan(dynamic, FP32 | shapes, None)
    (profile,) = device.configs[0].profiles
    assert [shape[0] for shape in profile._shapes[name]] == [1, 4, 8]
    with pytest.raises(EngineError, match="has open dimensions"):
        build_plan(dynamic, FP32, None)
    with pytest.raises(EngineError, match="the least first"):
        build_plan(dynamic, FP32 | shapes | {"profile_max": shapes["profile_min"]}, None)


def test_every_parser_error_is_told_with_its_node(device, conv):
    device.parse_errors = (
        {"desc": "No importer registered for op: Foo", "node": 3, "node_name": "foo_1", "node_operator": "Foo"},
        {"desc": "Assertion failed: zero point must be zero", "node": 5, "node_operator": "QuantizeLinear"},
    )
    with pytest.raises(EngineError, match=r"2 errors") as told:
        build_plan(conv, FP32, None)
    assert "node foo_1 (Foo): No importer" in str(told.value)
    assert "node 5 (QuantizeLinear): Assertion failed" in str(told.value)
    assert "edgekit inspect model.onnx --rules tensorrt" in str(told.value)
    device.parse_errors = ({"desc": "", "code": ErrorCode.MODEL_DESERIALIZE_FAILED},)
    with pytest.raises(EngineError, match="damaged, or of an opset"):
        build_plan(conv, FP32, None)


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("Error Code 10: Internal Error (Could not find any implementation for node /conv1/Conv.)", "node /conv1/Conv"),
        ("Error Code 2: OutOfMemory (Requested size was 1048576 bytes.)", "Orin ran out of memory while"),
        ("Error Code 4: Internal Error (broken)", "could not build model.onnx"),
    ],
)
def test_a_failed_build_is_told_with_cause_and_fix(device, conv, message, told):
    device.build_messages = (message,)
    with pytest.raises(EngineError, match=told) as caught:
        build_plan(conv, FP32 | {"workspace_mb": 100}, None)
    assert message in str(caught.value)
    assert "workspace 100 MB (100 MB asked for, 5000 of 8000 MB free on Orin)" in str(caught.value)
    assert caught.value.fix


def test_the_fix_of_a_missing_kernel_fits_the_memory_there_is(device, conv):
    device.build_messages = ("Could not find any implementation for node c.",)
    with pytest.raises(EngineError, match="set workspace_mb to 5000"):
        build_plan(conv, FP32 | {"workspace_mb": 100}, None)
    with pytest.raises(EngineError, match=r"fix: +end what else runs"):
        build_plan(conv, FP32, None)


def test_no_gpu_is_told_as_such(device, conv):
    device.has_gpu = False
    with pytest.raises(EngineMissing, match=r"(?s)no usable GPU.*CUDA initialization failure"):
        build_plan(conv, FP32, None)


def test_no_tensorrt_is_told_as_such(conv, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(EngineMissing, match=r"(?s)cannot be loaded.*JetPack"):
        build_plan(conv, FP32, None)


@pytest.mark.parametrize("version", ["8.6.1.6", "9.3.0", "10.2.0", "12.0.1", "dev"])
def test_another_series_is_refused(version, conv, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt(FakeDevice(version=version)))
    with pytest.raises(EngineMissing, match=r"(?s)10\.3 to 11\.x.*upgrade"):
        build_plan(conv, FP32, None)


@pytest.mark.parametrize("version", ["10.3.0", "10.13.2.6", "11.0.0", "11.4.0.106"])
def test_the_supported_series_are_taken(version, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt(FakeDevice(version=version)))
    check_version(version)
    assert import_tensorrt().__version__ == version


def test_a_plan_of_another_version_is_told_as_such(device, conv):
    plan = build_plan(conv, FP32, None).plan
    device.version = "10.9.0"
    trt = import_tensorrt()
    with pytest.raises(
        EngineError, match=r"(?s)model.plan: it was built for another TensorRT version.*expecting library"
    ):
        open_plan(trt, collect_log(trt), plan, "model.plan")
    with pytest.raises(EngineError, match=r"another TensorRT version or GPU, or is damaged"):
        open_plan(trt, collect_log(trt), plan[:7], "model.plan")


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("Error Code 2: OutOfMemory (Requested size was 4096 bytes.)", "there is no memory on the GPU to open it"),
        ("Error Code 9: something else", "TensorRT cannot open it"),
    ],
)
def test_a_plan_that_cannot_be_opened_where_it_was_built_is_told(device, conv, message, told):
    device.open_messages = (message,)
    with pytest.raises(EngineError, match=f"the plan of model.onnx: {told}"):
        build_plan(conv, FP32, None)


def test_an_inspector_that_gives_no_json_costs_no_plan(device, conv):
    device.inspector = '{"Layers": ["a "quoted" name"]}'
    assert build_plan(conv, FP32, None).inspector is None
    device.inspector = json.dumps({"Layers": ["a"]})
    assert build_plan(conv, FP32, None).inspector == {"Layers": ["a"]}
