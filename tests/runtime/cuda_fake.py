"""A complete fake of the calls to ``cuda.bindings.runtime`` that are made: memory is numpy's, streams are queues.

Nothing on a stream happens before somebody waits for it, a capture records what is put on its stream, copies are
checked against what was allocated and on which side, and what is not given back is left in ``live``. Parameters,
enums and numbers are those of the real package, which ``test_cuda_contract.py`` compares.

    world = FakeCuda()
    world.install(monkeypatch)
"""

from __future__ import annotations

import enum
import inspect
import itertools
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

KERNEL_MS = 0.25
MB = 10**6


class cudaError_t(enum.IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorInsufficientDriver = 35
    cudaErrorDevicesUnavailable = 46
    cudaErrorNoDevice = 100
    cudaErrorInvalidResourceHandle = 400
    cudaErrorNotReady = 600
    cudaErrorIllegalAddress = 700
    cudaErrorLaunchFailure = 719
    cudaErrorSystemDriverMismatch = 803
    cudaErrorCompatNotSupportedOnDevice = 804
    cudaErrorStreamCaptureUnsupported = 900
    cudaErrorStreamCaptureInvalidated = 901


class cudaMemcpyKind(enum.IntEnum):
    cudaMemcpyHostToHost = 0
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2
    cudaMemcpyDeviceToDevice = 3


class cudaStreamCaptureMode(enum.IntEnum):
    cudaStreamCaptureModeGlobal = 0
    cudaStreamCaptureModeThreadLocal = 1
    cudaStreamCaptureModeRelaxed = 2


cudaStreamNonBlocking = 1
cudaHostAllocDefault = 0
OK = cudaError_t.cudaSuccess
Work = Callable[[], None]


class Handle:
    """A stream, an event or a graph."""

    _numbers = itertools.count(0x1000, 0x10)

    def __init__(self, kind: str) -> None:
        self.kind, self.number = kind, next(self._numbers)
        self.queue: list[Work] = []
        self.captured: list[Work] | None = None
        self.broken = False
        self.at_ms: float | None = None

    def __int__(self) -> int:
        return self.number


class Properties:
    name, major, minor = b"Fake GPU", 8, 7


class FakeCuda:
    """The device behind the fake.

    Attributes:
        live: What was taken and not given back: addresses of memory, and handles.
        calls: Names of all calls, in order.
        fail: By name of a call: the error it answers, and at which of its calls (0 is the first).
        capture: What a capture does with an engine: ``works``, ``breaks`` it, or the engine ``refuses`` to run in it.
        free_mb: Told by ``cudaMemGetInfo``.
    """

    def __init__(self) -> None:
        self.live: dict[int, Any] = {}
        self.calls: list[str] = []
        self.fail: dict[str, tuple[str, int]] = {}
        self.capture = "works"
        self.free_mb = 6000
        self.devices = 1
        self.clock_ms = 0.0
        self.launches = 0

    def install(self, monkeypatch: Any) -> ModuleType:
        """Puts the fake where the package ``cuda.bindings`` is imported from."""
        module = ModuleType("cuda.bindings.runtime")
        for kind in (cudaError_t, cudaMemcpyKind, cudaStreamCaptureMode):
            setattr(module, kind.__name__, kind)
        vars(module).update(cudaStreamNonBlocking=cudaStreamNonBlocking, cudaHostAllocDefault=cudaHostAllocDefault)
        for name in CALLS:
            setattr(module, name, self._counted(name))
        bindings, parent = ModuleType("cuda.bindings"), ModuleType("cuda")
        bindings.runtime, parent.bindings = module, bindings  # type: ignore[attr-defined]
        for at in (parent, bindings, module):
            monkeypatch.setitem(sys.modules, at.__name__, at)
            at.__spec__ = object()  # type: ignore[assignment]  # what find_spec gives for a module that is there
        return module

    def _counted(self, name: str) -> Callable[..., Any]:
        method = getattr(self, name)

        def call(*args: Any) -> Any:
            self.calls.append(name)
            code, at = self.fail.get(name, ("", -1))
            if at == self.calls.count(name) - 1:
                if name == "cudaStreamEndCapture":
                    args[0].captured = None  # it ends, whatever came of it
                return (cudaError_t[code], *([None] * RESULTS.get(name, 0)))
            return method(*args)

        call.__signature__ = inspect.signature(method)  # type: ignore[attr-defined]
        return call

    def enqueue(self, stream_handle: int, work: Work) -> bool:
        """What the fake TensorRT puts its kernels on; False where it refuses to run in a capture."""
        stream = next(h for h in self.live.values() if isinstance(h, Handle) and int(h) == stream_handle)

        def kernel() -> None:
            self.clock_ms += KERNEL_MS
            self.launches += 1
            work()

        if stream.captured is not None and self.capture != "works":
            stream.broken = True
            return self.capture == "breaks"
        self._put(stream, kernel)
        return True

    def finish(self) -> None:
        """Does all that was put on streams."""
        for handle in list(self.live.values()):
            while isinstance(handle, Handle) and handle.kind == "stream" and handle.queue:
                handle.queue.pop(0)()

    def _put(self, stream: Handle, work: Work) -> None:
        (stream.queue if stream.captured is None else stream.captured).append(work)

    def _good(self, handle: Any, kind: str) -> bool:
        return isinstance(handle, Handle) and handle.kind == kind and self.live.get(int(handle)) is handle

    def _capturing(self) -> bool:
        streams = [h for h in self.live.values() if isinstance(h, Handle) and h.captured is not None]
        for stream in streams:
            stream.broken = True
        return bool(streams)

    def _new(self, kind: str) -> tuple[cudaError_t, Handle]:
        handle = Handle(kind)
        self.live[int(handle)] = handle
        return OK, handle

    def _drop(self, handle: Any, kind: str) -> tuple[cudaError_t]:
        if not self._good(handle, kind):
            return (cudaError_t.cudaErrorInvalidResourceHandle,)
        self.finish()
        del self.live[int(handle)]
        return (OK,)

    def _allocate(self, side: str, size: int) -> tuple[cudaError_t, int | None]:
        if self._capturing():
            return cudaError_t.cudaErrorStreamCaptureUnsupported, None
        if size > self.free_mb * MB:
            return cudaError_t.cudaErrorMemoryAllocation, None
        room = np.full(size + 64, 0xAA, np.uint8)  # never zeros, which would hide what nobody wrote
        address = room.ctypes.data + (-room.ctypes.data % 64)
        self.live[address] = (side, size, room)
        return OK, address

    def _free(self, side: str, address: int) -> tuple[cudaError_t]:
        if self._capturing() or self.live.get(address, ("",))[0] != side:
            return (cudaError_t.cudaErrorInvalidValue,)
        self.finish()
        del self.live[address]
        return (OK,)

    def _room(self, address: int, side: str) -> int:
        """How many bytes there are from an address on, of memory of that side."""
        for start, taken in self.live.items():
            if isinstance(taken, tuple) and taken[0] == side and start <= address < start + taken[1]:
                return int(start + taken[1] - address)
        return 0

    # What follows has the names and parameters of cuda.bindings.runtime.

    def cudaGetDeviceCount(self) -> Any:
        return (OK, self.devices) if self.devices else (cudaError_t.cudaErrorNoDevice, None)

    def cudaGetDevice(self) -> Any:
        return OK, 0

    def cudaGetDeviceProperties(self, device: int) -> Any:
        return OK, Properties()

    def cudaMemGetInfo(self) -> Any:
        return OK, self.free_mb * MB, 8000 * MB

    def cudaDriverGetVersion(self) -> Any:
        return OK, 12060

    def cudaRuntimeGetVersion(self) -> Any:
        return OK, 13050

    def cudaGetErrorString(self, error: Any) -> Any:
        return OK, b"out of memory" if error == cudaError_t.cudaErrorMemoryAllocation else b"a text of CUDA's"

    def cudaGetLastError(self) -> Any:
        return (OK,)

    def cudaMalloc(self, size: int) -> Any:
        return self._allocate("device", size)

    def cudaFree(self, devPtr: int) -> Any:
        return self._free("device", devPtr)

    def cudaHostAlloc(self, size: int, flags: int) -> Any:
        return self._allocate("host", size)

    def cudaFreeHost(self, ptr: int) -> Any:
        return self._free("host", ptr)

    def cudaMemcpyAsync(self, dst: int, src: int, count: int, kind: Any, stream: Any) -> Any:
        import ctypes

        sides = {1: ("device", "host"), 2: ("host", "device")}.get(int(kind), ("", ""))
        if not self._good(stream, "stream"):
            return (cudaError_t.cudaErrorInvalidResourceHandle,)
        if self._room(dst, sides[0]) < count or self._room(src, sides[1]) < count:
            return (cudaError_t.cudaErrorInvalidValue,)
        self._put(stream, lambda: ctypes.memmove(dst, src, count) and None)
        return (OK,)

    def cudaStreamCreateWithFlags(self, flags: int) -> Any:
        assert flags == cudaStreamNonBlocking, "the default stream waits for every other"
        return self._new("stream")

    def cudaStreamDestroy(self, stream: Any) -> Any:
        return self._drop(stream, "stream")

    def cudaStreamSynchronize(self, stream: Any) -> Any:
        if not self._good(stream, "stream"):
            return (cudaError_t.cudaErrorInvalidResourceHandle,)
        if stream.captured is not None:
            stream.broken = True
            return (cudaError_t.cudaErrorStreamCaptureUnsupported,)
        self.finish()
        return (OK,)

    def cudaEventCreate(self) -> Any:
        return self._new("event")

    def cudaEventRecord(self, event: Any, stream: Any) -> Any:
        if not self._good(event, "event") or not self._good(stream, "stream"):
            return (cudaError_t.cudaErrorInvalidResourceHandle,)
        event.at_ms = None
        self._put(stream, lambda: setattr(event, "at_ms", self.clock_ms))
        return (OK,)

    def cudaEventElapsedTime(self, start: Any, end: Any) -> Any:
        if not self._good(start, "event") or not self._good(end, "event"):
            return cudaError_t.cudaErrorInvalidResourceHandle, None
        if start.at_ms is None or end.at_ms is None:
            return cudaError_t.cudaErrorNotReady, None
        return OK, end.at_ms - start.at_ms

    def cudaEventDestroy(self, event: Any) -> Any:
        return self._drop(event, "event")

    def cudaStreamBeginCapture(self, stream: Any, mode: Any) -> Any:
        assert isinstance(mode, cudaStreamCaptureMode)
        stream.captured, stream.broken = [], False
        return (OK,)

    def cudaStreamEndCapture(self, stream: Any) -> Any:
        captured, stream.captured = stream.captured, None
        if captured is None or stream.broken:
            return cudaError_t.cudaErrorStreamCaptureInvalidated, None
        code, graph = self._new("graph")
        graph.queue = captured
        return code, graph

    def cudaGraphInstantiate(self, graph: Any, flags: int) -> Any:
        if not self._good(graph, "graph"):
            return cudaError_t.cudaErrorInvalidResourceHandle, None
        code, ready = self._new("graphExec")
        ready.queue = list(graph.queue)
        return code, ready

    def cudaGraphLaunch(self, graphExec: Any, stream: Any) -> Any:
        if not self._good(graphExec, "graphExec") or not self._good(stream, "stream"):
            return (cudaError_t.cudaErrorInvalidResourceHandle,)
        for work in graphExec.queue:
            self._put(stream, work)
        return (OK,)

    def cudaGraphExecDestroy(self, graphExec: Any) -> Any:
        return self._drop(graphExec, "graphExec")

    def cudaGraphDestroy(self, graph: Any) -> Any:
        return self._drop(graph, "graph")


CALLS = [name for name in vars(FakeCuda) if name.startswith("cuda")]
# How many values beside the code a call gives; the others give none.
RESULTS = {
    **dict.fromkeys(("cudaMalloc", "cudaHostAlloc", "cudaStreamCreateWithFlags", "cudaEventCreate"), 1),
    **dict.fromkeys(("cudaEventElapsedTime", "cudaStreamEndCapture", "cudaGraphInstantiate"), 1),
    **dict.fromkeys(("cudaGetDeviceCount", "cudaGetDevice", "cudaGetDeviceProperties", "cudaDriverGetVersion"), 1),
    **dict.fromkeys(("cudaRuntimeGetVersion", "cudaGetErrorString"), 1),
    "cudaMemGetInfo": 2,
}
