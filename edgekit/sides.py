"""What can be compared: bundles and ONNX files, which are measured, and earlier reports, whose figures are taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.artifact import MANIFEST_FILE, Array, Artifact, Manifest, TensorSpec, read_json
from edgekit.errors import BundleError, EngineError, EngineMissing, FeedError, MeasurementError
from edgekit.places import Place, host_of, lacks
from edgekit.processing_specs import Preprocessing
from edgekit.reporting.report import REPORT_JSON
from edgekit.reporting.tables import shipped_of
from edgekit.reporting.validation import validate
from edgekit.runtime.bundle import artifact_of
from edgekit.runtime.files import read_npz
from edgekit.runtime.manifest import read_manifest
from edgekit.specs import Target
from edgekit.timing import golden_feeds

RANDOM_SAMPLES = 16
DEFAULT_ENGINE = "onnxruntime"
MEASURED = ("run", "profile")  # kinds of report that hold latencies of one model


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What must agree where figures of different times are compared; None: not known."""

    model: str | None
    target: str | None
    batch: int | None
    cpu_model: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Side:
    """One thing to compare.

    Attributes:
        path: As it was given.
        kind: ``bundle``, ``onnx`` or ``report``.
        name: What to call it.
        identity: What it is a model of, and for what.
        artifact: What is measured; None for a report and for what an engine refused.
        manifest: A bundle's.
        recorded: A report's ``measured`` of what it shipped.
        failure: Why it cannot be measured, or None.
        notes: What a reader must know of it.
    """

    path: Path
    kind: str
    name: str
    identity: Identity
    artifact: Artifact | None = None
    manifest: Manifest | None = None
    recorded: Mapping[str, Any] | None = None
    failure: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Inputs:
    """What every side is fed with.

    Attributes:
        feeds: Samples stacked, by input; raw where ``preprocessing`` is not None.
        preprocessing: From raw samples to model tensors, or None.
        source: Where the samples come from, in words.
    """

    feeds: Mapping[str, Array]
    preprocessing: Preprocessing | None
    source: str


def open_side(path: Path, *, target: str | None = None, place: Place | None = None) -> Side:
    """Reads what a path stands for; an ONNX file still has to be made ready (:func:`ready`).

    Args:
        path: A bundle's folder, an ``.onnx`` file, a run's folder, or a file that a run or ``profile --json`` wrote.
        target: Which target of a report of several.
        place: The device that measures; None: this machine does.

    Raises:
        BundleError: There is nothing of the kind, or a bundle is damaged.
        SpecError: A report is of another schema or kind.
        MeasurementError: A report has several targets, or measured nothing.
    """
    if (path / MANIFEST_FILE).is_file():
        return _bundle(path, place)
    if path.is_file() and path.suffix == ".onnx":
        identity = Identity(model=None, target=None, batch=None, cpu_model=host_of(place).cpu_model)
        return Side(path=path, kind="onnx", name=path.name, identity=identity)
    file = path / REPORT_JSON if path.is_dir() else path
    if not file.is_file() or file.suffix != ".json":
        raise BundleError(
            f"{path}: nothing to compare",
            found="no such file or folder" if not path.exists() else "neither a bundle, an ONNX file nor a report",
            allowed="a bundle's folder, an .onnx file, a run's folder or its report.json",
            fix="check the path",
        )
    return _report(path, validate(read_json(file), file, kinds=MEASURED), target)


def _bundle(path: Path, place: Place | None = None) -> Side:
    manifest = read_manifest(path)
    lacking, there = lacks(place, manifest.engine), "here" if place is None else f"on {place.name}"
    identity = Identity(
        model=manifest.name, target=manifest.target, batch=manifest.batch, cpu_model=host_of(place).cpu_model
    )
    return Side(
        path=path,
        kind="bundle",
        name=f"{manifest.name} {manifest.engine} {manifest.precision}",
        identity=identity,
        artifact=artifact_of(path, manifest),
        manifest=manifest,
        failure=None if lacking is None else f"engine {manifest.engine!r} cannot run {there}: {lacking}",
    )


def _report(path: Path, report: Mapping[str, Any], target: str | None) -> Side:
    host = report["host"]["cpu_model"]
    if report["kind"] == "profile":
        bundle = report["bundle"]
        identity = Identity(model=bundle["name"], target=report["target"], batch=None, cpu_model=host)
        name, measured = f"{bundle['name']} {bundle['engine']} {bundle['precision']}", report["measured"]
    else:
        chosen = _target_of(path, report, target)
        shipped = shipped_of(chosen)
        identity = Identity(
            model=report["name"], target=chosen["target"], batch=chosen["load"]["batch"], cpu_model=host
        )
        name = f"{report['name']} {shipped['engine']} {shipped['precision']}" if shipped else report["name"]
        measured = shipped["measured"] if shipped else None
    if not measured or not measured["application"]:
        raise MeasurementError(
            f"{path}: the report has no latencies of target {identity.target!r}",
            found=(measured or {}).get("reason") or "nothing was measured",
            fix="give a report of a run on the target itself, or the bundle",
        )
    return Side(path=path, kind="report", name=name, identity=identity, recorded=measured)


