"""Structured pruning: channels of the least importance are left out of a network, with all that goes with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn

from edgekit.distillation.dry_run import output_shapes
from edgekit.errors import ModelError, UnknownName, did_you_mean
from edgekit.models import count_parameters
from edgekit.pruning.channels import PRUNING, as_parameters, told
from edgekit.pruning.criteria import NO_EVIDENCE, Criterion, Evidence
from edgekit.pruning.cutting import cut, see_that_it_runs, whole_after_errors
from edgekit.pruning.groups import lowest
from edgekit.pruning.scores import Scored, Scoring, check, look
from edgekit.pruning.sizes import sizes_of
from edgekit.pruning.widths import SCOPES, Choice


def prune_channels(
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    share: float,
    *,
    criterion: str | Criterion = "l2",
    scope: str = "layer",
    multiple: int = 1,
    keep: Sequence[str] = (),
    evidence: Evidence = NO_EVIDENCE,
    base: Path | None = None,
) -> list[str]:
    """Drops channels of a module, those of the least importance first.

    Channels that go together are dropped together (G. Fang et al., "DepGraph: Towards Any Structural Pruning", CVPR
    2023) and count for the sum over all layers they belong to. What the model takes and gives, the number of attention
    heads and recurrent layers stay; groups of convolutions and heads lose as many channels each.

    Args:
        module: Changed in place; after an error it is what it was.
        inputs: A batch that it runs on.
        share: Of the channels that is dropped, above 0 and below 1. Every layer keeps a channel, or a multiple.
        criterion: A key of :data:`edgekit.pruning.criteria.CRITERIA`, ``module:attr``, or a callable like those.
        scope: ``layer``: the share is dropped of each; ``global``: of all together, importance divided by its mean.
        multiple: Widths that are cut become the nearest multiple of it; layers with fewer channels stay whole.
        keep: Paths of layers, or of modules with layers, that keep the channels they give.
        evidence: Batches, a loss and a seed, for criteria that need them.
        base: The recipe's folder, whose modules are importable.

    Returns:
        What was cut, and what stayed whole and why, in words.

    Raises:
        ModelError: An argument is wrong, nothing can be cut, or the module cannot be traced or cut; names the layer.
        UnknownName: There is no such criterion or scope.
        DataError: The criterion needs data or labels and there are none.
        TrainingError: The module or the loss fails on them.
    """
    if not 0 < share < 1:
        raise ModelError("pruning drops a share of the channels", found=f"{share:g}", allowed="above 0 and below 1")
    if scope not in SCOPES:
        raise UnknownName("scope of pruning", scope, SCOPES)
    scoring = Scoring(criterion=criterion, evidence=evidence, multiple=multiple, keep=keep, base=base)

    def choose(found: Sequence[Scored]) -> dict[str, int]:
        choices = {
            each.coupled.group.name: Choice(
                importance=each.importance,
                parts=each.coupled.parts,
                multiple=multiple,
                width=each.width,
                least=each.least,
            )
            for each in found
            if each.importance is not None
        }
        return dict(zip(choices, SCOPES[scope](list(choices.values()), share), strict=True))

    where = "of each layer" if scope == "layer" else "of all layers together"
    return _prune(module, inputs, scoring, choose, f"{share:.0%} of the channels {where}")


def prune_to(
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    widths: Mapping[str, int],
    *,
    criterion: str | Criterion = "l2",
    evidence: Evidence = NO_EVIDENCE,
    base: Path | None = None,
) -> list[str]:
    """Drops channels of a module down to widths that were chosen, those of the least importance first.

    Args:
        module: Changed in place; after an error it is what it was.
        inputs: A batch that it runs on.
        widths: How many channels are kept, by the path of any layer that gives them; all others stay whole.
        criterion: As of :func:`prune_channels`.
        evidence: As of :func:`prune_channels`.
        base: As of :func:`prune_channels`.

    Returns:
        What was cut, in words.

    Raises:
        ModelError: There is no such layer, it must keep its channels, or it cannot have so many.
        EdgeKitError: As of :func:`prune_channels`.
    """
    scoring = Scoring(criterion=criterion, evidence=evidence, multiple=1, keep=(), base=base)

    def choose(found: Sequence[Scored]) -> dict[str, int]:
        chosen = {}
        for path, width in widths.items():
            each = next((each for each in found if path in each.coupled.givers), None)
            if each is None:
                raise _no_layer(module, path, found)
            chosen[each.coupled.group.name] = _of_part(each, path, width)
        _same_widths(found, chosen)
        return chosen

    return _prune(module, inputs, scoring, choose, "channels beyond the widths given", whole=False)


def _prune(
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    scoring: Scoring,
    choose: Callable[[Sequence[Scored]], Mapping[str, int]],
    what: str,
    *,
    whole: bool = True,
) -> list[str]:
    """Cuts what is chosen, and tells it; with ``whole`` also what must stay whole."""
    check(module, scoring)
    before, parameters = output_shapes(module, inputs, "before it is pruned"), count_parameters(module)
    old = sizes_of(module)
    with whole_after_errors(module):
        with as_parameters(module):
            traced, found = look(module, inputs, scoring)
            kept = choose(found)
            plans = [
                (each.coupled, lowest(each.coupled, each.importance, width))
                for each in found
                if each.importance is not None
                and (width := kept.get(each.coupled.group.name, each.coupled.size)) < each.coupled.size
            ]
            order = {name: place for place, (name, _) in enumerate(module.named_modules())}
            found.sort(key=lambda each: order.get(each.coupled.group.name, 0))
            notes = [note for each in found if (each.whole is None or whole) and (note := _told(each, kept))]
            if not plans:
                raise ModelError(
                    f"pruning drops no channel of {type(module).__name__}: {what}",
                    found="; ".join(notes) or "every layer keeps its channels",
                    allowed="a share that drops at least a multiple of channels of a layer that nothing ties",
                    fix="a larger share, a smaller multiple, or fewer layers in keep",
                )
            with told(module, PRUNING):
                cut(traced, plans)
        see_that_it_runs(module, inputs, before, old, PRUNING)
    by = scoring.criterion if isinstance(scoring.criterion, str) else getattr(scoring.criterion, "__name__", "own")
    return [f"{what} dropped by {by}: {count_parameters(module):,} of {parameters:,} parameters kept", *notes]


def _told(each: Scored, kept: Mapping[str, int]) -> str | None:
    """What becomes of a group of channels, in words; None where it is whole by choice."""
    group, layers = each.coupled.group, each.coupled.givers or (each.coupled.group.name,)
    names = ", ".join(layers[:4]) + (f" and {len(layers) - 4} more" if len(layers) > 4 else "")
    if each.whole is not None:
        return f"{names}: all {group.count} channels stay: {each.whole}"
    width = kept.get(group.name, each.coupled.size) * each.coupled.parts
    return f"{names}: {width} of {group.count} channels kept" if width < group.count else None


def _of_part(each: Scored, path: str, width: int) -> int:
    """Channels of each part that a chosen width leaves."""
    parts, count = each.coupled.parts, each.coupled.group.count
    if each.whole is not None:
        raise ModelError(
            f"pruning: all {count} channels of {path} must stay",
            found=f"{each.whole}; a width of {width}",
            fix=f"leave {path} out",
        )
    least = each.least
    if not least * parts <= width <= count or width % parts:
        raise ModelError(
            f"pruning: {path} cannot keep {width} channels",
            found=f"{width} of {count}" + (f" in {parts} groups or heads" if parts > 1 else ""),
            allowed=f"{least * parts} to {count}" + (f", multiples of {parts}" if parts > 1 else ""),
        )
    return width // parts


def _same_widths(found: Sequence[Scored], chosen: Mapping[str, int]) -> None:
    """Refuses different widths where there must be one."""
    first: dict[int, Scored] = {}
    for each in found:
        if each.whole is not None:
            continue  # so are those of its width
        other = first.setdefault(each.width, each)
        a, b = (chosen.get(one.coupled.group.name, one.coupled.size) for one in (other, each))
        if a != b:
            raise ModelError(
                f"pruning: {other.coupled.group.name} and {each.coupled.group.name} must have one width",
                found=f"{a * other.coupled.parts} and {b * each.coupled.parts}",
                allowed="the same for the heads of an attention and the channels that go into it",
            )


def _no_layer(module: nn.Module, path: str, found: Sequence[Scored]) -> ModelError:
    known = [name for each in found for name in each.coupled.givers]
    return ModelError(
        f"pruning: {type(module).__name__} has no layer {path!r} that gives channels",
        found=repr(path),
        allowed=", ".join(known),
        fix=did_you_mean(path, known),
    )
