"""What each operator group loses and gains in int8: quality on real samples, time measured on the engine in turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgekit.artifact import Artifact
from edgekit.candidate import Candidate, Task, prepare
from edgekit.choosing import ratio_in_turns
from edgekit.errors import EdgeKitError
from edgekit.making import measure_step
from edgekit.metrics import Drop
from edgekit.profiling.comparison import Ratio
from edgekit.profiling.load import COMPARED_TURN_S, LoadSpec
from edgekit.profiling.statistics import percentile
from edgekit.quantization.groups import Group
from edgekit.quantization.schemes import Plan, plan_of

SECONDS = 1.5
MOST_SECONDS = 30.0
ROUNDS = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity:
    """One group in int8 while all others are in float, against the model in float.

    Attributes:
        group: The group.
        db: Signal-to-noise ratio of the outputs against the fp32 model, in dB; None where it could not be made.
        drop: Drop of the score from the fp32 model; None without a score.
        int8_share: Share of compute nodes that the engine then ran in int8, 0 to 1.
        p50_ms: Median latency; None where it was not measured.
        ratio: That median over the float model's, in the same turns; below 1 int8 pays.
        failure: Why it could not be made or did not run, or None.
    """

    group: Group
    db: float | None = None
    drop: Drop | None = None
    int8_share: float | None = None
    p50_ms: float | None = None
    ratio: Ratio | None = None
    failure: str | None = None

    @property
    def pays(self) -> bool:
        """Whether int8 was the faster by its point estimate."""
        return self.ratio is not None and self.ratio.ratio < 1


def alone(plan: Plan, group: Group, groups: Sequence[Group]) -> Plan:
    """The plan with every group but one in float."""
    left = [name for other in groups if other is not group for name in other.nodes]
    return replace(plan, float_groups=tuple(dict.fromkeys([*plan.float_groups, *left])))


def lost_by_group(
    model: Artifact, plan: Plan, groups: Sequence[Group], task: Task, out: Path
) -> list[tuple[Group, Candidate]]:
    """Makes and proves the plan with one group at a time in int8.

    Args:
        model: The fp32 ONNX model.
        plan: A plan in static int8.
        groups: The model's groups.
        task: What it is judged by.
        out: Root of the step folders.

    Returns:
        A candidate a group; where it could not be made, with a failure.
    """
    found = []
    for i, group in enumerate(groups):
        task.progress(f"sensitivity on {plan.engine}", i, len(groups), group.name)
        single = alone(plan, group, groups)
        try:
            found.append((group, prepare(model, single, task, out)))
        except EdgeKitError as exc:
            found.append((group, Candidate(plan=single, failure=str(exc))))
    task.progress(f"sensitivity on {plan.engine}", len(groups), len(groups))
    return found


def measure_sensitivity(
    model: Artifact, plan: Plan, groups: Sequence[Group], task: Task, out: Path
) -> list[Sensitivity]:
    """Loss and gain of every group; see :class:`Sensitivity`.

    Where the host is not the target nothing is timed.

    Raises:
        EdgeKitError: The model cannot be made in float.
    """
    made = lost_by_group(model, plan, groups, task, out)
    fp32 = prepare(model, plan_of(plan.engine, "fp32"), task, out)
    rows = [_lost(group, candidate) for group, candidate in made]
    if task.not_measured is not None:
        return rows
    there = [i for i, (_, c) in enumerate(made) if c.artifact is not None]
    artifacts = [fp32.artifact, *(made[i][1].artifact for i in there)]
    base, *others = measure_step([a for a in artifacts if a is not None], task, out, _load(task))
    for i, measured in zip(there, others, strict=True):
        if measured.status != "ok":
            rows[i] = replace(rows[i], failure=measured.reason or measured.status)
            continue
        # Each round is a value of its own: whole rotations of a dozen sides would take a dozen times as long.
        ratio = ratio_in_turns(base, measured)
        rows[i] = replace(rows[i], p50_ms=percentile(measured.application_ms, 50.0), ratio=ratio)
    return rows


def _lost(group: Group, candidate: Candidate) -> Sensitivity:
    proof = candidate.proof
    if proof is None:
        return Sensitivity(group=group, failure=candidate.failure)
    return Sensitivity(
        group=group,
        db=proof.reference_db,
        drop=proof.drop_from_fp32,
        int8_share=proof.int8_share,
        failure=proof.broken,
    )


def _load(task: Task) -> LoadSpec:
    """Enough for a ratio of medians, little enough for a dozen sides."""
    load = task.profile.load_spec()
    return replace(
        load,
        percentiles=(50.0,),
        min_seconds=min(SECONDS, load.min_seconds),
        max_seconds=max(MOST_SECONDS, min(SECONDS, load.min_seconds)),
        min_count=ROUNDS * (load.turn_queries - 1),
        cold_loads=1,
        shortest_turn_s=COMPARED_TURN_S,
    )
