"""The report of a run as plain JSON values; what is printed is made from it and from nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgekit.artifact import read_json, to_json
from edgekit.candidate import Candidate
from edgekit.errors import SpecError
from edgekit.profiling.measured import Measured
from edgekit.profiling.statistics import summarise
from edgekit.specs import Profile, Target
from edgekit.verdict import Verdict, peak_memory_mb

REPORT_SCHEMA_VERSION = 1
REPORT_JSON = "report.json"
REPORT_MD = "report.md"


def target_report(
    target: Target,
    profile: Profile,
    candidates: Sequence[Candidate],
    shipped: Candidate | None,
    *,
    not_measured: str | None,
    exit_code: int,
    bundle: Mapping[str, str] | None,
    why: str,
) -> dict[str, Any]:
    """One target of a report.

    Args:
        target: What was deployed on.
        profile: What had to be met.
        candidates: Every try, failed ones included.
        shipped: The one that ships, or None.
        not_measured: Why nothing was timed, or None.
        exit_code: The target's own.
        bundle: ``path`` (relative to the run) and ``id`` of what was written, or None.
        why: Why this one ships, or why none does.
    """
    status = shipped.verdict.status if shipped and shipped.verdict else "fail"
    return {
        "target": target.name,
        "profile": profile.name,
        "limits": {k: v for k, v in profile.limits.model_dump().items() if v is not None},
        "load": profile.load.model_dump(),
        "threads": target.threads,
        "not_measured": not_measured,
        "status": status,
        "exit_code": exit_code,
        "bundle": dict(bundle) if bundle else None,
        "why": why,
        "candidates": [candidate_report(c, shipped=c is shipped) for c in candidates],
    }


def candidate_report(candidate: Candidate, *, shipped: bool) -> dict[str, Any]:
    """One row of a report."""
    artifact, verdict = candidate.artifact, candidate.verdict
    return {
        "engine": candidate.plan.engine,
        "precision": candidate.plan.precision,
        "scheme": candidate.plan.scheme.name if candidate.plan.scheme else None,
        "shipped": shipped,
        "status": "fail" if candidate.failure else verdict.status if verdict else "not measured",
        "reason": candidate.failure or (verdict.reason if verdict else ""),
        "failure": candidate.failure,
        "sha256": artifact.sha256 if artifact else None,
        "size_mb": artifact.size_bytes / 1e6 if artifact else None,
        "notes": list(artifact.notes) if artifact else [],
        "options": dict(artifact.options) if artifact else {},
        "proof": to_json(candidate.proof) if candidate.proof else None,
        "limits": limits_report(verdict),
        "measured": measured_report(candidate.measured),
    }


def limits_report(verdict: Verdict | None) -> list[dict[str, Any]]:
    """Every limit and what became of it."""
    return [to_json(result) for result in verdict.limits] if verdict else []


def measured_report(measured: Measured | None) -> dict[str, Any] | None:
    """What was measured, as summaries; the raw latencies stay in the run's folder."""
    if measured is None:
        return None
    ok = measured.status == "ok"
    return {
        "status": measured.status,
        "reason": measured.reason,
        "started_at": measured.started_at,
        "engine_version": measured.engine_version,
        "turns": measured.turns,
        "load_ms": measured.load_ms,
        "first_inference_ms": measured.first_inference_ms,
        "peak_memory_mb": dict(measured.peak_memory_mb),
        "highest_memory_mb": peak_memory_mb(measured),
        "application": to_json(summarise(measured.application_ms)) if ok else None,
        "engine": to_json(summarise(measured.engine_ms)) if ok else None,
    }


def load_report(run: Path) -> dict[str, Any]:
    """Reads the report of a finished run.

    Raises:
        BundleError: There is none.
        SpecError: It is of a newer schema.
    """
    path = run / REPORT_JSON if run.is_dir() else run
    report: dict[str, Any] = read_json(path)
    version = report.get("schema_version") if isinstance(report, dict) else None
    if not isinstance(version, int) or version > REPORT_SCHEMA_VERSION or "targets" not in report:
        raise SpecError(
            f"{path}: not a report this version can read",
            found=f"schema_version {version!r}",
            allowed=f"{REPORT_SCHEMA_VERSION} or older",
            fix="upgrade edgekit, or give the folder of a finished run",
        )
    return report
