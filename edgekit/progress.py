"""How long steps tell where they are: one plain callable, given by whoever shows it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called now and then by long steps."""

    def __call__(self, step: str, done: int, total: int, note: str = "") -> None:
        """Says that ``done`` of ``total`` units of ``step`` are finished; ``note`` is a short figure to show."""
        ...


def silent(step: str, done: int, total: int, note: str = "") -> None:
    """Shows nothing."""
