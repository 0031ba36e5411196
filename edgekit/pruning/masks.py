"""Which weights become zero: a share of the smallest, or all but N of every M."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from edgekit.distillation.parameters import module_at
from edgekit.errors import ModelError, SpecError

_SHOWN = 5  # layers in a message


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Masks:
    """Which weights of a module stay.

    Attributes:
        kept: Of every masked weight a boolean tensor of its shape, True where it stays, by parameter path, e.g.
            ``layer1.0.conv1.weight``.
        dense: Why a weight is left whole, by parameter path.
    """

    kept: Mapping[str, Tensor]
    dense: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSparsity:
    """How many of a layer's weights are zero.

    Attributes:
        name: Parameter path, e.g. ``layer1.0.conv1.weight``.
        zeros: Weights that are zero.
        weights: All of them.
    """

    name: str
    zeros: int
    weights: int

    @property
    def share(self) -> float:
        """Zeros among the weights, 0 to 1."""
        return self.zeros / self.weights if self.weights else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sparsity:
    """How many weights of a module are zero: those of the layers that could be masked, without biases and norms.

    Attributes:
        layers: Layer by layer, in the module's order.
    """

    layers: tuple[LayerSparsity, ...]

    @property
    def zeros(self) -> int:
        """Weights that are zero, of all layers."""
        return sum(layer.zeros for layer in self.layers)

    @property
    def weights(self) -> int:
        """Weights of all layers."""
        return sum(layer.weights for layer in self.layers)

    @property
    def share(self) -> float:
        """Zeros among the weights of all layers, 0 to 1."""
        return self.zeros / self.weights if self.weights else 0.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Weight:
    """A matrix of weights; ``value`` is None where the module computes it from other parameters."""

    name: str
    value: nn.Parameter | None
    input_dim: int


def sparse(
    module: nn.Module,
    *,
    share: float | None = None,
    pattern: Sequence[int] | None = None,
    scope: Literal["global", "layer"] = "global",
    dense: Sequence[str] = (),
) -> Masks:
    """Chooses which weights are to be zero: those of the smallest magnitude.

    The module stays as it is; :func:`edgekit.pruning.holding.held` makes them zero.

    A share of all: S. Han et al., "Learning both Weights and Connections for Efficient Neural Networks", NIPS 2015.
    N of every M consecutive weights along the input dimension: A. Mishra et al., "Accelerating Sparse Deep Neural
    Networks", 2021; for a convolution these are input channels at one place of its kernel. Chosen are weights of
    linear, convolutional, attention and recurrent layers, no biases, norms or embeddings. A weight that several layers
    share is masked once, for all of them. Weights that are zero already go first, so a larger share contains a smaller.

    Zeros make a file that is compressed smaller. They make nothing faster but on an engine with kernels for them, such
    as 2:4 on a GPU with sparse tensor cores.

    Args:
        module: On any device; its weights must be finite.
        share: Of the weights that become zero, above 0 and below 1.
        pattern: ``(N, M)``: N of M weights stay, ``1 <= N < M``. A weight whose input dimension (of a grouped
            convolution: that of one group) is no multiple of M is left dense.
        scope: Where the weights of a share are ranked: over all layers together, or ``layer`` by layer.
        dense: Module paths whose weights stay as they are.

    Raises:
        SpecError: Neither or both of ``share`` and ``pattern`` are given, or one has no sensible value.
        TrainingError: A path in ``dense`` names no module.
        ModelError: There is nothing to mask, a weight is not finite, or a layer would lose all its weights.
    """
    masks = smallest(module, share=share, pattern=pattern, scope=scope, dense=dense)
    if all(mask.all() for mask in masks.kept.values()):
        raise ModelError(
            f"share = {share} makes no weight of {type(module).__name__} zero",
            found=f"{sum(mask.numel() for mask in masks.kept.values())} weights in {len(masks.kept)} layers",
            allowed="a share of at least one weight",
        )
    return masks


def smallest(
    module: nn.Module,
    *,
    share: float | None = None,
    pattern: Sequence[int] | None = None,
    scope: Literal["global", "layer"] = "global",
    dense: Sequence[str] = (),
) -> Masks:
    """As :func:`sparse`, but a share of less than a weight makes masks without zeros."""
    _check_settings(share, pattern, scope)
    weights = {weight.name: weight for weight in _weights(module)}
    stay = {parameter for path in dense for parameter in module_at(module, path, "dense").parameters()}
    whole = {name: why for name, weight in weights.items() if (why := _why_dense(weight, pattern, stay)) is not None}
    values = {name: _magnitudes(weight) for name, weight in weights.items() if name not in whole}
    _check_values(module, values, whole, pattern)
    if pattern is not None:
        kept = {name: _largest_of(value, *pattern) for name, value in values.items()}
    elif scope == "layer":
        kept = {name: _largest([value], share)[0] for name, value in values.items()}
    else:
        kept = dict(zip(values, _largest(list(values.values()), share), strict=True))
    _check_left(kept, share, scope)
    kept = {name: mask.movedim(-1, weights[name].input_dim).contiguous() for name, mask in kept.items()}
    return Masks(kept=kept, dense=whole)


def sparsity_of(module: nn.Module) -> Sparsity:
    """Counts the zeros among the weights that :func:`sparse` could mask."""
    return Sparsity(
        layers=tuple(
            LayerSparsity(name=weight.name, zeros=int((weight.value == 0).sum()), weights=weight.value.numel())
            for weight in _weights(module)
            if weight.value is not None and not nn.parameter.is_lazy(weight.value)
        )
    )


def zeros_of(module: nn.Module) -> Masks:
    """Masks of the weights that are zero already; layers without zeros have none."""
    values = {weight.name: weight.value for weight in _weights(module) if weight.value is not None}
    return Masks(kept={name: value != 0 for name, value in values.items() if bool((value == 0).any())}, dense={})


def filled(module: nn.Module, seed: int = 0) -> nn.Module:
    """A copy with random weights, as large as the others of their layer, in place of zeros: for timing alone."""
    twin = copy.deepcopy(module)
    generator = torch.Generator().manual_seed(seed)
    for weight in _weights(twin):
        if weight.value is None or nn.parameter.is_lazy(weight.value):
            continue
        value = weight.value.data
        drawn = torch.randn(value.shape, generator=generator).to(value) * value.std()
        weight.value.data = torch.where(value == 0, drawn, value)
    return twin


def _weights(module: nn.Module) -> Iterator[_Weight]:
    """All weights that can be masked, each once."""
    seen: set[nn.Parameter] = set()
    for path, part in module.named_modules():
        for attribute, dim in _matrices(part):
            value = part._parameters.get(attribute)
            if value is not None and value in seen:
                continue
            if value is not None:
                seen.add(value)
            yield _Weight(name=f"{path}.{attribute}" if path else attribute, value=value, input_dim=dim)


def _matrices(part: nn.Module) -> list[tuple[str, int]]:
    """Names of a layer's own matrices of weights, each with its input dimension."""
    if isinstance(part, (nn.Linear, _ConvNd)):
        return [("weight", 0 if isinstance(part, _ConvTransposeNd) else 1)]
    if isinstance(part, nn.MultiheadAttention):
        names = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
        return [(name, 1) for name in names if part._parameters.get(name) is not None]
    if isinstance(part, (nn.RNNBase, nn.RNNCellBase)):
        return [(name, 1) for name in part._parameters if name.startswith("weight_")]
    return []


