"""A small complete fake of the TensorRT calls that are used: builds, keeps, runs, all on the CPU.

Names, parameters and types are those of the real bindings (``test_tensorrt_contract.py`` compares every one of them),
and arguments are checked against them at every call. A "plan" holds the ONNX file; a context runs it with ONNX
Runtime, on addresses that are this process's own memory, so a fake CUDA needs no more than host memory.

    world = FakeDevice(version="10.3.0")
    monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt(world))
"""

from __future__ import annotations

from types import ModuleType

from tensorrt_fake_build import (
    Builder,
    Dims,
    FakeDevice,
    IBuilderConfig,
    IHostMemory,
    ILogger,
    INetworkDefinition,
    IOptimizationProfile,
    ITensor,
    ITimingCache,
    OnnxParser,
    ParserError,
)
from tensorrt_fake_run import EngineInspector, ICudaEngine, IExecutionContext, IOutputAllocator, IProfiler, Runtime
from tensorrt_fake_types import (
    CREATION,
    FLAGS,
    DataType,
    DeviceType,
    ErrorCode,
    HardwareCompatibilityLevel,
    LayerInformationFormat,
    MemoryPoolType,
    ProfilingVerbosity,
    TensorIOMode,
    TensorLocation,
)

CLASSES = (
    *(ILogger, IHostMemory, ITimingCache, IOptimizationProfile, IBuilderConfig, ITensor, INetworkDefinition),
    *(ParserError, OnnxParser, Builder, EngineInspector, ICudaEngine, Runtime, IOutputAllocator, IExecutionContext),
    *(IProfiler,),
    *(Dims, MemoryPoolType, DeviceType, HardwareCompatibilityLevel, ProfilingVerbosity, LayerInformationFormat),
    *(TensorIOMode, TensorLocation, DataType, ErrorCode),
)


def fake_tensorrt(world: FakeDevice) -> ModuleType:
    """A module to stand for ``tensorrt``, on a device of its own."""
    module = ModuleType("tensorrt")
    series = 11 if world.version.startswith("11.") else 10
    vars(module).update({cls.__name__: cls for cls in CLASSES}, __version__=world.version)
    module.Builder = type("Builder", (Builder,), {"_world": world})  # type: ignore[attr-defined]
    module.Runtime = type("Runtime", (Runtime,), {"_world": world})  # type: ignore[attr-defined]
    module.NetworkDefinitionCreationFlag = CREATION[series]  # type: ignore[attr-defined]
    module.BuilderFlag = FLAGS[series]  # type: ignore[attr-defined]
    return module
