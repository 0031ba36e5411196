"""The report of a run as plain JSON values; what is printed is made from it and from nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgekit.artifact import read_json, to_json
from edgekit.candidate import Candidate
from edgekit.places import Place
from edgekit.profiling.load import LoadSpec
from edgekit.reporting.measurement import measured_report
from edgekit.reporting.model import Report
from edgekit.reporting.validation import validate_report
from edgekit.searching import Trial
from edgekit.specs import Profile, Target
from edgekit.verdict import Verdict

REPORT_JSON = "report.json"
REPORT_MD = "report.md"
REPORT_HTML = "report.html"


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
    steps: Sequence[Mapping[str, Any]],
    trials: Sequence[Trial] = (),
    place: Place | None = None,
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
        steps: What each step gained and lost (:mod:`edgekit.gains`).
        trials: What ``auto`` tried on samples of its own.
        place: The device that measured; None: the machine of the run did.
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
        "candidates": [candidate_report(c, profile.load_spec(), shipped=c is shipped) for c in candidates],
        "steps": [dict(step) for step in steps],
        "trials": [trial_report(trial) for trial in trials],
        **({} if place is None else {"device": {"name": place.name, "host": to_json(place.host)}}),
    }


def trial_report(trial: Trial) -> dict[str, Any]:
    """One plan that was tried, as the report keeps it."""
    proof = trial.proof
    return {
        "plan": str(trial.plan),
        "within": trial.within,
        "db": None if proof is None else proof.reference_db,
        "drop": None if proof is None else to_json(proof.drop),
        "drop_from_fp32": None if proof is None else to_json(proof.drop_from_fp32),
        "samples": None if proof is None else proof.samples,
        "failure": trial.failure or (proof.broken if proof else None),
    }


def candidate_report(candidate: Candidate, load: LoadSpec, *, shipped: bool) -> dict[str, Any]:
    """One row of a report."""
    artifact, verdict = candidate.artifact, candidate.verdict
    return {
        "engine": candidate.plan.engine,
        "precision": candidate.plan.precision,
        "plan": str(candidate.plan),
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
        "measured": measured_report(candidate.measured, load),
    }


def limits_report(verdict: Verdict | None) -> list[dict[str, Any]]:
    """Every limit and what became of it."""
    return [to_json(result) for result in verdict.limits] if verdict else []


def load_report(run: Path) -> Report:
    """Reads the report of a finished run.

    Raises:
        BundleError: There is none.
        SpecError: It is something else, damaged, or of another schema.
    """
    path = run / REPORT_JSON if run.is_dir() else run
    return validate_report(read_json(path), path)
