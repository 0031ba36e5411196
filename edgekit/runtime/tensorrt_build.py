"""Builds a TensorRT plan on the device it is for: one path for TensorRT 10.3 to 11.x, on names that all of them have.

Precision lives in the graph: the network is strongly typed, so int8 is where Q/DQ stand and fp16 where casts do. No
flag of a precision is set; all of them are gone from TensorRT 11.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.artifact import Option
from edgekit.errors import EngineError, EngineMissing
from edgekit.runtime.boundary import Boundary
from edgekit.runtime.cuda import Gpu, gpu
from edgekit.runtime.external_data import check_external_data
from edgekit.runtime.options import check_options
from edgekit.runtime.tensorrt_module import MEMORY, Log, collect_log, import_tensorrt, on_gpu, open_plan
from edgekit.runtime.tensorrt_profiles import PROFILE_OPTIONS, profile_shapes

NAME = "tensorrt"
OPTIONS: dict[str, type] = {
    "precision": str,
    "optimization_level": int,
    "workspace_mb": int,
    "hardware_compatible": bool,
    "dla_core": int,
    **dict.fromkeys(PROFILE_OPTIONS, str),
}
LEVELS = range(6)
MB = 1_000_000
_AMPERE = 8  # major compute capability from which plans can be hardware compatible
_NO_KERNEL = re.compile(r"Could not find any implementation for node (.+?)(?:\.?\)|\.$|\. |$)", re.IGNORECASE)
_OPERATORS = re.compile(r"(?:No importer registered for op: |Unsupported operator:? )(\w+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What a build gives.

    Attributes:
        plan: The serialized engine; for this TensorRT version and this kind of GPU only.
        timing_cache: What was learnt of kernels' times, for the next build on this device.
        inspector: What TensorRT says of its layers; None where that is no JSON.
    """

    plan: bytes
    timing_cache: bytes
    inspector: dict[str, Any] | None


def build_plan(model: Path, options: Mapping[str, Option], cache: bytes | None) -> Built:
    """Builds the plan of an ONNX file for the GPU of this process. Takes seconds to many minutes.

    Args:
        model: The ``.onnx`` file; its external data must lie in the same folder or below.
        options: ``precision``; ``optimization_level`` 0 to 5 (default 3); ``workspace_mb``, the most a kernel may
            use besides, clamped to what is free (default: all of that); ``hardware_compatible``: for all GPUs from
            Ampere on; ``dla_core``: the deep learning accelerator to use, in fp16; ``profile_min``, ``profile_opt``,
            ``profile_max``: shapes of inputs with open dimensions.
        cache: The timing cache of an earlier build; one of another TensorRT version or GPU is not used.

    Raises:
        UnknownName: An option is unknown.
        EngineMissing: TensorRT is missing, too old or too new, or there is no usable GPU.
        EngineError: An option does not fit this device, or TensorRT refuses the model or fails: told with cause and
            fix.
        BundleError: The model is no ONNX file, or its external data points outside its folder.
    """
    check_build_options(options)
    check_external_data(model)
    trt = import_tensorrt()
    device = gpu()
    log = collect_log(trt)
    with Boundary(NAME, f"build {model.name}", lambda message: _OPERATORS.findall(message)):
        builder = on_gpu(trt.Builder, log)
        _check_device(builder, options, device)
        network = _parsed(trt, builder, log, model)
        workspace = _workspace_bytes(options, device)
        config = _configured(trt, builder, options, workspace)
        _add_profile(builder, network, config, options, model)
        timings = _timing_cache(config, cache, log)
        memory = builder.build_serialized_network(network, config)
        if memory is None:
            raise _not_built(log, model, options, workspace, device)
        plan = bytes(memory)
        return Built(
            plan=plan, timing_cache=bytes(timings.serialize()), inspector=_inspected(trt, log, plan, model, options)
        )