def _why_dense(weight: _Weight, pattern: Sequence[int] | None, stay: set[nn.Parameter]) -> str | None:
    """Why a weight is not masked, or None."""
    if weight.value is None:
        return "computed from other parameters"
    if weight.value in stay:
        return "named in dense"
    if nn.parameter.is_lazy(weight.value):
        return "not initialised before a first batch"
    inputs = weight.value.shape[weight.input_dim]
    if pattern is not None and inputs % pattern[1]:
        return f"input dimension {inputs} is no multiple of {pattern[1]}"
    return None


def _magnitudes(weight: _Weight) -> Tensor:
    """Magnitudes of weights on the CPU, their input dimension last, where N:M counts."""
    assert weight.value is not None
    value = weight.value.detach().abs().cpu()
    return value.to(torch.promote_types(value.dtype, torch.float32)).movedim(weight.input_dim, -1)


def _check_settings(share: object, pattern: object, scope: object) -> None:
    if (share is None) == (pattern is None):
        raise SpecError(
            "what is to be sparse is not told" if share is None else "share and pattern do not go together",
            found="neither share nor pattern" if share is None else f"share = {share}, pattern = {pattern}",
            allowed="one of share = 0.5 and pattern = (2, 4)",
        )
    if share is not None and (isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share < 1):
        raise SpecError(
            "share is not a share of weights that become zero", found=repr(share), allowed="above 0 and below 1"
        )
    numbers = list(pattern) if isinstance(pattern, (tuple, list)) else []
    if pattern is not None and (
        len(numbers) != 2 or any(type(number) is not int for number in numbers) or not 1 <= numbers[0] < numbers[1]
    ):
        raise SpecError(
            "pattern is not N of M",
            found=repr(pattern),
            allowed="two whole numbers (N, M), 1 <= N < M, such as (2, 4): of every 4 weights 2 stay",
        )
    if scope not in ("global", "layer"):
        raise SpecError("scope names no way to rank weights", found=repr(scope), allowed="'global' or 'layer'")


