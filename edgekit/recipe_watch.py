"""What a recipe says of watching its bundles on a device: the table ``[watch]``."""

from __future__ import annotations

import itertools
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
    field_validator,
)

from edgekit.specs import PERCENTILES, Strict


def _only_false(value: Any) -> Any:
    if value is not False:  # 0 == False: a limit of nought would be none
        raise ValueError("false, for none")
    return value


Share = Annotated[float, Field(ge=0, lt=1)]
Off = Annotated[Literal[False], BeforeValidator(_only_false)]


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
        saturated_share: Share of an input channel's values outside what calibration saw; None: 0.01, or more where it
            saw few.
        not_finite_share: Share of the values that are NaN or infinite.
        restarts: Times that the process begins anew within ``window_s``; None: none.
        silence_s: Seconds without a line; None: three periods.
    """

    p50_ms: PositiveFloat | Off | None = None
    p90_ms: PositiveFloat | Off | None = None
    p95_ms: PositiveFloat | Off | None = None
    p99_ms: PositiveFloat | Off | None = None
    p999_ms: PositiveFloat | Off | None = None
    failed_share: Share | Off = 0.01
    dropped_share: Share | Off | None = None
    memory_mb: PositiveFloat | Off | None = None
    temperature_c: float | Off | None = None
    drift: PositiveFloat | Off | None = None
    output_drift: PositiveFloat | Off | None = None
    saturated_share: Share | Off | None = None
    not_finite_share: Share | Off = 0.0
    restarts: NonNegativeFloat | Off | None = None
    silence_s: PositiveFloat | Off | None = None


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

    @field_validator("limits")
    @classmethod
    def _no_nonsense(cls, limits: WatchLimits, info: ValidationInfo) -> WatchLimits:
        period_s = info.data.get("period_s")
        if limits.silence_s and period_s is not None and limits.silence_s < period_s:
            raise ValueError(f"silence_s of period_s ({period_s:g}) or more: there is no line in between")
        known = [(name, value) for name in PERCENTILES.values() if (value := getattr(limits, name))]
        for (lower, low), (higher, high) in itertools.pairwise(known):
            if low > high:
                raise ValueError(f"{higher} of {lower} ({low:g}) or more: no query fewer is slower")
        return limits
