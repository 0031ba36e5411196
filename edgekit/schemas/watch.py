"""What ``edgekit watch --json`` prints as types, for its published schema; :mod:`edgekit.runtime` writes it."""

from __future__ import annotations

from typing import Literal

from typing_extensions import NotRequired, TypedDict

from edgekit.reporting.evidence import record


@record
class BundleName(TypedDict):
    """The bundle that runs."""

    id: str
    name: str
    target: str
    engine: str
    precision: str


@record
class Compared(TypedDict):
    """What values are compared with."""

    source: Literal["calibration", "test"]
    samples: int
    """How many."""
    window: NotRequired[int]
    """Samples that have to be looked at before drift and saturation are told."""


@record
class Recent(TypedDict):
    """What happened between two lines of the process that wrote the last one."""

    seconds: float
    """Between them."""
    queries: int
    """Answered."""
    failed: int
    """Not answered."""
    taken: int
    """Frames that a stream took."""
    dropped: int
    """Frames that it dropped."""
    latency: dict[str, int]
    """Queries by bucket; buckets grow by a quarter of a doubling from 10 µs, and limits are edges too."""
    looked_at: int
    """Values of inputs and outputs that were looked at."""
    not_finite: int
    """Of these, NaN or infinite."""
    restarts: int
    """Processes that began in the time, but the first."""


@record
class Latency(TypedDict):
    """All latencies of the process by bucket."""

    sum_s: float
    """Their sum in seconds."""
    counts: dict[str, int]


@record
class Tensor(TypedDict):
    """The last values of one input or output."""

    samples: int
    """How many samples are in the windows that drift and saturation are told of."""
    values: int
    """How many values of each channel are in them."""
    drift: list[float] | None
    """Population stability index of each channel; null until a window is full."""
    saturated: list[float] | None
    """Share of the values of each channel outside what calibration saw, likewise."""
    looked_at: int
    """Values that were looked at since the process began."""
    not_finite: int
    """Of these, NaN or infinite."""


@record
class State(TypedDict):
    """The last line that the process wrote; counts are since it began."""

    kind: Literal["state", "end", "failed"]
    """"end": it ended as it should; "failed": an error that nobody caught ended it."""
    error: NotRequired[str]
    """Which error, by its type."""
    run: str
    """Names the process."""
    seq: int
    """Number of the line."""
    time: float
    """The wall clock, in seconds since 1970; nothing depends on it."""
    at_s: float
    """The clock since boot, in seconds."""
    up_s: float
    """Seconds since the watch began."""
    boot: str
    """Names the machine's boot."""
    queries: int
    """Answered."""
    failed: int
    """Not answered."""
    taken: int
    """Frames that a stream took."""
    dropped: int
    """Frames that it dropped."""
    untimed: int
    """Queries whose clock was set back."""
    sampled: int
    """Queries whose values were looked at."""
    write_failures: int
    """Times that the watch could not write."""
    latency: Latency
    memory_mb: float | None
    """Resident memory of the process."""
    memory_peak_mb: float | None
    memory_available_mb: float | None
    """What the machine has left."""
    temperature_c: float | None
    """Hottest sensor, in °C."""
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]


@record
class JudgedLimit(TypedDict):
    """One limit of the bundle and what was found."""

    name: str
    limit: float
    """What is allowed."""
    found: float | None
    """Null where it is not known."""
    status: Literal["met", "beyond", "unknown"]
    note: str
    """Of what."""


@record
class WatchReading(TypedDict):
    """What a watch's folder says now."""

    schema_version: Literal[1]
    folder: str
    bundle: BundleName
    statistics: Compared | None
    """Null where the bundle has none."""
    state: Literal["running", "ended", "failed", "silent", "unknown"]
    """"silent": longer without a line than its limit; "unknown": another boot or machine wrote it."""
    age_s: float | None
    """Seconds since its last line; null where another machine or boot wrote it."""
    recent: Recent
    latency_ms: dict[str, float | None]
    """Percentiles of the last seconds, by the names of limits."""
    last: State
    limits: list[JudgedLimit]
    broken_lines: int
    """Lines that cannot be read."""
    exit_code: int
    """0 every limit met, 3 one is beyond, 4 none is and one is not known."""
