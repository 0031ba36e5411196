"""Artifacts, manifests and their hashes: dataclasses and JSON only, so that a device can read them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.errors import BundleError

if TYPE_CHECKING:
    from pathlib import Path  # 4 ms on a workstation, which a bundle opens without

    from edgekit.processing_specs import InGraph, Postprocessing, Preprocessing

_MAKE_AGAIN = "the file is damaged; make it again"
Array = np.ndarray[tuple[Any, ...], np.dtype[Any]]  # NDArray[Any] of numpy.typing, without its import
Option = str | int | float | bool
StrPath = str | os.PathLike[str]

SCHEMA_VERSION = 1
ARTIFACT_FILE = "artifact.json"
MANIFEST_FILE = "manifest.json"
GOLDEN_FILE = "golden.npz"


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """One input or output of a model.

    Attributes:
        name: Tensor name.
        dtype: numpy's name of the element type, e.g. ``float32``.
        shape: Dimensions; a string is a dynamic dimension's name.
    """

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}[{', '.join(str(d) for d in self.shape)}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A model file, or a set of them, in one folder.

    Attributes:
        folder: Where the files lie. Not part of the identity.
        model: The file an engine opens, relative to the folder.
        files: sha256 of every file, by path relative to the folder.
        engine: The engine it is made for; ``onnx`` for the portable parent.
        precision: What was asked of it: ``fp32``, ``int8``, …
        inputs: Input specs.
        outputs: Output specs.
        options: Engine options used whenever it is opened.
        parent: sha256 of what it was made from, or None.
        notes: What was decided on the way, e.g. layers left in float. Not part of the identity.
    """

    folder: Path
    model: str
    files: Mapping[str, str]
    engine: str
    precision: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    options: Mapping[str, Option] = field(default_factory=dict)
    parent: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        """The file an engine opens."""
        return self.folder / self.model

    @property
    def sha256(self) -> str:
        """Identity: its files, engine, precision and options."""
        return hash_json(
            {"files": dict(self.files), "engine": self.engine, "precision": self.precision}
            | {"options": dict(self.options)}
        )

    @property
    def size_bytes(self) -> int:
        """Bytes of all its files."""
        return sum((self.folder / name).stat().st_size for name in self.files)


def save_artifact(artifact: Artifact) -> Artifact:
    """Writes ``artifact.json`` beside the artifact's files and returns the artifact."""
    write_json(artifact.folder / ARTIFACT_FILE, to_json(artifact) | {"folder": "."})
    return artifact


def load_artifact(folder: Path) -> Artifact:
    """Reads the artifact whose ``artifact.json`` lies in ``folder``."""
    raw = read_json(folder / ARTIFACT_FILE)
    return Artifact(
        folder=folder,
        model=raw["model"],
        files=raw["files"],
        engine=raw["engine"],
        precision=raw["precision"],
        inputs=tensor_specs(raw["inputs"]),
        outputs=tensor_specs(raw["outputs"]),
        options=raw["options"],
        parent=raw["parent"],
        notes=tuple(raw["notes"]),
    )