def check_build_options(options: Mapping[str, Option]) -> None:
    """Refuses options that no device could build with.

    Raises:
        UnknownName: An option is unknown.
        EngineError: A value is of the wrong type or out of range, or a deep learning accelerator is asked for in a
            precision it is not offered in.
    """
    check_options(NAME, options, OPTIONS)
    level, core = options.get("optimization_level", 3), options.get("dla_core")
    if level not in LEVELS:
        raise EngineError(
            f"{NAME} option 'optimization_level' is out of range", found=level, allowed=f"{LEVELS[0]} to {LEVELS[-1]}"
        )
    if int(options.get("workspace_mb", 1)) < 1:
        raise EngineError(f"{NAME} option 'workspace_mb' is out of range", found=options["workspace_mb"], allowed="≥ 1")
    precision = options.get("precision")
    if core is not None and precision != "fp16":
        why = (
            "TensorRT 10 gives a DLA int8 by calibration (implicit quantisation), not by the Q/DQ of this model, and "
            "TensorRT 11 has no calibration"
            if precision == "int8"
            else "a DLA computes in fp16 and int8 only"
        )
        raise EngineError(
            f"{NAME} option 'dla_core' is offered in fp16 only: {why}",
            found=f"precision {precision}, dla_core {core}",
            allowed="precision fp16",
            fix="make the artifact in fp16, or leave dla_core out: the GPU runs it",
        )


def _check_device(builder: Any, options: Mapping[str, Option], device: Gpu) -> None:
    core, cores = options.get("dla_core"), int(builder.num_DLA_cores)
    if core is not None and int(core) not in range(cores):
        raise EngineMissing(
            f"{NAME} option 'dla_core' asks for deep learning accelerator {core}, which is not here",
            found=f"{cores} of them on this {device.name}, as this TensorRT sees it",
            allowed=f"0 to {cores - 1}" if cores else "none",
            fix="leave dla_core out: the GPU runs the model (TensorRT 10.8 to 11.4.0 knows no DLA at all)",
        )
    if options.get("hardware_compatible") and int(device.compute_capability.partition(".")[0]) < _AMPERE:
        raise EngineError(
            f"{NAME} option 'hardware_compatible' needs a GPU of the Ampere generation or newer",
            found=f"{device.name}, compute capability {device.compute_capability}",
            allowed=f"{_AMPERE}.0 or higher",
            fix="leave hardware_compatible out: the plan is then for this GPU",
        )


def _parsed(trt: Any, builder: Any, log: Log, model: Path) -> Any:
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log.logger)
    if parser.parse_from_file(str(model)):
        return network
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    lines = [_told(error) for error in errors] or [log.text()]
    codes = [error.code() for error in errors]
    if trt.ErrorCode.MODEL_DESERIALIZE_FAILED in codes:
        fix = "it is damaged, or of an opset that this TensorRT does not know (10.x: 9 to 20): make it again"
    elif trt.ErrorCode.MEM_ALLOC_FAILED in codes or MEMORY.search(" ".join(lines)):
        fix = "there is too little memory on this device for the model: end what else runs, or use a smaller model"
    else:
        fix = f"`edgekit inspect {model.name} --rules tensorrt` lists what TensorRT does not take, with its fix"
    raise EngineError(
        f"TensorRT {trt.__version__} cannot read {model.name}: {len(lines)} error{'s' * (len(lines) > 1)}",
        found="\n           ".join(lines),
        allowed="what https://github.com/onnx/onnx-tensorrt/blob/main/docs/operators.md lists",
        fix=fix,
    )


def _told(error: Any) -> str:
    """One parser error: which node, and why."""
    name, operator, index = error.node_name(), error.node_operator(), error.node()
    node = f"node {name or index}" if name or index >= 0 else "the graph"
    text = " ".join(str(error.desc()).split())
    return f"{node}{f' ({operator})' if operator else ''}: {text or error.code()}"


def _workspace_bytes(options: Mapping[str, Option], device: Gpu) -> int:
    """What kernels may use besides: as asked, but no more than is free now."""
    return min(int(options.get("workspace_mb", device.free_mb)), max(device.free_mb, 1)) * MB


