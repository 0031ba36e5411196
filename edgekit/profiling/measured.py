"""What one measuring process gave: raw latencies and resources, saved as JSON and one array file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgekit.artifact import Array, read_json, to_json, write_json
from edgekit.errors import MeasurementError
from edgekit.profiling.conditions import Conditions, parse_conditions
from edgekit.profiling.host import Host
from edgekit.runtime.placement import Placement, parse_placement

Status = Literal["ok", "crashed", "hung", "failed", "refused"]

MEASURED_FILE = "measured.json"
LATENCIES_FILE = "latencies.npy"
WARM_UP_FILE = "warm_up.npy"
PHASES = ("load", "first_inference", "warm_up", "steady")
_TUPLES = ("cold_load_ms", "cached_load_ms", "first_inferences_ms", "turn_sizes", "turn_started_s")


def _no_latencies() -> Array:
    return np.empty(0, dtype=np.float64)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measured:
    """Raw latencies and resources of one artifact on one host.

    Attributes:
        status: ``ok``; ``crashed`` (the process died), ``hung`` (silent for too long and ended), ``failed`` (the
            engine refused, raised, or gave NaN or infinity), or ``refused`` (a percentile asked for needs more
            time than the load allows; the timed run never began).
        reason: Why it is not ``ok``, else None.
        artifact_sha256: What was measured.
        load_ms: The longest of ``cold_load_ms``.
        cold_load_ms: Opening the artifact, importing its engine included, each in a fresh process. The files are in
            the system's page cache; what the engine keeps for itself is not used.
        cached_load_ms: The same from the engine's own cache, filled before; empty where the engine has none.
        cached_load_note: Why there is none though the engine has a cache, else None.
        first_inference_ms: The longest of ``first_inferences_ms``.
        first_inferences_ms: The first query after each cold load, application clock.
        warm_up_ms: Queries after the first inference and before the turns, application clock, float64 [w].
        warm_up_queries: How many of them come before the change point: 0 where latency was steady from the start.
        warm_up_settled: Whether a steady stretch was found in the time allowed.
        application_ms: Kept latencies, application clock, float64 [n]; the first of each turn is not in it.
        engine_ms: The same queries, engine clock.
        dropped_ms: The first query of each turn, float64 [turns]; application clock.
        turn_sizes: Kept queries of each turn, in order; their sum is n.
        turn_started_s: Start of each turn, in seconds since the run's first turn, anyone's, began.
        peak_memory_mb: Peak resident memory by phase (``PHASES``), None where the system does not tell.
        size_mb: Bytes of the artifact's files, in 10^6.
        host: Where it ran.
        engine_version: Engine build, or None when it never opened.
        turns: How many turns.
        conditions: What the machine did during the turns; None where a process drove itself, or never got that far.
        started_at: Start of the measurement, ISO 8601, UTC.
        placement: How the engine ran its golden samples there; None where that was not asked, or is not known.
        unread: Why it was asked and is not known, else None.
    """

    status: Status
    reason: str | None = None
    artifact_sha256: str
    load_ms: float | None = None
    cold_load_ms: tuple[float, ...] = ()
    cached_load_ms: tuple[float, ...] = ()
    cached_load_note: str | None = None
    first_inference_ms: float | None = None
    first_inferences_ms: tuple[float, ...] = ()
    warm_up_ms: Array = field(default_factory=_no_latencies)
    warm_up_queries: int = 0
    warm_up_settled: bool = True
    application_ms: Array = field(default_factory=_no_latencies)
    engine_ms: Array = field(default_factory=_no_latencies)
    dropped_ms: Array = field(default_factory=_no_latencies)
    turn_sizes: tuple[int, ...] = ()
    turn_started_s: tuple[float, ...] = ()
    peak_memory_mb: Mapping[str, float | None] = field(default_factory=dict)
    size_mb: float
    host: Host
    engine_version: str | None = None
    turns: int = 0
    conditions: Conditions | None = None
    started_at: str
    placement: Placement | None = None
    unread: str | None = None


def split_turns(latencies_ns: npt.NDArray[np.int64], queries: tuple[int, ...]) -> dict[str, Any]:
    """The fields of :class:`Measured` that follow from raw latencies.

    Args:
        latencies_ns: int64, shape [queries of all turns, 2]: application clock, engine clock.
        queries: Queries of each turn, the first of each included.

    Raises:
        MeasurementError: The array does not hold that many queries.
    """
    if latencies_ns.dtype != np.int64 or latencies_ns.shape != (sum(queries), 2):
        raise MeasurementError(
            "the latencies do not fit the turns",
            found=f"{latencies_ns.dtype}{list(latencies_ns.shape)}",
            allowed=f"int64[{sum(queries)}, 2]",
        )
    firsts = np.cumsum([0, *queries[:-1]]) if queries else np.empty(0, dtype=np.int64)
    kept = np.delete(latencies_ns, firsts, axis=0) / 1e6
    return {
        "application_ms": np.ascontiguousarray(kept[:, 0]),
        "engine_ms": np.ascontiguousarray(kept[:, 1]),
        "dropped_ms": latencies_ns[firsts, 0] / 1e6,
        "turn_sizes": tuple(count - 1 for count in queries),
        "turns": len(queries),
    }


def save_measured(measured: Measured, folder: Path) -> None:
    """Writes ``measured.json``, ``latencies.npy`` and ``warm_up.npy`` into ``folder``, making it where needed.

    The arrays are float64 in ms: [n, 2], application clock and engine clock; [w], application clock.
    """
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / LATENCIES_FILE, np.stack([measured.application_ms, measured.engine_ms], axis=1))
    np.save(folder / WARM_UP_FILE, measured.warm_up_ms)
    arrays = ("application_ms", "engine_ms", "warm_up_ms")
    fields = {f.name: getattr(measured, f.name) for f in dataclasses.fields(measured) if f.name not in arrays}
    write_json(folder / MEASURED_FILE, to_json(fields | {"dropped_ms": measured.dropped_ms.tolist()}))


def load_measured(folder: Path) -> Measured:
    """Reads what :func:`save_measured` wrote.

    Raises:
        BundleError: ``measured.json`` is missing or not JSON.
        MeasurementError: A field or the latencies are missing or damaged.
    """
    raw = read_json(folder / MEASURED_FILE)
    latencies = read_latencies(folder / LATENCIES_FILE, columns=2)
    try:
        return Measured(
            **parse_fields(raw)
            | {"application_ms": latencies[:, 0].copy(), "engine_ms": latencies[:, 1].copy()}
            | {"warm_up_ms": read_latencies(folder / WARM_UP_FILE)}
            | {"dropped_ms": np.array(raw["dropped_ms"], dtype=np.float64)}
        )
    except (KeyError, TypeError, ValueError) as exc:
        raise MeasurementError(
            f"{folder / MEASURED_FILE}: not a measurement", found=f"{type(exc).__name__}: {exc}", fix="measure again"
        ) from exc


def read_latencies(path: Path, columns: int | None = None) -> Array:
    """Reads an array of latencies, shape [n], or [n, columns].

    Raises:
        MeasurementError: The file is missing, damaged, or of another shape.
    """
    try:
        array: Array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as exc:
        raise MeasurementError(f"{path}: cannot be read", found=f"{type(exc).__name__}: {exc}") from exc
    wanted = () if columns is None else (columns,)
    if array.ndim != 1 + len(wanted) or array.shape[1:] != wanted:
        allowed = "shape [n]" if columns is None else f"shape [n, {columns}]"
        raise MeasurementError(f"{path}: not latencies", found=f"shape {list(array.shape)}", allowed=allowed)
    return array


def parse_fields(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The plain fields of :class:`Measured` from their JSON form; arrays are the caller's to add."""
    conditions, placement = raw.get("conditions"), raw.get("placement")
    return {
        **raw,
        **{name: tuple(raw[name]) for name in _TUPLES if name in raw},
        "conditions": None if conditions is None else parse_conditions(conditions),
        "placement": None if placement is None else parse_placement(placement),
        "host": parse_host(raw["host"]),
    }


def parse_host(raw: Mapping[str, Any]) -> Host:
    """Builds a host from its JSON form."""
    return Host(**dict(raw) | {"gpus": tuple(raw["gpus"])})
