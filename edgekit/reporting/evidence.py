"""What is known of a candidate, as types: the proof of its numbers, and what its measuring process gave.

The published JSON Schemas are made of these types (``python -m edgekit.schemas``), their descriptions of the text under
each field. A key that is not required came later: files of before lack it. Times are in ms of wall clock unless their
name says otherwise; MB are 10^6 bytes.
"""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, with_config
from typing_extensions import NotRequired, TypedDict

# JSON as it was written: no unknown keys, no number read from text, no NaN.
record = with_config(ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True))


@record
class Drop(TypedDict):
    """How much worse an artifact scores than its reference, in points (0.01 of the score); below zero: better."""

    points: float
    """The drop found, in points."""
    low: float
    """Lower end of its interval, in points."""
    high: float
    """Upper end of its interval, in points; the limit is judged by it."""
    n: int
    """Samples."""
    disagreements: int | None
    """Samples on which the two differ; null where the metric has no score a sample."""
    confidence: float
    """Coverage of the interval, 0 to 1."""


@record
class PlacedOperator(TypedDict):
    """How many nodes of one kind the engine ran in one precision."""

    op: str
    """Operator."""
    precision: str
    """What it ran in, by the engine's own record."""
    compute: bool
    """Whether it is a convolution or a matrix product."""
    count: int
    """Nodes."""
    macs: NotRequired[int | None]
    """Multiply-accumulates of all of them in one query; null where the engine's record does not tell."""
    time_us: NotRequired[float | None]
    """Time spent in all of them in one query, in µs; null where the engine's record does not tell."""


@record
class Proof(TypedDict):
    """What is known of a candidate's numbers, before any timing."""

    samples: int
    """Samples that were run."""
    engine: str
    """The engine that ran them."""
    reference_db: float
    """Worst signal-to-noise ratio of an output against the fp32 student, in dB."""
    max_error: float
    """Largest absolute difference of an output, in the output's unit."""
    broken: str | None
    """Why it must not ship."""
    metric: str | None
    """Name of the score."""
    teacher: float | None
    """The teacher's mean score; 0 to 1 for an accuracy."""
    student: float | None
    """The fp32 student's."""
    artifact: float | None
    """The candidate's."""
    drop: Drop | None
    """From the teacher."""
    drop_from_fp32: Drop | None
    """From the fp32 student."""
    held_out: bool
    """Whether an accuracy limit may be judged on these samples."""
    placement: list[PlacedOperator]
    """What the engine really ran."""
    int8_share: float | None
    """Share of convolutions and matrix products run in int8, 0 to 1."""
    int8_share_macs: NotRequired[float | None]
    """Share of their multiply-accumulates, 0 to 1; null where the engine's record does not tell."""
    int8_share_time: NotRequired[float | None]
    """Share of the time of all nodes, 0 to 1; null where the engine's record does not tell."""
    ran_in_float: NotRequired[list[str]]
    """Nodes that are quantised in the file and that the engine ran in float, as far as names tell."""
    placed_there: NotRequired[bool]
    """Whether the engine's record is of the device that measured, and not of the machine that deployed."""


@record
class Percentile(TypedDict):
    """One percentile of a clock's latencies, with its one-sided bounds at the summary's confidence."""

    ms: float
    """Point estimate, in ms: a latency that was seen."""
    upper_ms: float
    """Upper bound, in ms; limits are judged by it."""
    lower_ms: float | None
    """Lower bound, in ms; null where the queries are too few for one."""
    effective_n: float
    """How many independent queries the bounds rest on."""


@record
class Summary(TypedDict):
    """Latencies of one clock."""

    n: int
    """Queries kept."""
    effective_n: float
    """How many independent queries they are worth, autocorrelation accounted for."""
    autocorrelation: float
    """Correlation of successive latencies (lag 1), -1 to 1."""
    cv: float
    """Coefficient of variation: standard deviation over mean, no unit."""
    mean_ms: float
    """Arithmetic mean, in ms."""
    min_ms: float
    """Shortest, in ms."""
    max_ms: float
    """Longest, in ms."""
    confidence: float
    """One-sided confidence of every bound, 0 to 1."""
    percentiles: dict[str, Percentile]
    """By percentile as text ("50.0", "99.9"); those that the queries cannot support are absent."""


@record
class WarmUp(TypedDict):
    """Queries before the steady stretch; they are in no figure."""

    queries: int
    """How many came before the change point that was found; 0: steady from the start."""
    settled: bool
    """False where no steady stretch was found in the time allowed."""
    ms: list[float]
    """The first 200 latencies of the warm-up, in ms, rounded; the first query is not among them."""


