"""Sizes of layers, and modules that remember them: what must be renewed when channels are dropped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

# What modules of attention call the number of their heads.
HEADS = ("num_heads", "num_attention_heads", "n_heads", "n_head", "nhead", "num_head", "heads")

Sizes = Mapping[nn.Module, tuple[int, ...]]


def sizes_of(module: nn.Module) -> dict[nn.Module, tuple[int, ...]]:
    """How many channels every layer takes and gives; of a user's module with vectors of its own, how long they are."""
    found = {part: _sizes(part) or _own_sizes(part) for part in module.modules()}
    return {part: sizes for part, sizes in found.items() if sizes}


def _sizes(part: nn.Module) -> tuple[int, ...]:
    if isinstance(part, nn.Linear):
        return part.in_features, part.out_features
    if isinstance(part, _ConvNd):
        return part.in_channels, part.out_channels
    if isinstance(part, nn.Embedding):
        return (part.embedding_dim,)
    if isinstance(part, nn.MultiheadAttention):
        return (part.embed_dim,)
    if isinstance(part, _NormBase):
        return (part.num_features,)
    if isinstance(part, nn.LayerNorm):
        return (part.normalized_shape[-1],)
    return ()


def _own_sizes(part: nn.Module) -> tuple[int, ...]:
    """Lengths of the vectors that a user's module holds itself, such as the scales of a branch."""
    if type(part).__module__.startswith("torch."):
        return ()
    return tuple(len(value) for value in part._parameters.values() if value is not None and value.ndim == 1)


def attention_of(module: nn.Module) -> dict[nn.Module, int]:
    """Heads by linear layer, of attention that a user wrote: linear layers in a module that knows of heads."""
    return {layer: heads for heads, layers in attentions(module) for layer in layers}


def attentions(module: nn.Module) -> list[tuple[int, list[nn.Module]]]:
    """Heads and linear layers of each attention that a user wrote."""
    found = []
    for part in module.modules():
        heads = _heads(part)
        layers = [child for child in part.children() if isinstance(child, nn.Linear)]
        if heads and layers and all(size % heads == 0 for layer in layers for size in _sizes(layer)):
            found.append((heads, layers))
    return found


def _heads(part: nn.Module) -> int:
    if type(part).__module__.startswith("torch."):
        return 0  # torch's own attention is known as it is
    counts = [vars(part)[name] for name in HEADS if type(vars(part).get(name)) is int]
    return counts[0] if counts and counts[0] > 0 else 0


def renew_attention(module: nn.Module, old: Sizes) -> None:
    """Renews the sizes that modules of attention and normalisation remember.

    A stale size of a head would often run all the same, with other heads than were meant.
    """
    for part in module.modules():
        if _heads(part):
            _renew(part, old)
        shape, weight = vars(part).get("normalized_shape"), getattr(part, "weight", None)
        if isinstance(shape, tuple) and weight is not None and len(shape) == weight.ndim == 1:
            part.normalized_shape = tuple(weight.shape)


def renew_others(module: nn.Module, old: Sizes) -> bool:
    """Renews the sizes that any other module of a user's remembers; whether there were some."""
    found = [_renew(part, old) for part in module.modules() if not type(part).__module__.startswith("torch.")]
    return any(found)


def _renew(part: nn.Module, old: Sizes) -> bool:
    """Sets integers of a module that were a size of one of its layers to what the size is now, shapes likewise."""
    new, heads = sizes_of(part), _heads(part)
    layers = [child for child in part.children() if _sizes(child)]
    pairs = {pair for child in layers for pair in zip(old[child], new[child], strict=True)}
    if heads:
        pairs |= {(a // heads, b // heads) for a, b in pairs if a % heads == 0 and b % heads == 0}
    changes = _changes(pairs)
    stale = {
        name: changes[value]
        for name, value in vars(part).items()
        if name not in HEADS and not name.startswith("_") and type(value) is int and value in changes
    }
    if part in new and not _sizes(part):
        stale |= _stale_shapes(part, _changes(set(zip(old[part], new[part], strict=True))))
    for name, value in stale.items():
        setattr(part, name, value)
    return bool(stale)


def _changes(pairs: set[tuple[int, int]]) -> dict[int, int]:
    """From sizes that were to what they are now, where that is one thing and another than before."""
    before = [a for a, _ in pairs]
    return {a: b for a, b in pairs if a != b and before.count(a) == 1}


def _stale_shapes(part: nn.Module, changes: Mapping[int, int]) -> dict[str, Any]:
    """Shapes such as ``(64, 1, 1)`` that a module gives to a vector of its own, as they must be now."""
    found: dict[str, Any] = {}
    for name, value in vars(part).items():
        if isinstance(value, (tuple, list)) and value and all(type(size) is int for size in value):
            long = [size for size in value if size != 1]
            if len(long) == 1 and long[0] in changes:
                found[name] = type(value)(changes.get(size, size) if size != 1 else 1 for size in value)
    return found
