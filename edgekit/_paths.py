"""Paths as people write them in recipes: variables expanded, relative to the recipe."""

from __future__ import annotations

import os
import re
from pathlib import Path

from edgekit.errors import EdgeKitError

_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})")


def expand_path(text: str, *, base: Path, where: str, error: type[EdgeKitError], hint: str | None = None) -> Path:
    """Turns a path as written into one that can be opened.

    Args:
        text: The path; ``$NAME``, ``${NAME}`` and a leading ``~`` are expanded.
        base: What a relative path is relative to.
        where: Where it was written, for the message.
        error: The class of the error.
        hint: What else helps where a variable is not set.

    Raises:
        EdgeKitError: A variable in it is not set.
    """

    def value(match: re.Match[str]) -> str:
        name = match.group(1) or match.group(2)
        if not os.environ.get(name):
            raise error(
                f"{where}: the environment variable {name} is not set",
                found=text,
                fix=f"set it: export {name}=/path/to/folder" + (f"; {hint}" if hint else ""),
            )
        return os.environ[name]

    return base / Path(_VARIABLE.sub(value, text)).expanduser()


def portable_name(text: str) -> str:
    """A path as written, without the folders of an absolute one: names travel in bundles, folders must not."""
    return Path(text).name if os.path.isabs(text) or text.startswith("~") else text
