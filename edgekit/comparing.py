"""``edgekit compare``: which of several bundles, ONNX files or earlier reports is faster, and by how much."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from edgekit import __version__
from edgekit.artifact import to_json
from edgekit.errors import MeasurementError
from edgekit.places import Place, host_of
from edgekit.profiling import comparison
from edgekit.profiling.comparison import Ratio, Stretch, compare_apart, compare_in_turns, slices_of, split_turns
from edgekit.profiling.conditions import spoiled
from edgekit.profiling.dependence import drift
from edgekit.profiling.load import COMPARED_TURN_S, FEWEST_TURN_QUERIES, LoadSpec
from edgekit.profiling.measure import measure_in_turns
from edgekit.profiling.measured import Measured
from edgekit.profiling.statistics import percentile, summarise
from edgekit.progress import Progress, silent
from edgekit.reporting.compared import COMPARISON_SCHEMA_VERSION
from edgekit.reporting.comparison import TIMES
from edgekit.side_inputs import Inputs, check_same_inputs, inputs_of
from edgekit.sides import (
    DEFAULT_ENGINE,
    Side,
    batch_of,
    bundle_beside,
    check_same_kind,
    open_side,
    ready,
)

PERCENTILES = (50.0, 90.0, 99.0)
# What finds a 3% slowdown in 95 of 100 runs on a noisy machine: tests/bench/bench_comparison.py.
DEFAULT_SECONDS = 15.0
MOST_SECONDS = 60.0
NOT_IN_TURNS = (
    "not in turns: the sides were measured at different times, so whatever changed on the machine in between is in the "
    "ratio, and its interval does not cover it"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to compare.

    Attributes:
        engine: What ONNX files run on.
        threads: The engine's threads for ONNX files; None: its own choice.
        batch: Samples a query; None: what the bundles are compiled for, else 1.
        samples: An ``.npz`` file to feed; None: golden samples, else random ones.
        seconds: Shortest time under load of a side.
        percentiles: Percentiles that must be compared and are judged, beside the median.
        target: Which target of a report of several.
        in_turns: Whether a baseline's bundle, where it still lies beside the report, is measured anew.
        max_regression: How much slower than the base a side may be, 0.05 is 5%; None: nothing is judged.
    """

    engine: str = DEFAULT_ENGINE
    threads: int | None = None
    batch: int | None = None
    samples: Path | None = None
    seconds: float = DEFAULT_SECONDS
    percentiles: tuple[float, ...] = ()
    target: str | None = None
    in_turns: bool = True
    max_regression: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Tried:
    """A side and what its measurement gave."""

    label: str
    side: Side
    measured: Measured | None
    spoiled: str | None

    @property
    def failure(self) -> str | None:
        if self.side.failure is not None or self.measured is None:
            return self.side.failure
        return None if self.measured.status == "ok" else f"{self.measured.status}: {self.measured.reason}"


