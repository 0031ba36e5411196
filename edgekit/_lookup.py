"""The one resolver from a name to a Python object: a table of names, or ``module:attr``."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgekit.errors import EdgeKitError, SpecError, UnknownName, did_you_mean


def resolve(
    name: str,
    table: Mapping[str, Any],
    *,
    kind: str,
    base: Path | None = None,
    where: str | None = None,
) -> Any:
    """Finds what a name stands for.

    Args:
        name: A key of ``table``, or ``package.module:attr`` for the user's own.
        table: Names to objects, or to ``module:attr`` strings that are imported on demand.
        kind: What is looked for, for the message.
        base: A folder whose modules are importable too (the recipe's).
        where: Where the name was written, for the message.

    Returns:
        The object.

    Raises:
        UnknownName: The name is in no table and is not ``module:attr``, or the attribute is missing.
        SpecError: The module cannot be imported.
    """
    if name in table:
        found = table[name]
        return _import(found, kind=kind, base=None, where=where) if isinstance(found, str) else found
    if ":" in name:
        return _import(name, kind=kind, base=base, where=where)
    raise UnknownName(kind, name, [*table, "package.module:attr"], where)


def _import(name: str, *, kind: str, base: Path | None, where: str | None) -> Any:
    module_name, _, attr = name.partition(":")
    prefix = f"{where}: " if where else ""
    with importable(base):
        try:
            found: Any = importlib.import_module(module_name)
        except ImportError as exc:
            folder = f" (looked beside the recipe in {base})" if base else ""
            raise SpecError(
                f"{prefix}cannot import module {module_name!r} of {kind} {name!r}",
                found=f"{type(exc).__name__}: {exc}",
                allowed=f"an installed module or one beside the recipe{folder}",
                fix="check the spelling, or install the package it is in",
            ) from exc
        except EdgeKitError:
            raise
        except Exception as exc:  # whatever the user's own module does while it is imported
            raise SpecError(
                f"{prefix}module {module_name!r} of {kind} {name!r} failed while it was imported",
                found=f"{type(exc).__name__}: {exc}{_place(exc)}",
                fix="mend the module; --debug shows the traceback",
            ) from exc
    for part in attr.split("."):
        if not hasattr(found, part):
            public = [n for n in vars(found) if not n.startswith("_")] if hasattr(found, "__dict__") else []
            raise SpecError(
                f"{prefix}module {module_name!r} has no {attr!r}",
                found=repr(name),
                allowed=", ".join(sorted(public)[:20]) or "no public names",
                fix=did_you_mean(part, public),
            )
        found = getattr(found, part)
    return found


def _place(exc: Exception) -> str:
    """The last line of code that ran before an exception, as `` (file:line)``."""
    frames = traceback.extract_tb(exc.__traceback__)
    return f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""


@contextmanager
def importable(folder: Path | None) -> Iterator[None]:
    """Makes the modules of ``folder`` importable while the block runs."""
    if folder is None:
        yield
        return
    entry = str(folder.resolve())
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        sys.path.remove(entry)
