"""How a student was pruned to a latency budget, as types: a part of a run's report, and all of ``pruning.json``.

Null: it was not measured, or there is nothing to tell it by.
"""

from __future__ import annotations

from typing import Literal

from typing_extensions import NotRequired, TypedDict

from edgekit.reporting.evidence import Drop, record


@record
class PruningRow(TypedDict):
    """What one move saves when it is made alone."""

    group: str
    """One of the groups that it may be made to: a block, or channels that go together."""
    kind: Literal["block", "channels"]
    members: int
    """Groups alike, whose moves cost the same."""
    move: str
    """What is done, e.g. "removed" or "24 of 32 channels"."""
    saved_ms: float
    """Median latency that it saves in one of them, in ms; below 0: it costs."""
    low_ms: float | None
    """Lower end of its interval, in ms; null for an estimate."""
    high_ms: float | None
    """Upper end, in ms; null likewise."""
    shown: bool
    """Whether it is shown faster: only those are made."""


@record
class PruningTable(TypedDict):
    """What every move saves."""

    source: str
    """"measured", "estimate: roofline", or "measured elsewhere" and the file."""
    whole_ms: float
    """Median latency of the unpruned model, in ms."""
    seconds: float
    """Wall-clock time that it took, in seconds."""
    rows: list[PruningRow]


@record
class PruningRatio(TypedDict):
    """A step's median latency over the unpruned model's, measured in the same turns."""

    ratio: float
    """No unit: below 1 it is faster."""
    low: float
    """Lower end of its interval, no unit."""
    high: float
    """Upper end, no unit."""


@record
class PruningStep(TypedDict):
    """The model after one step of pruning and fine-tuning; the first is the unpruned one."""

    number: int
    """From 0, the unpruned model."""
    aim_ms: float | None
    """Latency that the step was to reach, in ms."""
    p50_ms: float | None
    """Median latency of the compiled model, in ms, application clock."""
    p50_low_ms: float | None
    """Lower end of its interval, in ms."""
    p50_high_ms: float | None
    """Upper end, in ms."""
    estimated: bool
    """Whether the latency is an estimate."""
    ratio: PruningRatio | None
    """To the unpruned model."""
    score: float | None
    """Mean score of the compiled model; 0 to 1 for an accuracy."""
    drop: Drop | None
    """How much worse it scores than what the accuracy limit is set against."""
    parameters: int
    """Count."""
    macs: int
    """Multiply-accumulates of one sample."""
    changes: list[str]
    """What was left out in this step, in words."""
    epochs: int
    """Passes over the training data in which it was fine-tuned."""
    kept: bool
    """Whether the next step began from it; if not it was undone."""
    why: str
    """Why it was kept or undone."""


@record
class Pruning(TypedDict):
    """How the student was pruned to a latency budget."""

    target: str
    plan: str
    """Engine and precision that latencies and scores are of."""
    device: NotRequired[str]
    """The device that measured; left out where that was the machine that pruned."""
    samples: int | None
    """Samples that steps were judged on; null where no score tells what was lost."""
    budget_ms: float | None
    """Median latency to reach, in ms."""
    budget: str
    """Where the budget is from, in words."""
    max_drop_points: float | None
    """Largest drop allowed, in points; null: any."""
    criterion: str
    """What channels and blocks were chosen by."""
    estimate: str | None
    """How latencies were estimated; null where they were measured."""
    stopped: str
    """Why it ended."""
    best: int
    """Number of the step that was taken."""
    seconds: float
    """Wall-clock time, in seconds."""
    table: PruningTable | None
    steps: list[PruningStep]
    """Every step, those undone included, in order."""
    notes: list[str]
    """What could not be pruned and why, and moves left out because they are not shown faster."""
