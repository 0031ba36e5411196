"""What each move costs a network in accuracy: the rise of its loss, what a criterion says goes, or its share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from edgekit.distillation.depth import check_blocks, without_blocks
from edgekit.distillation.forward import evaluating, logits_of
from edgekit.errors import DataError, ModelError, TrainingError, UnknownName, did_you_mean
from edgekit.progress import Progress, silent
from edgekit.pruning.blocks import as_group
from edgekit.pruning.changes import Change, apply_change
from edgekit.pruning.channels import as_parameters
from edgekit.pruning.criteria import Criterion, Evidence, score
from edgekit.pruning.cutting import whole_after_errors
from edgekit.pruning.gradients import needed
from edgekit.pruning.groups import Coupled, lowest
from edgekit.pruning.moves import MoveGroup
from edgekit.pruning.scores import Scored, Scoring, check, look, remembered
from edgekit.pruning.zeroing import can_be_zeroed, zeroed

_TIE = 1e-3  # of what a move costs: orders equals, and nothing else
Worth = dict[str, dict[str, float]]
"""By group, by move: how much is lost when this move alone is made."""


def worth_of(
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    groups: Sequence[MoveGroup],
    evidence: Evidence,
    *,
    criterion: str | Criterion = "l2",
    by: str = "loss",
    base: Path | None = None,
    progress: Progress = silent,
) -> Worth:
    """How much is lost by each move alone; nothing of the module changes.

    Args:
        module: As :func:`edgekit.pruning.moves.find_moves` saw it.
        inputs: A batch that it runs on.
        groups: Moves, as of there.
        evidence: Batches and a loss, for ``loss`` and for criteria that need them.
        criterion: By which channels are dropped, as of :func:`edgekit.pruning.structured.prune_channels`.
        by: A key of :data:`BY`. ``loss``: by how much the mean of the loss over the batches rises, in evaluation mode;
            infinite where the loss is no longer finite. ``criterion``: the sum of the criterion over what goes, a block
            counting for all its layers. ``share``: what share of its list of blocks, or of its channels, goes.
        base: The recipe's folder, whose modules are importable.
        progress: Told move by move.

    Returns:
        By group, by move: a higher number for a greater loss; usually 0 or more.

    Raises:
        UnknownName: There is no such ``by``.
        DataError: There are no batches where they are needed, or no labels.
        TrainingError: The module or the loss fails, or the loss of the module as it is is not finite.
        ModelError: A move cannot be made, or the criterion says nothing of a block.
        EdgeKitError: As of :func:`edgekit.pruning.structured.prune_channels`.
    """
    if by not in BY:
        raise UnknownName("measure of what a move loses", by, BY)
    for group in groups:
        for move in group.moves:
            check_blocks(module, move.change.blocks)
    scoring = Scoring(criterion=criterion, evidence=evidence, multiple=1, keep=(), base=base)
    return BY[by](module, inputs, groups, scoring, progress)


def by_loss(
    module: nn.Module, inputs: Mapping[str, Tensor], groups: Sequence[MoveGroup], scoring: Scoring, progress: Progress
) -> Worth:
    """The rise of the mean loss over the batches of the evidence."""
    evidence = scoring.evidence
    if not evidence.batches:
        raise DataError(
            "what a move loses cannot be told by the loss: there are no data",
            found="no batches",
            fix="give training data, or tell it by the criterion",
        )
    needed(evidence.batches, "loss", evidence.loss)
    whole = _mean_loss(module, evidence)
    if not math.isfinite(whole):
        raise TrainingError(
            f"the loss of {type(module).__name__} is not finite before anything is left out",
            found=f"a loss of {whole}",
            fix="check inputs and labels for values that are not finite",
        )
    scored = _scored(module, inputs, groups, scoring)

    def rise(change: Change) -> float:
        with _changed(module, inputs, change, scored) as changed:
            loss = _mean_loss(changed, evidence)
        return loss - whole if math.isfinite(loss) else math.inf

    return _each(groups, rise, progress)


def by_criterion(
    module: nn.Module, inputs: Mapping[str, Tensor], groups: Sequence[MoveGroup], scoring: Scoring, progress: Progress
) -> Worth:
    """The sum of the criterion over what goes."""
    scored = _scored(module, inputs, groups, scoring)
    giver = {
        path: (each.coupled, each.importance)
        for each in scored
        if each.importance is not None
        for path in each.coupled.givers
    }
    changes = [move.change for group in groups for move in group.moves]
    blocks = sorted({(path, i) for change in changes for path, numbers in change.blocks.items() for i in numbers})
    as_groups = [as_group(path, number, module) for path, number in blocks]
    with as_parameters(module):
        scores = score(module, as_groups, scoring.criterion, scoring.evidence, scoring.base) if blocks else []
    of_block: dict[tuple[str, int], float] = {}
    for block, group, value in zip(blocks, as_groups, scores, strict=True):
        if value is None:
            raise ModelError(
                f"the criterion says nothing of block {group.name}",
                found="a block without a layer that it looks at",
                fix="another criterion, or tell what a move loses by the loss",
            )
        of_block[block] = float(value)

    def gone(change: Change) -> float:
        total = math.fsum(of_block[path, i] for path, numbers in change.blocks.items() for i in numbers)
        for path, width in change.widths.items():
            coupled, importance = giver[path]
            total += float(importance[lowest(coupled, importance, width // coupled.parts)].sum())
        return total

    return _each(groups, gone, progress)


def by_share(
    module: nn.Module, inputs: Mapping[str, Tensor], groups: Sequence[MoveGroup], scoring: Scoring, progress: Progress
) -> Worth:
    """The share of its list of blocks, or of its channels, that goes; among equals more where the loss rises more.

    The rise of the loss before anything was learnt anew says which block of a stage is missed least, but little of how
    many each stage can do without once the network has learnt again.
    """
    rises = by_loss(module, inputs, groups, scoring, progress)
    order = sorted({rise for of_group in rises.values() for rise in of_group.values()})
    place = {rise: number / len(order) for number, rise in enumerate(order)}
    counts = {
        path: len(each.importance)
        for each in _scored(module, inputs, groups, replace(scoring, criterion="l2"))
        if each.importance is not None
        for path in each.coupled.givers
    }

    def gone(change: Change) -> float:
        blocks = math.fsum(
            len(n) / len(list(module.get_submodule(path).children())) for path, n in change.blocks.items()
        )
        return blocks + math.fsum(1 - width / counts[path] for path, width in change.widths.items())

    return {
        group.name: {
            move.name: gone(move.change) * (1 + _TIE * place[rises[group.name][move.name]]) for move in group.moves
        }
        for group in groups
    }


BY: Mapping[str, Callable[..., Worth]] = {"loss": by_loss, "criterion": by_criterion, "share": by_share}


def _each(groups: Sequence[MoveGroup], worth: Callable[[Change], float], progress: Progress) -> Worth:
    total, done = sum(len(group.moves) for group in groups), 0
    found: Worth = {}
    for group in groups:
        found[group.name] = {}
        for move in group.moves:
            progress("worth of moves", done, total, f"{group.name}: {move.name}")
            found[group.name][move.name] = worth(move.change)
            done += 1
    progress("worth of moves", done, total)
    return found


def _scored(
    module: nn.Module, inputs: Mapping[str, Tensor], groups: Sequence[MoveGroup], scoring: Scoring
) -> list[Scored]:
    """The channels with their importance; nothing where no move is about channels."""
    if not any(move.change.widths for group in groups for move in group.moves):
        return []
    check(module, scoring)
    with whole_after_errors(module), as_parameters(module):
        scored = look(module, inputs, scoring)[1]
    known = {path for each in scored if each.importance is not None for path in each.coupled.givers}
    for path in (path for group in groups for move in group.moves for path in move.change.widths):
        if path not in known:
            raise ModelError(
                f"{type(module).__name__} has no channels of {path} that may be dropped",
                found=repr(path),
                allowed=", ".join(sorted(known)) or "none: all channels stay",
                fix=did_you_mean(path, sorted(known)),
            )
    return scored


@contextmanager
def _changed(
    module: nn.Module, inputs: Mapping[str, Tensor], change: Change, scored: Sequence[Scored]
) -> Iterator[nn.Module]:
    """While the block runs, what a module is after a change: where zeros do as well, nothing is cut for it."""
    channels = _dropped(change, scored)
    if not all(can_be_zeroed(coupled) for coupled, _ in channels):
        copy = deepcopy(module)
        importance = {each.coupled.group.name: each.importance for each in scored if each.importance is not None}
        apply_change(copy, inputs, change, criterion=remembered(importance))
        yield copy
        return
    with ExitStack() as stack:
        for coupled, dropped in channels:
            stack.enter_context(zeroed(coupled, dropped))
        for path, numbers in sorted(change.blocks.items(), key=lambda each: -each[0].count(".")):
            stack.enter_context(without_blocks(module, path, numbers))
        yield module


def _dropped(change: Change, scored: Sequence[Scored]) -> list[tuple[Coupled, list[int]]]:
    """Groups of channels that a change drops some of, each once, with the numbers of those."""
    found: dict[str, tuple[Coupled, list[int]]] = {}
    for path, width in change.widths.items():
        each = next(each for each in scored if each.importance is not None and path in each.coupled.givers)
        assert each.importance is not None
        found[each.coupled.group.name] = (
            each.coupled,
            lowest(each.coupled, each.importance, width // each.coupled.parts),
        )
    return list(found.values())


def _mean_loss(module: nn.Module, evidence: Evidence) -> float:
    with evaluating(module), torch.no_grad():
        losses = [float(evidence.loss(batch, logits_of(module, batch.inputs))) for batch in evidence.batches]
    return math.fsum(losses) / len(losses)
