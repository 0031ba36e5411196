"""What a bundle says of how it is watched on a device, and the limits it must keep there."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgekit.errors import BundleError, UnknownName

# Percentiles of latency, 0 to 1: at most so many of 1 may be over their limit.
PERCENTILES = {"p50_ms": 0.5, "p90_ms": 0.9, "p95_ms": 0.95, "p99_ms": 0.99, "p999_ms": 0.999}
LIMITS = {
    **{name: f"{100 * share:g}% of the queries take at most so many ms" for name, share in PERCENTILES.items()},
    "failed_share": "share of the queries that fail",
    "dropped_share": "share of the frames that are dropped",
    "memory_mb": "resident memory of the process, MB",
    "temperature_c": "hottest sensor, °C",
    "drift": "population stability index of an input's channel",
    "output_drift": "the same of an output's channel",
    "saturated_share": "share of an input channel's values outside what calibration saw",
    "not_finite_share": "share of the values looked at that are NaN or infinite",
    "restarts": "times that the process began anew",
    "silence_s": "seconds without a line while it runs",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchSettings:
    """How a bundle is watched.

    Attributes:
        every: Values of inputs and outputs are looked at in one query of so many.
        period_s: Seconds from one line to the next.
        window_s: Seconds over which latencies, failures and drops are judged.
        limits: By name of ``LIMITS``; what has none is shown and not judged.
    """

    every: int = 8
    period_s: float = 10.0
    window_s: float = 300.0
    limits: Mapping[str, float] = field(default_factory=lambda: {"silence_s": 30.0})


def parse_settings(raw: Mapping[str, Any] | None, where: Path) -> WatchSettings:
    """Builds settings from a manifest's ``watch``; None (an earlier bundle): the usual ones, and a limit of silence.

    Raises:
        BundleError: They are not what edgekit writes.
    """
    if raw is None:
        return WatchSettings()
    try:
        every, limits = raw["every"], raw["limits"]
        if type(every) is not int or every < 1:
            raise ValueError(f"every = {every!r}, which is no number of queries")
        if not isinstance(limits, Mapping):
            raise ValueError(f"limits = {limits!r}, which is no table")
        settings = WatchSettings(
            every=every,
            period_s=_number("period_s", raw["period_s"]),
            window_s=_number("window_s", raw["window_s"]),
            limits={str(name): _number(f"limits.{name}", value) for name, value in limits.items()},
        )
    except (KeyError, ValueError, OverflowError) as exc:
        raise BundleError(
            f"{where}: how it is watched cannot be read",
            found=f"no {exc}" if isinstance(exc, KeyError) else str(exc),
            fix="copy the bundle again, or make it again",
        ) from exc
    for name in limits:
        if name not in LIMITS:
            raise UnknownName("limit of watch", name, LIMITS, str(where))
    return settings


def _number(name: str, value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError(f"{name} = {value!r}, which is no number")
    if name != "limits.temperature_c" and (value < 0 or (value == 0 and not name.startswith("limits."))):
        raise ValueError(f"{name} = {value!r}, which is too small")
    return float(value)
