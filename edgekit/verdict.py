"""The verdict: every limit of the profile against what was proven and measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgekit.checking import Proof
from edgekit.profiling.measured import Measured
from edgekit.profiling.statistics import lower_bound, percentile, queries_needed, upper_bound
from edgekit.specs import PERCENTILES, Profile

Status = Literal["pass", "fail", "inconclusive", "not measured"]
EXIT_BY_STATUS: dict[Status, int] = {"pass": 0, "fail": 3, "inconclusive": 4, "not measured": 4}
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
        note: How many samples, or why it is not decided.
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
    is beyond it, and is inconclusive between the two. Accuracy passes, fails or is inconclusive likewise on the
    paired 95% interval of the drop. Load time, first inference, memory and size are single observations. What was
    measured on a host that is not the target is shown, and decides nothing.

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
    results += [_latency(measured, q, allowed, not_measured) for q, allowed in limits.percentiles().items()]
    seen: dict[str, float | None] = {
        "load_ms": measured.load_ms if measured else None,
        "first_inference_ms": measured.first_inference_ms if measured else None,
        "peak_memory_mb": peak_memory_mb(measured),
        "size_mb": size_mb,
    }
    for name, value in seen.items():
        allowed = getattr(limits, name)
        if allowed is not None:
            results.append(_observation(name, value, allowed, measured, not_measured))
    status: Status = next((s for s in _WORST_FIRST if any(r.status == s for r in results)), "pass")
    if measured is not None and measured.status != "ok":
        status = "fail"  # whatever the limits are, it did not run
    elif not_measured and status == "pass":
        status = "not measured"  # a profile without timing limits still says nothing of this target's latency
    return Verdict(status=status, limits=tuple(results), reason=_reason(status, results, measured, not_measured))


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


def _latency(measured: Measured | None, q: float, allowed: float, not_measured: str | None) -> LimitResult:
    name = PERCENTILES[q]
    if measured is None or measured.status != "ok":
        return _undecided(name, allowed, measured, not_measured)
    latencies = measured.application_ms
    low, high = lower_bound(latencies, q), upper_bound(latencies, q)
    status: Status = "inconclusive"
    if not_measured:
        status = "not measured"
    elif high is not None and high <= allowed:
        status = "pass"
    elif low is not None and low > allowed:
        status = "fail"
    short = f", {queries_needed(q)} needed" if high is None else ""
    return LimitResult(
        limit=name,
        allowed=allowed,
        value=percentile(latencies, q),
        low=low,
        high=high,
        status=status,
        note=f"99%, n = {len(latencies)}{short}",
    )


def _observation(
    name: str, value: float | None, allowed: float, measured: Measured | None, not_measured: str | None
) -> LimitResult:
    if value is None:
        return _undecided(name, allowed, measured, not_measured)
    status: Status = "pass" if value <= allowed else "fail"
    if not_measured and name != "size_mb":
        status = "not measured"
    return LimitResult(
        limit=name,
        allowed=allowed,
        value=value,
        low=None,
        high=None,
        status=status,
        note="" if name == "size_mb" else "observed once",
    )


def _undecided(name: str, allowed: float, measured: Measured | None, not_measured: str | None) -> LimitResult:
    """A limit nothing was seen for: off the target, a process that died, or a figure the system does not give."""
    status: Status = (
        "not measured" if not_measured else "fail" if measured and measured.status != "ok" else "inconclusive"
    )
    # Why nothing could be measured is the verdict's reason, and the same for every limit.
    why = "" if not_measured else (measured.reason if measured else None) or "not known on this system"
    return LimitResult(limit=name, allowed=allowed, value=None, low=None, high=None, status=status, note=why)


def _reason(status: Status, results: list[LimitResult], measured: Measured | None, not_measured: str | None) -> str:
    if measured is not None and measured.status != "ok":
        return measured.reason or measured.status
    if status == "not measured":
        return f"not measured: {not_measured}"
    if status == "pass":
        return "every limit is met" if results else "the profile sets no limit"
    names = ", ".join(r.limit for r in results if r.status == status)
    return {"fail": f"not met: {names}", "inconclusive": f"not decided: {names}"}[status]
