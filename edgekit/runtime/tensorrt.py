"""TensorRT: builds an ONNX file's plan on this device, once, and runs it.

A query is copied into pinned memory, from there to the GPU, computed on a stream of its own and copied back; where the
engine lets a CUDA graph be captured, its kernels are launched all at once.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgekit.artifact import Array, Option, StrPath, TensorSpec
from edgekit.errors import EngineError, EngineMissing
from edgekit.runtime import cuda as cuda_calls
from edgekit.runtime.boundary import Boundary, closed, match_specs
from edgekit.runtime.cuda import MB, MORE_MEMORY, Cuda, gpu
from edgekit.runtime.options import check_options
from edgekit.runtime.placement import Placement, recorded_runs
from edgekit.runtime.session import feed_checker, zeros
from edgekit.runtime.tensorrt_io import Buffer, Shape, check_ranges, growing_outputs, layer_times, read_io
from edgekit.runtime.tensorrt_module import check_version, collect_log, import_tensorrt, open_plan
from edgekit.runtime.tensorrt_record import placed_nodes

NAME = "tensorrt"
_GPUS = tuple(map(Path, ("/proc/driver/nvidia/gpus", "/dev/nvidiactl", "/dev/nvhost-gpu", "/dev/nvgpu", "/dev/dxg")))
_PACKAGES = ("tensorrt", "tensorrt-cu13", "tensorrt-cu12", "tensorrt-cu13-bindings", "tensorrt-cu12-bindings")
GRAPH_OPTION = "cuda_graph"  # the one option that is not the builder's


def missing() -> str | None:
    """Says why TensorRT plans cannot execute here; imports nothing and asks no driver."""
    if importlib.util.find_spec("tensorrt") is None:
        return (
            "the package tensorrt is not installed: pip install 'edgekit[tensorrt]' with NVIDIA's package index "
            "(on a Jetson it comes with JetPack: make the environment with --system-site-packages)"
        )
    if not any(path.exists() for path in _GPUS):
        return "this machine has no NVIDIA GPU: copy the bundle to one that has"
    return _unfit_version() or cuda_calls.missing()


def version() -> str:
    """The installed build; read without importing it, unless its package goes by another name."""
    return _packaged_version() or str(import_tensorrt().__version__)


def engine_errors(doing: str) -> Boundary:
    """A block in which TensorRT's exceptions become :class:`EngineError`, e.g. ``engine_errors("open model.onnx")``."""
    return Boundary(NAME, doing, lambda message: ())


def get_ready(model: Path, options: Mapping[str, Option]) -> None:
    """Builds the plan of an ONNX file unless it is kept; see :func:`load`."""
    from edgekit.runtime.tensorrt_plans import plan_for

    plan_for(model, {name: value for name, value in options.items() if name != GRAPH_OPTION})


