"""OpenVINO: opens its own IR (``.xml`` with ``.bin``) and ONNX files."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgekit.artifact import Array, Option, StrPath, TensorSpec, check_inside
from edgekit.errors import BundleError, EngineError
from edgekit.runtime.boundary import Boundary, closed, match_specs
from edgekit.runtime.external_data import check_external_data, check_file_inside
from edgekit.runtime.options import check_options
from edgekit.runtime.placement import Placement, recorded_runs
from edgekit.runtime.quiet import silence_telemetry
from edgekit.runtime.session import feed_checker, zeros

NAME = "openvino"
DEFAULT_DEVICE = "CPU"
OPTIONS: dict[str, type] = {
    "device": str,
    "PERFORMANCE_HINT": str,
    "NUM_STREAMS": int,
    "INFERENCE_NUM_THREADS": int,
    "ENABLE_CPU_PINNING": bool,
    "ENABLE_HYPER_THREADING": bool,
    "SCHEDULING_CORE_TYPE": str,
    "INFERENCE_PRECISION_HINT": str,
    "CACHE_DIR": str,
}

# On a CPU with bf16 the engine's own default is bf16, which loses half the digits unasked.
_DEFAULTS: dict[str, Option] = {"INFERENCE_PRECISION_HINT": "f32"}
_DTYPES = {
    "f32": "float32",
    "f64": "float64",
    "f16": "float16",
    "boolean": "bool",
    **{f"{sign}{bits}": f"{name}{bits}" for sign, name in (("i", "int"), ("u", "uint")) for bits in (8, 16, 32, 64)},
}
_UNSUPPORTED = (
    re.compile(r"No conversion rule found for operations: ([^\s,]+(?:, [^\s,]+)*)"),
    re.compile(r"Unsupported operation of type: (\S+)"),
    re.compile(r"plug-in doesn't support (\w+) operation with"),
    re.compile(r"(\w+) node with name '[^']*' has unsupported"),
)


def missing() -> str | None:
    """Says why OpenVINO cannot execute here, or returns None when it can."""
    if importlib.util.find_spec("openvino") is None:
        return "the package openvino is not installed: pip install openvino"
    return None


def version() -> str:
    """The installed build; read without importing it, unless its package goes by another name."""
    import importlib.metadata  # brings the e-mail package with it, for which a first inference need not wait

    try:
        return importlib.metadata.version(NAME)
    except importlib.metadata.PackageNotFoundError:  # builds of other vendors and from archives
        silence_telemetry()
        import openvino

        return str(openvino.__version__)


def engine_errors(doing: str) -> Boundary:
    """A block in which OpenVINO's exceptions become :class:`EngineError`, e.g. ``engine_errors("open model.onnx")``."""
    return Boundary(NAME, doing, _operators)


