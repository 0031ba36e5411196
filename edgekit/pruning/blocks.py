"""Whole blocks that may be left out of a network, and how much each counts."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgekit.distillation.depth import block_lists, without_blocks
from edgekit.distillation.dry_run import keeping_shape, output_shapes
from edgekit.distillation.forward import call, evaluating
from edgekit.errors import ModelError
from edgekit.models import count_parameters
from edgekit.pruning.channels import as_parameters
from edgekit.pruning.criteria import NO_EVIDENCE, Criterion, Evidence, score
from edgekit.pruning.groups import Group, Member

# Steps of torch's autograd that mix channels, in lower case.
MIXING = ("convolution", "mm", "attention", "embedding", "linear", "matmul")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A block that may be left out.

    Attributes:
        path: Of the list that it is in.
        number: Its position there.
        importance: By the criterion, of all its layers together, higher for what is to be kept; None where it says
            nothing of the block.
        parameters: How many it has.
        drop: By how much the score of the module is lower without it; None where no score was given.
    """

    path: str
    number: int
    importance: float | None
    parameters: int
    drop: float | None


def score_blocks(
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    *,
    criterion: str | Criterion = "l2",
    evidence: Evidence = NO_EVIDENCE,
    accuracy: Callable[[nn.Module], float] | None = None,
    base: Path | None = None,
) -> list[Block]:
    """How much every block counts that a module runs without; nothing of the module changes.

    A block counts as a channel does, for the sum over all layers that go with it: those inside of it. (From filters to
    layers: S. Elkerdawy et al., "To Filter Prune, or to Layer Prune, That Is The Question", ACCV 2020.) With
    ``accuracy`` the drop without the block is told too.

    Args:
        module: Residual or transformer blocks in a ``Sequential`` or ``ModuleList``.
        inputs: A batch that it runs on.
        criterion: As of :func:`edgekit.pruning.structured.prune_channels`; as are ``evidence`` and ``base``.
        evidence: What the criterion may look at.
        accuracy: From a module to a score that is higher for a better one; runs once, and once a block.
        base: The recipe's folder.

    Returns:
        The blocks in the order of the module. Blocks may lie in others: those of a stage in the list of stages. Each
        alone may be left out; together, see :func:`edgekit.distillation.depth.cut_depth`.

    Raises:
        ModelError: No block may be left out.
        EdgeKitError: The criterion cannot be found, or lacks what it needs.
    """
    blocks = removable(module, inputs)
    groups = [as_group(path, number, module) for path, number in blocks]
    with as_parameters(module):
        scores = score(module, groups, criterion, evidence, base)
    whole = None if accuracy is None else accuracy(module)
    found = []
    for (path, number), value in zip(blocks, scores, strict=True):
        drop = None
        if accuracy is not None and whole is not None:
            with without_blocks(module, path, {number}):
                drop = whole - accuracy(module)
        parameters = count_parameters(module.get_submodule(path)[number])
        importance = None if value is None else float(value)
        found.append(Block(path=path, number=number, importance=importance, parameters=parameters, drop=drop))
    return found


def removable(module: nn.Module, inputs: Mapping[str, Tensor]) -> list[tuple[str, int]]:
    """Path of the list and position of every block that a module runs without.

    Raises:
        ModelError: There is none; names the blocks and why they stay.
    """
    blocks = look_at_blocks(module, inputs)
    found = [block for block, why in blocks.items() if why is None]
    if not found:
        kept = [f"{block_name(module, *block)} {why}" for block, why in blocks.items()]
        raise ModelError(
            f"no block of {type(module).__name__} can be left out",
            found="; ".join(kept) or "no Sequential or ModuleList with two blocks or more of one class",
            allowed="blocks that give the shape they take, in a list that is not gone through by number",
            fix="prune channels instead",
        )
    return found


