"""The job folder: everything a measuring process needs, and what it gives back. The same folder goes to a device.

::

    JOB/job.json         load, preprocessing or null, driven
    JOB/feeds.npz        raw samples stacked, one array an input, first axis samples
    JOB/artifact/        the artifact, as `edgekit.artifact.save_artifact` writes it
    JOB/result.json      written last: how it went, resources, queries of each turn
    JOB/latencies.npy    int64 nanoseconds [n, 2]: application clock, engine clock; every query of every turn
    JOB/turns.bin        int64 nanoseconds, application clock, as each turn ends: what a parent paces turns by
    JOB/load.json        how the one load of a short process went
    JOB/verified.json    what a bundle's golden samples showed
    JOB/warm_up.npy      int64 nanoseconds [w]: application clock; queries after the first and before the turns
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgekit.artifact import Array, Artifact, check_inside, load_artifact, read_json, save_artifact, to_json, write_json
from edgekit.errors import DataError, FeedError, MeasurementError, did_you_mean
from edgekit.processing_specs import Preprocessing, parse_preprocessing
from edgekit.profiling.load import LoadSpec
from edgekit.profiling.measured import LATENCIES_FILE, WARM_UP_FILE, Measured, parse_fields, read_latencies, split_turns

JOB_FILE = "job.json"
FEEDS_FILE = "feeds.npz"
RESULT_FILE = "result.json"
TURNS_FILE = "turns.bin"
LOAD_FILE = "load.json"
VERIFIED_FILE = "verified.json"
ARTIFACT_FOLDER = "artifact"

LoadKind = Literal["cold", "cached"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One measuring process's work.

    Attributes:
        folder: The job folder.
        artifact: What is measured; its files lie in the job folder.
        load: The load generator's settings.
        preprocessing: From raw samples to model tensors, or None when the samples are model tensors.
        driven: A parent says when to take a turn, over stdin; otherwise the process drives itself.
    """

    folder: Path
    artifact: Artifact
    load: LoadSpec
    preprocessing: Preprocessing | None
    driven: bool


