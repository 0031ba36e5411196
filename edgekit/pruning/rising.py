"""Zeros that a recipe asks for: all from the first step on, or a share that rises while a module is trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from edgekit.pruning.holding import Hold, held
from edgekit.pruning.masks import Masks, smallest, sparse
from edgekit.recipe_training import Sparse, Training

RISES = 100  # times that new masks are chosen, at most: sorting all weights at every step would cost more than the step


@contextmanager
def sparsely(module: nn.Module, settings: Sparse | None) -> Iterator[Rising | None]:
    """Holds the zeros that a recipe asks for while the block runs.

    Args:
        module: Changed in place, see :func:`edgekit.pruning.holding.held`.
        settings: None: there are no zeros.

    Returns:
        What makes the share rise, where it does.

    Raises:
        ModelError: There is nothing to mask, a weight is not finite, or a layer would lose all its weights.
        TrainingError: A path in ``dense`` names no module.
    """
    if settings is None:
        yield None
        return
    masks = sparse(module, share=settings.share, pattern=settings.pattern, scope=settings.scope, dense=settings.dense)
    if not settings.over:
        with held(module, masks):
            yield None
        return
    none = Masks(kept={name: torch.ones_like(kept) for name, kept in masks.kept.items()}, dense=masks.dense)
    with held(module, none) as hold:
        yield Rising(module, settings, hold)


class Rising:
    """A share of zeros that rises while a module is trained.

    M. Zhu, S. Gupta, "To prune, or not to prune: exploring the efficacy of pruning for model compression", 2017,
    equation 1, from nothing: after a part ``t`` of the rise the share is ``1 - (1 - t)^3`` of what it comes to. Weights
    that are zero stay so. What a checkpoint keeps of it are the masks and how often they were chosen.

    Args:
        module: What is trained.
        settings: With a share, and ``over`` above 0.
        hold: Masks of the module, without zeros yet.
    """

    def __init__(self, module: nn.Module, settings: Sparse, hold: Hold) -> None:
        self._module, self._settings, self._hold = module, settings, hold
        self._rises = 0

    def advance(self, done: float, copies: Sequence[nn.Module] = ()) -> None:
        """Chooses more zeros where it is time.

        Args:
            done: The part of the training that is done, 0 to 1.
            copies: Copies of the module that are to have the zeros too, such as its running mean.

        Raises:
            ModelError: A layer would lose all its weights.
        """
        rises = min(RISES, int(RISES * (done / self._settings.over)))
        if rises <= self._rises or not self._finite():
            return  # weights that are not finite have no order: what diverged is told where it is seen, by the loss
        share = share_after(self._settings, rises / RISES)
        settings = self._settings
        masks = smallest(self._module, share=share, scope=settings.scope, dense=settings.dense)
        self._hold.change(masks, copies)
        self._rises = rises

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"rises": self._rises, "kept": self._hold.kept}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes back what :meth:`state_dict` gave."""
        self._hold.change(Masks(kept=state["kept"], dense={}))
        self._rises = state["rises"]

    def _finite(self) -> bool:
        return all(bool(torch.isfinite(getattr(each.owner, each.attribute)).all()) for each in self._hold.layers)


def share_after(settings: Sparse, risen: float) -> float:
    """The share of zeros after a part of its rise, 0 to 1."""
    assert settings.share is not None  # what rises is a share
    return settings.share * (1 - (1 - risen) ** 3)


def early_epochs(settings: Training) -> int:
    """How many epochs of a training end before the share of zeros is what it comes to; their weights are not kept."""
    over = 0.0 if settings.sparse is None else settings.sparse.over
    return sum(epoch / settings.epochs < over for epoch in range(1, settings.epochs))
