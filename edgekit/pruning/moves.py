"""What may be left out of a network, one by one: its blocks, and channels inside of them or through several."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from edgekit.distillation.depth import block_lists
from edgekit.distillation.dry_run import output_shapes
from edgekit.errors import ModelError
from edgekit.pruning.alike import Ran, alike, run_once
from edgekit.pruning.blocks import block_name, look_at_blocks, passed_around, why_needed
from edgekit.pruning.changes import Change, apply_change, merged
from edgekit.pruning.criteria import NO_EVIDENCE, Criterion, Evidence
from edgekit.pruning.scores import Channels, Scoring, check, remembered, score_channels
from edgekit.pruning.widths import nearest_width

SHARES = (0.75, 0.5, 0.25)
MOST_REASONS = 8  # that are told, each once, where nothing can be left out


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One change that may be made to a group.

    Attributes:
        name: What it does: ``removed``, or ``24 of 32 channels``.
        change: Of the module as it stands.
    """

    name: str
    change: Change


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveGroup:
    """What one of several moves may be made to.

    Attributes:
        name: Path of the block, or of the first layer that gives the channels.
        kind: ``block``: may be left out, or have fewer channels inside; ``channels``: has moves of widths alone.
        alike: Equal for groups whose moves cost the same: the same layers, which take and give the same shapes.
        moves: At least one; that all stays as it is is not among them.
    """

    name: str
    kind: str
    alike: str
    moves: tuple[Move, ...]


def find_moves(
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    *,
    blocks: bool = True,
    channels: bool = True,
    multiple: int = 1,
    keep: Sequence[str] = (),
    shares: Sequence[float] = SHARES,
    criterion: str | Criterion = "l2",
    evidence: Evidence = NO_EVIDENCE,
    base: Path | None = None,
) -> tuple[list[MoveGroup], list[str]]:
    """Finds what may be left out of a module; nothing of the module changes.

    A block that it runs without is a group, with the channels that live wholly inside of it: no layer outside gives or
    takes them, and no others outside must have their width. Of blocks in blocks the innermost are taken that have a way
    around their layers (a shortcut); blocks without one are offered only where there are no others. Channels inside a
    block that must stay are a group, and so are those that go through several blocks, with all of the same width.

    Args:
        module: Residual or transformer blocks in a ``Sequential`` or ``ModuleList``, or any module with channels.
        inputs: A batch that it runs on.
        blocks: Whether blocks may be left out.
        channels: Whether layers may have fewer channels.
        multiple: Widths are multiples of it; layers with fewer channels stay whole.
        keep: Paths of layers, or of modules with layers, that keep the channels they give, and stay.
        shares: Of the channels that may be kept, each above 0 and below 1.
        criterion: By which channels would be dropped, as of :func:`edgekit.pruning.structured.prune_channels`.
        evidence: Batches, a loss and a seed, for criteria that need them.
        base: The recipe's folder, whose modules are importable.

    Returns:
        The groups in the order of the module, and what cannot be left out and why, in words.

    Raises:
        ModelError: An argument is wrong, nothing can be left out, or the module does not run or cannot be traced.
        EdgeKitError: As of :func:`edgekit.pruning.structured.prune_channels`.
    """
    _check(module, blocks, channels, shares)
    check(module, Scoring(criterion=criterion, evidence=evidence, multiple=multiple, keep=keep, base=base))
    ran = run_once(module, inputs)
    scored: list[Channels] = []
    if channels:
        scored = score_channels(
            module, inputs, criterion=criterion, multiple=multiple, keep=keep, evidence=evidence, base=base
        )
    places = _places(module, inputs, keep)
    groups, few = _groups(module, scored, places, ran, blocks, multiple, shares)
    groups, failed = _that_run(module, inputs, groups, scored)
    notes = [*_whole(module, scored, places if blocks else None), *few, *failed]
    if not groups:
        raise _nothing(module, notes)
    order = {name: place for place, (name, _) in enumerate(module.named_modules(remove_duplicate=False))}
    return sorted(groups, key=lambda each: order[each.name]), notes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """A block: its path, that of its list and its position there, and why it must stay; None where it need not."""

    name: str
    path: str
    number: int
    why: str | None

    @property
    def removed(self) -> Change:
        return Change(blocks={self.path: (self.number,)})

    def holds(self, layer: str) -> bool:
        return layer == self.name or layer.startswith(f"{self.name}.")


