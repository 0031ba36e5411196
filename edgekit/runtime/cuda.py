"""The few calls of CUDA's runtime that a TensorRT session makes, each with its return code checked.

They are made through ``cuda.bindings.runtime`` (package cuda-bindings 12.x and 13.x), which returns the code first
and raises nothing: https://nvidia.github.io/cuda-python/cuda-bindings/latest/module/runtime.html.
"""

from __future__ import annotations

import contextlib
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.errors import EngineError, EngineMissing

INSTALL = "pip install 'cuda-bindings==13.*' (CUDA 13) or 'cuda-bindings==12.*' (CUDA 12, JetPack 6)"
MORE_MEMORY = "end what else runs on the GPU (see nvidia-smi, on a Jetson tegrastats), or use a smaller batch"
MB = 1e6
_DRIVER_FILE = Path("/proc/driver/nvidia/version")
# What a machine without a (usable) GPU answers; every other code is a failure of the call itself.
_NO_GPU = {
    "cudaErrorNoDevice": "this machine has no NVIDIA GPU that CUDA can see",
    "cudaErrorInsufficientDriver": "the NVIDIA driver is missing, or older than this build of cuda-bindings",
    "cudaErrorDevicesUnavailable": "the NVIDIA GPU is taken by another process, or switched off",
    "cudaErrorSystemDriverMismatch": "the NVIDIA driver's kernel module and its library are of different versions",
    "cudaErrorCompatNotSupportedOnDevice": "this GPU's driver is too old for this CUDA",
}
_MEMORY = "cudaErrorMemoryAllocation"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """The GPU that sessions of this process run on.

    Attributes:
        name: As CUDA names it, e.g. ``NVIDIA L4`` or ``Orin``.
        compute_capability: E.g. ``8.9``.
        memory_mb: All of its memory, in MB (10^6 bytes); a Jetson's is shared with the CPU.
        free_mb: What of it is free now.
        driver: The kernel driver and the newest CUDA it can do, e.g. ``580.82.07, CUDA 13.0``.
        runtime: The CUDA runtime of cuda-bindings, e.g. ``13.0``.
    """

    name: str
    compute_capability: str
    memory_mb: int
    free_mb: int
    driver: str
    runtime: str


def missing() -> str | None:
    """Says why CUDA's runtime cannot be called from Python, or returns None; looks for the package only."""
    try:
        found = importlib.util.find_spec("cuda.bindings")
    except ModuleNotFoundError:  # of its parent, a namespace
        found = None
    return None if found is not None else f"the package cuda-bindings is not installed: {INSTALL}"


def gpu() -> Gpu:
    """The facts of the current GPU.

    Raises:
        EngineMissing: cuda-bindings is not installed, or there is no GPU it can use.
        EngineError: The driver fails otherwise.
    """
    call = Cuda().call
    call("cudaGetDeviceCount", doing="look for a GPU")
    device = call("cudaGetDevice", doing="look for a GPU")
    properties = call("cudaGetDeviceProperties", device, doing="read the GPU's properties")
    free, total = call("cudaMemGetInfo", doing="read the GPU's free memory")
    newest = _version(call("cudaDriverGetVersion", doing="read the driver's version"))
    kernel = _kernel_driver()
    return Gpu(
        name=_text(properties.name),
        compute_capability=f"{properties.major}.{properties.minor}",
        memory_mb=int(total / MB),
        free_mb=int(free / MB),
        driver=f"{kernel}, CUDA {newest}" if kernel else f"CUDA {newest}",
        runtime=_version(call("cudaRuntimeGetVersion", doing="read the CUDA runtime's version")),
    )


class Cuda:
    """CUDA's runtime, every call checked, and what was taken from it: given back all at once, the last first.

    Raises:
        EngineMissing: cuda-bindings is not installed.
    """

    def __init__(self) -> None:
        reason = missing()
        if reason is not None:
            raise EngineMissing("CUDA cannot be called", found=reason)
        try:
            from cuda.bindings import runtime
        except ImportError as exc:
            raise EngineMissing("CUDA cannot be called", found=f"{type(exc).__name__}: {exc}", fix=INSTALL) from exc
        self.api: Any = runtime
        self._success = runtime.cudaError_t.cudaSuccess
        self._taken: list[tuple[str, Any]] = []

    def call(self, name: str, *args: Any, doing: str) -> Any:
        """Makes one call and checks its return code.

        Args:
            name: The function, e.g. ``cudaMalloc``.
            args: Its arguments, in order.
            doing: What for, for the message: ``give 4.0 MB to input 'x'``.

        Returns:
            What the call gives beside the code: None, one value, or a tuple of several.

        Raises:
            EngineMissing: There is no GPU.
            EngineError: The call failed; out of memory says how much is free.
        """
        code, *values = getattr(self.api, name)(*args)
        if code != self._success:
            raise self._failure(name, code, doing)
        if len(values) == 1:
            return values[0]
        return tuple(values) if values else None

    def take(self, name: str, *args: Any, release: str, doing: str) -> Any:
        """Makes a call whose result has to be given back by ``release``, at the latest by :meth:`close`."""
        handle = self.call(name, *args, doing=doing)
        self._taken.append((release, handle))
        return handle

    def give_back(self, handle: Any) -> None:
        """Gives one thing back that :meth:`take` took.

        Raises:
            EngineError: CUDA refuses; it counts as given back all the same.
        """
        at = next(index for index, (_, taken) in enumerate(self._taken) if taken is handle)
        release, _ = self._taken.pop(at)
        self.call(release, handle, doing="give back what a session took")

    def close(self) -> None:
        """Gives everything back; a refusal is told when all has been tried.

        Raises:
            EngineError: The first refusal.
        """
        refused: EngineError | None = None
        while self._taken:
            try:
                self.give_back(self._taken[-1][1])
            except EngineError as exc:
                refused = refused or exc
        if refused is not None:
            raise refused

    def abandon(self) -> None:
        """Gives everything back after an error, which is what is told then: a broken GPU refuses every call."""
        with contextlib.suppress(EngineError):
            self.close()

    def _failure(self, name: str, code: Any, doing: str) -> EngineError:
        """The error that a return code stands for, in words."""
        known, text = str(code.name), _text(self.api.cudaGetErrorString(code)[1])
        found = f"{name} answered {known} ({int(code)}): {text}"
        if known in _NO_GPU:
            fix = f"run nvidia-smi to see what the driver says; then {INSTALL}"
            return EngineMissing("CUDA has no GPU to work with", found=f"{_NO_GPU[known]}: {found}", fix=fix)
        if known == _MEMORY:
            status, free, total = self.api.cudaMemGetInfo()
            left = (
                f"{free / MB:.0f} of {total / MB:.0f} MB are free"
                if status == self._success
                else "how much is free is not known"
            )
            return EngineError(f"out of GPU memory: CUDA could not {doing}", found=f"{found}; {left}", fix=MORE_MEMORY)
        return EngineError(f"CUDA could not {doing}", found=found)


def _text(value: Any) -> str:
    return value.decode(errors="replace").rstrip("\0") if isinstance(value, bytes) else str(value)


def _version(number: int) -> str:
    """13050 is 13.5."""
    return f"{number // 1000}.{number % 1000 // 10}"


def _kernel_driver() -> str | None:
    """The kernel module's version, e.g. ``580.82.07``, or None where the system does not tell it."""
    try:
        text = _DRIVER_FILE.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = re.search(r"NVRM version:.*?\s(\d+(?:\.\d+)+)\s", text)
    return found.group(1) if found else None