def write_job(job: Job, feeds: Mapping[str, Array]) -> None:
    """Writes a self-contained job folder; ``job.artifact`` is copied from where it lies.

    Args:
        job: The work; its folder is made where needed.
        feeds: Raw samples stacked, by input, first axis samples.

    Raises:
        DataError: There are no samples, their counts differ, or an array is not of numbers.
        FeedError: An input has no samples, or a name is not an input.
        BundleError: The artifact names a file outside its folder.
    """
    check_feeds(job.artifact, feeds, job.preprocessing)
    inside = job.folder / ARTIFACT_FOLDER
    for name in job.artifact.files:
        check_inside(name, job.artifact.folder)
        (inside / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(job.artifact.folder / name, inside / name)
    inside.mkdir(parents=True, exist_ok=True)
    save_artifact(dataclasses.replace(job.artifact, folder=inside))
    write_feeds(job.folder / FEEDS_FILE, feeds)
    content = {"load": job.load, "preprocessing": job.preprocessing, "driven": job.driven}
    write_json(job.folder / JOB_FILE, to_json(content))


def read_job(folder: Path) -> Job:
    """Reads what :func:`write_job` wrote.

    Raises:
        BundleError: A file is missing or not JSON.
        MeasurementError: ``job.json`` is not a job.
    """
    raw = read_json(folder / JOB_FILE)
    try:
        load = dict(raw["load"]) | {"percentiles": tuple(raw["load"]["percentiles"])}
        return Job(
            folder=folder,
            artifact=load_artifact(folder / ARTIFACT_FOLDER),
            load=LoadSpec(**load),
            preprocessing=None if raw["preprocessing"] is None else parse_preprocessing(raw["preprocessing"]),
            driven=bool(raw["driven"]),
        )
    except (KeyError, TypeError) as exc:
        raise MeasurementError(
            f"{folder / JOB_FILE}: not a measuring job",
            found=f"{type(exc).__name__}: {exc}",
            allowed="load, preprocessing, driven",
            fix="write the folder again with the same edgekit",
        ) from exc


def check_feeds(artifact: Artifact, feeds: Mapping[str, Array], preprocessing: Preprocessing | None) -> None:
    """Refuses samples that cannot feed an artifact; dtypes and shapes are the session's to judge.

    Raises:
        DataError: There are no samples, their counts differ, or an array is not of numbers.
        FeedError: An input has no samples, or a name is not an input.
    """
    known = [spec.name for spec in artifact.inputs]
    if preprocessing is not None and preprocessing.input not in known:
        raise FeedError(
            f"preprocessing is given for an unknown input {preprocessing.input!r}",
            found=repr(preprocessing.input),
            allowed=", ".join(known),
            fix=did_you_mean(preprocessing.input, known),
        )
    for name in feeds:
        if name not in known:
            raise FeedError(
                f"samples are given for an unknown input {name!r}",
                found=repr(name),
                allowed=", ".join(known),
                fix=did_you_mean(name, known),
            )
    missing = [name for name in known if name not in feeds]
    if missing:
        raise FeedError(
            f"input {missing[0]!r} has no samples", found=", ".join(feeds) or "no inputs", allowed=", ".join(known)
        )
    for name, array in feeds.items():
        if array.ndim == 0 or array.dtype.kind not in "biuf":
            raise DataError(
                f"the samples of input {name!r} cannot be fed",
                found=f"{array.dtype}{list(array.shape)}",
                allowed="an array of numbers, first axis samples",
            )
    counts = {name: len(array) for name, array in feeds.items()}
    if len(set(counts.values())) != 1 or 0 in counts.values():
        raise DataError(
            "inputs need the same number of samples, at least one",
            found=", ".join(f"{name}: {count}" for name, count in counts.items()),
        )


def read_feeds(job: Job) -> dict[str, Array]:
    """Reads the job's samples.

    Raises:
        DataError: The file is missing or damaged, or holds something other than arrays of numbers.
        FeedError: Its names are not the artifact's inputs.
    """
    path = job.folder / FEEDS_FILE
    try:
        with np.load(path, allow_pickle=False) as stored:
            feeds = {name: stored[name] for name in stored.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as exc:
        raise DataError(f"{path}: cannot be read", found=f"{type(exc).__name__}: {exc}") from exc
    check_feeds(job.artifact, feeds, job.preprocessing)
    return feeds


def write_result(
    folder: Path,
    result: Mapping[str, Any],
    latencies_ns: npt.NDArray[np.int64],
    warm_up_ns: npt.NDArray[np.int64],
) -> None:
    """Writes ``latencies.npy`` and ``warm_up.npy``, then ``result.json``, each made whole by a rename."""
    for name, array in ((LATENCIES_FILE, latencies_ns), (WARM_UP_FILE, warm_up_ns)):
        part = folder / f"{name}.part"
        with part.open("wb") as stream:
            np.save(stream, array)
        os.replace(part, folder / name)
    write_whole(folder / RESULT_FILE, result)


def write_whole(path: Path, value: Any) -> None:
    """Writes JSON that is there as a whole or not at all."""
    part = path.with_name(f"{path.name}.part")
    write_json(part, value)
    os.replace(part, path)


def read_result(folder: Path) -> Measured:
    """Reads what the measuring process of a job folder wrote.

    Raises:
        BundleError: There is no result: the process did not end on its own.
        MeasurementError: The result is not one, or does not fit the latencies.
    """
    raw = dict(read_json(folder / RESULT_FILE))
    latencies = read_latencies(folder / LATENCIES_FILE, columns=2)
    warm_up = {"warm_up_ms": read_latencies(folder / WARM_UP_FILE) / 1e6}
    try:
        queries = tuple(raw.pop("queries"))
        return Measured(**parse_fields(raw) | warm_up | split_turns(latencies, queries))
    except (KeyError, TypeError) as exc:
        raise MeasurementError(
            f"{folder / RESULT_FILE}: not the result of a measuring process", found=f"{type(exc).__name__}: {exc}"
        ) from exc


def write_feeds(path: Path, feeds: Mapping[str, Array]) -> None:
    """Writes samples as ``.npz``, uncompressed; the same samples are the same bytes."""
    # np.savez takes names as keyword arguments, so an input called "file" would collide with its own.
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in feeds.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, np.ascontiguousarray(array), allow_pickle=False)
