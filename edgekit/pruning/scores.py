"""Every group of channels of a module, with its importance or with what keeps it whole."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from edgekit.errors import ModelError, did_you_mean
from edgekit.pruning.channels import PRUNING, Traced, as_parameters, told, trace
from edgekit.pruning.criteria import NO_EVIDENCE, Criterion, Evidence, score
from edgekit.pruning.cutting import whole_after_errors
from edgekit.pruning.groups import Coupled, coupled, half_followed, of_one_width, side_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Channels:
    """Channels that go together, as a criterion sees them.

    Attributes:
        name: Path of the first layer that gives them.
        layers: Paths of all layers that give them or hand them on.
        count: Number of channels.
        parts: In how many groups of a convolution, or heads, they are; as many are dropped of each.
        importance: Of every channel; None where all stay.
        whole: Why they all stay, with the layer or operation that ties them; None where they may be dropped.
        width: A number that it shares with those that must have the same width: heads and stream of an attention.
    """

    name: str
    layers: tuple[str, ...]
    count: int
    parts: int
    importance: tuple[float, ...] | None
    whole: str | None
    width: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Scoring:
    """How channels are scored; as of :func:`edgekit.pruning.structured.prune_channels`."""

    criterion: str | Criterion
    evidence: Evidence
    multiple: int
    keep: Sequence[str]
    base: Path | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Scored:
    """A group of channels with what is known of it.

    Attributes:
        coupled: The group.
        importance: Of every channel, ``[count]``; None where all stay.
        whole: Why they all stay; None where they may be dropped.
        width: As of :class:`Channels`.
    """

    coupled: Coupled
    importance: Tensor | None
    whole: str | None
    width: int


def score_channels(
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    *,
    criterion: str | Criterion = "l2",
    multiple: int = 1,
    keep: Sequence[str] = (),
    evidence: Evidence = NO_EVIDENCE,
    base: Path | None = None,
) -> list[Channels]:
    """How much every channel of a module counts; nothing of the module changes.

    Arguments and errors are those of :func:`edgekit.pruning.structured.prune_channels`.

    Returns:
        Groups of channels in the order of the module's layers.
    """
    scoring = Scoring(criterion=criterion, evidence=evidence, multiple=multiple, keep=keep, base=base)
    check(module, scoring)
    with whole_after_errors(module), as_parameters(module):
        _, found = look(module, inputs, scoring)
    order = {name: place for place, (name, _) in enumerate(module.named_modules())}
    return [
        Channels(
            name=each.coupled.group.name,
            layers=each.coupled.givers,
            count=each.coupled.group.count,
            parts=each.coupled.parts,
            importance=None if each.importance is None else tuple(each.importance.tolist()),
            whole=each.whole,
            width=each.width,
        )
        for each in sorted(found, key=lambda each: order.get(each.coupled.group.name, 0))
    ]


def check(module: nn.Module, scoring: Scoring) -> None:
    """Refuses scoring that are wrong whatever the channels are.

    Raises:
        ModelError: The multiple is no whole number of 1 or more, or there is no such layer to keep.
    """
    if type(scoring.multiple) is not int or scoring.multiple < 1:
        raise ModelError(
            "pruning: the multiple of channels is a whole number", found=repr(scoring.multiple), allowed="1 or more"
        )
    names = [name for name, _ in module.named_modules() if name]
    for name in scoring.keep:
        if name not in names:
            raise ModelError(
                f"pruning: keep names no layer of {type(module).__name__}",
                found=repr(name),
                allowed=", ".join(names) or "nothing: it has no layers",
                fix=did_you_mean(name, names),
            )


def look(module: nn.Module, inputs: Mapping[str, Tensor], scoring: Scoring) -> tuple[Traced, list[Scored]]:
    """Finds and scores the channels that go together.

    Args:
        module: Its parameters take gradients (see :func:`edgekit.pruning.channels.as_parameters`).
        inputs: A batch.
        scoring: How.

    Raises:
        EdgeKitError: As of :func:`edgekit.pruning.structured.prune_channels`.
    """
    traced = trace(module, inputs)
    with told(module, PRUNING):
        groups = coupled(traced)
    widths, whole = of_one_width(groups, module), [_whole(each, scoring) for each in groups]
    unknown = half_followed(groups)
    for i, each in enumerate(groups):
        whole[i] = whole[i] or next(
            (unknown[side] for m in each.group.members if (side := side_of(m)) in unknown), None
        )
    free = [i for i, why in enumerate(whole) if why is None]
    scores = score(module, [groups[i].group for i in free], scoring.criterion, scoring.evidence, scoring.base)
    importance = dict(zip(free, scores, strict=True))
    for i, value in importance.items():
        if value is None:
            whole[i] = "the criterion says nothing of them"
    whole = [why or _with_others(i, groups, widths, whole) for i, why in enumerate(whole)]
    found = [
        Scored(coupled=each, importance=None if whole[i] else importance[i], whole=whole[i], width=widths[i])
        for i, each in enumerate(groups)
    ]
    return traced, found


def _whole(each: Coupled, scoring: Scoring) -> str | None:
    """Why all channels of a group stay, in words; None where they may be dropped."""
    count, parted = each.group.count, ", ".join(each.parted)
    for name in scoring.keep:
        if any(layer == name or layer.startswith(f"{name}.") for layer in each.givers):
            return f"{name} is in keep"
    if each.tied is not None or each.misfit is not None:
        return each.tied or each.misfit
    if not each.fits:
        return f"the groups and heads of {parted} do not divide {count} channels into {each.parts} equal parts"
    if each.size == 1:
        return f"each group or head of {parted} has one channel" if parted else "there is one channel"
    together = math.lcm(scoring.multiple, each.parts)
    if together > count:
        of = f", {together} with the groups and heads of {parted}," if together > scoring.multiple else ""
        return f"a multiple of {scoring.multiple} channels{of} is more than all {count}"
    return None


def _with_others(
    number: int, groups: Sequence[Coupled], widths: Sequence[int], whole: Sequence[str | None]
) -> str | None:
    """Why the channels of a group stay that must have the width of another one."""
    for other, each in enumerate(groups):
        if widths[other] == widths[number] and whole[other] is not None:
            return f"they have the width of {each.group.name}, where {whole[other]}"
    return None
