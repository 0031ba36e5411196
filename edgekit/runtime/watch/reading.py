"""Reads what a watch wrote and judges it; ``python -m edgekit.runtime.watch.reading FOLDER`` prints it as JSON.

It needs no engine and does not import what writes, so that a device can be asked without opening its bundle.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.artifact import MANIFEST_FILE, to_json
from edgekit.errors import EdgeKitError
from edgekit.runtime.system import boot_id, this_system
from edgekit.runtime.watch.files import LINES, OLDER, SCHEMA_VERSION, default_folder, read_lines
from edgekit.runtime.watch.judging import JudgedLimit, Recent, judge, recent
from edgekit.runtime.watch.latency import quantile
from edgekit.runtime.watch.settings import PERCENTILES

READING_VERSION = 1
_ENDS = {"end": "ended", "failed": "failed"}  # by the kind of the last line
_OLD_LINES = "lines of this watch are there, and none says with what limits"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a watch's folder says now.

    Attributes:
        folder: The folder.
        bundle: The bundle's id and names.
        statistics: Which samples its values are compared with, and how many; None: the bundle has none.
        state: ``running``, ``ended`` (as it should), ``failed`` (an error that nobody caught ended it), ``silent``
            (longer than its limit: it hangs or was killed), ``unknown`` (another boot).
        age_s: Seconds since its last line; None where another machine or boot wrote it.
        recent: What happened in the last seconds of the process.
        latency_ms: Percentiles of that, by the names of limits; those that were never timed are None.
        last: Its last line.
        limits: Every limit, judged.
        broken_lines: Lines that cannot be read.
        exit_code: 0 every limit met, 3 one is beyond, 4 none is and one is not known.
    """

    folder: str
    bundle: Mapping[str, str]
    statistics: Mapping[str, Any] | None
    state: str
    age_s: float | None
    recent: Recent
    latency_ms: Mapping[str, float | None]
    last: Mapping[str, Any]
    limits: tuple[JudgedLimit, ...]
    broken_lines: int
    exit_code: int
    schema_version: int = READING_VERSION


def find_folder(path: Path) -> Path:
    """The folder of a watch: the path itself, or the one where a bundle's watch writes unless told otherwise.

    Raises:
        EdgeKitError: This account may not look there.
    """
    with _allowed(path):
        if not (path / MANIFEST_FILE).is_file():
            return path
    from edgekit.runtime.manifest import read_manifest

    return default_folder(read_manifest(path, check=False).id)


@contextlib.contextmanager
def _allowed(path: Path) -> Iterator[None]:
    try:
        yield
    except PermissionError as exc:
        raise EdgeKitError(
            f"{path}: this account may not read it",
            found=exc.strerror,
            allowed="root, and the account of the program that runs the bundle",
            fix="look as one of these, or have the program write to a folder that others may read",
        ) from exc


def read_watch(folder: Path) -> Reading:
    """Reads a watch's folder and judges its last seconds.

    Raises:
        EdgeKitError: Nothing of a watch is there, or nothing can be read.
    """
    with _allowed(folder):
        there = any((folder / name).is_file() for name in (LINES, OLDER))
        lines, broken = read_lines(folder) if there else ([], 0)
    if not there:
        raise EdgeKitError(
            f"{folder}: no watch wrote there",
            found=f"no {LINES}" if folder.exists() else "nothing",
            allowed="a bundle that is watched, or the folder of its watch",
            fix="start_watch(bundle) in the program that runs the bundle; see `edgekit watch --help`",
        )
    states = [line for line in lines if line["kind"] != "start"]
    starts = {line["run"]: line for line in lines if line["kind"] == "start"}
    if not states or states[-1]["run"] not in starts:
        raise EdgeKitError(
            f"{folder / LINES}: cannot be read",
            found=_OLD_LINES if states else f"{broken} broken lines and none that is whole",
            fix="start the program that writes it again",
        )
    last = states[-1]
    start = starts[last["run"]]
    if start["schema_version"] > SCHEMA_VERSION:
        raise EdgeKitError(
            f"{folder / LINES}: written by a newer EdgeKit",
            found=f"schema {start['schema_version']}",
            allowed=f"schema {SCHEMA_VERSION} or older",
            fix="upgrade edgekit where you look",
        )
    seen = recent(states, start["window_s"])
    age_s = _age_s(last)
    limits = judge(start["limits"], start["edges"], last, seen, age_s)
    silent = any(one.name == "silence_s" and one.status == "beyond" for one in limits)
    return Reading(
        folder=str(folder),
        bundle=start["bundle"],
        statistics=start["statistics"],
        state=_ENDS.get(last["kind"]) or ("silent" if silent else "unknown" if age_s is None else "running"),
        age_s=age_s,
        recent=seen,
        latency_ms={name: _ms(quantile(seen.latency, start["edges"], q)) for name, q in PERCENTILES.items()},
        last=last,
        limits=tuple(limits),
        broken_lines=broken,
        exit_code=exit_code(limits),
    )


def exit_code(limits: list[JudgedLimit]) -> int:
    """3 where a limit is beyond, else 4 where one is not known, or there is none, else 0."""
    found = {limit.status for limit in limits}
    if "beyond" in found:
        return 3
    return 4 if "unknown" in found or not found else 0


def _age_s(last: Mapping[str, Any]) -> float | None:
    """By the clock since boot, which nobody sets; None where this is another boot or another machine."""
    return max(time.monotonic() - last["at_s"], 0.0) if last["boot"] == boot_id(this_system()) != "unknown" else None


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 4)


def parse_reading(raw: Mapping[str, Any]) -> Reading:
    """Builds a reading from its JSON form."""
    latency = {int(place): count for place, count in raw["recent"]["latency"].items()}
    return Reading(
        **dict(raw)
        | {"recent": Recent(**raw["recent"] | {"latency": latency})}
        | {"limits": tuple(JudgedLimit(**limit) for limit in raw["limits"])}
    )


def main(arguments: list[str]) -> int:
    """Prints the reading of a folder, of a bundle's folder, or with ``--id ID`` of a bundle that lies elsewhere.

    Returns:
        The reading's exit code; 1 where there is none, with the reason as JSON.
    """
    try:
        named = len(arguments) == 2 and arguments[0] == "--id"
        reading = read_watch(default_folder(arguments[1]) if named else find_folder(Path(arguments[0])))
    except EdgeKitError as exc:
        error = {"problem": exc.problem, "found": exc.found, "allowed": exc.allowed, "fix": exc.fix}
        print(json.dumps({"error": error}, default=str))
        return exc.exit_code
    print(json.dumps(to_json(reading), allow_nan=False))
    return reading.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
