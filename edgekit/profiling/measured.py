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
from edgekit.profiling.host import Host

Status = Literal["ok", "crashed", "hung", "failed"]

MEASURED_FILE = "measured.json"
LATENCIES_FILE = "latencies.npy"
PHASES = ("load", "first_inference", "warm_up", "steady")


def _no_latencies() -> Array:
    return np.empty(0, dtype=np.float64)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Measured:
    """Raw latencies and resources of one artifact on one host.

    Attributes:
        status: ``ok``; ``crashed`` (the process died), ``hung`` (silent for too long and ended), or ``failed`` (the
            engine refused, raised, or gave NaN or infinity).
        reason: Why it is not ``ok``, else None.
        artifact_sha256: What was measured.
        load_ms: Opening the artifact in a fresh process, importing its engine included.
        first_inference_ms: The first query, application clock.
        application_ms: Kept latencies, application clock, float64 [n]; the first of each turn is not in it.
        engine_ms: The same queries, engine clock.
        dropped_ms: The first query of each turn, float64 [turns]; application clock.
        turn_sizes: Kept queries of each turn, in order; their sum is n.
        peak_memory_mb: Peak resident memory by phase (``PHASES``), None where the system does not tell.
        size_mb: Bytes of the artifact's files, in 10^6.
        host: Where it ran.
        engine_version: Engine build, or None when it never opened.
        turns: How many turns.
        started_at: Start of the measurement, ISO 8601, UTC.
    """

    status: Status
    reason: str | None = None
    artifact_sha256: str
    load_ms: float | None = None
    first_inference_ms: float | None = None
    application_ms: Array = field(default_factory=_no_latencies)
    engine_ms: Array = field(default_factory=_no_latencies)
    dropped_ms: Array = field(default_factory=_no_latencies)
    turn_sizes: tuple[int, ...] = ()
    peak_memory_mb: Mapping[str, float | None] = field(default_factory=dict)
    size_mb: float
    host: Host
    engine_version: str | None = None
    turns: int = 0
    started_at: str


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
    """Writes ``measured.json`` and ``latencies.npy`` into ``folder``, making it where needed.

    The array is float64 [n, 2] in ms: application clock, engine clock.
    """
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / LATENCIES_FILE, np.stack([measured.application_ms, measured.engine_ms], axis=1))
    arrays = ("application_ms", "engine_ms")
    fields = {f.name: getattr(measured, f.name) for f in dataclasses.fields(measured) if f.name not in arrays}
    write_json(folder / MEASURED_FILE, to_json(fields | {"dropped_ms": measured.dropped_ms.tolist()}))


def load_measured(folder: Path) -> Measured:
    """Reads what :func:`save_measured` wrote.

    Raises:
        BundleError: ``measured.json`` is missing or not JSON.
        MeasurementError: A field or the latencies are missing or damaged.
    """
    raw = read_json(folder / MEASURED_FILE)
    latencies = read_latencies(folder / LATENCIES_FILE)
    try:
        return Measured(
            **dict(raw)
            | {"application_ms": latencies[:, 0].copy(), "engine_ms": latencies[:, 1].copy()}
            | {"dropped_ms": np.array(raw["dropped_ms"], dtype=np.float64)}
            | {"turn_sizes": tuple(raw["turn_sizes"]), "host": parse_host(raw["host"])}
        )
    except (KeyError, TypeError, ValueError) as exc:
        raise MeasurementError(
            f"{folder / MEASURED_FILE}: not a measurement", found=f"{type(exc).__name__}: {exc}", fix="measure again"
        ) from exc


def read_latencies(path: Path) -> Array:
    """Reads an array of latencies, shape [n, 2].

    Raises:
        MeasurementError: The file is missing, damaged, or of another shape.
    """
    try:
        array: Array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as exc:
        raise MeasurementError(f"{path}: cannot be read", found=f"{type(exc).__name__}: {exc}") from exc
    if array.ndim != 2 or array.shape[1] != 2:
        raise MeasurementError(f"{path}: not latencies", found=f"shape {list(array.shape)}", allowed="shape [n, 2]")
    return array


def parse_host(raw: Mapping[str, Any]) -> Host:
    """Builds a host from its JSON form."""
    return Host(**dict(raw) | {"gpus": tuple(raw["gpus"])})