def _target_of(path: Path, report: Mapping[str, Any], name: str | None) -> Mapping[str, Any]:
    """The target of a report that is meant: the one named, or the only one that was measured."""
    targets: Sequence[Mapping[str, Any]] = report["targets"]
    names = ", ".join(t["target"] for t in targets)
    found = [t for t in targets if t["target"] == name] if name else [t for t in targets if t["not_measured"] is None]
    if len(found) == 1 or (found and name):
        return found[0]
    if len(targets) == 1 and not name:
        return targets[0]
    raise MeasurementError(
        f"{path}: the report has no target {name!r}" if name else f"{path}: the report has several targets",
        found=names,
        fix="name one of them with --target",
    )


def bundle_beside(path: Path, target: str | None = None) -> Path | None:
    """The bundle that a run's report speaks of, if it still lies beside it; None where it does not.

    Raises:
        As :func:`open_side` of the report.
    """
    file = path / REPORT_JSON if path.is_dir() else path
    report = validate(read_json(file), file, kinds=MEASURED)
    if report["kind"] != "run":
        return None
    link = _target_of(path, report, target)["bundle"]
    folder = None if link is None else file.parent / link["path"]
    if folder is None or not (folder / MANIFEST_FILE).is_file():
        return None
    return folder if read_manifest(folder).id == link["id"] else None


def ready(side: Side, out: Path, *, engine: str, threads: int | None, batch: int, place: Place | None = None) -> Side:
    """An ONNX file as an engine opens it: the batch fixed, as a deployment would; anything else as it is.

    Args:
        side: What :func:`open_side` gave.
        out: A folder to write into.
        engine: What it runs on.
        threads: Threads of the engine; None: its own choice.
        batch: Samples a query.
        place: The device that measures; None: this machine does.

    Raises:
        ModelError: It is no valid ONNX model, or its batch is fixed to something else.
        UnknownName: There is no such engine.
        EngineMissing: The engine, or what prepares models for it, is not installed.
    """
    if side.kind != "onnx":
        return side
    from edgekit.backends import load_backend

    backend = load_backend(engine)
    options = {"description": "this machine", "precisions": ("fp32", "int8"), "name": "here", "threads": threads}
    target = Target.model_construct(**options | {"engines": (engine,)})  # type: ignore[arg-type]
    lacking = lacks(place, engine) or backend.missing(target)
    if lacking is not None:
        raise EngineMissing(f"engine {engine!r} cannot run {side.path}", found=lacking)
    from edgekit.conversion.clean import describe_onnx, load_onnx

    load_onnx(side.path)
    named = replace(side, name=f"{side.path.name} {engine}", identity=replace(side.identity, batch=batch))
    try:
        made = backend.compile(describe_onnx(side.path, precision="fp32"), target, batch, out)
    except EngineError as exc:
        return replace(named, failure=str(exc))
    return replace(named, artifact=made)


def batch_of(sides: Sequence[Side], asked: int | None) -> int:
    """Samples a query of all sides: what was asked for, else what the bundles are compiled for, else 1.

    Raises:
        MeasurementError: The sides differ.
    """
    known = {str(side.path): side.identity.batch for side in sides if side.identity.batch is not None}
    if asked is not None:
        known = {"--batch": asked} | known
    if len(set(known.values())) > 1:
        raise MeasurementError(
            "sides of different batches cannot be compared",
            found=", ".join(f"{name}: {batch}" for name, batch in known.items()),
            allowed="the same number of samples a query",
        )
    return next(iter(known.values()), None) or 1


def check_same_inputs(sides: Sequence[Side]) -> None:
    """Refuses sides that do not take the same samples.

    Raises:
        FeedError: Names, element types or shapes of inputs differ; names both.
    """
    live = [side for side in sides if side.artifact is not None]
    for side in live[1:]:
        first, second = _specs(live[0]), _specs(side)
        if first.keys() != second.keys() or not all(_alike(first[name], second[name]) for name in first):
            raise FeedError(
                f"{side.path} and {live[0].path} do not take the same inputs",
                found="; ".join(map(str, second.values())),
                allowed="; ".join(map(str, first.values())),
                fix="compare models of the same inputs",
            )


