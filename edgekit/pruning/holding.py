"""Weights held at zero through training, which then are plain zeros."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from edgekit.errors import ModelError
from edgekit.pruning.masks import Masks, zeros_of


class Hold:
    """Masks that are held, see :func:`held`; others may take their place."""

    def __init__(self, module: nn.Module, masks: Masks) -> None:
        self._module = module
        self._layers = [_Layer(module, name, kept) for name, kept in masks.kept.items()]

    @property
    def layers(self) -> Sequence[_Layer]:
        """The masked weights."""
        return self._layers

    @property
    def kept(self) -> dict[str, Tensor]:
        """The masks that are held now, as of :class:`edgekit.pruning.masks.Masks`."""
        return {layer.name: layer.kept for layer in self._layers}

    def change(self, masks: Masks, copies: Sequence[nn.Module] = ()) -> None:
        """Holds other masks from now on.

        Args:
            masks: Of the same weights.
            copies: Copies of the module that are zeroed too, such as its running mean, whose weights at new zeros would
                fade but slowly.
        """
        for layer in self._layers:
            layer.take(masks.kept[layer.name])
            for whole in copies:
                layer.zero(whole.get_submodule(layer.path))
        self.zero_all()

    def zero_all(self) -> None:
        """Zeroes all masked weights.

        Raises:
            ModelError: A masked layer was replaced meanwhile.
        """
        for layer in self._layers:
            layer.check_there(self._module)
            layer.zero(layer.owner)


@contextmanager
def held(module: nn.Module, masks: Masks) -> Iterator[Hold]:
    """Zeroes the masked weights and holds them at zero while the block runs; after it the module is plain and sparse.

    They are exactly zero after every step of any ``torch.optim`` optimizer, whatever its momentum or weight decay,
    after ``load_state_dict`` of any weights, and so in every running mean; their gradients are zero, so that clipping
    does not count them. A deep copy made meanwhile has the zeros and keeps them when weights are loaded into it; to
    train it too, hold it as well. Frozen weights are zeroed like the others.

    Args:
        module: Changed in place; it may move to another device meanwhile.
        masks: Of :func:`edgekit.pruning.masks.sparse`, of this module or of one with the same layers.

    Raises:
        ModelError: A mask is of a weight that is not here, or of another shape; or, in a step, a masked layer was
            replaced meanwhile.
    """
    # The parameters stay plain and are zeroed in place, for then the keys of state dicts and checkpoints, deep copies
    # and torch.export know nothing of masks. torch.nn.utils.parametrize renames every weight to "….original", which
    # takes no plain weights, and keeps dense weights behind the zeros that decay and running means go on with.
    hold = Hold(module, masks)
    hold.zero_all()
    with ExitStack() as stack:
        for layer in hold.layers:
            parameter = getattr(layer.owner, layer.attribute)
            if parameter.requires_grad:
                stack.callback(parameter.register_post_accumulate_grad_hook(layer.zero_gradient).remove)
            after_load = _AfterLoad(layer)
            stack.callback(layer.owner.register_load_state_dict_post_hook(after_load).remove)
            stack.callback(after_load.let_go)
        stack.callback(register_optimizer_step_post_hook(lambda *_: hold.zero_all()).remove)
        yield hold
    hold.zero_all()


@contextmanager
def zeros_held(module: nn.Module) -> Iterator[None]:
    """Holds the weights at zero that are zero now, while the block runs."""
    with held(module, zeros_of(module)):
        yield


class _Layer:
    """One masked weight: where it is, and which places of it are zero."""

    def __init__(self, module: nn.Module, name: str, kept: Tensor) -> None:
        self.name, self.kept, self.dropped = name, kept, ~kept
        self.path, _, self.attribute = name.rpartition(".")
        parts = dict(module.named_modules())
        parameter = parts[self.path]._parameters.get(self.attribute) if self.path in parts else None
        if parameter is None or parameter.shape != kept.shape:
            raise ModelError(
                f"the masks are not of this {type(module).__name__}: {name} does not fit",
                found="no such parameter" if parameter is None else f"shape {list(parameter.shape)}",
                allowed=f"shape {list(kept.shape)}, as the mask",
                fix="choose the masks on the module that is trained",
            )
        self.owner: nn.Module = parts[self.path]

    def take(self, kept: Tensor) -> None:
        """Takes another mask of the same weight."""
        self.kept, self.dropped = kept, ~kept

    def zero(self, owner: nn.Module) -> None:
        """Zeroes the weights of the layer, or of a copy of it."""
        with torch.no_grad():
            self._fill(getattr(owner, self.attribute))

    def zero_gradient(self, parameter: nn.Parameter) -> None:
        """Zeroes the gradient of the masked weights."""
        if parameter.grad is not None:
            with torch.no_grad():
                self._fill(parameter.grad)

    def check_there(self, module: nn.Module) -> None:
        """Sees that the layer is still the one at its path."""
        try:
            there = module.get_submodule(self.path) is self.owner
            there = there and getattr(self.owner, self.attribute).shape == self.kept.shape
        except AttributeError:
            there = False
        if not there:
            raise ModelError(
                f"{self.name}: the layer was replaced while its mask was held",
                found="another layer, or none, at its path",
                allowed="the layer that the mask was chosen on",
                fix="put on a new head, and change layers, before the masks are chosen",
            )

    def _fill(self, tensor: Tensor) -> None:
        if self.dropped.device != tensor.device:
            self.dropped = (~self.kept).to(tensor.device)
        tensor.masked_fill_(self.dropped, 0)  # a product would leave -0, and NaN of infinity


class _AfterLoad:
    """Zeroes a layer's masked weights after weights were loaded into it or into a copy, until they are let go."""

    def __init__(self, layer: _Layer) -> None:
        self._layer: _Layer | None = layer

    def __call__(self, owner: nn.Module, _keys: Any) -> None:
        if self._layer is not None:
            self._layer.zero(owner)

    def __deepcopy__(self, _memo: Any) -> _AfterLoad:
        return self  # so that a copy's is let go with it

    def let_go(self) -> None:
        """Does nothing from now on."""
        self._layer = None
