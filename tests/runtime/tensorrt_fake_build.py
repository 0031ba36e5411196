"""The builder's half of the fake TensorRT: logger, network, configuration, parser."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tensorrt_fake_types import (
    DTYPES,
    DataType,
    DeviceType,
    ErrorCode,
    HardwareCompatibilityLevel,
    MemoryPoolType,
    ProfilingVerbosity,
    Severity,
    binding,
    value,
)

MAGIC = b"fake-plan\n"
CACHE_MAGIC = b"fake-timings\n"


@dataclass
class FakeDevice:
    """What stands behind the fake: set a field to see a failure.

    Attributes:
        version: TensorRT's version, which decides the members of its enums.
        has_gpu: Whether a builder or runtime can be made.
        name: The GPU, for plans and timing caches are tied to it.
        dla_cores: Deep learning accelerators.
        build_messages: Logged as errors by a build, which then fails.
        open_messages: Logged as errors when a plan is opened, which then fails.
        parse_errors: Of every file: keyword arguments of :class:`ParserError`.
        inspector: What the engine inspector says; None: made of the model.
        during_build: Called in the middle of a build.
        builds: Builds begun.
        calls: Names of all methods called and properties set, as ``Class.name``.
        configs: Every configuration that a network was built with.
        output_scale: What a built plan's outputs are multiplied by; not 1 where a build goes wrong.
        dims_at_enqueue: Whether output shapes are known only when they are computed.
        on_host: Inputs that the engine reads in the CPU's memory, as it does with shapes.
        context_memory: Whether there is memory for a context.
        enqueue: Puts work on a stream, by its handle, and says whether it could.
        finish: Does all work that was put on streams.
    """

    version: str = "10.3.0"
    has_gpu: bool = True
    name: str = "Fake GPU"
    dla_cores: int = 0
    build_messages: tuple[str, ...] = ()
    open_messages: tuple[str, ...] = ()
    parse_errors: tuple[dict[str, Any], ...] = ()
    inspector: str | None = None
    during_build: Callable[[], None] = lambda: None
    builds: int = 0
    calls: list[str] = field(default_factory=list)
    configs: list[IBuilderConfig] = field(default_factory=list)
    output_scale: float = 1.0
    dims_at_enqueue: bool = False
    on_host: tuple[str, ...] = ()
    context_memory: bool = True
    enqueue: Callable[[int, Callable[[], None]], bool] = lambda stream, work: work() is None
    finish: Callable[[], None] = lambda: None


@binding
class ILogger:
    ERROR, INTERNAL_ERROR, WARNING = Severity.ERROR, Severity.INTERNAL_ERROR, Severity.WARNING
    INFO, VERBOSE = Severity.INFO, Severity.VERBOSE

    def __init__(self) -> None:
        self._made = True  # a subclass that forgets this call fails, as with the bindings

    def log(self, severity: Severity, msg: str) -> None:
        raise NotImplementedError('Tried to call pure virtual function "ILogger::log"')


def report(logger: Any, severity: Severity, text: str) -> None:
    if not logger._made:
        raise TypeError("ILogger.__init__() must be called when overriding __init__")
    logger.log(severity, text)


@binding
class IHostMemory:
    """Read with ``bytes(memory)``; the real one has the buffer protocol, which Python code cannot give."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    nbytes = property(lambda self: len(self._data))

    def __bytes__(self) -> bytes:
        return self._data


@binding
class ITimingCache:
    def __init__(self, data: bytes, origin: str) -> None:
        self._data, self._origin = data, origin

    def serialize(self) -> IHostMemory:
        return IHostMemory(CACHE_MAGIC + self._origin.encode() + b"\n" + self._data)


@binding
class IOptimizationProfile:
    def __init__(self) -> None:
        self._shapes: dict[str, tuple[Any, Any, Any]] = {}

    def set_shape(self, input: str, min: Dims, opt: Dims, max: Dims) -> None:
        self._shapes[input] = (tuple(min), tuple(opt), tuple(max))


class Dims(tuple):
    """Shapes; tuples and lists are taken wherever one is asked for."""


