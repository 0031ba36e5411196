"""Channels that go together: which layers they belong to, in how many parts they are, and what ties them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from edgekit.pruning.channels import Traced
from edgekit.pruning.sizes import attentions


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Member:
    """A layer that channels of a group belong to.

    Attributes:
        name: Path of the layer.
        layer: The layer.
        takes: Whether it takes the channels, rather than gives them or hands them on.
        own: Their numbers in the layer, ``[k]``.
        shared: Which of the group's channels they are, ``[k]``; of flattened ones several are the same.
    """

    name: str
    layer: nn.Module
    takes: bool
    own: Tensor
    shared: Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Group:
    """What is scored together: the channels of some layers, or a block (one channel that is all of its layers).

    Attributes:
        name: Path of the first layer that gives them or hands them on, or of the block.
        count: Number of channels.
        members: The layers that they belong to.
    """

    name: str
    count: int
    members: tuple[Member, ...]

    def summed(self, member: Member, values: Tensor) -> Tensor:
        """Sums values of one of its layers, ``[channels of the layer]``, into its own channels, ``[count]``."""
        total = torch.zeros(self.count, dtype=torch.float64)
        return total.index_add_(0, member.shared, values.detach().double().cpu()[member.own])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Coupled:
    """A group of channels with what a cut must know of it.

    Attributes:
        group: The channels.
        root: Path of the layer that a cut begins at.
        givers: Paths of the layers that give them or hand them on, in the module's order.
        parts: In how many parts of equal size they are: groups of convolutions and of norms, heads of attention.
        parted: Paths of the layers that have such parts.
        tied: What keeps all of them, in words; None where they may be dropped.
        recurrent: Paths of the recurrent layers they go through.
        dep: The dependency of torch_pruning that a cut begins at.
    """

    group: Group
    root: str
    givers: tuple[str, ...]
    parts: int
    parted: tuple[str, ...]
    tied: str | None
    recurrent: tuple[str, ...]
    dep: Any

    @property
    def size(self) -> int:
        """Channels in each part."""
        return self.group.count // self.parts

    @property
    def fits(self) -> bool:
        """Whether all parts can have the same size."""
        return self.group.count % self.parts == 0


def coupled(traced: Traced) -> list[Coupled]:
    """Every group of channels of a module that go together."""
    graph = traced.graph
    found = graph.get_all_groups(root_module_types=(_ConvNd, nn.Linear, nn.Embedding))
    return [_coupled(traced, _rooted(traced, group)) for group in found]


def of_one_width(groups: Sequence[Coupled], module: nn.Module) -> list[int]:
    """Which groups of channels have one width: those of one size that an attention of a user's goes through.

    Such modules often take the width of the heads together for that of the stream.

    Returns:
        A number for each group, the same one for those of one width.
    """
    label = list(range(len(groups)))
    for _, layers in attentions(module):
        inside = [i for i, each in enumerate(groups) if any(member.layer in layers for member in each.group.members)]
        for i in inside:
            for j in inside:
                if (groups[i].group.count, groups[i].parts) == (groups[j].group.count, groups[j].parts):
                    low, high = sorted((label[i], label[j]))
                    label = [low if number == high else number for number in label]
    return label


def lowest(importance: Tensor, parts: int, kept: int) -> list[int]:
    """The channels of the least importance, ``[count]``, as many and the same ones in each part.

    Args:
        importance: Of every channel.
        parts: Parts of equal size that the channels are in.
        kept: Channels of each part that are kept.
    """
    size = len(importance) // parts
    least = torch.argsort(importance.view(parts, size).sum(0), stable=True)[: size - kept].tolist()
    return sorted(part * size + i for part in range(parts) for i in least)


def _coupled(traced: Traced, group: Any) -> Coupled:
    parts, parted, givers, recurrent, tied = 1, [], [], [], None
    for dep, _ in group.items:
        layer = dep.target.module
        name = traced.names.get(id(layer))
        count = _parts(traced, dep)
        parts = math.lcm(parts, count)
        if count > 1 and name:
            parted.append(name)
        if name and _gives(traced, dep):
            givers.append(name)
        if id(layer) in traced.whole and (_gives(traced, dep) or isinstance(layer, nn.RNNBase)):
            tied = tied or _tie(traced, dep)
    if tied:
        held = {id(dep.target.module) for dep, _ in group.items}
        recurrent = sorted({name for key, name in traced.recurrent.items() if key in held})
    members = tuple(_members(traced, group))
    order = {name: place for place, name in enumerate(traced.names.values())}
    givers.sort(key=order.__getitem__)
    root = traced.names.get(id(group.items[0].dep.target.module), "a layer")
    return Coupled(
        group=Group(name=givers[0] if givers else root, count=len(group.items[0].idxs), members=members),
        root=root,
        givers=tuple(dict.fromkeys(givers)),
        parts=parts,
        parted=tuple(dict.fromkeys(parted)),
        tied=tied,
        recurrent=tuple(recurrent),
        dep=group.items[0].dep,
    )


def _members(traced: Traced, group: Any) -> list[Member]:
    return [
        Member(
            name=traced.names[id(item.dep.target.module)],
            layer=item.dep.target.module,
            takes=item.dep.handler.__name__ == "prune_in_channels",
            own=torch.tensor(item.idxs),
            shared=torch.tensor(item.root_idxs),
        )
        for item in group.items
        if id(item.dep.target.module) in traced.names and all(root is not None for root in item.root_idxs)
    ]


def _gives(traced: Traced, dep: Any) -> bool:
    """Whether a dependency is about the channels that something gives."""
    return bool(traced.graph.is_out_channel_pruning_fn(dep.handler))


def _tie(traced: Traced, dep: Any) -> str:
    """What ties a group that keeps all its channels: the layer or operation, and what it ties it to."""
    node, held = dep.target, traced.whole[id(dep.target.module)]
    if id(node.module) in traced.recurrent:
        return f"it goes through {held}"
    if id(node.module) in traced.names:
        return f"{traced.names[id(node.module)]} gives {held}"
    for tie in (dep.source, node) if held == "the model's input" else (node, dep.source):
        operator = _operator(tie)
        if operator and operator != "clone":
            return f"{operator} ties it to {held}"
    return f"it is tied to {held}"


def _operator(node: Any) -> str:
    """What an operation is called, such as ``add``; empty for a layer."""
    name = "" if node.grad_fn is None else str(node.grad_fn.name())
    return name.partition("Backward")[0].lower()


def _rooted(traced: Traced, group: Any) -> Any:
    """The same group, seen from where a channel is one: a layer of query, key and value in one has three of each."""
    count = len(group.items[0].idxs)
    for dep, idxs in group.items:
        takes = isinstance(dep.target.module, nn.Linear) and traced.graph.is_in_channel_pruning_fn(dep.handler)
        if takes and dep.target.module in traced.heads and len(idxs) < count and count % len(idxs) == 0:
            return traced.graph.get_pruning_group(dep.target.module, dep.handler, sorted(idxs))
    return group


def _parts(traced: Traced, dep: Any) -> int:
    """How many parts of equal size the channels of a layer are in."""
    part = dep.target.module
    if isinstance(part, nn.MultiheadAttention):
        return int(part.num_heads)
    if isinstance(part, nn.GroupNorm):
        return int(part.num_groups)
    if isinstance(part, _ConvNd):
        return 1 if part.groups == part.out_channels else int(part.groups)
    return traced.heads.get(part, 1) if isinstance(part, nn.Module) else 1
