"""A network with fewer channels: in every layer the same share of them is kept."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from edgekit.distillation.channels import FIX, Traced, as_parameters, groups_of, told, trace, uncut
from edgekit.distillation.dry_run import output_shapes
from edgekit.distillation.sizes import renew_attention, renew_others, sizes_of
from edgekit.errors import ModelError
from edgekit.models import count_parameters


def cut_width(module: nn.Module, inputs: Mapping[str, Tensor], width: float) -> list[str]:
    """Drops channels of every layer of a module, those of the smallest weights first.

    Which channels of which layers go together (residual sums, BatchNorms, heads of attention) is found by tracing: G.
    Fang et al., "DepGraph: Towards Any Structural Pruning", CVPR 2023. A channel counts for the L2 norm of all weights
    that go with it (H. Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017). Inputs, outputs, the number of
    attention heads and recurrent layers stay; channels in groups and heads are dropped evenly.

    Args:
        module: Changed in place.
        inputs: A batch that it runs on.
        width: Share of the channels that is kept, above 0 and below 1.

    Returns:
        What was cut, in words.

    Raises:
        ModelError: Nothing is left of a layer, nothing is cut, or the module cannot be cut; names the layer.
    """
    before, parameters = output_shapes(module, inputs, "before it is cut"), count_parameters(module)
    old = sizes_of(module)
    with as_parameters(module):
        traced = trace(module, inputs)
        with told(module):
            kept_whole = _cut(traced, width)
    new = sizes_of(module)
    changed = sum(old[part] != new[part] for part in old)
    if not changed:
        raise ModelError(
            f"student.width = {width:g} drops no channel of {type(module).__name__}",
            found=f"kept whole: {', '.join(kept_whole)}" if kept_whole else f"{len(old)} layers",
            allowed="a share that drops at least one channel of a layer that neither input nor output fixes",
            fix="a smaller share",
        )
    _check(module, inputs, width, before, old)
    note = f"width {width:g}: {changed} layers, {count_parameters(module):,} of {parameters:,} parameters"
    return [note, *(f"{name}: keeps its channels" for name in kept_whole)]


def _check(
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    width: float,
    before: Mapping[str, object],
    old: Mapping[nn.Module, tuple[int, ...]],
) -> None:
    """Renews the sizes that modules remember, and sees that it runs."""
    after = f"with student.width = {width:g}"
    renew_attention(module, old)
    try:
        shapes = output_shapes(module, inputs, after)
    except ModelError:
        if not renew_others(module, old):
            raise
        shapes = output_shapes(module, inputs, after)
    if shapes != before:
        raise ModelError(
            f"the outputs of {type(module).__name__} have other shapes {after}",
            found=str(shapes),
            allowed=str(before),
            fix=FIX,
        )


def _cut(traced: Traced, width: float) -> list[str]:
    """Cuts every group of channels that go together; names of the recurrent layers, which keep theirs."""
    graph, plans = traced.graph, []
    whole: set[str] = set()
    for found in groups_of(traced):
        group = _rooted(traced, found)
        held = [dep.target.module for dep, _ in group.items if id(dep.target.module) in traced.whole]
        if any(_gives(traced, dep) for dep, _ in group.items):
            whole |= {traced.recurrent[id(part)] for part in held if id(part) in traced.recurrent}
            continue
        dropped = _dropped(traced, group, width)
        if dropped:
            plans.append((group.items[0].dep, dropped))
    for dep, dropped in plans:
        _apply(graph, graph.get_pruning_group(dep.target.module, dep.handler, dropped))
    return sorted(whole)


def _gives(traced: Traced, dep: Any) -> bool:
    """Whether a dependency is about the channels that something gives which must keep them."""
    part = dep.target.module
    gives = traced.graph.is_out_channel_pruning_fn(dep.handler) or isinstance(part, nn.RNNBase)
    return bool(gives) and id(part) in traced.whole


def _rooted(traced: Traced, group: Any) -> Any:
    """The same group, seen from where a channel is one: a layer of query, key and value in one has three of each."""
    count = len(group.items[0].idxs)
    for dep, idxs in group.items:
        takes = isinstance(dep.target.module, nn.Linear) and traced.graph.is_in_channel_pruning_fn(dep.handler)
        if takes and dep.target.module in traced.heads and len(idxs) < count and count % len(idxs) == 0:
            return traced.graph.get_pruning_group(dep.target.module, dep.handler, sorted(idxs))
    return group


def _dropped(traced: Traced, group: Any, width: float) -> list[int]:
    """Which channels of a group are dropped: those of the smallest weights, as many in each part."""
    count, parts = len(group.items[0].idxs), 1
    for dep, _ in group.items:
        parts = math.lcm(parts, _parts(traced, dep))
    name = traced.names.get(id(group.items[0].dep.target.module), "a layer")
    if count % parts:
        raise ModelError(
            f"student.width cannot cut {name}: its channels are in parts that do not fit each other",
            found=f"{count} channels, {parts} parts of groups and heads",
            allowed="channels that are a multiple of all groups and heads they go through",
            fix=FIX,
        )
    size = count // parts
    kept = size if size == 1 else math.floor(size * width + 0.5)
    if not kept:
        raise ModelError(
            f"student.width leaves nothing of {name}",
            found=f"width = {width:g} of {count} channels" + (f" in {parts} groups or heads" if parts > 1 else ""),
            allowed=f"{math.ceil(50 / size) / 100:g} or more, so that one channel stays",
        )
    weights = _weights(group, count).view(parts, size).sum(0)
    lowest = torch.argsort(weights, stable=True)[: size - kept].tolist()
    return sorted(part * size + i for part in range(parts) for i in lowest)


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


def _weights(group: Any, count: int) -> Tensor:
    """Squared L2 norm ``[count]`` of the weights that go with each channel."""
    total = torch.zeros(count, dtype=torch.float64)
    for item in group.items:
        part, takes = item.dep.target.module, item.dep.handler.__name__ == "prune_in_channels"
        if isinstance(part, nn.Linear):
            norms = part.weight.detach().double().square().sum(0 if takes else 1)
        elif isinstance(part, _ConvNd):
            norms = _of_convolution(part, takes)
        elif isinstance(part, nn.Embedding):
            norms = part.weight.detach().double().square().sum(0)
        elif isinstance(part, (_NormBase, nn.GroupNorm, nn.LayerNorm)) and part.weight is not None:
            norms = part.weight.detach().double().square()
        else:
            continue
        if norms.ndim == 1 and all(root is not None for root in item.root_idxs):
            total.index_add_(0, torch.tensor(item.root_idxs), norms.cpu()[item.idxs])
    return total


def _of_convolution(part: _ConvNd, takes: bool) -> Tensor:
    """Squared norms ``[in_channels]`` or ``[out_channels]`` of a convolution's weights."""
    squared = part.weight.detach().double().square().flatten(2).sum(2)  # [out, in / groups], transposed [in, out / g]
    if takes == part.transposed or part.groups == part.out_channels:
        return squared.sum(1)
    return squared.view(part.groups, -1, squared.shape[1]).sum(1).flatten()


