"""Checks of the options an artifact carries for its engine."""

from __future__ import annotations

from collections.abc import Mapping

from edgekit.artifact import Option
from edgekit.errors import EngineError, UnknownName


def check_options(engine: str, options: Mapping[str, Option], known: Mapping[str, type]) -> None:
    """Refuses options an engine does not know, or whose value is of the wrong type.

    Args:
        engine: The engine's name, for the message.
        options: What the artifact carries.
        known: Option names and the type of their value; ``float`` takes whole numbers too.

    Raises:
        UnknownName: The engine has no such option.
        EngineError: The value is of the wrong type.
    """
    for name, value in options.items():
        if name not in known:
            raise UnknownName(f"{engine} option", name, known)
        wanted = known[name]
        fits = isinstance(value, (int, float)) if wanted is float else isinstance(value, wanted)
        if not fits or (isinstance(value, bool) and wanted is not bool):
            raise EngineError(
                f"{engine} option {name!r} has the wrong type",
                found=repr(value),
                allowed={bool: "true or false", int: "a whole number", float: "a number", str: "text"}[wanted],
            )
