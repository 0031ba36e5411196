"""The measuring jobs of one run as a process of its own: it outlives who asked for it, can be asked and stopped.

::

    FOLDER/jobs.json        what is measured: where the files of each artifact lie on this machine, and the feeds
    FOLDER/<n>/job.json     as of :mod:`edgekit.profiling.job`; the files are linked to it here
    FOLDER/<n>/artifact/artifact.json
    FOLDER/running          locked while the process lives; which one it is, and of which start of the machine
    FOLDER/progress.jsonl   a line now and then; the last one, ``{"ended": …, "reason": …}``, when all is written
    FOLDER/results/<n>/     a measurement each, as `edgekit.profiling.measured.save_measured` writes it
    FOLDER/log              what the process printed, which is what it died of
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from types import FrameType
from typing import Any, NoReturn

from edgekit.artifact import Artifact, check_inside, hash_file, read_json, save_artifact, to_json, write_json
from edgekit.disk import DiskFull, folder_bytes, nearly_full
from edgekit.errors import BundleError, EdgeKitError, MeasurementError
from edgekit.profiling.child import Failure, ending, exited, started
from edgekit.profiling.following import ENDED, PROGRESS_FILE, hold
from edgekit.profiling.host import this_host
from edgekit.profiling.in_numpy import NOTHING, InNumpy
from edgekit.profiling.job import (
    ARTIFACT_FOLDER,
    FEEDS_FILE,
    JOB_FILE,
    VERIFIED_FILE,
    Job,
    check_feeds,
    read_feeds,
    read_job,
)
from edgekit.profiling.load import LoadSpec
from edgekit.profiling.measure import JOBS, measure_jobs
from edgekit.profiling.measured import Measured, save_measured
from edgekit.runtime import first_silence_s
from edgekit.runtime.manifest import read_manifest
from edgekit.runtime.placement import parse_placement

JOBS_FILE = "jobs.json"
RESULTS = "results"
DAMAGED = "damaged"  # how jobs end whose files are not those that were sent; the reason names their folders
VERIFY_STEP = "verify"
_PROGRESS_S = 0.5  # a line of progress at most so often: what writes disturbs what is measured


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """One artifact whose files lie on this machine already.

    Attributes:
        artifact: What is measured; its folder is where it lay before it was sent.
        folder: Where its files lie here.
        bundle: Whether that folder is a bundle, whose golden samples are run before anything is timed.
        in_numpy: What is done in numpy before and after a run.
    """

    artifact: Artifact
    folder: str
    bundle: bool
    in_numpy: InNumpy = NOTHING


def write_jobs(out: Path, sent: Sequence[Sent], feeds: str, load: LoadSpec) -> list[str]:
    """Writes what asks for measurements on another machine; nothing of it is large.

    Args:
        out: The folder to write into.
        sent: The artifacts.
        feeds: The folder there that holds ``feeds.npz``.
        load: The load generator's settings.

    Returns:
        The names of the files written, relative to ``out``.
    """
    names = [JOBS_FILE]
    for index, one in enumerate(sent):
        inside = out / str(index) / ARTIFACT_FOLDER
        inside.mkdir(parents=True)
        save_artifact(dataclasses.replace(one.artifact, folder=inside))
        content = {"load": load, "in_numpy": one.in_numpy, "driven": True}
        write_json(inside.parent / JOB_FILE, to_json(content))
        names += [f"{index}/{JOB_FILE}", f"{index}/{ARTIFACT_FOLDER}/artifact.json"]
    jobs = [{"folder": one.folder, "bundle": one.bundle} for one in sent]
    write_json(out / JOBS_FILE, {"feeds": feeds, "jobs": jobs})
    return names


def run_jobs(folder: Path) -> int:
    """Measures what a folder asks for, and writes progress and results beside; one process a folder, once.

    A SIGTERM or a Ctrl-C stops it: its measuring processes are ended, and the last line of progress says ``stopped``.

    Returns:
        The exit status: 0 when it ended as it should (single artifacts may have failed), 1 when not.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    if not hold(folder):
        return 0  # another process measures this, or has
    told = _Told(folder / PROGRESS_FILE)
    reason: object = None
    try:
        reason = damaged(folder)
        if not reason:
            _measure(folder, told)
        ended, reason = (DAMAGED, reason) if reason else ("ok", None)
    except KeyboardInterrupt:
        ended, reason = "stopped", "it was stopped"
    except (EdgeKitError, DiskFull) as exc:
        ended, reason = "failed", str(exc)
    told.write({ENDED: ended, "reason": reason})
    return 0 if ended == "ok" else 1


