"""A TensorRT engine's inputs and outputs, and the memory they are passed in."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgekit.artifact import Array, TensorSpec
from edgekit.errors import EngineError, FeedError
from edgekit.runtime.cuda import MB, Cuda

Shape = tuple[int, ...]
_DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "BF16": "bfloat16",
    "BOOL": "bool",
    "INT8": "int8",
    "UINT8": "uint8",
    "INT32": "int32",
    "INT64": "int64",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Io:
    """One input or output as the engine has it.

    Attributes:
        name: Tensor name.
        dtype: numpy's name of the element type, or the engine's where numpy has none.
        shape: Dimensions; -1 is open.
        is_input: Whether it is an input.
        on_host: Whether the engine reads or writes it in the CPU's memory, as it does with shapes given as tensors.
        smallest: Of an input with open dimensions, the smallest shape its optimisation profile takes.
        largest: The largest.
    """

    name: str
    dtype: str
    shape: Shape
    is_input: bool
    on_host: bool
    smallest: Shape | None = None
    largest: Shape | None = None

    @property
    def spec(self) -> TensorSpec:
        """As an artifact declares it; an open dimension is named after its place."""
        shape = tuple(size if size >= 0 else f"{self.name}_{axis}" for axis, size in enumerate(self.shape))
        return TensorSpec(name=self.name, dtype=self.dtype, shape=shape)


def read_io(engine: Any, trt: Any) -> list[Io]:
    """The inputs and outputs of an engine, in its order; ranges are those of its first optimisation profile."""
    found = []
    for index in range(engine.num_io_tensors):
        name = engine.get_tensor_name(index)
        dtype, shape = engine.get_tensor_dtype(name).name, tuple(engine.get_tensor_shape(name))
        is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
        on_host = engine.get_tensor_location(name) == trt.TensorLocation.HOST
        ranged = is_input and not on_host and -1 in shape
        low, _, high = engine.get_tensor_profile_shape(name, 0) if ranged else (None, None, None)
        found.append(
            Io(
                name=name,
                dtype=_DTYPES.get(dtype, dtype.lower()),
                shape=shape,
                is_input=is_input,
                on_host=on_host,
                smallest=None if low is None else tuple(low),
                largest=None if high is None else tuple(high),
            )
        )
    return found


def check_ranges(feeds: Mapping[str, Shape], tensors: Sequence[Io]) -> None:
    """Refuses shapes outside the optimisation profile.

    Args:
        feeds: Shapes by input name.
        tensors: What the engine has.

    Raises:
        FeedError: One is outside.
    """
    for io in tensors:
        if io.smallest is None or io.largest is None:
            continue
        shape = feeds[io.name]
        if not all(a <= b <= c for a, b, c in zip(io.smallest, shape, io.largest, strict=True)):
            raise FeedError(
                f"input {io.name!r} has a shape outside of the engine's optimisation profile",
                found=list(shape),
                allowed=f"{list(io.smallest)} to {list(io.largest)}",
                fix="split or pad it, or make the artifact for these shapes (profile_min, profile_max)",
            )


class Buffer:
    """The memory of one input or output: pinned on the host, and on the device where the engine reads it there.

    It grows and never shrinks. What it took is given back by the :class:`Cuda` that it was taken from.

    Args:
        cuda: What gives the memory.
        io: The tensor.
    """

    __slots__ = ("_cuda", "_device_bytes", "_dtype", "_host_bytes", "device", "host", "io", "nbytes", "view")

    def __init__(self, cuda: Cuda, io: Io) -> None:
        self.io = io
        self.host = self.device = 0
        self.nbytes = 0
        self.view: Array = np.empty(0)
        self._cuda = cuda
        self._dtype = np.dtype(io.dtype)
        self._host_bytes = self._device_bytes = 0

    @property
    def address(self) -> int:
        """Where the engine reads or writes it."""
        return self.host if self.io.on_host else self.device

    def fit(self, shape: Shape) -> None:
        """Makes room for a shape; :attr:`view` is the host's memory in that shape from then on.

        Raises:
            EngineError: There is not enough memory.
        """
        self.nbytes = math.prod(shape) * self._dtype.itemsize
        self._pin(self.nbytes)
        if not self.io.on_host:
            self.reserve(self.nbytes)
        memory = (ctypes.c_byte * self._host_bytes).from_address(self.host)
        self.view = np.ndarray(shape, self._dtype, buffer=memoryview(memory))

    def reserve(self, nbytes: int) -> int:
        """Makes room on the device, where it is too small, and returns its address; what it held is lost then."""
        if nbytes > self._device_bytes or not self.device:
            size = max(1, nbytes)  # the engine wants an address of an empty tensor too
            old, self.device, self._device_bytes = self.device, 0, 0
            if old:
                self._cuda.give_back(old)
            doing = f"take {size / MB:.1f} MB for {self.io.name!r}"
            self.device = self._cuda.take("cudaMalloc", size, release="cudaFree", doing=doing)
            self._device_bytes = size
        return self.device

    def _pin(self, nbytes: int) -> None:
        if nbytes > self._host_bytes or not self.host:
            size = max(1, nbytes)
            old, self.host, self._host_bytes = self.host, 0, 0
            self.view = np.empty(0)
            if old:
                self._cuda.give_back(old)
            flags = self._cuda.api.cudaHostAllocDefault
            doing = f"pin {size / MB:.1f} MB of the host's memory for {self.io.name!r}"
            self.host = self._cuda.take("cudaHostAlloc", size, flags, release="cudaFreeHost", doing=doing)
            self._host_bytes = size


def growing_outputs(trt: Any, buffers: Mapping[str, Buffer]) -> Any:
    """TensorRT's allocator of outputs whose shapes are known only once they are computed.

    Args:
        trt: The module ``tensorrt``.
        buffers: The memory of those outputs, by name.

    Returns:
        An ``IOutputAllocator``, with ``shapes`` by name as the engine told them last, and ``refused``: the error that
        kept memory from growing, since nothing can be raised through the engine.
    """

    class Growing(trt.IOutputAllocator):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IOutputAllocator.__init__(self)
            self.shapes: dict[str, Shape] = {}
            self.refused: EngineError | None = None

        def reallocate_output(self, tensor_name: str, memory: int, size: int, alignment: int) -> int:
            try:
                return buffers[tensor_name].reserve(size)
            except EngineError as exc:
                self.refused = exc
                return 0

        def reallocate_output_async(self, tensor_name: str, memory: int, size: int, alignment: int, stream: int) -> int:
            return self.reallocate_output(tensor_name, memory, size, alignment)

        def notify_shape(self, tensor_name: str, shape: Any) -> None:
            self.shapes[tensor_name] = tuple(shape)

    return Growing()


def layer_times(trt: Any) -> Any:
    """TensorRT's profiler: an ``IProfiler`` whose ``mean_us()`` is the time of each layer, the first run left out."""

    class Times(trt.IProfiler):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)
            self._ms: dict[str, list[float]] = {}

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self._ms.setdefault(layer_name, []).append(ms)

        def mean_us(self) -> dict[str, float]:
            return {name: 1e3 * sum(ms[1:]) / len(ms[1:]) for name, ms in self._ms.items() if len(ms) > 1}

    return Times()
