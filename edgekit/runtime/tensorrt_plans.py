"""Plans kept on the device they were built on: built once, used until something that they hang on changes.

A plan is for one TensorRT version and one kind of GPU. It is found again by those, the hash of the ONNX file and its
external data, and the build options; it is built anew for another driver. Its folder holds the plan and a record::

    CACHE/tensorrt/<version, GPU, model, options>/<driver>/plan.engine
                                                           plan.json    its sha256, what proved it, its layers
                                                 /lock
                   timings-<version, GPU>                               kernels' times, for builds of any model

CACHE is ``$EDGEKIT_CACHE``, else ``$XDG_CACHE_HOME/edgekit``, else ``~/.cache/edgekit``. A plan is code that runs:
the folder belongs to one user, and is refused where others may write to it.

**The last working plan.** Where a rebuild for a new driver fails, or gives a plan whose golden outputs are wrong, the
plan of the driver before is used, with a warning: TensorRT asks for the same version and GPU, not for the same driver.
It is used for the same model and options only: another model or other options are another deployment, whose plan it
never is. What is kept is removed no sooner than a newer plan has been proven.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import stat
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from edgekit.artifact import Option, hash_file, hash_json, read_json, write_json
from edgekit.disk import PARTIAL, DiskFull, filled, whole
from edgekit.errors import BundleError, EngineError
from edgekit.runtime.cuda import gpu
from edgekit.runtime.external_data import check_external_data, external_files
from edgekit.runtime.tensorrt_build import build_plan, check_build_options
from edgekit.runtime.tensorrt_module import import_tensorrt

VARIABLE = "EDGEKIT_CACHE"
PLAN_FILE, RECORD_FILE = "plan.engine", "plan.json"
_LOCK = "lock"
_OTHERS = stat.S_IWGRP | stat.S_IWOTH


class _Place(NamedTuple):
    """Where a plan is kept: the folder of its model on this device, that of its driver in there, its timings."""

    model: Path
    plan: Path
    timings: Path
    facts: dict[str, Any]


def cache_folder() -> Path:
    """Where plans are kept: see the module.

    Raises:
        EngineError: There is no home folder, and no variable that names another.
    """
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named).absolute()
    shared = os.environ.get("XDG_CACHE_HOME")
    if shared and Path(shared).is_absolute():  # others are to be ignored: XDG Base Directory Specification
        return Path(shared) / "edgekit"
    try:
        return Path.home() / ".cache" / "edgekit"
    except RuntimeError as exc:
        raise EngineError(
            "there is no folder to keep TensorRT plans in", found=str(exc), fix=f"set {VARIABLE} to a folder"
        ) from exc


def plan_for(model: Path, options: Mapping[str, Option]) -> Path:
    """The plan of a model for the GPU of this process: the one that is kept, or built now, which takes minutes.

    Of several processes that ask for the same plan one builds it, and the others wait. A session keeps the path in its
    attribute ``plan``: by that :func:`edgekit.runtime.open_bundle` checks the golden outputs of a plan that is new.

    Args:
        model: The ``.onnx`` file.
        options: As for :func:`edgekit.runtime.tensorrt_build.build_plan`.

    Returns:
        The plan's file.

    Raises:
        UnknownName: An option is unknown.
        EngineMissing: TensorRT is missing, too old or too new, or there is no usable GPU.
        EngineError: The plan cannot be built, its golden outputs were wrong, or the cache folder cannot be used.
        BundleError: The model is no ONNX file, or its external data points outside its folder.
        DiskFull: There is no room for the plan.

    Warns:
        RuntimeWarning: The last working plan is given in place of one that could not be built.
    """
    check_build_options(options)
    check_external_data(model)
    place = _place(model, options)
    _check_private(place.model)
    if _works(place.plan):
        return place.plan / PLAN_FILE
    _make_private(place.model)
    with _locked(place.model):
        if _works(place.plan):  # built meanwhile
            return place.plan / PLAN_FILE
        try:
            _check_refused(place.plan, model)
            _build(place, model, options)
        except (EngineError, DiskFull) as exc:
            last = _last_working(place)
            if last is None:
                raise
            warnings.warn(
                f"{model.name}: the plan of an earlier driver is used, for there is none of this one\n{exc}",
                RuntimeWarning,
                stacklevel=2,
            )
            return last / PLAN_FILE
    return place.plan / PLAN_FILE


def inspector_of(plan: Path) -> dict[str, Any] | None:
    """What TensorRT said of a plan's layers when it was built; None where that could not be read.

    Args:
        plan: As :func:`plan_for` gave it.
    """
    found = (_record(plan.parent) or {}).get("inspector")
    return found if isinstance(found, dict) else None


def is_proven(plan: Path, golden: str) -> bool:
    """Whether a plan's golden outputs were right under this driver.

    Args:
        plan: As :func:`plan_for` gave it.
        golden: sha256 of the golden file.
    """
    return [golden, gpu().driver] in (_record(plan.parent) or {}).get("proven", [])


def mark_proven(plan: Path, golden: str) -> None:
    """Remembers that a plan's golden outputs are right, and removes plans of earlier drivers that it replaces."""
    folder = plan.parent
    driver = gpu().driver
    # A cache that is not to be written to, as in an image of a system: the check is made again at every opening.
    with contextlib.suppress(OSError), _locked(folder.parent):
        record = _record(folder)
        if record is None:
            return
        _write_record(folder, record | {"proven": [*record["proven"], [golden, driver]]})
        if record["driver"] == driver:
            for other in _plans(folder.parent):
                if other != folder:
                    shutil.rmtree(other, ignore_errors=True)


