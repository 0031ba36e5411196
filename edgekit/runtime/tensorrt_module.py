"""TensorRT's module as it is found on a device: the versions that are supported, its log, its plans opened."""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass, field
from typing import Any

from edgekit.errors import EngineError, EngineMissing

OLDEST, NEWER = (10, 3), (12, 0)  # the first that is known to work, the first that is not
INSTALL = "pip install 'edgekit[tensorrt]' (on a Jetson TensorRT comes with JetPack: 6.1 or newer has 10.3)"
MESSAGES = 12  # lines of the engine's log in an error
_NULL = "factory function returned nullptr"
_FOREIGN = re.compile(
    r"not compatible with this version|magic ?tag|version tag|serialization (assertion|error)|platform|"
    r"different (device|gpu)|compute capability|compiled for|hardware|deserialization failed",
    re.IGNORECASE,
)
MEMORY = re.compile(
    r"out ?of ?memory|insufficient memory|cudaErrorMemoryAllocation|MEM_ALLOC|failed to allocate|not enough memory",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """What TensorRT says while it works; to be kept as long as whatever was made with its logger.

    Attributes:
        logger: A ``trt.ILogger`` that fills the lists.
        errors: Its messages of severity ERROR and INTERNAL_ERROR, in order.
        warnings: Those of severity WARNING.
    """

    logger: Any
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def text(self) -> str:
        """The errors, or that there was none."""
        lines = list(dict.fromkeys(self.errors)) or ["TensorRT gave no reason"]
        more = [f"… and {len(lines) - MESSAGES} more"] if len(lines) > MESSAGES else []
        return "; ".join([*lines[:MESSAGES], *more])


def import_tensorrt() -> Any:
    """The module ``tensorrt``.

    Raises:
        EngineMissing: It is not installed, its libraries are not found, or it is of a version that is not supported.
    """
    try:
        trt = importlib.import_module("tensorrt")
    except ImportError as exc:
        raise EngineMissing("TensorRT cannot be loaded", found=f"{type(exc).__name__}: {exc}", fix=INSTALL) from exc
    check_version(str(trt.__version__))
    return trt


def check_version(found: str) -> None:
    """Refuses a TensorRT whose names are not those that are used here.

    Args:
        found: Its version, e.g. ``10.3.0``.

    Raises:
        EngineMissing: It is older than 10.3, or newer than 11.
    """
    numbers = re.match(r"(\d+)\.(\d+)", found)
    version = (int(numbers[1]), int(numbers[2])) if numbers else (0, 0)
    if OLDEST <= version < NEWER:
        return
    old = version < OLDEST
    raise EngineMissing(
        f"TensorRT {found} is too {'old' if old else 'new'} for this version of edgekit",
        found=f"TensorRT {found}",
        allowed="TensorRT 10.3 to 11.x",
        fix="upgrade TensorRT (on a Jetson: JetPack 6.1 or newer)" if old else "upgrade edgekit",
    )


def collect_log(trt: Any) -> Log:
    """Makes a logger that keeps what TensorRT says, instead of printing it."""
    errors: list[str] = []
    warnings: list[str] = []

    class Collector(trt.ILogger):  # type: ignore[misc]  # the bindings' own class
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                errors.append(" ".join(msg.split()))
            elif severity == trt.ILogger.WARNING:
                warnings.append(" ".join(msg.split()))

    return Log(logger=Collector(), errors=errors, warnings=warnings)


def on_gpu(kind: Any, log: Log) -> Any:
    """Makes a ``trt.Builder`` or ``trt.Runtime``, the two that need a GPU.

    Raises:
        EngineMissing: There is no GPU that TensorRT can use.
    """
    try:
        return kind(log.logger)
    except TypeError as exc:
        if _NULL not in str(exc):
            raise
        raise EngineMissing(
            "TensorRT finds no usable GPU here",
            found=log.text() if log.errors else "no CUDA device",
            fix="run it on a machine with an NVIDIA GPU and a driver that fits this TensorRT; in a container, "
            "give it the GPU (docker run --gpus all, on a Jetson --runtime nvidia)",
        ) from exc


def open_plan(trt: Any, log: Log, plan: bytes, where: str, dla_core: int | None = None) -> tuple[Any, Any]:
    """Opens a plan.

    Args:
        trt: The module.
        log: Made with :func:`collect_log`; to be kept as long as the engine.
        plan: The plan's bytes.
        where: Its file or model, for the message.
        dla_core: The deep learning accelerator it was built for.

    Returns:
        The ``trt.Runtime``, to be kept as long as the engine, and the ``trt.ICudaEngine``.

    Raises:
        EngineMissing: There is no usable GPU.
        EngineError: The plan is damaged, of another TensorRT version or GPU, or does not fit into memory.
    """
    runtime = on_gpu(trt.Runtime, log)
    if dla_core is not None:
        runtime.DLA_core = dla_core
    log.errors.clear()
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is not None:
        return runtime, engine
    text = log.text()
    if MEMORY.search(text):
        problem, fix = "there is no memory on the GPU to open it", "end what else runs on the GPU, then open it again"
    elif _FOREIGN.search(text):
        problem = "it was built for another TensorRT version or GPU, or is damaged"
        fix = "open the bundle instead: it builds its own plan on every device"
    else:
        problem, fix = "TensorRT cannot open it", "remove it, and open the bundle again to build a new one"
    raise EngineError(f"{where}: {problem}", found=f"{text} (this is TensorRT {trt.__version__})", fix=fix)
