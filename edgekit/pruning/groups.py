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
from edgekit.pruning.sizes import attentions, sizes_of
from edgekit.pruning.slices import Values, channel_sums


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Member:
    """A layer that channels of a group belong to.

    Attributes:
        name: Path of the layer.
        layer: The layer.
        takes: Whether it takes the channels, rather than gives them or hands them on.
        own: Their numbers in the layer, ``[k]``.
        shared: Which of the group's channels they are, ``[k]``; of flattened ones several are the same.
        entire: Whether all of the layer is the group's one channel, whatever ``own`` says: a layer of a block.
    """

    name: str
    layer: nn.Module
    takes: bool
    own: Tensor
    shared: Tensor
    entire: bool = False


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
        given = values.detach().double().cpu()
        if member.entire:
            return given.sum().view(1)
        return torch.zeros(self.count, dtype=torch.float64).index_add_(0, member.shared, given[member.own])

    def parameter_sums(self, member: Member, values: Values, *, biases: bool) -> Tensor | None:
        """Sums values of the parameters of one of its layers into its channels, ``[count]``.

        Args:
            member: The layer.
            values: From a parameter to values of its shape.
            biases: Whether biases, and offsets of norms, count too.

        Returns:
            None where no parameter of the layer counts.
        """
        if not member.entire:
            sums = channel_sums(member.layer, member.takes, values, biases=biases)
            return None if sums is None else self.summed(member, sums)
        own = member.layer.named_parameters(recurse=False)
        parts = [values(parameter).sum().cpu().view(1) for name, parameter in own if biases or "bias" not in name]
        return torch.stack(parts).sum(0) if parts else None


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
        misfit: Which layer does not have the channels that it should, so that an operation before it mixes or adds
            them up; None where all do.
        recurrent: Paths of the recurrent layers they go through.
        dep: The dependency of torch_pruning that a cut begins at.
    """

    group: Group
    root: str
    givers: tuple[str, ...]
    parts: int
    parted: tuple[str, ...]
    tied: str | None
    misfit: str | None
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
    found = _all_groups(traced)
    # Parameters that a user's module holds itself are thought to have channels last. Those that are too small for it
    # have none: a number for each head, a table of relative positions.
    small = {
        dep.target.module
        for group in found
        for dep, idxs in group.items
        if isinstance(dep.target.module, nn.Parameter) and max(idxs) >= dep.target.module.shape[dep.target.pruning_dim]
    }
    if small:
        traced.graph.ignored_params.extend(small)
        found = _all_groups(traced)
    return [_coupled(traced, _rooted(traced, group)) for group in found]


def _all_groups(traced: Traced) -> list[Any]:
    return list(traced.graph.get_all_groups(root_module_types=(_ConvNd, nn.Linear, nn.Embedding)))


def of_one_width(groups: Sequence[Coupled], module: nn.Module) -> list[int]:
    """Which groups of channels have one width: those of one size that an attention of a user's goes through.

    Such modules often take the width of the heads together for that of the stream; a layer of query, key and value in
    one that must stay whole has three times as many channels.

    Returns:
        A number for each group, the same one for those of one width.
    """
    label = list(range(len(groups)))
    for _, layers in attentions(module):
        inside = [i for i, each in enumerate(groups) if any(member.layer in layers for member in each.group.members)]
        for i in inside:
            for j in inside:
                if _of_one_width(groups[i], groups[j]):
                    low, high = sorted((label[i], label[j]))
                    label = [low if number == high else number for number in label]
    return label


def _of_one_width(one: Coupled, other: Coupled) -> bool:
    stays = one.tied is not None or one.misfit is not None
    if stays and one.group.count in (2 * other.group.count, 3 * other.group.count):
        return True
    return (one.group.count, one.parts) == (other.group.count, other.parts)


def half_followed(groups: Sequence[Coupled]) -> dict[tuple[nn.Module, bool], str]:
    """Layers that have more channels than are known to lead there, in words, with which side it is.

    Several times as many: an operation before them lays channels side by side in a way that is not followed, such as
    the merging of patches. A layer that gives more than is followed: an operation after it takes others for channels,
    such as a product over positions.
    """
    known: dict[tuple[nn.Module, bool], set[int]] = {}
    names = {}
    for each in groups:
        for member in each.group.members:
            known.setdefault(side_of(member), set()).update(member.own.tolist())
            names[member.layer] = member.name
    found = {}
    for (layer, takes), own in known.items():
        size = sizes_of(layer).get(layer, (0,))[0 if takes else -1]
        gives = not takes and isinstance(layer, (nn.Linear, nn.Embedding, _ConvNd)) and not _hands_on(layer)
        if size > len(own) and (gives or size % len(own) == 0):
            found[layer, takes] = f"{names[layer]} has {size} channels, of which {len(own)} are known to lead there"
    return found


def side_of(member: Member) -> tuple[nn.Module, bool]:
    """A layer, and whether it is about what it takes; what a depthwise convolution takes is what it gives."""
    return member.layer, member.takes and not _hands_on(member.layer)


def _hands_on(layer: nn.Module) -> bool:
    return isinstance(layer, _ConvNd) and layer.groups == layer.out_channels > 1


def lowest(found: Coupled, importance: Tensor, kept: int) -> list[int]:
    """The channels of a group of the least importance, as many and the same ones in each part.

    Args:
        found: The group.
        importance: Of every channel, ``[count]``.
        kept: Channels of each part that are kept, at least as many as :func:`spared`.
    """
    units, stay = _units(found, importance), set(spared(found, importance))
    order = [i for i in torch.argsort(units, stable=True).tolist() if i not in stay]
    least = order[: found.size - kept]
    return sorted(part * found.size + i for part in range(found.parts) for i in least)


def spared(found: Coupled, importance: Tensor) -> list[int]:
    """Channels of a part that stay so that no layer loses all: of layers side by side each keeps its best.

    Args:
        found: A group, such as that of layers behind a concatenation.
        importance: Of every channel, ``[count]``.
    """
    units = _units(found, importance)
    stay: list[int] = []
    for own in sorted({tuple(sorted(set((m.shared % found.size).tolist()))) for m in found.group.members}, key=len):
        if own and not set(own) & set(stay):
            stay.append(max(own, key=lambda i: (float(units[i]), i)))
    return stay


def _units(found: Coupled, importance: Tensor) -> Tensor:
    """Importance of what can be dropped at once, ``[size]``: one channel of each part."""
    return importance.view(found.parts, found.size).sum(0)


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
    linked = [0] if tied else _linked(traced, group)
    even = [i * len(group.items[0].idxs) // len(linked) for i in range(len(linked))]
    if linked == even:
        parts = math.lcm(parts, len(linked))
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
        misfit=None if tied else _misfit(members) if linked == even else f"channels {linked} of {root} go together",
        recurrent=tuple(recurrent),
        dep=group.items[0].dep,
    )


def _linked(traced: Traced, group: Any) -> list[int]:
    """Channels of a group that are dropped where the first one is: a layer's in two places of a concatenation."""
    dep = group.items[0].dep
    return sorted(traced.graph.get_pruning_group(dep.target.module, dep.handler, [0]).items[0].idxs)


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


def _misfit(members: Sequence[Member]) -> str | None:
    """Which layer has fewer channels than would belong to it, in words."""
    for member in members:
        sizes = sizes_of(member.layer).get(member.layer)
        if sizes is not None and int(member.own.max()) >= sizes[0 if member.takes else -1]:
            verb = "takes" if member.takes else "has"
            return (
                f"{member.name} {verb} {sizes[0 if member.takes else -1]} channels, and {len(member.own)} lead there: "
                "an operation before it mixes them"
            )
    return None


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
