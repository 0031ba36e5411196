"""The verdict: every limit of the profile against what was proven and measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgekit.artifact import Array
from edgekit.checking import Proof
from edgekit.errors import SpecError
from edgekit.profiling.clock import clock_step_ns
from edgekit.profiling.conditions import spoiled
from edgekit.profiling.dependence import drift
from edgekit.profiling.load import LoadSpec
from edgekit.profiling.measured import Measured
from edgekit.profiling.statistics import Bounds, bounds_or_stretches, extremes, percentile, queries_to_settle
from edgekit.specs import PERCENTILES, Profile

Status = Literal["pass", "fail", "inconclusive", "not measured"]
EXIT_BY_STATUS: dict[Status, int] = {"pass": 0, "fail": 3, "inconclusive": 4, "not measured": 4}
# Where latencies are not those of one steady process, the slowest of so many stretches must be within the limit, or the
# fastest beyond it, by this factor.
DRIFT_MARGIN = 2.0
_LEVELS = {name: q for q, name in PERCENTILES.items()}
_RAN_BADLY = ("crashed", "hung", "failed")
_WORST_FIRST: tuple[Status, ...] = ("fail", "inconclusive", "not measured", "pass")


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitResult:
    """One limit and what became of it.

    Attributes:
        limit: Its name, e.g. ``p99_ms``.
        allowed: Its value.
        value: What was seen: a point estimate.
        low: Lower end of what is true with the stated confidence, None where one observation is all there is.
        high: Upper end; the gate.
        status: Whether it is met.
        note: How many samples (after ≈: how many independent ones they are worth), or why it is not decided.
    """

    limit: str
    allowed: float
    value: float | None
    low: float | None
    high: float | None
    status: Status
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The worst of all limits, and each of them."""

    status: Status
    limits: tuple[LimitResult, ...]
    reason: str

    @property
    def accuracy_failed(self) -> bool:
        """Whether the accuracy interval lies wholly beyond its limit: such an artifact is not bundled."""
        return any(r.limit == "max_drop_points" and r.status == "fail" for r in self.limits)


def judge(
    proof: Proof | None, measured: Measured | None, profile: Profile, *, size_mb: float, not_measured: str | None
) -> Verdict:
    """Judges one candidate.

    A percentile passes when its distribution-free 99% upper bound is within the limit, fails when its lower bound
    is beyond it, and is inconclusive between the two. Where latencies never settled, drifted during the run, or hang
    together so much that there is no bound, the limit must be met by twice in the slowest twentieth of the run, or
    missed by twice in the fastest. Times of a run that was spoiled decide nothing. Accuracy passes, fails or is
    inconclusive on the paired 95% interval of the drop. Load time and first inference are the longest of a few fresh
    processes; memory and size are observed once. What was measured on a host that is not the target is shown, and
    decides nothing.

    Args:
        proof: Numbers and score; None where nothing is known of them, so that an accuracy limit is not decided.
        measured: Latencies and resources, or None.
        profile: The limits.
        size_mb: Size of the artifact, in 10^6 bytes.
        not_measured: Why nothing measured here holds for the target, or None.
    """
    results: list[LimitResult] = []
    limits = profile.limits
    if limits.max_drop_points is not None:
        results.append(_accuracy(proof, limits.max_drop_points))
    doubt = _doubt_of(measured, profile.load_spec())
    results += [_latency(measured, q, allowed, not_measured, doubt) for q, allowed in limits.percentiles().items()]
    seen: dict[str, float | None] = {
        "load_ms": measured.load_ms if measured else None,
        "first_inference_ms": measured.first_inference_ms if measured else None,
        "peak_memory_mb": peak_memory_mb(measured),
        "size_mb": size_mb,
    }
    for name, value in seen.items():
        allowed = getattr(limits, name)
        if allowed is not None:
            results.append(_observation(name, value, allowed, measured, not_measured, doubt))
    status: Status = next((s for s in _WORST_FIRST if any(r.status == s for r in results)), "pass")
    if measured is not None and measured.status != "ok":
        # Whatever the limits are: it did not run, or was not let run.
        status = "fail" if measured.status in _RAN_BADLY else "inconclusive"
    elif not_measured and status == "pass":
        status = "not measured"  # a profile without timing limits still says nothing of this target's latency
    undecided = status == "inconclusive" and (measured is None or measured.status == "ok")
    reason = _why_open(results, measured, doubt) if undecided else _reason(status, results, measured, not_measured)
    return Verdict(status=status, limits=tuple(results), reason=reason)


def check_clock(profile: Profile) -> None:
    """Refuses a budget that the clock of this host cannot tell from nothing.

    Raises:
        SpecError: A limit in ms is below the smallest step of the clock.
    """
    step_ms = clock_step_ns() / 1e6
    for name, allowed in profile.limits:
        if name.endswith("_ms") and allowed is not None and allowed < step_ms:
            raise SpecError(
                f"profile {profile.name!r}: {name} is below the clock's resolution",
                found=f"{allowed:g} ms",
                allowed=f"{step_ms:.2g} ms or more on this host",
                fix=f"limits are in milliseconds: is {allowed:g} meant in seconds?",
            )


def _doubt_of(measured: Measured | None, load: LoadSpec) -> str | None:
    """Why no time of a run decides anything, whatever it is; None where the run is as it should be."""
    if measured is None or measured.status != "ok" or measured.conditions is None:
        return None
    return spoiled(measured.conditions, load)


def _unsteady(measured: Measured) -> str | None:
    """Why latencies are not those of one steady process; None where nothing speaks against it."""
    if not measured.warm_up_settled:
        return f"latencies never settled in a warm-up of {len(measured.warm_up_ms)} queries"
    return drift(measured.application_ms)


