"""What each move of a network saves on one engine: a table, and the file in which it travels from a device."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgekit.artifact import read_json, write_json
from edgekit.errors import BundleError, SpecError
from edgekit.profiling.measured import parse_host
from edgekit.specs import Strict, Target, mismatch, parse

if TYPE_CHECKING:
    from edgekit.pruning.moves import MoveGroup

TABLE_FILE = "latency_table.json"
SCHEMA_VERSION = 1
MEASURED = "measured"
ESTIMATE = "estimate: roofline"
MAKE_ONE = f"give --device, or run `edgekit prune RECIPE --table-only` on the device and copy OUT/{TABLE_FILE}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What one move saves, of one member of its class; times are medians of the application clock.

    Attributes:
        alike: The class: groups of the same layers at the same sizes.
        kind: ``block`` or ``channels``.
        group: Name of the first member.
        members: How many the class has.
        move: Name of the move.
        saved_us: Microseconds that one member saves; below 0 it is slower.
        low_us: Lower end of the interval.
        high_us: Upper end.
    """

    alike: str
    kind: str
    group: str
    members: int
    move: str
    saved_us: float
    low_us: float
    high_us: float

    @property
    def shown(self) -> bool:
        """Whether the move is shown to save time."""
        return self.low_us > 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyTable:
    """What the moves of a network save on one engine.

    Attributes:
        engine: The engine.
        engine_version: Its build; empty where nothing was measured.
        precision: Of the plan.
        source: ``measured``, ``measured elsewhere: FILE`` or ``estimate: roofline``.
        host: Facts of the machine that was measured on; None for an estimate.
        batch: Samples a query.
        whole_us: Median of the whole network, in microseconds.
        rows: One a class and move.
        classes: Every class that was looked at, those of which no move could be made too.
        notes: What could not be made, in words.
        seconds: Time that the table took.
    """

    engine: str
    engine_version: str = ""
    precision: str
    source: str
    host: Mapping[str, Any] | None = None
    batch: int = 1
    whole_us: float
    rows: tuple[Row, ...]
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()
    seconds: float

    @property
    def estimated(self) -> bool:
        """Whether nothing of it was measured."""
        return self.source.startswith("estimate")

    @property
    def not_shown(self) -> tuple[str, ...]:
        """The moves that are not shown to save time, in words."""
        return tuple(
            f"fewer operations are not shown faster: {_whom(row)}, {row.move}: saves {row.saved_us:.3g} µs "
            f"[{row.low_us:.3g}, {row.high_us:.3g}] on {self.engine} {self.precision}"
            for row in self.rows
            if not row.shown
        )


def _whom(row: Row) -> str:
    return row.group if row.members == 1 else f"{row.group} and {row.members - 1} alike"


class _Host(Strict):
    arch: str
    isa: str
    cpu_model: str
    board: str | None
    gpus: list[str]
    cores: int
    memory_mb: float
    governor: str
    os: str
    python: str


class _Row(Strict):
    alike: str
    kind: Literal["block", "channels"]
    group: str
    members: int
    move: str
    saved_us: float
    low_us: float
    high_us: float


class _File(Strict):
    schema_version: int
    engine: str
    engine_version: str
    precision: str
    source: str
    host: _Host | None
    batch: int
    whole_us: float
    rows: list[_Row]
    classes: list[str]
    notes: list[str]
    seconds: float


def write_table(table: LatencyTable, path: Path) -> None:
    """Writes a table as JSON, for :func:`read_table` on another machine."""
    write_json(path, {"schema_version": SCHEMA_VERSION} | asdict(table))


