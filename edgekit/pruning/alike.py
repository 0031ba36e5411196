"""Which parts of a network are alike: the same layers, which take and give the same shapes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from edgekit.distillation.dry_run import output_shapes
from edgekit.pruning.counting import one_sample, step_by_step

Ran = Mapping[nn.Module, "list[Any] | None"]
"""What each module took and gave, call by call: dtypes and shapes. None for one that gives back what it takes, as
dropout does where nothing is trained: it costs nothing, however it is set."""


def run_once(module: nn.Module, inputs: Mapping[str, Tensor]) -> Ran:
    """Runs a module on the first sample of a batch, and keeps what its parts took and gave.

    Raises:
        ModelError: It does not run.
    """
    found: dict[nn.Module, list[Any]] = {}
    worked: set[nn.Module] = set()
    versions: list[int] = []

    def enter(part: nn.Module, args: Any, kwargs: Any) -> None:
        versions.append(args[0]._version if args and isinstance(args[0], Tensor) else -1)

    def leave(part: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        version = versions.pop()
        back = isinstance(output, Tensor) and bool(args) and output is args[0] and output._version == version
        if not back or any(part.children()):
            worked.add(part)
        found.setdefault(part, []).append([_shapes([*args, *kwargs.values()]), _shapes(output)])

    handles = [part.register_forward_pre_hook(enter, with_kwargs=True) for part in module.modules()]
    handles += [part.register_forward_hook(leave, with_kwargs=True) for part in module.modules()]
    try:
        with step_by_step():
            output_shapes(module, one_sample(inputs), "while its layers are looked at")
    finally:
        for handle in handles:
            handle.remove()
    return {part: calls if part in worked else None for part, calls in found.items()}


def alike(parts: Mapping[str, nn.Module], ran: Ran, moves: Sequence[tuple[str, Sequence[tuple[str, int]]]]) -> str:
    """A hash of the structure of some layers and of what may be made of them; the same in every process.

    Args:
        parts: The layers, by a name that is the same wherever the like of them are.
        ran: What they took and gave.
        moves: Names of moves, each with widths by the name of a layer.
    """
    layers = [
        [
            name,
            type(part).__qualname__,
            part.extra_repr(),
            [[key, list(value.shape), str(value.dtype)] for key, value in part.named_parameters(recurse=False)],
            [[key, list(value.shape), str(value.dtype)] for key, value in part.named_buffers(recurse=False)],
            ran.get(part, []),
        ]
        for name, part in parts.items()
        if ran.get(part, []) is not None
    ]
    written = json.dumps([layers, [[name, list(widths)] for name, widths in moves]])
    return hashlib.sha256(written.encode()).hexdigest()[:16]


def _shapes(value: Any) -> list[Any]:
    """Dtypes and shapes of all tensors in nested values, in order."""
    if isinstance(value, Tensor):
        return [str(value.dtype), list(value.shape)]
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    return [_shapes(part) for part in parts]