def compare(
    paths: Sequence[Path],
    *,
    baseline: Path | None = None,
    settings: Settings | None = None,
    place: Place | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Compares latencies with those of a base: the baseline, or the first path.

    Bundles and ONNX files are measured here, or on a device, in turns. Reports are taken as they are: not in turns,
    which is said. Accuracy is not compared.

    Args:
        paths: Bundles, ``.onnx`` files, runs or reports; two at least, or one beside a baseline.
        baseline: A report, run, bundle or ONNX file to compare all with. A report's bundle is measured in its place
            where it still lies beside it, unless ``settings.in_turns`` is False.
        settings: How to compare; None: the defaults.
        place: The device that measures; None: this machine does.
        progress: Where it tells how far it is.

    Returns:
        What ``--json`` writes: ``sides`` with what became of each, ``pairs`` with ratios, ``status``, ``reason``,
        ``exit_code`` (0 compared and within the limit, 1 nothing could be compared, 3 a regression, 4 inconclusive).

    Raises:
        BundleError: A bundle is damaged, or there is nothing at a path.
        SpecError: A report is of another schema or kind.
        MeasurementError: Reports of different models, targets, batches or hosts, or a setting is out of range.
        FeedError: The sides do not take the same inputs.
    """
    chosen = settings or Settings()
    notes: list[str] = [] if place is None else [f"measured on the device {place.name}"]
    sides = [open_side(path, target=chosen.target, place=place) for path in paths]
    if baseline is not None:
        sides.insert(0, _baseline(baseline, chosen, notes, place))
    if len(sides) < 2:
        raise MeasurementError("there is nothing to compare with", found=str(sides[0].path) if sides else "no paths")
    batch = batch_of(sides, chosen.batch)
    load = _load(chosen, batch, len(sides))
    with tempfile.TemporaryDirectory(prefix="edgekit-compare-") as folder:
        sides = [
            ready(side, Path(folder) / str(i), engine=chosen.engine, threads=chosen.threads, batch=batch, place=place)
            for i, side in enumerate(sides)
        ]
        for side in sides[1:]:
            if side.kind == "report" or sides[0].kind == "report":
                check_same_kind(sides[0], side)
        tried, inputs = _measure(sides, load, chosen, place, progress)
    pairs = [_pair(tried[0], other, len(tried), chosen, load) for other in tried[1:]]
    return _result(tried, pairs, load, chosen, inputs, notes) | {"host": to_json(host_of(place))}


def _baseline(path: Path, chosen: Settings, notes: list[str], place: Place | None) -> Side:
    """The base: a report's own bundle where it can be measured anew, else what ``path`` is."""
    side = open_side(path, target=chosen.target, place=place)
    if side.kind != "report":
        return side
    beside = bundle_beside(path, chosen.target) if chosen.in_turns else None
    if beside is None:
        why = "asked for" if not chosen.in_turns else "its bundle does not lie beside it any more"
        notes.append(f"the baseline's figures are those of the report ({why})")
        return side
    found = open_side(beside, place=place)
    if found.failure is not None:
        notes.append(f"the baseline's figures are those of the report ({found.failure})")
        return side
    notes.append(f"the baseline's bundle {beside} lies beside its report and was measured anew, in turns")
    return replace(found, path=beside)


def _load(chosen: Settings, batch: int, sides: int) -> LoadSpec:
    """Enough rounds for an interval on the median however slow or quick a query is, and queries for what was asked."""
    rounds = 2 * comparison.rounds_needed() * (1 if sides == 2 else sides)
    # A quick model would have its seconds in a few long turns; a time that is none is left for the load to refuse.
    seconds = max(chosen.seconds, rounds * COMPARED_TURN_S) if chosen.seconds > 0 else -1.0
    counts = [rounds * (FEWEST_TURN_QUERIES - 1), *(comparison.queries_needed(q) for q in chosen.percentiles)]
    return LoadSpec(
        scenario="single_stream" if batch == 1 else "batch",
        batch=batch,
        min_seconds=seconds,
        max_seconds=max(MOST_SECONDS, seconds),
        min_count=max(counts),
        percentiles=chosen.percentiles,
        shortest_turn_s=COMPARED_TURN_S,
        cold_loads=1,  # how long an engine takes to load is not compared
    )


def _measure(
    sides: Sequence[Side], load: LoadSpec, chosen: Settings, place: Place | None, progress: Progress
) -> tuple[list[_Tried], Inputs | None]:
    """Measures in turns what can be measured."""
    live = [side for side in sides if side.artifact is not None and side.failure is None]
    inputs, measurements = None, []
    if live:
        check_same_inputs(live)
        inputs = inputs_of(live, chosen.samples, load.batch)
        artifacts = [side.artifact for side in live if side.artifact is not None]
        measure = measure_in_turns if place is None else place.measure
        measurements = measure(artifacts, load, inputs.feeds, in_numpy=inputs.in_numpy, progress=progress)
    results = iter(measurements)
    tried = []
    for index, side in enumerate(sides):
        measured = next(results) if side in live else None
        conditions = measured.conditions if measured else None
        why = spoiled(conditions, load) if conditions else (side.recorded or {}).get("spoiled")
        label = chr(ord("A") + index) if index < 26 else str(index + 1)
        tried.append(_Tried(label=label, side=side, measured=measured, spoiled=why))
    return tried, inputs


def _pair(base: _Tried, other: _Tried, sides: int, chosen: Settings, load: LoadSpec) -> dict[str, Any]:
    """One side against the base: ratios, what was found, and what that means for the limit."""
    in_turns = base.measured is not None and other.measured is not None
    found: dict[str, Any] = {"base": base.label, "other": other.label, "in_turns": in_turns}
    failed = [f"{tried.label} {tried.failure}" for tried in (base, other) if tried.failure is not None]
    if failed:
        why = "; ".join(failed)
        return found | {"ratios": [], "unsupported": {}, "finding": "not compared", "status": None, "reason": why}
    ratios: dict[float, Ratio] = {}
    unsupported: dict[float, str] = {}
    for q in sorted({*PERCENTILES, *chosen.percentiles}):
        ratio = _in_turns(base, other, q, sides) if in_turns else _apart(base, other, q)
        if ratio is None:
            unsupported[q] = _why_unsupported(base, other, q, load)
        else:
            ratios[q] = ratio
    median = ratios.get(50.0)
    status, reason = _judged(ratios, unsupported, (base, other), chosen)
    return found | {
        "ratios": [to_json(ratio) | {"finding": ratio.finding} for ratio in ratios.values()],
        "unsupported": {str(q): why for q, why in unsupported.items()},
        "finding": median.finding if median else "not compared",
        "status": status,
        "reason": reason,
    }


def _in_turns(base: _Tried, other: _Tried, q: float, sides: int) -> Ratio | None:
    first, second = (
        split_turns(tried.measured.application_ms, tried.measured.turn_sizes)
        for tried in (base, other)
        if tried.measured is not None
    )
    return compare_in_turns(first, second, q, sides=sides)


def _apart(base: _Tried, other: _Tried, q: float) -> Ratio | None:
    first, second = _stretch(base, q), _stretch(other, q)
    return None if first is None or second is None else compare_apart(first, second, q)


def _stretch(tried: _Tried, q: float) -> Stretch | None:
    """One percentile of a side with its bounds and that of its slices; None where its queries do not support it."""
    if tried.measured is not None:
        latencies = tried.measured.application_ms
        known = summarise(latencies, (q,)).percentiles.get(q)
        if known is None:
            return None
        slices = slices_of(split_turns(latencies, tried.measured.turn_sizes), q)
        return Stretch(ms=known.ms, low_ms=known.lower_ms, high_ms=known.upper_ms, slices_ms=slices)
    assert tried.side.recorded is not None
    found = {float(k): v for k, v in tried.side.recorded["application"]["percentiles"].items()}.get(q)
    if found is None:
        return None
    timeline: Mapping[str, Any] = tried.side.recorded["timeline"] or {}
    slices = tuple(timeline.get(f"p{q:g}_ms", ()))
    return Stretch(ms=found["ms"], low_ms=found["lower_ms"], high_ms=found["upper_ms"], slices_ms=slices)


def _why_unsupported(base: _Tried, other: _Tried, q: float, load: LoadSpec) -> str:
    """How many queries there are and how many it takes, of the side that has fewer."""
    if base.measured is None or other.measured is None:
        return f"p{q:g}: a side has too few queries for bounds"
    fewer = min((base.measured, other.measured), key=lambda measured: len(measured.application_ms))
    have, need = len(fewer.application_ms), comparison.queries_needed(q)
    seconds = max(load.min_seconds, float(fewer.application_ms.sum()) / 1e3) * max(1.5, 1.2 * need / max(1, have))
    return f"p{q:g}: {have:,} queries, at least {need:,} asked; try --seconds {seconds:.0f}"


def _judged(
    ratios: Mapping[float, Ratio], unsupported: Mapping[float, str], both: Sequence[_Tried], chosen: Settings
) -> tuple[str | None, str]:
    """Status of a pair and why: a spoiled run decides nothing, nor do sides that drift apart across the limit."""
    whys = {tried.spoiled: " and ".join(t.label for t in both if t.spoiled == tried.spoiled) for tried in both}
    spoils = [f"the run of {labels} was spoiled: {why}" for why, labels in whys.items() if why]
    drifts = [(tried.label, (tried.side.recorded or {}).get("drift")) for tried in both]
    spoils += [f"{label} drifted: {why}" for label, why in drifts if why]
    limit = 1 + (chosen.max_regression or 0.0)
    judged = sorted({50.0, *chosen.percentiles})
    known = [ratios[q] for q in judged if q in ratios]
    doubts = [unsupported[q] for q in judged if q in unsupported]
    doubts += [_unsettled(ratio) for ratio in known if not ratio.settled and ratio.low <= limit < ratio.high]
    over = [ratio for ratio in known if ratio.low > limit and chosen.max_regression is not None]
    if spoils or (doubts and not over):
        return "inconclusive", "; ".join(spoils + doubts)
    if chosen.max_regression is None:
        return None, ""
    if over:
        shown = ", ".join(f"p{r.percentile:g} {r.ratio:.3f}{TIMES} [{r.low:.3f}, {r.high:.3f}]" for r in over)
        return "fail", f"slower than {chosen.max_regression:.4g} allows: {shown}"
    return "pass", f"no interval lies above {limit:.4g}{TIMES}"


def _unsettled(ratio: Ratio) -> str:
    what = "ratios of successive rounds" if ratio.in_turns else "slices of a run"
    return f"p{ratio.percentile:g}: {what} stay correlated ({ratio.autocorrelation:.2f}); measure for longer"


def _result(
    tried: Sequence[_Tried],
    pairs: Sequence[Mapping[str, Any]],
    load: LoadSpec,
    chosen: Settings,
    inputs: Inputs | None,
    notes: Sequence[str],
) -> dict[str, Any]:
    compared = [pair for pair in pairs if pair["ratios"]]
    statuses = {pair["status"] for pair in pairs}
    status, exit_code = ("compared", 0) if chosen.max_regression is None else ("pass", 0)
    if not compared:
        status, exit_code = "failed", 1
    elif "fail" in statuses:
        status, exit_code = "fail", 3
    elif "inconclusive" in statuses or len(compared) < len(pairs):
        status, exit_code = "inconclusive", 4
    return {
        "kind": "comparison",
        "schema_version": COMPARISON_SCHEMA_VERSION,
        "edgekit_version": __version__,
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "load": to_json(load),
        "inputs": inputs.source if inputs else None,
        "max_regression": chosen.max_regression,
        "judged": sorted({50.0, *chosen.percentiles}),
        "in_turns": all(pair["in_turns"] for pair in pairs),
        "not_in_turns": None if all(pair["in_turns"] for pair in pairs) else NOT_IN_TURNS,
        "sides": [_side_report(each) for each in tried],
        "pairs": [dict(pair) for pair in pairs],
        "notes": list(notes),
        "status": status,
        "exit_code": exit_code,
    }


def _side_report(tried: _Tried) -> dict[str, Any]:
    side, measured = tried.side, tried.measured
    ok = measured is not None and measured.status == "ok"
    times: dict[str, float | None] = {}
    if ok and measured is not None:
        times = {str(q): percentile(measured.application_ms, q) for q in PERCENTILES}
        queries, drifting = len(measured.application_ms), drift(measured.application_ms)
    else:
        summary = (side.recorded or {}).get("application") or {"n": 0, "percentiles": {}}
        times = {str(float(q)): found["ms"] for q, found in summary["percentiles"].items() if float(q) in PERCENTILES}
        queries, drifting = summary["n"], (side.recorded or {}).get("drift")
    return {
        "label": tried.label,
        "path": str(side.path),
        "kind": side.kind,
        "name": side.name,
        "target": side.identity.target,
        "status": "failed" if side.failure else "ok" if measured is None else measured.status,
        "reason": side.failure or (measured.reason if measured else None),
        "started_at": measured.started_at if measured else (side.recorded or {}).get("started_at"),
        "queries": queries,
        "turns": measured.turns if measured else (side.recorded or {}).get("turns", 0),
        "percentiles_ms": times,
        "spoiled": tried.spoiled,
        "drift": drifting,
    }
