"""Reads a bundle's manifest and checks the files it lists, before anything opens them."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Iterator
from typing import Any

from edgekit.artifact import (
    GOLDEN_FILE,
    MANIFEST_FILE,
    SCHEMA_VERSION,
    Manifest,
    StrPath,
    bundle_id,
    hash_file,
    hash_json,
    parse_manifest,
    read_json,
)
from edgekit.errors import BundleError
from edgekit.runtime.external_data import check_file_inside, external_files

_AGAIN = "copy the bundle again, or make it again with `edgekit deploy` or `edgekit export`"

_TEXT = "name target engine engine_version precision model edgekit_version timings_sha256 id"
_TYPES: dict[str, type] = {
    **dict.fromkeys(_TEXT.split(), str),
    **dict.fromkeys(("inputs", "outputs", "labels", "parents"), list),
    **dict.fromkeys(("options", "plan", "files", "golden", "accuracy", "timings"), dict),
    "batch": int,
}
_GOLDEN: dict[str, type] = {
    **dict.fromkeys(("reference_db", "floor_db"), float),
    **dict.fromkeys(("engine_version", "cpu_model"), str),
    "samples": int,
    "random": bool,
}
_DTYPES = ["bool", "float16", "float32", "float64"]  # a list, because what is looked up may not be hashable
_DTYPES += [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
_TENSOR: dict[str, type] = {"name": str, "dtype": str, "shape": list}
_PREPROCESSING: dict[str, type] = {
    **dict.fromkeys(("input", "layout", "model_layout"), str),
    **dict.fromkeys(("mean", "std"), list),
    "scale": float,
}


_POSTPROCESSING: dict[str, type] = {"output": str, "activation": str, "axis": int}


def read_manifest(path: StrPath, *, check: bool = True) -> Manifest:
    """Reads a bundle's manifest and checks its files, without opening its artifact.

    Args:
        path: The bundle's folder.
        check: Whether to compare the sha256 of every file; that paths stay inside is always checked.

    Raises:
        BundleError: It is no bundle, of a newer schema, damaged, or points outside itself.
    """
    where = os.path.join(path, MANIFEST_FILE)
    if not os.path.isfile(where):
        raise BundleError(f"{path}: no bundle here", found=_what_is(path), fix="give a folder made by edgekit")
    check_file_inside(MANIFEST_FILE, path, path)
    manifest = _parse(read_json(where), where)
    if check:
        _check_id(path, manifest)
    for name in manifest.files:
        check_file_inside(name, path, where)
    for name in _needed(path, manifest):
        if name not in manifest.files:
            raise BundleError(f"{where}: the file {name!r} is not listed with its sha256", fix=_AGAIN)
    if check:
        _check_hashes(path, manifest)
        _check_nothing_else(path, manifest)
    return manifest


def _what_is(place: StrPath) -> str:
    """What lies where a bundle should."""
    from pathlib import Path

    path = Path(place)
    if not path.is_dir():
        return "a file" if path.exists() else "nothing"
    inner = sorted(found.parent.name for found in path.glob(f"*/{MANIFEST_FILE}"))
    if inner:
        return f"no {MANIFEST_FILE}; the folder of a run, perhaps: its bundles are {', '.join(inner)}"
    return f"no {MANIFEST_FILE}" if any(path.iterdir()) else "an empty folder"


def _parse(raw: Any, where: StrPath) -> Manifest:
    """A manifest of JSON whose values have the right types; a newer schema is refused first, whatever it holds."""
    if not isinstance(raw, dict):
        raise BundleError(f"{where}: not a manifest of an EdgeKit bundle", found=type(raw).__name__, fix=_AGAIN)
    version = raw.get("schema_version")
    wrong = list(_wrong_types(raw)) if type(version) is int and version == SCHEMA_VERSION else []
    if wrong:
        raise BundleError(
            f"{where}: not a manifest of an EdgeKit bundle",
            found=f"values of a wrong type: {', '.join(wrong)}",
            fix=_AGAIN,
        )
    return parse_manifest(raw, where)


def _wrong_types(raw: dict[str, Any]) -> Iterator[str]:
    """Names of the values of a wrong type; a missing key is left to the parser."""
    yield from _wrong(raw, _TYPES, "")
    for kind in ("inputs", "outputs"):
        if not raw.get(kind):
            yield kind
        for spec in _items(raw.get(kind)):
            yield from _wrong(spec, _TENSOR, f"{kind}.")
            if isinstance(spec, dict) and not _is_tensor(spec):
                yield f"{kind}.shape or dtype"
    yield from _wrong(raw.get("golden", {}), _GOLDEN, "golden.")
    yield from _wrong_processing(raw, "")
    graph = raw.get("in_graph")
    if graph is not None:
        yield from _wrong_processing(graph, "in_graph.") if isinstance(graph, dict) else ("in_graph",)
    yield from (name for name in ("statistics", "watch") if not isinstance(raw.get(name, {}), (dict, type(None))))
    for kind, allowed in (("files", (str,)), ("options", (str, int, float, bool))):
        values = raw.get(kind)
        if isinstance(values, dict) and not all(isinstance(value, allowed) for value in values.values()):
            yield kind


def _wrong_processing(raw: dict[str, Any], prefix: str) -> Iterator[str]:
    settings = raw.get("preprocessing")
    if settings is not None:
        yield from _wrong(settings, _PREPROCESSING, f"{prefix}preprocessing.")
        if isinstance(settings, dict) and not _has_numbers(settings):
            yield f"{prefix}preprocessing.mean, std or resize"
    settings = raw.get("postprocessing")
    if settings is not None:
        yield from _wrong(settings, _POSTPROCESSING, f"{prefix}postprocessing.")
        if isinstance(settings, dict) and not _can_be_done(settings):
            yield f"{prefix}postprocessing.activation, axis or top"


def _can_be_done(settings: dict[str, Any]) -> bool:
    """Whether the activation is one there is, the axis no batch, and top none or a whole number above zero."""
    from edgekit.processing_specs import ACTIVATIONS

    top, axis = settings.get("top"), settings.get("axis", 1)
    known = settings.get("activation", "none") in ACTIVATIONS
    return known and type(axis) is int and axis > 0 and (top is None or (type(top) is int and top > 0))


def _is_tensor(spec: dict[str, Any]) -> bool:
    dims = _items(spec.get("shape"))
    return spec.get("dtype") in _DTYPES and all(type(d) is str or (type(d) is int and d > 0) for d in dims)


def _has_numbers(settings: dict[str, Any]) -> bool:
    """Whether mean and std hold numbers (std none that is zero) and resize, if any, two sizes."""
    resize = settings.get("resize")
    channels = [_items(settings.get(key)) for key in ("mean", "std")]
    return (
        all(values and all(type(value) in (int, float) for value in values) for values in channels)
        and 0 not in channels[1]
        and (resize is None or (len(_items(resize)) == 2 and all(type(side) is int and side > 0 for side in resize)))
    )


def _wrong(value: Any, types: dict[str, type], prefix: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield prefix.rstrip(".")
        return
    for key, wanted in types.items():
        found = type(value.get(key))
        if key in value and found is not wanted and not (wanted is float and found is int):
            yield prefix + key


def _items(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _needed(path: StrPath, manifest: Manifest) -> list[str]:
    """The files that are read when the bundle is used."""
    check_file_inside(manifest.model, path, os.path.join(path, MANIFEST_FILE))
    folder, model = posixpath.split(manifest.model)
    stem, suffix = posixpath.splitext(model)
    beside = external_files(os.path.join(path, manifest.model)) if suffix == ".onnx" else ()
    if suffix == ".xml":
        beside = (f"{stem}.bin",)
    return [manifest.model, GOLDEN_FILE, *(posixpath.join(folder, name) for name in beside)]


def _check_hashes(path: StrPath, manifest: Manifest) -> None:
    for name, sha256 in manifest.files.items():
        file = os.path.join(path, name)
        found = hash_file(file)
        if found != sha256:
            raise BundleError(
                f"{path}: the file {name!r} is damaged or was changed",
                found=f"sha256 {found} of {os.stat(file).st_size} bytes",
                allowed=f"sha256 {sha256}",
                fix=_AGAIN,
            )


def _check_id(path: StrPath, manifest: Manifest) -> None:
    said = {"id": manifest.id or "missing", "timings_sha256": manifest.timings_sha256}
    found_in = {"id": _hash(bundle_id, manifest), "timings_sha256": _hash(hash_json, manifest.timings)}
    for name, hashed in found_in.items():
        if hashed != said[name] and said[name]:
            raise BundleError(
                f"{path}: {MANIFEST_FILE} is damaged or was changed",
                found=f"{name} {hashed}",
                allowed=f"{name} {said[name]}",
                fix=_AGAIN,
            )


def _hash(hashing: Callable[[Any], str], value: object) -> str:
    try:
        return hashing(value)
    except (RecursionError, ValueError) as exc:  # lists in lists without end, or a number beyond all floats
        return f"none: {exc}"


def _check_nothing_else(path: StrPath, manifest: Manifest) -> None:
    """Refuses files of which the manifest knows nothing: no hash vouches for them."""
    known = {posixpath.normpath(name) for name in (MANIFEST_FILE, *manifest.files)}
    others = sorted(name for name in _all_files(path) if name not in known)
    if others:
        raise BundleError(
            f"{path}: the file {others[0]!r} is none of the bundle's",
            found=f"{len(others)} files that {MANIFEST_FILE} does not list: {', '.join(others[:5])}",
            allowed="the files that it lists, and no other",
            fix="remove what was added",
        )


def _all_files(folder: StrPath) -> Iterator[str]:
    """What lies in a folder and below, but for folders; a link to a folder is no folder."""
    for where, folders, files in os.walk(folder):
        below = os.path.relpath(where, folder).replace(os.sep, "/")
        links = [name for name in folders if os.path.islink(os.path.join(where, name))]
        yield from (posixpath.normpath(f"{below}/{name}") for name in (*files, *links))