def look_at_blocks(
    module: nn.Module, inputs: Mapping[str, Tensor], least: int = 2
) -> dict[tuple[str, int], str | None]:
    """Every block of a module, by path of its list and position, with why it cannot be left out; None where it can.

    Args:
        module: Nothing of it changes.
        inputs: A batch that it runs on.
        least: Blocks of one class that make a list of blocks.

    Raises:
        ModelError: It does not run.
    """
    before = output_shapes(module, inputs, "before its blocks are looked at")
    lists = block_lists(module, least)
    children = {(path, i): module.get_submodule(path)[i] for path, numbers in lists.items() for i in numbers}
    same = keeping_shape(module, list(children.values()), inputs)
    return {
        (path, number): why_needed(module, inputs, {path: {number}}, before)
        if block in same
        else "gives another shape than it takes"
        for (path, number), block in children.items()
    }


def why_needed(
    module: nn.Module, inputs: Mapping[str, Tensor], blocks: Mapping[str, Collection[int]], before: Mapping[str, object]
) -> str | None:
    """Why a module does not run without blocks; None where it does.

    Args:
        module: Nothing of it changes.
        inputs: A batch.
        blocks: Positions by path of their list; no list may lie in a block of another.
        before: Shapes of its outputs with them.
    """
    with ExitStack() as stack:
        for path, numbers in blocks.items():
            stack.enter_context(without_blocks(module, path, numbers))
        try:
            shapes = output_shapes(module, inputs, "without a block")
        except ModelError as exc:
            return f"is needed: {exc.found}"
    return None if shapes == before else "changes the shapes of the outputs"


def passed_around(module: nn.Module, inputs: Mapping[str, Tensor], blocks: Sequence[nn.Module]) -> set[nn.Module]:
    """Those of some blocks that have a way around their layers, a shortcut, from what they take to what they give.

    Of K. He et al., "Identity Mappings in Deep Residual Networks", ECCV 2016: what goes that way stays when the rest is
    left out. Norms, activations, slices and padding may lie on it; no layer that mixes channels may.

    Raises:
        ModelError: The module does not run.
    """
    taken: dict[nn.Module, Any] = {}
    found: dict[nn.Module, bool] = {}

    def enter(block: nn.Module, args: Any, kwargs: Any) -> None:
        first = _first([*args, *kwargs.values()])
        taken[block] = None if first is None else first.grad_fn

    def leave(block: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        given = _first(output)
        way = given is not None and taken[block] is not None and _leads(given.grad_fn, taken[block])
        found[block] = found.get(block, True) and way

    handles = [block.register_forward_pre_hook(enter, with_kwargs=True) for block in set(blocks)]
    handles += [block.register_forward_hook(leave, with_kwargs=True) for block in set(blocks)]
    try:
        with as_parameters(module), evaluating(module), torch.enable_grad():
            fed = {
                name: tensor.detach().requires_grad_().clone() if tensor.is_floating_point() else tensor
                for name, tensor in inputs.items()
            }
            call(module, fed)
    finally:
        for handle in handles:
            handle.remove()
    return {block for block, way in found.items() if way}


def _leads(given: Any, taken: Any) -> bool:
    """Whether one step of a computation leads to another without a layer that mixes channels between them."""
    seen, left = {taken}, [given]
    while left:
        step = left.pop()
        if step is taken:
            return True
        if step is None or step in seen or any(word in step.name().lower() for word in MIXING):
            continue
        seen.add(step)
        left += [before for before, _ in step.next_functions]
    return False


def _first(value: Any) -> Tensor | None:
    """The first tensor in nested values."""
    if isinstance(value, Tensor):
        return value
    parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    return next((found for part in parts if (found := _first(part)) is not None), None)


def block_name(module: nn.Module, path: str, number: int) -> str:
    """Path of a block, from the path of its list and its position there."""
    return ".".join(filter(None, (path, list(module.get_submodule(path)._modules)[number])))


def as_group(path: str, number: int, module: nn.Module) -> Group:
    """A block as one channel that is all of its layers."""
    part = module.get_submodule(path)
    prefix = block_name(module, path, number)
    none = torch.zeros(0, dtype=torch.long)
    members = tuple(
        Member(
            name=f"{prefix}.{name}" if name else prefix, layer=layer, takes=False, own=none, shared=none, entire=True
        )
        for name, layer in part[number].named_modules()
        if next(layer.parameters(recurse=False), None) is not None
    )
    return Group(name=prefix, count=1, members=members)
