"""Finds targets and profiles: those shipped, then those in folders of the user's own.

A catalogue folder holds ``targets/NAME.toml`` and ``profiles/NAME.toml``; the file's name is the name.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar, get_args

from edgekit.errors import SpecError, UnknownName
from edgekit.profiling.host import Host, half_precisions_here, this_host
from edgekit.specs import IsaTier, Profile, Target, parse, read_toml

CATALOG_VARIABLE = "EDGEKIT_CATALOG"
"""Environment variable with more catalogue folders, separated as in ``PATH``."""

SpecT = TypeVar("SpecT", Target, Profile)


def load_target(name: str, folders: Iterable[Path] = ()) -> Target:
    """Reads one target.

    Args:
        name: Its name, or the path of its file (ends in ``.toml``; relative to a folder or to here).
        folders: Catalogue folders of the user's own, e.g. the recipe's.

    Raises:
        UnknownName: No target has this name.
        SpecError: Its file is wrong, or two files have the same name.
    """
    return _read_target(_find("target", name, folders))


def load_profile(name: str, folders: Iterable[Path] = ()) -> Profile:
    """Reads one profile; the arguments and errors are those of :func:`load_target`."""
    return _read_profile(_find("profile", name, folders))


def list_targets(folders: Iterable[Path] = ()) -> list[Target]:
    """Reads every target, sorted by name.

    Raises:
        SpecError: A file is wrong, or two files have the same name.
    """
    return [_read_target(path) for path in _index("target", folders).values()]


def list_profiles(folders: Iterable[Path] = ()) -> list[Profile]:
    """Reads every profile, sorted by name; the errors are those of :func:`list_targets`."""
    return [_read_profile(path) for path in _index("profile", folders).values()]


def _read_target(path: Path) -> Target:
    target = parse(Target, read_toml(path), str(path), name=path.stem)
    return _with_host(target, this_host()) if target.from_host else target


def _read_profile(path: Path) -> Profile:
    return parse(Profile, read_toml(path), str(path), name=path.stem)


def _with_host(target: Target, host: Host) -> Target:
    """Fills what the file leaves out with the host's facts; what it does not know or compute in stays out."""
    facts: dict[str, Any] = {
        "arch": host.arch if host.arch in ("x86_64", "aarch64") else None,
        "isa": host.isa if host.isa in get_args(IsaTier) else None,
        "cpu_model": None if host.cpu_model == "unknown" else host.cpu_model,
        "board": host.board,
        "cores": host.cores,
        "threads": len(set(target.cpus or range(host.cores))),
        "memory_mb": int(host.memory_mb) or None,
    }
    filled = {key: fact for key, fact in facts.items() if getattr(target, key) is None}
    runs = {*target.precisions} - {"fp16", "bf16"} | {*half_precisions_here()}
    return target.model_copy(update=filled | {"precisions": tuple(p for p in target.precisions if p in runs)})


def _find(kind: str, name: str, folders: Iterable[Path]) -> Path:
    folders = list(folders)
    if name.endswith(".toml"):
        return _find_file(kind, name, folders)
    index = _index(kind, folders)
    if name not in index:
        raise UnknownName(kind, name, index)
    return index[name]


def _find_file(kind: str, name: str, folders: list[Path]) -> Path:
    places = [folder / name for folder in [*folders, Path()]]
    found = {path.resolve(): path for path in places if path.is_file()}
    if not found:
        looked = ", ".join(dict.fromkeys(str(path) for path in places))
        raise SpecError(f"{kind} file {name!r} does not exist", found=f"no file at {looked}", fix="check the path")
    if len(found) > 1:
        raise SpecError(
            f"{kind} file {name!r} could be several files",
            found=" and ".join(str(path) for path in found.values()),
            fix="give the whole path",
        )
    return next(iter(found.values()))


def _index(kind: str, folders: Iterable[Path]) -> dict[str, Path]:
    """Files by name, sorted.

    Raises:
        SpecError: A folder does not exist, or two files have the same name.
    """
    found: dict[str, Path] = {}
    for folder in [_shipped(), *folders, *_from_environment()]:
        if not folder.is_dir():
            raise SpecError(f"catalogue folder {folder} does not exist", fix="check the path")
        for path in sorted((folder / f"{kind}s").glob("*.toml")):
            first = found.setdefault(path.stem, path)
            # A copy says the same: a checkout's folder beside the installed catalogue is no contradiction.
            if first.read_bytes() != path.read_bytes():
                raise SpecError(
                    f"{kind} {path.stem!r} is defined twice",
                    found=f"{first} and {path}",
                    allowed="one file a name",
                    fix=f"rename {path}",
                )
    return dict(sorted(found.items()))


def _shipped() -> Path:
    data = Path(str(files("edgekit"))) / "_data"
    return data if data.is_dir() else Path(__file__).resolve().parent.parent


def _from_environment() -> list[Path]:
    return [Path(entry) for entry in os.environ.get(CATALOG_VARIABLE, "").split(os.pathsep) if entry]