def tensor_specs(raw: Iterable[Mapping[str, Any]]) -> tuple[TensorSpec, ...]:
    """Builds tensor specs from their JSON form."""
    return tuple(TensorSpec(name=r["name"], dtype=r["dtype"], shape=tuple(r["shape"])) for r in raw)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parent:
    """One ancestor of a bundle: ``teacher``, ``student``, ``fp32``, ``quantized`` or ``data``."""

    kind: str
    name: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Golden:
    """What ``golden.npz`` proves.

    Attributes:
        samples: How many samples it holds.
        random: True when no data was given and the inputs are random.
        reference_db: Worst signal-to-noise ratio of an output against the reference, in dB.
        floor_db: What ``verify`` asks for: ``reference_db - 3``.
        engine_version: Engine build that made the artifact's own outputs.
        cpu_model: CPU that made them.
    """

    samples: int
    random: bool
    reference_db: float
    floor_db: float
    engine_version: str
    cpu_model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a bundle says of itself, in ``manifest.json``.

    ``timings`` (the verdict and the latencies behind it), their hash and ``id`` are not part of the id. A manifest
    without that hash is of an earlier build, or of a test. ``statistics`` (what inputs and outputs were like, see
    :mod:`edgekit.runtime.watch.tensors`), ``watch`` (how it is watched, see :mod:`edgekit.runtime.watch.settings`),
    ``postprocessing`` and ``in_graph`` are None in bundles of earlier builds, whose ids are what they were.
    """

    name: str
    target: str
    engine: str
    engine_version: str
    precision: str
    model: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    options: Mapping[str, Option]
    plan: Mapping[str, Any]
    batch: int
    preprocessing: Preprocessing | None
    labels: tuple[str, ...]
    parents: tuple[Parent, ...]
    files: Mapping[str, str]
    golden: Golden
    accuracy: Mapping[str, Any]
    edgekit_version: str
    schema_version: int = SCHEMA_VERSION
    timings: Mapping[str, Any] = field(default_factory=dict)
    timings_sha256: str = ""
    id: str = ""
    statistics: Mapping[str, Any] | None = None
    watch: Mapping[str, Any] | None = None
    postprocessing: Postprocessing | None = None
    in_graph: InGraph | None = None


def bundle_id(manifest: Manifest) -> str:
    """Hash of artifact, golden and the manifest without timings, as 64 hex digits."""
    content = to_json(manifest)
    del content["timings"], content["timings_sha256"], content["id"]
    for name in ("statistics", "watch", "postprocessing", "in_graph"):  # earlier builds hashed none of them
        if content[name] is None:
            del content[name]
    return hash_json(content)


def parse_manifest(raw: Mapping[str, Any], where: StrPath) -> Manifest:
    """Builds a manifest from JSON.

    Raises:
        BundleError: It is of a newer schema, lacks a field, or names a file outside the bundle.
    """
    version = raw.get("schema_version")
    if type(version) is int and version > SCHEMA_VERSION:
        raise BundleError(
            f"{where}: this bundle was written in schema {version!r}",
            allowed=f"schema {SCHEMA_VERSION} or older",
            fix="upgrade edgekit on this machine",
        )
    if type(version) is not int or version < 1:
        raise BundleError(
            f"{where}: not a manifest of an EdgeKit bundle",
            found=f"no schema_version; {_some_keys(raw)}" if version is None else f"schema_version {version!r}",
            allowed=f"schema_version {SCHEMA_VERSION}",
            fix="give the folder of a bundle, made with `edgekit deploy` or `edgekit export`",
        )
    try:
        fields = dict(raw) | {
            "inputs": tensor_specs(raw["inputs"]),
            "outputs": tensor_specs(raw["outputs"]),
            **_processing(raw),
            "labels": tuple(raw["labels"]),
            "parents": tuple(Parent(**p) for p in raw["parents"]),
            "golden": Golden(**raw["golden"]),
        }
        manifest = Manifest(**fields)
    except (KeyError, TypeError) as exc:
        raise BundleError(
            f"{where}: not a manifest of an EdgeKit bundle",
            found=f"{type(exc).__name__}: {exc}",
            fix="make the bundle again with `edgekit deploy` or `edgekit export`",
        ) from exc
    for name in [manifest.model, *manifest.files]:
        check_inside(name, where)
    return manifest


def _some_keys(raw: Mapping[str, Any]) -> str:
    names = ", ".join(list(raw)[:5])
    return f"keys {names}{', …' if len(raw) > 5 else ''}" if names else "no keys at all"


def _processing(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Preprocessing, postprocessing and what the graph does, from their JSON forms; nothing of what is not there."""
    names = ("preprocessing", "postprocessing", "in_graph")
    if all(raw.get(name) is None for name in names):
        return {"preprocessing": raw["preprocessing"]}
    from edgekit.processing_specs import parse_processing

    return parse_processing(raw)


def check_inside(name: str, where: StrPath) -> None:
    """Refuses a file name that could leave its folder.

    Raises:
        BundleError: The name is absolute, has a drive, or climbs with ``..``.
    """
    absolute = name[:1] in ("/", "\\") or name[1:2] == ":"  # of POSIX, of Windows with a drive, a share or neither
    if not name or "\0" in name or absolute or ".." in re.split(r"[/\\]", name):
        raise BundleError(
            f"{where}: a file name points outside its folder",
            found=repr(name),
            allowed="relative paths inside the folder",
            fix="do not use this file; get it again from whoever made it",
        )


def hash_file(path: StrPath) -> str:
    """sha256 of a file's bytes, as 64 hex digits."""
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as stream:
        while block := stream.read(1 << 18):
            digest.update(block)
    return digest.hexdigest()


def hash_files(folder: StrPath, names: Iterable[str]) -> dict[str, str]:
    """sha256 of files in ``folder``, by name, sorted."""
    return {name: hash_file(os.path.join(folder, name)) for name in sorted(names)}


def hash_json(value: Any) -> str:
    """sha256 of a value's canonical JSON, as 64 hex digits."""
    text = json.dumps(to_json(value), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def to_json(value: Any) -> Any:
    """Turns dataclasses, mappings, tuples, paths and numpy scalars into plain JSON values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): to_json(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(v) for v in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value).replace(os.sep, "/")
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        return value.item()
    return value


def write_json(path: Path, value: Any) -> None:
    """Writes indented JSON with a final newline."""
    path.write_text(json.dumps(to_json(value), indent=2, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: StrPath) -> Any:
    """Reads JSON.

    Raises:
        BundleError: The file is missing or is not JSON.
    """
    try:
        with open(path, encoding="utf-8") as stream:
            return json.load(stream, parse_constant=_refuse)
    except FileNotFoundError as exc:
        raise BundleError(f"{path}: no such file", fix="check the folder") from exc
    except RecursionError as exc:
        raise BundleError(f"{path}: not JSON of ours", found="lists in lists without end", fix=_MAKE_AGAIN) from exc
    except ValueError as exc:  # not text, not JSON, or a number of thousands of digits
        raise BundleError(f"{path}: not JSON", found=str(exc), fix=_MAKE_AGAIN) from exc


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number of JSON")
