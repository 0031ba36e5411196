"""What each move of each move group saves on the target's own engine, measured in turns with the whole network."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from edgekit import __version__
from edgekit.artifact import Artifact, to_json
from edgekit.backends import load_backend
from edgekit.backends.methods import check_plan
from edgekit.choosing import ratio_in_turns
from edgekit.errors import EdgeKitError, EngineError, EngineMissing, MeasurementError
from edgekit.making import compile_step, export, hash_array, measure_step, measuring_feeds, quantize_step
from edgekit.places import build_of, lacks
from edgekit.profiling.host import this_host
from edgekit.profiling.load import COMPARED_TURN_S, LoadSpec
from edgekit.profiling.measured import Measured
from edgekit.profiling.statistics import bounds_or_stretches, percentile
from edgekit.quantization.schemes import Plan
from edgekit.steps import run_step, step_folder
from edgekit.table_file import MAKE_ONE, MEASURED, TABLE_FILE, LatencyTable, Row, load_table, read_table, write_table
from edgekit.table_options import notes_of, options_of, overlap_us

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from edgekit.candidate import Task
    from edgekit.pruning.moves import MoveGroup
    from edgekit.pruning.variants import Variant

__all__ = [
    "LatencyTable",
    "Row",
    "forecast",
    "measure_table",
    "notes_of",
    "options_of",
    "overlap_us",
    "read_table",
    "write_table",
]

# Seven sides need many rounds: only groups of as many rounds as there are sides are values of their ratio.
SECONDS = 3.0
MOST_SECONDS = 60.0
ROUNDS = 30
MOST_VARIANTS = 6  # measured in the same turns, the whole network beside them
LONGER = (1, 4, 16)  # a move that is shown neither to save nor to cost time is measured again, so many times as long
SAMPLES = 32  # that calibrate
STEP = "latency-table"


def forecast(
    module: Module, groups: Sequence[MoveGroup], plan: Plan, task: Task, steps: Path, *, samples: int = SAMPLES
) -> str:
    """What :func:`measure_table` is about to do, in words; how long a build takes is known once one was made."""
    from edgekit.pruning.variants import variants_of

    task, plan, load = _of_table(task, plan, samples)
    variants = variants_of(groups)
    if step_folder(steps, STEP, _key(module, groups, plan, task, load)).is_dir():
        return f"{len(variants)} moves on {plan}: already measured"
    return (
        f"{len(variants)} moves of {len({group.alike for group in groups})} kinds of blocks and channels on {plan}: "
        f"{len(variants) + 1} builds, and {_measuring_s(len(variants), load):.0f} s of measuring in turns or more"
    )


def measure_table(
    module: Module,
    inputs: Mapping[str, Tensor],
    groups: Sequence[MoveGroup],
    plan: Plan,
    task: Task,
    steps: Path,
    *,
    samples: int = SAMPLES,
) -> LatencyTable:
    """Builds and measures each move on the engine, beside the whole network and in the same turns as it.

    A move is made in all groups of a class at once, so that what is told apart is many times what one group saves; by
    the number of groups the difference is divided. All builds and measurements are steps: what a killed run had
    finished is not repeated, and the table is a step of its own.

    Args:
        module: What is to be pruned.
        inputs: A batch that it runs on.
        groups: Its move groups.
        plan: How it is deployed. Nodes that it leaves in float are quantised here: a changed network has other names.
        task: Its target, profile and samples.
        steps: Root of the step folders.
        samples: That calibrate; where the quantisers are placed counts here, not how well they fit.

    Raises:
        MeasurementError: This host is not the target, or the whole network cannot be measured.
        EdgeKitError: The whole network cannot be built.
    """
    from edgekit.pruning.variants import variants_of

    _check_here(plan, task)
    began, left_float = time.monotonic(), len(plan.float_groups)
    line = forecast(module, groups, plan, task, steps, samples=samples)
    task, plan, load = _of_table(task, plan, samples)
    step, count = _name(plan), len(variants_of(groups))
    task.progress(step, 0, count, line)
    failed: list[str] = []

    def make(folder: Path) -> None:
        made = _make(module, inputs, groups, plan, task, steps, failed)
        write_table(replace(made, seconds=time.monotonic() - began), folder / TABLE_FILE)

    folder = run_step(steps, STEP, _key(module, groups, plan, task, load), make)
    table = load_table(folder / TABLE_FILE)
    if failed:
        shutil.rmtree(folder)  # what crashed for want of memory may do well next time
    task.progress(step, count, count)
    said = (f"nodes that the plan leaves in float are quantised in the table: {left_float}",) if left_float else ()
    return replace(table, notes=(*said, *table.notes))


def _make(
    module: Module,
    inputs: Mapping[str, Tensor],
    groups: Sequence[MoveGroup],
    plan: Plan,
    task: Task,
    steps: Path,
    failed: list[str],
) -> LatencyTable:
    """The table; what another time may well be measured is noted in ``failed`` too."""
    load = table_load(task)
    notes: list[str] = []
    whole_us, rows = _measure(_build(module, inputs, groups, plan, task, steps, notes), plan, task, steps, load, failed)
    return LatencyTable(
        engine=plan.engine,
        engine_version=build_of(task.place, plan.engine),
        precision=plan.precision,
        source=MEASURED,
        host=to_json(this_host() if task.place is None else task.place.host),
        batch=load.batch,
        whole_us=whole_us,
        rows=tuple(rows),
        classes=tuple(dict.fromkeys(group.alike for group in groups)),
        notes=(*notes, *failed),
        seconds=0.0,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Built:
    """The whole network, where ``variant`` is None, or a variant that was made in ``made`` members."""

    artifact: Artifact
    variant: Variant | None = None
    made: int = 0


def _build(
    module: Module,
    inputs: Mapping[str, Tensor],
    groups: Sequence[MoveGroup],
    plan: Plan,
    task: Task,
    steps: Path,
    notes: list[str],
) -> list[_Built]:
    """The whole network and every variant that can be made; the others are noted."""
    from edgekit.pruning.variants import made_of, variants_of

    longest_s = 0.0

    def build(changed: Module) -> Artifact:
        nonlocal longest_s
        began = time.monotonic()
        artifact = export(changed, task.examples, steps)
        if plan.precision != "fp32":
            artifact = quantize_step(artifact, plan, task, steps)
        artifact = compile_step(artifact, plan.engine, task, steps)
        longest_s = max(longest_s, time.monotonic() - began)  # what an earlier run had made takes no time
        return artifact

    variants, load = variants_of(groups), table_load(task)
    built = [_Built(artifact=build(module))]
    for i, variant in enumerate(variants):
        left_s = (len(variants) - i) * longest_s + _measuring_s(len(variants), load)
        task.progress(_name(plan), i, len(variants), f"{variant}; about {left_s:.0f} s left")
        try:
            artifact, made = made_of(variant, module, inputs, build)
            built.append(_Built(artifact=artifact, variant=variant, made=made))
        except EdgeKitError as exc:
            notes.append(f"{variant}: left out, for it cannot be built: {_in_a_line(exc)}")
    return built


def _measure(
    built: Sequence[_Built], plan: Plan, task: Task, steps: Path, load: LoadSpec, failed: list[str]
) -> tuple[float, list[Row]]:
    """The median of the whole network in microseconds, and a row for every variant that could be measured."""
    whole, *others = built
    medians_us: list[float] = []
    found: list[tuple[_Built, tuple[float, float, float] | str]] = []
    for start in range(0, max(1, len(others)), MOST_VARIANTS):
        task.progress(f"{_name(plan)}: in turns", start, len(others))
        left = others[start : start + MOST_VARIANTS]
        for times in LONGER:
            base, *measured = measure_step([each.artifact for each in (whole, *left)], task, steps, longer(load, times))
            if base.status != "ok":
                raise MeasurementError(
                    f"the whole network cannot be measured on {plan}", found=base.reason or base.status
                )
            medians_us.append(1000 * percentile(base.application_ms, 50.0))
            tried = [(each, _shares_or_why(base, got, 1 + len(left))) for each, got in zip(left, measured, strict=True)]
            left = [each for each, shares in tried if times != LONGER[-1] and _undecided(shares)]
            found += [(each, shares) for each, shares in tried if each not in left]
            if not left:
                break
    whole_us = median(medians_us)
    failed += [
        f"{each.variant}: left out, for it could not be measured: {why}" for each, why in found if isinstance(why, str)
    ]
    return whole_us, [_row(each, whole_us, shares) for each, shares in found if not isinstance(shares, str)]


def longer(load: LoadSpec, times: int) -> LoadSpec:
    """The same load, so many times as long."""
    return replace(
        load,
        min_seconds=times * load.min_seconds,
        max_seconds=times * load.max_seconds,
        min_count=times * load.min_count,
    )


def _undecided(shares: tuple[float, float, float] | str) -> bool:
    """Whether it is neither shown to save time nor shown to cost some."""
    return not isinstance(shares, str) and shares[1] <= 1 <= shares[2]


def _shares_or_why(base: Measured, got: Measured, sides: int) -> tuple[float, float, float] | str:
    shares = _shares(base, got, sides)
    if shares is not None:
        return shares
    return _in_a_line(got.reason or got.status) if got.status != "ok" else "too few queries for an interval"


def _row(built: _Built, whole_us: float, shares: tuple[float, float, float]) -> Row:
    assert built.variant is not None, "the whole network is no row"
    variant, (share, low, high) = built.variant, shares
    return Row(
        alike=variant.group.alike,
        kind=variant.group.kind,
        group=variant.group.name,
        members=variant.members,
        move=variant.move,
        saved_us=whole_us * (1 - share) / built.made,
        low_us=whole_us * (1 - high) / built.made,
        high_us=whole_us * (1 - low) / built.made,
    )


def _shares(base: Measured, other: Measured, sides: int) -> tuple[float, float, float] | None:
    """The other's median over the base's, and its interval; None where it is not known.

    Where the ratio in turns has no interval, or the sides drift apart, it is that of the medians' own bounds, which
    turns do not sharpen.
    """
    if other.status != "ok":
        return None
    ratio = ratio_in_turns(base, other, sides)
    if ratio is not None and ratio.settled:
        return ratio.ratio, ratio.low, ratio.high
    whole, less = (bounds_or_stretches(each.application_ms, 50.0) for each in (base, other))
    if whole.lower_ms is None or whole.upper_ms is None or less.lower_ms is None or less.upper_ms is None:
        return None
    share = percentile(other.application_ms, 50.0) / percentile(base.application_ms, 50.0)
    return share, less.lower_ms / whole.upper_ms, less.upper_ms / whole.lower_ms


def table_load(task: Task) -> LoadSpec:
    """Enough for a ratio of medians, little enough for dozens of sides."""
    load = task.profile.load_spec()
    seconds = min(SECONDS, load.min_seconds)
    return replace(
        load,
        percentiles=(50.0,),
        min_seconds=seconds,
        max_seconds=max(MOST_SECONDS, seconds),
        min_count=ROUNDS * (load.turn_queries - 1),
        cold_loads=1,
        shortest_turn_s=COMPARED_TURN_S,
    )


def _measuring_s(variants: int, load: LoadSpec) -> float:
    return load.min_seconds * (variants + max(1, math.ceil(variants / MOST_VARIANTS)))


def _of_table(task: Task, plan: Plan, samples: int) -> tuple[Task, Plan, LoadSpec]:
    """The task with few samples to calibrate, the plan as it is built here, and the load."""
    if task.calibration is not None:
        few = task.calibration.subset(range(min(samples, len(task.calibration))))
        task = replace(task, calibration=few)
    if plan.precision == "int8" and plan.scheme is None:
        plan = replace(plan, scheme=load_backend(plan.engine).scheme(task.target))
    return task, replace(plan, float_groups=()), table_load(task)


def _check_here(plan: Plan, task: Task) -> None:
    if task.not_measured is not None:
        raise MeasurementError(
            f"what moves save on target {task.target.name!r} cannot be measured here",
            found=task.not_measured,
            allowed="a latency table that was measured on the device, or an estimate",
            fix=MAKE_ONE,
        )
    lacking = lacks(task.place, plan.engine)
    if lacking is not None:
        there = "here" if task.place is None else f"on {task.place.name}"
        raise EngineMissing(f"engine {plan.engine!r} cannot run {there}", found=lacking)
    reason = load_backend(plan.engine).missing(task.target)
    if reason is not None:
        raise EngineError(f"engine {plan.engine!r} cannot prepare a model here", found=reason)
    check_plan(plan, task.target)


def _key(module: Module, groups: Sequence[MoveGroup], plan: Plan, task: Task, load: LoadSpec) -> dict[str, Any]:
    from edgekit.models import class_sources, state_hash

    feeds = measuring_feeds(task.test, load.batch)
    key: dict[str, Any] = to_json(
        {
            "edgekit": __version__,
            "module": state_hash(module),
            "sources": class_sources(module),
            "groups": [[group.name, group.kind, group.alike, group.moves] for group in groups],
            "plan": plan,
            "target": task.target.model_dump(),
            "engine": build_of(task.place, plan.engine),
            "host": this_host() if task.place is None else task.place.host,
            "load": load,
            "feeds": {name: hash_array(array) for name, array in feeds.items()},
            "in_numpy": task.in_numpy,
            "calibration": task.calibration.fingerprint() if task.calibration and plan.needs_samples else None,
        }
    )
    return key


def _name(plan: Plan) -> str:
    return f"latency table on {plan.engine}"


def _in_a_line(error: object) -> str:
    return ", ".join(line.strip() for line in str(error).splitlines())