def _configured(trt: Any, builder: Any, options: Mapping[str, Option], workspace: int) -> Any:
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace)
    config.builder_optimization_level = int(options.get("optimization_level", 3))
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # what placement() reads; it costs nothing to run
    if options.get("precision") == "fp32":
        config.clear_flag(trt.BuilderFlag.TF32)  # on by default: 10 bits of mantissa where 23 were asked for
    if options.get("hardware_compatible"):
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    if "dla_core" in options:
        config.default_device_type = trt.DeviceType.DLA
        config.DLA_core = int(options["dla_core"])
        config.set_flag(trt.BuilderFlag.GPU_FALLBACK)  # placement() tells what the DLA did not take
    return config


def _add_profile(builder: Any, network: Any, config: Any, options: Mapping[str, Option], model: Path) -> None:
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    shapes = {tensor.name: tuple(int(size) for size in tensor.shape) for tensor in inputs}
    wanted = profile_shapes(options, shapes, model.name)
    if not wanted:
        return
    profile = builder.create_optimization_profile()
    for name, (least, likely, largest) in wanted.items():
        profile.set_shape(name, least, likely, largest)
    if config.add_optimization_profile(profile) < 0:
        raise EngineError(
            f"{model.name}: TensorRT refuses the shapes to build for",
            found="; ".join(f"{name}: {steps}" for name, steps in wanted.items()),
        )


def _timing_cache(config: Any, cache: bytes | None, log: Log) -> Any:
    """Gives the builder what an earlier build learnt; one of another version or GPU, or a broken one, is begun anew."""
    for blob in (cache, b"") if cache else (b"",):
        timings = config.create_timing_cache(blob)
        if timings is not None and config.set_timing_cache(timings, ignore_mismatch=False):
            log.errors.clear()  # of a cache that was not taken
            return timings
    raise EngineError("TensorRT cannot begin a timing cache", found=log.text())


def _inspected(trt: Any, log: Log, plan: bytes, model: Path, options: Mapping[str, Option]) -> dict[str, Any] | None:
    core = options.get("dla_core")
    # The runtime is kept in a name: an engine must not outlive it.
    runtime, engine = open_plan(trt, log, plan, f"the plan of {model.name}", None if core is None else int(core))
    text = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    del engine, runtime
    try:
        found = json.loads(text)
    except ValueError:  # names with quotes in them are not always escaped
        return None
    return found if isinstance(found, dict) else None


def _not_built(
    log: Log, model: Path, options: Mapping[str, Option], workspace: int, device: Gpu
) -> EngineError | EngineMissing:
    text = " ".join([*log.errors, *log.warnings])
    asked = f"{options['workspace_mb']} MB asked for, " if "workspace_mb" in options else ""
    memory = f"workspace {workspace // MB} MB ({asked}{device.free_mb} of {device.memory_mb} MB free on {device.name})"
    node = _NO_KERNEL.search(text)
    smaller = "end what else runs on the device, make the model or its batch smaller"
    if MEMORY.search(text):
        problem, fix = f"{device.name} ran out of memory while TensorRT built {model.name}", smaller
        if workspace // MB > device.free_mb // 2:
            fix += f", or set workspace_mb to {max(device.free_mb // 4, 1)}"
    elif node is not None:
        problem = (
            f"TensorRT found no way to run node {node[1]} of {model.name}: most often the memory that its kernels "
            "may use is too small"
        )
        more = device.free_mb > workspace // MB
        fix = f"set workspace_mb to {device.free_mb}, all that is free" if more else smaller
        fix += "; if that does not help, this TensorRT has no kernel for the node in its precision: leave it in float"
    else:
        problem = f"TensorRT could not build {model.name}"
        fix = f"`edgekit inspect {model.name} --rules tensorrt` lists what TensorRT does not take"
    return EngineError(problem, found=f"{log.text()}; {memory}", fix=fix)
