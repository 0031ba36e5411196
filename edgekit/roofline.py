"""What each move saves by the roofline of a target: an estimate for a device that is not at hand."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from edgekit.errors import EdgeKitError, SpecError
from edgekit.progress import Progress, silent
from edgekit.specs import Target
from edgekit.table_file import ESTIMATE, MAKE_ONE, LatencyTable, Row

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from edgekit.pruning.moves import MoveGroup
    from edgekit.pruning.variants import Variant

# By precision: what it is computed in, bytes of a weight and of an activation. Weights of w8 and w4 are decoded.
_WIDTHS = {
    "fp32": ("fp32", 4.0, 4.0),
    "fp16": ("fp16", 2.0, 2.0),
    "bf16": ("bf16", 2.0, 2.0),
    "fp8": ("fp8", 1.0, 1.0),
    "int8": ("int8", 1.0, 1.0),
    "w8": ("fp32", 1.0, 4.0),
    "w4": ("fp32", 0.5, 4.0),
}


def roofline_us(module: Module, inputs: Mapping[str, Tensor], target: Target, precision: str) -> float:
    """Least time of a module by a target's peak arithmetic and memory bandwidth, in microseconds.

    Every layer takes the longer of its arithmetic at the peak and of its weights, inputs and outputs at the bandwidth
    (S. Williams, A. Waterman, D. Patterson, "Roofline: An Insightful Visual Performance Model", CACM 2009); layers add
    up. What lies between layers, such as activations and BatchNorms, is taken to be fused.

    Args:
        module: Runs once in evaluation mode; nothing of it changes.
        inputs: One query.
        target: What it runs on.
        precision: Of all its layers.

    Raises:
        SpecError: The target lacks a figure.
        ModelError: The module does not run.
    """
    from edgekit.pruning.traffic import traffic_of

    gops, bandwidth_gb_s = _figures(target, precision)
    _, weight_bytes, activation_bytes = _WIDTHS[precision]
    return math.fsum(
        # 10^9 a second are 10^3 a microsecond.
        max(
            layer.operations / gops / 1e3,
            (layer.weights * weight_bytes + layer.activations * activation_bytes) / bandwidth_gb_s / 1e3,
        )
        for layer in traffic_of(module, inputs)
    )


def estimate_table(
    module: Module,
    inputs: Mapping[str, Tensor],
    groups: Sequence[MoveGroup],
    target: Target,
    precision: str,
    engine: str,
    *,
    batch: int = 1,
    progress: Progress = silent,
) -> LatencyTable:
    """What each move saves by the roofline; nothing is built or measured. It says nothing of what an engine does.

    Args:
        module: What is to be pruned.
        inputs: A batch that it runs on, first axis samples.
        groups: Its move groups.
        target: What it is deployed on; needs ``peak_gops`` of the precision and ``bandwidth_gb_s``.
        precision: Of the plan.
        engine: Of the plan; for the record.
        batch: Samples a query.
        progress: Told of every move.

    Raises:
        SpecError: The target lacks a figure.
        ModelError: The module does not run.
    """
    from edgekit.pruning.variants import made_of, variants_of

    _figures(target, precision)
    began, query = time.monotonic(), {name: _query(tensor, batch) for name, tensor in inputs.items()}
    whole_us = roofline_us(module, query, target, precision)
    rows, notes, variants = [], [], variants_of(groups)
    for i, variant in enumerate(variants):
        progress("latency table by the roofline", i, len(variants), str(variant))
        try:
            less_us, made = made_of(
                variant, module, inputs, lambda changed: roofline_us(changed, query, target, precision)
            )
        except EdgeKitError as exc:
            notes.append(f"{variant}: left out, for it cannot be made: {exc.problem}")
            continue
        rows.append(_row(variant, (whole_us - less_us) / made))
    progress("latency table by the roofline", len(variants), len(variants))
    return LatencyTable(
        engine=engine,
        precision=precision,
        source=ESTIMATE,
        batch=batch,
        whole_us=whole_us,
        rows=tuple(rows),
        classes=tuple(dict.fromkeys(group.alike for group in groups)),
        notes=tuple(notes),
        seconds=time.monotonic() - began,
    )


def _row(variant: Variant, saved_us: float) -> Row:
    return Row(
        alike=variant.group.alike,
        kind=variant.group.kind,
        group=variant.group.name,
        members=variant.members,
        move=variant.move,
        saved_us=saved_us,
        low_us=saved_us,
        high_us=saved_us,
    )


def _query(tensor: Tensor, batch: int) -> Tensor:
    """A query of the first samples, which come again where there are fewer."""
    times = -(-batch // len(tensor))
    repeated: Tensor = tensor.repeat(times, *[1] * (tensor.dim() - 1))[:batch]
    return repeated


def _figures(target: Target, precision: str) -> tuple[float, float]:
    """Peak arithmetic in 10^9 operations a second and bandwidth in 10^9 bytes a second."""
    if precision not in _WIDTHS:
        raise SpecError("the roofline knows no such precision", found=precision, allowed=", ".join(_WIDTHS))
    computed, *_ = _WIDTHS[precision]
    gops, bandwidth_gb_s = target.peak_gops.get(computed), target.bandwidth_gb_s  # type: ignore[call-overload]
    if gops is None or bandwidth_gb_s is None:
        lacks = [f"peak_gops.{computed}"] if gops is None else []
        lacks += ["bandwidth_gb_s"] if bandwidth_gb_s is None else []
        raise SpecError(
            f"target {target.name!r}: what moves save can neither be measured here nor be estimated",
            found=f"no {' and no '.join(lacks)}",
            allowed=f"a latency table that was measured on the device, or peak_gops.{computed} and bandwidth_gb_s",
            fix=f"{MAKE_ONE}; or write both figures into the target's file",
        )
    return gops, bandwidth_gb_s
