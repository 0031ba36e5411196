"""When an engine refuses a model: which other engine takes it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

from edgekit.artifact import Artifact
from edgekit.errors import EngineError
from edgekit.runtime import missing, open_artifact

_ALTERNATIVES = ("onnxruntime", "openvino")


@contextlib.contextmanager
def refusals(engine: str, model: Artifact) -> Iterator[None]:
    """Adds to an :class:`EngineError` of the block the engine that does open the model, having tried it."""
    try:
        yield
    except EngineError as exc:
        others = [name for name in _ALTERNATIVES if name != engine and _opens(model, name)]
        if not others:
            raise
        raise EngineError(
            exc.problem,
            found=exc.found,
            allowed=exc.allowed,
            fix=f"choose --engine {others[0]}, which opens this model, or replace the operator in the model",
        ) from exc


def require_opens(built: Artifact) -> None:
    """Opens what was built, on this machine and without the target's own options.

    Raises:
        EngineError: The engine refuses it.
    """
    open_artifact(replace(built, options={})).close()


def _opens(model: Artifact, engine: str) -> bool:
    if model.engine != "onnx" or missing(engine) is not None:
        return False
    try:
        require_opens(replace(model, engine=engine))
    except EngineError:
        return False
    return True
