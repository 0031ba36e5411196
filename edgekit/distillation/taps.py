"""Taking what layers inside a module give, by module path."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from edgekit.distillation.forward import call, evaluating, name_outputs
from edgekit.distillation.parameters import module_at
from edgekit.errors import TrainingError


@contextmanager
def tapped(module: nn.Module, paths: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Collects the outputs of the modules at ``paths`` while the block runs.

    Args:
        module: The whole module.
        paths: Module paths inside it, e.g. ``layer3.1.conv2``.

    Yields:
        Filled by every call of ``module``: the first tensor that each layer gave, by path; of several calls of one
        layer the last. It holds on to them until the next call.

    Raises:
        TrainingError: A path names no module.
    """
    layers = {path: module_at(module, path, "distillation.features") for path in paths}
    found: dict[str, Tensor] = {}

    def keep(path: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            found[path] = _tensor(output, path)

        return hook

    handles = [layer.register_forward_hook(keep(path)) for path, layer in layers.items()]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def outputs_seen(module: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Collects all outputs of a module by name while the block runs: those of its last call."""
    found: dict[str, Tensor] = {}

    def keep(_: nn.Module, __: Any, output: Any) -> None:
        found.clear()
        found.update(name_outputs(module, output))

    handle = module.register_forward_hook(keep)
    try:
        yield found
    finally:
        handle.remove()


def feature_shapes(module: nn.Module, paths: Sequence[str], inputs: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Shapes that layers give for a batch, by a run in evaluation mode that changes nothing.

    Raises:
        TrainingError: A path names no module, a layer is not called, or it gives no tensor.
    """
    with evaluating(module), torch.no_grad(), tapped(module, paths) as found:
        call(module, inputs)
        shapes = {path: tuple(tensor.shape) for path, tensor in found.items()}
    unused = [path for path in paths if path not in shapes]
    if unused:
        raise TrainingError(
            f"layer {unused[0]!r} of {type(module).__name__} is not called when the module runs",
            allowed="a layer whose forward() is called",
            fix="name the module around it, or the one that takes its output",
        )
    return shapes


def _tensor(output: Any, path: str) -> Tensor:
    if isinstance(output, Tensor):
        return output
    values = output.values() if isinstance(output, Mapping) else output if isinstance(output, (tuple, list)) else ()
    for value in values:
        if isinstance(value, Tensor):
            return value
    raise TrainingError(f"layer {path!r} gives no tensor", found=type(output).__name__, fix="name a layer inside it")
