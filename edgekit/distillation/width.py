"""A network with fewer channels: in every layer the same share of them is kept."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor, nn

from edgekit.distillation.dry_run import FIX, output_shapes
from edgekit.errors import ModelError
from edgekit.models import count_parameters
from edgekit.pruning.channels import Traced, Wording, as_parameters, told, trace, uncut
from edgekit.pruning.criteria import Evidence, l2
from edgekit.pruning.cutting import cut, see_that_it_runs
from edgekit.pruning.groups import Coupled, coupled, lowest, spared
from edgekit.pruning.sizes import sizes_of


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
    wording = Wording(cutter="student.width", after=f"with student.width = {width:g}", fix=FIX)
    old = sizes_of(module)
    with as_parameters(module):
        traced = trace(module, inputs, wording)
        with told(module, wording):
            kept_whole = _cut(module, traced, width)
    new = sizes_of(module)
    changed = sum(old[part] != new[part] for part in old)
    if not changed:
        raise ModelError(
            f"student.width = {width:g} drops no channel of {type(module).__name__}",
            found=f"kept whole: {', '.join(kept_whole)}" if kept_whole else f"{len(old)} layers",
            allowed="a share that drops at least one channel of a layer that neither input nor output fixes",
            fix="a smaller share",
        )
    see_that_it_runs(module, inputs, before, old, wording)
    note = f"width {width:g}: {changed} layers, {count_parameters(module):,} of {parameters:,} parameters"
    return [note, *(f"{name}: keeps its channels" for name in kept_whole)]


def _cut(module: nn.Module, traced: Traced, width: float) -> list[str]:
    """Cuts every group of channels that go together; names of the recurrent layers, which keep theirs."""
    groups = coupled(traced)
    free = [found for found in groups if found.tied is None]
    for found in free:
        if found.misfit is not None:
            raise uncut(module, traced.wording, f"the channels of {found.root} cannot be followed: {found.misfit}")
    kept = [_kept(found, width) for found in free]
    importance = l2(module, [found.group for found in free], Evidence())
    plans = []
    for found, scores, count in zip(free, importance, kept, strict=True):
        least = max(count, len(spared(found, scores)))
        if least < found.size:
            plans.append((found, lowest(found, scores, least)))
    cut(traced, plans)
    return sorted({name for found in groups for name in found.recurrent})


def _kept(found: Coupled, width: float) -> int:
    """How many channels are kept of each part of a group."""
    name, count, parts, size = found.root, found.group.count, found.parts, found.size
    if not found.fits:
        raise ModelError(
            f"student.width cannot cut {name}: its channels are in parts that do not fit each other",
            found=f"{count} channels, {parts} parts of groups and heads",
            allowed="channels that are a multiple of all groups and heads they go through",
            fix=FIX,
        )
    kept = size if size == 1 else math.floor(size * width + 0.5)
    if not kept:
        raise ModelError(
            f"student.width leaves nothing of {name}",
            found=f"width = {width:g} of {count} channels" + (f" in {parts} groups or heads" if parts > 1 else ""),
            allowed=f"{math.ceil(50 / size) / 100:g} or more, so that one channel stays",
        )
    return kept
