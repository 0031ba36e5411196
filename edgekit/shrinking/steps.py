"""The steps of a pruning, and what it came to."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgekit.candidate import Candidate, Task
from edgekit.latency_table import LatencyTable
from edgekit.shrinking.scores import Line, Times
from edgekit.teaching import TrainedModel

if TYPE_CHECKING:
    from edgekit.pruning.changes import Change

NEAR = 1.01  # times its aim that a step on the way may take


def normal_ms(times: Times, first: Times) -> float:
    """A median as it would be in the turns that the unpruned student was first measured in: hours lie between."""
    return times.p50_ms if times.ratio is None else first.p50_ms * times.ratio.ratio


def most_ms(times: Times, first: Times) -> float:
    """The upper end of the same; the median itself where there is no interval."""
    return times.p50_ms if times.ratio is None else first.p50_ms * times.ratio.high


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Step:
    """One step, as it was found: the unpruned student is number 0.

    Attributes:
        number: From 0.
        aim_ms: What its median was to be at most; None of the first.
        model: The student, fine-tuned.
        changes: All changes since the unpruned student, in order.
        said: What was changed in this step, in words.
        times: Its latency.
        candidate: Its score, once it was fine-tuned.
        macs: Multiply-accumulates of one sample.
        epochs: Of its fine-tuning.
        kept: Whether the next step goes on from it.
        why: Why it is kept or not, in words.
    """

    number: int
    aim_ms: float | None
    model: TrainedModel
    changes: tuple[Change, ...]
    said: tuple[str, ...]
    times: Times
    candidate: Candidate | None
    macs: int
    epochs: int
    kept: bool
    why: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pruned:
    """What a pruning came to.

    Attributes:
        line: What it was of.
        task: What the unpruned student was judged by.
        steps: Every step, also those that were undone.
        table: Latencies of moves.
        budget_ms: The budget.
        limit_points: What might be lost; None: no limit.
        stopped: Why it ended.
        notes: What could not be pruned, and what is not faster for it.
        seconds: Wall-clock time of this run.
    """

    line: Line
    task: Task
    steps: tuple[Step, ...]
    table: LatencyTable | None
    budget_ms: float
    limit_points: float | None
    stopped: str
    notes: tuple[str, ...]
    seconds: float

    @property
    def best(self) -> Step:
        """The last step that is kept."""
        return [step for step in self.steps if step.kept][-1]


@dataclass(slots=True, kw_only=True, eq=False)
class Search:
    """What changes while a pruning goes on."""

    line: Line
    plan_task: Task
    first: Candidate
    steps: list[Step]
    budget_ms: float
    limit_points: float | None
    table: LatencyTable | None = None
    notes: list[str] = dataclasses.field(default_factory=list)

    @property
    def now(self) -> Step:
        """The last step that is kept."""
        return [step for step in self.steps if step.kept][-1]

    @property
    def now_ms(self) -> float:
        """The median of the student as it stands."""
        return normal_ms(self.now.times, self.steps[0].times)

    def share_of(self, aim_ms: float) -> float | None:
        """The budget as a share of the unpruned student's latency, where an aim is no less; None on the way there."""
        return None if aim_ms > self.budget_ms else self.budget_ms / self.steps[0].times.p50_ms

    def near(self, aim_ms: float) -> float:
        """Times an aim that a step may take; the budget itself is not exceeded."""
        return NEAR if aim_ms > self.budget_ms else 1.0