def peak_memory_mb(measured: Measured | None) -> float | None:
    """The highest peak of all phases, in MB; None where unknown."""
    peaks = [mb for mb in (measured.peak_memory_mb.values() if measured else ()) if mb is not None]
    return max(peaks) if peaks else None


def _accuracy(proof: Proof | None, allowed: float) -> LimitResult:
    drop = proof.drop if proof else None
    if drop is None:
        return LimitResult(
            limit="max_drop_points",
            allowed=allowed,
            value=None,
            low=None,
            high=None,
            status="inconclusive",
            note="no data to judge by",
        )
    status: Status = "pass" if drop.high <= allowed else "fail" if drop.low > allowed else "inconclusive"
    note = f"{drop.confidence:.0%}, n = {drop.n}"
    if proof is not None and not proof.held_out and status == "pass":
        # Samples that were chosen or calibrated by flatter: what misses the limit on them misses it anywhere.
        status, note = "inconclusive", f"{note}, not held out"
    return LimitResult(
        limit="max_drop_points",
        allowed=allowed,
        value=drop.points,
        low=drop.low,
        high=drop.high,
        status=status,
        note=note,
    )


def _latency(
    measured: Measured | None, q: float, allowed: float, not_measured: str | None, doubt: str | None
) -> LimitResult:
    name = PERCENTILES[q]
    if measured is None or measured.status != "ok":
        return _undecided(name, allowed, measured, not_measured)
    latencies = measured.application_ms
    bounds = bounds_or_stretches(latencies, q)
    status: Status = "inconclusive"
    if not_measured:
        status = "not measured"
    elif not doubt:
        status = _against(allowed, measured, q, bounds)
    worth = round(bounds.effective_n)
    note = f"99%, n {'≈' if worth < len(latencies) else '='} {worth}"
    return LimitResult(
        limit=name,
        allowed=allowed,
        value=percentile(latencies, q),
        low=bounds.lower_ms,
        high=bounds.upper_ms,
        status=status,
        note=note,
    )


def _against(allowed: float, measured: Measured, q: float, bounds: Bounds) -> Status:
    """Where a limit lies: beyond the bounds, or between them."""
    low, high, margin = bounds.lower_ms, bounds.upper_ms, 1.0
    if bounds.by_stretch:
        margin = DRIFT_MARGIN
    elif _unsteady(measured) is not None:
        (low, high), margin = extremes(measured.application_ms, q), DRIFT_MARGIN
    if high is not None and high * margin <= allowed:
        return "pass"
    return "fail" if low is not None and low > allowed * margin else "inconclusive"


def _observation(
    name: str,
    value: float | None,
    allowed: float,
    measured: Measured | None,
    not_measured: str | None,
    doubt: str | None,
) -> LimitResult:
    if value is None:
        return _undecided(name, allowed, measured, not_measured)
    status: Status = "pass" if value <= allowed else "fail"
    if not_measured and name != "size_mb":
        status = "not measured"
    elif doubt and name.endswith("_ms"):
        status = "inconclusive"
    return LimitResult(
        limit=name,
        allowed=allowed,
        value=value,
        low=None,
        high=None,
        status=status,
        note=_times_observed(name, measured),
    )


def _times_observed(name: str, measured: Measured | None) -> str:
    if name == "size_mb":
        return ""
    processes = len(measured.cold_load_ms) if measured and name != "peak_memory_mb" else 1
    return "observed once" if processes <= 1 else f"longest of {processes}"


def _undecided(name: str, allowed: float, measured: Measured | None, not_measured: str | None) -> LimitResult:
    """A limit nothing was seen for: off the target, a process that died, or a figure the system does not give."""
    status: Status = (
        "not measured" if not_measured else "fail" if measured and measured.status in _RAN_BADLY else "inconclusive"
    )
    # Why nothing could be measured is the verdict's reason, and the same for every limit.
    why = "" if not_measured else (measured.reason if measured else None) or "not known on this system"
    return LimitResult(limit=name, allowed=allowed, value=None, low=None, high=None, status=status, note=why)


def _more_queries(measured: Measured, q: float, allowed: float) -> str:
    """What would settle a limit that lies between the bounds."""
    latencies = measured.application_ms
    more = queries_to_settle(latencies, q, allowed)
    if more is None:
        return "too close to the limit for more queries to settle it"
    total = len(latencies) + more
    return f"about {more:,} more queries would settle it: min_count = {total}, {_seconds(latencies, total)} s in all"


def _seconds(latencies_ms: Array, count: int) -> str:
    return f"{count * float(latencies_ms.mean()) / 1e3:.3g}"


def _why_open(results: list[LimitResult], measured: Measured | None, doubt: str | None) -> str:
    """Why limits are not decided, and what would settle them."""
    reasons = []
    for result in results:
        q = _LEVELS.get(result.limit)
        if result.status != "inconclusive":
            continue
        if q is None or measured is None or measured.status != "ok":
            reasons.append(f"{result.limit} ({result.note})")
        elif not doubt:
            reasons.append(f"{result.limit} ({_unsteady(measured) or _more_queries(measured, q, result.allowed)})")
        else:
            reasons.append(result.limit)
    return f"not decided: {', '.join(reasons)}" + (f"; {doubt}" if doubt else "")


def _reason(status: Status, results: list[LimitResult], measured: Measured | None, not_measured: str | None) -> str:
    if measured is not None and measured.status != "ok":
        return measured.reason or measured.status
    if status == "not measured":
        return f"not measured: {not_measured}"
    if status == "pass":
        return "every limit is met" if results else "the profile sets no limit"
    return f"not met: {', '.join(r.limit for r in results if r.status == 'fail')}"
