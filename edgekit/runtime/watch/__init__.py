"""Watches a bundle while it runs: ``writing`` is in the program that runs it, ``reading`` judges what was written.

::

    from edgekit.runtime.watch import start_watch
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgekit.runtime.watch.writing import Watch, start_watch

__all__ = ["Watch", "start_watch"]


def __getattr__(name: str) -> Any:
    """Imported when first asked for (PEP 562): to read a watch takes a third of what writing one does."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from edgekit.runtime.watch import writing

    return vars(writing)[name]
