"""Where an engine's own exceptions become EdgeKit's, once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType

from edgekit.artifact import TensorSpec
from edgekit.errors import EdgeKitError, EngineError


class Boundary:
    """Turns whatever an engine raises inside the block into an :class:`EngineError`, ``from`` the original.

    A plain class and not a generator, because it stands on the path of every query.

    Args:
        engine: Name of the engine.
        doing: What it is doing, e.g. ``open model.onnx``.
        operators: Reads the names of operators the engine cannot run out of its message.
    """

    __slots__ = ("_doing", "_engine", "_operators")

    def __init__(self, engine: str, doing: str, operators: Callable[[str], Sequence[str]]) -> None:
        self._engine = engine
        self._doing = doing
        self._operators = operators

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if exc is None or isinstance(exc, EdgeKitError) or not isinstance(exc, Exception):
            return
        message = " ".join(str(exc).split())
        names = self._operators(message)
        if names:
            raise EngineError(
                f"{self._engine} cannot run operator {', '.join(names)}",
                found=message,
                fix="replace the operator in the model, or choose another engine",
            ) from exc
        raise EngineError(f"{self._engine} could not {self._doing}", found=f"{type(exc).__name__}: {message}") from exc


def closed(engine: str) -> EngineError:
    """The error of using a session after ``close``."""
    return EngineError(f"this {engine} session is closed", fix="open the artifact again")


def match_specs(model: str, kind: str, declared: Sequence[TensorSpec], actual: Sequence[TensorSpec]) -> None:
    """Refuses a model whose inputs or outputs are not the ones its artifact declares.

    A declared dimension may be fixed where the model's is dynamic; the other way round only for outputs, whose shapes
    an engine infers and a file may not state.

    Args:
        model: The model's file name, for the message.
        kind: ``input`` or ``output``.
        declared: What the artifact says.
        actual: What the engine says.

    Raises:
        EngineError: Names, dtypes or shapes differ.
    """
    found = {spec.name: spec for spec in actual}
    same = len(declared) == len(actual) and all(
        spec.name in found and _agrees(spec, found[spec.name], loose=kind == "output") for spec in declared
    )
    if not same:
        raise EngineError(
            f"{model}: its {kind}s are not the ones the artifact declares",
            found="; ".join(map(str, actual)),
            allowed="; ".join(map(str, declared)),
            fix="make the artifact again: its model and its specs are out of step",
        )


def _agrees(declared: TensorSpec, actual: TensorSpec, *, loose: bool) -> bool:
    return (
        declared.dtype == actual.dtype
        and len(declared.shape) == len(actual.shape)
        and all(
            isinstance(a, str) or d == a or (loose and isinstance(d, str))
            for d, a in zip(declared.shape, actual.shape, strict=True)
        )
    )