def _apply(graph: Any, group: Any) -> None:
    """Cuts what belongs to some channels."""
    if not graph.check_pruning_group(group):
        raise uncut(graph.model, f"a layer that goes with {_name(group)} would lose all its channels")
    norms = [(dep.target.module, idxs) for dep, idxs in group.items if isinstance(dep.target.module, nn.LayerNorm)]
    # torch_pruning takes the channels that a LayerNorm keeps in the order of a set.
    group.items[:] = [item for item in group.items if not isinstance(item.dep.target.module, nn.LayerNorm)]
    try:
        group.prune(record_history=False)
    except Exception as exc:  # torch_pruning asserts and raises many unrelated types
        raise uncut(graph.model, f"the layers that go with {_name(group)} do not fit each other", exc) from exc
    for norm, idxs in norms:
        _cut_norm(norm, set(idxs))


def _name(group: Any) -> str:
    """Path of the layer that a group begins at."""
    return str(group.items[0].dep.target.name).split(" (", maxsplit=1)[0]


def _cut_norm(norm: nn.LayerNorm, dropped: set[int]) -> None:
    kept = torch.tensor([i for i in range(norm.normalized_shape[-1]) if i not in dropped])
    for name in ("weight", "bias"):
        parameter = getattr(norm, name)
        if parameter is not None:
            setattr(norm, name, nn.Parameter(parameter.detach()[..., kept].clone()))
    norm.normalized_shape = (*norm.normalized_shape[:-1], len(kept))