def load(
    model: StrPath, options: Mapping[str, Option], inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> TrtSession:
    """Builds the plan of an ONNX file, or takes the one built before, and opens it.

    Args:
        model: The ``.onnx`` file; its external data must lie in the same folder or below.
        options: The builder's (:data:`edgekit.runtime.tensorrt_build.OPTIONS`), and ``cuda_graph``: whether a CUDA
            graph is captured where the engine lets it (default true).
        inputs: What the artifact declares.
        outputs: What the artifact declares.

    Raises:
        UnknownName: An option is unknown.
        EngineMissing: There is no GPU, or TensorRT is too old.
        EngineError: The engine refuses the model, or it is not the one declared, or memory runs out.
        BundleError: The model is no ONNX file, or its external data points outside its folder.
    """
    from edgekit.runtime.tensorrt_plans import plan_for

    model = Path(model)
    build = {name: value for name, value in options.items() if name != GRAPH_OPTION}
    plan = plan_for(model, build)
    session = open_built(plan, options, inputs, outputs, name=model.name)
    session.plan = plan
    return session


def open_built(
    plan: Path,
    options: Mapping[str, Option],
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    *,
    name: str | None = None,
) -> TrtSession:
    """Opens a plan that was built on this device.

    Args:
        plan: The plan's file.
        options: Those it was built with, and ``cuda_graph``.
        inputs: What the artifact declares; a dimension that it fixes may be open in the plan.
        outputs: What the artifact declares.
        name: What messages call it; the file's name unless given.

    Raises:
        EngineMissing: There is no GPU, or TensorRT is too old.
        EngineError: The plan is of another version or GPU, or damaged; it is not the model declared; memory runs out.
    """
    check_options(NAME, {key: value for key, value in options.items() if key == GRAPH_OPTION}, {GRAPH_OPTION: bool})
    return TrtSession(import_tensorrt(), plan.read_bytes(), name or plan.name, options, tuple(inputs), tuple(outputs))


class TrtSession:
    """A plan opened in TensorRT; one thread at a time.

    Attributes:
        inputs: What it takes.
        outputs: What it gives.
        facts: What it runs on and how, in words: ``gpu``, ``cuda_graph``.
        plan: The file of the plan, where it is one of those kept on this device: what a bundle's golden outputs prove.
    """

    def __init__(
        self,
        trt: Any,
        plan: bytes,
        name: str,
        options: Mapping[str, Option],
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
    ) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self.facts: dict[str, str] = {}
        self.plan: Path | None = None
        self._trt = trt
        self._name = name
        self._check = feed_checker(inputs)
        self._boundary = engine_errors(f"run {name}")
        self._log = collect_log(trt)
        self._cuda = Cuda()
        self._graph: Any = None
        self._shapes: dict[str, Shape] | None = None
        self._finalizer = weakref.finalize(self, self._cuda.abandon)
        self._finalizer.atexit = False  # the process gives its memory back by itself, and CUDA may be gone by then
        try:
            with engine_errors(f"open {name}"):
                self._open(plan, options.get("dla_core"))
                self._take(graph=options.get(GRAPH_OPTION) is not False)
        except BaseException:
            self._forget()
            self._cuda.abandon()
            raise

    def _open(self, plan: bytes, dla_core: Option | None) -> None:
        """Makes engine and context."""
        found = gpu()
        self.facts["gpu"] = f"{found.name}, compute capability {found.compute_capability}"
        core = None if dla_core is None else int(dla_core)
        self._runtime, self._engine = open_plan(self._trt, self._log, plan, self._name, core)
        tensors = read_io(self._engine, self._trt)
        match_specs(self._name, "input", self.inputs, [io.spec for io in tensors if io.is_input])
        match_specs(self._name, "output", self.outputs, [io.spec for io in tensors if not io.is_input])
        self._context = self._new_context()
        self._buffers = {io.name: Buffer(self._cuda, io) for io in tensors}
        self._of_inputs = [self._buffers[spec.name] for spec in self.inputs]
        self._of_outputs = [self._buffers[spec.name] for spec in self.outputs]

    def _new_context(self) -> Any:
        context = self._engine.create_execution_context()
        if context is None:
            found, asked_mb = gpu(), int(self._engine.device_memory_size_v2) / MB
            raise EngineError(
                f"out of GPU memory: {NAME} could not make room to run {self._name}",
                found=f"{asked_mb:.0f} MB asked, {found.free_mb} of {found.memory_mb} MB are free; {self._log.text()}",
                fix=MORE_MEMORY,
            )
        return context

    def _take(self, *, graph: bool) -> None:
        """Takes stream and clocks; where the shapes are known, memory and graph too."""
        cuda = self._cuda
        flags = cuda.api.cudaStreamNonBlocking
        self._stream = cuda.take("cudaStreamCreateWithFlags", flags, release="cudaStreamDestroy", doing="make a stream")
        self._handle = int(self._stream)
        self._began, self._ended = (
            cuda.take("cudaEventCreate", release="cudaEventDestroy", doing="make a clock") for _ in range(2)
        )
        self._grown = growing_outputs(self._trt, self._buffers)
        self._growing: list[Buffer] = []
        if any(isinstance(size, str) for spec in self.inputs for size in spec.shape):
            self.facts["cuda_graph"] = "not used: the model's shapes are open"
            return
        feeds = zeros(self.inputs)
        self._fit(feeds)
        self.facts["cuda_graph"] = self._capture(feeds) if graph else "not used: the option cuda_graph is false"

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Runs one batch; see :meth:`edgekit.runtime.session.Session.run`.

        Raises:
            FeedError: A name, dtype or shape is wrong, or outside the optimisation profile.
            EngineError: TensorRT or CUDA failed.
        """
        if not self._finalizer.alive:
            raise closed(NAME)
        self._check(feeds)
        with self._boundary:
            self._fit(feeds)
            self._query(feeds)
            return {buffer.io.name: buffer.view.copy() for buffer in self._of_outputs}

    def engine_ns(self) -> int:
        """Time of the last query on the GPU alone, copies left out, by CUDA's own events, in ns."""
        if not self._finalizer.alive:
            raise closed(NAME)
        elapsed_ms: float = self._cuda.call(
            "cudaEventElapsedTime", self._began, self._ended, doing="read the GPU's clock"
        )
        return round(elapsed_ms * 1e6)

    def _query(self, feeds: Mapping[str, Array], context: Any = None) -> None:
        """Copies in, computes, copies out, waits; in another context than the session's own, without its graph."""
        cuda, stream = self._cuda, self._stream
        for buffer in self._of_inputs:
            buffer.view[...] = feeds[buffer.io.name]
            self._copy(buffer, cuda.api.cudaMemcpyKind.cudaMemcpyHostToDevice)
        cuda.call("cudaEventRecord", self._began, stream, doing="start the GPU's clock")
        if self._graph is None or context is not None:
            self._launch(context or self._context)
        else:
            cuda.call("cudaGraphLaunch", self._graph, stream, doing="launch the CUDA graph")
        cuda.call("cudaEventRecord", self._ended, stream, doing="stop the GPU's clock")
        for buffer in self._growing:
            buffer.fit(self._grown.shapes[buffer.io.name])
        for buffer in self._of_outputs:
            self._copy(buffer, cuda.api.cudaMemcpyKind.cudaMemcpyDeviceToHost)
        cuda.call("cudaStreamSynchronize", stream, doing=f"compute {self._name}")

    def _copy(self, buffer: Buffer, kind: Any) -> None:
        if buffer.io.on_host or not buffer.nbytes:
            return
        inwards = kind == self._cuda.api.cudaMemcpyKind.cudaMemcpyHostToDevice
        to, source = (buffer.device, buffer.host) if inwards else (buffer.host, buffer.device)
        self._cuda.call("cudaMemcpyAsync", to, source, buffer.nbytes, kind, self._stream, doing="copy a tensor")

    def _launch(self, context: Any) -> None:
        if not context.execute_async_v3(self._handle):
            if self._grown.refused is not None:
                refused, self._grown.refused = self._grown.refused, None
                raise refused
            raise EngineError(f"{NAME} could not run {self._name}", found=self._log.text())

    def _fit(self, feeds: Mapping[str, Array]) -> None:
        """Gets the engine and the memory ready for the feeds' shapes, where these are not the last query's."""
        asked = {spec.name: feeds[spec.name].shape for spec in self.inputs}
        by_value = [buffer for buffer in self._of_inputs if buffer.io.on_host]
        if asked == self._shapes and not by_value:
            return
        check_ranges(asked, [buffer.io for buffer in self._of_inputs])
        self._shapes = None  # until all is ready: an error on the way leaves nothing half done
        for buffer in self._of_inputs:
            buffer.fit(asked[buffer.io.name])
        for buffer in by_value:
            buffer.view[...] = feeds[buffer.io.name]
        self._growing = self._prepare(self._context, asked)
        self._shapes = asked

    def _prepare(self, context: Any, asked: Mapping[str, Shape]) -> list[Buffer]:
        """Tells a context shapes and addresses; the outputs that come back are those whose shape the data decides."""
        for buffer in self._of_inputs:
            name = buffer.io.name
            self._must(context.set_input_shape(name, asked[name]), f"take the shape of {name!r}")
            self._must(context.set_tensor_address(name, buffer.address), f"take {name!r}")
        unknown = context.infer_shapes()
        self._must(not unknown, f"infer shapes without {', '.join(unknown)}")
        growing = []
        for buffer in self._of_outputs:
            name = buffer.io.name
            shape = tuple(context.get_tensor_shape(name))
            if -1 in shape:
                growing.append(buffer)
                self._must(context.set_output_allocator(name, self._grown), f"take an allocator of {name!r}")
            else:
                buffer.fit(shape)
                self._must(context.set_tensor_address(name, buffer.address), f"take {name!r}")
        return growing

    def _must(self, good: bool, doing: str) -> None:
        if not good:
            raise EngineError(f"{NAME} could not {doing} of {self._name}", found=self._log.text())

    def _capture(self, feeds: Mapping[str, Array]) -> str:
        """Captures the launch of all kernels as one graph, and says how that went.

        The engine settles what it has put off in a query before the capture. A query after a refused capture shows
        that the engine runs without; it fails where it was not the capture that was refused.
        """
        self._query(feeds)
        if self._growing or any(buffer.io.on_host for buffer in self._buffers.values()):
            return "not used: shapes depend on the data"
        cuda, stream = self._cuda, self._stream
        mode = cuda.api.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        cuda.call("cudaStreamBeginCapture", stream, mode, doing="begin the capture of a CUDA graph")
        try:
            try:
                self._launch(self._context)
            finally:
                doing = "capture a CUDA graph"
                captured = cuda.take("cudaStreamEndCapture", stream, release="cudaGraphDestroy", doing=doing)
            doing = "make a captured CUDA graph ready"
            graph = cuda.take("cudaGraphInstantiate", captured, 0, release="cudaGraphExecDestroy", doing=doing)
        except EngineError as exc:
            cuda.api.cudaGetLastError()  # a refused capture leaves its code behind, for others to stumble on
            self._query(feeds)
            return f"not used: {exc.problem}: {exc.found}"
        self._graph = graph
        return "captured"

    def placement(self, feeds: Mapping[str, Array] | None = None) -> Placement:
        """Runs a few queries in a second context that times every layer, and reads the engine inspector."""
        if not self._finalizer.alive:
            raise closed(NAME)
        feeds = zeros(self.inputs) if feeds is None else feeds
        self._check(feeds)
        with self._boundary:
            self._fit(feeds)
            context = self._new_context()
            times = layer_times(self._trt)
            context.profiler = times
            self._prepare(context, self._shapes or {})
            for _ in recorded_runs():
                self._query(feeds, context)
            told = self._engine.create_engine_inspector().get_engine_information(self._trt.LayerInformationFormat.JSON)
        return Placement(device=self.facts["gpu"], nodes=placed_nodes(json.loads(told), times.mean_us()))

    def close(self) -> None:
        """Frees the plan, its memory on GPU and host, stream, clocks and graph; all of it, whatever refuses.

        Raises:
            EngineError: CUDA refused to take something back.
        """
        if self._finalizer.detach() is None:
            return
        self._forget()
        self._cuda.close()

    def _forget(self) -> None:
        """Drops what the engine owns, each after what was made of it."""
        self._graph = self._shapes = None
        self._growing = self._of_inputs = self._of_outputs = []
        self._buffers = {}
        self._context = self._grown = None
        self._engine = None
        self._runtime = None


def _unfit_version() -> str | None:
    """Why the installed TensorRT does not do; None where it does, or its package does not tell (its import will)."""
    installed = _packaged_version()
    try:
        if installed is not None:
            check_version(installed)
    except EngineMissing as exc:
        return f"{exc.problem}: {exc.fix}"
    return None


def _packaged_version() -> str | None:
    for package in _PACKAGES:
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:  # it goes by another of its names, or came without a package
            continue
    return None
