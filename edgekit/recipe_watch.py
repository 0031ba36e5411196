"""What a recipe says of watching its bundles on a device: the table ``[watch]``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from edgekit.specs import Strict

Share = Annotated[float, Field(ge=0, lt=1)]


class WatchLimits(Strict):
    """Limits that a bundle must keep on its device; ``false`` takes a usual one away.

    Attributes:
        p50_ms: Median of a query's time; None: what the profile says, as of the other percentiles.
        p90_ms: 90th percentile.
        p95_ms: 95th percentile.
        p99_ms: 99th percentile.
        p999_ms: 99.9th percentile.
        failed_share: Share of the queries that fail.
        dropped_share: Share of the frames that a stream drops; None: none.
        memory_mb: Resident memory of the process; None: none.
        temperature_c: The machine's hottest sensor; None: none.
        drift: Population stability index of an input's channel; None: 0.25, or more where the calibration samples
            differ by more among themselves.
        output_drift: The same of an output's channel.
        saturated_share: Share of an input channel's values outside what calibration saw.
        not_finite_share: Share of the values that are NaN or infinite.
        restarts: Times that the process begins anew within ``window_s``; None: none.
        silence_s: Seconds without a line; None: three periods.
    """

    p50_ms: PositiveFloat | Literal[False] | None = None
    p90_ms: PositiveFloat | Literal[False] | None = None
    p95_ms: PositiveFloat | Literal[False] | None = None
    p99_ms: PositiveFloat | Literal[False] | None = None
    p999_ms: PositiveFloat | Literal[False] | None = None
    failed_share: Share | Literal[False] = 0.01
    dropped_share: Share | Literal[False] | None = None
    memory_mb: PositiveFloat | Literal[False] | None = None
    temperature_c: float | Literal[False] | None = None
    drift: PositiveFloat | Literal[False] | None = None
    output_drift: PositiveFloat | Literal[False] | None = None
    saturated_share: Share | Literal[False] = 0.01
    not_finite_share: Share | Literal[False] = 0.0
    restarts: NonNegativeFloat | Literal[False] | None = None
    silence_s: PositiveFloat | Literal[False] | None = None


class WatchSpec(Strict):
    """How bundles are watched.

    Attributes:
        statistics: Whether bundles carry what their calibration samples were like; without, nothing is said of drift.
        samples: Samples a window of drift and saturation.
        every: Values are looked at in one query of so many.
        period_s: Seconds from one line to the next.
        window_s: Seconds over which latencies, failures and drops are judged.
        limits: What must be kept.
    """

    statistics: bool = True
    samples: PositiveInt = 64
    every: PositiveInt = 8
    period_s: PositiveFloat = 10.0
    window_s: PositiveFloat = 300.0
    limits: WatchLimits = WatchLimits()
