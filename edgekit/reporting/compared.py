"""A comparison as types: what ``edgekit compare --json`` writes, schema version 1."""

from __future__ import annotations

from typing import Literal

from typing_extensions import TypedDict

from edgekit.reporting.evidence import record
from edgekit.reporting.model import ExitCode, Host

COMPARISON_SCHEMA_VERSION = 1


@record
class Ratio(TypedDict):
    """The other side's percentile over the base's; 1.12 is 12% slower."""

    percentile: float
    """Which, 0 to 100."""
    base_ms: float
    """The base's, in ms, over its whole run."""
    other_ms: float
    """The other side's, in ms."""
    ratio: float
    """The centre of the groups' ratios, no unit."""
    low: float
    """Lower end of its interval; a regression is judged by it."""
    high: float
    """Upper end of its interval."""
    confidence: float
    """Two-sided confidence of the interval, 0 to 1."""
    in_turns: bool
    """Whether both sides ran in the same rounds."""
    groups: int
    """Ratios that the interval rests on."""
    rounds_per_group: int
    """Rounds that make one of them; 0 where the sides were measured apart."""
    autocorrelation: float
    """Correlation of successive ratios (lag 1), -1 to 1."""
    settled: bool
    """False where the sides drift apart, so that no difference is called."""
    finding: Literal["slower", "faster", "no difference shown", "unsettled"]
    """What the interval says of the other side."""


@record
class Pair(TypedDict):
    """One side compared with the base."""

    base: str
    """The base's label."""
    other: str
    """The other side's label."""
    in_turns: bool
    """Whether both ran in the same rounds, on this machine."""
    ratios: list[Ratio]
    """By percentile, ascending; empty where one of the two did not run."""
    unsupported: dict[str, str]
    """Why a percentile could not be compared, by percentile as text."""
    finding: Literal["slower", "faster", "no difference shown", "unsettled", "not compared"]
    """That of the median."""
    status: Literal["pass", "fail", "inconclusive"] | None
    """Against the allowed regression; null where none was given."""
    reason: str
    """Why it has that status, or nothing."""


@record
class Side(TypedDict):
    """One of those that were compared."""

    label: str
    """"A" is the base."""
    path: str
    """As it was given."""
    kind: Literal["bundle", "onnx", "report"]
    name: str
    target: str | None
    """Null for an ONNX file."""
    status: Literal["ok", "crashed", "hung", "failed", "refused"]
    reason: str | None
    """Why it is not "ok"."""
    started_at: str | None
    """Start of its measurement, ISO 8601, UTC."""
    queries: int
    """Queries kept."""
    turns: int
    """Turns in which it was measured."""
    percentiles_ms: dict[str, float]
    """In ms, by percentile as text."""
    spoiled: str | None
    """Why the host spoiled its run."""
    drift: str | None
    """Why its latencies are not one steady process."""


@record
class LoadSpec(TypedDict):
    """How every side was driven."""

    scenario: Literal["single_stream", "batch"]
    """One query after another, or the same with full batches."""
    batch: int
    """Samples a query."""
    min_seconds: float
    """Shortest time under load of a side, in seconds."""
    max_seconds: float
    """Longest, in seconds."""
    min_count: int
    """Fewest queries kept of a side."""
    percentiles: list[float]
    """Percentiles that enough queries were asked for, beside the median."""
    turn_queries: int
    """Fewest queries of a turn."""
    shortest_turn_s: float
    """Shortest turn, in seconds."""
    cold_loads: int
    """Fresh processes in which a side was loaded."""
    timeout_s: float
    """Longest silence of a measuring process, in seconds."""
    max_other_load: float
    """Share of the CPUs' time that others may use before a run is called spoiled, 0 to 1."""


@record
class Comparison(TypedDict):
    """What `edgekit compare --json` writes: latencies of one side over those of another."""

    kind: Literal["comparison"]
    schema_version: Literal[1]
    edgekit_version: str
    created: str
    """When it ended, ISO 8601, UTC."""
    host: Host
    load: LoadSpec
    inputs: str | None
    """What was fed; null where nothing was measured here."""
    max_regression: float | None
    """How much slower than the base a side may be: 0.05 is 5%; null: nothing is judged."""
    judged: list[float]
    """Percentiles that are judged."""
    in_turns: bool
    """Whether all sides ran in the same rounds."""
    not_in_turns: str | None
    """What it means that they did not."""
    sides: list[Side]
    """The base first."""
    pairs: list[Pair]
    """Every other side with the base."""
    notes: list[str]
    """How the baseline was taken."""
    status: Literal["pass", "fail", "inconclusive", "compared", "failed"]
    """The worst of the pairs; "compared" where nothing is judged, "failed" where nothing could be compared."""
    exit_code: ExitCode
    """0 compared, 1 nothing could be compared, 3 a regression, 4 inconclusive."""
