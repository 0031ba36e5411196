"""Targets and profiles: strict models of the TOML files people write, and whether a host is a target."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from edgekit.errors import SpecError, did_you_mean
from edgekit.profiling.host import Host
from edgekit.profiling.load import LoadSpec

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

EngineName = Literal["openvino", "onnxruntime", "tensorrt"]
Precision = Literal["fp32", "fp16", "bf16", "fp8", "int8", "w8", "w4"]
IsaTier = Literal["x86-64", "avx2", "avx2-vnni", "avx512", "avx512-vnni", "amx", "neon", "neon-dotprod", "neon-i8mm"]
OptionValue = bool | int | float | str


class Strict(BaseModel):
    """A file people write: unknown keys are rejected, values are never coerced from text."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


# TOML arrays arrive as lists; strict mode would refuse them where a tuple is declared.
Names = Annotated[tuple[str, ...], Field(strict=False)]


class Target(Strict):
    """What is deployed on: a device class, its candidate engines, its limits.

    Attributes:
        name: The file's name without ``.toml``.
        description: One line for people.
        engines: Candidate engines; each is built, checked and measured.
        arch: ``x86_64`` or ``aarch64``; None: any.
        isa: Instruction-set tier, which a host must equal; None: any.
        cpu_model: CPU model string a host must equal (set for ``local``).
        board: Start of the board's model string (``/proc/device-tree/model``).
        gpu: GPU name a host must have.
        cores: Fewest cores a host must have.
        threads: Threads an engine uses; None: one a CPU of ``cpus``, else the engine's choice.
        cpus: CPUs that the engine and who calls it run on, by number; None: any.
        keep_memory: Whether an engine keeps memory that a query freed for the next one, which is faster; False: it
            gives it back (a 32-channel network on 512 x 512 pixels, ONNX Runtime: 90 MB between queries in the place
            of 222, and 1.4 times the CPU time).
        memory_mb: Least memory a host must have, in MB (10^6 bytes).
        precisions: What the device runs; ``w8`` and ``w4`` are weights of matrix products in 8 and 4 bits.
        channel_multiple: Widths that fill its vector or matrix units.
        peak_gops: Peak arithmetic by precision, in 10^9 operations a second (a multiply-add is two).
        bandwidth_gb_s: Memory bandwidth, in 10^9 bytes a second.
        options: Extra options by engine.
        from_host: Fill arch, isa, cpu_model, cores and threads from this host (``local``).
    """

    name: str
    description: str
    engines: Annotated[tuple[EngineName, ...], Field(min_length=1, strict=False)]
    arch: Literal["x86_64", "aarch64"] | None = None
    isa: IsaTier | None = None
    cpu_model: str | None = None
    board: str | None = None
    gpu: str | None = None
    cores: PositiveInt | None = None
    threads: PositiveInt | None = None
    cpus: Annotated[tuple[NonNegativeInt, ...], Field(min_length=1, strict=False)] | None = None
    keep_memory: bool = True
    memory_mb: PositiveInt | None = None
    precisions: Annotated[tuple[Precision, ...], Field(min_length=1, strict=False)]
    channel_multiple: PositiveInt | None = None
    peak_gops: dict[Precision, PositiveFloat] = Field(default_factory=dict)
    bandwidth_gb_s: PositiveFloat | None = None
    options: dict[EngineName, dict[str, OptionValue]] = Field(default_factory=dict)
    from_host: bool = False

    @field_validator("cpus")
    @classmethod
    def _as_many_as_threads(cls, cpus: tuple[int, ...] | None, info: ValidationInfo) -> tuple[int, ...] | None:
        cores, threads = (info.data.get(key) for key in ("cores", "threads"))
        if cpus is not None and cores is not None and max(cpus) >= cores:
            raise ValueError(f"numbers from 0 to {cores - 1}: the target has {cores} cores")
        if cpus is not None and threads is not None and threads > len(set(cpus)):
            raise ValueError(f"at least {threads} different ones: the target has {threads} threads")
        return cpus


class Limits(Strict):
    """What must be met; a limit that is absent is not checked."""

    p50_ms: PositiveFloat | None = None
    p90_ms: PositiveFloat | None = None
    p95_ms: PositiveFloat | None = None
    p99_ms: PositiveFloat | None = None
    p999_ms: PositiveFloat | None = None
    load_ms: PositiveFloat | None = None
    first_inference_ms: PositiveFloat | None = None
    peak_memory_mb: PositiveFloat | None = None
    size_mb: PositiveFloat | None = None
    max_drop_points: Annotated[float, Field(ge=0)] | None = None

    def percentiles(self) -> dict[float, float]:
        """Limits in ms by percentile (50.0, 99.9, …)."""
        limits = {q: getattr(self, key) for q, key in PERCENTILES.items()}
        return {q: ms for q, ms in limits.items() if ms is not None}


