"""Timing a finished bundle on this machine, and judging it again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.artifact import GOLDEN_FILE, Array, Manifest, to_json
from edgekit.catalog import load_profile, load_target
from edgekit.errors import EngineMissing, SpecError, UnknownName
from edgekit.profiling.host import this_host
from edgekit.profiling.measure import measure
from edgekit.progress import Progress, silent
from edgekit.reporting.report import limits_report, measured_report
from edgekit.runtime import missing
from edgekit.runtime.bundle import artifact_of
from edgekit.runtime.manifest import read_manifest
from edgekit.specs import Profile, Target, mismatch, parse
from edgekit.verdict import EXIT_BY_STATUS, judge


def profile_bundle(
    path: Path, name: str | None = None, folders: Sequence[Path] = (), progress: Progress = silent
) -> dict[str, Any]:
    """Measures a bundle here with its golden samples and judges it.

    Latencies are measured on any host that can run it, and are worth looking at; the verdict is given only where
    the host is the bundle's target. Accuracy is the one proven when the bundle was made and is not judged again.

    Args:
        path: The bundle's folder.
        name: A profile; None: the one the bundle was deployed with.
        folders: Folders of the user's own targets and profiles.
        progress: Where it tells how far it is.

    Returns:
        ``bundle``, ``target``, ``profile``, ``status``, ``reason``, ``exit_code``, ``limits``, ``measured``, ``host``.

    Raises:
        BundleError: The bundle is damaged.
        SpecError: The profile's batch is not the bundle's.
        EngineMissing: Its engine cannot run here.
    """
    manifest = read_manifest(path)
    profile = load_profile(name, folders) if name else _recorded_profile(manifest)
    if profile.load.batch != manifest.batch:
        raise SpecError(
            f"profile {profile.name!r} asks for batch {profile.load.batch}",
            found=f"a bundle compiled for batch {manifest.batch}",
            fix="choose a profile with that batch, or deploy again with this profile",
        )
    reason = missing(manifest.engine)
    if reason is not None:
        raise EngineMissing(f"engine {manifest.engine!r} cannot run here", found=reason)
    artifact = artifact_of(path, manifest)
    measured = measure(
        artifact,
        profile.load_spec(),
        _golden_inputs(path, manifest),
        progress=progress,
    )
    target = _target(manifest, folders)
    elsewhere = mismatch(target, this_host())
    asked = profile.model_copy(update={"limits": profile.limits.model_copy(update={"max_drop_points": None})})
    verdict = judge(None, measured, asked, size_mb=artifact.size_bytes / 1e6, not_measured=None)
    status = "not measured" if elsewhere else verdict.status
    return {
        "bundle": {
            "name": manifest.name,
            "id": manifest.id,
            "engine": manifest.engine,
            "precision": manifest.precision,
        },
        "target": manifest.target,
        "profile": profile.name,
        "status": status,
        "reason": f"not measured on the target: {elsewhere}" if elsewhere else verdict.reason,
        "exit_code": EXIT_BY_STATUS[status],
        "limits": limits_report(verdict),
        "measured": measured_report(measured),
        "host": to_json(this_host()),
    }


def _recorded_profile(manifest: Manifest) -> Profile:
    raw = dict(manifest.timings).get("profile")
    if not isinstance(raw, dict):
        raise SpecError("the bundle does not say what it was deployed for", fix="give --profile NAME")
    return parse(Profile, raw | {"limits": {k: v for k, v in raw["limits"].items() if v is not None}}, "manifest.json")


def _target(manifest: Manifest, folders: Sequence[Path]) -> Target:
    """The bundle's target; one this machine's catalogue does not know cannot be this machine."""
    try:
        target = load_target(manifest.target, folders)
    except UnknownName as exc:
        exc.args = (f"the bundle's target: {exc}",)
        raise
    recorded = dict(manifest.timings).get("host")
    if target.from_host and isinstance(recorded, dict):
        # `local` means the machine the bundle was made for, not whichever one this is.
        return target.model_copy(update={"cpu_model": recorded["cpu_model"], "isa": recorded["isa"]})
    return target


def _golden_inputs(path: Path, manifest: Manifest) -> dict[str, Array]:
    prefix = "input/"
    with np.load(path / GOLDEN_FILE, allow_pickle=False) as archive:
        return {key.removeprefix(prefix): archive[key] for key in archive.files if key.startswith(prefix)}
