"""A change of a network: which blocks are left out of it and how many channels its layers keep."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from edgekit.distillation.depth import check_blocks, drop_blocks
from edgekit.errors import ModelError
from edgekit.pruning.blocks import block_name
from edgekit.pruning.criteria import NO_EVIDENCE, Criterion, Evidence
from edgekit.pruning.cutting import whole_after_errors
from edgekit.pruning.sizes import attention_of
from edgekit.pruning.structured import prune_to


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What is left out of a module; all paths and positions are those of the module as it stands.

    Attributes:
        blocks: Positions of the blocks that are left out, by path of their list.
        widths: How many channels are kept, by path of a layer that gives them.
    """

    blocks: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    widths: Mapping[str, int] = field(default_factory=dict)


def merged(changes: Iterable[Change]) -> Change:
    """All of several changes of one module at once.

    Raises:
        ModelError: Two of them want different widths of one layer.
    """
    blocks: dict[str, set[int]] = {}
    widths: dict[str, int] = {}
    for change in changes:
        for path, numbers in change.blocks.items():
            blocks.setdefault(path, set()).update(numbers)
        for path, width in change.widths.items():
            if widths.setdefault(path, width) != width:
                raise ModelError(
                    f"two changes want different widths of {path}",
                    found=f"{widths[path]} and {width} channels",
                    allowed="one width for each layer",
                )
    return Change(blocks={path: tuple(sorted(numbers)) for path, numbers in blocks.items()}, widths=widths)


def apply_change(
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    change: Change,
    *,
    criterion: str | Criterion = "l2",
    evidence: Evidence = NO_EVIDENCE,
    base: Path | None = None,
) -> list[str]:
    """Makes a change: channels are dropped first, then blocks are left out for good.

    Args:
        module: Changed in place; after an error it is what it was.
        inputs: A batch that it runs on.
        change: Widths of layers that lie in a block that is left out are passed over.
        criterion: By which channels are dropped, as of :func:`edgekit.pruning.structured.prune_channels`.
        evidence: Batches, a loss and a seed, for criteria that need them.
        base: The recipe's folder, whose modules are importable.

    Returns:
        What was done, in words; nothing where the change asks for nothing.

    Raises:
        ModelError: There is no such block or layer, a layer cannot have such a width, or the module does not run once
            it is changed.
        EdgeKitError: As of :func:`edgekit.pruning.structured.prune_channels`.
    """
    notes: list[str] = []
    with whole_after_errors(module):
        widths = _beside_blocks(module, change)
        if widths:
            # The first note is of the parameters of a change in the middle of others.
            notes += prune_to(module, inputs, widths, criterion=criterion, evidence=evidence, base=base)[1:]
        if any(change.blocks.values()):
            notes += drop_blocks(module, inputs, change.blocks)
    return notes


def as_json(change: Change) -> dict[str, Any]:
    """A change as it is written to JSON."""
    return {
        "blocks": {path: list(numbers) for path, numbers in change.blocks.items()},
        "widths": dict(change.widths),
    }


def from_json(value: object) -> Change:
    """A change as :func:`as_json` wrote it.

    Raises:
        ModelError: It is something else.
    """
    if not isinstance(value, Mapping) or not set(value) <= {"blocks", "widths"}:
        raise _not_a_change(value)
    blocks, widths = value.get("blocks", {}), value.get("widths", {})
    if not isinstance(blocks, Mapping) or not isinstance(widths, Mapping):
        raise _not_a_change(value)
    positions = [i for numbers in blocks.values() for i in (numbers if type(numbers) is list else [None])]
    counted = all(_counts(i, 0) for i in positions) and all(_counts(width, 1) for width in widths.values())
    if not counted or not all(isinstance(path, str) for path in (*blocks, *widths)):
        raise _not_a_change(value)
    return Change(blocks={path: tuple(sorted(set(numbers))) for path, numbers in blocks.items()}, widths=dict(widths))


def _counts(value: object, least: int) -> bool:
    return type(value) is int and value >= least


def _not_a_change(value: object) -> ModelError:
    return ModelError(
        "this is no change of a module",
        found=repr(value)[:200],
        allowed='{"blocks": {path of a list: [positions]}, "widths": {path of a layer: channels}}',
    )


def _beside_blocks(module: nn.Module, change: Change) -> dict[str, int]:
    """The widths of layers that do not lie in a block that is left out, or that others outside must have."""
    check_blocks(module, change.blocks)
    left_out = tuple(
        f"{block_name(module, path, number)}." for path, numbers in change.blocks.items() for number in numbers
    )
    inside = {path: width for path, width in change.widths.items() if f"{path}.".startswith(left_out)}
    outside = {path: width for path, width in change.widths.items() if path not in inside}
    if not outside:
        return {}
    # All heads of a network may have to be as wide together as its stream, also in blocks that go a moment later.
    heads = attention_of(module)
    tied = {path for path, part in module.named_modules() if part in heads}
    return {path: width for path, width in change.widths.items() if path in outside or path in tied}
