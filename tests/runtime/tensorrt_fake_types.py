"""Enums of the fake TensorRT, and how its classes check arguments as compiled code does."""

from __future__ import annotations

import enum
import inspect
import itertools
from collections.abc import Callable
from typing import Any

_NUMBERS = itertools.count()
MADE_BY_CALLERS = ("ILogger", "Builder", "OnnxParser", "Runtime", "IOutputAllocator")  # the engine makes the others


class Enumeration(enum.Enum):
    def __int__(self) -> int:
        return self.value


class Severity(Enumeration):
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


class MemoryPoolType(Enumeration):
    WORKSPACE = 0
    DLA_MANAGED_SRAM = 1


class DeviceType(Enumeration):
    GPU, DLA = range(2)


class HardwareCompatibilityLevel(Enumeration):
    NONE, AMPERE_PLUS = range(2)


class ProfilingVerbosity(Enumeration):
    LAYER_NAMES_ONLY, NONE, DETAILED = range(3)


class LayerInformationFormat(Enumeration):
    ONELINE, JSON = range(2)


class TensorIOMode(Enumeration):
    NONE, INPUT, OUTPUT = range(3)


class TensorLocation(Enumeration):
    DEVICE, HOST = range(2)


class DataType(Enumeration):
    FLOAT, HALF, INT8, INT32, BOOL, UINT8, FP8, BF16, INT64, INT4 = range(10)


class ErrorCode(Enumeration):
    SUCCESS, INTERNAL_ERROR, MEM_ALLOC_FAILED, MODEL_DESERIALIZE_FAILED, INVALID_VALUE = range(5)
    INVALID_GRAPH, INVALID_NODE, UNSUPPORTED_GRAPH, UNSUPPORTED_NODE = range(5, 9)


# The integers of these moved between 10 and 11.
CREATION = {
    10: Enumeration("NetworkDefinitionCreationFlag", {"EXPLICIT_BATCH": 0, "STRONGLY_TYPED": 1}),
    11: Enumeration("NetworkDefinitionCreationFlag", {"STRONGLY_TYPED": 0, "PREFER_JIT_PYTHON_PLUGINS": 1}),
}
FLAGS = {
    10: Enumeration("BuilderFlag", {"FP16": 0, "INT8": 1, "GPU_FALLBACK": 3, "TF32": 6, "VERSION_COMPATIBLE": 13}),
    11: Enumeration("BuilderFlag", {"GPU_FALLBACK": 3, "TF32": 6, "VERSION_COMPATIBLE": 12}),
}
DTYPES = {
    "float32": DataType.FLOAT,
    "float16": DataType.HALF,
    "int8": DataType.INT8,
    "int32": DataType.INT32,
    "bool": DataType.BOOL,
    "uint8": DataType.UINT8,
    "int64": DataType.INT64,
}
_PLAIN: dict[str, type | tuple[type, ...]] = {
    "int": int,
    "str": str,
    "bool": bool,
    "bytes": (bytes, bytearray, memoryview),
    "Dims": (tuple, list),
    "None": type(None),
}


def fits(value: Any, wanted: str) -> bool:
    """Whether the bindings would take a value for a parameter of this type."""
    if wanted in _PLAIN:
        return isinstance(value, _PLAIN[wanted]) and not (wanted == "int" and isinstance(value, (bool, Enumeration)))
    return any(kind.__name__ == wanted for kind in type(value).__mro__)


def _checked(method: Callable[..., Any], owner: str) -> Callable[..., Any]:
    """A method that raises ``TypeError`` where the bindings would."""
    signature = inspect.signature(method)

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(self, *args, **kwargs)
        for name, value in list(bound.arguments.items())[1:]:
            if not fits(value, str(signature.parameters[name].annotation)):
                raise TypeError(f"{method.__name__}(): incompatible function arguments: {name}={value!r}")
        world = getattr(self, "_world", None)
        if world is not None:
            world.calls.append(f"{owner}.{method.__name__}")
        return method(self, *args, **kwargs)

    call.__name__, call.__signature__ = method.__name__, signature  # type: ignore[attr-defined]
    return call


def binding(cls: type) -> type:
    """Checks every argument of a class's public methods, as compiled code does."""
    for name, value in list(vars(cls).items()):
        if inspect.isfunction(value) and (
            not name.startswith("_") or (name == "__init__" and cls.__name__ in MADE_BY_CALLERS)
        ):
            setattr(cls, name, _checked(value, cls.__name__))
    return cls


class value(property):
    """A property that holds a plain value of a type.

    Attributes:
        kind: Name of the type.
        key: Attribute of the instance that holds the value.
    """

    def __init__(self, kind: str, *, settable: bool = False, start: Any = None) -> None:
        self.kind, self.key = kind, f"_value_{next(_NUMBERS)}"

        def put(owner: Any, new: Any) -> None:
            if not fits(new, kind):
                raise TypeError(f"incompatible function arguments: {new!r} is no {kind}")
            setattr(owner, self.key, new)

        super().__init__(lambda owner: getattr(owner, self.key, start), put if settable else None)