def _check_values(
    module: nn.Module, values: Mapping[str, Tensor], whole: Mapping[str, str], pattern: Sequence[int] | None
) -> None:
    if not values:
        reasons = [f"{name}: {why}" for name, why in whole.items()]
        more = [f"and {len(reasons) - _SHOWN} more"] if len(reasons) > _SHOWN else []
        raise ModelError(
            f"{type(module).__name__} has no weights to mask",
            found="; ".join([*reasons[:_SHOWN], *more]) or "no linear, convolutional, attention or recurrent layer",
            allowed="at least one layer" + (f" with inputs by the {pattern[1]}" if pattern else ""),
        )
    for name, value in values.items():
        if not torch.isfinite(value).all():
            raise ModelError(
                f"{name} has NaN or infinity: its weights have no order",
                found=f"{int((~torch.isfinite(value)).sum())} of {value.numel()} weights",
                allowed="finite weights",
            )


def _check_left(kept: Mapping[str, Tensor], share: float | None, scope: str) -> None:
    """A layer without weights gives the same whatever goes in."""
    empty = [name for name, mask in kept.items() if not mask.any()]
    if empty:
        raise ModelError(
            f"share = {share} leaves nothing of {empty[0]}",
            found=f"{len(empty)} of {len(kept)} layers without a weight: {', '.join(empty[:_SHOWN])}",
            allowed="a share that leaves a weight in every layer",
            fix="a smaller share" + (", scope = 'layer', or name it in dense" if scope == "global" else ""),
        )


def _largest(values: Sequence[Tensor], share: float | None) -> list[Tensor]:
    """Masks without the smallest share of all values together; among equals the first go."""
    assert share is not None
    flat = torch.cat([value.flatten() for value in values])
    kept = torch.ones_like(flat, dtype=torch.bool)
    kept[torch.argsort(flat, stable=True)[: math.floor(len(flat) * share + 0.5)]] = False
    parts = kept.split([value.numel() for value in values])
    return [part.view(value.shape) for value, part in zip(values, parts, strict=True)]


def _largest_of(value: Tensor, n: int, m: int) -> Tensor:
    """A mask of the ``n`` largest of every ``m`` along the last dimension; among equals the first stay."""
    groups = value.unflatten(-1, (-1, m))
    places = torch.argsort(groups, dim=-1, descending=True, stable=True)[..., :n]
    return torch.zeros_like(groups, dtype=torch.bool).scatter_(-1, places, True).flatten(-2)
