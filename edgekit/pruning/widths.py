"""How many channels each layer keeps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Choice:
    """Channels of which some may be dropped.

    Attributes:
        importance: Of every channel, ``[count]``, 0 or more.
        parts: Parts of equal size that they are in.
        multiple: Of which the number of channels that are kept is one.
        width: A number that those share which must have one width.
        least: Channels of each part that are kept in any case.
    """

    importance: Tensor
    parts: int
    multiple: int
    width: int
    least: int = 1

    @property
    def size(self) -> int:
        """Channels in each part."""
        return len(self.importance) // self.parts

    def relative(self) -> Tensor:
        """Importance of what can be dropped at once, one channel of each part, over its mean; ascending, ``[size]``."""
        units = self.importance.view(self.parts, self.size).sum(0).sort().values
        mean = float(units.mean())
        return units / mean if mean else units


def allowed_widths(count: int, parts: int, multiple: int) -> list[int]:
    """How many channels may be kept of each part, ascending: all, or so many that the whole is a multiple."""
    size, step = count // parts, multiple // math.gcd(multiple, parts)
    return [*range(step, size, step), size]


def by_layer(choices: Sequence[Choice], share: float) -> list[int]:
    """Channels of each part that are kept where the same share is dropped everywhere, rounded to what is allowed."""
    return [_nearest(choice, choice.size * (1 - share)) for choice in choices]


def over_all(choices: Sequence[Choice], share: float) -> list[int]:
    """Channels of each part that are kept where those of the least importance are dropped, wherever they are.

    The importance of a layer's channels is divided by their mean, so that layers compare: P. Molchanov et al., "Pruning
    Convolutional Neural Networks for Resource Efficient Inference", ICLR 2017, section 2.2 (there by their norm); G.
    Fang et al., "DepGraph", CVPR 2023. No layer goes below the least that is allowed; rounding to multiples comes last.

    Args:
        choices: The layers; those of one width have as many channels, in as many parts.
        share: Of all their channels that is dropped.
    """
    together: dict[int, list[Choice]] = {}
    for choice in choices:
        together.setdefault(choice.width, []).append(choice)
    ranked = sorted(
        (float(value), number)
        for number, same in together.items()
        for value in torch.stack([choice.relative() for choice in same]).mean(0)
    )
    kept = {number: same[0].size for number, same in together.items()}
    least = {number: max(_allowed(choice)[0] for choice in same) for number, same in together.items()}
    rest = share * sum(len(choice.importance) for choice in choices)
    for _, number in ranked:
        cost = sum(choice.parts for choice in together[number])
        if kept[number] > least[number] and rest >= cost / 2:
            kept[number] -= 1
            rest -= cost
    return [_nearest(choice, kept[choice.width]) for choice in choices]


SCOPES = {"layer": by_layer, "global": over_all}


def nearest_width(count: int, parts: int, multiple: int, width: float, least: int = 1) -> int:
    """The width of each part that is allowed and nearest; of two the larger.

    Args:
        count: Channels of all parts together.
        parts: Parts of equal size that they are in.
        multiple: Of which the number of channels that are kept is one, unless all are.
        width: Channels of each part that are wanted.
        least: Channels of each part that are kept in any case.
    """
    allowed = [each for each in allowed_widths(count, parts, multiple) if each >= least]
    return min(allowed, key=lambda each: (abs(each - width), -each))


def _nearest(choice: Choice, width: float) -> int:
    return nearest_width(len(choice.importance), choice.parts, choice.multiple, width, choice.least)


def _allowed(choice: Choice) -> list[int]:
    """The widths of each part that leave what must stay."""
    widths = allowed_widths(len(choice.importance), choice.parts, choice.multiple)
    return [width for width in widths if width >= choice.least]