@binding
class IBuilderConfig:
    builder_optimization_level = value("int", settable=True, start=3)
    profiling_verbosity = value("ProfilingVerbosity", settable=True, start=ProfilingVerbosity.LAYER_NAMES_ONLY)
    hardware_compatibility_level = value(
        "HardwareCompatibilityLevel", settable=True, start=HardwareCompatibilityLevel.NONE
    )
    default_device_type = value("DeviceType", settable=True, start=DeviceType.GPU)
    DLA_core = value("int", settable=True, start=-1)

    def __init__(self, world: FakeDevice) -> None:
        self._world = world
        self.pools: dict[str, int] = {}
        self.flags_set = {"TF32"}
        self.profiles: list[IOptimizationProfile] = []
        self.cache: ITimingCache | None = None

    def set_memory_pool_limit(self, pool: MemoryPoolType, pool_size: int) -> None:
        self.pools[pool.name] = pool_size

    def set_flag(self, flag: BuilderFlag) -> None:  # noqa: F821  # one a series
        self.flags_set.add(flag.name)

    def clear_flag(self, flag: BuilderFlag) -> None:  # noqa: F821
        self.flags_set.discard(flag.name)

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache:
        blob = bytes(serialized_timing_cache)
        if not blob:
            return ITimingCache(b"", self._origin())
        if not blob.startswith(CACHE_MAGIC):
            return None
        origin, _, data = blob.removeprefix(CACHE_MAGIC).partition(b"\n")
        return ITimingCache(data, origin.decode())

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        good = ignore_mismatch or cache._origin == self._origin()
        self.cache = cache if good else None
        return good

    def get_timing_cache(self) -> ITimingCache:
        return self.cache

    def _origin(self) -> str:
        return f"{self._world.version} {self._world.name}"


@binding
class ITensor:
    name = value("str")
    dtype = value("DataType")
    shape = value("Dims")

    def __init__(self, name: str, dtype: DataType, shape: Dims) -> None:
        for prop, new in ((ITensor.name, name), (ITensor.dtype, dtype), (ITensor.shape, shape)):
            setattr(self, prop.key, new)


@binding
class INetworkDefinition:
    def __init__(self, world: FakeDevice, flags: int) -> None:
        self._world, self._flags, self._onnx = world, flags, b""
        self._inputs: list[ITensor] = []
        self._outputs: list[ITensor] = []
        self._layers = 0

    num_inputs = property(lambda self: len(self._inputs))
    num_outputs = property(lambda self: len(self._outputs))
    num_layers = property(lambda self: self._layers)

    def get_input(self, index: int) -> ITensor:
        return self._inputs[index]

    def get_output(self, index: int) -> ITensor:
        return self._outputs[index]


@binding
class ParserError:
    def __init__(self, **told: Any) -> None:
        self._told = told

    def code(self) -> ErrorCode:
        return self._told.get("code", ErrorCode.UNSUPPORTED_NODE)

    def desc(self) -> str:
        return self._told.get("desc", "")

    def node(self) -> int:
        return self._told.get("node", -1)

    def node_name(self) -> str:
        return self._told.get("node_name", "")

    def node_operator(self) -> str:
        return self._told.get("node_operator", "")


def tensor_of(info: Any) -> ITensor:
    from onnx import helper

    kind = info.type.tensor_type
    dtype = DTYPES[str(np.dtype(helper.tensor_dtype_to_np_dtype(kind.elem_type)))]
    return ITensor(info.name, dtype, tuple(d.dim_value if d.HasField("dim_value") else -1 for d in kind.shape.dim))


@binding
class OnnxParser:
    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        self._world, self._network, self._logger = network._world, network, logger
        self._errors: list[ParserError] = []

    num_errors = property(lambda self: len(self._errors))

    def parse_from_file(self, model: str) -> bool:
        import onnx
        from google.protobuf.message import DecodeError

        self._errors = [ParserError(**told) for told in self._world.parse_errors]
        if self._errors:
            return False
        try:
            proto = onnx.load(model)
        except DecodeError:
            self._errors = [
                ParserError(desc="Failed to parse the ONNX model.", code=ErrorCode.MODEL_DESERIALIZE_FAILED)
            ]
            return False
        graph = proto.graph
        constants = {tensor.name for tensor in graph.initializer}
        self._network._inputs = [tensor_of(info) for info in graph.input if info.name not in constants]
        self._network._outputs = [tensor_of(info) for info in graph.output]
        self._network._onnx, self._network._layers = proto.SerializeToString(), len(graph.node)
        return True

    def get_error(self, index: int) -> ParserError:
        return self._errors[index]


@binding
class Builder:
    _world: FakeDevice

    def __init__(self, logger: ILogger) -> None:
        if not self._world.has_gpu:
            report(logger, Severity.ERROR, "CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self._logger = logger

    num_DLA_cores = property(lambda self: self._world.dla_cores)

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        return INetworkDefinition(self._world, flags)

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig(self._world)

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> IHostMemory:
        world = self._world
        world.builds += 1
        world.configs.append(config)
        world.during_build()
        for message in world.build_messages:
            report(self._logger, Severity.ERROR, message)
        dynamic = [t for t in network._inputs if -1 in t.shape]
        if any(t.name not in p._shapes for t in dynamic for p in config.profiles) or (dynamic and not config.profiles):
            report(self._logger, Severity.ERROR, "network has dynamic inputs but no optimization profile is defined")
            return None
        if world.build_messages:
            return None
        if config.cache is not None:
            config.cache._data += hashlib.sha256(network._onnx).digest()
        told = {"version": world.version, "gpu": world.name, "scale": world.output_scale}
        told["profiles"] = [profile._shapes for profile in config.profiles]
        return IHostMemory(MAGIC + json.dumps(told).encode() + b"\n" + network._onnx)