@record
class Histogram(TypedDict):
    """Distribution of the application clock's latencies."""

    edges_ms: list[float]
    """k + 1 ascending edges, in ms."""
    counts: list[int]
    """k counts of queries."""
    below: int
    """Queries below the first edge."""
    above: int
    """Queries above the last edge."""


@record
class Timeline(TypedDict):
    """The application clock's latencies in slices of time, 120 at most."""

    seconds: list[float]
    """Start of each slice, in seconds since the first turn began."""
    p50_ms: list[float]
    """Median of each slice, in ms."""
    p90_ms: list[float]
    """90th percentile of each slice, in ms."""
    max_ms: list[float]
    """Longest of each slice, in ms."""


@record
class HostState(TypedDict):
    """The host at one moment; null where the system does not tell. Clocks are means of the CPUs that may be used."""

    governor: str
    """cpufreq governor, several joined by "+", or "unknown"."""
    frequency_mhz: float | None
    """Present clock, in MHz."""
    min_frequency_mhz: float | None
    """Lowest clock that the settings allow, in MHz."""
    max_frequency_mhz: float | None
    """Highest clock that the settings allow, in MHz."""
    hardware_max_mhz: float | None
    """Highest clock that the CPUs are made for, in MHz."""
    temperature_c: float | None
    """Hottest thermal zone, in degrees Celsius."""
    throttle_count: int | None
    """Times the CPUs throttled since boot."""
    throttled: list[str] | None
    """What holds the clocks down at this moment, in words."""
    throttled_since_boot: list[str] | None
    """What has held them down since boot, in words."""
    load_average: float | None
    """Processes running or ready, mean of one minute."""
    memory_available_mb: float | None
    """Memory that can be had without swapping, in MB."""


@record
class Conditions(TypedDict):
    """What the host was like around the timed turns; null where the system does not tell."""

    before: HostState
    """As the timed turns began."""
    after: HostState
    """As they ended."""
    seconds: float
    """Time between the two, in seconds."""
    other_load: float | None
    """Share of the allowed CPUs' time that processes other than ours used, 0 to 1."""
    steal: float | None
    """Share of the time in which they had work that the hypervisor took, 0 to 1."""
    waited: float | None
    """Share of our threads' time in which they stood ready and no CPU ran them, 0 to 1."""
    cpu_limit: float | None
    """CPUs that the container may use; null: no limit, or not told."""
    periods: int | None
    """Periods over which the container's CPU limit was kept."""
    throttled_periods: int | None
    """Periods in which the container was stopped by its CPU limit."""
    memory_limit_mb: float | None
    """Memory that the container may use, in MB; null: no limit, or not told."""


@record
class Figures(TypedDict):
    """What was measured of one artifact; raw latencies stay in the run's folder."""

    status: Literal["ok", "crashed", "hung", "failed", "refused"]
    """"ok"; otherwise how it ended: the process died, was silent for too long, the engine failed, or the profile's
    percentiles cannot be supported in the longest time."""
    reason: str | None
    """Why it is not "ok"."""
    started_at: str
    """Start of the measurement, ISO 8601, UTC."""
    engine_version: str | None
    """Engine build; null where it never opened."""
    turns: int
    """Turns in which it was measured."""
    load_ms: float | None
    """Longest cold load, in ms."""
    cold_load_ms: list[float]
    """Every cold load, in ms: a fresh process, engine import included, the files in the page cache."""
    cached_load_ms: list[float]
    """Loads from the engine's own cache in fresh processes, in ms; empty where the engine has none."""
    first_inference_ms: float | None
    """Longest first query, in ms."""
    first_inferences_ms: list[float]
    """First query of every fresh process, in ms."""
    peak_memory_mb: dict[str, float | None]
    """Peak resident memory by phase, in MB; null where the system does not tell."""
    highest_memory_mb: float | None
    """The highest of them, in MB."""
    warm_up: WarmUp
    application: Summary | None
    """The application clock: pre- and postprocessing and copies included. Limits are judged by it."""
    engine: Summary | None
    """The engine's clock, the same queries."""
    drift: str | None
    """Why the latencies are not one steady process; null where they are."""
    spoiled: str | None
    """Why the host spoiled the run; null where it did not."""
    caveats: list[str]
    """What a reader must know of the host and what does not spoil the run."""


@record
class Measured(Figures):
    """What was measured of one artifact, with the pictures' figures."""

    conditions: Conditions | None
    """What the host was like."""
    histogram: Histogram | None
    timeline: Timeline | None
