"""Which parts of a network are alike: the same layers, which take and give the same shapes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from edgekit.distillation.dry_run import output_shapes
from edgekit.pruning.counting import one_sample, step_by_step

Ran = Mapping[nn.Module, list[Any]]
"""What each module took and gave, call by call: dtypes and shapes."""


def run_once(module: nn.Module, inputs: Mapping[str, Tensor]) -> Ran:
    """Runs a module on the first sample of a batch, and keeps what its parts took and gave.

    Raises:
        ModelError: It does not run.
    """
    found: dict[nn.Module, list[Any]] = {}

    def look(part: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        found.setdefault(part, []).append([_shapes([*args, *kwargs.values()]), _shapes(output)])

    handles = [part.register_forward_hook(look, with_kwargs=True) for part in module.modules()]
    try:
        with step_by_step():
            output_shapes(module, one_sample(inputs), "while its layers are looked at")
    finally:
        for handle in handles:
            handle.remove()
    return found


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
    ]
    written = json.dumps([layers, [[name, list(widths)] for name, widths in moves]])
    return hashlib.sha256(written.encode()).hexdigest()[:16]


def _shapes(value: Any) -> list[Any]:
    """Dtypes and shapes of all tensors in nested values, in order."""
    if isinstance(value, Tensor):
        return [str(value.dtype), list(value.shape)]
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    return [_shapes(part) for part in parts]
