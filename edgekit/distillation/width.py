"""A network with fewer channels: in every layer the same share of them is kept."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from edgekit.distillation.dry_run import output_shapes
from edgekit.distillation.forward import call
from edgekit.distillation.sizes import attention_of, renew_attention, renew_others, sizes_of
from edgekit.errors import ModelError
from edgekit.models import count_parameters

_FIX = "write the student as a class of its own, and take weights over with [student.take]"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Traced:
    """A module's dependency graph.

    Attributes:
        graph: Of torch_pruning.
        names: Of modules and parameters, by ``id``.
        whole: ``id`` of what must keep all its channels: inputs, outputs, recurrent layers and their parameters.
        heads: Attention heads by linear layer that has to do with them.
    """

    graph: Any
    names: Mapping[int, str]
    whole: frozenset[int]
    heads: Mapping[nn.Module, int]


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
    with _as_parameters(module):
        traced = _trace(module, inputs)
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
            fix=_FIX,
        )


@contextmanager
def _as_parameters(module: nn.Module) -> Iterator[None]:
    """While the block runs, whatever may hold channels is a parameter that takes a gradient: tracing follows those.

    So tables that a user's module keeps as buffers, such as fixed position encodings, are cut with the rest.
    """
    frozen = {name for name, parameter in module.named_parameters() if not parameter.requires_grad}
    tables = [
        (part, name, name not in part._non_persistent_buffers_set)
        for part in module.modules()
        for name, buffer in part.named_buffers(recurse=False)
        if not isinstance(part, _NormBase) and buffer.is_floating_point() and buffer.numel() > 1
    ]
    for part, name, _ in tables:
        part.register_parameter(name, nn.Parameter(part._buffers.pop(name)))
    for parameter in module.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    try:
        yield
    finally:
        for part, name, persistent in tables:
            table = part._parameters.pop(name)
            assert table is not None  # it was put there above
            part.register_buffer(name, table.detach(), persistent=persistent)
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(parameter.is_floating_point() and name not in frozen)


def _trace(module: nn.Module, inputs: Mapping[str, Tensor]) -> _Traced:
    """Finds which channels go together.

    Raises:
        ModelError: It cannot be traced.
    """
    import torch_pruning as tp
    from torch_pruning import ops

    entries: list[Any] = []

    def forward(model: nn.Module, given: Mapping[str, Tensor]) -> list[Tensor]:
        fed = dict(given)
        for name, tensor in given.items():
            if tensor.is_floating_point():
                fed[name] = tensor.detach().requires_grad_().clone()
                entries.append(fed[name].grad_fn)
        return [output for output in call(model, fed).values() if output.grad_fn is not None]

    try:
        with warnings.catch_warnings(), torch.enable_grad():
            warnings.simplefilter("ignore")  # of parameters outside of known layers: the check afterwards tells
            graph = tp.DependencyGraph().build_dependency(module, dict(inputs), forward_fn=forward, verbose=False)
    except Exception as exc:  # torch_pruning raises whatever its tracing of the user's module runs into
        raise _uncut(module, "the layers that go together cannot be traced", exc) from exc
    whole = set()
    for part, node in graph.module2node.items():
        if not node.outputs or any(node.grad_fn is entry for entry in entries) or isinstance(part, nn.RNNBase):
            whole.add(id(part))
        if node.type == ops.OPTYPE.SLICE and part.dim == 0:
            node.type = ops.OPTYPE.ELEMENTWISE  # rows of a table, or samples: no channel is left out
    names = {id(part): name or type(module).__name__ for name, part in module.named_modules()}
    for name, parameter in module.named_parameters():
        names[id(parameter)] = name
        if isinstance(module.get_submodule(name.rpartition(".")[0]), nn.RNNBase):
            whole.add(id(parameter))
    return _Traced(graph=graph, names=names, whole=frozenset(whole), heads=attention_of(module))


def _cut(traced: _Traced, width: float) -> list[str]:
    """Cuts every group of channels that go together; names of the recurrent layers, which keep theirs."""
    graph = traced.graph
    whole: list[str] = []
    plans = []
    roots = (_ConvNd, nn.Linear, nn.Embedding)
    for group in list(graph.get_all_groups(root_module_types=roots)):
        group = _rooted(traced, group)
        if any(id(dep.target.module) in traced.whole and _gives(traced, dep) for dep, _ in group.items):
            whole += [name for dep, _ in group.items if (name := _recurrent_at(traced, dep.target.module))]
            continue
        dropped = _dropped(traced, group, width)
        if dropped:
            plans.append((group.items[0].dep, dropped))
    for dep, dropped in plans:
        _apply(graph, graph.get_pruning_group(dep.target.module, dep.handler, dropped))
    return sorted(set(whole))


def _gives(traced: _Traced, dep: Any) -> bool:
    """Whether a dependency is about what a layer gives, or about a recurrent layer or an input at all."""
    return bool(traced.graph.is_out_channel_pruning_fn(dep.handler)) or isinstance(dep.target.module, nn.RNNBase)


def _recurrent_at(traced: _Traced, part: object) -> str | None:
    """Path of the recurrent layer that something is, or is a parameter of."""
    if isinstance(part, nn.RNNBase):
        return traced.names[id(part)]
    return traced.names[id(part)].rpartition(".")[0] if id(part) in traced.whole and id(part) in traced.names else None


def _rooted(traced: _Traced, group: Any) -> Any:
    """The same group, seen from where a channel is one: a layer of query, key and value in one has three of each."""
    count = len(group.items[0].idxs)
    for dep, idxs in group.items:
        takes = isinstance(dep.target.module, nn.Linear) and traced.graph.is_in_channel_pruning_fn(dep.handler)
        if takes and dep.target.module in traced.heads and len(idxs) < count and count % len(idxs) == 0:
            return traced.graph.get_pruning_group(dep.target.module, dep.handler, sorted(idxs))
    return group


def _dropped(traced: _Traced, group: Any, width: float) -> list[int]:
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
            fix=_FIX,
        )
    size = count // parts
    kept = size if size == 1 else math.floor(size * width + 0.5)
    if not kept:
        raise ModelError(
            f"student.width leaves nothing of {name}",
            found=f"width = {width:g} of {count} channels" + (f" in {parts} groups or heads" if parts > 1 else ""),
            allowed=f"{0.5 / size:.2g} or more, so that one channel stays",
        )
    weights = _weights(group, count).view(parts, size).sum(0)
    lowest = torch.argsort(weights, stable=True)[: size - kept].tolist()
    return sorted(part * size + i for part in range(parts) for i in lowest)


def _parts(traced: _Traced, dep: Any) -> int:
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
        raise _uncut(graph.model, f"layer {group.items[0].dep.target.name} would lose all its channels")
    norms = [(dep.target.module, idxs) for dep, idxs in group.items if isinstance(dep.target.module, nn.LayerNorm)]
    # torch_pruning takes the channels that a LayerNorm keeps in the order of a set.
    group.items[:] = [item for item in group.items if not isinstance(item.dep.target.module, nn.LayerNorm)]
    try:
        group.prune(record_history=False)
    except Exception as exc:  # as above
        raise _uncut(graph.model, f"at {group.items[0].dep.target.name}", exc) from exc
    for norm, idxs in norms:
        _cut_norm(norm, set(idxs))


def _cut_norm(norm: nn.LayerNorm, dropped: set[int]) -> None:
    kept = torch.tensor([i for i in range(norm.normalized_shape[-1]) if i not in dropped])
    for name in ("weight", "bias"):
        parameter = getattr(norm, name)
        if parameter is not None:
            setattr(norm, name, nn.Parameter(parameter.detach()[..., kept].clone()))
    norm.normalized_shape = (*norm.normalized_shape[:-1], len(kept))


def _uncut(module: nn.Module, why: str, exc: Exception | None = None) -> ModelError:
    return ModelError(
        f"student.width cannot cut {type(module).__name__}: {why}",
        found=None if exc is None else f"{type(exc).__name__}: {exc}",
        allowed="layers of torch.nn, put together by sums, products, concatenation and reshaping of heads",
        fix=_FIX,
    )