def damaged(folder: Path) -> list[str]:
    """The folders that a run's jobs name whose files are not those that were sent: disks err, and people edit.

    Raises:
        MeasurementError: The jobs cannot be read.
        BundleError: A file's name leads out of its folder.
    """
    feeds, listed = _listed(folder)
    found = [] if _hash(feeds / FEEDS_FILE) == feeds.name else [str(feeds)]
    for job, place, is_bundle in listed:
        if any(_hash(place / name) != sha256 for name, sha256 in job.artifact.files.items()):
            found.append(str(place))
        elif is_bundle:
            try:
                read_manifest(place)
            except BundleError:
                found.append(str(place))
    return found


def _listed(folder: Path) -> tuple[Path, list[tuple[Job, Path, bool]]]:
    """The folder of the samples, and of each job also where its files lie and whether they are a bundle."""
    where = folder / JOBS_FILE
    raw = read_json(where)
    try:
        feeds = Path(raw["feeds"])
        asked = [(Path(one["folder"]), bool(one["bundle"])) for one in raw["jobs"]]
    except (KeyError, TypeError) as exc:
        raise MeasurementError(
            f"{where}: not measuring jobs",
            found=f"{type(exc).__name__}: {exc}",
            allowed="feeds, and of every job its folder and whether it is a bundle",
        ) from exc
    listed = [(read_job(folder / str(index)), *one) for index, one in enumerate(asked)]
    for job, _, _ in listed:
        for name in job.artifact.files:
            check_inside(name, where)
    return feeds, listed


def _hash(path: Path) -> str | None:
    return hash_file(path) if path.is_file() else None


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


@dataclass(slots=True)
class _Told:
    """Writes progress as JSON lines: the first and the last of a step, and between them one now and then."""

    path: Path
    step: str = ""
    at_s: float = 0.0

    def __call__(self, step: str, done: int, total: int, note: str = "") -> None:
        now = monotonic()
        if step == self.step and done < total and now - self.at_s < _PROGRESS_S:
            return
        self.step, self.at_s = step, now
        self.write({"step": step, "done": done, "total": total, "note": note})

    def write(self, line: Mapping[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")


def _measure(folder: Path, told: _Told) -> None:
    jobs, bundles = _laid_out(folder)
    broken: dict[int, Measured] = {}
    placed: dict[int, dict[str, Any]] = {}
    for index, bundle in enumerate(bundles):
        if bundle is not None:
            told(VERIFY_STEP, index, len(jobs), jobs[index].artifact.engine)
            found = _verified(jobs[index], bundle)
            if isinstance(found, Failure):
                broken[index] = _not_timed(jobs[index].artifact, found)
            else:
                placed[index] = found
    if any(bundles):
        told(VERIFY_STEP, len(jobs), len(jobs))
    good = [index for index in range(len(jobs)) if index not in broken]
    results = dict(zip(good, measure_jobs([jobs[index] for index in good], told), strict=True)) | broken
    if any(result.status in ("failed", "crashed") for result in results.values()) and nearly_full(folder):
        raise DiskFull(JOBS, folder, folder_bytes(folder))  # a process that could not write cannot say so
    for index, result in results.items():
        save_measured(dataclasses.replace(result, **placed.get(index, {})), folder / RESULTS / str(index))


def _laid_out(folder: Path) -> tuple[list[Job], list[Path | None]]:
    """The job folders with their files linked to them, and of each the bundle that is verified first, or None."""
    feeds, listed = _listed(folder)
    for job, files, _ in listed:
        for name in job.artifact.files:
            _link(files / name, job.artifact.folder / name)
        _link(feeds / FEEDS_FILE, job.folder / FEEDS_FILE)
        check_feeds(job.artifact, read_feeds(job), job.in_numpy.preprocessing)
    return [job for job, _, _ in listed], [files if is_bundle else None for _, files, is_bundle in listed]


def _link(source: Path, target: Path) -> None:
    """The same file under another name, or a copy where the file system has no links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except FileNotFoundError as exc:
        raise BundleError(f"{source}: no such file", fix="send it again") from exc
    except OSError:
        shutil.copyfile(source, target)


def _verified(job: Job, bundle: Path) -> Failure | dict[str, Any]:
    """Runs a bundle's golden samples in a process of its own: what is wrong, or how its engine ran them."""
    doing = "running its golden samples"
    with started(job, "--verify", str(bundle)) as child:
        status = ending(child, doing, first_silence_s(job.artifact.engine, job.load.timeout_s))
        ended = status if isinstance(status, Failure) else exited(child, status, doing)
        try:
            found: Mapping[str, Any] = read_json(job.folder / VERIFIED_FILE)
        except BundleError:
            return ended
    if found["reason"] is not None:
        return Failure(status="failed", reason=found["reason"])
    if "placement" in found:
        return {"placement": parse_placement(found["placement"])}
    return {"unread": found.get("unread", ended.reason)}


def _not_timed(artifact: Artifact, failure: Failure) -> Measured:
    return Measured(
        status=failure.status,
        reason=failure.reason,
        artifact_sha256=artifact.sha256,
        size_mb=artifact.size_bytes / 1e6,
        host=this_host(),
        started_at="",
    )