def _groups(
    module: nn.Module,
    scored: Sequence[Channels],
    places: Sequence[_Place],
    ran: Ran,
    blocks: bool,
    multiple: int,
    shares: Sequence[float],
) -> tuple[list[MoveGroup], list[str]]:
    """The groups that have moves, and which channels have none for want of another width, in words."""
    inside, through = _divided(scored, places)
    groups, few = [], []
    for place in places:
        removed = [Move(name="removed", change=place.removed)] if blocks and place.why is None else []
        channels = inside.get(place.name, [])
        moves = _width_moves(channels, places, multiple, shares)
        few += [] if moves else channels
        if removed or moves:
            groups.append(_of_block(module, place, "block" if removed else "channels", [*removed, *moves], ran))
    for channels in through:
        moves = _width_moves(channels, places, multiple, shares)
        few += [] if moves else channels
        if moves:
            groups.append(_of_channels(module, channels, moves, ran))
    why = f"no share that may be kept is another multiple of {multiple} channels"
    return groups, [f"{_names(each)}: all {each.count} channels stay: {why}" for each in few]


def _that_run(
    module: nn.Module, inputs: Mapping[str, Tensor], groups: Sequence[MoveGroup], scored: Sequence[Channels]
) -> tuple[list[MoveGroup], list[str]]:
    """The groups with those moves of widths that can be made, and why others cannot, in words.

    The narrowest of all groups are made at once, and so on; one by one only where that fails.
    """
    importance = {each.name: torch.tensor(each.importance) for each in scored if each.importance is not None}
    narrow = {group.name: [move for move in group.moves if move.change.widths][::-1] for group in groups}
    failed: dict[tuple[str, str], str] = {}

    def why_not(change: Change) -> str | None:
        try:
            apply_change(deepcopy(module), inputs, change, criterion=remembered(importance))
        except ModelError as exc:
            return f"{exc.problem}: {exc.found}"
        return None

    for rank in range(max(map(len, narrow.values()), default=0)):
        moves = {name: moves[rank] for name, moves in narrow.items() if rank < len(moves)}
        if why_not(merged(move.change for move in moves.values())) is not None:
            for name, move in moves.items():
                why = why_not(move.change)
                if why is not None:
                    failed[name, move.name] = why
    left = [
        replace(group, moves=tuple(m for m in group.moves if (group.name, m.name) not in failed)) for group in groups
    ]
    notes = [f"{name}: {move} cannot be kept: {why}" for (name, move), why in failed.items()]
    return [group for group in left if group.moves], notes


def _check(module: nn.Module, blocks: bool, channels: bool, shares: Sequence[float]) -> None:
    if not blocks and not channels:
        raise ModelError(
            f"neither blocks nor channels of {type(module).__name__} may be left out",
            found="blocks = false and channels = false",
            allowed="one of them, or both",
        )
    for share in shares:
        if not 0 < share < 1:
            raise ModelError(
                "a share of the channels that is kept is wrong", found=f"{share:g}", allowed="above 0 and below 1"
            )


def _places(module: nn.Module, inputs: Mapping[str, Tensor], keep: Sequence[str]) -> list[_Place]:
    """The blocks that may be left out, none in another, and those that must stay and neither hold nor are in them."""
    found = []
    for (path, number), why in look_at_blocks(module, inputs, least=1).items():
        name = block_name(module, path, number)
        kept = next((k for k in keep if _related(k, name)), None)
        if why is None and kept is not None:
            why = "is in keep" if kept == name else f"goes with {kept}, which is in keep"
        found.append(_Place(name=name, path=path, number=number, why=why))
    parts = {place.name: module.get_submodule(place.name) for place in found}
    around = passed_around(module, inputs, list(parts.values()))
    several = {(path, number) for path, numbers in block_lists(module).items() for number in numbers}
    in_lists = [place for place in found if (place.path, place.number) in several]
    # The last block that is left of a list is known by its way around alone: any other part might stand there.
    ways = [place for place in found if place.why is None and parts[place.name] in around]
    chosen: list[_Place] = []
    free = ways or [place for place in in_lists if place.why is None]
    for place in sorted(free, key=lambda place: -place.name.count(".")):
        if not any(_related(place.name, other.name) for other in chosen):
            chosen.append(place)
    kinds = {type(parts[place.name]) for place in [*chosen, *in_lists]}
    rest = [
        replace(place, why=place.why or "has no way around its layers, as others have")
        for place in found
        if type(parts[place.name]) in kinds and not any(_related(place.name, other.name) for other in chosen)
    ]
    return [*_together(module, inputs, chosen), *rest]


def _together(module: nn.Module, inputs: Mapping[str, Tensor], chosen: Sequence[_Place]) -> list[_Place]:
    """Has the first block of a list stay where the module does not run once all of them are left out."""
    before = output_shapes(module, inputs, "before its blocks are looked at")
    gone: dict[str, set[int]] = {}
    for path in dict.fromkeys(place.path for place in chosen):
        numbers = {place.number for place in chosen if place.path == path}
        if why_needed(module, inputs, {**gone, path: numbers}, before) is not None:
            numbers.remove(min(numbers))
        gone[path] = numbers
    why = "is the first, and one of them must stay"
    return [place if place.number in gone[place.path] else replace(place, why=why) for place in chosen]


def _related(name: str, other: str) -> bool:
    """Whether one of two modules is the other one, or inside of it."""
    short, long = sorted((name, other), key=len)
    return short == long or long.startswith(f"{short}.")