def refuse(plan: Path, reason: str) -> None:
    """Keeps a plan from being used again: its golden outputs are wrong.

    Args:
        plan: As :func:`plan_for` gave it.
        reason: What was found.

    Raises:
        EngineError: The cache folder cannot be written to, so that it cannot be remembered.
    """
    folder = plan.parent
    try:
        with _locked(folder.parent):
            record = _record(folder)
            if record is not None:
                _write_record(folder, record | {"refused": reason})
    except OSError as exc:
        raise _unwritable(folder, exc) from exc


def _place(model: Path, options: Mapping[str, Option]) -> _Place:
    trt, device = import_tensorrt(), gpu()
    engine = {
        "tensorrt": str(trt.__version__),
        "gpu": device.name,
        "compute_capability": device.compute_capability,
    }
    hashes = {name: hash_file(model.parent / name) for name in external_files(model)}
    facts = {**engine, "model": hash_file(model), "external_data": hashes, "options": dict(options)}
    root = cache_folder() / "tensorrt"
    folder = root / hash_json(facts)[:32]
    return _Place(
        model=folder,
        plan=folder / hash_json(device.driver)[:16],
        timings=root / f"timings-{hash_json(engine)[:32]}",
        facts={**facts, "driver": device.driver},
    )


def _make_private(folder: Path) -> None:
    """Makes the folder of a model in the cache, for the user alone.

    Raises:
        EngineError: It cannot be made or written to, or others may write to it.
    """
    root = folder.parent
    try:
        root.parent.parent.mkdir(parents=True, exist_ok=True)
        for each in (root.parent, root, folder):
            each.mkdir(mode=0o700, exist_ok=True)
        (folder / _LOCK).open("a").close()
    except OSError as exc:
        raise _unwritable(root, exc) from exc
    _check_private(folder)


def _check_private(folder: Path) -> None:
    """Refuses a folder of plans that others may write to: a plan is code that runs.

    Raises:
        EngineError: It is another user's (root's may be used), or its mode lets others write.
    """
    for each in (folder.parent, folder):
        try:
            found = each.lstat()
        except OSError:  # not there yet
            return
        if found.st_uid not in (os.geteuid(), 0) or not stat.S_ISDIR(found.st_mode) or found.st_mode & _OTHERS:
            raise EngineError(
                f"{each}: TensorRT plans are not taken from there: others could change them, and they are code",
                found=f"owner {found.st_uid}, mode {stat.filemode(found.st_mode)}",
                allowed=f"owner {os.geteuid()}, mode drwx------",
                fix=f"remove it, or set {VARIABLE} to a folder of your own",
            )


