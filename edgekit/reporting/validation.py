"""Reading what a report's file holds, whoever wrote it: the version first, then every key and value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, cast

from pydantic import TypeAdapter, ValidationError

from edgekit.errors import SpecError, did_you_mean
from edgekit.reporting.compared import COMPARISON_SCHEMA_VERSION, Comparison
from edgekit.reporting.model import REPORT_SCHEMA_VERSION, Profile, Report
from edgekit.reporting.sensitivity_model import SENSITIVITY_SCHEMA_VERSION, SensitivityReport

# Kind → its type, its version, and the command that writes it.
KINDS: dict[str, tuple[Any, int, str]] = {
    "run": (Report, REPORT_SCHEMA_VERSION, "deploy"),
    "profile": (Profile, REPORT_SCHEMA_VERSION, "profile"),
    "comparison": (Comparison, COMPARISON_SCHEMA_VERSION, "compare"),
    "sensitivity": (SensitivityReport, SENSITIVITY_SCHEMA_VERSION, "quantize --sensitivity"),
}
# Those with a verdict, which `edgekit report` shows.
JUDGED = ("run", "profile", "comparison")


def validate_report(raw: object, where: object) -> Report:
    """Checks that JSON is the report of a run.

    Args:
        raw: What was read.
        where: The file, for the message.

    Raises:
        SpecError: It is something else, of another schema, or a key is unknown, missing or wrong; the key, what was
            found and what is allowed are named.
    """
    return cast(Report, validate(raw, where, kinds=("run",)))


def validate(raw: object, where: object, *, kinds: Sequence[str] = JUDGED) -> Mapping[str, Any]:
    """Checks that JSON is a report of one of ``kinds``: those with a verdict where none are named.

    Raises:
        SpecError: See :func:`validate_report`.
    """
    if not isinstance(raw, dict) or "schema_version" not in raw:
        raise SpecError(
            f"{where}: not a report of EdgeKit",
            found=_shown(raw),
            allowed="a report.json, or what `--json` of an edgekit command wrote",
            fix="give the folder of a finished run, or its report.json",
        )
    kind = raw.get("kind")
    known = KINDS.get(kind) if isinstance(kind, str) else None
    _check_version(raw["schema_version"], known[1] if known else REPORT_SCHEMA_VERSION, where)
    if known is None or kind not in kinds:
        raise SpecError(
            f"{where}: a report of another kind", found=repr(kind), allowed=" or ".join(repr(k) for k in kinds)
        )
    try:
        checked: Mapping[str, Any] = _adapter(kind).validate_python(raw)
    except ValidationError as exc:
        raise _explain(exc, raw, where, known[2]) from None
    return checked


def _check_version(version: object, ours: int, where: object) -> None:
    if version == ours and type(version) is int:
        return
    newer = type(version) is int and version > ours
    raise SpecError(
        f"{where}: not a report this version can read",
        found=f"schema_version {version!r}",
        allowed=ours,
        fix="upgrade edgekit" if newer else "make the report again with this version; finished steps are not repeated",
    )


@cache
def _adapter(kind: str) -> TypeAdapter[Any]:
    return TypeAdapter(KINDS[kind][0])


def _explain(exc: ValidationError, raw: Mapping[str, Any], where: object, writer: str) -> SpecError:
    """The first problem, as key, found and allowed; a mistyped key, which is also a missing one, is told as unknown."""
    errors = exc.errors(include_url=False)
    error = next((e for e in errors if e["type"] == "extra_forbidden"), errors[0])
    path = _path(raw, error["loc"])
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
    fix = f"the file was changed or cut short; make it again with `edgekit {writer}`"
    if error["type"] == "extra_forbidden":
        missing = [str(e["loc"][-1]) for e in errors if e["type"] == "missing" and e["loc"][:-1] == error["loc"][:-1]]
        near = did_you_mean(str(path[-1]), missing)
        return SpecError(f"{where}: unknown key {key!r}", found=_shown(error["input"]), fix=near or fix)
    if error["type"] == "missing":
        return SpecError(f"{where}: key '{key}{'.' if key else ''}{error['loc'][-1]}' is missing", fix=fix)
    return SpecError(
        f"{where}: wrong value for key {key!r}",
        found=_shown(error["input"]),
        allowed=error["msg"].removeprefix("Input should be "),
        fix=fix,
    )


def _path(raw: object, loc: Sequence[str | int]) -> list[str | int]:
    """Keys and indices down to an error, without pydantic's own marks."""
    path: list[str | int] = []
    node: Any = raw
    for part in loc:
        if isinstance(part, int) if isinstance(node, list) else isinstance(node, dict) and part in node:
            node = node[part]
            path.append(part)
    return path


def _shown(value: object) -> str:
    """What was found, in a few words."""
    if isinstance(value, dict):
        return f"an object with the keys {', '.join(list(map(str, value))[:6])}" if value else "an empty object"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"