PERCENTILES = {50.0: "p50_ms", 90.0: "p90_ms", 95.0: "p95_ms", 99.0: "p99_ms", 99.9: "p999_ms"}


class Load(Strict):
    """How the load is driven.

    Attributes:
        scenario: ``single_stream`` (one query after another) or ``batch`` (the same with full batches).
        batch: Samples a query.
        min_seconds: Shortest measurement of a candidate.
        max_seconds: Longest; a percentile that needs more is refused before the timed run.
        min_count: Fewest queries; raised where a limit's percentile needs more.
        max_other_load: Share of the CPUs' time, 0 to 1, that others may use before a run is called spoiled.
    """

    scenario: Literal["single_stream", "batch"] = "single_stream"
    batch: PositiveInt = 1
    min_seconds: PositiveFloat = 3.0
    max_seconds: PositiveFloat = 60.0
    min_count: PositiveInt = 700
    max_other_load: Annotated[float, Field(ge=0, le=1)] = 0.10

    @field_validator("max_seconds")
    @classmethod
    def _not_below_min_seconds(cls, max_seconds: float, info: ValidationInfo) -> float:
        if max_seconds < info.data.get("min_seconds", 0):
            raise ValueError(f"min_seconds ({info.data['min_seconds']:g}) or more")
        return max_seconds


class Profile(Strict):
    """What must be met on a target: limits, and how the load is driven."""

    name: str
    description: str
    limits: Limits
    load: Load = Load()

    def load_spec(self) -> LoadSpec:
        """The profiler's plain form of the load, with enough queries for every limited percentile."""
        return LoadSpec(
            scenario=self.load.scenario,
            batch=self.load.batch,
            min_seconds=self.load.min_seconds,
            max_seconds=self.load.max_seconds,
            min_count=self.load.min_count,
            max_other_load=self.load.max_other_load,
            percentiles=tuple(self.limits.percentiles()),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A fact in which a host is not the target: what, as the target has it, as the host has it."""

    what: str
    wanted: str
    found: str


def difference(target: Target, host: Host) -> Difference | None:
    """The first fact in which ``host`` is not ``target``, or None when the host is the target."""
    cores, memory_mb = target.cores or len(set(target.cpus or ())), target.memory_mb or 0
    facts = (
        ("arch", target.arch, host.arch, host.arch == target.arch),
        ("board", target.board, host.board or "not a known board", (host.board or "").startswith(target.board or "")),
        ("gpu", target.gpu, ", ".join(host.gpus) or "no NVIDIA GPU", target.gpu in host.gpus),
        ("isa", target.isa, host.isa, host.isa == target.isa),
        ("cpu", target.cpu_model, host.cpu_model, host.cpu_model == target.cpu_model),
        ("cores", f"at least {cores}", f"{host.cores} cores", host.cores >= cores),
        ("memory", f"at least {memory_mb} MB", f"{host.memory_mb:.0f} MB of memory", host.memory_mb >= memory_mb),
    )
    for what, wanted, found, same in facts:
        if wanted and not same:
            return Difference(what=what, wanted=wanted, found=found)
    return None


def mismatch(target: Target, host: Host) -> str | None:
    """Why a verdict for ``target`` cannot be given on ``host``, or None when the host is the target."""
    differs = difference(target, host)
    if differs is None:
        return None
    verb = "has" if differs.what in ("gpu", "cores", "memory") else "is"
    return f"this host {verb} {differs.found}, the target {verb} {differs.wanted}"


SpecT = TypeVar("SpecT", bound=BaseModel)


def read_toml(path: Path) -> dict[str, Any]:
    """Reads a TOML file.

    Raises:
        SpecError: It is missing, not readable, or not TOML (with line and column).
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as exc:
        raise SpecError(f"{path}: no such file", fix="check the path") from exc
    except (OSError, UnicodeDecodeError) as exc:
        raise SpecError(f"{path}: cannot be read", found=str(exc), allowed="a TOML file in UTF-8") from exc
    return parse_toml(text, str(path))


def parse_toml(text: str, where: str) -> dict[str, Any]:
    """Parses TOML; ``where`` names its source in the message.

    Raises:
        SpecError: It is not TOML (with line and column).
    """
    try:
        raw: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise SpecError(f"{where}: not valid TOML", found=str(exc), fix="mend the file at that line") from exc
    return raw


def parse(model: type[SpecT], raw: dict[str, Any], where: str, *, name: str | None = None) -> SpecT:
    """Validates ``raw``, telling the first problem as file, key, found, allowed and nearest match.

    Args:
        model: The pydantic model.
        raw: What was read.
        where: The file, for the message.
        name: The model's ``name`` where it is not a key of the file but the file's own name.

    Raises:
        SpecError: A key is unknown or missing, or a value has the wrong type or is out of range.
    """
    if name is not None:
        if "name" in raw:
            raise SpecError(
                f"{where}: unknown key 'name'", found="name", allowed=f"the name is the file's: {name}", fix="remove it"
            )
        raw = {"name": name} | raw
    try:
        return model.model_validate(raw)
    except ValidationError as exc:
        raise _explain(model, raw, exc, where, hidden=set() if name is None else {"name"}) from None


# What pydantic's error types mean to somebody who writes TOML; {…} are the error's own figures.
_ALLOWED = {
    "bool_type": "true or false",
    "int_type": "an integer",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "text in quotes",
    "tuple_type": "a list: [ … ]",
    "dict_type": "a table",
    "too_short": "a list of at least {min_length}",
    "too_long": "a list of at most {max_length}",
    "greater_than": "more than {gt}",
    "greater_than_equal": "{ge} or more",
    "less_than": "less than {lt}",
    "less_than_equal": "{le} or less",
}


def _explain(
    model: type[BaseModel], raw: dict[str, Any], exc: ValidationError, where: str, hidden: set[str]
) -> SpecError:
    errors = exc.errors(include_url=False)
    # A mistyped key shows twice, as unknown and as missing: the unknown one says more.
    first = next((e for e in errors if e["type"] == "extra_forbidden"), errors[0])
    path = _path(raw, first)
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".") or "(top level)"
    more = f" (and {others} more)" if (others := _count_others(raw, errors, first, path)) else ""
    if first["type"] == "extra_forbidden":
        owner = _owner(model, path[:-1])
        known = sorted(set(owner.model_fields) - (hidden if len(path) == 1 else set())) if owner else []
        return SpecError(
            f"{where}: unknown key {key!r}{more}",
            found=path[-1],
            allowed=", ".join(known) or None,
            fix=did_you_mean(str(path[-1]), known),
        )
    if first["type"] == "missing" and first["loc"][-1] == path[-1]:
        return SpecError(f"{where}: key {key!r} is missing{more}", allowed=f"{path[-1]} = …", fix="add it")
    branches = [e for e in errors if _path(raw, e) == path]  # several: a value that may be of several kinds
    told = [_allowed(model, path, e) for e in branches]
    allowed = "; or ".join(dict.fromkeys(text for text, _ in told))
    names = [name for _, names in told for name in names]
    found = first["input"]
    return SpecError(
        f"{where}: wrong value for key {key!r}{more}",
        found=repr(found),
        allowed=allowed,
        fix=did_you_mean(str(found), names) if names else None,
    )


