"""The runtime's half of the fake TensorRT: engine, inspector, context."""

from __future__ import annotations

import ctypes
import json
from typing import Any

import numpy as np
from tensorrt_fake_build import MAGIC, Dims, FakeDevice, ILogger, ITensor, report, tensor_of
from tensorrt_fake_types import (
    DTYPES,
    DataType,
    LayerInformationFormat,
    Severity,
    TensorIOMode,
    TensorLocation,
    binding,
    value,
)


@binding
class EngineInspector:
    def __init__(self, engine: ICudaEngine) -> None:
        self._engine = engine

    def get_engine_information(self, format: LayerInformationFormat) -> str:
        world = self._engine._world
        if world.inspector is not None:
            return world.inspector
        layers = [
            {
                "Name": f"{node.name or node.output[0]}",
                "LayerType": "CaskConvolution" if node.op_type == "Conv" else node.op_type,
                "Inputs": [{"Name": name, "Format/Datatype": "Row major linear FP32"} for name in node.input],
                "Outputs": [{"Name": name, "Format/Datatype": "Row major linear FP32"} for name in node.output],
                "Metadata": f"[ONNX Layer: {node.name or node.output[0]}]",
            }
            for node in self._engine._proto.graph.node
        ]
        return json.dumps({"Layers": layers, "Bindings": [tensor.name for tensor in self._engine._tensors]})


@binding
class ICudaEngine:
    def __init__(self, world: FakeDevice, logger: ILogger, told: dict[str, Any], blob: bytes) -> None:
        import onnx

        self._world, self._logger, self._told, self._onnx = world, logger, told, blob
        self._proto = onnx.load_from_string(blob)
        constants = {tensor.name for tensor in self._proto.graph.initializer}
        self._inputs = [tensor_of(info) for info in self._proto.graph.input if info.name not in constants]
        self._tensors = self._inputs + [tensor_of(info) for info in self._proto.graph.output]

    num_io_tensors = property(lambda self: len(self._tensors))
    num_optimization_profiles = property(lambda self: max(1, len(self._told["profiles"])))
    device_memory_size_v2 = property(lambda self: 1 << 20)

    def get_tensor_name(self, index: int) -> str:
        return self._tensors[index].name

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if any(t.name == name for t in self._inputs) else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        return self._tensor(name).dtype

    def get_tensor_shape(self, name: str) -> Dims:
        return self._tensor(name).shape

    def get_tensor_location(self, name: str) -> TensorLocation:
        return TensorLocation.HOST if name in self._world.on_host else TensorLocation.DEVICE

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list:
        return [Dims(shape) for shape in self._told["profiles"][profile_index][name]]

    def create_engine_inspector(self) -> EngineInspector:
        return EngineInspector(self)

    def create_execution_context(self) -> IExecutionContext:
        if self._world.context_memory:
            return IExecutionContext(self)
        report(self._logger, Severity.ERROR, "createExecutionContext: Error Code 2: OutOfMemory (Requested size 1 MiB)")
        return None

    def _tensor(self, name: str) -> ITensor:
        return next(tensor for tensor in self._tensors if tensor.name == name)