def _divided(
    scored: Sequence[Channels], places: Sequence[_Place]
) -> tuple[dict[str, list[Channels]], list[list[Channels]]]:
    """Channels that may be dropped: those that live wholly inside a block, by its name, and the others, by width."""
    by_width: dict[int, list[Channels]] = {}
    given = Counter(layer for each in scored for layer in each.layers)
    for each in scored:
        # A layer that gives channels of two groups names neither.
        layers = tuple(layer for layer in each.layers if given[layer] == 1)
        by_width.setdefault(each.width, []).append(replace(each, layers=layers))
    inside: dict[str, list[Channels]] = {}
    through = []
    for together in by_width.values():
        if any(each.whole is not None or not each.layers for each in together):
            continue
        touched = [layer for each in together for layer in each.touched]
        holding = [place.name for place in places if all(place.holds(layer) for layer in touched)]
        if holding:
            inside.setdefault(max(holding, key=len), []).extend(together)
        else:
            through.append(together)
    return inside, through


def _width_moves(
    channels: Sequence[Channels], places: Sequence[_Place], multiple: int, shares: Sequence[float]
) -> list[Move]:
    """Moves that keep a share of some channels, all of them at once."""
    moves: list[Move] = []
    counts = {each.width: each.count for each in channels}
    for share in sorted(set(shares), reverse=True):
        widths, kept = {}, {}
        for each in channels:
            least = max(other.least for other in channels if other.width == each.width)
            size = each.count // each.parts
            width = each.parts * nearest_width(each.count, each.parts, multiple, size * share, least // each.parts)
            kept[each.width] = width
            if width < each.count:
                widths[_giver(each, places)] = width
        change = Change(widths=widths)
        if widths and all(change != move.change for move in moves):
            name = f"{sum(kept.values())} of {sum(counts.values())} channels"
            moves.append(Move(name=name, change=change))
    return moves


def _giver(channels: Channels, places: Sequence[_Place]) -> str:
    """A layer that gives some channels, one that stays whatever blocks are left out if there is one."""
    free = [place for place in places if place.why is None]
    stays = (layer for layer in channels.layers if not any(place.holds(layer) for place in free))
    return next(stays, channels.layers[0])


def _of_block(module: nn.Module, place: _Place, kind: str, moves: Sequence[Move], ran: Ran) -> MoveGroup:
    parts = dict(module.get_submodule(place.name).named_modules())
    skip = len(place.name) + 1
    named = [(move.name, [(path[skip:], width) for path, width in move.change.widths.items()]) for move in moves]
    return MoveGroup(name=place.name, kind=kind, alike=alike(parts, ran, named), moves=tuple(moves))


def _of_channels(module: nn.Module, channels: Sequence[Channels], moves: Sequence[Move], ran: Ran) -> MoveGroup:
    touched = {layer for each in channels for layer in each.touched}
    parts = {name: part for name, part in module.named_modules() if name in touched}
    numbers = {name: str(i) for i, name in enumerate(parts)}
    numbered = {numbers[name]: part for name, part in parts.items()}
    named = [(move.name, [(numbers[path], width) for path, width in move.change.widths.items()]) for move in moves]
    name = next(iter(moves[0].change.widths))
    return MoveGroup(name=name, kind="channels", alike=alike(numbered, ran, named), moves=tuple(moves))


def _whole(module: nn.Module, scored: Sequence[Channels], places: Sequence[_Place] | None) -> list[str]:
    """What cannot be left out, and why, in words."""
    notes = []
    if places is not None:
        stays = [place for place in places if place.why is not None]
        outer = [place for place in stays if not any(other != place and other.holds(place.name) for other in stays)]
        notes += [f"block {place.name} stays: it {place.why}" for place in outer]
        if not places:
            notes.append(f"{type(module).__name__} has no Sequential or ModuleList of blocks")
    for each in scored:
        if each.whole is not None:
            notes.append(f"{_names(each)}: all {each.count} channels stay: {each.whole}")
    return notes


def _names(channels: Channels) -> str:
    """The layers that give some channels, the first of them where they are many."""
    more = f" and {len(channels.layers) - 4} more" if len(channels.layers) > 4 else ""
    return (", ".join(channels.layers[:4]) or channels.name) + more


def _nothing(module: nn.Module, notes: Sequence[str]) -> ModelError:
    reasons: dict[str, str] = {}
    for note in notes:
        reasons.setdefault(note.rpartition(": ")[2], note)
    shown, more = list(reasons.values())[:MOST_REASONS], len(notes) - min(len(reasons), MOST_REASONS)
    return ModelError(
        f"nothing of {type(module).__name__} can be left out",
        found="; ".join([*shown, *([f"and {more} more"] if more else [])]) or "no width that is allowed",
        allowed="residual blocks in a Sequential or ModuleList, or channels that nothing ties",
        fix="a smaller multiple, fewer layers in keep, or blocks that give the shape they take",
    )