def _specs(side: Side) -> dict[str, TensorSpec]:
    assert side.artifact is not None
    return {spec.name: spec for spec in side.artifact.inputs}


def _alike(first: TensorSpec, second: TensorSpec) -> bool:
    return (
        first.dtype == second.dtype
        and len(first.shape) == len(second.shape)
        and all(
            a == b or isinstance(a, str) or isinstance(b, str) for a, b in zip(first.shape, second.shape, strict=True)
        )
    )


def inputs_of(sides: Sequence[Side], given: Path | None, batch: int) -> Inputs:
    """The samples that all sides are fed with: those given, else a bundle's golden ones, else random ones.

    Preprocessing is timed where all sides are bundles of the same preprocessing; otherwise model tensors are fed.

    Args:
        sides: What is measured.
        given: An ``.npz`` file of samples: raw ones where preprocessing is timed, otherwise model tensors.
        batch: Samples a query.

    Raises:
        DataError: The file cannot be read.
        FeedError: Its samples do not fit, or an open size has no sample to tell it.
    """
    live = [side for side in sides if side.artifact is not None]
    settings = [side.manifest.preprocessing if side.manifest else None for side in live]
    shared = settings[0] if all(each == settings[0] for each in settings) else None
    untimed = "; preprocessing is not timed, for the sides do not share it" if shared is None and any(settings) else ""
    if given is not None:
        feeds = read_npz(given)
        names = list(_specs(live[0]))
        if len(feeds) == len(names) == 1:
            feeds = {names[0]: next(iter(feeds.values()))}
        return Inputs(feeds=feeds, preprocessing=shared, source=f"{given}{untimed}")
    for side in [*live, *filter(None, map(_around, live))]:
        if side.manifest is None:
            continue
        raw_or_not = side.manifest if shared else replace(side.manifest, preprocessing=None)
        feeds = golden_feeds(side.path, raw_or_not)
        if shared is not None or _fit(feeds, live):
            return Inputs(feeds=feeds, preprocessing=shared, source=f"golden samples of {side.path}{untimed}")
    return Inputs(feeds=_random_feeds(live, batch), preprocessing=None, source="random samples: no bundle has any")


def _around(side: Side) -> Side | None:
    """The bundle that an ONNX file lies in or beside, or None."""
    if side.kind != "onnx":
        return None
    folders = (side.path.parent, side.path.absolute().parent.parent)
    found = next((folder for folder in folders if (folder / MANIFEST_FILE).is_file()), None)
    return None if found is None else _bundle(found)


def _fit(feeds: Mapping[str, Array], live: Sequence[Side]) -> bool:
    """Whether stacked samples fit all sides, the first axis aside."""
    specs = _specs(live[0])
    return feeds.keys() == specs.keys() and all(
        str(array.dtype) == specs[name].dtype
        and array.ndim == len(specs[name].shape)
        and all(
            isinstance(dim, str) or dim == size
            for dim, size in zip(specs[name].shape[1:], array.shape[1:], strict=True)
        )
        for name, array in feeds.items()
    )


def _random_feeds(live: Sequence[Side], batch: int) -> dict[str, Array]:
    rng = np.random.default_rng(0)
    feeds: dict[str, Array] = {}
    for spec in _specs(live[0]).values():
        alike = [_specs(side)[spec.name].shape for side in live]
        sizes = [next((dim for dim in dims if isinstance(dim, int)), None) for dims in zip(*alike, strict=True)]
        if not sizes or None in sizes[1:]:
            raise FeedError(
                f"{live[0].path}: random samples cannot be made for input {spec.name!r}",
                found=str(spec),
                allowed="inputs of known sizes, the first axis aside",
                fix="give samples with --input X.npz",
            )
        shape = [RANDOM_SAMPLES * batch, *(size for size in sizes[1:] if size is not None)]
        drawn = rng.standard_normal(shape) if spec.dtype.startswith("float") else rng.integers(0, 2, shape)
        feeds[spec.name] = drawn.astype(spec.dtype)
    return feeds


def check_same_kind(base: Side, other: Side) -> None:
    """Refuses to compare figures of different times that are not of the same thing.

    Raises:
        MeasurementError: Models, targets, batches or hosts differ; names both.
    """
    for field, word in (("model", "model"), ("target", "target"), ("batch", "batch"), ("cpu_model", "host")):
        first, second = getattr(base.identity, field), getattr(other.identity, field)
        if first is not None and second is not None and first != second:
            raise MeasurementError(
                f"{other.path} cannot be compared with {base.path}: another {word}",
                found=f"{word} {second!r} of {other.path}",
                allowed=f"{word} {first!r}, as in {base.path}",
                fix="give bundles of both: they are measured in turns on this machine"
                if field == "cpu_model"
                else f"give two of the same {word}",
            )