def _path(raw: dict[str, Any], error: Mapping[str, Any]) -> list[str | int]:
    """Keys and list indices from the top of the file to the error, without pydantic's own marks."""
    path: list[str | int] = []
    node: Any = raw
    for part in error["loc"]:
        if isinstance(node, dict) and part in node:
            node = node[part]
        elif isinstance(node, list) and isinstance(part, int):
            if part >= len(node):
                break  # an item that a list of fixed length lacks
            node = node[part]
        elif error["type"] != "missing":
            break  # "[key]", or the name of a union's branch
        path.append(part)
    return path


def _count_others(
    raw: dict[str, Any], errors: Sequence[Mapping[str, Any]], first: Mapping[str, Any], path: list[str | int]
) -> int:
    """How many other keys are wrong; what only follows from the first error does not count."""
    others = {tuple(_path(raw, e)) for e in errors if (e["type"] == "missing") <= (first["type"] == "missing")}
    return sum(tuple(path[: len(other)]) != other for other in others)


def _allowed(model: type[BaseModel], path: list[str | int], error: Mapping[str, Any]) -> tuple[str, list[str]]:
    """What would have been right, in words; and the names to choose from, where there are any."""
    kind, figures = error["type"], error.get("ctx", {})
    if kind == "literal_error":
        text = str(figures["expected"])
        return text, [name.strip(" '") for name in text.replace(" or ", ",").split(",")]
    if isinstance(error["input"], list) and kind == "missing":
        return f"a list of at least {int(error['loc'][-1]) + 1}", []
    if kind == "model_type":
        owner = _owner(model, path)
        return f"a table with the keys {', '.join(sorted(owner.model_fields))}" if owner else "a table", []
    return _ALLOWED.get(kind, error["msg"].removeprefix("Value error, ")).format(**figures), []


def _owner(model: type[BaseModel], path: Sequence[str | int]) -> type[BaseModel] | None:
    """The model that the keys under ``path`` belong to, or None for a free-form table."""
    for part in path:
        info = model.model_fields.get(str(part))
        if info is None:
            continue  # a list index
        found = _model_in(info.annotation)
        if found is None:
            return None
        model = found
    return model


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for arg in getattr(annotation, "__args__", ()):
        found = _model_in(arg)
        if found is not None:
            return found
    return None
