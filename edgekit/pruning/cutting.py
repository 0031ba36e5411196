"""Cutting channels out of a module, and seeing that it still runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from edgekit.distillation.dry_run import output_shapes
from edgekit.errors import ModelError
from edgekit.pruning.channels import Traced, Wording, uncut
from edgekit.pruning.groups import Coupled
from edgekit.pruning.sizes import Sizes, renew_attention, renew_others


def cut(traced: Traced, plans: Sequence[tuple[Coupled, Sequence[int]]]) -> None:
    """Drops channels of groups, with all that belongs to them.

    Args:
        traced: Of the module, which is changed in place.
        plans: Groups, and the numbers of their channels that are dropped.

    Raises:
        ModelError: The layers of a group do not fit each other.
    """
    for group, dropped in plans:
        whole = traced.graph.get_pruning_group(group.dep.target.module, group.dep.handler, list(dropped))
        if len(whole.items[0].idxs) != len(dropped):
            why = f"other channels of {_name(whole)} go with those that are dropped"
            raise uncut(traced.graph.model, traced.wording, why)
        _apply(traced, whole)


def see_that_it_runs(
    module: nn.Module,
    inputs: Mapping[str, Tensor],
    before: Mapping[str, object],
    old: Sizes,
    wording: Wording,
) -> None:
    """Renews the sizes that modules remember, and sees that it runs.

    Args:
        module: What was cut.
        inputs: A batch.
        before: Shapes of its outputs before the cut.
        old: Sizes of its layers before the cut.
        wording: Of errors.

    Raises:
        ModelError: It does not run, or its outputs have other shapes.
    """
    renew_attention(module, old)
    try:
        shapes = output_shapes(module, inputs, wording.after, wording.fix)
    except ModelError:
        if not renew_others(module, old):
            raise
        shapes = output_shapes(module, inputs, wording.after, wording.fix)
    if shapes != before:
        raise ModelError(
            f"the outputs of {type(module).__name__} have other shapes {wording.after}",
            found=str(shapes),
            allowed=str(before),
            fix=wording.fix,
        )


@contextmanager
def whole_after_errors(module: nn.Module) -> Iterator[None]:
    """Gives a module back all that it had, where the block fails."""
    inner = ("_parameters", "_buffers", "_modules")
    frozen = {parameter: parameter.requires_grad for parameter in module.parameters()}
    had = [(part, dict(vars(part)), {name: dict(vars(part)[name]) for name in inner}) for part in module.modules()]
    try:
        yield
    except BaseException:
        for part, values, tables in had:
            vars(part).clear()
            vars(part).update(values)
            for name, table in tables.items():
                vars(part)[name].clear()
                vars(part)[name].update(table)
        for parameter, flag in frozen.items():
            parameter.requires_grad_(flag)
        raise


def _apply(traced: Traced, group: Any) -> None:
    """Cuts what belongs to some channels."""
    graph = traced.graph
    if not graph.check_pruning_group(group):
        why = f"a layer that goes with {_name(group)} would lose all its channels"
        raise uncut(graph.model, traced.wording, why)
    norms = [(dep.target.module, idxs) for dep, idxs in group.items if isinstance(dep.target.module, nn.LayerNorm)]
    # torch_pruning takes the channels that a LayerNorm keeps in the order of a set.
    group.items[:] = [item for item in group.items if not isinstance(item.dep.target.module, nn.LayerNorm)]
    try:
        group.prune(record_history=False)
    except Exception as exc:  # torch_pruning asserts and raises many unrelated types
        why = f"the layers that go with {_name(group)} do not fit each other"
        raise uncut(graph.model, traced.wording, why, exc) from exc
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
