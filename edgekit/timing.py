"""Timing a finished bundle on this machine, and judging it again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from edgekit.artifact import GOLDEN_FILE, MANIFEST_FILE, Array, Manifest, to_json
from edgekit.catalog import load_profile, load_target
from edgekit.checking import parse_proof
from edgekit.devices.address import Address
from edgekit.devices.device import opened
from edgekit.devices.measuring import GRACE_S, measure_on
from edgekit.devices.verifying import needed_mb
from edgekit.errors import EngineMissing, MeasurementError, SpecError
from edgekit.places import Place, host_of, lacks
from edgekit.profiling.in_numpy import InNumpy
from edgekit.profiling.measure import measure_in_turns
from edgekit.progress import Progress, silent
from edgekit.reporting.measurement import measured_report
from edgekit.reporting.model import REPORT_SCHEMA_VERSION
from edgekit.reporting.report import limits_report
from edgekit.runtime.bundle import artifact_of
from edgekit.runtime.golden import INPUT, RAW, load_golden
from edgekit.runtime.manifest import read_manifest
from edgekit.specs import Profile, Target, mismatch, parse
from edgekit.verdict import EXIT_BY_STATUS, check_clock, judge


def profile_bundle_on(
    address: Address,
    path: Path,
    name: str | None = None,
    folders: Sequence[Path] = (),
    *,
    wheels: bool = False,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Measures a bundle on a device and judges it; see :func:`profile_bundle`.

    Raises:
        DeviceError: The device cannot be used, or has another architecture than the bundle's target.
    """
    manifest = read_manifest(path)
    target = _target(manifest.target, manifest.timings, folders)
    opening = opened(
        address,
        target,
        manifest.engine,
        wheels=[manifest.engine] if wheels else (),
        memory_mb=needed_mb(path, manifest),
        grace_s=GRACE_S,
        progress=progress,
    )
    with opening as device:
        place = Place(
            name=device.name,
            host=device.host,
            builds={manifest.engine: device.look.packages.get(manifest.engine, "unknown")},
            lacking={},
            measure=partial(measure_on, device),
        )
        return profile_bundle(path, name, folders, progress, place=place)


def profile_bundle(
    path: Path,
    name: str | None = None,
    folders: Sequence[Path] = (),
    progress: Progress = silent,
    *,
    place: Place | None = None,
) -> dict[str, Any]:
    """Measures a bundle with its golden samples and judges it.

    Latencies are measured on any host that can run it, and are worth looking at; the verdict is given only where the
    host is the bundle's target. An engine that crashes, hangs or gives NaN is a failed verdict. Accuracy is the one
    proven when the bundle was made, judged by the profile's limit.

    Args:
        path: The bundle's folder.
        name: A profile; None: the one the bundle was deployed with.
        folders: Folders of the user's own profiles, and of targets for a bundle that does not say its own.
        progress: Where it tells how far it is.
        place: The device that measures; None: this machine does.

    Returns:
        ``bundle``, ``target``, ``profile``, ``status``, ``reason``, ``exit_code``, ``limits``, ``measured``, ``host``.

    Raises:
        BundleError: The bundle is damaged.
        SpecError: The profile's batch is not the bundle's.
        MeasurementError: A percentile needs longer than the profile's ``max_seconds``.
        EngineMissing: The bundle's engine cannot execute here.
    """
    manifest = read_manifest(path)
    recorded = dict(manifest.timings)
    profile = load_profile(name, folders) if name else _recorded_profile(recorded)
    check_clock(profile)
    elsewhere = mismatch(_target(manifest.target, recorded, folders), host_of(place))
    if elsewhere is not None and place is not None:
        elsewhere = elsewhere.replace("this host", place.name)
    _check_ready(manifest, profile, place)
    artifact = artifact_of(path, manifest)
    load, feeds = profile.load_spec(), golden_feeds(path, manifest)
    measure = measure_in_turns if place is None else place.measure
    measured = measure([artifact], load, feeds, in_numpy=[in_numpy_of(manifest)], progress=progress)[0]
    if measured.status == "refused":
        raise MeasurementError(f"profile {profile.name!r} asks for more than its time allows", found=measured.reason)
    verdict = judge(
        parse_proof(manifest.accuracy), measured, profile, size_mb=artifact.size_bytes / 1e6, not_measured=elsewhere
    )
    found = {
        "status": verdict.status,
        "reason": verdict.reason,
        "exit_code": EXIT_BY_STATUS[verdict.status],
        "limits": limits_report(verdict),
        "measured": measured_report(measured, load),
    }
    return _described(manifest, profile, place) | found


def _described(manifest: Manifest, profile: Profile, place: Place | None) -> dict[str, Any]:
    """What was measured, what for, and where."""
    return {
        "kind": "profile",
        "schema_version": REPORT_SCHEMA_VERSION,
        "bundle": {
            "name": manifest.name,
            "id": manifest.id,
            "engine": manifest.engine,
            "precision": manifest.precision,
        },
        "target": manifest.target,
        "profile": profile.name,
        "host": to_json(host_of(place)),
        **({} if place is None else {"device": {"name": place.name, "host": to_json(place.host)}}),
    }


def _check_ready(manifest: Manifest, profile: Profile, place: Place | None) -> None:
    if profile.load.batch != manifest.batch:
        raise SpecError(
            f"profile {profile.name!r} asks for batch {profile.load.batch}",
            found=f"a bundle compiled for batch {manifest.batch}",
            fix="choose a profile with that batch, or deploy again with this profile",
        )
    lacking = lacks(place, manifest.engine)
    if lacking is not None:
        raise EngineMissing(f"engine {manifest.engine!r} cannot run here", found=lacking)


def _recorded_profile(recorded: Mapping[str, Any]) -> Profile:
    raw = recorded.get("profile")
    if not isinstance(raw, dict):
        raise SpecError("the bundle does not say what it was deployed for", fix="give --profile NAME")
    return parse(Profile, raw, MANIFEST_FILE)


def _target(name: str, recorded: Mapping[str, Any], folders: Sequence[Path]) -> Target:
    """The target as it was when the bundle was made: ``local`` means that machine, not whichever one this is."""
    raw = recorded.get("target")
    return parse(Target, raw, MANIFEST_FILE) if isinstance(raw, dict) else load_target(name, folders)


def in_numpy_of(manifest: Manifest) -> InNumpy:
    """What is done in numpy around the runs of a bundle."""
    return InNumpy(preprocessing=manifest.preprocessing, postprocessing=manifest.postprocessing, labels=manifest.labels)


def golden_feeds(path: Path, manifest: Manifest) -> dict[str, Array]:
    """A bundle's golden inputs; raw where they are preprocessed, so that the application clock has all it should."""
    golden = load_golden(path / GOLDEN_FILE, manifest, raw=True)
    feeds = {spec.name: golden[INPUT + spec.name] for spec in manifest.inputs}
    if manifest.preprocessing is None:
        return feeds
    name = manifest.preprocessing.input
    return feeds | {name: golden[RAW + name]}
