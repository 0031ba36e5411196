"""Operator groups' names for people: what all share, what a path says twice and the operator's type are left out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

BETWEEN = " … "


def short_names(groups: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """The first node of every group, and the last where it has several: ``layer1.0/conv1`` and ``conv2``.

    ``/encoder/layer1/layer1.0/conv1/Conv … /encoder/layer1/layer1.0/conv2/Conv`` says most of it twice.

    Args:
        groups: Groups of a sensitivity report.
    """
    paths = [[_tidy(part, group["operators"]) for part in group["name"].split(BETWEEN)] for group in groups]
    every = [path for parts in paths for path in parts]
    shared = _shared(every) if len(every) > 1 else 0
    return [_told([path[shared:] for path in parts]) for parts in paths]


def _tidy(path: str, operators: Sequence[str]) -> list[str]:
    """The parts of a node's path without its operator type and without a module that the next one names again."""
    parts = [part for part in path.split("/") if part] or [path]
    if len(parts) > 1 and parts[-1].rstrip("0123456789_") in operators:
        parts.pop()
    following = [*parts[1:], ""]
    return [
        part for part, after in zip(parts, following, strict=True) if after != part and not after.startswith(f"{part}.")
    ]


def _told(parts: Sequence[Sequence[str]]) -> tuple[str, ...]:
    first, *others = parts
    return ("/".join(first), *("/".join(path[_shared([first, path]) :]) for path in others))


def _shared(paths: Sequence[Sequence[str]]) -> int:
    """How many leading parts all paths have in common; the last of a path is never among them."""
    columns = zip(*(path[:-1] for path in paths), strict=False)
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))