def load_table(path: Path) -> LatencyTable:
    """Reads a table as it was written, whatever it is of.

    Raises:
        SpecError: The file is missing, no JSON, of another schema, has unknown keys, or a value that cannot be.
    """
    try:
        raw = read_json(path)
    except BundleError as exc:
        raise SpecError(exc.problem, found=exc.found, fix=MAKE_ONE) from exc
    except OSError as exc:
        raise SpecError(f"{path}: cannot be read", found=exc.strerror or str(exc), fix=MAKE_ONE) from exc
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if type(version) is not int or version != SCHEMA_VERSION:
        raise SpecError(
            f"{path}: not a latency table that this build of edgekit reads",
            found="no schema_version" if version is None else f"schema_version {json.dumps(version)}",
            allowed=f"schema_version {SCHEMA_VERSION}",
            fix=MAKE_ONE,
        )
    told = parse(_File, raw, str(path))
    fields = told.model_dump(exclude={"schema_version", "rows"}) | {
        "rows": tuple(Row(**row.model_dump()) for row in told.rows),
        "classes": tuple(told.classes),
        "notes": tuple(told.notes),
    }
    table = LatencyTable(**fields)
    _check_values(table, path)
    return table


def read_table(
    path: Path,
    groups: Sequence[MoveGroup],
    engine: str,
    precision: str,
    *,
    batch: int | None = None,
    target: Target | None = None,
) -> LatencyTable:
    """Reads a table that was measured on another machine, and checks that it is of what is to be pruned.

    Args:
        path: The file.
        groups: What is to be pruned.
        engine: Engine that it must be of.
        precision: Precision that it must be of.
        batch: Samples a query that it must be of; None: any.
        target: What the machine must be that it was measured on; None: any.

    Raises:
        SpecError: The file is damaged, of another engine, precision, batch or machine, or knows nothing of a group.
    """
    table = load_table(path)
    facts: list[tuple[str, object, object]] = [
        ("engine", table.engine, engine),
        ("precision", table.precision, precision),
    ]
    facts += [] if batch is None else [("batch", table.batch, batch)]
    for what, found, wanted in facts:
        if found != wanted:
            raise SpecError(f"{path}: a latency table of another {what}", found=found, allowed=wanted, fix=MAKE_ONE)
    differs = mismatch(target, parse_host(table.host)) if target is not None and table.host is not None else None
    if differs is not None:
        there = differs.replace("this host", "its host")
        raise SpecError(f"{path}: a latency table of another machine", found=there, fix=MAKE_ONE)
    unknown = next((group for group in groups if group.alike not in table.classes), None)
    if unknown is not None:
        raise SpecError(
            f"{path}: nothing is known of group {unknown.name!r}",
            found=f"{len(table.classes)} kinds of groups, none alike ({unknown.alike})",
            allowed="a table of this very network",
            fix=MAKE_ONE,
        )
    source = table.source if table.estimated else f"measured elsewhere: {path.name}"
    return replace(table, source=source)


def _check_values(table: LatencyTable, path: Path) -> None:
    """What types do not tell."""
    wrong: list[tuple[str, object, str]] = []
    if table.whole_us <= 0 or table.seconds < 0:
        wrong.append(("the times", f"whole_us {table.whole_us:g}, seconds {table.seconds:g}", "above 0"))
    if table.batch < 1:
        wrong.append(("batch", table.batch, "1 or more"))
    if not table.estimated and table.host is None:
        wrong.append(("host", "null", "the facts of the machine that it was measured on"))
    for row in table.rows:
        where = f"the row of {row.group!r}, {row.move!r}"
        if row.members < 1:
            wrong.append((where, f"members {row.members}", "1 or more"))
        if not row.low_us <= row.saved_us <= row.high_us:
            wrong.append((where, f"{row.saved_us:g} [{row.low_us:g}, {row.high_us:g}] µs", "low, saved, high in order"))
        if row.high_us > table.whole_us:
            wrong.append((where, f"saves up to {row.high_us:g} µs", f"the whole network: {table.whole_us:g} µs"))
        if row.alike not in table.classes:
            wrong.append((where, f"alike {row.alike!r}", "one of its classes"))
    twice = [key for key, count in Counter((row.alike, row.move) for row in table.rows).items() if count > 1]
    if twice:
        wrong.append(("a move has two rows", " ".join(twice[0]), "one row a move of a class"))
    if wrong:
        what, found, allowed = wrong[0]
        raise SpecError(f"{path}: {what}: cannot be", found=found, allowed=allowed, fix=MAKE_ONE)