def load(
    model: StrPath, options: Mapping[str, Option], inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> OpenVinoSession:
    """Opens an IR or ONNX file and compiles it.

    Args:
        model: The ``.xml`` file with its ``.bin`` beside it, or an ``.onnx`` file.
        options: ``device`` (default CPU) and the properties of :data:`OPTIONS`; INFERENCE_PRECISION_HINT is ``f32``
            unless given. CACHE_DIR is relative to the model's folder. What the engine made of the properties is read
            back; only threads and streams may be fewer, where this machine has fewer cores.
        inputs: What the artifact declares.
        outputs: What the artifact declares.

    Raises:
        UnknownName: An option is unknown.
        EngineError: The engine refuses the model or a property, or the model is not the one declared.
        BundleError: The model or its external data is missing or points outside its folder.
    """
    model = Path(model)
    _check_files(model)
    check_options(NAME, options, OPTIONS)
    silence_telemetry()
    import openvino

    device = str(options.get("device", DEFAULT_DEVICE))
    properties = _DEFAULTS | {key: value for key, value in options.items() if key not in ("device", "CACHE_DIR")}
    core = openvino.Core()
    with engine_errors(f"open {model.name}"):
        if "CACHE_DIR" in options:
            check_inside(str(options["CACHE_DIR"]), model)
            core.set_property({"CACHE_DIR": str(model.parent / str(options["CACHE_DIR"]))})
        compiled = core.compile_model(str(model), device, properties)
        actual = {key: _plain(compiled.get_property(key)) for key in properties}
        ports = _specs(compiled.inputs, inputs), _specs(compiled.outputs, outputs)
    _check_properties(properties, actual)
    match_specs(model.name, "input", inputs, ports[0])
    match_specs(model.name, "output", outputs, ports[1])
    return OpenVinoSession(compiled, model, device, properties, tuple(inputs), tuple(outputs))


class OpenVinoSession:
    """A model compiled by OpenVINO; one thread at a time.

    Its CPU device computes int64 in 32 bits: values of 2³¹ and above lose their upper half.
    """

    def __init__(
        self,
        compiled: Any,
        model: Path,
        device: str,
        properties: Mapping[str, Option],
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
    ) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self._compiled = compiled
        self._model = model
        self._device = device
        self._properties = properties
        self._names = [spec.name for spec in _specs(compiled.outputs, outputs)]
        self._check = feed_checker(inputs)
        self._boundary = engine_errors(f"run {model.name}")
        with self._boundary:
            self._request = compiled.create_infer_request()

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Runs one batch; see :meth:`edgekit.runtime.session.Session.run`."""
        request = self._request
        if request is None:
            raise closed(NAME)
        self._check(feeds)
        with self._boundary:
            found = request.infer(feeds, share_inputs=True, share_outputs=False)
            return dict(zip(self._names, found.values(), strict=True))

    @property
    def from_cache(self) -> bool:
        """Whether the model was taken from the folder CACHE_DIR and not compiled."""
        if self._request is None:
            raise closed(NAME)
        with self._boundary:
            return bool(self._compiled.get_property("LOADED_FROM_CACHE"))

    def placement(self, feeds: Mapping[str, Array] | None = None) -> Placement:
        """Compiles the model anew with counters, runs it a few times and reads the executed graph."""
        if self._request is None:
            raise closed(NAME)
        import openvino

        from edgekit.runtime.openvino_record import attention_parts, has_subgraphs, placed_nodes

        feeds = zeros(self.inputs) if feeds is None else feeds
        self._check(feeds)
        with self._boundary:
            core = openvino.Core()
            compiled = core.compile_model(str(self._model), self._device, {**self._properties, "PERF_COUNT": True})
            request = compiled.create_infer_request()
            for _ in recorded_runs():
                request.infer(feeds)
            record = compiled.get_runtime_model()
            parts = {}
            if has_subgraphs(record):
                graph = core.read_model(str(self._model))
                graph.reshape({name: array.shape for name, array in feeds.items()})
                parts = attention_parts(graph)
            nodes = placed_nodes(record, parts)
        return Placement(device=self._device, nodes=nodes)

    def close(self) -> None:
        """Frees the engine's request and model."""
        self._request = self._compiled = None


def _check_files(model: Path) -> None:
    if model.suffix == ".onnx":
        check_external_data(model)
        return
    if model.suffix != ".xml":
        raise EngineError(f"{NAME} cannot open {model.name}", found=model.suffix, allowed=".xml, .onnx")
    if not model.is_file():
        raise BundleError(f"{model}: no such file", fix="check the folder")
    check_file_inside(model.with_suffix(".bin").name, model.parent, model)


def _check_properties(asked: Mapping[str, Option], actual: Mapping[str, Option]) -> None:
    """Refuses what the engine silently changed, except what this machine has too few cores for."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for key, wanted in asked.items():
        found = actual[key]
        limited = key in ("INFERENCE_NUM_THREADS", "NUM_STREAMS") and int(found) == min(int(wanted), cores)
        # Without two threads a core there is nothing to switch on; the engine then answers False.
        limited = limited or (key == "ENABLE_HYPER_THREADING" and wanted is True)
        if found != wanted and not limited:
            raise EngineError(
                f"{NAME} did not take {key}={wanted}",
                found=f"{key}={found}",
                fix=f"this machine cannot do {wanted}; ask for {found} where that is what you want",
            )


def _plain(value: Any) -> Option:
    """A property as the engine reports it, in the words options use."""
    if isinstance(value, (int, float)):
        return value
    return str(value.to_string() if hasattr(value, "to_string") else getattr(value, "name", value))


def _specs(ports: Sequence[Any], declared: Sequence[TensorSpec]) -> list[TensorSpec]:
    """Specs of a model's ports; of a port's several names, the declared one."""
    found, known = [], {spec.name for spec in declared}
    for port in ports:
        dtype = port.element_type.to_string()
        dims = [d.get_length() if d.is_static else str(d) for d in port.partial_shape]
        name = min(port.get_names() & known, default=port.any_name)
        found.append(TensorSpec(name=name, dtype=_DTYPES.get(dtype, dtype), shape=tuple(dims)))
    return found


def _operators(message: str) -> list[str]:
    """Names of operators without the opset the engine writes after them."""
    names = [name for pattern in _UNSUPPORTED for found in pattern.findall(message) for name in found.split(", ")]
    return [re.sub(r"-\d+$", "", name.strip()) for name in names]