@binding
class Runtime:
    _world: FakeDevice
    DLA_core = value("int", settable=True, start=-1)

    def __init__(self, logger: ILogger) -> None:
        if not self._world.has_gpu:
            report(logger, Severity.ERROR, "CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self._logger = logger

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine:
        for message in self._world.open_messages:
            report(self._logger, Severity.ERROR, message)
        if self._world.open_messages:
            return None
        blob = bytes(serialized_engine)
        head, _, onnx = blob.removeprefix(MAGIC).partition(b"\n")
        if not blob.startswith(MAGIC) or not onnx:
            report(self._logger, Severity.ERROR, "IRuntime::deserializeCudaEngine: Error Code 1: magicTag mismatch")
            return None
        told = json.loads(head)
        if told["version"] != self._world.version:
            text = "The engine plan file is not compatible with this version of TensorRT, expecting library version "
            report(self._logger, Severity.ERROR, f"{text}{self._world.version} got {told['version']}")
            return None
        return ICudaEngine(self._world, self._logger, told, onnx)


@binding
class IOutputAllocator:
    """Subclassed by the caller, with ``reallocate_output_async`` (or ``reallocate_output``) and ``notify_shape``."""

    def __init__(self) -> None:
        self._made = True


@binding
class IProfiler:
    """Subclassed by the caller, with ``report_layer_time``."""

    def __init__(self) -> None:
        self._made = True

    def report_layer_time(self, layer_name: str, ms: float) -> None:
        raise NotImplementedError('Tried to call pure virtual function "IProfiler::report_layer_time"')


@binding
class IExecutionContext:
    profiler = value("IProfiler", settable=True)

    def __init__(self, engine: ICudaEngine) -> None:
        self._engine, self._world = engine, engine._world
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._allocators: dict[str, Any] = {}
        self._session: Any = None

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        return profile_index < self._engine.num_optimization_profiles

    def set_input_shape(self, name: str, shape: Dims) -> bool:
        fixed, wanted = self._engine.get_tensor_shape(name), tuple(shape)
        good = len(fixed) == len(wanted) and all(f in (-1, w) for f, w in zip(fixed, wanted, strict=True))
        if good and -1 in fixed:
            low, _, high = self._engine._told["profiles"][0][name]
            good = all(a <= b <= c for a, b, c in zip(low, wanted, high, strict=True))
        if not good:
            report(self._engine._logger, Severity.ERROR, f"IExecutionContext::setInputShape: Error Code 3: {wanted}")
            return False
        self._shapes[name] = wanted
        return True

    def infer_shapes(self) -> list:
        return [t.name for t in self._engine._inputs if -1 in t.shape and t.name not in self._shapes]

    def get_tensor_shape(self, name: str) -> Dims:
        if self._engine.get_tensor_mode(name) is TensorIOMode.INPUT:
            return self._shapes.get(name, self._engine.get_tensor_shape(name))
        fixed = self._engine.get_tensor_shape(name)
        if -1 not in fixed or self._world.dims_at_enqueue:
            return fixed
        feeds = {t.name: np.zeros(self.get_tensor_shape(t.name), _numpy(t.dtype)) for t in self._engine._inputs}
        feeds |= {t.name: _array(t, self) for t in self._engine._inputs if t.name in self._world.on_host}
        return self._compute(feeds)[name].shape

    def get_max_output_size(self, name: str) -> int:
        return 1 << 16

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return memory % 16 == 0

    def set_output_allocator(self, name: str, output_allocator: IOutputAllocator) -> bool:
        self._allocators[name] = output_allocator
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        inputs = self._engine._inputs
        missing = [t.name for t in self._engine._tensors if not self._addresses.get(t.name)]
        if set(missing) - set(self._allocators) or self.infer_shapes():
            report(self._engine._logger, Severity.ERROR, f"enqueueV3: Error Code 3: address is not set: {missing}")
            return False
        shapes, addresses = dict(self._shapes), dict(self._addresses)

        def work() -> None:
            feeds = {t.name: _array(t, self, shapes, addresses) for t in inputs}
            for name, array in self._compute(feeds).items():
                if name not in self._allocators:
                    _write(addresses[name], array)
            if self.profiler is not None:
                for node in self._engine._proto.graph.node:
                    self.profiler.report_layer_time(node.name or node.output[0], 0.125)

        if not self._allocators:
            return self._world.enqueue(stream_handle, work)
        self._world.finish()  # outputs whose shapes the data decides are waited for
        for name, array in self._compute({t.name: _array(t, self, shapes, addresses) for t in inputs}).items():
            address = addresses.get(name)
            allocator = self._allocators.get(name)
            if allocator is not None:
                asked = array.nbytes or 1
                address = allocator.reallocate_output_async(name, address or 0, asked, 256, stream_handle)
                allocator.notify_shape(name, Dims(array.shape))
                if not address:
                    return False
            _write(address, array)
        return True

    def _compute(self, feeds: dict[str, Any]) -> dict[str, Any]:
        import onnxruntime

        if self._session is None:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            self._session = onnxruntime.InferenceSession(
                self._engine._onnx, options, providers=["CPUExecutionProvider"]
            )
        names = [output.name for output in self._session.get_outputs()]
        arrays = self._session.run(names, feeds)
        scale = self._engine._told["scale"]
        return {n: (a * a.dtype.type(scale) if scale != 1 else a) for n, a in zip(names, arrays, strict=True)}


def _array(tensor: ITensor, context: IExecutionContext, shapes: Any = None, addresses: Any = None) -> Any:
    """What lies at the address of an input."""
    shape = (context._shapes if shapes is None else shapes).get(tensor.name, tensor.shape)
    address = (context._addresses if addresses is None else addresses)[tensor.name]
    dtype = np.dtype(_numpy(tensor.dtype))
    raw = ctypes.string_at(address, int(np.prod(shape)) * dtype.itemsize)
    return np.frombuffer(raw, dtype).reshape(shape)


def _write(address: int, array: Any) -> None:
    ctypes.memmove(address, np.ascontiguousarray(array).ctypes.data, array.nbytes)


def _numpy(dtype: DataType) -> str:
    return next(name for name, kind in DTYPES.items() if kind is dtype)
