"""Running a module once to see that it still works, and which layer of it does not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from edgekit.distillation.forward import call, evaluating
from edgekit.errors import ModelError, TrainingError

Shapes = dict[str, tuple[int, ...]]
FIX = "write the student as a class of its own, and take weights over with [student.take]"


def output_shapes(module: nn.Module, inputs: Mapping[str, Tensor], after: str, fix: str = FIX) -> Shapes:
    """Shapes of a module's outputs on a batch, by name.

    Args:
        module: Run in evaluation mode; nothing of it changes.
        inputs: A batch.
        after: What was done to it, for the message.
        fix: What helps, for the message.

    Raises:
        ModelError: It does not run; names the innermost layer that failed.
    """
    with evaluating(module), torch.no_grad(), _entered(module) as layers:
        try:
            return {name: tuple(output.shape) for name, output in call(module, inputs).items()}
        except TrainingError as exc:
            cause = exc.__cause__
            raise ModelError(
                f"{type(module).__name__} does not run {after}: layer {layers[-1]!r}"
                if layers and layers[-1]
                else f"{type(module).__name__} does not run {after}",
                found=f"{type(cause).__name__}: {cause}" if cause is not None else exc.problem,
                allowed="a model whose forward takes its sizes from its layers or tensors, not from written numbers",
                fix=fix,
            ) from exc


@contextmanager
def _entered(module: nn.Module) -> Iterator[list[str]]:
    """The layers that a forward pass is inside of, outermost first; after a failure those it failed in."""
    inside: list[str] = []

    def enter(name: str) -> Any:
        return lambda *_: inside.append(name)

    def leave(*_: Any) -> None:
        inside.pop()

    handles = [
        hook
        for name, part in module.named_modules()
        for hook in (part.register_forward_pre_hook(enter(name)), part.register_forward_hook(leave))
    ]
    try:
        yield inside
    finally:
        for handle in handles:
            handle.remove()


def keeping_shape(module: nn.Module, blocks: list[nn.Module], inputs: Mapping[str, Tensor]) -> set[nn.Module]:
    """Those of some blocks that give a tensor of the shape they take, each time they are called.

    Raises:
        ModelError: The module does not run.
    """
    kept: dict[nn.Module, bool] = {}

    def look(block: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        taken, given = _first([*args, *kwargs.values()]), _first(output)
        same = taken is not None and given is not None and taken.shape == given.shape
        kept[block] = kept.get(block, True) and same

    handles = [block.register_forward_hook(look, with_kwargs=True) for block in set(blocks)]
    try:
        output_shapes(module, inputs, "while its blocks are looked at")
    finally:
        for handle in handles:
            handle.remove()
    return {block for block, same in kept.items() if same}


def _first(value: Any) -> Tensor | None:
    """The first tensor in nested values."""
    if isinstance(value, Tensor):
        return value
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    return next((found for part in parts if (found := _first(part)) is not None), None)