def _unwritable(folder: Path, exc: OSError) -> EngineError:
    return EngineError(
        f"{folder}: TensorRT plans cannot be kept there",
        found=f"{exc.strerror or exc}: {exc.filename or folder}",
        fix=f"set {VARIABLE} to a folder that you can write to",
    )


@contextmanager
def _locked(folder: Path, name: str = _LOCK) -> Iterator[None]:
    """Waits for a lock that the system frees when its holder ends, however it ends."""
    with (folder / name).open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _build(place: _Place, model: Path, options: Mapping[str, Option]) -> None:
    built = build_plan(model, options, _read_timings(place.timings))
    partial = place.model / f"{PARTIAL}{place.plan.name}"
    record = {
        **place.facts,
        "sha256": hashlib.sha256(built.plan).hexdigest(),
        "proven": [],
        "refused": None,
        "inspector": built.inspector,
    }
    with filled(partial, f"the TensorRT plan of {model.name}"):
        (partial / PLAN_FILE).write_bytes(built.plan)
        write_json(partial / RECORD_FILE, record)
        shutil.rmtree(place.plan, ignore_errors=True)  # broken, or it would have been used
        partial.rename(place.plan)
    # The plan is there: without the times the next build takes longer, and that is all.
    with contextlib.suppress(OSError), _locked(place.timings.parent, f"{place.timings.name}.{_LOCK}"):
        _write_timings(place.timings, built.timing_cache)


def _works(folder: Path) -> bool:
    """Whether a whole plan is kept there that was not refused."""
    record = _record(folder)
    return record is not None and record["refused"] is None and _is_whole(folder, record)


def _is_whole(folder: Path, record: Mapping[str, Any]) -> bool:
    try:
        return hash_file(folder / PLAN_FILE) == str(record["sha256"])
    except OSError:  # gone, or not to be read
        return False


def _check_refused(folder: Path, model: Path) -> None:
    record = _record(folder)
    if record is not None and record["refused"] is not None and _is_whole(folder, record):
        raise EngineError(
            f"{model.name}: the plan that TensorRT built on this device gives wrong outputs, and is not used",
            found=record["refused"],
            fix=f"make the bundle in a higher precision; to build once more, remove {folder}",
        )


def _last_working(place: _Place) -> Path | None:
    """Of plans of other drivers one that was proven, the newest of them."""
    found = [folder for folder in _plans(place.model) if folder != place.plan and _works(folder)]
    ranked = sorted(found, key=lambda f: (bool((_record(f) or {})["proven"]), (f / PLAN_FILE).stat().st_mtime_ns))
    return ranked[-1] if ranked else None


def _plans(folder: Path) -> list[Path]:
    return [each.parent for each in folder.glob(f"*/{RECORD_FILE}") if not each.parent.name.startswith(PARTIAL)]


def _record(folder: Path) -> dict[str, Any] | None:
    """What is written of a plan; None where there is none, or it is no record of ours."""
    try:
        found = read_json(folder / RECORD_FILE)
    except (BundleError, OSError):
        return None
    if not isinstance(found, dict) or not isinstance(found.get("proven"), list):
        return None
    good = isinstance(found.get("sha256"), str) and isinstance(found.get("driver"), str)
    good = good and "refused" in found and isinstance(found["refused"], (str, type(None)))
    return found if good else None


def _write_record(folder: Path, record: Mapping[str, Any]) -> None:
    with whole(folder / RECORD_FILE) as partial:
        write_json(partial, record)


def _read_timings(file: Path) -> bytes | None:
    try:
        digest, _, blob = file.read_bytes().partition(b"\n")
    except OSError:  # there is none yet
        return None
    return blob if hashlib.sha256(blob).hexdigest().encode() == digest else None


def _write_timings(file: Path, blob: bytes) -> None:
    with whole(file) as partial:
        partial.write_bytes(hashlib.sha256(blob).hexdigest().encode() + b"\n" + blob)
